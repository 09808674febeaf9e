/** `barge status` over three nodes, all up and one down; and reads and writes with one down. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { applyVersionMax } from "../../src/wire/versions.ts";
import { until, withCluster } from "../e2e/cluster.ts";
import { barge, Running } from "./program.ts";

setDefaultTimeout(60_000);

test("one row per node, whichever is asked, and one that is down", () =>
  withCluster({}, async (cluster) => {
    // Then nothing more comes into the log by itself.
    await until("the apply version is raised", async () => {
      const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
      return groups.every(({ applyVersion }) => applyVersion === applyVersionMax);
    });
    await cluster.converged();
    const leader = await cluster.leader();
    const [one, two, three] = cluster.nodes;
    const rows = async (...args: string[]): Promise<string[][]> => {
      const { status, out, err } = await barge(["status", ...args]);
      expect({ status, err }).toEqual({ status: 0, err: "" });
      expect(out).not.toContain("\u001b");
      return out
        .trimEnd()
        .split("\n")
        .map((line) => line.trim().split(/ {2,}/));
    };

    const [head, ...nodes] = await rows("--endpoints", two!.binary);
    expect(head!.join(" ")).toBe(
      "id address role term leader commit applied lag log disk version health",
    );
    expect(nodes.map(([id]) => id)).toEqual(["1", "2", "3"]);
    expect(nodes.map(([, address]) => address)).toEqual(cluster.nodes.map((node) => node.binary));
    for (const [id, , role, , led, , , lag, , , , health] of nodes) {
      expect(role).toBe(id === String(leader.id) ? "leader" : "follower");
      expect([led, lag, health]).toEqual([String(leader.id), "0", "ok"]);
    }

    // A second name of the same node makes no second row.
    const port = one!.binary.split(":")[1]!;
    const again = await rows("--endpoints", `localhost:${port},${two!.binary}`);
    expect(again.slice(1).map(([id]) => id)).toEqual(["1", "2", "3"]);

    await three!.kill();
    await cluster.leader();
    const down = await rows("--endpoints", cluster.endpoints);
    expect(down[3]).toEqual(["3", three!.binary, "unreachable"]);
    expect(down[4]!.join(" ")).toStartWith(`${three!.binary}: `);
    const { out } = await barge(["status", "--json", "--endpoints", one!.binary]);
    const { nodes: found } = JSON.parse(out) as {
      readonly nodes: readonly Record<string, unknown>[];
    };
    expect(found.map(({ nodeId, reachable }) => [nodeId, reachable])).toEqual([
      [1, true],
      [2, true],
      [3, false],
    ]);

    {
      await using watch = new Running(["status", "--watch", "--endpoints", one!.binary]);
      await watch.says(/(^id +address[^]*?){2}/m);
      watch.interrupt();
      await watch.ended();
      expect(watch.said).not.toContain("\u001b");
    }

    // The dead one first in the list costs no more than a moment.
    const endpoints = ["--endpoints", `${three!.binary},${two!.binary}`];
    const put = await barge(["put", "k", "v", ...endpoints]);
    expect([put.status, put.err]).toEqual([0, ""]);
    expect((await barge(["get", "k", ...endpoints])).out).toBe("v");
  }));

/** `barge group` on a real cluster: makes groups, shows, moves and removes them, and says in words what is wrong. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { withCluster } from "../e2e/cluster.ts";
import { createGroups, settled } from "../e2e/groups.ts";
import { barge } from "./program.ts";

setDefaultTimeout(60_000);

test("groups are made, listed, moved and removed", () =>
  withCluster({ nodes: 4 }, async (cluster) => {
    const [one] = cluster.nodes;
    const group = async (...args: string[]): Promise<string> => {
      const { status, out, err } = await barge(["group", ...args, "--endpoints", one!.binary]);
      expect({ args, status, err }).toEqual({ args, status: 0, err: "" });
      return out;
    };
    // Once there is a registry.
    await createGroups(one!, { members: [1, 2, 3] });
    expect(await group("create", "--name", "orders", "--members", "1,2,3")).toContain("orders");
    expect(await group("create", "--count", "60")).toBe("60 groups: 3-62\n");
    const list = await group("list");
    expect(list).toStartWith("62 groups besides group 0; node 1: ");
    expect(list).toEndWith("and 22 more: barge group list --all\n");
    expect((await group("list", "--all")).split("\n")).toHaveLength(65);
    const json = JSON.parse(await group("list", "--json", "--member", "4")) as { groups: object[] };
    expect(json.groups.length).toBeLessThan(62);

    const moved = JSON.parse(
      await group("move", "orders", "--members", "1,2,4", "--wait", "--json"),
    ) as object;
    expect(moved).toMatchObject({ id: 2, name: "orders", members: [1, 2, 4], leaving: [] });
    await settled(cluster, 2, [1, 2, 4]);
    const named = ["--group", "orders", "--endpoints", cluster.endpoints];
    expect(await barge(["put", "by-name", "v", ...named])).toMatchObject({ status: 0 });
    const byId = await barge(["get", "by-name", "--group", "2", "--endpoints", cluster.endpoints]);
    expect(byId).toMatchObject({ status: 0, out: "v" });
    const shown = await barge(["status", ...named]);
    expect(shown).toMatchObject({ status: 0, out: expect.stringContaining("no group 2") });
    const nameless = ["--group", "nobody", "--endpoints", cluster.endpoints];
    expect((await barge(["get", "k", ...nameless])).err).toContain("There is no group nobody");
    expect(await group("remove", "orders", "7")).toBe("removed 2, 7\n");
    expect(await group("remove", "7")).toBe("removed before\n");

    const put = await barge(["put", "k", "v", "--group", "3", "--endpoints", cluster.endpoints]);
    expect(put).toMatchObject({ status: 0 });
    for (const [args, words] of [
      [["remove", "orders"], "There is no group orders"],
      [["remove", "900"], "There is no group 900"],
      [["create", "--id", "7"], "never used again"],
      [["move", "3", "--members", "1,9"], "Node 9 cannot host groups"],
      [["move", "3", "--members", "1,1"], "each once"],
      [["create", "--members", "x"], "whole number"],
    ] as const) {
      const { status, err } = await barge(["group", ...args, "--endpoints", one!.binary]);
      expect({ args, fails: status !== 0, err }).toEqual({
        args,
        fails: true,
        err: expect.stringContaining(words) as string,
      });
    }
  }));

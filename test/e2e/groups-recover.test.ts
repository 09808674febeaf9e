/** Groups through what is done when a majority is lost for good: those that the survivor hosts go on with it, the others are gone. */
import { expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { applyVersionMax } from "../../src/wire/versions.ts";
import { barge } from "../cli/program.ts";
import { TestNode, until, withCluster } from "./cluster.ts";
import { raisedTo } from "./upgrade-round.ts";
import { createGroups, get, groupsOf, listGroups, put, settled } from "./groups.ts";

test("a survivor goes on with the groups that it hosts, makes new ones, and shares them with who joins", async () => {
  await withCluster({ nodes: 4 }, async (cluster) => {
    const [one, two] = cluster.nodes as [TestNode, TestNode];
    await createGroups(one, { id: 1, members: [1, 2, 3] });
    await createGroups(one, { id: 2, members: [2, 3, 4], name: "elsewhere" });
    await createGroups(one, { id: 3, members: [1, 2, 4], machine: "null" });
    for (const [id, members] of [
      [1, [1, 2, 3]],
      [2, [2, 3, 4]],
      [3, [1, 2, 4]],
    ] as const) {
      await settled(cluster, id, members);
    }
    await put(one, 0, "k", "of group 0");
    await put(one, 1, "k", "of group 1");
    await put(two, 2, "k", "of group 2");
    await cluster.converged();
    for (const node of cluster.nodes) await node.kill();

    const recovered = await barge(["recover", one.dataDir, "--yes"]);
    expect(recovered).toMatchObject({ status: 0 });
    expect(recovered.out).toContain("kept        2 more groups");
    expect(recovered.out).toContain("lost        groups without a copy in this folder: 2");
    const verified = await barge(["verify", one.dataDir]);
    expect(verified).toMatchObject({ status: 0 });

    await using node = new Alone(one);
    await node.start();
    expect(await get(node.node, 0, "k")).toBe("of group 0");
    await until("group 1 serves", async () => (await get(node.node, 1, "k")) === "of group 1");
    await put(node.node, 1, "k", "again");
    expect((await listGroups(node.node)).map(({ id, members }) => [id, members])).toEqual([
      [1, [1]],
      [3, [1]],
    ]);
    expect((await createGroups(node.node))[0]).toMatchObject({ id: 4, members: [1] });
    // Nor is what is lost made anew by whoever asks for it.
    await expect(createGroups(node.node, { id: 2 })).rejects.toThrow("never used again");
    await node.restart();
    await until("group 1 serves", async () => (await get(node.node, 1, "k")) === "again");
    const ids = (await groupsOf(node.node)).map(({ id }) => id).toSorted((a, b) => a - b);
    expect(ids).toEqual([0, 1, 3, 4, 0xffff_ffff]);
  });
}, 90_000);

test("a cluster that is restored from a backup begins a registry of its own", async () => {
  await withCluster({ nodes: 1 }, async (cluster) => {
    const [one] = cluster.nodes as [TestNode];
    await createGroups(one);
    await put(one, 0, "k", "v");
    const backup = join(cluster.dir, "one.barge");
    expect((await barge(["backup", backup, "--endpoints", one.binary])).status).toBe(0);
    await one.kill();
    rmSync(one.dataDir, { recursive: true });
    const made = await barge([
      "restore",
      backup,
      "--data-dir",
      one.dataDir,
      "--advertise",
      one.binary,
    ]);
    expect(made).toMatchObject({ status: 0 });

    await using alone = new Alone(one);
    await alone.start();
    expect(await get(alone.node, 0, "k")).toBe("v");
    // Of the old cluster's groups there is none.
    await until("there is a registry", async () => {
      const response = await alone.node.fetch("/v1/groups");
      return response.ok && ((await response.json()) as { groups: object[] }).groups.length === 0;
    });
    expect((await createGroups(alone.node))[0]).toMatchObject({ id: 1, members: [1] });
    await put(alone.node, 1, "k", "new");
    await alone.restart();
    await until("it is there", async () => (await get(alone.node, 1, "k")) === "new");
  });
}, 60_000);

test("while a member is older there is no registry, and words for it; then there is", async () => {
  const flags = ["--apply-version-max=2"];
  await withCluster({ flags }, async (cluster) => {
    const [one] = cluster.nodes as [TestNode];
    await raisedTo(cluster, 2);
    const refused = await one.fetch("/v1/groups", { method: "POST", body: "{}" });
    expect(refused.status).toBe(409);
    expect(await refused.text()).toContain("every member runs a version that knows it");
    for (const node of cluster.nodes) {
      await node.terminate();
      node.start([`--apply-version-max=${applyVersionMax}`]);
      await node.ready();
    }
    await raisedTo(cluster, applyVersionMax);
    const [group] = await createGroups(one);
    await settled(cluster, group!.id, [1, 2, 3]);
    await put(one, group!.id, "k", "v");
  });
}, 60_000);

/** Its folder, without the others that it was started with. */
class Alone implements AsyncDisposable {
  readonly node: TestNode;

  constructor({ id, dataDir, binary, listen, http }: TestNode) {
    const logFile = `${dataDir}.alone.log`;
    this.node = new TestNode({ id, dataDir, advertise: binary, listen, http, logFile, flags: [] });
  }

  async start(): Promise<void> {
    this.node.start();
    await this.node.ready();
  }

  async restart(): Promise<void> {
    await this.node.kill();
    await this.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node.kill();
  }
}

/** Groups through what is done when a majority is lost for good: those that the survivor hosts go on with it, the others are gone. */
import { expect, test } from "bun:test";
import { barge } from "../cli/program.ts";
import { TestNode, until, withCluster } from "./cluster.ts";
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

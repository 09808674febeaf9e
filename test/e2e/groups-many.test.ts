/** Many groups on one set of nodes: they form, each with a log of its own, and all of them come back through kill -9 of one node after the other. */
import { expect, test } from "bun:test";
import type { GroupStatus } from "../../src/client/index.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { createGroups, get, groupOf, groupsOf, listGroups, put } from "./groups.ts";

async function formed(node: TestNode, count: number): Promise<readonly GroupStatus[]> {
  let groups: readonly GroupStatus[] = [];
  await until(`node ${node.id} has ${count} groups with leaders`, async () => {
    groups = (await groupsOf(node)).filter(({ id }) => id > 0 && id <= count);
    return groups.length === count && groups.every(({ leader }) => leader !== 0);
  });
  return groups;
}

function allFormed(cluster: TestCluster, count: number): Promise<unknown> {
  return Promise.all(cluster.nodes.map((node) => formed(node, count)));
}

test("100 groups on three nodes form, with logs and indexes of their own", async () => {
  await withCluster({}, async (cluster) => {
    const [one, two, three] = cluster.nodes as [TestNode, TestNode, TestNode];
    const made = await createGroups(one, { count: 100 });
    expect(made.map(({ id }) => id)).toEqual(Array.from({ length: 100 }, (_, at) => at + 1));
    await allFormed(cluster, 100);
    const before = new Map(
      (await formed(two, 100)).map(({ id, commitIndex }) => [id, commitIndex]),
    );
    for (const id of [1, 50, 100]) await put(three, id, "k", `of ${id}`);
    for (const id of [1, 50, 100]) expect(await get(one, id, "k")).toBe(`of ${id}`);
    expect(await get(one, 2, "k")).toBeUndefined();
    for (const { id, commitIndex } of await formed(three, 100)) {
      const isWritten = [1, 50, 100].includes(id);
      if (isWritten) expect(commitIndex).toBeGreaterThan(before.get(id)!);
      else expect(await get(three, id, "k")).toBeUndefined();
    }
  });
}, 120_000);

test("20 groups all come back when one node after the other is killed and started again", async () => {
  await withCluster({}, async (cluster) => {
    const [one] = cluster.nodes as [TestNode];
    await createGroups(one, { count: 20 });
    await allFormed(cluster, 20);
    const written = new Map<number, string>();
    for (let round = 0; round < 2; round++) {
      for (const node of cluster.nodes) {
        await node.kill();
        const other = cluster.nodes.find((each) => each !== node)!;
        for (let id = 1; id <= 20; id++) {
          const value = `${round} without ${node.id}`;
          await put(other, id, "k", value);
          written.set(id, value);
        }
        node.start();
        await node.ready();
        await allFormed(cluster, 20);
        for (const [id, value] of written) expect(await get(node, id, "k")).toBe(value);
      }
    }
  });
}, 180_000);

test("groups that are being made while the leader of the registry is killed are made once", async () => {
  await withCluster({}, async (cluster) => {
    const [any] = cluster.nodes as [TestNode];
    await createGroups(any);
    const registry = await groupOf(any, 0xffff_ffff);
    const leader = cluster.nodes.find(({ id }) => id === registry!.leader)!;
    const other = cluster.nodes.find((node) => node !== leader)!;
    const making = createGroups(other, { count: 299 });
    await until("some are there", async () => {
      return ((await other.status()) as { summary?: { total: number } }).summary!.total > 20;
    });
    await leader.kill();
    const made = await making;
    expect(made).toHaveLength(299);
    const ids = (await listGroups(other)).map(({ id }) => id);
    expect(ids).toEqual(Array.from({ length: 300 }, (_, at) => at + 1));
    leader.start();
    await leader.ready();
    await allFormed(cluster, 300);
  });
}, 120_000);

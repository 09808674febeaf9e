/**
 * `barge recover` as README.md says, on real processes: two of three nodes are gone for good, and the survivor becomes a new cluster that has all that it
 * had, writes, grows, and is not spoken to by nodes of the old one.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import type { FolderReport } from "../../src/node/verify.ts";
import { barge, Running } from "../cli/program.ts";
import { newestLog, halve } from "./damage.ts";
import { loopbackPlace, type TestCluster, TestNode, until, withCluster } from "./cluster.ts";
import { HttpDoor } from "./doors.ts";
import { damageWal } from "./wal.ts";

setDefaultTimeout(60_000);

const writes = 60;
const valueOf = (i: number): string => `value${i}`.repeat(40);

async function filled(cluster: TestCluster): Promise<void> {
  await using client = connect({ endpoints: cluster.endpoints });
  await Promise.all(Array.from({ length: writes }, (_, i) => client.put(`key${i}`, valueOf(i))));
  await cluster.converged();
}

/** Two of three are gone, with their folders; what is left is stopped. */
async function survivor(cluster: TestCluster): Promise<TestNode> {
  await filled(cluster);
  const [first, ...others] = cluster.nodes as [TestNode, ...TestNode[]];
  await Promise.all(others.map((node) => node.kill()));
  await first.kill();
  return first;
}

async function expectAll(node: TestNode): Promise<void> {
  const door = new HttpDoor(node);
  for (let i = 0; i < writes; i += 7) {
    expect((await door.get(`key${i}`, 5_000))?.value).toBe(valueOf(i));
  }
}

async function reportOf(node: TestNode): Promise<FolderReport> {
  return JSON.parse((await barge(["verify", node.dataDir, "--json"])).out) as FolderReport;
}

test("it refuses a node that runs, asks, and without an answer changes nothing", () =>
  withCluster({}, async (cluster) => {
    const [first] = cluster.nodes;
    const running = await barge(["recover", first!.dataDir, "--yes"]);
    expect(running.status).toBe(fatalTable.data_dir_locked.status);
    const node = await survivor(cluster);
    const before = await reportOf(node);

    const nobody = await barge(["recover", node.dataDir]);
    expect(nobody.status).toBe(2);
    expect(nobody.err).toMatch(
      /may be lost what the other voters \(2, 3\) acknowledged after index/,
    );
    expect(nobody.err).toMatch(/add --yes/);
    await using asked = new Running(["recover", node.dataDir], { terminal: true });
    await asked.says(/Type yes:/);
    asked.type("no\n");
    expect((await asked.ended()).status).toBe(1);
    expect(asked.said).toMatch(/nothing was changed/);
    expect(await reportOf(node)).toEqual(before);

    await using agreed = new Running(["recover", node.dataDir], { terminal: true });
    await agreed.says(/Type yes:/);
    agreed.type("yes\n");
    expect((await agreed.ended()).status).toBe(0);
    expect((await reportOf(node)).groups[0]!.voters).toEqual([1]);
  }));

test("the survivor has all, writes, and grows; a node that comes back from the dead is not spoken to", () =>
  withCluster({}, async (cluster) => {
    const node = await survivor(cluster);
    const [, second, third] = cluster.nodes as [TestNode, TestNode, TestNode];
    const keptOf3 = join(cluster.dir, "kept");
    cpSync(third.dataDir, keptOf3, { recursive: true });
    for (const { dataDir } of [second, third]) rmSync(dataDir, { recursive: true });
    const before = await reportOf(node);

    const done = await barge(["recover", node.dataDir, "--yes", "--json"]);
    expect(done.status).toBe(0);
    const { clusterId, index } = JSON.parse(done.out) as { clusterId: string; index: number };
    expect(clusterId).not.toBe(before.node!.clusterId);
    expect(index).toBe(before.groups[0]!.lastIndex);
    const after = await reportOf(node);
    expect(after).toMatchObject({ whole: true, node: { clusterId, nodeId: 1 } });
    expect(after.groups[0]).toMatchObject({ voters: [1], firstIndex: index + 1, lastIndex: index });
    // To do it again comes to the same.
    expect((await barge(["recover", node.dataDir, "--yes"])).status).toBe(0);

    // With the flags that it always had.
    node.start();
    await node.ready();
    await expectAll(node);
    const { revision } = await (async () => {
      await using client = connect({ endpoints: node.binary });
      return client.put("after", "recovered");
    })();
    expect(revision).toBeGreaterThan(index);
    const list = await barge(["member", "list", "--endpoints", node.binary, "--json"]);
    expect((JSON.parse(list.out) as { members: unknown[] }).members).toHaveLength(1);

    // From the dead, at its old address and with the old list: it dials node 1 and is sent away.
    cpSync(keptOf3, third.dataDir, { recursive: true });
    third.start();
    await until("it is sent away", () => /belongs to cluster|unauthorised/.test(third.log()));
    expect((await node.group()).members.map(({ id }) => id)).toEqual([1]);
    expect((await third.group()).leader).toBe(0);
    await third.kill();

    for (const id of [4, 5]) {
      const joining = new TestNode({
        ...loopbackPlace(),
        id,
        dataDir: join(cluster.dir, `node${id}`),
        logFile: join(cluster.dir, `node${id}.log`),
        flags: [`--join=${node.binary}`],
      });
      cluster.nodes.push(joining);
      joining.start();
      await joining.ready();
      await expectAll(joining);
    }
    // Until the change is committed, and left behind, the one voter of before is needed for everything.
    await until("all are voters, and know it", async () => {
      const groups = await Promise.all(
        [node, ...cluster.nodes.slice(-2)].map((each) => each.group()),
      );
      return groups.every(({ members, joint, configurationIndex, commitIndex }) => {
        const isSettled = !joint && commitIndex >= configurationIndex;
        return isSettled && members.filter(({ voter }) => voter).length === 3;
      });
    });
    await node.kill();
    const last = cluster.nodes.at(-1)!;
    await until("another leads", async () => ![0, node.id].includes((await last.group()).leader));
    await expectAll(last);
  }));

test("of a survivor that lost its own log's end it says what is lost, and keeps the rest", () =>
  withCluster({}, async (cluster) => {
    await filled(cluster);
    await barge([
      "snapshot",
      "--all",
      "--tail-bytes",
      "0",
      "--endpoints",
      cluster.nodes[0]!.binary,
    ]);
    await new HttpDoor(cluster.nodes[0]!).put("late", valueOf(1), 5_000);
    await cluster.converged();
    const [node] = cluster.nodes as [TestNode];
    await Promise.all(cluster.nodes.map((each) => each.kill()));
    halve(newestLog(node, 8_000));
    const before = await reportOf(node);
    expect(before.nextStart.outcome).toBe("heals");
    const done = await barge(["recover", node.dataDir, "--yes"]);
    expect(done.err).toMatch(/is lost {5}index \d+ to \d+: this folder had it and lost it/);
    expect(done.status).toBe(0);
    expect((await reportOf(node)).whole).toBe(true);
    node.start();
    await node.ready();
    await expectAll(node);
    expect((await node.status()).health).toBe("ok");
  }));

test("damage in the middle of an old part of the log: verify says where, the node ends on it, recover keeps what is before", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const [node] = cluster.nodes as [TestNode];
    const door = new HttpDoor(node);
    // Each life begins a segment of its own; only of the two newest every byte is read by a start.
    for (let life = 0; life < 4; life++) {
      node.start();
      await node.ready();
      for (let i = 0; i < 5; i++) await door.put(`life${life}-key${i}`, valueOf(i), 5_000);
      await node.kill();
    }
    const folder = join(node.dataDir, "segments");
    const damaged = readdirSync(folder).find((name) =>
      readFileSync(join(folder, name)).includes("life0-key3"),
    );
    damageWal(join(folder, damaged!), "life0-key3", { reseal: true });
    const { damage, groups, nextStart } = await reportOf(node);
    const { damagedAt, lastIndex } = groups[0]!;
    expect(damage[0]).toContain(`the batch of group 0 at index ${damagedAt} `);
    expect(damage).toHaveLength(1);
    expect(damagedAt).toBeLessThan(lastIndex);
    expect(nextStart).toMatchObject({ outcome: "serves" });
    expect(nextStart.text).toMatch(/that ends the node, as nobody else has it/);
    node.start();
    expect((await node.ended()).status).toBe(fatalTable.corrupt_data.status);

    const done = await barge(["recover", node.dataDir, "--yes"]);
    expect(done.status).toBe(0);
    expect(done.err).toContain(`is lost     index ${damagedAt} to `);
    node.start();
    await node.ready();
    expect((await door.get("life0-key2", 5_000))?.value).toBe(valueOf(2));
    for (const lost of ["life0-key3", "life3-key0"])
      expect(await door.get(lost, 5_000)).toBeUndefined();
    await door.put("life4", "new", 5_000);
    await node.terminate();
    expect((await reportOf(node)).whole).toBe(true);
  }));

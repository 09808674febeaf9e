/**
 * Real file systems that run full under load. With little space a leader takes no writes and hands over; with none a node takes nothing more, but votes;
 * the others go on without it, and with space again it goes on by itself. Nothing is lost. Skips where nothing can be mounted.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BargeError } from "../../src/errors.ts";
import { fatalTable } from "../../src/fatal.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { HttpDoor } from "./doors.ts";
import { NodeDisk } from "./mount.ts";
import { Workload } from "./workload.ts";

const testMsMax = 90_000;
const valueBytes = 8_192;
const MiB = 1_048_576;
const diskSize = "192m";
const minFreeBytes = 32 * MiB;
const flags = [`--min-free-bytes=${minFreeBytes}`];

/** Runs `body` on a cluster whose first nodes have such disks. */
async function onSmallDisks(
  count: number,
  body: (cluster: TestCluster, disks: readonly NodeDisk[]) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "barge-disk-"));
  using mounts = new DisposableStack();
  mounts.defer(() => rmSync(dir, { recursive: true, force: true }));
  const disks: NodeDisk[] = [];
  for (let id = 1; id <= count; id++) {
    const disk = NodeDisk.make(join(dir, `disk${id}`), diskSize);
    if (disk === undefined) return;
    disks.push(mounts.use(disk));
  }
  await withCluster({ flags, dataDir: (id) => disks[id - 1]?.folder }, (cluster) =>
    body(cluster, disks),
  );
}

async function makeLeader(cluster: TestCluster, node: TestNode): Promise<void> {
  await until(`node ${node.id} leads`, async () => {
    if ((await cluster.leader()) === node) return true;
    await node.fetch("/v1/transfer-leader", {
      method: "POST",
      body: JSON.stringify({ to: node.id }),
    });
    return (await cluster.leader()) === node;
  });
}

/** What a write through that very node fails with. */
async function refusal(node: TestNode, key: string): Promise<string | undefined> {
  try {
    await new HttpDoor(node).put(key, "value", 1_000);
    return undefined;
  } catch (error) {
    if (!(error instanceof BargeError)) throw error;
    if (error.code === "disk_full") expect(error.outcome).toBe("not-applied");
    return error.code;
  }
}

const healthOf = async (node: TestNode): Promise<string> => (await node.status()).health;

test(
  "a leader with little space hands over, and follows",
  () =>
    onSmallDisks(1, async (cluster, [disk]) => {
      const [small] = cluster.nodes as [TestNode];
      await using workload = new Workload(cluster, { timeoutMs: 3_000 });
      workload.start();
      await workload.acknowledges(100);
      await makeLeader(cluster, small);
      const { unknown } = workload.counts;
      disk!.leave(minFreeBytes / 2);
      await until("it has handed over", async () => (await cluster.leader()) !== small);
      expect(small.log()).toMatch(/"reason":"its disk has little space"/);
      expect(await healthOf(small)).toBe("low_space");
      // It follows, passes writes on and answers reads; asked to lead, it does not.
      await workload.acknowledges(300);
      expect(await refusal(small, "through-it")).toBeUndefined();
      const { lastIndex } = await small.group();
      await until("it has what was written since", async () => {
        await workload.acknowledges(10);
        return (await small.group()).lastIndex > lastIndex;
      });
      expect((await new HttpDoor(small).get("through-it", 2_000))?.value).toBe("value");

      disk!.free();
      await until("it is well", async () => (await healthOf(small)) === "ok");
      await makeLeader(cluster, small);
      await workload.acknowledges(100);
      await workload.stop();
      // Handing over is a matter of milliseconds for those who write.
      expect(workload.counts.unknown).toBe(unknown);
      await cluster.converged();
      await workload.verify("all");
    }),
  testMsMax,
);

test(
  "where all have little space writes are refused and reads go on, over a change of leader too",
  () =>
    onSmallDisks(3, async (cluster, disks) => {
      await using workload = new Workload(cluster, { timeoutMs: 3_000 });
      workload.start();
      await workload.acknowledges(100);
      await workload.stop();
      expect(await refusal(cluster.nodes[0]!, "before")).toBeUndefined();
      for (const disk of disks) disk.leave(minFreeBytes / 2);
      for (const node of cluster.nodes) {
        // The first may come before the node has looked.
        await until("writes are refused", async () => (await refusal(node, "try")) === "disk_full");
      }
      for (const node of cluster.nodes) {
        expect(await refusal(node, "no")).toBe("disk_full");
      }
      const readable = async (nodes: readonly TestNode[]): Promise<void> => {
        for (const node of nodes) {
          await until("it can be read", async () => {
            const door = new HttpDoor(node);
            expect(await door.get("no", 2_000)).toBeUndefined();
            return (await door.get("before", 2_000))?.value === "value";
          });
        }
      };
      await readable(cluster.nodes);
      const leader = await cluster.leader();
      await leader.kill();
      const others = cluster.nodes.filter((node) => node !== leader);
      await cluster.leader(others);
      await readable(others);
      expect(await refusal(others[0]!, "no")).toBe("disk_full");

      leader.start();
      for (const disk of disks) disk.free();
      workload.start();
      await workload.acknowledges(100);
      await workload.stop();
      await cluster.converged();
      await workload.verify("all");
    }),
  testMsMax,
);

for (const who of ["leader", "follower"] as const) {
  test(
    `the disk of a ${who} runs full: it votes, the others go on, and it comes back by itself`,
    () =>
      onSmallDisks(1, async (cluster, [disk]) => {
        const [small, ...others] = cluster.nodes as [TestNode, TestNode, TestNode];
        await using workload = new Workload(cluster, { valueBytes, timeoutMs: 3_000 });
        workload.start();
        await workload.acknowledges(100);
        await makeLeader(cluster, who === "leader" ? small : others[0]);
        disk!.leave(minFreeBytes / 4);
        disk!.fill();
        await until("it has no space", async () => (await healthOf(small)) === "read_only");
        await until("it refuses", async () => (await refusal(small, "no")) === "disk_full");
        await workload.acknowledges(200);
        const { lastIndex } = await small.group();
        await workload.acknowledges(200);
        expect((await small.group()).lastIndex).toBe(lastIndex);
        // Its vote counts: without it there would be no majority.
        const leader = await cluster.leader();
        expect(leader).not.toBe(small);
        const { term } = await leader.group();
        await leader.kill();
        const [other] = others.filter((node) => node !== leader) as [TestNode];
        await until("another one leads", async () => {
          const group = await small.group();
          return group.leader === other.id && group.term > term;
        });
        leader.start();
        await workload.acknowledges(200);

        disk!.free();
        await until("it is well", async () => (await healthOf(small)) === "ok");
        await workload.acknowledges(200);
        await workload.stop();
        await cluster.converged();
        expect(await new HttpDoor(small).get("no", 2_000, "local")).toBeUndefined();
        await workload.verify("all");
      }),
    testMsMax,
  );
}

test(
  "a node that is killed on a full disk starts with the space of its ballast; without that it says what it needs",
  () =>
    onSmallDisks(1, async (cluster, [disk]) => {
      const [small] = cluster.nodes as [TestNode];
      await using workload = new Workload(cluster, { valueBytes, timeoutMs: 3_000 });
      workload.start();
      await workload.acknowledges(100);
      await small.kill();
      disk!.leave(0);
      disk!.fill();
      small.start();
      await until("it is there", async () => (await healthOf(small)) === "read_only");

      await small.kill();
      disk!.fill();
      small.start();
      const { status, stderr } = await small.ended();
      expect(stderr).toMatch(/barge: data_dir_not_writable: .*no space left/);
      expect(status).toBe(fatalTable.data_dir_not_writable.status);

      disk!.free();
      small.start();
      await workload.acknowledges(100);
      await workload.stop();
      await cluster.converged();
      await workload.verify("all");
    }),
  testMsMax,
);

/**
 * Syncs that take from 50 ms to 5 s on real nodes under load: heartbeats never wait for them, so nobody is elected for their sake; a stalled leader hands
 * over; a stalled follower slows nobody. Needs a C compiler (test/chaos/preload.c).
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildPreload, Surroundings } from "../chaos/preload.ts";
import { loopbackPlace, type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { Workload } from "./workload.ts";

const testMsMax = 90_000;
/** One after the other. */
const writesEach = 30;
const dir = mkdtempSync(join(tmpdir(), "barge-slow-sync-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const library = buildPreload(dir);
if (library === undefined)
  process.stderr.write("skip: no C compiler, so no disk can be slow here\n");
let made = 0;

interface Slowness {
  readonly cluster: TestCluster;
  readonly workload: Workload;
  /** Each sync of these nodes takes so much longer; 0 = no more. */
  slow(nodes: readonly TestNode[], delayMs: number): void;
}

/** Runs `body` under load; afterwards nothing is lost. */
async function underLoad(body: (slowness: Slowness) => Promise<void>): Promise<void> {
  const around = new Map<number, Surroundings>();
  const place = (id: number): ReturnType<typeof loopbackPlace> => {
    const own = new Surroundings(library!, join(dir, `around-${++made}`));
    around.set(id, own);
    return { ...loopbackPlace(), environment: own.environment };
  };
  await withCluster({ place }, async (cluster) => {
    // Writes that no quorum has yet may take several syncs.
    await using workload = new Workload(cluster, { timeoutMs: 20_000 });
    workload.start();
    await workload.acknowledges(200);
    // Noted in each folder once, by the event loop itself.
    await until("the apply version is noted", () =>
      cluster.nodes.every((node) => node.log().includes("the apply version is raised")),
    );
    const slow = (nodes: readonly TestNode[], delayMs: number): void => {
      for (const { id } of nodes) around.get(id)!.syncDelayMs = delayMs;
    };
    await body({ cluster, workload, slow });
    expect(workload.counts.unknown).toBe(0);
    // Where all were slow, whose slow sync ends first is better for a moment, and may get to lead.
    slow(cluster.nodes, 0);
    await workload.acknowledges(100);
    await workload.stop();
    await cluster.converged();
    await workload.verify("all");
  });
  for (const each of around.values()) each[Symbol.dispose]();
}

/** Syncs that this node has made in this life. */
const syncsOf = async (node: TestNode): Promise<number> => (await node.status()).syncs.count;

const slowTest = (what: string, body: (slowness: Slowness) => Promise<void>): void =>
  void test.skipIf(library === undefined)(what, () => underLoad(body), testMsMax);

for (const delayMs of [50, 300]) {
  slowTest(`${delayMs} ms on all disks: slow, and no election`, async (slowness) => {
    const { cluster, workload, slow } = slowness;
    const leader = await cluster.leader();
    const { term } = await leader.group();
    slow(cluster.nodes, delayMs);
    const before = await syncsOf(leader);
    await until("ten slow syncs", async () => (await syncsOf(leader)) >= before + 10);
    await workload.acknowledges(20);
    expect(await cluster.leader()).toBe(leader);
    expect((await leader.group()).term).toBe(term);
  });
}

slowTest("5 s on all disks: nobody is better, so nobody is elected", async (slowness) => {
  const { cluster, workload, slow } = slowness;
  const leader = await cluster.leader();
  const { term } = await leader.group();
  // The leader last: nobody gets ahead of it meanwhile.
  slow(await cluster.followers(), 5_000);
  slow([leader], 5_000);
  const before = await syncsOf(leader);
  await until("a slow sync has ended", async () => (await syncsOf(leader)) > before + 1);
  await workload.acknowledges(1);
  expect(await cluster.leader()).toBe(leader);
  expect((await leader.group()).term).toBe(term);
});

for (const delayMs of [1_000, 5_000]) {
  slowTest(`${delayMs} ms on a follower's disk slows nobody`, async (slowness) => {
    const { cluster, workload, slow } = slowness;
    const leader = await cluster.leader();
    const [follower] = await cluster.followers();
    const { term } = await leader.group();
    slow([follower!], delayMs);
    const before = await syncsOf(follower!);
    // The first may have begun before.
    await until("its disk is slow", async () => (await syncsOf(follower!)) > before + 1);
    const slowed = await syncsOf(follower!);
    // What goes through itself waits for its disk.
    await workload.eachAcknowledges(writesEach, follower!);
    // Who waits for its syncs has a write for each of them; other disks may be slow here too.
    expect((await syncsOf(follower!)) - slowed).toBeLessThan(writesEach / 2);
    expect((await leader.group()).term).toBe(term);
    expect(follower!.running).toBe(true);
  });

  slowTest(`${delayMs} ms on the leader's disk: it hands over`, async (slowness) => {
    const { cluster, workload, slow } = slowness;
    const leader = await cluster.leader();
    slow([leader], delayMs);
    await until("another one leads", async () => (await cluster.leader()) !== leader);
    expect(leader.log()).toMatch(/"reason":"a sync takes \d+ ms"/);
    await workload.acknowledges(500);
    expect(leader.running).toBe(true);
  });
}

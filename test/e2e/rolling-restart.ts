/**
 * Restarts all nodes of a cluster one after the other under load, by SIGTERM, and says for how long a write waited:
 *
 *     bun test/e2e/rolling-restart.ts --rounds 10 --writers 8
 *
 * A round restarts each of three nodes, the leader among them, which hands over first. Prints each round's longest wait, and at the end
 * median and worst; ends with 1 where a write was lost, its outcome is unknown, or one waited longer than 300 ms.
 */
import { type TestNode, withCluster } from "./cluster.ts";
import { numberFlags } from "./script-flags.ts";
import { Workload } from "./workload.ts";

const waitMsMax = 300;
/** Acknowledged before a node goes and after it is back, so that all of them write. */
const acknowledgedBetween = 300;

const { rounds, writers } = numberFlags({ rounds: 5, writers: 8 });

interface Restart {
  readonly what: string;
  /** By performance.now(): asked to stop, ended, and serving again. */
  readonly beganMs: number;
  readonly endedMs: number;
  readonly readyMs: number;
}

async function restart(node: TestNode): Promise<Restart> {
  const leads = (await node.group()).role === "leader";
  const beganMs = performance.now();
  const { status } = await node.terminate();
  const endedMs = performance.now();
  if (status !== 0) throw new Error(`node ${node.id} ended with ${status}\n${node.logTail()}`);
  node.start();
  await node.ready();
  const what = `node ${node.id}${leads ? " (leader)" : ""}`;
  return { what, beganMs, endedMs, readyMs: performance.now() };
}

/** When the write that waited longest was acknowledged, as seen from the restarts of the round. */
function momentOf(atMs: number, restarts: readonly Restart[]): string {
  const last = restarts.findLast(({ beganMs }) => beganMs <= atMs);
  if (last === undefined) return "before any restart";
  const afterMs = Math.round(atMs - last.beganMs);
  const phase = atMs < last.endedMs ? "stopping" : atMs < last.readyMs ? "starting" : "back";
  return `${afterMs} ms after the signal to ${last.what}, which was ${phase}`;
}

await withCluster({}, async (cluster) => {
  await using workload = new Workload(cluster, {
    writersPerClient: writers,
    // Those would wait for the very node that is away.
    httpWritersPerNode: 0,
  });
  workload.start();
  const waits: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    workload.counts.longestMs = 0;
    const restarts: Restart[] = [];
    for (const node of cluster.nodes) {
      await workload.acknowledges(acknowledgedBetween);
      restarts.push(await restart(node));
      await workload.acknowledges(acknowledgedBetween);
    }
    const { longestMs, longestEndedMs } = workload.counts;
    waits.push(longestMs);
    const told = restarts.map(
      ({ what, beganMs, endedMs }) => `${what} gone in ${Math.round(endedMs - beganMs)} ms`,
    );
    process.stdout.write(
      `round ${round}: longest wait ${Math.round(longestMs)} ms, ${momentOf(longestEndedMs, restarts)}; ${told.join(", ")}\n`,
    );
  }
  await workload.stop();
  await cluster.converged();
  await workload.verify("all");

  const sorted = waits.toSorted((a, b) => a - b);
  const median = Math.round(sorted[Math.floor(sorted.length / 2)]!);
  const worst = Math.round(sorted.at(-1)!);
  const { unknown, notApplied } = workload.counts;
  const missed = worst > waitMsMax || unknown + notApplied > 0;
  if (missed) process.exitCode = 1;
  process.stdout.write(
    `${rounds} rolling restarts: longest wait of a write, median ${median} ms, worst ${worst} ms${missed ? "  MISSED" : ""}\n${workload.summary()}\n`,
  );
});

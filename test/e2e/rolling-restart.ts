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

async function restart(node: TestNode): Promise<string> {
  const leads = (await node.group()).role === "leader";
  const beganMs = performance.now();
  const { status } = await node.terminate();
  const downMs = performance.now() - beganMs;
  if (status !== 0) throw new Error(`node ${node.id} ended with ${status}\n${node.logTail()}`);
  node.start();
  await node.ready();
  return `node ${node.id}${leads ? " (leader)" : ""} gone in ${Math.round(downMs)} ms`;
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
    const told: string[] = [];
    for (const node of cluster.nodes) {
      await workload.acknowledges(acknowledgedBetween);
      told.push(await restart(node));
      await workload.acknowledges(acknowledgedBetween);
    }
    const { longestMs } = workload.counts;
    waits.push(longestMs);
    process.stdout.write(
      `round ${round}: longest wait ${Math.round(longestMs)} ms; ${told.join(", ")}\n`,
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

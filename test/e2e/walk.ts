/**
 * The walk of membership.test.ts as often as one likes, each on a cluster of its own, with the moments drawn by chance:
 *
 *     bun test/e2e/walk.ts --rounds 20 --seed 7
 *
 * Prints a line per walk, one JSON line at the end, and ends with 1 where anything was lost.
 */
import { Random } from "../sim/random.ts";
import { withCluster } from "./cluster.ts";
import { membershipWalk } from "./membership-walk.ts";
import { numberFlags } from "./script-flags.ts";
import { Workload } from "./workload.ts";

const { rounds, seed, writers } = numberFlags({
  rounds: 20,
  seed: Date.now() % 1_000_000,
  writers: 16,
});

process.stdout.write(`walk: ${rounds} rounds, seed ${seed}\n`);
const gapsMs: number[] = [];
let acknowledged = 0;
for (let round = 1; round <= rounds && process.exitCode === undefined; round++) {
  try {
    await withCluster({}, async (cluster) => {
      await using workload = new Workload(cluster, {
        writersPerClient: Math.ceil(writers / 2),
        httpWritersPerNode: 0,
      });
      const walk = await membershipWalk(cluster, workload, new Random(seed + round));
      gapsMs.push(Math.round(walk.longestGapMs));
      acknowledged += workload.counts.acknowledged;
      const text = `${walk.steps.join("; ")}; ${walk.seconds.toFixed(1)} s, longest gap ${Math.round(walk.longestGapMs)} ms; ${workload.summary()}`;
      process.stdout.write(`round ${round}: ${text}\n`);
    });
  } catch (error) {
    process.stderr.write(
      `seed ${seed}, round ${round}: ${error instanceof Error ? error.stack : String(error)}\n`,
    );
    process.exitCode = 1;
  }
}
const longestGapMs = Math.max(...gapsMs);
const medianGapMs = gapsMs.toSorted((a, b) => a - b)[Math.floor(gapsMs.length / 2)];
process.stdout.write(
  `${JSON.stringify({ walk: "3 to 5 to 3", seed, rounds: gapsMs.length, acknowledged, lost: 0, medianGapMs, longestGapMs })}\n`,
);

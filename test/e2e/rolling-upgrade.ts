/**
 * A rolling upgrade under load [Z-98], again and again, from an older build to the one of today:
 *
 *     bun test/e2e/rolling-upgrade.ts --rounds 5 --writers 8 [--from COMMIT] [--evidence]
 *
 * The older build is today's sources with the versions of before, or those of a commit as they were. In each round a cluster of three is formed by the
 * older build, each node is upgraded, one of them is taken back on the way and upgraded again; the apply version is raised; then all are restarted
 * once more. Prints one line per round; ends with 1 where a write was lost or its outcome is unknown.
 */
import { parseArgs } from "node:util";
import { recordEvidence } from "../evidence.ts";
import { buildOfCommit, changedBuild } from "./builds.ts";
import { type TestNode, thisBuild, withCluster } from "./cluster.ts";
import { change, raisedTo } from "./upgrade-round.ts";
import { Workload } from "./workload.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";

const acknowledgedBetween = 300;

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    writers: { type: "string", default: "8" },
    from: { type: "string" },
    /** Notes the run in test/evidence.jsonl. */
    evidence: { type: "boolean", default: false },
  },
});
const older = values.from === undefined ? changedBuild("older") : await buildOfCommit(values.from);

const startMs = performance.now();
const amounts = { rounds: Number(values.rounds), writes: 0, reads: 0 };
for (let round = 1; round <= Number(values.rounds); round++) {
  await withCluster({ build: older }, async (cluster) => {
    await using workload = new Workload(cluster, {
      writersPerClient: Number(values.writers),
      httpWritersPerNode: 0,
    });
    workload.start();
    const go = async (node: TestNode, build = thisBuild): Promise<void> => {
      await workload.acknowledges(acknowledgedBetween);
      await change(node, build);
      await workload.acknowledges(acknowledgedBetween);
    };
    const order = cluster.nodes.toSorted(() => Math.random() - 0.5);
    const [first, second, third] = order as [TestNode, TestNode, TestNode];
    await go(first);
    await go(second);
    await go(first, older);
    await go(first);
    await go(third);
    await raisedTo(cluster, applyVersionMax);
    for (const node of cluster.nodes) await go(node);
    await workload.stop();
    const { lastIndex, stateHash } = await cluster.converged();
    await workload.verify("all");
    const { unknown, notApplied, longestMs } = workload.counts;
    if (unknown + notApplied > 0) process.exitCode = 1;
    amounts.writes += workload.counts.acknowledged;
    amounts.reads += workload.counts.reads;
    process.stdout.write(
      `round ${round}: from ${older.name}, ${order.map(({ id }) => id).join(" ")}: ${workload.summary()}; ` +
        `longest wait ${Math.round(longestMs)} ms; ${lastIndex} entries, state ${stateHash} on all\n`,
    );
  });
}
if (values.evidence) {
  const seconds = Math.round((performance.now() - startMs) / 1_000);
  const findings = process.exitCode === 1 ? ["writes of unknown outcome"] : [];
  recordEvidence({ kind: "upgrades", seconds, amounts, findings });
}

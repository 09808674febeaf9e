/**
 * The kills of kill9.test.ts for as long as one likes, with values large enough that the log rotates, is flushed and retired meanwhile:
 *
 *     bun test/e2e/soak-kill9.ts --minutes 60 --seed 7 --value-bytes 1024 --evidence 1
 *
 * Prints a line per round, one JSON line at the end, and ends with 1 where anything was lost. With some 300 MB written and more, the log
 * must have been retired: a node then holds less log than was written.
 */
import { recordEvidence } from "../evidence.ts";
import { Random } from "../sim/random.ts";
import { type TestCluster, until, withCluster } from "./cluster.ts";
import { killRound } from "./kill-round.ts";
import { numberFlags } from "./script-flags.ts";
import { Workload } from "./workload.ts";

const flags = numberFlags({
  minutes: 10,
  seed: Date.now() % 1_000_000,
  "value-bytes": 1_024,
  writers: 64,
  /** 1: append what this run showed to test/evidence.jsonl. */
  evidence: 0,
});
const { minutes, seed } = flags;
/** Above this much written, segments wholly below what is flushed and replicated must be gone. */
const retireBytes = 700e6;

let rounds = 0;
let writes = 0;
const startMs = performance.now();
const elapsedMs = (): number => performance.now() - startMs;

process.stdout.write(`soak: ${minutes} minutes, seed ${seed}\n`);
try {
  await withCluster({}, soak);
} catch (error) {
  process.stderr.write(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}\n`);
  evidence([error instanceof Error ? error.message.split("\n", 1)[0]! : String(error)]);
  process.exitCode = 1;
}

function evidence(findings: readonly string[]): void {
  if (flags.evidence === 0) return;
  const seconds = Math.round(elapsedMs() / 1_000);
  recordEvidence({ kind: "kills", seconds, amounts: { rounds, writes }, findings });
}

async function soak(cluster: TestCluster): Promise<void> {
  const random = new Random(seed);
  await using workload = new Workload(cluster, {
    writersPerClient: Math.ceil(flags.writers / 2),
    valueBytes: flags["value-bytes"],
  });
  let servingMsMax = 0;
  while (elapsedMs() < minutes * 60_000) {
    const { what, servingMs } = await killRound(cluster, workload, random);
    servingMsMax = Math.max(servingMsMax, servingMs);
    rounds++;
    writes = workload.counts.acknowledged;
    const seconds = Math.round(elapsedMs() / 1_000);
    const log = await logMegabytes(cluster);
    process.stdout.write(
      `${seconds} s, round ${rounds}: ${what}, served again after ${servingMs} ms; ${workload.summary()}; log ${log.join(" ")} MB\n`,
    );
  }
  await workload.verify("all");
  const writtenBytes = (workload.counts.acknowledged / 2) * flags["value-bytes"];
  if (writtenBytes > retireBytes) await logRetired(cluster, writtenBytes);
  const { counts } = workload;
  const logMB = await logMegabytes(cluster);
  process.stdout.write(
    `${JSON.stringify({ soak: "kill9", seed, minutes, rounds, servingMsMax, ...counts, lost: 0, logMB })}\n`,
  );
  evidence([]);
}

async function logMegabytes(cluster: TestCluster): Promise<number[]> {
  const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
  return groups.map(({ logBytes }) => Math.round(logBytes / 1e6));
}

async function logRetired(cluster: TestCluster, writtenBytes: number): Promise<void> {
  await until("every node gave up the older part of its log", async () => {
    const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
    return groups.every(
      ({ firstIndex, logBytes }) => firstIndex > 1 && logBytes < writtenBytes / 2,
    );
  });
}

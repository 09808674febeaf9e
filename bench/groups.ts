/**
 * What it costs to spread a load over many groups: `barge bench put` with the same load in all over 1, 16, 48 and 1,000 groups, in turn within each round, so
 * that what the machine does meanwhile falls on all alike.
 *
 *     bun bench/groups.ts [--groups 16,48,1000] [--in-flight 1000,4000,16000] [--rounds 5] [--seconds 5] [--warmup 2]
 *                         [--value-bytes 256] [--dir DIR] [--out FILE]
 *
 * Prints Markdown: medians with their spread, and throughput as a share of that of one group in the same round, of which the median is taken, not the share of the
 * medians. It takes about ten seconds a run, so five minutes for each number in flight with what is set here.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { LoadReport } from "../src/cli/bench/report.ts";
import { spread } from "./peers/table.ts";

interface Run {
  readonly round: number;
  readonly report: LoadReport;
}

const grouped = (value: number): string => value.toLocaleString("en-US");
const perSecond = (value: number): string => grouped(Math.round(value / 100) * 100);
const milliseconds = (value: number): string => value.toFixed(value < 1 ? 2 : 1);
const percent = (value: number): string => `${Math.round(value * 100)} %`;

function withSpread(values: readonly number[], format: (value: number) => string): string {
  const { median, min, max } = spread(values);
  return `${format(median)} (${format(min)} to ${format(max)})`;
}

function bench(options: readonly string[]): LoadReport {
  const main = join(import.meta.dir, "../src/main.ts");
  const run = Bun.spawnSync([process.execPath, main, "bench", "put", ...options, "--json"], {
    stderr: "pipe",
  });
  if (run.exitCode !== 0) throw new Error(`bench ${options.join(" ")}: ${run.stderr.toString()}`);
  return JSON.parse(run.stdout.toString()) as LoadReport;
}

/** Throughput through that of one group, by rounds that have both. */
function sharesOf(runs: readonly Run[], ones: readonly Run[]): number[] {
  return runs.flatMap(({ round, report }) => {
    const one = ones.find((other) => other.round === round);
    return one === undefined ? [] : [report.operationsPerSecond / one.report.operationsPerSecond];
  });
}

export function tableOf(runs: readonly Run[]): string {
  const lines = [
    "| in flight | groups | per second | of one group | p50 ms | p99 ms | failed |",
    "| --- | --- | --- | --- | --- | --- | --- |",
  ];
  const of = (inFlight: number, groups: number): Run[] =>
    runs.filter(({ report }) => report.inFlight === inFlight && report.groups === groups);
  for (const inFlight of new Set(runs.map(({ report }) => report.inFlight))) {
    for (const groups of new Set(runs.map(({ report }) => report.groups))) {
      const found = of(inFlight, groups);
      if (found.length === 0) continue;
      const reports = found.map(({ report }) => report);
      const shares = groups === 1 ? [] : sharesOf(found, of(inFlight, 1));
      const cells = [
        grouped(inFlight),
        grouped(groups),
        withSpread(
          reports.map(({ operationsPerSecond }) => operationsPerSecond),
          perSecond,
        ),
        shares.length === 0 ? "" : withSpread(shares, percent),
        withSpread(
          reports.map(({ latencyMs }) => latencyMs.p50),
          milliseconds,
        ),
        withSpread(
          reports.map(({ latencyMs }) => latencyMs.p99),
          milliseconds,
        ),
        grouped(reports.reduce((sum, { errors, unknown }) => sum + errors + unknown, 0)),
      ];
      lines.push(`| ${cells.join(" | ")} |`);
    }
  }
  return lines.join("\n");
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      groups: { type: "string", default: "16,48,1000" },
      "in-flight": { type: "string", default: "1000" },
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "5" },
      warmup: { type: "string", default: "2" },
      "value-bytes": { type: "string", default: "256" },
      dir: { type: "string" },
      out: { type: "string" },
    },
  });
  const rounds = Number(values.rounds);
  // Group 0 alone is what all others are compared with.
  const groups = [...new Set(["1", ...values.groups.split(",")])];
  const points = values["in-flight"]
    .split(",")
    .flatMap((inFlight) => groups.map((count) => [inFlight, count] as const));
  const runs: Run[] = [];
  for (let round = 1; round <= rounds; round++) {
    // Each begins once: nobody always runs after the one that leaves the disk busy.
    const first = (round - 1) % points.length;
    for (const [inFlight, count] of [...points.slice(first), ...points.slice(0, first)]) {
      const options = ["--groups", count, "--in-flight", inFlight];
      options.push("--value-bytes", values["value-bytes"]);
      options.push("--seconds", values.seconds, "--warmup", values.warmup);
      if (values.dir !== undefined) options.push("--dir", values.dir);
      const report = bench(options);
      runs.push({ round, report });
      const { operationsPerSecond, latencyMs, environment } = report;
      process.stderr.write(
        `${round} of ${rounds}, ${inFlight} in flight, ${count} groups: ${perSecond(operationsPerSecond)}/s, p50 ${milliseconds(latencyMs.p50)} ms, load ${environment.load} before\n`,
      );
    }
  }
  runs.sort((a, b) => a.report.inFlight - b.report.inFlight || a.report.groups - b.report.groups);
  const { environment, valueBytes, keySpace, seconds, connections } = runs[0]!.report;
  process.stdout.write(
    `Puts of ${valueBytes} B over ${grouped(keySpace)} keys, ${connections} client with a connection to each node, ${rounds} rounds of ${Math.round(seconds)} s; ${environment.cores} cores, ${environment.filesystem}, Bun ${environment.bun}, commit ${environment.commit}.\n\n${tableOf(runs)}\n`,
  );
  if (values.out !== undefined) await Bun.write(values.out, `${JSON.stringify({ runs })}\n`);
}

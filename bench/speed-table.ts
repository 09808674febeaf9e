/**
 * The table of the README: each load several times, all loads in turn, so that what the machine does meanwhile falls on all alike, with the disk beside
 * them. `bun bench/speed-table.ts [--runs 5] [--seconds 5] [--warmup 2] [--only NAME,…] [--out FILE]`; prints Markdown, medians with their spread.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { DiskReport } from "../src/cli/bench/disk.ts";
import type { LoadReport } from "../src/cli/bench/report.ts";
import { spread as spreadOf } from "./peers/table.ts";

/** By name: what it is, and the options of `barge bench`. */
const loads: Readonly<Record<string, readonly [what: string, options: string]>> = {
  "put-1": ["put 256 B, one at a time", "put --in-flight 1"],
  "put-64": ["put 256 B, 64 in flight", "put --in-flight 64"],
  "put-1000": ["put 256 B, 1,000 in flight", "put"],
  "put-1k": ["put 1 KiB, 1,000 in flight", "put --value-bytes 1024"],
  "put-16k": [
    "put 16 KiB, 256 in flight, 10,000 keys",
    "put --in-flight 256 --value-bytes 16384 --key-space 10000",
  ],
  "put-10000": ["put 16 B, 10,000 in flight", "put --in-flight 10000 --value-bytes 16"],
  "batch-100": ["put 16 B, 64 requests of 100", "put --batch 100 --in-flight 64 --value-bytes 16"],
  "batch-1000": [
    "put 16 B, 64 requests of 1,000",
    "put --batch 1000 --in-flight 64 --value-bytes 16",
  ],
  "batch-null": [
    "the same, the log alone",
    "put --batch 1000 --in-flight 64 --value-bytes 16 --machine null",
  ],
  "get-64": ["linearizable get 256 B, 64 in flight", "get --in-flight 64"],
  "get-1000": ["linearizable get 256 B, 1,000 in flight", "get"],
};

function bench<Report>(options: string): Report {
  const main = join(import.meta.dir, "../src/main.ts");
  const run = Bun.spawnSync([process.execPath, main, "bench", ...options.split(" "), "--json"], {
    stderr: "pipe",
  });
  if (run.exitCode !== 0) throw new Error(`bench ${options}: ${run.stderr.toString()}`);
  return JSON.parse(run.stdout.toString()) as Report;
}

function spread(values: readonly number[], format: (value: number) => string): string {
  const { median, min, max } = spreadOf(values);
  return `${format(median)} (${format(min)} to ${format(max)})`;
}

const perSecond = (value: number): string =>
  (value < 10_000 ? Math.round(value) : Math.round(value / 100) * 100).toLocaleString("en-US");
const milliseconds = (value: number): string => value.toFixed(value < 1 ? 2 : 1);

function table(reports: ReadonlyMap<string, readonly LoadReport[]>): string {
  const lines = [
    "| load | options | per second | p50 ms | p99 ms |",
    "| --- | --- | --- | --- | --- |",
  ];
  for (const [name, runs] of reports) {
    const [what, options] = loads[name]!;
    const rate = spread(
      runs.map(({ operationsPerSecond }) => operationsPerSecond),
      perSecond,
    );
    const p50 = spread(
      runs.map(({ latencyMs }) => latencyMs.p50),
      milliseconds,
    );
    const p99 = spread(
      runs.map(({ latencyMs }) => latencyMs.p99),
      milliseconds,
    );
    lines.push(`| ${what} | \`${options}\` | ${rate} | ${p50} | ${p99} |`);
  }
  return lines.join("\n");
}

function diskLine(reports: readonly DiskReport[]): string {
  const points = [
    [4_096, 1],
    [4_096, 3],
    [262_144, 3],
  ] as const;
  const found = points.map(([bytes, writers]) => {
    const runs = reports.map(({ results }) =>
      results.find((point) => point.bytes === bytes && point.writers === writers)!,
    );
    const p50 = spread(
      runs.map(({ p50Ms }) => p50Ms),
      milliseconds,
    );
    const rate = spread(
      runs.map(({ megabytesPerSecond }) => megabytesPerSecond),
      (value) => value.toFixed(0),
    );
    return `${bytes / 1_024} KiB, ${writers} ${writers === 1 ? "writer" : "writers"}: p50 ${p50} ms, ${rate} MB/s`;
  });
  return `The disk beside them (\`bench disk\`, append and fdatasync): ${found.join("; ")}.`;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      runs: { type: "string", default: "5" },
      seconds: { type: "string", default: "5" },
      warmup: { type: "string", default: "2" },
      only: { type: "string" },
      out: { type: "string" },
    },
  });
  const names = values.only?.split(",") ?? Object.keys(loads);
  const unknown = names.find((name) => loads[name] === undefined);
  if (unknown !== undefined) {
    throw new Error(`--only ${unknown}: there are ${Object.keys(loads).join(", ")}`);
  }
  const reports = new Map<string, LoadReport[]>(names.map((name) => [name, []]));
  const disks: DiskReport[] = [];
  for (let run = 1; run <= Number(values.runs); run++) {
    disks.push(bench<DiskReport>("disk --seconds 0.3"));
    for (const name of names) {
      const timing = `--seconds ${values.seconds} --warmup ${values.warmup}`;
      const report = bench<LoadReport>(`${loads[name]![1]} ${timing}`);
      reports.get(name)!.push(report);
      const { operationsPerSecond, latencyMs } = report;
      process.stderr.write(
        `${run} ${name}: ${perSecond(operationsPerSecond)}/s, p50 ${milliseconds(latencyMs.p50)} ms\n`,
      );
    }
  }
  process.stdout.write(`${table(reports)}\n\n${diskLine(disks)}\n`);
  if (values.out !== undefined) {
    await Bun.write(
      values.out,
      `${JSON.stringify({ disks, loads: Object.fromEntries(reports) })}\n`,
    );
  }
}

/**
 * Steady load for a long time, with flushes, cuts of the log and snapshots all along: memory, open files, log, write-ahead log and folder have to stay flat, and
 * the slowest calls as quick as they were.
 *
 *     bun bench/steady-load.ts --minutes 20 [--rate 2000] [--value-bytes 1024] [--keys 50000] [--chart bench/steady-load.svg]
 *
 * Three daemons; puts begin at an even rate whether or not the ones before have ended, and each is timed from when it was due. Each minute a backup is read
 * from a follower, which takes a checkpoint and a stream of all its keys. Prints a line per sample and a chart; ends with 1 where something grew from the second third of the
 * run to the last, or a call failed.
 */
import { readdirSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { BargeError } from "../src/errors.ts";
import { connect } from "../src/client/index.ts";
import { type TestCluster, type TestNode, withCluster } from "../test/e2e/cluster.ts";
import { grown, type Sample, worst } from "../test/e2e/growth.ts";
import { chart } from "./chart.ts";

const { values: given } = parseArgs({
  options: {
    minutes: { type: "string", default: "20" },
    rate: { type: "string", default: "2000" },
    "value-bytes": { type: "string", default: "1024" },
    keys: { type: "string", default: "50000" },
    chart: { type: "string", default: "" },
  },
});
const minutes = Number(given.minutes);
const rate = Number(given.rate);
const valueBytes = Number(given["value-bytes"]);
const keyCount = Number(given.keys);

const samples = 60;
const stepMs = 5;
const backupEveryMs = 60_000;
/** So that the log is cut, and keys are flushed, many times. */
const flags = ["--compact-bytes=67108864", "--log-level=warn"];
/** By name: what may come and go besides a share of it, and how the chart calls it. */
const figures = {
  rssMB: { slack: 40, title: "memory of a node", unit: "MB" },
  files: { slack: 8, title: "open files", unit: "" },
  logMB: { slack: 32, title: "log", unit: "MB" },
  kvWalMB: { slack: 64, title: "write-ahead log of the keys", unit: "MB" },
  folderMB: { slack: 96, title: "data folder", unit: "MB" },
  p99Ms: { slack: 10, title: "p99 of a put", unit: "ms" },
} as const;

let latenciesMs: number[] = [];
let failures = 0;
let puts = 0;
let backups = 0;
let stopping = false;

const taken: Sample[] = [];
await withCluster({ flags }, async (cluster) => {
  const load = Promise.all([write(cluster), readBackups(cluster)]);
  for (let at = 1; at <= samples; at++) {
    await Promise.race([Bun.sleep((minutes * 60_000) / samples), load]);
    const sample = { ...worst(await Promise.all(cluster.nodes.map(sampleOf))), ...latencies() };
    taken.push(sample);
    const text = Object.entries(sample).map(([name, value]) => `${name} ${value}`);
    process.stdout.write(
      `${at}/${samples}: ${puts} puts, ${backups} backups; ${text.join(", ")}\n`,
    );
  }
  stopping = true;
  await load;
  await cluster.converged();
});
const slack = Object.entries(figures).map(([name, figure]) => [name, figure.slack] as const);
const findings = [...grown(taken, Object.fromEntries(slack))];
if (failures > 0) findings.push(`${failures} calls failed`);
if (given.chart !== "") {
  const heading = `${minutes} minutes of ${rate} puts/s of ${valueBytes} B over ${keyCount} keys, the worst of three nodes`;
  const panels = Object.entries(figures).map(([name, { title, unit }]) => ({
    title,
    unit,
    values: taken.map((sample) => sample[name]!),
  }));
  writeFileSync(given.chart, chart(heading, panels, minutes));
}
process.stdout.write(`${JSON.stringify({ steadyLoad: minutes, rate, puts, backups, findings })}\n`);
if (findings.length > 0) process.exitCode = 1;

/** At its times, late or not: what waits behind a slow call is timed as who waits feels it. */
async function write(cluster: TestCluster): Promise<void> {
  await using client = connect({ endpoints: cluster.endpoints });
  const value = "v".repeat(valueBytes);
  const startMs = performance.now();
  let begun = 0;
  const underWay = new Set<Promise<void>>();
  while (!stopping) {
    await Bun.sleep(stepMs);
    const due = Math.floor(((performance.now() - startMs) / 1_000) * rate);
    for (; begun < due; begun++) {
      const dueMs = startMs + (begun / rate) * 1_000;
      // Each key in turn, spread over all of them.
      const key = `key/${(begun * 7_919) % keyCount}`;
      const call = client.put(key, value).then(
        () => {
          puts++;
          latenciesMs.push(performance.now() - dueMs);
        },
        (error: unknown) => {
          if (!(error instanceof BargeError)) throw error;
          failures++;
        },
      );
      underWay.add(call);
      void call.finally(() => underWay.delete(call));
    }
  }
  await Promise.all(underWay);
}

async function readBackups(cluster: TestCluster): Promise<void> {
  for (;;) {
    const untilMs = performance.now() + backupEveryMs;
    while (!stopping && performance.now() < untilMs) await Bun.sleep(200);
    if (stopping) return;
    const [follower] = await cluster.followers();
    const response = await follower!.fetch("/v1/backup", {}, backupEveryMs);
    // Read through and dropped.
    for await (const _ of response.body ?? []) if (stopping) break;
    if (response.ok) backups++;
    else failures++;
  }
}

function latencies(): { p50Ms: number; p99Ms: number } {
  const sorted = latenciesMs.sort((a, b) => a - b);
  latenciesMs = [];
  const at = (part: number): number =>
    Number((sorted[Math.floor(sorted.length * part)] ?? 0).toFixed(2));
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

async function sampleOf(node: TestNode): Promise<Sample> {
  const text = await (await node.fetch("/metrics", {}, 10_000)).text();
  const megabytes = (name: string): number => {
    const line = text.split("\n").find((each) => each.startsWith(name));
    if (line === undefined) throw new Error(`no metric ${name}`);
    return Math.round(Number(line.slice(line.lastIndexOf(" ") + 1)) / 1e6);
  };
  return {
    rssMB: megabytes("barge_resident_memory_bytes "),
    files: readdirSync(`/proc/${node.pid}/fd`).length,
    logMB: megabytes("barge_group_log_bytes{"),
    kvWalMB: megabytes("barge_group_kv_wal_bytes{"),
    folderMB: megabytes("barge_disk_bytes "),
  };
}

/**
 * What watches cost writes: the same load without watchers, with watchers of keys that nobody writes, and with watchers that are told of each write (one of
 * them each), in turn, on the same three nodes. `bun bench/watch-cost.ts [--watchers 1000] [--runs 3] [--seconds 5] [--load "put"] [--modes none,each]`.
 *
 * The watchers are a process of their own, which shares the cores with nodes and load, as theirs would not: so beside the operations per second stands
 * the processor time that the nodes spent on each, and what the watchers took. Each mode is compared with the run without watchers of its own round.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { benchFolder } from "../src/cli/bench/nodes.ts";
import type { LoadReport } from "../src/cli/bench/report.ts";
import { freePorts } from "../src/cli/local-cluster.ts";
import { type Client, connect } from "../src/client/index.ts";
import { spread } from "./peers/table.ts";

const main = join(import.meta.dir, "../src/main.ts");
const modes = ["none", "quiet", "each"] as const;
type Mode = (typeof modes)[number];

const keyDigits = 16;
const keySpace = 100_000;
const clientsMax = 8;

const { values } = parseArgs({
  options: {
    watchers: { type: "string", default: "1000" },
    runs: { type: "string", default: "3" },
    seconds: { type: "string", default: "5" },
    load: { type: "string", default: "put" },
    modes: { type: "string", default: modes.join(",") },
    /** Used by itself: be the watchers. */
    mode: { type: "string" },
    endpoints: { type: "string" },
  },
});
const watchers = Number(values.watchers);

/** Of watcher `number`: all keys of the load are watched by exactly one, or none by any. */
function prefixOf(mode: Mode, number: number): string {
  if (mode === "quiet") return `quiet/${number}/`;
  const digits = keyDigits - Math.round(Math.log10(keySpace / watchers));
  return String(number).padStart(digits, "0");
}

async function watch(mode: Mode, endpoints: string): Promise<void> {
  const clients = Array.from({ length: clientsMax }, () => connect({ endpoints }));
  let ready = 0;
  let changes = 0;
  const follow = async (client: Client, prefix: string): Promise<void> => {
    let isReady = false;
    for await (const batch of client.watch({ prefix }).batches()) {
      changes += batch.changes.length;
      if (isReady) continue;
      isReady = true;
      if (++ready === watchers) process.stdout.write("ready\n");
    }
  };
  process.on("SIGTERM", () => {
    const { user, system } = process.cpuUsage();
    process.stdout.write(`${JSON.stringify({ changes, cpuSeconds: (user + system) / 1e6 })}\n`);
    for (const client of clients) client.close();
  });
  await Promise.all(
    Array.from({ length: watchers }, (_, i) => follow(clients[i % clientsMax]!, prefixOf(mode, i))),
  );
}

interface Nodes extends AsyncDisposable {
  readonly endpoints: string;
}

async function startNodes(): Promise<Nodes> {
  const dir = benchFolder(undefined);
  const ports = freePorts(3);
  const members = ports.map(({ binary }, i) => `${i + 1}=127.0.0.1:${binary}`).join(",");
  const children = ports.map(({ binary, http }, i) =>
    Bun.spawn(
      [
        process.execPath,
        main,
        "serve",
        `--node-id=${i + 1}`,
        `--data-dir=${dir}/${i + 1}`,
        `--listen=127.0.0.1:${binary}`,
        `--http-listen=127.0.0.1:${http}`,
        `--initial-members=${members}`,
        "--cluster-token=watch-cost",
      ],
      { stdout: "ignore", stderr: "ignore" },
    ),
  );
  const endpoints = ports.map(({ binary }) => `127.0.0.1:${binary}`).join(",");
  await using client = connect({ endpoints, timeoutMs: 20_000 });
  await client.put("ready", "");
  return {
    endpoints,
    async [Symbol.asyncDispose]() {
      for (const child of children) child.kill();
      await Promise.all(children.map(({ exited }) => exited));
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

async function load(endpoints: string): Promise<LoadReport> {
  const words = ["bench", ...values.load.split(" "), "--seconds", values.seconds, "--warmup", "1"];
  const run = Bun.spawn([process.execPath, main, ...words, "--endpoints", endpoints, "--json"], {
    stdout: "pipe",
    stderr: "ignore",
  });
  return (await new Response(run.stdout).json()) as LoadReport;
}

interface Told {
  readonly changes: number;
  readonly cpuSeconds: number;
}

async function measure(mode: Mode, endpoints: string): Promise<readonly [LoadReport, Told]> {
  if (mode === "none") return [await load(endpoints), { changes: 0, cpuSeconds: 0 }];
  const words = ["--mode", mode, "--watchers", values.watchers, "--endpoints", endpoints];
  const child = Bun.spawn([process.execPath, import.meta.path, ...words], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const reader = child.stdout.getReader();
  await reader.read();
  const report = await load(endpoints);
  child.kill("SIGTERM");
  const told = JSON.parse(new TextDecoder().decode((await reader.read()).value)) as Told;
  await child.exited;
  return [report, told];
}

/** What one run shows: operations per second, and processor time of the nodes together for each, in microseconds. */
interface Found {
  readonly perSecond: number;
  readonly nodesUs: number;
}

function changeOf(runs: readonly Found[], bases: readonly Found[], of: keyof Found): string {
  const { median, min, max } = spread(runs.map((run, at) => (run[of] / bases[at]![of] - 1) * 100));
  return `${median.toFixed(1)} % (${min.toFixed(1)} to ${max.toFixed(1)})`;
}

if (values.mode !== undefined) {
  await watch(values.mode as Mode, values.endpoints!);
} else {
  await using nodes = await startNodes();
  const found: Record<Mode, Found[]> = { none: [], quiet: [], each: [] };
  const chosen = modes.filter((mode) => values.modes.split(",").includes(mode));
  for (let run = 0; run < Number(values.runs); run++) {
    for (const mode of chosen) {
      const [report, told] = await measure(mode, nodes.endpoints);
      const perSecond = report.operationsPerSecond;
      const nodesSeconds = report.cpuSeconds.nodes.reduce((sum, seconds) => sum + seconds, 0);
      const nodesUs = (nodesSeconds / report.operations) * 1e6;
      found[mode].push({ perSecond, nodesUs });
      const { p50, p99 } = report.latencyMs;
      const cpu = `CPU: nodes ${nodesUs.toFixed(2)} us/write, load ${report.cpuSeconds.client} s, watchers ${told.cpuSeconds.toFixed(1)} s`;
      console.error(
        `${mode}: ${Math.round(perSecond)}/s, p50 ${p50} ms, p99 ${p99} ms, ${told.changes} changes told of ${report.operations} counted; ${cpu}`,
      );
    }
  }
  for (const mode of chosen) {
    const { median, min, max } = spread(found[mode].map(({ perSecond }) => perSecond));
    const cost =
      mode === "none" || found.none.length === 0
        ? ""
        : `, ${changeOf(found[mode], found.none, "perSecond")}; CPU of the nodes for each write ${changeOf(found[mode], found.none, "nodesUs")}`;
    console.log(
      `${mode}: ${Math.round(median)}/s (${Math.round(min)} to ${Math.round(max)})${cost}`,
    );
  }
}

/**
 * `barge bench`: the load generator and the limit of the disk. What it measures and what it leaves out is in bench/README.md. Progress
 * goes to standard error, so that with `--json` standard output holds one document.
 */
import { Argument, Command, InvalidArgumentError, Option } from "commander";
import { accessSync, constants, existsSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { describeEnvironment } from "./bench/environment.ts";
import { humanDiskReport, measureDisk } from "./bench/disk.ts";
import { Load } from "./bench/load.ts";
import { connectAll, statusOfAll, testedGroups, testedNodes, untilSpread } from "./bench/nodes.ts";
import {
  type BenchFlags,
  loadPlan,
  type LoadPlan,
  type Workload,
  workloads,
} from "./bench/plan.ts";
import { humanReport, type LoadReport, loadReport } from "./bench/report.ts";
import { printLine, wholeNumber } from "./client-options.ts";
import { UsageError } from "../config.ts";
import type { NodeStatus } from "../client/index.ts";

const examples = `
Examples:
  barge bench put                                 three nodes of its own, 1,000 puts in flight
  barge bench put --in-flight 1                   latency of one at a time
  barge bench put --batch 1000 --in-flight 64 --value-bytes 16
  barge bench get --endpoints 127.0.0.1:9091 --json
  barge bench put --rate 20000                    open loop: latency from the moment each was due
  barge bench put --groups 48                     the same load, spread over 48 groups
  barge bench disk                                what the disk itself can do`;

/** Of `bench disk`, for each of its ten points, when --seconds is not given. */
const diskSecondsDefault = 1;
const secondsDefault = 10;
const reachMs = 2_000;

export function benchCommand(): Command {
  return new Command("bench")
    .description(
      "Measures a cluster under load: the one at --endpoints, else three nodes that it starts itself and removes afterwards.",
    )
    .addArgument(new Argument("<workload>", "what to measure").choices(workloads))
    .option("--in-flight <n>", "requests that await their answer", wholeNumber(1, 100_000), 1_000)
    .option("--connections <n>", "connections, over which they spread", wholeNumber(1, 1_000), 1)
    .option(
      "--batch <n>",
      "commands in one request; 1: each awaited alone",
      wholeNumber(1, 65_536),
      1,
    )
    .option("--value-bytes <n>", "size of a value", wholeNumber(0, 1_048_576), 256)
    .option("--key-space <n>", "how many keys, chosen evenly", wholeNumber(1, 1e9), 100_000)
    .option("--reads <percent>", "share of reads, for mixed", wholeNumber(0, 100), 50)
    .option("--seconds <s>", `how long to measure (default: ${secondsDefault})`, positive)
    .option("--warmup <s>", "how long before that", notNegative, 2)
    .option("--rate <n>", "open loop: so many operations a second", wholeNumber(1, 10_000_000))
    .option("--no-session", "send each write once, without a session")
    .option("--groups <n>", "groups to spread over", wholeNumber(1, 1_000_000), 1)
    .addOption(
      new Option("--endpoints <list>", "the nodes to load, as host:port,…").env("BARGE_ENDPOINTS"),
    )
    .option("--dir <dir>", "where its own nodes keep their data; else beside the current folder")
    .addOption(
      new Option("--machine <kind>", "state machine of its own nodes; null: the log alone")
        .choices(["kv", "null"])
        .default("kv"),
    )
    .option("--out <file>", "also write the JSON there")
    .option("--json", "print JSON")
    .addHelpText("after", examples)
    .action((workload: Workload, flags: BenchFlags & { readonly seconds?: number }) =>
      bench(workload, flags),
    );
}

async function bench(
  workload: Workload,
  flags: Omit<BenchFlags, "seconds"> & { readonly seconds?: number },
): Promise<void> {
  if (flags.out !== undefined) checkOut(flags.out);
  if (workload === "disk") {
    const seconds = flags.seconds ?? diskSecondsDefault;
    const report = await measureDisk(flags.dir, seconds, tell);
    return publish(report, humanDiskReport(report), flags);
  }
  const plan = loadPlan(workload, { ...flags, seconds: flags.seconds ?? secondsDefault });
  const report = await measureLoad(plan, flags);
  await publish(report, humanReport(report), flags);
  for (const doubt of report.doubts) process.stderr.write(`doubtful: ${doubt}\n`);
}

export async function measureLoad(
  plan: LoadPlan,
  flags: Pick<BenchFlags, "endpoints" | "dir" | "machine">,
): Promise<LoadReport> {
  // Before our own nodes add to it.
  const { load } = describeEnvironment(undefined);
  if (flags.endpoints === undefined) tell("starting three nodes");
  await using nodes = await testedNodes(flags.endpoints, flags.dir, flags.machine);
  const clients = connectAll(nodes.endpoints, plan);
  try {
    const watcher = clients[0]!;
    // Says at once when nobody is there.
    await watcher.status(undefined, { timeoutMs: reachMs });
    if (plan.groups > 1) tell(`spreading over ${plan.groups} groups`);
    const groups = await testedGroups(watcher, plan, nodes, flags.machine);
    const spread = clients.map((client) => groups.map((id) => client.group(id)));
    const generator = new Load(plan, spread);
    if (plan.groups > 1) {
      await generator.reach();
      if (nodes.dir !== undefined) await untilSpread(spread[0]!);
    }
    if (plan.readShare > 0) {
      tell(`writing ${plan.keySpace} keys`);
      await generator.fill();
    }
    tell(`warming up for ${plan.warmupSeconds} s, measuring for ${plan.seconds} s`);
    let before: NodeStatus[] = [];
    let after: NodeStatus[] = [];
    const result = await generator.run({
      begin: async () => void (before = await statusOfAll(watcher)),
      end: async () => void (after = await statusOfAll(watcher)),
    });
    const environment = { ...describeEnvironment(nodes.dir), load };
    return loadReport(plan, result, before, after, environment);
  } finally {
    await Promise.all(clients.map((client) => client.drain()));
  }
}

async function publish(
  report: object,
  text: string,
  flags: Pick<BenchFlags, "json" | "out">,
): Promise<void> {
  const json = JSON.stringify(report);
  if (flags.out !== undefined) writeFileSync(flags.out, `${json}\n`);
  await printLine(flags.json === true ? json : text);
}

/** Found out before the run, not after it. */
function checkOut(file: string): void {
  try {
    accessSync(existsSync(file) ? file : dirname(resolve(file)), constants.W_OK);
  } catch (error) {
    throw new UsageError(`--out ${file} cannot be written: ${(error as Error).message}`);
  }
}

function tell(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

function positive(text: string): number {
  const value = notNegative(text);
  if (value > 0) return value;
  throw new InvalidArgumentError("It must be above 0.");
}

function notNegative(text: string): number {
  const value = /^[0-9]+(\.[0-9]+)?$/.test(text) ? Number(text) : Number.NaN;
  if (value >= 0 && value <= 86_400) return value;
  throw new InvalidArgumentError("It must be a number of seconds, up to 86,400.");
}

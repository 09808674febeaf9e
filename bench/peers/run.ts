/**
 * Barge beside etcd, dragonboat and hashicorp/raft, in one sitting: for each round and load all systems in turn, so that what the machine
 * does meanwhile falls on all of them alike. What is compared, and how, is in README.md beside this file.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { benchFolder } from "../../src/cli/bench/nodes.ts";
import { buildPeer, goVersion } from "./build.ts";
import { describeLoad, type PeerLoad, peerLoads } from "./loads.ts";
import { busySeconds, describeMachine, type Machine } from "./machine.ts";
import {
  barge,
  type DiskFloor,
  diskCommand,
  type Peer,
  peers,
  peerSystem,
  parseDisk,
  type System,
  type Timing,
} from "./systems.ts";
import { doubtsOf, foreignCoresMax, markdownTable, type Row, rowsOf, type Run } from "./table.ts";

const usage = `usage: bun bench/peers/run.ts [--rounds N] [--seconds S] [--warmup S] [--only etcd,dragonboat,hashicorp-raft]
                              [--loads NAME,...] [--dir DIR] [--json] [--out FILE] [--small]

  --rounds    how often each load is measured on each system (default 5)
  --seconds   measured time of a run (default 5), after --warmup (default 2)
  --only      these peers beside Barge
  --loads     of ${peerLoads.map(({ name }) => name).join(", ")}
  --dir       where the data goes (default: beside the current folder)
  --json      print one document instead of the table; --out FILE also keeps it
  --small     one short round: only whether it runs

Ends with 1 when a run failed, with 0 when there was nothing to compare with.`;

/** What a run takes beside the time that it measures: start, election, stop. Only for the estimate. */
const overheadSeconds = 1.8;
/** After this a run is given up. */
const spareSeconds = 60;

interface Plan {
  readonly rounds: number;
  readonly timing: Timing;
  readonly diskSecondsPerPoint: number;
  readonly loads: readonly PeerLoad[];
  readonly peers: readonly Peer[];
}

interface Document {
  readonly benchmark: "peers";
  readonly machine: Machine;
  readonly disk: readonly DiskFloor[];
  readonly versions: Readonly<Record<string, string>>;
  readonly rounds: number;
  readonly timing: Timing;
  readonly loads: readonly PeerLoad[];
  readonly skipped: Readonly<Record<string, string>>;
  readonly rows: readonly Row[];
  readonly runs: readonly Run[];
  readonly doubts: readonly string[];
}

if (import.meta.main) await main();

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string" },
      seconds: { type: "string" },
      warmup: { type: "string" },
      only: { type: "string" },
      loads: { type: "string" },
      dir: { type: "string" },
      out: { type: "string" },
      json: { type: "boolean", default: false },
      small: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return void process.stdout.write(`${usage}\n`);
  const small = values.small;
  const plan: Plan = {
    rounds: number(values.rounds, small ? 1 : 5, 1),
    timing: {
      seconds: number(values.seconds, small ? 0.5 : 5, 0.1),
      warmupSeconds: number(values.warmup, small ? 0.2 : 2, 0),
    },
    diskSecondsPerPoint: small ? 0.05 : 1,
    loads: chosen(values.loads, peerLoads, (load) => load.name),
    peers: chosen(values.only, peers, (peer) => peer.folder),
  };
  const { systems, skipped } = build(plan.peers);
  if (systems.length === 0) {
    process.stdout.write("Skipped: there is no peer to compare with.\n");
    return;
  }
  const document = await compare(plan, [barge, ...systems], skipped, benchFolder(values.dir));
  const json = JSON.stringify(document);
  if (values.out !== undefined) writeFileSync(values.out, `${json}\n`);
  process.stdout.write(values.json ? `${json}\n` : human(document));
  const asked = plan.rounds * runsOf(plan.loads, [barge, ...systems]);
  if (document.runs.length < asked) process.exitCode = 1;
}

function build(wanted: readonly Peer[]): { systems: System[]; skipped: Record<string, string> } {
  const systems: System[] = [];
  const skipped: Record<string, string> = {};
  const go = goVersion();
  for (const peer of wanted) {
    if (go !== undefined) tell(`building ${peer.name}`);
    const built =
      go === undefined
        ? {
            ok: false as const,
            reason: "there is no `go` on the PATH (1.26 or newer builds the peers)",
          }
        : buildPeer(peer, go);
    if (built.ok) systems.push(peerSystem(peer, built.binary));
    else {
      skipped[peer.name] = built.reason;
      tell(`skip ${peer.name}: ${built.reason}`);
    }
  }
  return { systems, skipped };
}

async function compare(
  plan: Plan,
  systems: readonly System[],
  skipped: Readonly<Record<string, string>>,
  dir: string,
): Promise<Document> {
  const remove = (): void => rmSync(dir, { recursive: true, force: true });
  process.once("exit", remove);
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => process.exit(130));
  try {
    const machine = await describeMachine(dir);
    if (machine.busyCores > foreignCoresMax) {
      tell(
        `warning: other work takes ${machine.busyCores} cores; compare ratios only, or come back later`,
      );
    }
    tell(`what the disk can do`);
    const disk = parseDisk(await output(diskCommand(dir, plan.diskSecondsPerPoint), spareSeconds));
    const count = plan.rounds * runsOf(plan.loads, systems);
    const { seconds, warmupSeconds } = plan.timing;
    tell(
      `${count} runs, about ${Math.ceil((count * (seconds + warmupSeconds + overheadSeconds)) / 60)} minutes`,
    );
    const runs: Run[] = [];
    for (let round = 1; round <= plan.rounds; round++) {
      for (const load of plan.loads) {
        for (const system of turns(systems, round)) {
          if (!suits(system, load)) continue;
          const run = await measure(system, load, round, plan.timing, dir);
          if (run !== undefined) runs.push(run);
        }
      }
    }
    const names = systems.map(({ name }) => name);
    const rows = rowsOf(plan.loads, names, runs);
    return {
      benchmark: "peers",
      machine,
      disk,
      versions: Object.fromEntries(runs.map(({ system, version }) => [system, version])),
      rounds: plan.rounds,
      timing: plan.timing,
      loads: plan.loads,
      skipped,
      rows,
      runs,
      doubts: doubtsOf(plan.loads, names, runs, plan.rounds, (name, load) =>
        systems.some((system) => system.name === name && suits(system, load)),
      ),
    };
  } finally {
    remove();
    process.removeListener("exit", remove);
  }
}

function suits(system: System, load: PeerLoad): boolean {
  return load.groups === 1 || system.hasGroups;
}

/** In a round. */
function runsOf(loads: readonly PeerLoad[], systems: readonly System[]): number {
  return loads.flatMap((load) => systems.filter((system) => suits(system, load))).length;
}

/** Another one begins in each round: nobody always follows the same neighbour. */
function turns(systems: readonly System[], round: number): readonly System[] {
  const first = (round - 1) % systems.length;
  return [...systems.slice(first), ...systems.slice(0, first)];
}

/** Undefined where the run failed, which must not cost the other runs. */
async function measure(
  system: System,
  load: PeerLoad,
  round: number,
  timing: Timing,
  dir: string,
): Promise<Run | undefined> {
  const place = `round ${round}, ${describeLoad(load)}: ${system.name}`;
  const folder = mkdtempSync(join(dir, "run-"));
  const limitSeconds = timing.seconds + timing.warmupSeconds + spareSeconds;
  try {
    const usage = { ownCpuSeconds: 0 };
    const busyBefore = busySeconds();
    const begin = performance.now();
    const text = await output(system.command(load, timing, folder), limitSeconds, usage);
    const elapsed = (performance.now() - begin) / 1_000;
    const foreign = (busySeconds() - busyBefore - usage.ownCpuSeconds) / elapsed;
    const measured = system.parse(text);
    tell(
      `${place} ${Math.round(measured.operationsPerSecond).toLocaleString("en-US")}/s, p50 ${measured.p50Ms.toFixed(2)} ms`,
    );
    return {
      ...measured,
      load: load.name,
      round,
      system: system.name,
      foreignCores: Math.max(0, Math.round(foreign * 100) / 100),
    };
  } catch (error) {
    tell(`${place} failed: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Standard output of a command that succeeded. The CPU time includes that of all processes it started and waited for. */
async function output(
  command: readonly string[],
  limitSeconds: number,
  usage?: { ownCpuSeconds: number },
): Promise<string> {
  const child = Bun.spawn([...command], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: limitSeconds * 1_000,
    killSignal: "SIGKILL",
  });
  const [text, words, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (status !== 0)
    throw new Error(`${child.signalCode ?? `status ${status}`}: ${words.trim().slice(-400)}`);
  if (usage !== undefined) usage.ownCpuSeconds = Number(child.resourceUsage()!.cpuTime.total) / 1e6;
  return text;
}

function human(document: Document): string {
  const { machine, disk, versions, timing, rounds, skipped, doubts } = document;
  const lines = [
    markdownTable(document.loads, document.rows),
    "",
    `Medians, lowest and highest in brackets; rounds: ${rounds}, each ${timing.seconds} s after ${timing.warmupSeconds} s. A ratio is of operations/s within one round.`,
    "",
    ...Object.entries(versions).map(([name, words]) => `- ${name} ${words}`),
    ...Object.entries(skipped).map(([name, reason]) => `- ${name}: skipped, ${reason}`),
    `- machine: ${machine.cores} cores of ${machine.cpu}, ${machine.memoryGb} GB, ${machine.kernel}, ${machine.filesystem}; load ${machine.load} and ${machine.busyCores} cores busy before the start`,
    ...disk.map(
      ({ bytes, writers, p50Ms, p99Ms, syncsPerSecond }) =>
        `- disk: ${writers} × ${bytes / 1_024} KiB append with fdatasync p50 ${p50Ms} ms, p99 ${p99Ms} ms, ${syncsPerSecond.toLocaleString("en-US")}/s`,
    ),
    ...doubts.map((doubt) => `- doubtful: ${doubt}`),
  ];
  return `${lines.join("\n")}\n`;
}

function number(text: string | undefined, usual: number, least: number): number {
  if (text === undefined) return usual;
  const value = Number(text);
  if (!(value >= least)) refuse(`${text} is not a number of at least ${least}`);
  return value;
}

function chosen<T>(
  text: string | undefined,
  all: readonly T[],
  name: (one: T) => string,
): readonly T[] {
  if (text === undefined) return all;
  const names = text.split(",");
  const unknown = names.find((wanted) => !all.some((one) => name(one) === wanted));
  if (unknown !== undefined) refuse(`${unknown} is none of ${all.map(name).join(", ")}`);
  return all.filter((one) => names.includes(name(one)));
}

function refuse(words: string): never {
  process.stderr.write(`${words}\n${usage}\n`);
  process.exit(2);
}

function tell(text: string): void {
  process.stderr.write(`peers: ${text}\n`);
}

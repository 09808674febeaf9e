/**
 * How much disk a node takes under writes without end, at defaults:
 *
 *     bun test/e2e/disk-ceiling.ts --seconds 40 --in-flight 256 --value-bytes 16384 --key-space 10000
 *     bun test/e2e/disk-ceiling.ts --seconds 20 --groups 999
 *
 * With `--groups` so many others stand still beside the one that is written to, each with a write of its own in the oldest part of the log, which none of them may hold on to.
 * First all nodes are up; then one is down, for as long again; then it is back and gets a snapshot while the writes go on. Looks at the folders all
 * along, and prints for each part the largest folder and what it consists of, against the ceiling that follows from limits.ts for a state of this size.
 * One JSON line at the end; ends with 1 where a folder was above its ceiling.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { defaultLimits } from "../../src/limits.ts";
import { defaultCompaction } from "../../src/node/compaction.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { createGroups } from "./groups.ts";
import { numberFlags } from "./script-flags.ts";

const flags = numberFlags({
  /** Of each part. */
  seconds: 40,
  "in-flight": 256,
  "value-bytes": 16_384,
  "key-space": 10_000,
  groups: 0,
});
/** Of the log, for a group that stands still: its records, written once more each time that they are copied, and their pages. */
const idleGroupBytes = 64 * 1024;
const atOnce = 64;
const program = join(import.meta.dir, "../../src/main.ts");
const lookEveryMs = 100;
/** For a node that is back to get a snapshot, and for all to end alike. */
const alikeMsMax = 120_000;

interface Folder {
  /** Segments of the log. */
  readonly log: number;
  /** Main files of the state machine: more than one while a snapshot comes in. */
  readonly state: number;
  /** Their write-ahead logs. */
  readonly wal: number;
  readonly all: number;
}

const nothing: Folder = { log: 0, state: 0, wal: 0, all: 0 };

process.stdout.write(`disk ceiling: ${JSON.stringify(flags)}\n`);
await withCluster({}, async (cluster) => {
  if (flags.groups > 0) await standStill(cluster);
  const watch = new DiskWatch(cluster);
  const parts: Record<string, unknown>[] = [];
  const report = (part: string, writes: number): void => {
    const { largest, stateBytes } = watch.take();
    const ceiling = ceilingBytes(stateBytes);
    const isAbove = largest.all > ceiling;
    if (isAbove) process.exitCode = 1;
    const text = `${mb(largest.all)} (log ${mb(largest.log)}, state ${mb(largest.state)}, its write-ahead log ${mb(largest.wal)})`;
    process.stdout.write(
      `${part}: ${writes} writes; largest folder ${text}; ceiling ${mb(ceiling)}${isAbove ? "  MISSED" : ""}\n`,
    );
    parts.push({ part, writes, ...largest, ceiling });
  };

  report("all up", await load(cluster));
  const [away] = await cluster.followers();
  await away!.kill();
  report("one down", await load(cluster));
  away!.start();
  report("it is back", await load(cluster));
  await until("all have the same state", () => areAlike(cluster), alikeMsMax);
  report("at rest", 0);
  watch.stop();
  const bySnapshot = away!.log().includes('"snapshot installed"');
  process.stdout.write(`${JSON.stringify({ diskCeiling: { ...flags, bySnapshot, parts } })}\n`);
});

/**
 * The log: what lagging members are waited for, or what two memtables keep from being dropped, whichever is more, and what is not applied yet; twice that
 * and a segment is where its dead part is copied away; then the current segment at twice its size, the next one, and two that are to be used again.
 * The state: its file and one that is being received; the write-ahead log up to where streams that hold up its checkpoint are given up, and one flush
 * more, which may touch every page.
 */
function ceilingBytes(stateBytes: number): number {
  const { retainedLogBytesMax, flushLogBytes, unappliedBytesMax, segmentBytes } = defaultLimits;
  const { snapshotWalBytesMax, memtableBytes } = defaultLimits;
  const unflushed = 2 * flushLogBytes + defaultCompaction.tailBytes;
  const live = Math.max(retainedLogBytesMax, unflushed) + unappliedBytesMax;
  const log = 2 * (live + segmentBytes) + 5 * segmentBytes + flags.groups * idleGroupBytes;
  return log + 2 * stateBytes + snapshotWalBytesMax + stateBytes + memtableBytes;
}

/** Groups that are written to once each, and never again. */
async function standStill(cluster: TestCluster): Promise<void> {
  const left = (await createGroups(cluster.nodes[0]!, { count: flags.groups })).map(({ id }) => id);
  await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 60_000 });
  const write = async (): Promise<void> => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      await client.group(id).put("key", "value");
    }
  };
  await Promise.all(Array.from({ length: atOnce }, write));
}

/** Through the nodes that run; returns how many writes. */
async function load(cluster: TestCluster): Promise<number> {
  const running = cluster.nodes.filter((node) => node.running);
  const { groups: _, ...plan } = flags;
  const all = Object.entries({ ...plan, warmup: 0 }).map(([name, value]) => `--${name}=${value}`);
  const endpoints = `--endpoints=${running.map(({ binary }) => binary).join(",")}`;
  const command = [process.execPath, program, "bench", "put", ...all, endpoints, "--json"];
  const bench = Bun.spawn(command, { stdout: "pipe", stderr: "ignore" });
  const text = await new Response(bench.stdout).text();
  if ((await bench.exited) !== 0) throw new Error(`bench put failed: ${text}`);
  const { operations } = JSON.parse(text) as { operations: number };
  return operations;
}

async function areAlike(cluster: TestCluster): Promise<boolean> {
  const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
  return new Set(groups.map((group) => `${group.appliedIndex} ${group.stateHash}`)).size === 1;
}

/** Keeps the largest folder that was seen. */
class DiskWatch {
  readonly #timer: Timer;
  #largest = nothing;
  #stateBytes = 0;

  constructor(cluster: TestCluster) {
    this.#timer = setInterval(() => cluster.nodes.forEach((node) => this.#look(node)), lookEveryMs);
  }

  #look(node: TestNode): void {
    const { folder, largestState } = folderOf(node);
    this.#stateBytes = Math.max(this.#stateBytes, largestState);
    if (folder.all > this.#largest.all) this.#largest = folder;
  }

  take(): { largest: Folder; stateBytes: number } {
    const largest = this.#largest;
    this.#largest = nothing;
    return { largest, stateBytes: this.#stateBytes };
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

function folderOf(node: TestNode): { folder: Folder; largestState: number } {
  const bytes = { log: 0, state: 0, wal: 0, all: 0 };
  let largestState = 0;
  for (const name of readdirSync(node.dataDir, { recursive: true, encoding: "utf8" })) {
    const found = statSync(join(node.dataDir, name), { throwIfNoEntry: false });
    if (found?.isFile() !== true) continue;
    bytes.all += found.size;
    if (!name.startsWith("machine")) bytes.log += found.size;
    else if (name.endsWith(".db")) {
      bytes.state += found.size;
      largestState = Math.max(largestState, found.size);
    } else bytes.wal += found.size;
  }
  return { folder: bytes, largestState };
}

function mb(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}

/**
 * Snapshots of a large state between real processes, over a network of a given rate, with the sender killed, the receiver killed or their connections
 * reset at each failpoint of snapshot-failpoints.ts:
 *
 *     bun test/e2e/snapshot-kills.ts --megabytes 1000 --rate 50 --seed 7
 *
 * Each round a follower is stopped, the log is cut below what it has, and it starts again; where the failpoint is reached, that process stands still until
 * the fault is done. A receiver that was killed comes up alone first: it must have the whole snapshot or its own state, and only one of the two. In the
 * end all nodes must have the same state, by its hash, and each value on each node. First of all a snapshot is sent with nothing in its way, for the rate
 * and for how much memory the sender needs on top. `--parts 6 --part 2` does every sixth round from the second on. Rate 0 is as fast as it goes.
 *
 * Prints a line per round and one JSON line at the end; ends with 1 where anything is wrong.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { Random } from "../sim/random.ts";
import {
  loopbackPlace,
  thisBuild,
  type TestCluster,
  type TestNode,
  until,
  withCluster,
} from "./cluster.ts";
import { PeerNetwork } from "./peer-network.ts";
import { numberFlags } from "./script-flags.ts";
import {
  type Failpoint,
  failpoints,
  failpointVariable,
  reachedSuffix,
} from "./snapshot-failpoints.ts";

const flags = numberFlags({
  megabytes: 200,
  /** Of megabytes per second. */
  rate: 50,
  seed: Date.now() % 1_000_000,
  part: 1,
  parts: 1,
  /** 0: without the first one, which takes as long as any. */
  undisturbed: 1,
});
const valueBytes = 262_144;
const putsAtOnce = 16;
const getsAtOnce = 8;
const writesMeanwhile = 10;
/** Overwritten while the follower is away: it lacks those, and gets all. */
const missedValues = 30;
const senderGrowthMBMax = 64;
const keys = Math.ceil((flags.megabytes * 1e6) / valueBytes);
const arrivesMsMax = 60_000 + (flags.rate === 0 ? 0 : (2_000 * flags.megabytes) / flags.rate);
const faults = ["sender killed", "receiver killed", "connections reset"] as const;
type Fault = (typeof faults)[number];

const preload = join(import.meta.dir, "snapshot-failpoints.ts");
const folder = mkdtempSync(join(tmpdir(), "barge-snapshot-kills-"));
const random = new Random(flags.seed);
const value = Buffer.alloc(valueBytes);
let writes = 0;

process.stdout.write(
  `snapshot kills: ${flags.megabytes} MB at ${flags.rate} MB/s, seed ${flags.seed}\n`,
);
try {
  await using network = new PeerNetwork();
  const options = {
    network,
    flags: ["--compact-bytes", "64000000", "--compact-tail-bytes", "4000000"],
    build: { ...thisBuild, bunArguments: ["--preload", preload, ...thisBuild.bunArguments] },
    place: (id: number) => ({
      ...loopbackPlace(),
      environment: { [failpointVariable]: failpointFile(id) },
    }),
  };
  await withCluster(options, (cluster) => run(cluster, network));
} catch (error) {
  process.stderr.write(
    `seed ${flags.seed}: ${error instanceof Error ? error.stack : String(error)}\n`,
  );
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true });
}

async function run(cluster: TestCluster, network: PeerNetwork): Promise<void> {
  await fill(cluster.nodes, keys, (left) => left);
  // What the writes have left in memory is not the sender's.
  await Promise.all(cluster.nodes.map((node) => node.kill()));
  await cluster.start();
  const undisturbed = flags.undisturbed === 0 ? undefined : await plainRound(cluster, network);
  let rounds = 0;
  const cases = failpoints.flatMap((failpoint) => faults.map((fault) => ({ failpoint, fault })));
  for (const [at, { failpoint, fault }] of cases.entries()) {
    if (at % flags.parts !== flags.part - 1) continue;
    await struckRound(cluster, network, failpoint, fault);
    rounds++;
  }
  await sameValues(cluster);
  const result = { ...flags, rounds, writes, values: keys, ...undisturbed };
  process.stdout.write(`${JSON.stringify({ snapshotKills: result })}\n`);
  if ((undisturbed?.senderGrowthMB ?? 0) > senderGrowthMBMax) process.exitCode = 1;
}

interface Undisturbed {
  readonly megabytesPerSecond: number;
  readonly senderGrowthMB: number;
  readonly receiverGrowthMB: number;
}

/** Nothing happens, and nobody writes. */
async function plainRound(cluster: TestCluster, network: PeerNetwork): Promise<Undisturbed> {
  const { sender, receiver } = await leaveBehind(cluster, network);
  const before = residentMB(sender);
  receiver.start();
  let [senderMB, receiverMBMin, receiverMB] = [before, Infinity, 0];
  let [beganMs, endedMs, bytes] = [0, 0, 0];
  await until(
    "the snapshot is there",
    async () => {
      senderMB = Math.max(senderMB, residentMB(sender));
      const { snapshots, appliedIndex } = await receiver.group();
      if (beganMs === 0 && (snapshots?.receiving?.receivedBytes ?? 0) > 0) {
        beganMs = performance.now();
        bytes = snapshots!.receiving!.bytes - snapshots!.receiving!.receivedBytes;
      }
      if (beganMs === 0) return false;
      receiverMB = Math.max(receiverMB, residentMB(receiver));
      receiverMBMin = Math.min(receiverMBMin, residentMB(receiver));
      const { receivedBytes = 0, bytes: all = 0 } = snapshots?.receiving ?? {};
      if (endedMs === 0 && receivedBytes === all) endedMs = performance.now();
      return snapshots?.receiving === undefined && appliedIndex > 0;
    },
    arrivesMsMax,
  );
  const installedMs = performance.now() - endedMs;
  await allSame(cluster);
  const megabytesPerSecond = Math.round(bytes / 1e3 / (endedMs - beganMs));
  const senderGrowthMB = Math.round(senderMB - before);
  const receiverGrowthMB = Math.round(receiverMB - receiverMBMin);
  process.stdout.write(
    `undisturbed: ${Math.round(bytes / 1e6)} MB at ${megabytesPerSecond} MB/s, installed ${Math.round(installedMs)} ms after the last chunk; the sender's memory grew by ${senderGrowthMB} MB from ${Math.round(before)}, the receiver's by ${receiverGrowthMB}\n`,
  );
  return { megabytesPerSecond, senderGrowthMB, receiverGrowthMB };
}

async function struckRound(
  cluster: TestCluster,
  network: PeerNetwork,
  failpoint: Failpoint,
  fault: Fault,
): Promise<void> {
  const { sender, receiver, lastIndex } = await leaveBehind(cluster, network);
  const struck = failpoint.side === "sender" ? sender : receiver;
  arm(struck, failpoint);
  receiver.start();
  await until(`"${failpoint.name}" is reached`, () => hasReached(struck), arrivesMsMax);
  const beganMs = performance.now();
  let found = "";
  if (fault === "sender killed") {
    await sender.kill();
    signal(receiver, "SIGCONT");
    sender.start();
  } else if (fault === "receiver killed") {
    await receiver.kill();
    signal(sender, "SIGCONT");
    found = await aloneAgain(network, receiver, failpoint, lastIndex);
  } else {
    network.reset((from, to) => from === receiver.id || to === receiver.id);
    signal(struck, "SIGCONT");
  }
  // Writes go on; through the receiver they would wait for its snapshot.
  const through = cluster.nodes.filter((node) => node !== receiver);
  await fill(through, writesMeanwhile, () => random.below(keys));
  await allSame(cluster);
  await until(
    `node ${receiver.id} has given up what it had before`,
    () => machineFiles(receiver).length === 1,
  );
  const took = Math.round(performance.now() - beganMs);
  process.stdout.write(`${failpoint.name}: ${fault}${found}; states equal ${took} ms later\n`);
}

/** A follower is stopped, and the others' logs begin beyond what it has. */
async function leaveBehind(
  cluster: TestCluster,
  network: PeerNetwork,
): Promise<{ sender: TestNode; receiver: TestNode; lastIndex: number }> {
  network.bytesPerSecond = Infinity;
  const sender = await cluster.leader();
  const receiver = random.pick(cluster.nodes.filter((node) => node !== sender));
  const { lastIndex } = await receiver.group();
  await receiver.kill();
  await fill(cluster.nodes, missedValues, () => random.below(keys));
  for (const node of cluster.nodes) if (node !== receiver) await cut(node, lastIndex);
  if (flags.rate > 0) network.bytesPerSecond = flags.rate * 1e6;
  return { sender, receiver, lastIndex };
}

/** What it has while nobody can tell it more: the whole snapshot, or what it had. */
async function aloneAgain(
  network: PeerNetwork,
  receiver: TestNode,
  failpoint: Failpoint,
  lastIndex: number,
): Promise<string> {
  network.cut(receiver.id);
  receiver.start();
  let durableIndex = 0;
  await until(
    `node ${receiver.id} is back`,
    async () => (durableIndex = (await receiver.group()).machineDurableIndex) > 0,
  );
  const installed = durableIndex > lastIndex;
  if (failpoint.installed !== undefined && installed !== failpoint.installed) {
    throw new Error(`${failpoint.name}: machine at ${durableIndex}, and was at ${lastIndex}`);
  }
  // What is not the state goes with the start.
  const files = machineFiles(receiver);
  if (files.length !== 1) throw new Error(`node ${receiver.id} came up with ${files.join(", ")}`);
  network.heal(receiver.id, { keep: false });
  return installed ? ", came back with the snapshot" : ", came back as before";
}

function failpointFile(id: number): string {
  return join(folder, `failpoint-${id}`);
}

function arm(node: TestNode, { name }: Failpoint): void {
  rmSync(`${failpointFile(node.id)}${reachedSuffix}`, { force: true });
  writeFileSync(failpointFile(node.id), name);
}

function hasReached(node: TestNode): boolean {
  if (!existsSync(`${failpointFile(node.id)}${reachedSuffix}`)) return false;
  const state = readFileSync(`/proc/${node.pid}/stat`, "utf8").split(") ")[1]![0];
  return state === "T";
}

/** Nothing where it is gone. */
function signal(node: TestNode, name: NodeJS.Signals): void {
  if (node.running) process.kill(node.pid, name);
}

function machineFiles(node: TestNode): string[] {
  const names = readdirSync(join(node.dataDir, "machine"), { recursive: true, encoding: "utf8" });
  return names.filter((name) => name.endsWith(".db")).map((name) => name.split("/").at(-1)!);
}

/** Through whoever takes it. */
async function fill(
  nodes: readonly TestNode[],
  count: number,
  keyOf: (left: number) => number,
): Promise<void> {
  let left = count;
  const one = async (): Promise<void> => {
    while (left > 0) {
      const key = `key-${keyOf(--left)}`;
      value.writeUInt32LE(++writes, 0);
      const body = Buffer.from(value);
      await until(`${key} is written`, async () => {
        const node = random.pick(nodes.filter(({ running }) => running));
        return (await node.fetch(`/v1/kv/${key}`, { method: "PUT", body }, 8_000)).ok;
      });
    }
  };
  await Promise.all(Array.from({ length: putsAtOnce }, one));
}

/** For a while the log is kept for a member that was there a moment ago. */
async function cut(node: TestNode, beyond: number): Promise<void> {
  const body = JSON.stringify({ tailBytes: 0, timeoutMs: 60_000 });
  await until(`the log of node ${node.id} is cut`, async () => {
    const response = await node.fetch("/v1/snapshot", { method: "POST", body }, 60_000);
    if (!response.ok) throw new Error(await response.text());
    const { firstIndex } = (await response.json()) as { firstIndex: number };
    return firstIndex > beyond + 1;
  }).catch(async (error: Error) => {
    throw new Error(`${error.message}; ${JSON.stringify(await node.group())}`);
  });
}

/** And no snapshot is on its way any more: for whoever died before it could say "done", the log is kept until a stream stalls. */
async function allSame(cluster: TestCluster): Promise<void> {
  await until(
    "all nodes have the same state",
    async () => {
      const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
      const states = groups.map((group) => `${group.appliedIndex} ${group.stateHash}`);
      const hashes = new Map(groups.map((group) => [group.appliedIndex, group.stateHash]));
      if (groups.some((group) => hashes.get(group.appliedIndex) !== group.stateHash)) {
        throw new Error(`states differ: ${states.join(", ")}`);
      }
      const isOver = groups.every((group) => group.leader !== 0 && group.snapshots === undefined);
      return new Set(states).size === 1 && isOver;
    },
    arrivesMsMax,
  );
}

/** Value by value, as each node itself has it. */
async function sameValues(cluster: TestCluster): Promise<void> {
  let left = keys;
  const one = async (): Promise<void> => {
    while (left-- > 0) {
      const path = `/v1/kv/key-${left}?consistency=local`;
      const crcs: number[] = [];
      for (const node of cluster.nodes) {
        const response = await node.fetch(path, {}, 10_000);
        if (!response.ok) throw new Error(`${path} on node ${node.id}: ${response.status}`);
        crcs.push(crc32(new Uint8Array(await response.arrayBuffer())));
      }
      if (new Set(crcs).size > 1) throw new Error(`${path} differs: ${crcs.join(", ")}`);
    }
  };
  await Promise.all(Array.from({ length: getsAtOnce }, one));
}

function residentMB(node: TestNode): number {
  const status = readFileSync(`/proc/${node.pid}/status`, "utf8");
  return Number(/VmRSS:\s+([0-9]+) kB/.exec(status)![1]) / 1e3;
}

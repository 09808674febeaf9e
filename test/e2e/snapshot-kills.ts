/**
 * Snapshots of a large state between real processes, cut off at random moments:
 *
 *     bun test/e2e/snapshot-kills.ts --megabytes 1000 --rounds 20 --seed 7
 *
 * Each round a follower is stopped, the log is cut below what it has, and it starts again; while it receives the snapshot, it is killed, or the sender
 * is, or the sender stands still for a while, or nothing happens. Writes go on meanwhile. In the end all nodes must have the same state, by its hash.
 * Prints a line per round and one JSON line at the end, with how much memory the sender needed on top; ends with 1 where anything is wrong.
 */
import { Random } from "../sim/random.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { numberFlags } from "./script-flags.ts";

const flags = numberFlags({
  megabytes: 200,
  rounds: 8,
  seed: Date.now() % 1_000_000,
  /** Of log, below which it is not cut. */
  "tail-bytes": 0,
});
const valueBytes = 262_144;
const putsAtOnce = 16;
const mishaps = ["none", "killReceiver", "killSender", "pauseSender"] as const;

const random = new Random(flags.seed);
const value = Buffer.alloc(valueBytes);
let writes = 0;

process.stdout.write(`snapshot kills: ${flags.megabytes} MB, seed ${flags.seed}\n`);
try {
  await withCluster({ flags: ["--compact-bytes", "64000000"] }, run);
} catch (error) {
  process.stderr.write(
    `seed ${flags.seed}: ${error instanceof Error ? error.stack : String(error)}\n`,
  );
  process.exitCode = 1;
}

async function run(cluster: TestCluster): Promise<void> {
  const keys = Math.ceil((flags.megabytes * 1e6) / valueBytes);
  await fill(cluster, keys, keys);
  let growthMB = 0;
  const installedMs: number[] = [];
  for (let round = 1; round <= flags.rounds; round++) {
    const mishap = mishaps[(round - 1) % mishaps.length]!;
    const leader = await cluster.leader();
    const behind = random.pick(await cluster.followers());
    const { lastIndex } = await behind.group();
    await behind.kill();
    await fill(cluster, 40, keys);
    for (const node of cluster.nodes) if (node !== behind) await cut(node, lastIndex);
    const before = await peakMB(leader);
    const beganMs = performance.now();
    behind.start();
    const what = await strike(cluster, behind, leader, mishap);
    await fill(cluster, 10, keys);
    for (const node of cluster.nodes) await node.ready();
    await same(cluster);
    const ms = Math.round(performance.now() - beganMs);
    if (mishap === "none") {
      installedMs.push(ms);
      growthMB = Math.max(growthMB, (await peakMB(leader)) - before);
    }
    process.stdout.write(`round ${round}: ${what}; equal after ${ms} ms\n`);
  }
  const result = { ...flags, writes, installedMs, senderGrowthMB: Math.round(growthMB) };
  process.stdout.write(`${JSON.stringify({ snapshotKills: result })}\n`);
}

async function strike(
  cluster: TestCluster,
  receiver: TestNode,
  sender: TestNode,
  mishap: (typeof mishaps)[number],
): Promise<string> {
  if (mishap === "none") return "nothing happened";
  const share = 0.9 * random.float();
  let seen = "";
  await until("the snapshot is on its way", async () => {
    const { snapshots } = await receiver.group();
    const { receivedBytes = 0, bytes = 0 } = snapshots?.receiving ?? {};
    seen = `${mishap} at ${Math.round(receivedBytes / 1e6)} of ${Math.round(bytes / 1e6)} MB`;
    return bytes > 0 && receivedBytes >= share * bytes;
  }).catch(() => (seen = `${mishap} afterwards: it was too fast`));
  if (mishap === "killReceiver") {
    await receiver.kill();
    receiver.start();
  } else if (mishap === "killSender") {
    await sender.kill();
    await cluster.leader(cluster.nodes.filter((node) => node !== sender)).catch(() => {});
    sender.start();
  } else {
    sender.pause();
    await Bun.sleep(1_500);
    sender.resume();
  }
  return seen;
}

/** Overwrites random keys, through whoever takes it. */
async function fill(cluster: TestCluster, count: number, keys: number): Promise<void> {
  const { nodes } = cluster;
  let left = count;
  const one = async (): Promise<void> => {
    while (left-- > 0) {
      const key = `key-${count >= keys ? left : random.below(keys)}`;
      value.writeUInt32LE(++writes, 0);
      const body = Buffer.from(value);
      await until(`${key} is written`, async () => {
        const node = random.pick(nodes.filter(({ running, paused }) => running && !paused));
        return (await node.fetch(`/v1/kv/${key}`, { method: "PUT", body }, 8_000)).ok;
      });
    }
  };
  await Promise.all(Array.from({ length: putsAtOnce }, one));
}

/** For a while the log is kept for a member that was there a moment ago. */
async function cut(node: TestNode, beyond: number): Promise<void> {
  const body = JSON.stringify({ tailBytes: flags["tail-bytes"], timeoutMs: 60_000 });
  await until(`the log of node ${node.id} is cut`, async () => {
    const response = await node.fetch("/v1/snapshot", { method: "POST", body }, 60_000);
    if (!response.ok) throw new Error(await response.text());
    const { firstIndex } = (await response.json()) as { firstIndex: number };
    return firstIndex > beyond + 1;
  });
}

async function same(cluster: TestCluster): Promise<void> {
  await until(
    "all nodes have the same state",
    async () => {
      const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
      const states = groups.map((group) => `${group.appliedIndex} ${group.stateHash}`);
      const hashes = new Map(groups.map((group) => [group.appliedIndex, group.stateHash]));
      if (groups.some((group) => hashes.get(group.appliedIndex) !== group.stateHash)) {
        throw new Error(`states differ: ${states.join(", ")}`);
      }
      return new Set(states).size === 1;
    },
    120_000,
  );
}

async function peakMB(node: TestNode): Promise<number> {
  return (await node.status()).peakRssBytes / 1e6;
}

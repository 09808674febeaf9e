/**
 * A snapshot of an application's state, as large as one likes, to a node that was away for longer than the log goes back, over connections that break at random offsets: the
 * application never sees a short body, the daemons need no more memory than for a small one, and the sender keeps no copy. The state is made up while it is sent.
 *
 *     bun test/apps/snapshot-breaks.ts --megabytes 2000 --breaks 50 --kills 0 --seed 7
 *
 * With `--kills` the receiver is killed while it receives, so often; while it is away the leader goes on cutting its log.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { loopbackPlace, TestCluster, type TestNode, until } from "../e2e/cluster.ts";
import { PeerNetwork } from "../e2e/peer-network.ts";
import { numberFlags } from "../e2e/script-flags.ts";
import { Random } from "../sim/random.ts";
import { blockBytes, MadeUpState, serveMadeUp } from "./made-up-state.ts";

export interface Breaks {
  readonly megabytes: number;
  readonly breaks: number;
  readonly kills: number;
  readonly saves: number;
  readonly recovered: number;
  readonly seconds: number;
  /** Above what the daemon had before, at the most, in MB. */
  readonly senderGrewMB: number;
  readonly receiverGrewMB: number;
  readonly senderDiskMB: number;
}

export interface Wanted {
  readonly megabytes: number;
  readonly breaks: number;
  readonly kills?: number;
  readonly random: Random;
}

/** Throws where anything is not as it should be. */
export async function snapshotBreaks(wanted: Wanted): Promise<Breaks> {
  const states = [1, 2, 3].map(() => new MadeUpState(wanted));
  using server = serveMadeUp(states);
  const place = (id: number): ReturnType<typeof loopbackPlace> => ({
    ...loopbackPlace(),
    environment: { BARGE_APP_URL: `http://127.0.0.1:${server.port}/${id}` },
  });
  await using network = new PeerNetwork();
  await using cluster = new TestCluster({ place, network });
  try {
    await cluster.start();
    return await run(cluster, network, states, wanted);
  } catch (error) {
    process.stderr.write(cluster.logTails());
    throw error;
  }
}

async function run(
  cluster: TestCluster,
  network: PeerNetwork,
  states: readonly MadeUpState[],
  { megabytes, breaks, kills = 0, random }: Wanted,
): Promise<Breaks> {
  const leader = await cluster.leader();
  const receiver = cluster.nodes.find((node) => node !== leader)!;
  const others = cluster.nodes.filter((node) => node !== receiver);
  const state = states[receiver.id - 1]!;
  // Cut off, and not stopped: what a daemon needs while it starts is not for the snapshot.
  await behind(cluster, leader, receiver, () => network.cut(receiver.id));
  const senders = others.map((node) => new Watched(node));
  const diskBefore = await diskMB(others);
  const beginMs = performance.now();
  network.heal(receiver.id, { keep: false });
  let receiving = new Watched(receiver);
  const bytes = megabytes * blockBytes;
  let diskMax = 0;
  const received = (offset: number): Promise<void> =>
    until(
      "so much has arrived",
      async () => {
        const { snapshots } = await receiver.group();
        diskMax = Math.max(diskMax, await diskMB(others));
        return state.recovered > 0 || (snapshots?.receiving?.receivedBytes ?? 0) >= offset;
      },
      120_000,
    );
  for (let killed = 0; killed < kills; killed++) {
    await received(random.between(1, bytes / 2));
    await receiver.kill();
    await update(leader, 100);
    await cutLog(leader);
    receiver.start();
    await until("the receiver is back", async () => (await receiver.status()).nodeId > 0);
    receiving = new Watched(receiver);
  }
  let broken = 0;
  for (; broken < breaks && state.recovered === 0; broken++) {
    await received(random.between(0, bytes - 1));
    network.reset((from, to) => from === receiver.id || to === receiver.id);
  }
  await until("the state is there", () => state.recovered > 0, 600_000);
  await until("the receiver is ready", async () => (await receiver.fetch("/rc")).ok, 60_000);
  const figures: Breaks = {
    megabytes,
    breaks: broken,
    kills,
    saves: states.reduce((sum, { saves }) => sum + saves, 0),
    recovered: state.recovered,
    seconds: Math.round((performance.now() - beginMs) / 1_000),
    senderGrewMB: Math.max(...senders.map((sender) => sender.grewMB())),
    receiverGrewMB: receiving.grewMB(),
    senderDiskMB: Math.max(0, diskMax - diskBefore),
  };
  const { short, wrong } = state;
  if (short + wrong > 0 || state.recovered !== 1 || state.index < 220) {
    const found = JSON.stringify({ short, wrong, recovered: state.recovered, index: state.index });
    throw new Error(`the application saw what it should not: ${found}`);
  }
  return figures;
}

/** Drops from the others' logs what the receiver lacks, once it is away. */
export async function behind(
  cluster: TestCluster,
  leader: TestNode,
  receiver: TestNode,
  sendAway: () => void | Promise<void>,
): Promise<void> {
  await update(leader, 20);
  await sendAway();
  await update(leader, 200);
  for (const node of cluster.nodes) if (node !== receiver) await cutLog(node);
}

async function update(node: TestNode, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const { status } = await node.fetch("/raft/update", { method: "POST", body: `u${i}` }, 10_000);
    if (status !== 200) throw new Error(`an update was answered ${status}`);
  }
}

/** Until whoever is down is missed, and what it was being sent is given up, the leader keeps what it lacks. */
async function cutLog(node: TestNode): Promise<void> {
  const init = { method: "POST", body: '{"tailBytes":0}' };
  const { appliedIndex } = await node.group();
  await until(
    `the log of node ${node.id} is cut`,
    async () => {
      const { status } = await node.fetch("/raft/snapshot", init, 60_000);
      if (status !== 200) throw new Error(`node ${node.id} does not cut its log: ${status}`);
      return (await node.group()).firstIndex > appliedIndex;
    },
    90_000,
  );
}

async function diskMB(nodes: readonly TestNode[]): Promise<number> {
  const all = await Promise.all(nodes.map((node) => node.status()));
  return Math.round(all.reduce((sum, { diskBytes }) => sum + diskBytes, 0) / 1e6);
}

/** How far a process grows, by what the kernel says. */
class Watched {
  readonly #pid: number;
  readonly #startKB: number;

  constructor(node: TestNode) {
    this.#pid = node.pid;
    this.#startKB = this.#read("VmRSS");
    // From here on its peak is counted anew.
    writeFileSync(`/proc/${this.#pid}/clear_refs`, "5");
  }

  grewMB(): number {
    return Math.round((this.#read("VmHWM") - this.#startKB) / 1_024);
  }

  #read(name: string): number {
    const status = readFileSync(`/proc/${this.#pid}/status`, "utf8");
    return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)![1]);
  }
}

if (import.meta.main) {
  const now = Date.now() % 1_000_000;
  const flags = numberFlags({ megabytes: 2_000, breaks: 50, kills: 0, seed: now });
  process.stdout.write(`seed ${flags.seed}\n`);
  const { megabytes, breaks, kills, seed } = flags;
  const figures = await snapshotBreaks({ megabytes, breaks, kills, random: new Random(seed) });
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

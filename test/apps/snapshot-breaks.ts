/**
 * A snapshot of an application's state, as large as one likes, to a node that was away for longer than the log goes back, over connections that break at random offsets: the
 * application never sees a short body, the daemons need no more memory than for a small one, and the sender keeps no copy. The state is made up while it is sent.
 *
 *     bun test/apps/snapshot-breaks.ts --megabytes 2000 --breaks 50 --seed 7
 */
import { readFileSync, writeFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import { loopbackPlace, TestCluster, type TestNode, until } from "../e2e/cluster.ts";
import { PeerNetwork } from "../e2e/peer-network.ts";
import { numberFlags } from "../e2e/script-flags.ts";
import { Random } from "../sim/random.ts";

const blockBytes = 1024 * 1024;

/** Of one node: an index, and blocks that follow from it. */
class MadeUpState {
  index = 0;
  saves = 0;
  recovered = 0;
  short = 0;
  broken = 0;
  wrong = 0;
  readonly #blocks: number;

  constructor(megabytes: number) {
    this.#blocks = megabytes;
  }

  async answer(name: string, request: Request): Promise<Response> {
    switch (name) {
      case "LastLogIndex":
        return Response.json({ LastLogIndex: this.index });
      case "UpdateEntries": {
        const { Entries } = (await request.json()) as { Entries: { Index: number }[] };
        this.index = Math.max(this.index, Entries.at(-1)!.Index);
        return new Response("");
      }
      case "PrepareSnapshot":
        return Response.json({ Index: this.index });
      case "SaveSnapshot":
        this.saves++;
        return new Response(
          blocksOf(((await request.json()) as { Index: number }).Index, this.#blocks),
          {
            headers: { "content-length": String(this.#blocks * blockBytes) },
          },
        );
      case "RecoverFromSnapshot":
        return this.#recover(request);
      default:
        return new Response("");
    }
  }

  async #recover(request: Request): Promise<Response> {
    const said = Number(request.headers.get("content-length"));
    let size = 0;
    let crc = 0;
    let head = new Uint8Array(0);
    try {
      for await (const chunk of request.body ?? []) {
        if (head.byteLength < 8) head = Buffer.concat([head, chunk]).subarray(0, 8) as never;
        crc = crc32(chunk, crc);
        size += chunk.byteLength;
      }
    } catch {
      this.broken++;
      return new Response("broken", { status: 500 });
    }
    if (size !== said || size !== this.#blocks * blockBytes) {
      this.short++;
      return new Response("short", { status: 500 });
    }
    const index = Number(new DataView(head.buffer, head.byteOffset).getBigUint64(0));
    let whole = 0;
    for await (const block of blocksOf(index, this.#blocks)) whole = crc32(block, whole);
    if (whole !== crc) this.wrong++;
    this.index = index;
    this.recovered++;
    return new Response("");
  }
}

/** The first of them begins with the index; the same for the same index. */
async function* blocksOf(index: number, count: number): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const block = new Uint8Array(blockBytes);
  const view = new DataView(block.buffer);
  for (let at = 0; at < blockBytes; at += 4) view.setUint32(at, Math.imul(at + 1, 2_654_435_761));
  for (let number = 0; number < count; number++) {
    view.setBigUint64(0, BigInt(number === 0 ? index : number * 1_000_003 + index));
    yield block.slice();
  }
}

export interface Breaks {
  readonly megabytes: number;
  readonly breaks: number;
  readonly saves: number;
  readonly recovered: number;
  readonly seconds: number;
  /** Above what the daemon had before, at the most, in MB. */
  readonly senderGrewMB: number;
  readonly receiverGrewMB: number;
  readonly senderDiskMB: number;
}

/** Throws where anything is not as it should be. */
export async function snapshotBreaks(
  megabytes: number,
  breaks: number,
  random: Random,
): Promise<Breaks> {
  const states = [1, 2, 3].map(() => new MadeUpState(megabytes));
  using server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 255,
    maxRequestBodySize: Number.MAX_SAFE_INTEGER,
    fetch: (request) => {
      const [, node, name] = new URL(request.url).pathname.split("/");
      return states[Number(node) - 1]!.answer(name!, request);
    },
  });
  const place = (id: number): ReturnType<typeof loopbackPlace> => ({
    ...loopbackPlace(),
    environment: { BARGE_APP_URL: `http://127.0.0.1:${server.port}/${id}` },
  });
  await using network = new PeerNetwork();
  await using cluster = new TestCluster({ place, network });
  try {
    await cluster.start();
    return await run(cluster, network, states, { megabytes, breaks, random });
  } catch (error) {
    process.stderr.write(cluster.logTails());
    throw error;
  }
}

interface Wanted {
  readonly megabytes: number;
  readonly breaks: number;
  readonly random: Random;
}

async function run(
  cluster: TestCluster,
  network: PeerNetwork,
  states: readonly MadeUpState[],
  { megabytes, breaks, random }: Wanted,
): Promise<Breaks> {
  const leader = await cluster.leader();
  const receiver = cluster.nodes.find((node) => node !== leader)!;
  const others = cluster.nodes.filter((node) => node !== receiver);
  const state = states[receiver.id - 1]!;
  await update(leader, 20);
  await receiver.kill();
  await update(leader, 200);
  for (const node of others) {
    const init = { method: "POST", body: '{"tailBytes":0}' };
    const { status } = await node.fetch("/raft/snapshot", init, 60_000);
    if (status !== 200) throw new Error(`node ${node.id} does not cut its log: ${status}`);
  }
  const senders = others.map((node) => new Watched(node));
  const diskBefore = await diskMB(others);
  const beginMs = performance.now();
  receiver.start();
  await until("the receiver answers", async () => (await receiver.status()).nodeId === receiver.id);
  const receiving = new Watched(receiver);
  const bytes = megabytes * blockBytes;
  let broken = 0;
  let diskMax = 0;
  for (; broken < breaks && state.recovered === 0; broken++) {
    const offset = random.between(0, bytes - 1);
    await until(
      "so much has arrived",
      async () => {
        const { snapshots } = await receiver.group();
        diskMax = Math.max(diskMax, await diskMB(others));
        return state.recovered > 0 || (snapshots?.receiving?.receivedBytes ?? 0) >= offset;
      },
      120_000,
    );
    network.reset((from, to) => from === receiver.id || to === receiver.id);
  }
  await until("the state is there", () => state.recovered > 0, 600_000);
  await until("the receiver is ready", async () => (await receiver.fetch("/rc")).ok, 60_000);
  const figures: Breaks = {
    megabytes,
    breaks: broken,
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

async function update(node: TestNode, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const { status } = await node.fetch("/raft/update", { method: "POST", body: `u${i}` }, 10_000);
    if (status !== 200) throw new Error(`an update was answered ${status}`);
  }
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
  const flags = numberFlags({ megabytes: 2_000, breaks: 50, seed: Date.now() % 1_000_000 });
  process.stdout.write(`seed ${flags.seed}\n`);
  const figures = await snapshotBreaks(flags.megabytes, flags.breaks, new Random(flags.seed));
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

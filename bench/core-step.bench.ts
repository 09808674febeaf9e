/**
 * The Raft core alone: three cores in one process, with messages handed over at once and disks that are durable at once. What a batch costs
 * in the algorithm, from `propose` to committed on all three, with and without others in flight.
 */
import { bench, group, run as runSuite } from "mitata";
import { defaultLimits } from "../src/limits.ts";
import { Raft } from "../src/raft/raft.ts";
import { BatchKind, batchHeaderBytes, sealBatch, type Batch } from "../src/wire/batch.ts";
import type { RaftMessage } from "../src/wire/messages.ts";

const groupId = 1;
const bodyBytes = 64;
/** Batches kept in the cores' logs. */
const keptBatches = 256;

export async function run(small: boolean): Promise<void> {
  group("three cores, propose to committed everywhere", () => {
    for (const batches of small ? [1, 2] : [1, 8, 64]) {
      const cluster = new Cores();
      bench(`${batches} at a time`, () => cluster.commit(batches));
    }
  });
  group("three cores", () => {
    const cluster = new Cores();
    bench("a read index on the leader", () => cluster.read());
    bench("a tick of all", () => cluster.tick());
  });
  await runSuite({ format: small ? "quiet" : "mitata" });
}

class Cores {
  readonly #cores: Raft[];
  readonly #leader: Raft;
  /** Bodies by first index: what a shell would take from its cache to send. */
  readonly #bodies = new Map<number, Batch>();
  #reads = 0;

  constructor() {
    const ids = [1, 2, 3];
    this.#cores = ids.map((nodeId) => {
      let state = nodeId;
      return new Raft({
        group: groupId,
        nodeId,
        limits: defaultLimits,
        random: () => (state = (state * 48_271) % 0x7fff_ffff) / 0x7fff_ffff,
        hardState: { term: 0, votedFor: 0, commit: 0 },
        start: { index: 0, term: 0, crc: 0, timeMs: 0 },
        startConfiguration: {
          voters: ids,
          outgoing: [],
          learners: [],
          addresses: Object.fromEntries(ids.map((id) => [id, `node-${id}:9091`])),
        },
        batches: [],
        configurations: [],
        appliedIndex: 0,
      });
    });
    this.#leader = this.#elect();
  }

  commit(batches: number): void {
    for (let i = 0; i < batches; i++) {
      const seal = this.#leader.nextSeal()!;
      const bytes = new Uint8Array(batchHeaderBytes + bodyBytes);
      const { firstIndex, term, prevCrc, prevTimeMs: timeMs } = seal;
      const kind = BatchKind.commands;
      const header = { group: groupId, kind, firstIndex, count: 1, term, timeMs, prevCrc };
      this.#leader.propose(sealBatch(header, bytes));
    }
    this.#settle();
    if (this.#leader.commit !== this.#leader.lastIndex) throw new Error("not committed");
    this.#compact();
  }

  read(): void {
    const before = this.#reads;
    this.#leader.readIndex(before);
    this.#settle();
    if (this.#reads !== before + 1) throw new Error("the read was not answered");
  }

  tick(): void {
    for (const core of this.#cores) core.tick();
    this.#settle();
    if (this.#leader.role !== "leader") throw new Error("the leader lost its place");
  }

  #elect(): Raft {
    for (;;) {
      for (const core of this.#cores) core.tick();
      this.#settle();
      const leader = this.#cores.find((core) => core.role === "leader");
      if (leader !== undefined && leader.commit === leader.lastIndex) return leader;
    }
  }

  /** Performs all effects until there are none. */
  #settle(): void {
    for (let busy = true; busy;) {
      busy = false;
      for (const core of this.#cores) {
        while (core.hasReady()) {
          busy = true;
          this.#perform(core);
        }
      }
    }
  }

  #perform(core: Raft): void {
    const ready = core.ready();
    for (const batch of ready.append) this.#bodies.set(batch.firstIndex, batch);
    for (const message of ready.messages) this.#cores[message.to - 1]!.step(this.#filled(message));
    if (ready.token !== undefined) core.synced(ready.token);
    core.applied(ready.commit);
    this.#reads += ready.reads.length;
  }

  #filled(message: RaftMessage): RaftMessage {
    if (message.type !== "append" || message.fromIndex > message.toIndex) return message;
    const batches: Batch[] = [];
    for (let at = message.fromIndex; at <= message.toIndex;) {
      const batch = this.#bodies.get(at)!;
      batches.push(batch);
      at += batch.count;
    }
    return { ...message, batches };
  }

  #compact(): void {
    if (this.#bodies.size < keptBatches * 2) return;
    const point = this.#leader.compactionPoint(this.#leader.lastIndex - keptBatches);
    if (point === undefined) return;
    for (const core of this.#cores) {
      const own = core.compactionPoint(point.index);
      if (own !== undefined) core.compact(own);
    }
    for (const index of this.#bodies.keys()) if (index <= point.index) this.#bodies.delete(index);
  }
}

if (import.meta.main) await run(process.argv.includes("--small"));

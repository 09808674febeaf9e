/**
 * A small network of Raft cores for tests: each node has a store in memory that knows what is durable, messages wait in one list, and the
 * test decides what happens next. Nothing here judges; invariants are in core-random.test.ts.
 */
import { checkLimits, defaultLimits } from "../../src/limits.ts";
import type { Limits } from "../../src/limits.ts";
import { decodeConfiguration, encodeConfiguration } from "../../src/raft/configuration.ts";
import { Raft } from "../../src/raft/raft.ts";
import type { SnapshotVerdict } from "../../src/raft/raft.ts";
import type {
  Configuration,
  ReadState,
  Ready,
  Restore,
  SnapshotRequest,
} from "../../src/raft/ready.ts";
import {
  BatchKind,
  batchHeaderBytes,
  bodyOf,
  lastIndexOf,
  sealBatch,
} from "../../src/wire/batch.ts";
import type { Batch, BatchInfo, HardState, LogStart, Wound } from "../../src/wire/batch.ts";
import type { AppendMessage, RaftMessage } from "../../src/wire/messages.ts";

export const group = 7;
export const seedCrc = 0xba26e;

/** mulberry32: small, seeded, good enough for schedules. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const testLimits: Limits = checkLimits({
  ...defaultLimits,
  heartbeatTicks: 2,
  electionTicksMin: 8,
  electionTicksMax: 16,
  checkQuorumTicks: 16,
});

export function configurationOf(
  voters: readonly number[],
  learners: readonly number[] = [],
  outgoing: readonly number[] = [],
): Configuration {
  const ids = [...new Set([...voters, ...outgoing, ...learners])];
  const addresses = Object.fromEntries(ids.map((id) => [id, `node-${id}:9091`]));
  return { voters, outgoing, learners, addresses };
}

export interface Place {
  readonly firstIndex: number;
  readonly term: number;
  readonly prevCrc: number;
  readonly timeMs?: number;
}

export function sealCommands(place: Place, count: number, body: string | Uint8Array): Batch {
  return sealTest(place, BatchKind.commands, count, body);
}

export function sealConfiguration(place: Place, configuration: Configuration): Batch {
  return sealTest(place, BatchKind.configuration, 1, encodeConfiguration(configuration));
}

function sealTest(place: Place, kind: BatchKind, count: number, body: string | Uint8Array): Batch {
  const content = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const bytes = new Uint8Array(batchHeaderBytes + content.byteLength);
  bytes.set(content, batchHeaderBytes);
  const { firstIndex, term, prevCrc, timeMs = 0 } = place;
  return sealBatch({ group, kind, firstIndex, count, term, timeMs, prevCrc }, bytes);
}

/** Batches in a row: `terms[i]` is the term of batch i, which spans `counts[i]` indexes (1 where absent). */
export function logOf(
  terms: readonly number[],
  counts: readonly number[] = [],
  start: LogStart = { index: 0, term: 0, crc: seedCrc, timeMs: 0 },
): Batch[] {
  const batches: Batch[] = [];
  let firstIndex = start.index + 1;
  let prevCrc = start.crc;
  for (const [at, term] of terms.entries()) {
    const batch = sealCommands(
      { firstIndex, term, prevCrc },
      counts[at] ?? 1,
      `${firstIndex}/${term}`,
    );
    batches.push(batch);
    firstIndex = lastIndexOf(batch) + 1;
    prevCrc = batch.crc;
  }
  return batches;
}

/** What a disk holds of one replica. */
export interface Image {
  hardState: HardState;
  start: LogStart;
  startConfiguration: Configuration;
  batches: Batch[];
}

interface Write {
  readonly token: number;
  readonly hardState: HardState | undefined;
  readonly restore: Restore | undefined;
  readonly append: readonly Batch[];
}

function perform(image: Image, write: Write): void {
  if (write.hardState !== undefined) image.hardState = write.hardState;
  if (write.restore !== undefined) {
    image.start = write.restore.start;
    image.startConfiguration = write.restore.configuration;
    image.batches = [];
  }
  const first = write.append[0];
  if (first === undefined) return;
  while (image.batches.length > 0 && image.batches.at(-1)!.firstIndex >= first.firstIndex)
    image.batches.pop();
  image.batches.push(...write.append);
}

/** The batch of an image that spans `index`. */
export function batchAt(image: Image, index: number): Batch | undefined {
  let low = 0;
  let high = image.batches.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const batch = image.batches[middle]!;
    if (index < batch.firstIndex) high = middle - 1;
    else if (index > lastIndexOf(batch)) low = middle + 1;
    else return batch;
  }
  return undefined;
}

export function infoOf(batch: Batch): BatchInfo {
  const { firstIndex, count, term, timeMs, crc } = batch;
  return { firstIndex, count, term, timeMs, crc, bytes: batch.bytes.byteLength };
}

export interface NodeOptions {
  readonly id: number;
  readonly configuration: Configuration;
  readonly seed?: number;
  readonly limits?: Limits;
  readonly hardState?: HardState;
  readonly batches?: readonly Batch[];
  readonly start?: LogStart;
  readonly appliedIndex?: number;
  readonly preferred?: boolean;
  readonly formerTerm?: number;
}

/** One core and its store. Writes wait until `sync` says how many of them are durable. */
export class TestNode {
  readonly id: number;
  readonly #limits: Limits;
  readonly #random: () => number;
  readonly #preferred: boolean;
  readonly #formerTerm: number | undefined;
  /** What reads of the store see, and what is left after a crash that keeps nothing more. */
  visible: Image;
  durable: Image;
  writes: Write[] = [];
  raft: Raft;
  reads: ReadState[] = [];
  /** What the core has asked for so far. */
  snapshots: SnapshotRequest[] = [];
  /** Of the last Ready. */
  commit = 0;
  /** Proposes what the core says is due, as a shell does. */
  autoConfigure = false;
  /** Noted on disk: what was lost and has not come again. */
  wound: Wound | undefined;
  /** Kept over crashes by the state machine: never above what is durable. */
  appliedDurable = 0;

  constructor(options: NodeOptions) {
    this.id = options.id;
    this.#limits = options.limits ?? testLimits;
    this.#random = randomFrom((options.seed ?? 1) * 1000 + options.id);
    this.#preferred = options.preferred ?? false;
    this.#formerTerm = options.formerTerm;
    const image = (): Image => ({
      hardState: options.hardState ?? { term: 0, votedFor: 0, commit: 0 },
      start: options.start ?? { index: 0, term: 0, crc: seedCrc, timeMs: 0 },
      startConfiguration: options.configuration,
      batches: [...(options.batches ?? [])],
    });
    this.visible = image();
    this.durable = image();
    this.appliedDurable = options.appliedIndex ?? 0;
    this.raft = this.#boot();
  }

  #boot(): Raft {
    const { hardState, start, startConfiguration, batches } = this.durable;
    const raft = new Raft({
      group,
      nodeId: this.id,
      limits: this.#limits,
      random: this.#random,
      hardState,
      start,
      startConfiguration,
      batches: batches.map(infoOf),
      configurations: batches.filter((batch) => batch.kind === BatchKind.configuration),
      appliedIndex: this.appliedDurable,
      wound: this.wound,
      formerTerm: this.#formerTerm,
      preferred: this.#preferred,
    });
    this.commit = raft.commit;
    return raft;
  }

  /** Performs one Ready and returns its messages, with bodies attached. */
  turn(): { ready: Ready; messages: RaftMessage[] } | undefined {
    if (!this.raft.hasReady()) return undefined;
    const ready = this.raft.ready();
    if (ready.token !== undefined) {
      const { token, hardState, restore, append } = ready;
      const write = { token, hardState, restore, append };
      this.writes.push(write);
      perform(this.visible, write);
    }
    this.commit = ready.commit;
    if (ready.configurationDue !== undefined && this.autoConfigure)
      this.proposeConfiguration(ready.configurationDue);
    if (ready.healed) this.wound = undefined;
    this.reads.push(...ready.reads);
    this.snapshots.push(...ready.snapshots);
    const messages = ready.messages.map((message) =>
      message.type === "append" ? this.#withBodies(message) : message,
    );
    return { ready, messages };
  }

  #withBodies(message: AppendMessage): AppendMessage {
    const batches: Batch[] = [];
    for (let index = message.fromIndex; index <= message.toIndex;) {
      const batch = batchAt(this.visible, index);
      if (batch === undefined) throw new Error(`node ${this.id} has no body for index ${index}`);
      batches.push(batch);
      index = lastIndexOf(batch) + 1;
    }
    return { ...message, batches };
  }

  /** The first `count` outstanding writes are durable. */
  sync(count = this.writes.length): void {
    const done = this.writes.splice(0, count);
    for (const write of done) this.#makeDurable(write);
    if (done.length > 0) this.raft.synced(done.at(-1)!.token);
  }

  /** A pointer in the same write makes the snapshot the machine's file [25]. */
  #makeDurable(write: Write): void {
    perform(this.durable, write);
    if (write.restore !== undefined) this.appliedDurable = write.restore.start.index;
  }

  /** Everything committed is applied; the part of it that is durable in the log is durable in the machine. */
  apply(): void {
    this.raft.applied(this.commit);
    const bound = Math.min(this.commit, this.raft.durableIndex);
    const last = batchAt(this.durable, bound);
    if (last !== undefined && lastIndexOf(last) === bound)
      this.appliedDurable = Math.max(this.appliedDurable, bound);
  }

  /** Power is lost: what was not synced is gone, but for the first `kept` writes. Then the node starts anew. */
  restart(kept = 0): void {
    for (const write of this.writes.splice(0, kept)) this.#makeDurable(write);
    this.writes = [];
    this.snapshots = [];
    this.visible = { ...this.durable, batches: [...this.durable.batches] };
    this.reads = [];
    this.raft = this.#boot();
  }

  /** Rot at rest: what is durable ends at `index`, a batch end, and the hard state may be gone too. Found at this start. */
  restartRotten(index: number, hardState = this.durable.hardState): void {
    this.#lose(index + 1);
    this.durable.hardState = hardState;
    this.restart();
  }

  /** The batch at `firstIndex` turns out to be damaged while the node runs. */
  findDamage(firstIndex: number): void {
    const wound = this.#lose(firstIndex);
    this.raft.wounded(firstIndex, wound);
    this.commit = this.raft.commit;
  }

  #lose(firstIndex: number): Wound {
    const { batches, hardState } = this.durable;
    const last = batches.at(-1)!;
    this.wound = { term: last.term, index: lastIndexOf(last), hardTerm: hardState.term };
    for (const image of [this.visible, this.durable])
      image.batches = image.batches.filter((batch) => batch.firstIndex < firstIndex);
    return this.wound;
  }

  /** Gives up the log up to a batch end at or below `index`. */
  compact(index: number): void {
    const start = this.raft.compactionPoint(index);
    if (start === undefined) return;
    const startConfiguration = this.raft.configurationAt(start.index);
    for (const image of [this.visible, this.durable]) {
      image.batches = image.batches.filter((batch) => batch.firstIndex > start.index);
      image.start = start;
      image.startConfiguration = startConfiguration;
    }
    this.raft.compact(start);
  }

  /** Streams this node's state at `index`, a batch end, to another, all at once; what the other makes of it. */
  sendSnapshot(to: TestNode, index: number): SnapshotVerdict {
    const start = this.raft.positionAt(index)!;
    const verdict = to.raft.snapshotOffered(this.id, this.raft.term, start);
    if (verdict === "needed") to.raft.restored(start, this.raft.configurationAt(index));
    this.raft.snapshotEnded(to.id);
    return verdict;
  }

  propose(count = 1, body = `by ${this.id}`): Batch | undefined {
    const seal = this.raft.nextSeal();
    if (seal === undefined) return undefined;
    const batch = sealCommands({ ...seal, timeMs: seal.prevTimeMs + 1 }, count, body);
    this.raft.propose(batch);
    return batch;
  }

  proposeConfiguration(configuration: Configuration): Batch {
    const seal = this.raft.nextSeal()!;
    const batch = sealConfiguration({ ...seal, timeMs: seal.prevTimeMs }, configuration);
    if (decodeConfiguration(bodyOf(batch)) === undefined) throw new Error("malformed");
    this.raft.propose(batch);
    return batch;
  }
}

function campaigns({ type }: RaftMessage): boolean {
  return type === "preVote" || type === "vote";
}

/** Nodes and the messages between them. By default syncs are instant and nothing is lost. */
export class TestCluster {
  readonly nodes = new Map<number, TestNode>();
  /** In flight, in order of sending. */
  wire: RaftMessage[] = [];
  /** Everything ever sent, for assertions. */
  sent: RaftMessage[] = [];
  /** False = lost. */
  delivers: (message: RaftMessage) => boolean = () => true;
  autoSync = true;

  constructor(options: readonly NodeOptions[]) {
    for (const one of options) this.nodes.set(one.id, new TestNode(one));
  }

  /** Nodes 1 to `count`, all voters, with empty logs. */
  static of(count: number, seed = 1, limits = testLimits): TestCluster {
    const ids = Array.from({ length: count }, (_, at) => at + 1);
    const configuration = configurationOf(ids);
    return new TestCluster(ids.map((id) => ({ id, configuration, seed, limits })));
  }

  node(id: number): TestNode {
    return this.nodes.get(id)!;
  }

  get leader(): TestNode | undefined {
    const leaders = [...this.nodes.values()].filter(({ raft }) => raft.role === "leader");
    return leaders.sort((a, b) => b.raft.term - a.raft.term)[0];
  }

  /** Turns of one node until it has nothing left to do. */
  run(node: TestNode): void {
    for (let turn = node.turn(); turn !== undefined; turn = node.turn()) {
      this.sent.push(...turn.messages);
      this.wire.push(...turn.messages);
      if (this.autoSync) node.sync();
    }
  }

  /** Delivers until nothing moves. */
  settle(): void {
    for (let rounds = 0; rounds < 10_000; rounds++) {
      for (const node of this.nodes.values()) this.run(node);
      const message = this.wire.shift();
      if (message === undefined) return;
      if (this.delivers(message)) this.nodes.get(message.to)?.raft.step(message);
    }
    throw new Error("the cluster does not settle");
  }

  tick(ticks = 1): void {
    for (let done = 0; done < ticks; done++) {
      for (const node of this.nodes.values()) node.raft.tick();
      this.settle();
    }
  }

  /** Ticks one node alone until it campaigns, and settles: it leads unless something stands against it. */
  elect(id: number): TestNode {
    const node = this.node(id);
    const { delivers } = this;
    this.delivers = (message) => (message.from === id || !campaigns(message)) && delivers(message);
    for (let ticks = 0; ticks < 2 * testLimits.electionTicksMax; ticks++) {
      // The others' clocks run too, so that they no longer hear the old leader.
      for (const other of this.nodes.values())
        if (other !== node && other.raft.role !== "leader" && ticks < testLimits.electionTicksMin)
          other.raft.tick();
      node.raft.tick();
      this.settle();
      if (node.raft.role !== "leader") continue;
      this.delivers = delivers;
      return node;
    }
    throw new Error(`node ${id} is not elected`);
  }

  /** Cuts one node off, in both directions. */
  isolate(...ids: number[]): void {
    this.delivers = ({ from, to }) => ids.includes(from) === ids.includes(to);
  }

  heal(): void {
    this.delivers = () => true;
  }
}

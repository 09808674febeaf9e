/**
 * The embedded key-value state machine: a memtable of writes over a file [28]. `apply` works in memory. The active memtable is frozen when it
 * is full or old; the frozen one is written into the file by key, in slices, in one transaction that carries the applied index of the
 * freeze point, and then synced. Reads look into active, frozen, file, in this order.
 *
 *     apply → active ──freeze──▶ frozen ──slices──▶ transaction ──commit──▶ sync ──▶ durableIndex
 *                                                       └ waits until the node's own log is durable up to the freeze point [23]
 *
 * What a command answers depends on the commands before it and on nothing else: not on when a flush happens, nor on a restart.
 */
import type { Limits } from "../limits.ts";
import { BatchKind, lastIndexOf, type Batch } from "../wire/batch.ts";
import { applyVersionFirst } from "../wire/versions.ts";
import type { CommonBytes } from "./common-bytes.ts";
import type { CommonFlushes } from "./common-flushes.ts";
import { KvApply } from "./kv-apply.ts";
import { KvChanges } from "./kv-changes.ts";
import type { KvMeta } from "./kv-file.ts";
import { KvFlush } from "./kv-flush.ts";
import { KvLayers } from "./kv-layers.ts";
import { KvLive, type KvLiveOptions } from "./kv-live.ts";
import { KvRead } from "./kv-read.ts";
import type {
  AnswerSink,
  HeldFile,
  IncomingSnapshot,
  MachineSnapshot,
  ResultSink,
  StateMachine,
} from "./machine.ts";
import { Sessions } from "./sessions.ts";
import { type HashScratch, StateHash } from "./state-hash.ts";

export interface KvMachineOptions extends KvLiveOptions {
  readonly limits: Limits;
  /** Memory that it shares with other machines. */
  readonly memtables?: CommonBytes | undefined;
  /** Memory that each needs while it applies a batch. */
  readonly hashing?: HashScratch | undefined;
  /** What each knows of the others' flushes. */
  readonly flushes?: CommonFlushes | undefined;
  /** Monotonic; measures slices of work. */
  readonly nowMs: () => number;
}

export class KvMachine implements StateMachine {
  readonly #limits: Limits;
  readonly #nowMs: () => number;
  readonly #live: KvLive;
  #layers!: KvLayers;
  #sessions!: Sessions;
  #read!: KvRead;
  #flush!: KvFlush;
  readonly #hash: StateHash;
  readonly history: KvChanges;
  readonly #memtables: CommonBytes | undefined;
  readonly #flushes: CommonFlushes | undefined;
  /** Of the active memtable, as the others know it. */
  #toldBytes = 0;

  #appliedIndex = 0;
  /** Cluster time of the last batch [5]. */
  #timeMs = 0;
  #allowedIndex = 0;
  /** Applied up to here when the last memtable was frozen, and bytes of log applied since. */
  #frozenIndex = 0;
  #logBytes = 0;
  /** When `work` first saw something applied since the freeze. */
  #dirtySinceMs: number | undefined;
  /** Somebody wants a flush, however little there is. */
  #flushWanted = false;
  /** Or once this is applied. */
  #flushAt = Infinity;
  /** The frozen memtable was full, so the next one will be large as well. */
  #keepMemory = false;

  constructor(options: KvMachineOptions) {
    this.#limits = options.limits;
    this.#nowMs = options.nowMs;
    this.#live = new KvLive(options);
    this.#hash = new StateHash(options.hashing);
    this.history = new KvChanges(options.limits);
    this.#memtables = options.memtables;
    this.#flushes = options.flushes;
    this.#build();
  }

  /** Over the live file, with nothing in memory. */
  #build(): void {
    const { file, snapshots } = this.#live;
    const limits = this.#limits;
    this.#layers = new KvLayers(file);
    this.#read = new KvRead(this.#layers, limits);
    const runner = new KvApply(this.#layers, this.#read, limits);
    this.#sessions = new Sessions(runner, limits, applyVersionFirst);
    const committed = (): void => this.#layers.dropFrozen(this.#keepMemory);
    const [nowMs, flushes] = [this.#nowMs, this.#flushes];
    this.#flush = new KvFlush({ file, snapshots, limits, nowMs, flushes, committed });
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  get durableIndex(): number {
    return this.#flush.durableIndex;
  }

  get stateHash(): number {
    return this.#hash.value;
  }

  get applyVersion(): number {
    return this.#sessions.version;
  }

  get systemSeed(): Uint8Array {
    return this.#sessions.systemSeed;
  }

  /** What is known of sessions and request ids, as it is saved: equal on all nodes at equal `appliedIndex`. */
  savedSessions(): Uint8Array {
    return this.#sessions.save();
  }

  open(): number {
    const meta = this.#live.open(this.#limits);
    return meta === undefined ? 0 : this.#opened(meta);
  }

  #opened(meta: KvMeta): number {
    this.#flush.opened(meta);
    this.#hash.value = meta.stateHash;
    this.#timeMs = meta.timeMs;
    this.#sessions.load(meta.applyVersion, meta.sessions);
    this.#frozenIndex = meta.appliedIndex;
    // It was allowed in the last life.
    this.#allowedIndex = meta.appliedIndex;
    this.#appliedIndex = meta.appliedIndex;
    this.history.reset(meta.appliedIndex);
    return this.#appliedIndex;
  }

  apply(batches: readonly Batch[], results: ResultSink): number {
    for (const [taken, batch] of batches.entries()) {
      const last = lastIndexOf(batch);
      const next = this.#appliedIndex + 1;
      if (last < next) continue;
      if (batch.firstIndex > next) {
        throw new Error(`kv: batch at ${batch.firstIndex} where ${next} was due`);
      }
      const { active } = this.#layers;
      const full = active.count > 0 && active.bytes >= this.#limits.memtableBytes;
      // Few keys, written again and again, never fill it: yet the log that two memtables hold back must stay bounded.
      const long = this.#logBytes >= this.#limits.flushLogBytes;
      const crowded = this.#memtables?.wantsBack(active.bytes) === true;
      if (full || long || crowded) {
        const mayWait = full || long || this.#memtables!.isExhausted;
        if (!this.#freeze(full) && mayWait) return taken;
      } else if (this.#reachedFlushAt) this.#freeze(false);
      this.#hash.begin(batch, this.history.noting(results));
      if (batch.kind === BatchKind.commands) this.#sessions.apply(batch, next, this.#hash);
      if (batch.kind === BatchKind.applyVersion) this.#sessions.raise(batch);
      this.#hash.end();
      this.#appliedIndex = last;
      this.#timeMs = batch.timeMs;
      this.#logBytes += batch.bytes.byteLength;
      this.#tellBytes();
    }
    return batches.length;
  }

  #tellBytes(): void {
    const { bytes } = this.#layers.active;
    this.#memtables?.change(this.#toldBytes, bytes);
    this.#toldBytes = bytes;
  }

  read(query: Uint8Array, answers: AnswerSink): void {
    this.#read.read(query, this.#appliedIndex, answers);
  }

  allowDurable(index: number): void {
    this.#allowedIndex = Math.max(this.#allowedIndex, index);
  }

  work(nowMs: number): boolean {
    if (this.#appliedIndex > this.#frozenIndex) {
      this.#dirtySinceMs ??= nowMs;
      const old = this.#isOld(nowMs - this.#dirtySinceMs);
      // Also where few keys are written again and again: the log below must be able to go.
      const large = this.#logBytes >= this.#limits.flushLogBytes;
      const crowded = this.#memtables?.wantsBack(this.#layers.active.bytes) === true;
      const due = old || large || crowded || this.#flushWanted || this.#reachedFlushAt;
      if (due) this.#freeze(false);
    }
    if (this.#flush.work(nowMs, this.#allowedIndex)) return true;
    const { runs } = this.#layers.active;
    runs.sortSome();
    return runs.unsortedBlocks > 0;
  }

  /** Due by its age: once no other flush is under way, or after twice the time. */
  #isOld(ageMs: number): boolean {
    const { memtableFlushMs, flushLogBytesMin } = this.#limits;
    if (ageMs < memtableFlushMs || this.#logBytes < flushLogBytesMin) return false;
    return this.#flushes?.areIdle !== false || ageMs >= 2 * memtableFlushMs;
  }

  get resting(): boolean {
    if (this.#flushWanted || !this.#flush.resting || this.#reachedFlushAt) return false;
    return this.#layers.active.runs.unsortedBlocks === 0;
  }

  flush(): void {
    this.#flushWanted = this.#appliedIndex > this.#frozenIndex;
  }

  flushAt(index: number): void {
    this.#flushAt = index;
  }

  get #reachedFlushAt(): boolean {
    return this.#appliedIndex >= this.#flushAt && this.#frozenIndex < this.#flushAt;
  }

  prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void {
    this.#live.snapshots.want(done);
  }

  receiveSnapshot(bytes: number): IncomingSnapshot | undefined {
    return this.#live.receive(bytes, this.#limits);
  }

  recoverFromSnapshot(incoming: IncomingSnapshot): void {
    const meta = this.#live.goOver(incoming);
    this.#flush.release();
    this.#build();
    this.#tellBytes();
    this.#opened(meta);
    this.#logBytes = 0;
    this.#dirtySinceMs = undefined;
    this.#flushWanted = false;
  }

  snapshotDurable(): void {
    this.#live.settle();
  }

  holdFile(): HeldFile | undefined {
    const { file } = this.#live;
    const { stored } = file;
    if (stored === undefined) return undefined;
    file.hold();
    return { ...stored, release: () => file.letGo() };
  }

  figures(): Record<string, number> {
    const { active, frozen } = this.#layers;
    return {
      memtableKeys: active.count + (frozen?.count ?? 0),
      memtableBytes: active.bytes + (frozen?.bytes ?? 0),
      clusterTimeMs: this.#timeMs,
      outcomeBytes: this.history.bytes,
      ...this.#sessions.figures(),
      ...this.#flush.figures(),
    };
  }

  close(): void {
    this.#memtables?.change(this.#toldBytes, 0);
    this.#toldBytes = 0;
    this.#flush.release();
    this.#live.file.close();
  }

  /** Freezes the active memtable; false while another one is still being written. Always at a batch's end. */
  #freeze(full: boolean): boolean {
    if (!this.#flush.idle) return false;
    const meta: KvMeta = {
      appliedIndex: this.#appliedIndex,
      stateHash: this.#hash.value,
      timeMs: this.#timeMs,
      applyVersion: this.#sessions.version,
      sessions: this.#sessions.save(),
    };
    this.#keepMemory = full;
    this.#flush.start(this.#layers.freeze(), meta);
    this.#tellBytes();
    this.#frozenIndex = this.#appliedIndex;
    this.#logBytes = 0;
    this.#dirtySinceMs = undefined;
    this.#flushWanted = false;
    return true;
  }
}

/**
 * The machine that counts and forgets: it measures the log alone. Each command is plain ok and each query finds nothing. It still says
 * durably how far it has applied, as the log drops what lies below: that alone is in its file, written as kv's is.
 */
import type { Limits } from "../limits.ts";
import {
  ResultCode,
  type AnswerSink,
  type IncomingSnapshot,
  type MachineSnapshot,
  type ResultSink,
  type StateMachine,
} from "./machine.ts";
import { BatchKind, lastIndexOf, type Batch } from "../wire/batch.ts";
import { applyVersionFirst } from "../wire/versions.ts";
import type { KvMachineOptions } from "./kv.ts";
import { KvFlush } from "./kv-flush.ts";
import { Memtable } from "./memtable.ts";
import { type SectionRunner, Sessions } from "./sessions.ts";
import { StateHash } from "./state-hash.ts";
import type { KvMeta } from "./kv-file.ts";
import { KvLive } from "./kv-live.ts";

/** Every command is plain ok. */
const nothingToRun: SectionRunner = { run: () => undefined };

export class NullMachine implements StateMachine {
  readonly #limits: Limits;
  readonly #nowMs: () => number;
  readonly #live: KvLive;
  #flush!: KvFlush;
  #sessions!: Sessions;
  readonly #hash: StateHash;
  readonly #nothing = new Memtable();

  #appliedIndex = 0;
  #timeMs = 0;
  #allowedIndex = 0;
  #flushedIndex = 0;
  #commands = 0;
  #logBytes = 0;
  #dirtySinceMs: number | undefined;
  #flushWanted = false;
  #flushAt = Infinity;

  constructor(options: KvMachineOptions) {
    this.#limits = options.limits;
    this.#nowMs = options.nowMs;
    this.#live = new KvLive(options);
    this.#hash = new StateHash(options.hashing);
    this.#build();
  }

  #build(): void {
    const { file, snapshots } = this.#live;
    this.#sessions = new Sessions(nothingToRun, this.#limits, applyVersionFirst);
    const committed = (): void => {};
    const nowMs = this.#nowMs;
    this.#flush = new KvFlush({ file, snapshots, limits: this.#limits, nowMs, committed });
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

  open(): number {
    const meta = this.#live.open(this.#limits);
    return meta === undefined ? 0 : this.#opened(meta);
  }

  #opened(meta: KvMeta): number {
    this.#flush.opened(meta);
    this.#hash.value = meta.stateHash;
    this.#timeMs = meta.timeMs;
    this.#sessions.load(meta.applyVersion, meta.sessions);
    this.#allowedIndex = meta.appliedIndex;
    this.#flushedIndex = meta.appliedIndex;
    this.#appliedIndex = meta.appliedIndex;
    return this.#appliedIndex;
  }

  apply(batches: readonly Batch[], results: ResultSink): number {
    for (const batch of batches) {
      const last = lastIndexOf(batch);
      const next = this.#appliedIndex + 1;
      if (last < next) continue;
      if (batch.firstIndex > next) {
        throw new Error(`null: batch at ${batch.firstIndex} where ${next} was due`);
      }
      if (this.#reachedFlushAt && this.#flush.idle) this.#start();
      this.#hash.begin(batch, results);
      if (batch.kind === BatchKind.commands) this.#sessions.apply(batch, next, this.#hash);
      if (batch.kind === BatchKind.applyVersion) this.#sessions.raise(batch);
      this.#hash.end();
      this.#commands += last - this.#appliedIndex;
      this.#appliedIndex = last;
      this.#timeMs = batch.timeMs;
      this.#logBytes += batch.bytes.byteLength;
    }
    return batches.length;
  }

  read(_query: Uint8Array, answers: AnswerSink): void {
    answers.answer(ResultCode.notFound, undefined);
  }

  allowDurable(index: number): void {
    this.#allowedIndex = Math.max(this.#allowedIndex, index);
  }

  work(nowMs: number): boolean {
    if (this.#appliedIndex > this.#flushedIndex) {
      this.#dirtySinceMs ??= nowMs;
      const { memtableFlushMs, flushLogBytesMin } = this.#limits;
      const old =
        this.#logBytes >= flushLogBytesMin && nowMs - this.#dirtySinceMs >= memtableFlushMs;
      // As often as a memtable of kv would be full, so that the log stays as short.
      const large = this.#logBytes >= this.#limits.memtableBytes;
      const due = old || large || this.#flushWanted || this.#reachedFlushAt;
      if (due && this.#flush.idle) this.#start();
    }
    return this.#flush.work(nowMs, this.#allowedIndex);
  }

  get resting(): boolean {
    return !this.#flushWanted && this.#flush.resting && !this.#reachedFlushAt;
  }

  flush(): void {
    this.#flushWanted = this.#appliedIndex > this.#flushedIndex;
  }

  flushAt(index: number): void {
    this.#flushAt = index;
  }

  get #reachedFlushAt(): boolean {
    return this.#appliedIndex >= this.#flushAt && this.#flushedIndex < this.#flushAt;
  }

  prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void {
    this.#live.snapshots.want(done);
  }

  receiveSnapshot(bytes: number): IncomingSnapshot | undefined {
    return this.#live.receive(bytes, this.#limits);
  }

  recoverFromSnapshot(incoming: IncomingSnapshot): void {
    const meta = this.#live.goOver(incoming);
    this.#build();
    this.#opened(meta);
    this.#logBytes = 0;
    this.#dirtySinceMs = undefined;
    this.#flushWanted = false;
  }

  snapshotDurable(): void {
    this.#live.settle();
  }

  figures(): Record<string, number> {
    return {
      commands: this.#commands,
      clusterTimeMs: this.#timeMs,
      ...this.#sessions.figures(),
      ...this.#flush.figures(),
    };
  }

  close(): void {
    this.#live.file.close();
  }

  #start(): void {
    this.#flush.start(this.#nothing, {
      appliedIndex: this.#appliedIndex,
      stateHash: this.#hash.value,
      timeMs: this.#timeMs,
      applyVersion: this.#sessions.version,
      sessions: this.#sessions.save(),
    });
    this.#flushedIndex = this.#appliedIndex;
    this.#logBytes = 0;
    this.#dirtySinceMs = undefined;
    this.#flushWanted = false;
  }
}

/**
 * Brings frozen memtables into the file: sorts what is not sorted yet, in slices, hands the memtable over to be written off the event loop, and keeps
 * the file's write-ahead log bounded by checkpoints, which exclude a write [29].
 */
import type { Limits } from "../limits.ts";
import type { CommonFlushes } from "./common-flushes.ts";
import type { KvFile, KvMeta } from "./kv-file.ts";
import type { KvSnapshots } from "./kv-snapshots.ts";
import type { Memtable } from "./memtable.ts";

export interface KvFlushOptions {
  readonly file: KvFile;
  /** Checkpoints run for them, and none while one is held. */
  readonly snapshots: KvSnapshots;
  readonly limits: Limits;
  readonly nowMs: () => number;
  /** Of other machines as well. */
  readonly flushes?: CommonFlushes | undefined;
  /** The file shows all of the frozen memtable: it can go. */
  readonly committed: () => void;
}

export class KvFlush {
  readonly #file: KvFile;
  readonly #snapshots: KvSnapshots;
  readonly #limits: Limits;
  readonly #nowMs: () => number;
  readonly #common: CommonFlushes | undefined;
  readonly #committed: () => void;
  /** The others know of the flush under way. */
  #isCounted = false;

  #table: Memtable | undefined;
  /** Of what is being written, or was last. */
  #meta: KvMeta | undefined;
  #retryAtMs = 0;
  /** A write or a checkpoint is under way. */
  #busy = false;
  #durableIndex = 0;

  #flushes = 0;
  #rows = 0;
  #checkpoints = 0;

  constructor(options: KvFlushOptions) {
    this.#file = options.file;
    this.#snapshots = options.snapshots;
    this.#limits = options.limits;
    this.#nowMs = options.nowMs;
    this.#common = options.flushes;
    this.#committed = options.committed;
  }

  /** What the file held when it was opened. */
  opened(meta: KvMeta): void {
    this.#meta = meta;
    this.#durableIndex = meta.appliedIndex;
  }

  /** Synced in the file. */
  get durableIndex(): number {
    return this.#durableIndex;
  }

  /** False while a memtable waits to be written, or is. */
  get idle(): boolean {
    return this.#table === undefined;
  }

  /** Nothing is being written, moved or waited for. */
  get resting(): boolean {
    return this.idle && !this.#busy && !this.#snapshots.wanted;
  }

  /** Begins to flush; `table` must not change any more. `meta` says where in the log it ends. */
  start(table: Memtable, meta: KvMeta): void {
    if (!this.idle) throw new Error("kv: a flush is under way already");
    if (meta.appliedIndex < (this.#meta?.appliedIndex ?? 0))
      throw new Error("kv: a flush back in time");
    this.#table = table;
    this.#meta = meta;
    if (!this.#isCounted) this.#common?.begun();
    this.#isCounted = true;
  }

  /** The others need not wait for it any more: it is durable, or its machine has left the file. */
  release(): void {
    if (this.#isCounted) this.#common?.ended();
    this.#isCounted = false;
  }

  /** A slice of work. True when there is more to do at once; false when idle, or when it waits for something. */
  work(nowMs: number, allowedIndex: number): boolean {
    if (this.#snapshots.wanted) this.#serveSnapshots();
    if (this.#busy || nowMs < this.#retryAtMs) return false;
    if (this.#checkpointDue()) {
      this.#checkpoint(nowMs);
      return false;
    }
    const table = this.#table;
    const meta = this.#meta;
    if (table === undefined || meta === undefined) return false;
    const endMs = this.#nowMs() + this.#limits.flushSliceMs;
    while (table.runs.unsortedBlocks > 0) {
      table.runs.sortSome();
      if (this.#nowMs() >= endMs) return true;
    }
    // Not past the node's own durable log [23].
    if (meta.appliedIndex <= allowedIndex) this.#write(table, meta, nowMs);
    return false;
  }

  figures(): Record<string, number> {
    return {
      flushes: this.#flushes,
      flushedRows: this.#rows,
      checkpoints: this.#checkpoints,
      fileWalBytes: this.#file.walBytes,
      fileBytes: this.#file.mainBytes ?? 0,
    };
  }

  #write(table: Memtable, meta: KvMeta, nowMs: number): void {
    this.#busy = true;
    this.#file.write(table, meta, {
      committed: () => {
        this.#table = undefined;
        this.#flushes += 1;
        this.#rows += table.count;
        this.#committed();
      },
      durable: () => {
        this.#busy = false;
        this.#durableIndex = meta.appliedIndex;
        if (this.idle) this.release();
      },
      // The memtable still has everything, and apply waits once the other one is full too.
      diskFull: () => {
        this.#busy = false;
        this.#retryAtMs = nowMs + this.#limits.diskFullRetryMs;
      },
    });
  }

  #checkpoint(nowMs: number): void {
    this.#busy = true;
    this.#file.checkpoint((moved) => {
      this.#busy = false;
      if (moved) {
        this.#checkpoints += 1;
        // Nothing is being written, so the main file has all that was.
        this.#snapshots.serve(this.#durableIndex);
      } else {
        this.#retryAtMs = nowMs + this.#limits.diskFullRetryMs;
        this.#snapshots.refuse();
      }
    });
  }

  #checkpointDue(): boolean {
    if (this.#snapshots.wanted) return true;
    return this.#file.walBytes > this.#limits.kvWalBytesMax && !this.#snapshots.held;
  }

  /** Answers those who wait, where it takes no checkpoint. */
  #serveSnapshots(): void {
    if (this.#durableIndex === 0 && !this.#busy) this.#snapshots.refuse();
    else this.#snapshots.share();
  }
}

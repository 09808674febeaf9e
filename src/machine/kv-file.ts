/**
 * The seam between the key-value machine and the file that keeps its flushed state [43]: SQLite (sqlite-kv-file.ts) or the simulated
 * twin of test/sim. Types only.
 *
 * The contract that both keep, and that kv.ts relies on:
 * - A write is atomic, and goes on while the event loop does other things. Reads do not see it before it is committed, and all of it
 *   at once after.
 * - Committed is visible, not durable. After a crash the file holds a prefix of its writes, which includes all that were durable.
 * - Any failure other than a full disk ends the process.
 */
import type { HeldFile } from "./machine.ts";
import type { Memtable } from "./memtable.ts";

/** What is saved with the data, in the same transaction [C7]: where in the log the data stands. */
export interface KvMeta {
  readonly appliedIndex: number;
  readonly stateHash: number;
  /** Cluster time of the last batch applied [5]. */
  readonly timeMs: number;
  /** How commands take effect from here on [16]. */
  readonly applyVersion: number;
  /** What sessions.ts has saved; empty where there is nothing. */
  readonly sessions: Uint8Array;
}

export interface KvRow {
  readonly key: Uint8Array;
  readonly revision: number;
  readonly value: Uint8Array;
}

/** How a write ends: committed, then durable; or diskFull, and then nothing of it is there. None runs within the call of `write`. */
export interface KvWriteEvents {
  /** Reads see it, and the memtable is the caller's again. */
  committed(): void;
  durable(): void;
  /** It may be tried again. */
  diskFull(): void;
}

/** See `StateMachine.holdFile`. */
export type StoredState = Omit<HeldFile, "release">;

export interface KvFile {
  /**
   * Reads what the last life left, makes it durable (it may have been visible only) and returns its meta; undefined where there is
   * no file yet. Creates nothing. Blocks.
   */
  open(): KvMeta | undefined;

  /**
   * Writes all entries of a memtable and the meta in one transaction, and makes it durable. The memtable's runs are sorted, and nobody may change it
   * before `committed`. Creates the file where there is none. Never while another write or a checkpoint is under way.
   */
  write(table: Memtable, meta: KvMeta, events: KvWriteEvents): void;

  /** Revision of a key, 0 where it is absent. */
  revision(key: Uint8Array): number;
  get(key: Uint8Array): Omit<KvRow, "key"> | undefined;
  /**
   * Visits rows by rising key from `from` on (from the start without it), until `visit` returns false. The rows' arrays are the
   * visitor's to keep.
   */
  scan(from: Uint8Array | undefined, visit: (row: KvRow) => boolean): void;

  /** Bytes of the main file as of the last checkpoint, or of `open`. */
  readonly mainBytes?: number;
  /** Bytes of the write-ahead log that a checkpoint would move into the main file. */
  readonly walBytes: number;
  /**
   * Moves all of the write-ahead log into the main file, then runs `done`; `moved` is false when the disk is full. Never while a write is under way, nor
   * while the main file is held.
   */
  checkpoint(done: (moved: boolean) => void): void;

  /**
   * The main file is read from now on, as `readMain` asks, and the file stays open: returns its bytes. After a complete checkpoint and as long as no
   * other runs, it alone is the state as of that checkpoint.
   */
  hold(): number;
  /** Reads a part of the main file, off the event loop; `done` runs later, never within the call. `memory` as with MachineSnapshot. */
  readMain(
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer>) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void;
  letGo(): void;

  /** Of a file that others may read as well. Undefined where it is not there yet. */
  readonly stored?: StoredState | undefined;

  /** Leaves everything as it is: no sync, no checkpoint. A write that is not committed may be lost; no event comes any more. */
  close(): void;
}

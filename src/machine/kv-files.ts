/**
 * What the files of all machines of a shard share: the Worker that writes them, one job after the other, and the bound on files that are open [24, 27, 28].
 */
import { dirname } from "node:path";
import { Worker } from "node:worker_threads";
import type { Limits } from "../limits.ts";
import { CommonBytes } from "./common-bytes.ts";
import { CommonFlushes } from "./common-flushes.ts";
import { SnapshotFiles } from "../storage/snapshot-files.ts";
import { latchMemory } from "../storage/sync-latch.ts";
import type { KvJob, KvJobFailure, KvReply, KvWorkerData } from "./kv-jobs.ts";
import type { SharedMemtable } from "./memtable.ts";
import { paceBytes } from "./kv-pace.ts";
import { SqliteKvFile } from "./sqlite-kv-file.ts";
import { HashScratch } from "./state-hash.ts";

export interface KvJobEvents {
  /** Of a write only. */
  committed(walBytes: number): void;
  done(walBytes: number): void;
  failed(failure: KvJobFailure): void;
}

interface Queued {
  readonly job: KvJob;
  readonly events: KvJobEvents;
}

export class KvFiles {
  /** Reads and writes files of snapshots, in a thread of its own. */
  readonly snapshots = new SnapshotFiles();
  readonly limits: Limits;
  /** Of all machines, but for what is being flushed. */
  readonly memtables: CommonBytes;
  readonly flushes = new CommonFlushes();
  readonly hashing = new HashScratch();
  readonly #hasRoomFor: (bytes: number) => boolean;
  readonly #open = new Set<SqliteKvFile>();
  /** To be removed once they are left. */
  readonly #unwanted = new Set<SqliteKvFile>();
  #uses = 0;
  /** The first one is under way. */
  readonly #jobs: Queued[] = [];
  #worker: Worker | undefined;
  #idle: (() => void) | undefined;

  /** `hasRoomFor`: whether the disk has so much left that is not for the log. */
  constructor({
    limits,
    hasRoomFor = () => true,
  }: {
    readonly limits: Limits;
    readonly hasRoomFor?: (bytes: number) => boolean;
  }) {
    this.limits = limits;
    this.memtables = new CommonBytes(limits.shardMemtableBytes);
    this.#hasRoomFor = hasRoomFor;
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
    this.#worker?.unref();
    this.snapshots.close();
    // Nobody hears of them any more.
    this.#jobs.splice(1);
  }

  /** Runs `done` once nothing is being written: until then the folder must stay, or the Worker takes it for a disk that fails. */
  whenIdle(done: () => void): void {
    if (this.#jobs.length === 0) done();
    else this.#idle = done;
  }

  /** In that folder: until nothing is, it must stay as well. */
  isWriting(directory: string): boolean {
    const isThere = ({ job }: Queued): boolean => dirname(job.path) === directory;
    return this.snapshots.isWriting(directory) || this.#jobs.some(isThere);
  }

  nextUse(): number {
    this.#uses += 1;
    return this.#uses;
  }

  /** A file is about to be opened: the ones used longest ago make room for it, unless all are busy. */
  opening(file: SqliteKvFile): void {
    while (this.#open.size >= this.limits.kvOpenFilesMax) {
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
    if (this.#open.has(file) || !file.idle) this.#unwanted.add(file);
    else this.snapshots.remove(file.path);
  }

  /** What would take the last of the space is as good as tried: it would only be in the log's way. */
  hasRoomFor(bytes: number): boolean {
    return this.#hasRoomFor(bytes);
  }

  run(job: KvJob, events: KvJobEvents): void {
    if (!this.#hasRoomFor(job.kind === "write" ? bytesOf(job.table) : 0)) {
      const failure = { diskFull: true, reason: "too little space" };
      return void setImmediate(() => events.failed(failure));
    }
    this.#jobs.push({ job, events });
    if (this.#jobs.length === 1) this.#next();
  }

  #next(): void {
    const next = this.#jobs[0];
    if (next === undefined) {
      this.#worker?.unref();
      this.#idle?.();
      return;
    }
    this.#worker ??= this.#startWorker();
    this.#worker.ref();
    this.#worker.postMessage(next.job);
  }

  #startWorker(): Worker {
    const workerData: KvWorkerData = {
      latch: latchMemory(),
      pace: new SharedArrayBuffer(paceBytes),
    };
    const pacer = new Worker(new URL("./kv-pacer.ts", import.meta.url), { workerData });
    pacer.unref();
    const worker = new Worker(new URL("./kv-worker.ts", import.meta.url), { workerData });
    const died = (error: unknown): void => {
      const failure = { diskFull: false, reason: `the Worker died: ${String(error)}` };
      this.#replied({ kind: "failed", failure });
    };
    pacer.on("error", died);
    worker.on("message", (reply: KvReply) => this.#replied(reply));
    worker.on("error", died);
    return worker;
  }

  #replied(reply: KvReply): void {
    if (reply.kind === "committed") {
      this.#jobs[0]?.events.committed(reply.walBytes);
      return;
    }
    const ended = this.#jobs.shift();
    if (reply.kind === "done") ended?.events.done(reply.walBytes);
    else ended?.events.failed(reply.failure);
    this.#next();
  }
}

function bytesOf({ chunks }: SharedMemtable): number {
  return chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
}

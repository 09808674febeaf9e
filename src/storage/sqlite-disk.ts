/**
 * The real disk: a directory of segments, each a SQLite database whose WAL holds the records (sqlite-segment.ts), with the watermark beside
 * it. Decides which files exist; what the records say is the log-store's business. Segments are made, out of the oldest retired one where
 * there is one, and removed in a Worker.
 */

import { mkdirSync, readdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { Worker } from "node:worker_threads";
import { fatal, FatalError } from "../fatal.ts";
import { awaitWord } from "./await-word.ts";
import { DiskFullError } from "./disk.ts";
import type { Disk, SegmentFile } from "./disk.ts";
import { FileSyncer } from "./file-syncer.ts";
import type { SyncDurations } from "./file-syncer.ts";
import {
  openSegment,
  parseSegmentName,
  prepareSegment,
  readStamp,
  refuseIfCheckpointed,
  segmentImage,
  segmentPath,
  syncFoundWal,
  unlinkSegment,
} from "./segment-files.ts";
import type { SegmentSuffix } from "./segment-files.ts";
import { ProgressWord } from "./segment-jobs.ts";
import type { SegmentJob, SegmentJobDone, SegmentWorkerData } from "./segment-jobs.ts";
import { isUnusable } from "./sqlite.ts";
import type { OwnedDatabase } from "./sqlite.ts";
import { SqliteSegment } from "./sqlite-segment.ts";
import { fsyncDirectory, latchMemory, tripLatch } from "./sync-latch.ts";
import { WatermarkFile } from "./watermark-file.ts";

export interface SqliteDiskOptions {
  readonly segmentsPath: string;
  readonly watermarkPath: string;
  /** A new segment is made with as many bytes to overwrite, where there is no retired one to recycle; 0 = it grows. */
  readonly segmentBytes: number;
  /** Told how long each sync of the log took on the disk. */
  readonly synced?: (seconds: number) => void;
  /** Whether there is space for so much that is only meant to be overwritten. */
  readonly hasRoomFor?: (bytes: number) => boolean;
}

/** Retired segments kept to be recycled; they take the disk space of as many full WALs. */
const sparesMax = 2;

/** What a new segment has in its WAL: the header, and one frame for the stamp. */
const freshWalBytes = 32 + 24 + 4_096;

/** Memory that a Worker shares, kept for ever: see file-syncer.ts. */
const kept: SharedArrayBuffer[] = [];

/** Finds what is there and makes it durable. Blocks. Throws FatalError where the folder cannot be trusted. */
export function openSqliteDisk(options: SqliteDiskOptions): SqliteDisk {
  return new SqliteDisk(options);
}

export class SqliteDisk implements Disk {
  readonly segments: readonly SqliteSegment[];

  readonly #directory: string;
  readonly #segmentBytes: number;
  readonly #hasRoomFor: (bytes: number) => boolean;
  readonly #syncer: FileSyncer;
  readonly #watermarkSyncer = new FileSyncer();
  readonly #watermark: WatermarkFile;
  /** Started with its first job. */
  #worker: Worker | undefined;
  readonly #progress: Int32Array;
  #postedJobs = 0;
  readonly #live = new Set<SqliteSegment>();
  /** Retired and waiting to be recycled, oldest first. */
  readonly #spares: number[] = [];
  /** Files that are no segment. They go when the first new segment is made, so that a refused start has changed nothing. */
  #debris: readonly number[];
  #preparing: number | undefined;
  #prepared: number | undefined;
  /** There was no space to prepare this one. */
  #unprepared: number | undefined;
  #inSync: readonly SqliteSegment[] = [];
  /** Retired while a sync of them is in flight. */
  readonly #leaving: SqliteSegment[] = [];
  #closed = false;

  /** Use `openSqliteDisk`. */
  constructor({
    segmentsPath,
    watermarkPath,
    segmentBytes,
    synced,
    hasRoomFor,
  }: SqliteDiskOptions) {
    this.#syncer = new FileSyncer(synced);
    this.#directory = segmentsPath;
    this.#segmentBytes = segmentBytes;
    this.#hasRoomFor = hasRoomFor ?? (() => true);
    const progress = new SharedArrayBuffer(8);
    kept.push(progress);
    this.#progress = new Int32Array(progress);
    this.#watermark = orFatal(() => new WatermarkFile(watermarkPath, this.#watermarkSyncer));
    const found = orFatal(() => findSegments(segmentsPath));
    this.segments = found.segments;
    this.#debris = found.debris;
    for (const segment of this.segments) this.#live.add(segment);
  }

  create(number: number): SqliteSegment {
    // The Worker may be about to make this very one; and segments are made strictly one after the other.
    this.#awaitJobs();
    if (
      this.#preparing !== undefined &&
      (this.#preparing | 0) === this.#progress[ProgressWord.prepared]
    ) {
      this.#prepared = this.#preparing;
      this.#preparing = undefined;
    }
    const prepared = this.takePrepared(number);
    if (prepared !== undefined) return prepared;
    return orFatal(() => {
      this.#removeDebris();
      // Filling would block the loop; the log moves on to a prepared one as soon as it is worth it.
      const recycled = this.#spares.shift();
      const database = prepareSegment(this.#directory, number, { recycled, filledBytes: 0 });
      return this.#adopt(
        new SqliteSegment(number, database, freshWalBytes, recycled === undefined),
      );
    });
  }

  prepare(number: number): void {
    if (this.#preparing !== undefined) throw new Error("a segment is being prepared already");
    orFatal(() => this.#removeDebris());
    this.#preparing = number;
    const recycled = this.#spares.shift();
    const mayFill = recycled === undefined && this.#hasRoomFor(this.#segmentBytes);
    this.#post({
      kind: "prepare",
      number,
      recycled,
      filledBytes: mayFill ? this.#segmentBytes : 0,
    });
  }

  takePrepared(number: number): SqliteSegment | undefined {
    if (this.#unprepared === number) {
      this.#unprepared = undefined;
      this.prepare(number);
    }
    if (this.#prepared !== number) return undefined;
    this.#prepared = undefined;
    return orFatal(() => {
      const database = openSegment(this.#directory, number);
      return this.#adopt(new SqliteSegment(number, database, freshWalBytes, false));
    });
  }

  retire(segment: SegmentFile): void {
    if (!(segment instanceof SqliteSegment) || !this.#live.delete(segment)) {
      throw new Error(`segment ${segment.number} is not live`);
    }
    // A descriptor must not be closed under a sync: its number could come to mean another file.
    if (this.#inSync.includes(segment)) this.#leaving.push(segment);
    else this.#spare(segment);
  }

  get syncing(): boolean {
    return this.#syncer.syncing;
  }

  sync(segments: readonly SegmentFile[], done: () => void): void {
    const dirty = segments.map((segment) => {
      if (segment instanceof SqliteSegment && this.#live.has(segment)) return segment;
      throw new Error(`segment ${segment.number} is not live`);
    });
    dirty.sort((a, b) => a.number - b.number);
    const descriptors = dirty.map((segment) => segment.walDescriptor);
    this.#syncer.sync(descriptors, () => {
      this.#inSync = [];
      for (const segment of this.#leaving.splice(0)) this.#spare(segment);
      done();
    });
    this.#inSync = dirty;
  }

  /** For who reads all of them, oldest first: the next one after that number. */
  segmentAfter(number: number): { number: number; path: string; frames: number } | undefined {
    const [next] = [...this.#live]
      .filter((segment) => segment.number > number)
      .sort((a, b) => a.number - b.number);
    if (next === undefined) return undefined;
    const path = segmentPath(this.#directory, next.number, "-wal");
    return { number: next.number, path, frames: next.frames };
  }

  /** How long the disk took, for the status. */
  syncDurations(): SyncDurations {
    return this.#syncer.durations();
  }

  readWatermark(): Uint8Array | undefined {
    return this.#watermark.read();
  }

  writeWatermark(bytes: Uint8Array): void {
    this.#watermark.write(bytes);
  }

  syncWatermark(done: () => void): void {
    this.#watermark.sync(done);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#awaitJobs();
    this.#syncer.close();
    this.#watermarkSyncer.close();
    for (const segment of [...this.#live, ...this.#leaving]) segment.leave();
    this.#watermark.close();
    this.#worker?.unref();
  }

  #adopt(segment: SqliteSegment): SqliteSegment {
    this.#live.add(segment);
    return segment;
  }

  #spare(segment: SqliteSegment): void {
    segment.leave();
    this.#spares.push(segment.number);
    // Oldest first here too: what is left after a crash is then always the newer part.
    while (this.#spares.length > sparesMax) {
      this.#post({ kind: "unlink", number: this.#spares.shift()! });
    }
  }

  #post(job: SegmentJob): void {
    this.#postedJobs = (this.#postedJobs + 1) | 0;
    this.#worker ??= this.#startWorker();
    this.#worker.postMessage(job);
  }

  #startWorker(): Worker {
    const progress = this.#progress.buffer as SharedArrayBuffer;
    const workerData: SegmentWorkerData = {
      directory: this.#directory,
      progress,
      latch: latchMemory(),
    };
    const worker = new Worker(new URL("./segment-worker.ts", import.meta.url), { workerData });
    worker.on("message", (done: SegmentJobDone) => this.#jobDone(done));
    worker.on("error", (error) =>
      fatal("sync_failed", `the segment Worker died: ${String(error)}`),
    );
    worker.unref();
    return worker;
  }

  /** Blocks until the Worker has nothing to do. */
  #awaitJobs(): void {
    awaitWord(this.#progress, ProgressWord.doneJobs, this.#postedJobs, "making a segment");
  }

  #jobDone({ job, failed, isFull }: SegmentJobDone): void {
    if (failed !== undefined && isFull !== true) {
      tripLatch();
      fatal("sync_failed", `${job.kind} of segment ${job.number}: ${failed}`);
    }
    if (job.kind !== "prepare" || this.#preparing !== job.number) return;
    this.#preparing = undefined;
    if (failed === undefined) this.#prepared = job.number;
    else this.#unprepared = job.number;
  }

  #removeDebris(): void {
    if (this.#debris.length === 0) return;
    for (const number of this.#debris) unlinkSegment(this.#directory, number);
    fsyncDirectory(this.#directory);
    this.#debris = [];
  }
}

interface FoundSegments {
  readonly segments: readonly SqliteSegment[];
  readonly debris: readonly number[];
}

/**
 * Opens the segments of a directory, oldest first, once what they hold is durable. What lacks a file or its stamp is debris of a crash
 * while it was made or removed; were it damage, the log-store would miss the segment.
 */
function findSegments(directory: string): FoundSegments {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const suffixes = new Map<number, SegmentSuffix[]>();
  for (const name of readdirSync(directory)) {
    const parsed = parseSegmentName(name);
    if (parsed === undefined) continue;
    const of = suffixes.get(parsed.number) ?? [];
    of.push(parsed.suffix);
    suffixes.set(parsed.number, of);
  }
  const numbers = [...suffixes.keys()].sort((a, b) => a - b);
  for (const number of numbers) refuseIfCheckpointed(directory, number);
  const whole = numbers.filter((number) => {
    const found = suffixes.get(number) ?? [];
    return found.includes("") && found.includes("-wal");
  });
  for (const number of whole) syncFoundWal(directory, number);
  fsyncDirectory(directory);
  fsyncDirectory(dirname(directory));
  const segments: SqliteSegment[] = [];
  for (const number of whole) {
    const database = openStamped(directory, number);
    if (database === undefined) continue;
    const walBytes = statSync(segmentPath(directory, number, "-wal")).size;
    segments.push(new SqliteSegment(number, database, walBytes, false));
  }
  const live = new Set(segments.map((segment) => segment.number));
  return { segments, debris: numbers.filter((number) => !live.has(number)) };
}

function openStamped(directory: string, number: number): OwnedDatabase | undefined {
  // SQLite would take a main file of no bytes for a new database, and throw the WAL away.
  if (statSync(segmentPath(directory, number)).size < segmentImage().byteLength) return undefined;
  let database: OwnedDatabase | undefined;
  try {
    database = openSegment(directory, number);
    if (readStamp(database) === number) return database;
  } catch (error) {
    if (!isUnusable(error)) throw error;
  }
  database?.leave();
  return undefined;
}

/** Runs what cannot be undone half-way: a full disk is the caller's to handle, a refusal to start too, anything else ends the process. */
function orFatal<Result>(run: () => Result): Result {
  try {
    return run();
  } catch (error) {
    if (error instanceof DiskFullError || error instanceof FatalError) throw error;
    tripLatch();
    return fatal("sync_failed", error instanceof Error ? error.message : String(error));
  }
}

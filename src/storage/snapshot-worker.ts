/**
 * The thread that reads the files that snapshots are sent from, and writes and verifies those that are received, with synchronous calls [27].
 * Started by snapshot-files.ts; one job after the other, in the order given.
 *
 * A file that is received is closed here before a database is opened on it: no descriptor but SQLite's own is ever closed on an open one [17].
 */
import { closeSync, openSync, readSync, rmSync, unlinkSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { crc32 } from "node:zlib";
import { nextDigest } from "../wire/snapshot-messages.ts";
import { DiskFullError } from "./disk.ts";
import { writeFileDurably } from "./durable-file.ts";
import type { BytesProof, FileProof, SnapshotJob, SnapshotJobDone } from "./snapshot-jobs.ts";
import {
  hasOnly,
  isDamaged,
  isDiskFull,
  isUnusable,
  openDatabase,
  type OwnedDatabase,
} from "./sqlite.ts";
import { adoptLatch, fsyncDirectory, fsyncFile, tripLatch } from "./sync-latch.ts";

const cacheKiB = 1_024;

adoptLatch(workerData as SharedArrayBuffer);

/** Of files that are being received, by path. */
const descriptors = new Map<string, number>();

parentPort?.on("message", (job: SnapshotJob) => {
  const done = work(job);
  const { bytes } = done;
  parentPort?.postMessage(done, bytes === undefined ? [] : [bytes.buffer]);
});

function work(job: SnapshotJob): SnapshotJobDone {
  try {
    switch (job.kind) {
      case "read":
        readAll(job.descriptor, job.bytes, job.offset);
        return { ok: true, bytes: job.bytes };
      case "write":
        writeAll(openFor(job.path), job.bytes, job.offset);
        return { ok: true, bytes: job.bytes };
      case "replace":
        writeFileDurably(job.path, job.text);
        return { ok: true };
      case "finish":
        return { ok: finish(job.path, job.proof) };
      case "remove":
        close(job.path);
        remove(job.path);
        return { ok: true };
      case "removeFolder":
        rmSync(job.path, { recursive: true, force: true });
        return { ok: true };
    }
  } catch (error) {
    if (isDiskFull(error) || error instanceof DiskFullError) return { ok: false };
    tripLatch();
    return { ok: false, failed: `snapshot ${job.kind}: ${String(error)}` };
  }
}

function openFor(path: string): number {
  let descriptor = descriptors.get(path);
  if (descriptor === undefined) {
    // Never over a file that is there: its name would have been used before [25].
    descriptor = openSync(path, "wx+", 0o600);
    descriptors.set(path, descriptor);
  }
  return descriptor;
}

function close(path: string): void {
  const descriptor = descriptors.get(path);
  if (descriptor === undefined) return;
  descriptors.delete(path);
  closeSync(descriptor);
}

function readAll(descriptor: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.byteLength;) {
    const count = readSync(descriptor, bytes, done, bytes.byteLength - done, offset + done);
    if (count === 0) throw new Error(`the file ends at ${offset + done}`);
    done += count;
  }
}

function writeAll(descriptor: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.byteLength;) {
    done += writeSync(descriptor, bytes, done, bytes.byteLength - done, offset + done);
  }
}

/** Durable first, so that what is verified is what stays. */
function finish(path: string, proof: FileProof | BytesProof): boolean {
  const descriptor = openFor(path);
  fsyncFile(descriptor);
  const isWhole = digestOf(descriptor, proof) === proof.digest;
  close(path);
  fsyncDirectory(dirname(path));
  return isWhole && (!("schema" in proof) || isSound(path, proof));
}

/**
 * Bytes that came whole may still be no database, or one that does what ours never does. `quick_check` reads all of it once; that the index of the keys
 * agrees with the rows it leaves open, as it would take ten times as long.
 */
function isSound(path: string, { schema, index, indexQuery, bounds }: FileProof): boolean {
  let database: OwnedDatabase | undefined;
  try {
    database = openDatabase(path, { cacheKiB });
    const check = database.prepareRead<{ quick_check: string }, []>("PRAGMA quick_check(1)").get();
    if (check?.quick_check !== "ok" || !hasOnly(database, schema)) return false;
    if (numberIn(database, indexQuery) !== index) return false;
    for (const { query, max } of bounds) {
      if ((numberIn(database, query) ?? 0) > max) return false;
    }
    return true;
  } catch (error) {
    if (isUnusable(error)) return false;
    throw error;
  } finally {
    database?.leave();
  }
}

function digestOf(descriptor: number, { bytes, chunkBytes }: BytesProof): number {
  let digest = 0;
  const memory = new Uint8Array(Math.min(chunkBytes, bytes));
  for (let offset = 0; offset < bytes; offset += chunkBytes) {
    const chunk = memory.subarray(0, Math.min(chunkBytes, bytes - offset));
    readAll(descriptor, chunk, offset);
    digest = nextDigest(digest, crc32(chunk));
  }
  return digest;
}

/** Undefined where it has no such row, or table. */
function numberIn(database: OwnedDatabase, query: string): number | undefined {
  try {
    return database.prepareRead<{ value: number }, []>(query).get()?.value;
  } catch (error) {
    if (isDamaged(error)) return undefined;
    throw error;
  }
}

/** The write-ahead log first: a main file that is made anew must never find an old one (M3). The folder may be gone with all that was in it. */
function remove(path: string): void {
  for (const name of [`${path}-wal`, `${path}-shm`, path]) unlessGone(() => unlinkSync(name));
  unlessGone(() => fsyncDirectory(dirname(path)));
}

function unlessGone(action: () => void): void {
  try {
    action();
  } catch (error) {
    const isGone = error instanceof Error && "code" in error && error.code === "ENOENT";
    if (!isGone) throw error;
  }
}

/**
 * The files of one log segment, and the steps that bring them about: `NNNNNNNN.db`, which stays as small as it was made, and its `-wal`,
 * which holds all records and is never checkpointed [18]. Used by the event loop and by segment-worker.ts; everything here blocks.
 */

import {
  closeSync,
  ftruncateSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { FatalError } from "../fatal.ts";
import { DiskFullError } from "./disk.ts";
import { databaseImage, isDiskFull, openDatabase, refuseSyncs } from "./sqlite.ts";
import type { OwnedDatabase } from "./sqlite.ts";
import { fdatasyncFile, fsyncDirectory, fsyncFile } from "./sync-latch.ts";

/** Rows are appended and rarely read twice, so the cache needs to hold the right edge of the tree, no more. */
const cacheKiB = 256;

/** `stamp` holds the segment's number: nothing else ties a `-wal` to its main file (M3). */
const schema = `
  CREATE TABLE stamp (number INTEGER PRIMARY KEY) STRICT;
  CREATE TABLE records (
    seq INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    "group" INTEGER NOT NULL,
    data BLOB NOT NULL
  ) STRICT;
`;

const walHeaderBytes = 32;
const fillChunkBytes = 1_048_576;
const fileName = /^(\d{8,})\.db(-wal|-shm)?$/;

export type SegmentSuffix = "" | "-wal" | "-shm";

export function segmentPath(directory: string, number: number, suffix: SegmentSuffix = ""): string {
  return join(directory, `${String(number).padStart(8, "0")}.db${suffix}`);
}

/** What a directory entry is to a segment, or undefined when it is none of ours. */
export function parseSegmentName(
  name: string,
): { number: number; suffix: SegmentSuffix } | undefined {
  const match = fileName.exec(name);
  if (match === null) return undefined;
  return { number: Number(match[1]), suffix: (match[2] ?? "") as SegmentSuffix };
}

let image: Uint8Array | undefined;

/** The main file of every segment; built once per process. */
export function segmentImage(): Uint8Array {
  image ??= databaseImage(schema);
  return image;
}

export interface SegmentSource {
  /** The retired segment whose WAL is overwritten in place. */
  readonly recycled?: number | undefined;
  /** Without one: so many bytes of zeros to overwrite, where the disk has the space; 0 = a WAL that grows. */
  readonly filledBytes: number;
}

/** Makes segment `number` and leaves it open: empty, stamped and durable. Throws DiskFullError with nothing left of it. */
export function prepareSegment(
  directory: string,
  number: number,
  { recycled, filledBytes }: SegmentSource,
): OwnedDatabase {
  let database: OwnedDatabase | undefined;
  try {
    if (recycled === undefined) createSegmentFiles(directory, number, filledBytes);
    else recycleSegmentFiles(directory, recycled, number);
    database = openSegment(directory, number);
    stampSegment(database, number);
    return database;
  } catch (error) {
    refuseSyncs(error);
    database?.leave();
    if (!isDiskFull(error)) throw error;
    unlinkSegment(directory, number);
    throw new DiskFullError(`no space left to prepare segment ${number}`);
  }
}

/** New files. The WAL is made here and not by SQLite, so that one directory sync covers both; `wx` refuses one of a former life. */
function createSegmentFiles(directory: string, number: number, filledBytes: number): void {
  writeImage(directory, number);
  const descriptor = openSync(segmentPath(directory, number, "-wal"), "wx", 0o600);
  try {
    if (filledBytes > 0) fillWithZeros(descriptor, filledBytes);
  } finally {
    closeSync(descriptor);
  }
  fsyncDirectory(directory);
}

/**
 * Overwriting syncs at less than half the cost of growing (M5, M15). A WAL that begins with zeros is empty to SQLite, as a recycled one
 * is. Where space runs out the file stays empty, and grows.
 */
function fillWithZeros(descriptor: number, bytes: number): void {
  const zeros = new Uint8Array(fillChunkBytes);
  try {
    for (let at = 0; at < bytes;) {
      at += writeSync(descriptor, zeros, 0, Math.min(zeros.byteLength, bytes - at), at);
    }
  } catch (error) {
    if (!isDiskFull(error)) throw error;
    ftruncateSync(descriptor);
  }
  fsyncFile(descriptor);
}

/**
 * New files out of a retired segment's WAL, which will be overwritten in place. A crash between any two steps leaves either the
 * retired segment or files that recovery drops; each sync is needed (M14).
 */
function recycleSegmentFiles(directory: string, retired: number, number: number): void {
  writeImage(directory, number);
  const retiredWal = segmentPath(directory, retired, "-wal");
  const descriptor = openSync(retiredWal, "r+");
  try {
    // Without its header the WAL reads as empty, and SQLite starts it anew with other salts, which no old frame fits.
    writeSync(descriptor, new Uint8Array(walHeaderBytes), 0, walHeaderBytes, 0);
    fdatasyncFile(descriptor);
  } finally {
    closeSync(descriptor);
  }
  rmSync(segmentPath(directory, retired), { force: true });
  rmSync(segmentPath(directory, retired, "-shm"), { force: true });
  renameSync(retiredWal, segmentPath(directory, number, "-wal"));
  fsyncDirectory(directory);
}

/** The last step: the number goes in, durably. From here on the files are a segment. */
function stampSegment(database: OwnedDatabase, number: number): void {
  const insert = database.prepare<unknown, [number]>("INSERT INTO stamp (number) VALUES (?1)");
  insert.run(number);
  fdatasyncFile(database.walDescriptor);
}

export function readStamp(database: OwnedDatabase): number | undefined {
  return database.prepare<{ number: number }, []>("SELECT number FROM stamp").get()?.number;
}

export function openSegment(directory: string, number: number): OwnedDatabase {
  return openDatabase(segmentPath(directory, number), { cacheKiB });
}

/** Frees the blocks, tens of milliseconds for a full WAL. The main file goes first: a WAL alone is nothing. */
export function unlinkSegment(directory: string, number: number): void {
  for (const suffix of ["", "-shm", "-wal"] as const) {
    rmSync(segmentPath(directory, number, suffix), { force: true });
  }
}

/** Nothing here ever writes to a main file, and no crash does. */
export function refuseIfCheckpointed(directory: string, number: number): void {
  const path = segmentPath(directory, number);
  const bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (bytes <= segmentImage().byteLength) return;
  throw new FatalError(
    "corrupt_data",
    `${path} was opened by another program, which moved records out of its -wal. Nothing was changed. ` +
      "Bring the folder back from a copy, or take this node out of the cluster and add it again with an empty folder and a new node id.",
  );
}

/** Makes durable what a found WAL holds, before anything that is read from it counts [26]. */
export function syncFoundWal(directory: string, number: number): void {
  const descriptor = openSync(segmentPath(directory, number, "-wal"), "r");
  try {
    fdatasyncFile(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function writeImage(directory: string, number: number): void {
  const bytes = segmentImage();
  const descriptor = openSync(segmentPath(directory, number), "wx", 0o600);
  try {
    for (let at = 0; at < bytes.byteLength;) {
      at += writeSync(descriptor, bytes, at, bytes.byteLength - at, at);
    }
    fsyncFile(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

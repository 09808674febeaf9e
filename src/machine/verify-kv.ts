/**
 * Looks at a machine's files without changing them: how far the state in one goes, and whether it is whole. What can be checked is the structure,
 * the two trees against each other, and what every row must satisfy: the bytes of a value have no checksum of their own.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { defaultLimits } from "../limits.ts";
import { areOf } from "../storage/sqlite.ts";
import { ImageError, type ImageValue, SqliteImage } from "../storage/sqlite-image.ts";
import { applyVersionFirst } from "../wire/versions.ts";
import { kvSchema } from "./kv-database.ts";
import type { KvMeta } from "./kv-file.ts";
import type { MachineKind } from "./machines.ts";
import { isSoundMeta, unsoundMeta } from "./sound-meta.ts";

/** A file of a machine; generation 0 is the one that it has made itself. */
export interface MachineFile {
  readonly kind: MachineKind;
  readonly generation: number;
  readonly path: string;
}

export interface MachineReading {
  /** Of the state in the file; 0 where nothing was flushed yet. */
  readonly appliedIndex: number;
  readonly applyVersion: number;
  readonly timeMs: number;
  readonly keys: number;
  /** Of keys, revisions and values, eight hex digits: equal on all nodes at equal `appliedIndex`. */
  readonly contentHash: string;
  /** Main file and write-ahead log. */
  readonly bytes: number;
  /** Why it is not whole. */
  readonly damage?: string;
  /** A start cannot even open it. */
  readonly unreadable?: true;
}

const table = "kv";
const index = "sqlite_autoindex_kv_1";
const fileName = /^(kv|null)(?:-([0-9]+))?\.db$/;

/** Main files in a machine's folder; none where there is no such folder. */
export function machineFiles(directory: string): readonly MachineFile[] {
  if (statSync(directory, { throwIfNoEntry: false }) === undefined) return [];
  return readdirSync(directory).flatMap((name) => {
    const match = fileName.exec(name);
    if (match === null) return [];
    const [, kind, generation = "0"] = match;
    return [
      { kind: kind as MachineKind, generation: Number(generation), path: join(directory, name) },
    ];
  });
}

/** Reads all of it. */
export function verifyMachineFile(path: string): MachineReading {
  let reading: MachineReading = {
    appliedIndex: 0,
    applyVersion: applyVersionFirst,
    timeMs: 0,
    keys: 0,
    contentHash: hashText(0),
    bytes: sizeOf(path) + sizeOf(`${path}-wal`),
  };
  // Neither has it a log that counts.
  if (sizeOf(path) === 0) return reading;
  let opened = false;
  try {
    using image = new SqliteImage(path);
    reading = { ...reading, ...readMeta(image) };
    opened = true;
    image.checkPages((left) => {
      // The process ended while it made the file.
      if (image.schema.length === 0) return;
      reading = { ...reading, ...checkKeys(image, reading.appliedIndex) };
      left(table);
      left(index);
    });
    return reading;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return { ...reading, damage: error.message, ...(opened ? {} : { unreadable: true }) };
  }
}

/** As a start would: a file of an older build may have fewer tables. */
function readMeta(
  image: SqliteImage,
): Pick<MachineReading, "appliedIndex" | "applyVersion" | "timeMs"> {
  if (!areOf(kvSchema, image.schema)) {
    throw new ImageError("its tables are not those of a state machine");
  }
  // Before its first flush the log may not even have the schema.
  const row = image.has("meta") ? image.firstRow("meta") : undefined;
  if (row === undefined) return { appliedIndex: 0, applyVersion: applyVersionFirst, timeMs: 0 };
  const [, appliedIndex, stateHash, timeMs] = row;
  const state = image.has("apply_state") ? image.row("apply_state", 0) : undefined;
  const [, applyVersion = applyVersionFirst, sessions = new Uint8Array(0)] = state ?? [];
  const meta = { appliedIndex, stateHash, timeMs, applyVersion, sessions } as KvMeta;
  if (!isSoundMeta(meta, defaultLimits)) throw new ImageError(unsoundMeta);
  return { appliedIndex: meta.appliedIndex, applyVersion: meta.applyVersion, timeMs: meta.timeMs };
}

/** Keys in order, each in both trees, none newer than the state is. */
function checkKeys(
  image: SqliteImage,
  appliedIndex: number,
): Pick<MachineReading, "keys" | "contentHash"> {
  const rows = new Tally();
  // As nodes have them in different places, the order must not count.
  let content = 0;
  image.rows(table, (rowId, [key, revision, value]) => {
    const isRow =
      key instanceof Uint8Array &&
      value instanceof Uint8Array &&
      isCount(revision) &&
      revision <= appliedIndex;
    if (!isRow) throw new ImageError(`row ${rowId} is none of the state as of ${appliedIndex}`);
    rows.add(key, rowId);
    content = (content + crc32(value, crc32(key, revision >>> 0))) >>> 0;
  });
  const entries = new Tally();
  let last: Uint8Array | undefined;
  image.entries(index, ([key, rowId]) => {
    if (!(key instanceof Uint8Array) || typeof rowId !== "number") {
      throw new ImageError("an entry of its index is damaged");
    }
    if (last !== undefined && Buffer.compare(last, key) >= 0) {
      throw new ImageError("its keys are out of order");
    }
    last = key;
    entries.add(key, rowId);
  });
  if (!rows.equals(entries)) throw new ImageError("its index has other keys than its rows");
  return { keys: rows.count, contentHash: hashText(content) };
}

function hashText(hash: number): string {
  return hash.toString(16).padStart(8, "0");
}

/** What was seen, in whatever order. */
class Tally {
  count = 0;
  #sum = 0;

  add(key: Uint8Array, rowId: number): void {
    this.count++;
    this.#sum = (this.#sum + crc32(key, rowId >>> 0)) >>> 0;
  }

  equals(other: Tally): boolean {
    return this.count === other.count && this.#sum === other.#sum;
  }
}

function isCount(value: ImageValue | undefined): value is number {
  return typeof value === "number" && value >= 0;
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

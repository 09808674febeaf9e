/**
 * The thread that reads what the scrubber checks, a step at a time, with the lowest priority there is. A log is read past the page cache where the file
 * system can do that: what is checked is the disk, and nothing useful is pushed out of memory. Started by scrub-thread.ts.
 */
import { ptr } from "bun:ffi";
import type { Database } from "bun:sqlite";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { setPriority } from "node:os";
import { parentPort } from "node:worker_threads";
import { sealBroken } from "../wire/sealed-bytes.ts";
import type { ScrubJob, ScrubStep, ScrubTarget } from "./scrub-jobs.ts";
import { lookInto, pageBytes } from "./sqlite.ts";
import { WalChecker, walHeaderBytes } from "./sqlite-wal.ts";

/** The event loop, and all other threads, go first. */
const niceness = 19;
const stepBytes = 262_144;
const alignment = 4_096;
/** About what a row takes besides its bytes. */
const rowOverheadBytes = 8;
const cacheKiB = 1_024;

if (process.platform === "linux") setPriority(0, niceness);

interface Scrub {
  step(): ScrubStep;
  close(): void;
}

type TableTarget = Extract<ScrubTarget, { kind: "table" }>;

let scrub: Scrub | undefined;

parentPort?.on("message", (job: ScrubJob) => parentPort?.postMessage(work(job)));

function work(job: ScrubJob): ScrubStep {
  try {
    switch (job.kind) {
      case "begin":
        scrub?.close();
        scrub = undefined;
        scrub = begin(job.target);
        return { bytes: 0, done: false };
      case "step":
        return scrub!.step();
      case "end":
        scrub?.close();
        scrub = undefined;
        return { bytes: 0, done: true };
    }
  } catch (error) {
    return { bytes: 0, done: true, damage: error instanceof Error ? error.message : String(error) };
  }
}

function begin(target: ScrubTarget): Scrub {
  return target.kind === "log" ? new LogScrub(target.path, target.frames) : new TableScrub(target);
}

/** Follows the frames of a write-ahead log, each of which carries a checksum over all before it. */
class LogScrub implements Scrub {
  readonly #descriptor: number;
  readonly #block = alignedBuffer(stepBytes);
  readonly #frames: number;
  #checker: WalChecker | undefined;
  /** Read and not looked at yet. */
  #rest: Buffer = Buffer.alloc(0);
  #at = 0;
  #frame = 0;

  constructor(path: string, frames: number) {
    this.#frames = frames;
    this.#descriptor = openPastCache(path);
  }

  step(): ScrubStep {
    const bytes = readSync(this.#descriptor, this.#block, 0, stepBytes, this.#at);
    this.#at += bytes;
    let rest = Buffer.concat([this.#rest, this.#block.subarray(0, bytes)]);
    if (this.#checker === undefined) {
      const header = rest.subarray(0, walHeaderBytes);
      if (header.byteLength === walHeaderBytes) this.#checker = WalChecker.begin(header, pageBytes);
      if (this.#checker === undefined)
        return { bytes, done: true, damage: "its header is damaged" };
      rest = rest.subarray(walHeaderBytes);
    }
    const { frameBytes } = this.#checker;
    for (; this.#frame < this.#frames && rest.byteLength >= frameBytes; this.#frame++) {
      const follows = this.#checker.isOfThisLife(rest, 0) && this.#checker.follows(rest, 0);
      if (!follows) return { bytes, done: true, damage: this.#where("is not what was written") };
      rest = rest.subarray(frameBytes);
    }
    if (this.#frame === this.#frames) return { bytes, done: true };
    if (bytes < stepBytes) return { bytes, done: true, damage: this.#where("is missing") };
    this.#rest = Buffer.from(rest);
    return { bytes, done: false };
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #where(what: string): string {
    return `page ${this.#frame + 1} of the ${this.#frames} in it ${what}`;
  }
}

/** Reads all rows of a table: SQLite notices where its pages do not make sense, and the disk where it cannot read them. */
class TableScrub implements Scrub {
  readonly #target: TableTarget;
  #last = new Uint8Array(0);

  constructor(target: TableTarget) {
    this.#target = target;
  }

  step(): ScrubStep {
    const { path, query } = this.#target;
    return lookInto(path, cacheKiB, (db) => {
      const statement = db.prepare<Record<string, unknown>, [Uint8Array]>(query);
      try {
        const step = this.#read(statement.iterate(this.#last));
        return step.done && step.damage === undefined ? this.#checkSealed(db, step.bytes) : step;
      } finally {
        statement.finalize();
      }
    });
  }

  close(): void {}

  #checkSealed(db: Database, before: number): ScrubStep {
    const statement = db.prepare<{ saved: Uint8Array }, []>(this.#target.sealedQuery);
    try {
      let bytes = before;
      for (const { saved } of statement.iterate()) {
        bytes += saved.byteLength;
        const broken = sealBroken(saved);
        if (broken !== undefined) return { bytes, done: true, damage: `its sessions: ${broken}` };
      }
      return { bytes, done: true };
    } finally {
      statement.finalize();
    }
  }

  #read(rows: Iterable<Record<string, unknown>>): ScrubStep {
    let bytes = 0;
    for (const row of rows) {
      const { key } = row;
      if (!(key instanceof Uint8Array) || Buffer.compare(key, this.#last) <= 0) {
        return { bytes, done: true, damage: "its keys are out of order" };
      }
      this.#last = new Uint8Array(key);
      for (const value of Object.values(row)) {
        bytes += value instanceof Uint8Array ? value.byteLength : rowOverheadBytes;
      }
      if (bytes >= stepBytes) return { bytes, done: false };
    }
    return { bytes, done: true };
  }
}

function openPastCache(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  } catch (error) {
    // Not on every file system.
    const isUnable = error instanceof Error && "code" in error && error.code === "EINVAL";
    if (!isUnable) throw error;
    return openSync(path, "r");
  }
}

/** What goes past the cache goes straight into memory, by whole sectors. */
function alignedBuffer(bytes: number): Uint8Array {
  const room = new Uint8Array(bytes + alignment);
  const offset = (alignment - (Number(ptr(room)) % alignment)) % alignment;
  return room.subarray(offset, offset + bytes);
}

/**
 * The disk of a log as it lies there, for who must not change it: the same segments that a node would find [26], read without SQLite. recovery.ts
 * runs on it as on the real one, so what it says is what the next start will do.
 */
import { readdirSync, statSync } from "node:fs";
import { basename } from "node:path";
import { FatalError } from "../fatal.ts";
import { type Disk, type LogRecord, type RecordKind, type SegmentFile } from "./disk.ts";
import {
  parseSegmentName,
  refuseIfCheckpointed,
  segmentImage,
  segmentPath,
} from "./segment-files.ts";
import { ImageError, type ImageValue, SqliteImage } from "./sqlite-image.ts";
import { readWatermarkFile } from "./watermark-file.ts";

/** One segment as it was found. */
export interface FoundSegment {
  readonly number: number;
  /** Of its write-ahead log: frames that count, and such as were written behind them and do not. */
  readonly frames: number;
  readonly framesBeyond: number;
  /** Why it is none, where it is debris of a crash while it was made or removed. */
  readonly debris?: string;
}

/** Segments that are open at once: each takes some memory per page of its log. */
const openMax = 2;

export class ReadOnlyDisk implements Disk {
  readonly found: readonly FoundSegment[];
  readonly segments: readonly SegmentFile[];
  readonly hasWatermark: boolean;
  readonly syncing = false;
  readonly #watermark: Uint8Array | undefined;
  readonly #directory: string;
  readonly #open: { readonly number: number; readonly image: SqliteImage }[] = [];

  /** Throws FatalError where a start would be refused with what is found. */
  constructor({ segmentsPath, watermarkPath }: { segmentsPath: string; watermarkPath: string }) {
    this.#directory = segmentsPath;
    this.hasWatermark = isThere(watermarkPath);
    this.#watermark = this.hasWatermark ? readWatermarkFile(watermarkPath) : undefined;
    const numbers = isThere(segmentsPath) ? numbersIn(segmentsPath) : [];
    for (const number of numbers) refuseIfCheckpointed(segmentsPath, number);
    this.found = numbers.map((number) => this.#look(number));
    this.segments = this.found
      .filter(({ debris }) => debris === undefined)
      .map(({ number }) => this.#segment(number));
  }

  readWatermark(): Uint8Array | undefined {
    return this.#watermark;
  }

  close(): void {
    for (const { image } of this.#open.splice(0)) image.close();
  }

  create(): SegmentFile {
    throw readOnly();
  }

  prepare(): void {
    throw readOnly();
  }

  takePrepared(): SegmentFile | undefined {
    throw readOnly();
  }

  retire(): void {
    throw readOnly();
  }

  sync(): void {
    throw readOnly();
  }

  writeWatermark(): void {
    throw readOnly();
  }

  syncWatermark(): void {
    throw readOnly();
  }

  #look(number: number): FoundSegment {
    const none = { number, frames: 0, framesBeyond: 0 };
    const path = segmentPath(this.#directory, number);
    if (!isThere(path)) return { ...none, debris: "its main file is missing" };
    if (!isThere(segmentPath(this.#directory, number, "-wal"))) {
      return { ...none, debris: "its write-ahead log is missing" };
    }
    if (statSync(path).size < segmentImage().byteLength) {
      return { ...none, debris: "its main file is cut off" };
    }
    try {
      using image = new SqliteImage(path);
      const { frames = 0, framesBeyond = 0 } = image.wal ?? {};
      const isStamped = image.row("stamp", number) !== undefined;
      const debris = isStamped ? {} : { debris: "it was never finished" };
      return { number, frames, framesBeyond, ...debris };
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return { ...none, debris: error.message };
    }
  }

  #segment(number: number): SegmentFile {
    const path = segmentPath(this.#directory, number);
    const reading = <T>(read: (image: SqliteImage) => T): T => {
      try {
        return read(this.#image(number));
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        throw new FatalError("corrupt_data", `${path}: ${error.message}`, { cause: error });
      }
    };
    return {
      number,
      bytes: statSync(segmentPath(this.#directory, number, "-wal")).size,
      growing: false,
      append: () => {
        throw readOnly();
      },
      read: (seq) =>
        reading((image) => {
          const row = image.row("records", seq);
          return row === undefined ? undefined : recordOf(seq, row).data;
        }),
      scan: (visit, headBytes) =>
        reading((image) =>
          image.rows("records", (seq, row) => {
            const record = recordOf(seq, row);
            const { data } = record;
            visit({ ...record, data: data.subarray(0, headBytes) }, data.byteLength);
          }),
        ),
    };
  }

  #image(number: number): SqliteImage {
    const at = this.#open.findIndex((open) => open.number === number);
    if (at >= 0) return this.#open[at]!.image;
    if (this.#open.length >= openMax) this.#open.shift()!.image.close();
    const image = new SqliteImage(segmentPath(this.#directory, number));
    this.#open.push({ number, image });
    return image;
  }
}

/** Words for people: the name of a segment's file. */
export function segmentName(number: number): string {
  return basename(segmentPath("", number));
}

function recordOf(seq: number, [, kind, group, data]: readonly ImageValue[]): LogRecord {
  const isRecord =
    typeof kind === "number" && typeof group === "number" && data instanceof Uint8Array;
  if (!isRecord) throw new ImageError(`record ${seq} is none`);
  return { seq, kind: kind as RecordKind, group, data };
}

function numbersIn(directory: string): number[] {
  const found = readdirSync(directory).map((name) => parseSegmentName(name)?.number);
  const numbers = found.filter((number) => number !== undefined);
  return [...new Set(numbers)].sort((a, b) => a - b);
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function readOnly(): Error {
  return new Error("this disk is only looked at");
}

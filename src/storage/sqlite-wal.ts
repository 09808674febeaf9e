/**
 * The write-ahead log of a SQLite database, checked as SQLite checks it when it opens one: frames count up to the first whose checksum does not
 * follow from all before it. SQLite says nothing of those that come behind: whoever reads here is told. Knows no SQLite; reads only.
 *
 *     header  0 magic u32 | 4 version u32 | 8 page size u32 | 12 checkpoint u32 | 16 salts u32 ×2 | 24 checksum u32 ×2      big-endian
 *     frame   0 page u32 | 4 pages after a commit u32, else 0 | 8 salts u32 ×2 | 16 checksum u32 ×2 | 24 the page
 */
import { readSync } from "node:fs";

export const walHeaderBytes = 32;
export const walFrameHeaderBytes = 24;
const magicLittle = 0x377f0682;
const magicBig = 0x377f0683;
const version = 3_007_000;
const chunkFrames = 64;

export interface WalReading {
  /** Frames up to the last commit. */
  readonly frames: number;
  /** Frames behind them that were written in the same life of the file and do not count: one of them, or one before, is damaged or was never synced. */
  readonly framesBeyond: number;
  /** Where the newest state of each page lies, in bytes from the beginning. */
  readonly pages: ReadonlyMap<number, number>;
  /** Of the database, after the last commit; undefined where there is none. */
  readonly pageCount: number | undefined;
}

/** Follows the frames of one log in order. */
export class WalChecker {
  readonly frameBytes: number;
  readonly #pageBytes: number;
  readonly #isLittle: boolean;
  readonly #salts: Buffer;
  #first: number;
  #second: number;

  private constructor(header: Buffer, pageBytes: number) {
    this.#pageBytes = pageBytes;
    this.frameBytes = walFrameHeaderBytes + pageBytes;
    this.#isLittle = header.readUInt32BE(0) === magicLittle;
    this.#salts = Buffer.from(header.subarray(16, 24));
    this.#first = 0;
    this.#second = 0;
    this.#add(header, 0, 24);
  }

  /** Undefined where the log is empty, as SQLite sees it. */
  static begin(header: Buffer, pageBytes: number): WalChecker | undefined {
    const magic = header.readUInt32BE(0);
    if (magic !== magicLittle && magic !== magicBig) return undefined;
    if (header.readUInt32BE(4) !== version || header.readUInt32BE(8) !== pageBytes)
      return undefined;
    const checker = new WalChecker(header, pageBytes);
    return checker.#matches(header, 24) ? checker : undefined;
  }

  /** The frame at `at` is the next one of this log. Where it is not, all that come after it do not count either. */
  follows(bytes: Buffer, at: number): boolean {
    if (bytes.readUInt32BE(at) === 0 || !this.isOfThisLife(bytes, at)) return false;
    this.#add(bytes, at, 8);
    this.#add(bytes, at + walFrameHeaderBytes, this.#pageBytes);
    return this.#matches(bytes, at + 16);
  }

  /** Not left over from an earlier use of the file. */
  isOfThisLife(bytes: Buffer, at: number): boolean {
    return this.#salts.equals(bytes.subarray(at + 8, at + 16));
  }

  #matches(bytes: Buffer, at: number): boolean {
    return bytes.readUInt32BE(at) === this.#first && bytes.readUInt32BE(at + 4) === this.#second;
  }

  #add(bytes: Buffer, start: number, length: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset + start, length);
    const isLittle = this.#isLittle;
    let first = this.#first;
    let second = this.#second;
    for (let at = 0; at < length; at += 8) {
      first = (first + view.getUint32(at, isLittle) + second) | 0;
      second = (second + view.getUint32(at + 4, isLittle) + first) | 0;
    }
    this.#first = first >>> 0;
    this.#second = second >>> 0;
  }
}

/** The size of its pages; undefined where the log is empty, as SQLite sees it. */
export function walPageBytes(descriptor: number): number | undefined {
  const header = Buffer.alloc(walHeaderBytes);
  if (readSync(descriptor, header, 0, walHeaderBytes, 0) !== walHeaderBytes) return undefined;
  const bytes = header.readUInt32BE(8);
  return WalChecker.begin(header, bytes) === undefined ? undefined : bytes;
}

/** Reads a whole log. */
export function readWal(descriptor: number, pageBytes: number): WalReading {
  const header = Buffer.alloc(walHeaderBytes);
  const pages = new Map<number, number>();
  const isWhole = readSync(descriptor, header, 0, walHeaderBytes, 0) === walHeaderBytes;
  const checker = isWhole ? WalChecker.begin(header, pageBytes) : undefined;
  if (checker === undefined) return { frames: 0, framesBeyond: 0, pages, pageCount: undefined };
  const { frameBytes } = checker;
  const chunk = Buffer.allocUnsafe(chunkFrames * frameBytes);
  const uncommitted = new Map<number, number>();
  let pageCount: number | undefined;
  let frames = 0;
  /** Of this life of the file. */
  let seen = 0;
  let whole = true;
  for (let next = 0, at = 0, end = 0; ; next++, at += frameBytes) {
    if (at === end) {
      const bytes = readAll(descriptor, chunk, walHeaderBytes + next * frameBytes);
      end = bytes - (bytes % frameBytes);
      at = 0;
      if (end === 0) break;
    }
    if (!checker.isOfThisLife(chunk, at)) break;
    seen++;
    whole &&= checker.follows(chunk, at);
    if (!whole) continue;
    const offset = walHeaderBytes + next * frameBytes + walFrameHeaderBytes;
    uncommitted.set(chunk.readUInt32BE(at), offset);
    const pagesAfter = chunk.readUInt32BE(at + 4);
    if (pagesAfter === 0) continue;
    pageCount = pagesAfter;
    frames = seen;
    for (const [page, found] of uncommitted) pages.set(page, found);
    uncommitted.clear();
  }
  return { frames, framesBeyond: seen - frames, pages, pageCount };
}

function readAll(descriptor: number, chunk: Buffer, offset: number): number {
  let done = 0;
  while (done < chunk.byteLength) {
    const count = readSync(descriptor, chunk, done, chunk.byteLength - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

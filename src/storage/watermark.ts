/**
 * The content of the watermark: how far the log was known durable [22]. Kept outside the log, so that a log which lost its end
 * (a flipped bit makes SQLite cut a WAL silently) cannot be taken for a shorter, healthy one. Pure.
 *
 *     0 version u32 | 4 count u32 | 8 seq u64 | 16 streamCrc u32 | 20 crc u32 | 24 entries of 32:
 *     group u32 | 0 u32 | term u64 | index u64 | hardTerm u64
 *
 * The stream's (seq, crc) decide: the stream only grows, a truncation of a group's log being one more record of it, so a stream that
 * ends below `seq` has lost something durable, and one that does not has lost nothing. The groups' (term, index) say what was lost, and
 * how far a wounded group must come again before it may vote; `hardTerm` is the term of its hard state, in which it may have voted. A
 * group that is wounded keeps what it has to come to, so that a second loss cannot make it forget the first.
 */
import { crc32 } from "node:zlib";
import { readSafe, writeSafe, type Wound } from "../wire/batch.ts";
import { watermarkBytesMax } from "./disk.ts";

const watermarkVersion = 2;
const headerBytes = 24;
const entryBytes = 32;

export type LogPosition = Pick<Wound, "term" | "index">;

export interface Watermark {
  /** Everything up to here was durable. */
  readonly seq: number;
  /** The stream crc after that record. */
  readonly streamCrc: number;
  readonly groups: ReadonlyMap<number, Wound>;
}

/** The order in which positions of one log compare, as in an election: first by term, then by index. */
export function isBelow(have: LogPosition, need: LogPosition): boolean {
  return have.term < need.term || (have.term === need.term && have.index < need.index);
}

/** What both ask for. */
export function gravest(one: Wound, other: Wound): Wound {
  const { term, index } = isBelow(one, other) ? other : one;
  return { term, index, hardTerm: Math.max(one.hardTerm, other.hardTerm) };
}

/** Builds the bytes; a change of one group touches 24 bytes of them. */
export class WatermarkBuilder {
  #bytes = new Uint8Array(headerBytes + entryBytes);
  #view = new DataView(this.#bytes.buffer);
  readonly #offsets = new Map<number, number>();

  set(group: number, { term, index, hardTerm }: Wound): void {
    let offset = this.#offsets.get(group);
    if (offset === undefined) {
      offset = headerBytes + this.#offsets.size * entryBytes;
      this.#offsets.set(group, offset);
      if (offset + entryBytes > this.#bytes.byteLength) this.#grow();
      this.#view.setUint32(offset, group, true);
    }
    writeSafe(this.#view, offset + 8, term);
    writeSafe(this.#view, offset + 16, index);
    writeSafe(this.#view, offset + 24, hardTerm);
  }

  /** The group is removed: there is nothing of it to come again. The last entry takes its place. */
  delete(group: number): void {
    const offset = this.#offsets.get(group);
    if (offset === undefined) return;
    this.#offsets.delete(group);
    const last = headerBytes + this.#offsets.size * entryBytes;
    if (offset === last) return;
    const moved = this.#view.getUint32(last, true);
    this.#bytes.copyWithin(offset, last, last + entryBytes);
    this.#offsets.set(moved, offset);
  }

  /** A view of the builder's own bytes, good until the next call. */
  bytes(seq: number, streamCrc: number): Uint8Array {
    const count = this.#offsets.size;
    this.#view.setUint32(0, watermarkVersion, true);
    this.#view.setUint32(4, count, true);
    writeSafe(this.#view, 8, seq);
    this.#view.setUint32(16, streamCrc, true);
    const bytes = this.#bytes.subarray(0, headerBytes + count * entryBytes);
    this.#view.setUint32(20, watermarkCrc(bytes), true);
    return bytes;
  }

  #grow(): void {
    const bytes = new Uint8Array(this.#bytes.byteLength * 2);
    if (headerBytes + this.#offsets.size * entryBytes > watermarkBytesMax) {
      throw new Error(`watermark: ${this.#offsets.size} groups do not fit`);
    }
    bytes.set(this.#bytes);
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }
}

function watermarkCrc(bytes: Uint8Array): number {
  return crc32(bytes.subarray(headerBytes), crc32(bytes.subarray(0, 20)));
}

/** Undefined where the bytes are not a watermark or are damaged. */
export function readWatermark(bytes: Uint8Array): Watermark | undefined {
  if (bytes.byteLength < headerBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint32(4, true);
  if (view.getUint32(0, true) !== watermarkVersion) return undefined;
  if (bytes.byteLength !== headerBytes + count * entryBytes) return undefined;
  if (view.getUint32(20, true) !== watermarkCrc(bytes)) return undefined;
  const groups = new Map<number, Wound>();
  for (let offset = headerBytes; offset < bytes.byteLength; offset += entryBytes) {
    const term = readSafe(view, offset + 8);
    const index = readSafe(view, offset + 16);
    const hardTerm = readSafe(view, offset + 24);
    if (!(term >= 0 && index >= 0 && hardTerm >= 0)) return undefined;
    groups.set(view.getUint32(offset, true), { term, index, hardTerm });
  }
  const seq = readSafe(view, 8);
  return seq >= 0 ? { seq, streamCrc: view.getUint32(16, true), groups } : undefined;
}

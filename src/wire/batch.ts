/**
 * The batch: the unit of the log, of replication and of storage [1, 4]. A leaf that anyone may import; pure.
 *
 * A batch is one run of bytes, immutable once sealed: a header of 48 bytes, then the body. For commands the body
 * is a concatenation of sections (section.ts); for a configuration it is that of raft/configuration; a no-op has none; for a raised
 * apply version it is that version, u32 [16], and from version 3 on, in group 0, the first members of `system` (registry.ts).
 *
 *     0 version u8 | 1 kind u8 | 2 flags u16 | 4 group u32 | 8 firstIndex u64 | 16 term u64 | 24 timeMs u64
 *     32 count u32 | 36 bodyBytes u32 | 40 prevCrc u32 | 44 crc u32 | 48 body
 *
 * Little-endian. The crc covers bytes 0..44 and the body, so it binds group, index, term and the predecessor's crc:
 * equal crc at equal index means equal logs up to there (the argument of a hash chain; crc32 guards against faults, not attackers).
 */
import { crc32 } from "node:zlib";

export const batchVersion = 1;
export const batchHeaderBytes = 48;

export const BatchKind = { noop: 0, commands: 1, configuration: 2, applyVersion: 3 } as const;
export type BatchKind = (typeof BatchKind)[keyof typeof BatchKind];

/** A sealed batch: decoded header fields beside the bytes they were read from. */
export interface Batch {
  readonly group: number;
  readonly kind: BatchKind;
  readonly firstIndex: number;
  readonly count: number;
  readonly term: number;
  /** Cluster time [5]: never a wall clock. */
  readonly timeMs: number;
  readonly prevCrc: number;
  readonly crc: number;
  /** Header and body, verbatim. */
  readonly bytes: Uint8Array;
}

export interface BatchHeader {
  readonly group: number;
  readonly kind: BatchKind;
  readonly firstIndex: number;
  readonly count: number;
  readonly term: number;
  readonly timeMs: number;
  readonly prevCrc: number;
}

/** What the log keeps about a batch whose body it does not hold. */
export interface BatchInfo {
  readonly firstIndex: number;
  readonly count: number;
  readonly term: number;
  readonly bytes: number;
  readonly timeMs: number;
  readonly crc: number;
}

/** The position before the first batch that the log still holds. At the very start: index 0, term 0, crc = the cluster's seed. */
export interface LogStart {
  readonly index: number;
  readonly term: number;
  readonly crc: number;
  readonly timeMs: number;
}

/** Durable facts of one replica that must be on disk before anything that relies on them leaves (Raft, figure 2). */
export interface HardState {
  readonly term: number;
  /** 0 = nobody. */
  readonly votedFor: number;
  /** A hint only: commit may be recomputed [D8]. */
  readonly commit: number;
}

/**
 * What a wounded replica lost, as far as it was known: it votes again once a leader has matched its log at (term, index) or beyond [22].
 * It may have voted in `hardTerm` and earlier.
 */
export interface Wound {
  readonly term: number;
  readonly index: number;
  readonly hardTerm: number;
}

/** Last index that the batch spans. */
export function lastIndexOf(batch: Batch): number {
  return batch.firstIndex + batch.count - 1;
}

export function bodyOf(batch: Batch): Uint8Array {
  return batch.bytes.subarray(batchHeaderBytes);
}

/** From this version on the batch that raises it may carry more. */
const applyVersionWithMore = 3;

/** The version that a batch of kind `applyVersion` raises its group to [16]; 0 where its body is none. */
export function applyVersionOf(batch: Batch): number {
  const bodyBytes = batch.bytes.byteLength - batchHeaderBytes;
  if (bodyBytes < 4) return 0;
  const view = new DataView(batch.bytes.buffer, batch.bytes.byteOffset);
  const version = view.getUint32(batchHeaderBytes, true);
  return bodyBytes === 4 || version >= applyVersionWithMore ? version : 0;
}

/** What such a batch carries besides: a view, mostly empty. */
export function raisedWith(batch: Batch): Uint8Array {
  return batch.bytes.subarray(batchHeaderBytes + 4);
}

/** Room for the header, and the body of such a batch behind it: to be sealed. */
export function applyVersionBytes(applyVersion: number, more?: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(batchHeaderBytes + 4 + (more?.byteLength ?? 0));
  new DataView(bytes.buffer).setUint32(batchHeaderBytes, applyVersion, true);
  if (more !== undefined) bytes.set(more, batchHeaderBytes + 4);
  return bytes;
}

const u32 = 0x1_0000_0000;

/** A u64 that must be a safe integer; NaN when it is larger, so that every comparison with it fails. */
export function readSafe(view: DataView, offset: number): number {
  const high = view.getUint32(offset + 4, true);
  return high > 0x1f_ffff ? Number.NaN : high * u32 + view.getUint32(offset, true);
}

export function writeSafe(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value % u32, true);
  view.setUint32(offset + 4, Math.floor(value / u32), true);
}

/**
 * Seals a batch in place. `bytes` has `batchHeaderBytes` of room before the body, which is already there; the
 * array becomes the batch and must not be changed afterwards.
 */
export function sealBatch(header: BatchHeader, bytes: Uint8Array): Batch {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint8(0, batchVersion);
  view.setUint8(1, header.kind);
  view.setUint16(2, 0, true);
  view.setUint32(4, header.group, true);
  writeSafe(view, 8, header.firstIndex);
  writeSafe(view, 16, header.term);
  writeSafe(view, 24, header.timeMs);
  view.setUint32(32, header.count, true);
  view.setUint32(36, bytes.byteLength - batchHeaderBytes, true);
  view.setUint32(40, header.prevCrc, true);
  const crc = batchCrc(bytes);
  view.setUint32(44, crc, true);
  return { ...header, crc, bytes };
}

function batchCrc(bytes: Uint8Array): number {
  return crc32(bytes.subarray(batchHeaderBytes), crc32(bytes.subarray(0, 44)));
}

/**
 * Reads the batch that starts at `offset`; undefined where the bytes are not a well-formed batch (too short, unknown version
 * or kind, count 0, an integer that is not safe). Does not check the crc: see `batchIntact`.
 */
export function readBatch(bytes: Uint8Array, offset: number): Batch | undefined {
  if (bytes.byteLength - offset < batchHeaderBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, bytes.byteLength - offset);
  const length = batchHeaderBytes + view.getUint32(36, true);
  if (view.getUint8(0) !== batchVersion || length > view.byteLength) return undefined;
  const batch = readBatchHeader(view, bytes.subarray(offset, offset + length));
  return batch;
}

function readBatchHeader(view: DataView, bytes: Uint8Array): Batch | undefined {
  const kind = view.getUint8(1);
  const firstIndex = readSafe(view, 8);
  const term = readSafe(view, 16);
  const timeMs = readSafe(view, 24);
  const count = view.getUint32(32, true);
  const wellFormed =
    kind <= BatchKind.applyVersion &&
    view.getUint16(2, true) === 0 &&
    firstIndex >= 1 &&
    term >= 0 &&
    timeMs >= 0 &&
    count >= 1 &&
    (kind === BatchKind.commands || count === 1) &&
    Number.isSafeInteger(firstIndex + count);
  if (!wellFormed) return undefined;
  return {
    group: view.getUint32(4, true),
    kind: kind as BatchKind,
    firstIndex,
    count,
    term,
    timeMs,
    prevCrc: view.getUint32(40, true),
    crc: view.getUint32(44, true),
    bytes,
  };
}

/** True when the crc in the header is that of the bytes. Once per node, on arrival, and when read back from a disk. */
export function batchIntact(batch: Batch): boolean {
  return batchCrc(batch.bytes) === batch.crc;
}

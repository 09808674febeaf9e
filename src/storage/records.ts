/**
 * Layouts of the log's records that are not batches, and the checksums that tie every record to its place. Pure.
 *
 * A batch or rewrite record is the batch verbatim, with its own crc at byte 44. Every other record begins with a crc over its
 * place (seq, kind, group) and the rest of it. All numbers are little-endian.
 *
 *     segmentStart  0 crc u32 | 4 number u32 | 8 predecessor u32 | 12 oldest u32 | 16 predecessorFirstSeq u64 | 24 predecessorLastSeq u64
 *                   32 streamCrc u32 | 36 bootId u32 | 40 stateRecords u32
 *     hardState     0 crc u32 | 4 votedFor u32 | 8 term u64 | 16 commit u64
 *     wound         0 crc u32 | 4 flags u32 (1 = wounded, else whole again) | 8 cut u64: the log from here on is void, 0 = none
 *                   16 term u64 | 24 index u64 | 32 hardTerm u64
 *     logStart      0 crc u32 | 4 flags u32 (1 = resets) | 8 index u64 | 16 term u64 | 24 timeMs u64 | 32 crc of the chain u32 | 36 configuration
 *     machineFile   0 crc u32 | 4 generation u32
 *     replica       0 crc u32 | 4 flags u32 (1 = removed, else made) | 8 registryIndex u64
 *
 * The stream crc runs over place and head of all records since the folder was made. Segment starts and the watermark carry it, so a
 * record that was lost, swapped, or replaced by an old copy of itself is noticed although its own crc is right, and a damaged head of
 * a batch is noticed although its body, which the batch's crc needs, has not been read.
 */
import { crc32 } from "node:zlib";
import { readSafe, writeSafe, type HardState, type LogStart, type Wound } from "../wire/batch.ts";
import { RecordKind, type LogRecord } from "./disk.ts";

/** Leading bytes of a record's data that suffice to follow the stream without reading bodies. */
export const recordHeadBytes = 48;
const batchCrcAt = 44;

const segmentStartBytes = 44;
const hardStateBytes = 24;
const logStartBytes = 36;
const machineFileBytes = 8;
const woundBytes = 40;
const replicaBytes = 16;
const resetsFlag = 1;
const woundedFlag = 1;
const removedFlag = 1;

export interface SegmentStart {
  readonly number: number;
  /** The segment that this one continues; 0 for the first of a folder. */
  readonly predecessor: number;
  /** The oldest segment that the log needs: once this record is durable, all older ones may go. */
  readonly oldest: number;
  readonly predecessorFirstSeq: number;
  /** Last sequence number before this segment: the predecessor's records after it, if any, are void. */
  readonly predecessorLastSeq: number;
  /** Of everything before this record. */
  readonly streamCrc: number;
  /** Random per boot, so that a stream which was lost and written again never looks like its former life [M19]. */
  readonly bootId: number;
  /** Records that follow in the same transaction and repeat the state of all groups. */
  readonly stateRecords: number;
}

export interface LogStartRecord {
  readonly start: LogStart;
  /** The whole log of before is void, also what lies above `start` (a snapshot that does not match it was installed). */
  readonly resets: boolean;
  /** Body of the configuration in force at `start`. */
  readonly configuration: Uint8Array;
}

export interface WoundRecord {
  /** Undefined: healed. */
  readonly wound: Wound | undefined;
  /** The batch that begins here is damaged; it and all that follow are void. 0 = none. */
  readonly cut: number;
}

/** What the registry had done to the group here, at that index of its own log. */
export interface ReplicaRecord {
  readonly removed: boolean;
  readonly registryIndex: number;
}

const place = new Uint8Array(16);
const placeView = new DataView(place.buffer);

function setPlace(seq: number, kind: RecordKind, group: number): void {
  writeSafe(placeView, 0, seq);
  placeView.setUint32(8, kind, true);
  placeView.setUint32(12, group, true);
}

function crcInPlace(seq: number, kind: RecordKind, group: number, data: Uint8Array): number {
  setPlace(seq, kind, group);
  return crc32(data.subarray(4), crc32(place));
}

const viewOf = (data: Uint8Array): DataView =>
  new DataView(data.buffer, data.byteOffset, data.byteLength);

/**
 * The stream crc after this record. Needs no more than `recordHeadBytes` of its data. The crc of a batch, which ends its head, goes before the rest: bytes with
 * their own crc behind them leave any crc32 the same whatever they are, so that one batch without a body could not be told from another.
 */
export function nextStreamCrc(
  streamCrc: number,
  seq: number,
  kind: RecordKind,
  group: number,
  data: Uint8Array,
): number {
  setPlace(seq, kind, group);
  const crc = crc32(data.subarray(batchCrcAt, recordHeadBytes), crc32(place, streamCrc));
  return crc32(data.subarray(0, batchCrcAt), crc);
}

function sealRecord(seq: number, kind: RecordKind, group: number, data: Uint8Array): LogRecord {
  viewOf(data).setUint32(0, crcInPlace(seq, kind, group, data), true);
  return { seq, kind, group, data };
}

/** True when a record that is not a batch is what was written at this place. */
export function recordIntact(record: LogRecord): boolean {
  const { seq, kind, group, data } = record;
  if (data.byteLength < 4) return false;
  return viewOf(data).getUint32(0, true) === crcInPlace(seq, kind, group, data);
}

export function segmentStartRecord(seq: number, start: SegmentStart): LogRecord {
  const data = new Uint8Array(segmentStartBytes);
  const view = viewOf(data);
  view.setUint32(4, start.number, true);
  view.setUint32(8, start.predecessor, true);
  view.setUint32(12, start.oldest, true);
  writeSafe(view, 16, start.predecessorFirstSeq);
  writeSafe(view, 24, start.predecessorLastSeq);
  view.setUint32(32, start.streamCrc, true);
  view.setUint32(36, start.bootId, true);
  view.setUint32(40, start.stateRecords, true);
  return sealRecord(seq, RecordKind.segmentStart, 0, data);
}

export function hardStateRecord(seq: number, group: number, hardState: HardState): LogRecord {
  const data = new Uint8Array(hardStateBytes);
  const view = viewOf(data);
  view.setUint32(4, hardState.votedFor, true);
  writeSafe(view, 8, hardState.term);
  writeSafe(view, 16, hardState.commit);
  return sealRecord(seq, RecordKind.hardState, group, data);
}

export function logStartRecord(seq: number, group: number, record: LogStartRecord): LogRecord {
  const data = new Uint8Array(logStartBytes + record.configuration.byteLength);
  const view = viewOf(data);
  view.setUint32(4, record.resets ? resetsFlag : 0, true);
  writeSafe(view, 8, record.start.index);
  writeSafe(view, 16, record.start.term);
  writeSafe(view, 24, record.start.timeMs);
  view.setUint32(32, record.start.crc, true);
  data.set(record.configuration, logStartBytes);
  return sealRecord(seq, RecordKind.logStart, group, data);
}

export function woundRecord(seq: number, group: number, { wound, cut }: WoundRecord): LogRecord {
  const data = new Uint8Array(woundBytes);
  const view = viewOf(data);
  view.setUint32(4, wound === undefined ? 0 : woundedFlag, true);
  writeSafe(view, 8, cut);
  writeSafe(view, 16, wound?.term ?? 0);
  writeSafe(view, 24, wound?.index ?? 0);
  writeSafe(view, 32, wound?.hardTerm ?? 0);
  return sealRecord(seq, RecordKind.wound, group, data);
}

export function machineFileRecord(seq: number, group: number, generation: number): LogRecord {
  const data = new Uint8Array(machineFileBytes);
  viewOf(data).setUint32(4, generation, true);
  return sealRecord(seq, RecordKind.machineFile, group, data);
}

export function replicaRecord(
  seq: number,
  group: number,
  { removed, registryIndex }: ReplicaRecord,
): LogRecord {
  const data = new Uint8Array(replicaBytes);
  const view = viewOf(data);
  view.setUint32(4, removed ? removedFlag : 0, true);
  writeSafe(view, 8, registryIndex);
  return sealRecord(seq, RecordKind.replica, group, data);
}

/** Undefined where the record is not a whole, intact segment start. */
export function readSegmentStart(record: LogRecord): SegmentStart | undefined {
  const { kind, data } = record;
  if (kind !== RecordKind.segmentStart || data.byteLength !== segmentStartBytes) return undefined;
  if (!recordIntact(record)) return undefined;
  const view = viewOf(data);
  const start: SegmentStart = {
    number: view.getUint32(4, true),
    predecessor: view.getUint32(8, true),
    oldest: view.getUint32(12, true),
    predecessorFirstSeq: readSafe(view, 16),
    predecessorLastSeq: readSafe(view, 24),
    streamCrc: view.getUint32(32, true),
    bootId: view.getUint32(36, true),
    stateRecords: view.getUint32(40, true),
  };
  return start.predecessorLastSeq === record.seq - 1 ? start : undefined;
}

/** Undefined where the layout is wrong; `recordIntact` is asked separately. */
export function readHardState(data: Uint8Array): HardState | undefined {
  if (data.byteLength !== hardStateBytes) return undefined;
  const view = viewOf(data);
  const term = readSafe(view, 8);
  const commit = readSafe(view, 16);
  if (!(term >= 0 && commit >= 0)) return undefined;
  return { term, votedFor: view.getUint32(4, true), commit };
}

/** Undefined where the layout is wrong; `recordIntact` is asked separately. */
export function readWound(data: Uint8Array): WoundRecord | undefined {
  if (data.byteLength !== woundBytes) return undefined;
  const view = viewOf(data);
  const cut = readSafe(view, 8);
  const term = readSafe(view, 16);
  const index = readSafe(view, 24);
  const hardTerm = readSafe(view, 32);
  if (!(cut >= 0 && term >= 0 && index >= 0 && hardTerm >= 0)) return undefined;
  const isWounded = (view.getUint32(4, true) & woundedFlag) !== 0;
  return { wound: isWounded ? { term, index, hardTerm } : undefined, cut };
}

/** Undefined where the layout is wrong; `recordIntact` is asked separately. */
export function readMachineFile(data: Uint8Array): number | undefined {
  return data.byteLength === machineFileBytes ? viewOf(data).getUint32(4, true) : undefined;
}

/** Undefined where the layout is wrong; `recordIntact` is asked separately. */
export function readReplica(data: Uint8Array): ReplicaRecord | undefined {
  if (data.byteLength !== replicaBytes) return undefined;
  const view = viewOf(data);
  const registryIndex = readSafe(view, 8);
  if (!(registryIndex >= 0)) return undefined;
  return { removed: (view.getUint32(4, true) & removedFlag) !== 0, registryIndex };
}

/** Undefined where the layout is wrong; of a head, the configuration is cut off. */
export function readLogStart(data: Uint8Array): LogStartRecord | undefined {
  if (data.byteLength < logStartBytes) return undefined;
  const view = viewOf(data);
  const index = readSafe(view, 8);
  const term = readSafe(view, 16);
  const timeMs = readSafe(view, 24);
  if (!(index >= 0 && term >= 0 && timeMs >= 0)) return undefined;
  return {
    start: { index, term, timeMs, crc: view.getUint32(32, true) },
    resets: (view.getUint32(4, true) & resetsFlag) !== 0,
    configuration: data.slice(logStartBytes),
  };
}

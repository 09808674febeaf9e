/**
 * Commands, queries and answers of the key-value machine: what the SDK and the HTTP door lay out and what machine/kv reads in
 * place. Pure. Little-endian; keys and values are bytes.
 *
 *     command  0 op u8 | 1 version u8 | 2 keyLength u16 | 4 valueLength u32 | compare ops: 8 prevRevision u64 | key | value
 *     get      0 op u8 | 1 version u8 | 2 keyLength u16 | key
 *     range    0 op u8 | 1 version u8 | 2 flags u8 | 3 reserved u8 | 4 limit u32 | 8 fromLength u16 | 10 toLength u16
 *              12 afterLength u16 | 14 reserved u16 | from (or prefix) | to | after
 *
 *     answer to get    0 revision u64 | value
 *     answer to range  0 count u32 | 4 more u8 | 5 reserved (3) | 8 revision u64, the applied index of the read
 *                      then count × (revision u64 | keyLength u16 | valueLength u32 | key | value)
 *
 * A revision is the log index of the command that last wrote the key. Writers put bytes into the caller's buffer at an offset
 * and return the end, so that a command costs no allocation [39]; `encode…` are for single ones.
 */
import { readSafe, writeSafe } from "./batch.ts";

export const kvVersion = 1;

/** Append-only; 5 is a transaction (kv-txn.ts). A compare op compares the key's revision with prevRevision first; 0 = the key must not exist. */
export const KvOp = { put: 1, delete: 2, compareAndPut: 3, compareAndDelete: 4 } as const;
export type KvOp = (typeof KvOp)[keyof typeof KvOp];

/** Append-only; a number space of its own, so that a command is never taken for a query. */
export const KvQuery = { get: 64, range: 65 } as const;
export type KvQuery = (typeof KvQuery)[keyof typeof KvQuery];

export const kvCommandHeadBytes = 8;
export const kvPrevRevisionBytes = 8;
export const kvGetHeadBytes = 4;
export const kvRangeHeadBytes = 16;
export const kvRangeAnswerHeadBytes = 16;
export const kvRangeItemHeadBytes = 14;

const rangeFlag = { keysOnly: 1, prefix: 2 } as const;
const none = new Uint8Array(0);

/* ------------------------------------------------------------------ commands */

function compares(op: KvOp): boolean {
  return op === KvOp.compareAndPut || op === KvOp.compareAndDelete;
}

/** Size of a whole command. A delete has value length 0. */
export function kvCommandBytes(op: KvOp, keyLength: number, valueLength: number): number {
  return kvCommandHeadBytes + (compares(op) ? kvPrevRevisionBytes : 0) + keyLength + valueLength;
}

/**
 * Writes what comes before the key and returns where the key begins; the caller puts key and value there. `prevRevision` is
 * written for the compare ops only.
 */
export function writeKvCommandHead(
  view: DataView,
  offset: number,
  op: KvOp,
  keyLength: number,
  valueLength: number,
  prevRevision: number,
): number {
  view.setUint8(offset, op);
  view.setUint8(offset + 1, kvVersion);
  view.setUint16(offset + 2, keyLength, true);
  view.setUint32(offset + 4, valueLength, true);
  if (!compares(op)) return offset + kvCommandHeadBytes;
  writeSafe(view, offset + kvCommandHeadBytes, prevRevision);
  return offset + kvCommandHeadBytes + kvPrevRevisionBytes;
}

/** Writes a whole command and returns its end. `bytes` and `view` are over the same memory. `value` is undefined for a delete. */
export function writeKvCommand(
  bytes: Uint8Array,
  view: DataView,
  offset: number,
  op: KvOp,
  key: Uint8Array,
  value: Uint8Array | undefined,
  prevRevision: number,
): number {
  const valueLength = value === undefined ? 0 : value.byteLength;
  const keyAt = writeKvCommandHead(view, offset, op, key.byteLength, valueLength, prevRevision);
  bytes.set(key, keyAt);
  const valueAt = keyAt + key.byteLength;
  if (value !== undefined) bytes.set(value, valueAt);
  return valueAt + valueLength;
}

function encodeCommand(
  op: KvOp,
  key: Uint8Array,
  value: Uint8Array | undefined,
  prevRevision: number,
): Uint8Array {
  const bytes = new Uint8Array(kvCommandBytes(op, key.byteLength, value?.byteLength ?? 0));
  writeKvCommand(bytes, new DataView(bytes.buffer), 0, op, key, value, prevRevision);
  return bytes;
}

export function encodeKvPut(key: Uint8Array, value: Uint8Array): Uint8Array {
  return encodeCommand(KvOp.put, key, value, 0);
}

export function encodeKvDelete(key: Uint8Array): Uint8Array {
  return encodeCommand(KvOp.delete, key, undefined, 0);
}

export function encodeKvCompareAndPut(
  key: Uint8Array,
  value: Uint8Array,
  prevRevision: number,
): Uint8Array {
  return encodeCommand(KvOp.compareAndPut, key, value, prevRevision);
}

export function encodeKvCompareAndDelete(key: Uint8Array, prevRevision: number): Uint8Array {
  return encodeCommand(KvOp.compareAndDelete, key, undefined, prevRevision);
}

/** One command read in place: offsets into the bytes it was read from. Made once, filled by `read` for each command. */
export class KvCommandReader {
  op: KvOp = KvOp.put;
  keyAt = 0;
  keyLength = 0;
  valueAt = 0;
  valueLength = 0;
  /** 0 where the op does not compare. */
  prevRevision = 0;

  /** False where the `length` bytes at `offset` are not exactly one well-formed command. Bounds on sizes are the machine's. */
  read(view: DataView, offset: number, length: number): boolean {
    if (length < kvCommandHeadBytes) return false;
    const op = view.getUint8(offset);
    if (op < KvOp.put || op > KvOp.compareAndDelete) return false;
    if (view.getUint8(offset + 1) !== kvVersion) return false;
    this.op = op as KvOp;
    this.keyLength = view.getUint16(offset + 2, true);
    this.valueLength = view.getUint32(offset + 4, true);
    this.keyAt = offset + kvCommandHeadBytes;
    this.prevRevision = 0;
    if (op >= KvOp.compareAndPut) {
      if (length < kvCommandHeadBytes + kvPrevRevisionBytes) return false;
      this.prevRevision = readSafe(view, this.keyAt);
      if (!(this.prevRevision >= 0)) return false;
      this.keyAt += kvPrevRevisionBytes;
    }
    this.valueAt = this.keyAt + this.keyLength;
    if (this.valueAt + this.valueLength !== offset + length) return false;
    const deletes = op === KvOp.delete || op === KvOp.compareAndDelete;
    return this.keyLength > 0 && (!deletes || this.valueLength === 0);
  }
}

/* ------------------------------------------------------------------ queries */

export function kvGetBytes(keyLength: number): number {
  return kvGetHeadBytes + keyLength;
}

/** Writes what comes before the key of a get and returns where the key begins. */
export function writeKvGetHead(view: DataView, offset: number, keyLength: number): number {
  view.setUint8(offset, KvQuery.get);
  view.setUint8(offset + 1, kvVersion);
  view.setUint16(offset + 2, keyLength, true);
  return offset + kvGetHeadBytes;
}

/** Writes a whole get and returns its end. */
export function writeKvGet(
  bytes: Uint8Array,
  view: DataView,
  offset: number,
  key: Uint8Array,
): number {
  const keyAt = writeKvGetHead(view, offset, key.byteLength);
  bytes.set(key, keyAt);
  return keyAt + key.byteLength;
}

export function encodeKvGet(key: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(kvGetBytes(key.byteLength));
  writeKvGet(bytes, new DataView(bytes.buffer), 0, key);
  return bytes;
}

/** All keys that begin with `prefix`, or all in [from, to); in bytewise order, shorter first. An absent bound does not bound. */
export interface KvRange {
  readonly prefix?: Uint8Array | undefined;
  readonly from?: Uint8Array | undefined;
  readonly to?: Uint8Array | undefined;
  /** Continuation: only keys strictly after this one, the last key of the page before. */
  readonly after?: Uint8Array | undefined;
  /** Items in one page; the machine's own bound holds as well. 0 = as many as it gives. */
  readonly limit: number;
  /** Leaves the values out: each item's value is empty. */
  readonly keysOnly?: boolean | undefined;
}

export function encodeKvRange(range: KvRange): Uint8Array {
  const from = range.prefix ?? range.from ?? none;
  const to = range.prefix === undefined ? (range.to ?? none) : none;
  const after = range.after ?? none;
  const size = kvRangeHeadBytes + from.byteLength + to.byteLength + after.byteLength;
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, KvQuery.range);
  view.setUint8(1, kvVersion);
  const prefixFlag = range.prefix === undefined ? 0 : rangeFlag.prefix;
  view.setUint8(2, (range.keysOnly === true ? rangeFlag.keysOnly : 0) | prefixFlag);
  view.setUint32(4, range.limit, true);
  view.setUint16(8, from.byteLength, true);
  view.setUint16(10, to.byteLength, true);
  view.setUint16(12, after.byteLength, true);
  bytes.set(from, kvRangeHeadBytes);
  bytes.set(to, kvRangeHeadBytes + from.byteLength);
  bytes.set(after, kvRangeHeadBytes + from.byteLength + to.byteLength);
  return bytes;
}

export type KvQueryRead =
  | { readonly op: typeof KvQuery.get; readonly key: Uint8Array }
  | { readonly op: typeof KvQuery.range; readonly range: KvRange };

/** Reads a query; undefined where the bytes are not exactly one. Its keys are views of `bytes`. */
export function readKvQuery(bytes: Uint8Array): KvQueryRead | undefined {
  if (bytes.byteLength < kvGetHeadBytes || bytes[1] !== kvVersion) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes[0] === KvQuery.get) {
    const keyLength = view.getUint16(2, true);
    if (keyLength === 0 || bytes.byteLength !== kvGetHeadBytes + keyLength) return undefined;
    return { op: KvQuery.get, key: bytes.subarray(kvGetHeadBytes) };
  }
  if (bytes[0] === KvQuery.range) return readRange(bytes, view);
  return undefined;
}

function readRange(bytes: Uint8Array, view: DataView): KvQueryRead | undefined {
  if (bytes.byteLength < kvRangeHeadBytes) return undefined;
  const flags = view.getUint8(2);
  if (flags > 3 || view.getUint8(3) !== 0 || view.getUint16(14, true) !== 0) return undefined;
  const toAt = kvRangeHeadBytes + view.getUint16(8, true);
  const afterAt = toAt + view.getUint16(10, true);
  if (afterAt + view.getUint16(12, true) !== bytes.byteLength) return undefined;
  const first = bytes.subarray(kvRangeHeadBytes, toAt);
  const to = bytes.subarray(toAt, afterAt);
  const after = bytes.subarray(afterAt);
  const byPrefix = (flags & rangeFlag.prefix) !== 0;
  if (byPrefix && to.byteLength > 0) return undefined;
  const range: KvRange = {
    prefix: byPrefix ? first : undefined,
    from: byPrefix || first.byteLength === 0 ? undefined : first,
    to: to.byteLength === 0 ? undefined : to,
    after: after.byteLength === 0 ? undefined : after,
    limit: view.getUint32(4, true),
    keysOnly: (flags & rangeFlag.keysOnly) !== 0,
  };
  return { op: KvQuery.range, range };
}

/* ------------------------------------------------------------------ answers */

export interface KvEntry {
  readonly revision: number;
  /** A view of the answer. */
  readonly value: Uint8Array;
}

export interface KvItem extends KvEntry {
  readonly key: Uint8Array;
}

export interface KvPage {
  readonly items: readonly KvItem[];
  /** There is more: ask again with `after` = the last item's key. */
  readonly more: boolean;
  /** Index at which the page was read. */
  readonly revision: number;
}

/** Reads the answer to a get (code ok); undefined where it is not well formed. */
export function readKvEntry(bytes: Uint8Array): KvEntry | undefined {
  if (bytes.byteLength < 8) return undefined;
  const revision = readSafe(new DataView(bytes.buffer, bytes.byteOffset, 8), 0);
  return revision > 0 ? { revision, value: bytes.subarray(8) } : undefined;
}

/** Reads the key's own revision out of the bytes of a failed compare: 0 = the key is absent. */
export function readKvRevision(bytes: Uint8Array): number | undefined {
  if (bytes.byteLength !== 8) return undefined;
  const revision = readSafe(new DataView(bytes.buffer, bytes.byteOffset, 8), 0);
  return revision >= 0 ? revision : undefined;
}

/** Reads the answer to a range; undefined where it is not well formed. Keys and values are views of `bytes`. */
export function readKvPage(bytes: Uint8Array): KvPage | undefined {
  if (bytes.byteLength < kvRangeAnswerHeadBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint32(0, true);
  const more = view.getUint8(4);
  const revision = readSafe(view, 8);
  if (more > 1 || !(revision >= 0)) return undefined;
  const items: KvItem[] = [];
  let at = kvRangeAnswerHeadBytes;
  for (let i = 0; i < count; i++) {
    if (bytes.byteLength - at < kvRangeItemHeadBytes) return undefined;
    const itemRevision = readSafe(view, at);
    const keyAt = at + kvRangeItemHeadBytes;
    const valueAt = keyAt + view.getUint16(at + 8, true);
    const end = valueAt + view.getUint32(at + 10, true);
    if (!(itemRevision > 0) || end > bytes.byteLength) return undefined;
    const key = bytes.subarray(keyAt, valueAt);
    items.push({ revision: itemRevision, key, value: bytes.subarray(valueAt, end) });
    at = end;
  }
  return at === bytes.byteLength ? { items, more: more === 1, revision } : undefined;
}

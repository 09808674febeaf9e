/**
 * Watches between a client and a node as frames. A client numbers its watches, each number once per connection. Pure.
 *
 *     watch         0 watch u64 | 8 group u32 | 12 windowBytes u32 | 16 from u64 | 24 flags u16 | 26 prefix length u16 | 28 prefix
 *     watchCredit   0 watch u64 | 8 bytes u32: so many more may be sent
 *     watchStop     0 watch u64
 *     watchChanges  0 watch u64 | 8 revision u64 | 16 count u32 | 20 body crc u32 | body: count × change
 *     watchEnded    0 watch u64 | 8 revision u64 | 16 error u32 | 20 message: UTF-8
 *
 *     change        0 revisions before that of the frame u32 | 4 kind u8 | 5 zero u8 | 6 key length u16 | 8 value length u32 | key | value
 *
 * `watchChanges` says: these are all changes up to `revision` that concern the watch, after those of the frame before. The first one, which
 * has none, says where the watch begins; later ones without a change say how far it has come. All changes of one revision are in one frame,
 * so that a client may go on after `revision`, elsewhere or later. A change is no longer than the command that made it was in the log,
 * so a frame is no longer than the part of the log that it tells.
 */
import { crc32 } from "node:zlib";
import { readSafe, writeSafe } from "./batch.ts";
import { FrameType } from "./messages.ts";
import type { SendBuffer } from "./send-buffer.ts";

export interface WatchStart {
  readonly type: "watch";
  readonly watch: number;
  readonly group: number;
  /** Bytes of changes that may be sent before the client has said `watchCredit`. */
  readonly windowBytes: number;
  /** Changes from this revision on; 0 = from now on. */
  readonly from: number;
  /** The prefix is a whole key: no other is watched. */
  readonly exact: boolean;
  readonly prefix: Uint8Array;
}

export interface WatchCredit {
  readonly type: "watchCredit";
  readonly watch: number;
  readonly bytes: number;
}

export interface WatchStop {
  readonly type: "watchStop";
  readonly watch: number;
}

export interface WatchChanges {
  readonly type: "watchChanges";
  readonly watch: number;
  readonly revision: number;
  readonly count: number;
  /** The body, well formed; see `readWatchChanges`. */
  readonly changes: Uint8Array;
}

export interface WatchEnded {
  readonly type: "watchEnded";
  readonly watch: number;
  readonly revision: number;
  /** Number in errors.ts. */
  readonly error: number;
  readonly message: string;
}

export type WatchCommand = WatchStart | WatchCredit | WatchStop;
export type WatchReply = WatchChanges | WatchEnded;

const watchFixedBytes = 28;
const creditFieldsBytes = 12;
const stopFieldsBytes = 8;
const changesFieldsBytes = 24;
const endedFixedBytes = 20;
/** Before each key. */
export const changeHeadBytes = 12;
const messageBytesMax = 4 * 1_024;

const exactFlag = 1;
const changeKind = { put: 1, delete: 2 } as const;

export function isWatchFrame(type: number): boolean {
  return type >= FrameType.watch && type <= FrameType.watchEnded;
}

/* ------------------------------------------------------------------ client to node */

export function encodeWatch(out: SendBuffer, watch: Omit<WatchStart, "type">): void {
  const { prefix } = watch;
  const at = out.begin(FrameType.watch, watchFixedBytes + prefix.byteLength);
  const { view } = out;
  writeSafe(view, at, watch.watch);
  view.setUint32(at + 8, watch.group, true);
  view.setUint32(at + 12, watch.windowBytes, true);
  writeSafe(view, at + 16, watch.from);
  view.setUint16(at + 24, watch.exact ? exactFlag : 0, true);
  view.setUint16(at + 26, prefix.byteLength, true);
  out.setFields(watchFixedBytes, prefix);
  out.end();
}

export function encodeWatchCredit(out: SendBuffer, watch: number, bytes: number): void {
  const at = out.begin(FrameType.watchCredit, creditFieldsBytes);
  writeSafe(out.view, at, watch);
  out.view.setUint32(at + 8, bytes, true);
  out.end();
}

export function encodeWatchStop(out: SendBuffer, watch: number): void {
  const at = out.begin(FrameType.watchStop, stopFieldsBytes);
  writeSafe(out.view, at, watch);
  out.end();
}

/* ------------------------------------------------------------------ node to client */

/** Changes one after the other. */
export interface ChangeSource {
  /** Goes to the next one, to the first at first; false after the last. */
  next(): boolean;
  /** Log index of the command: one transaction may change several keys. */
  readonly revision: number;
  readonly deleted: boolean;
  /** Holds the key and, right behind it, the value; never written to again. */
  readonly bytes: Uint8Array;
  readonly keyAt: number;
  readonly keyLength: number;
  readonly valueLength: number;
}

/** Copies the changes; without any it says how far the watch has come. Returns the bytes of the body. */
export function encodeWatchChanges(
  out: SendBuffer,
  watch: number,
  revision: number,
  changes: ChangeSource | undefined,
): number {
  const at = out.begin(FrameType.watchChanges, changesFieldsBytes);
  writeSafe(out.view, at, watch);
  writeSafe(out.view, at + 8, revision);
  let count = 0;
  while (changes?.next() === true) {
    writeChange(out, revision, changes);
    count++;
  }
  const fieldsAt = out.fieldsAt;
  out.view.setUint32(fieldsAt + 16, count, true);
  out.view.setUint32(fieldsAt + 20, count === 0 ? 0 : out.bodyCrc(), true);
  const { bodyBytes } = out;
  out.end();
  return bodyBytes;
}

function writeChange(out: SendBuffer, revision: number, change: ChangeSource): void {
  const { bytes, keyAt, keyLength, valueLength } = change;
  const at = out.reserve(changeHeadBytes);
  const { view } = out;
  view.setUint32(at, revision - change.revision, true);
  view.setUint8(at + 4, change.deleted ? changeKind.delete : changeKind.put);
  view.setUint8(at + 5, 0);
  view.setUint16(at + 6, keyLength, true);
  view.setUint32(at + 8, valueLength, true);
  out.appendFrom(bytes, keyAt, keyLength + valueLength);
}

/** A message over its bound is cut. */
export function encodeWatchEnded(
  out: SendBuffer,
  watch: number,
  revision: number,
  error: number,
  message: string,
): void {
  const text = encoder.encode(message).subarray(0, messageBytesMax);
  const at = out.begin(FrameType.watchEnded, endedFixedBytes + text.byteLength);
  writeSafe(out.view, at, watch);
  writeSafe(out.view, at + 8, revision);
  out.view.setUint32(at + 16, error, true);
  out.setFields(endedFixedBytes, text);
  out.end();
}

/* ------------------------------------------------------------------ reading */

/** Reads what a client says of its watches; undefined where it is malformed. The prefix is a copy. */
export function decodeWatchCommand(
  type: number,
  payload: Uint8Array,
  fieldsBytes: number,
): WatchCommand | undefined {
  if (payload.byteLength !== fieldsBytes || fieldsBytes < stopFieldsBytes) return undefined;
  const view = viewOf(payload);
  const watch = readSafe(view, 0);
  if (!(watch >= 0)) return undefined;
  switch (type) {
    case FrameType.watch:
      return decodeStart(view, payload, watch);
    case FrameType.watchCredit:
      if (fieldsBytes !== creditFieldsBytes) return undefined;
      return { type: "watchCredit", watch, bytes: view.getUint32(8, true) };
    case FrameType.watchStop:
      return fieldsBytes === stopFieldsBytes ? { type: "watchStop", watch } : undefined;
    default:
      return undefined;
  }
}

function decodeStart(view: DataView, payload: Uint8Array, watch: number): WatchStart | undefined {
  if (payload.byteLength < watchFixedBytes) return undefined;
  const from = readSafe(view, 16);
  const flags = view.getUint16(24, true);
  if (!(from >= 0) || flags > exactFlag) return undefined;
  if (watchFixedBytes + view.getUint16(26, true) !== payload.byteLength) return undefined;
  return {
    type: "watch",
    watch,
    group: view.getUint32(8, true),
    windowBytes: view.getUint32(12, true),
    from,
    exact: flags === exactFlag,
    prefix: payload.slice(watchFixedBytes),
  };
}

/** Reads what a node says of a watch; undefined where it is malformed. The changes are a view into `payload`, their crc and layout checked. */
export function decodeWatchReply(
  type: number,
  payload: Uint8Array,
  fieldsBytes: number,
): WatchReply | undefined {
  if (payload.byteLength < fieldsBytes || fieldsBytes < endedFixedBytes) return undefined;
  const view = viewOf(payload);
  const watch = readSafe(view, 0);
  const revision = readSafe(view, 8);
  if (!(watch >= 0) || !(revision >= 0)) return undefined;
  if (type === FrameType.watchEnded) {
    if (payload.byteLength !== fieldsBytes) return undefined;
    if (fieldsBytes > endedFixedBytes + messageBytesMax) return undefined;
    const message = decoder.decode(payload.subarray(endedFixedBytes));
    return { type: "watchEnded", watch, revision, error: view.getUint32(16, true), message };
  }
  if (type !== FrameType.watchChanges || fieldsBytes !== changesFieldsBytes) return undefined;
  const count = view.getUint32(16, true);
  const changes = payload.subarray(fieldsBytes);
  const crc = count === 0 ? 0 : crc32(changes);
  if (crc !== view.getUint32(20, true) || !holdsChanges(changes, count, revision)) return undefined;
  return { type: "watchChanges", watch, revision, count, changes };
}

/** True when the bytes are exactly `count` changes, by rising revision. */
function holdsChanges(bytes: Uint8Array, count: number, revision: number): boolean {
  const view = viewOf(bytes);
  let at = 0;
  let before = revision;
  for (let i = 0; i < count; i++) {
    if (bytes.byteLength - at < changeHeadBytes) return false;
    const back = view.getUint32(at, true);
    const kind = view.getUint8(at + 4);
    const keyLength = view.getUint16(at + 6, true);
    const valueLength = view.getUint32(at + 8, true);
    const wellFormed =
      back <= before &&
      back < revision &&
      (kind === changeKind.put || (kind === changeKind.delete && valueLength === 0)) &&
      view.getUint8(at + 5) === 0 &&
      keyLength > 0;
    if (!wellFormed) return false;
    before = back;
    at += changeHeadBytes + keyLength + valueLength;
    if (at > bytes.byteLength) return false;
  }
  return at === bytes.byteLength;
}

/** One change; key and value are views. A deletion has no value. */
export interface KvChange {
  readonly revision: number;
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
}

/** The changes of a frame, one after the other, as offsets into them. */
export class WatchChangeReader {
  readonly #view: DataView;
  readonly #revision: number;
  #left: number;
  revision = 0;
  deleted = false;
  keyAt = 0;
  /** Where the key ends too. */
  valueAt = 0;
  /** Where the value ends, and the next change begins. */
  end = 0;

  constructor({ revision, count, changes }: WatchChanges) {
    this.#view = viewOf(changes);
    this.#revision = revision;
    this.#left = count;
  }

  /** Goes to the next one, to the first at first; false after the last. */
  next(): boolean {
    if (this.#left === 0) return false;
    this.#left--;
    const at = this.end;
    const view = this.#view;
    this.revision = this.#revision - view.getUint32(at, true);
    this.deleted = view.getUint8(at + 4) === changeKind.delete;
    this.keyAt = at + changeHeadBytes;
    this.valueAt = this.keyAt + view.getUint16(at + 6, true);
    this.end = this.valueAt + view.getUint32(at + 8, true);
    return true;
  }
}

/** All changes of a frame at once, as views. */
export function readWatchChanges(frame: WatchChanges): KvChange[] {
  const { changes } = frame;
  const found: KvChange[] = [];
  const reader = new WatchChangeReader(frame);
  while (reader.next()) {
    const { revision, keyAt, valueAt, end } = reader;
    const value = reader.deleted ? undefined : changes.subarray(valueAt, end);
    found.push({ revision, key: changes.subarray(keyAt, valueAt), value });
  }
  return found;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

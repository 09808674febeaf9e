/**
 * Messages between a client and a node as frames. Encoders take plain values and views, so that neither side builds objects to send.
 *
 *     write         0 request u64 | 8 group u32 | 12 timeoutMs u32 | body: one section, verbatim
 *     writeReply    0 request u64 | 8 firstIndex u64 | 16 body crc u32 | body: results (section-results.ts)
 *     read          0 request u64 | 8 group u32 | 12 timeoutMs u32 | 16 consistency u32 | 20 maxStalenessMs u32 | 24 count u32
 *                   28 body crc u32 | body: count × (length u32, query)
 *     readReply     0 request u64 | 8 appliedIndex u64 | 16 count u32 | 20 body crc u32 | body: count × (code u32, length u32, answer)
 *     errorReply    0 request u64 | 8 error u32 | 12 outcome u8 | 13 zero u8 | 14 hint length u16 | 16 leader hint, message: UTF-8
 *     control       0 request u64 | 8 msgpack map {operation, body}
 *     controlReply  0 request u64 | 8 msgpack value
 *     ping, pong    0 nonce u64
 *
 * Where no body is named, all is fields and covered by the frame's crc. The hello and its reply are in hello.ts.
 */
import { crc32 } from "node:zlib";
import { readSafe, writeSafe } from "./batch.ts";
import { isRecord, packControl, unpackControl } from "./control-codec.ts";
import {
  type ClientRequest,
  Consistency,
  type ErrorReply,
  FrameType,
  type ServerReply,
} from "./messages.ts";
import { wholeSection } from "./section.ts";
import { bodyDirectBytes, type SendBuffer } from "./send-buffer.ts";

const writeFieldsBytes = 16;
const writeReplyFieldsBytes = 20;
const readFieldsBytes = 32;
const readReplyFieldsBytes = 24;
const errorReplyFixedBytes = 16;
const controlFixedBytes = 8;
const pingFieldsBytes = 8;

/** Before each query: its length. */
export const queryHeadBytes = 4;
/** Before each answer: its code and its length. */
export const answerHeadBytes = 8;

export const controlRequestBytesMax = 64 * 1024;
export const controlReplyBytesMax = 1024 * 1024;
export const operationCharactersMax = 64;
const errorMessageBytesMax = 4 * 1024;
const leaderHintBytesMax = 256;

const outcomes: readonly ErrorReply["outcome"][] = ["applied", "not-applied", "unknown"];

/* ------------------------------------------------------------------ client to node */

/** `section` may be sent from where it lies: it must not change until it is sent. */
export function encodeWrite(
  out: SendBuffer,
  request: number,
  group: number,
  timeoutMs: number,
  section: Uint8Array,
): void {
  const at = out.begin(FrameType.write, writeFieldsBytes);
  writeSafe(out.view, at, request);
  out.view.setUint32(at + 8, group, true);
  out.view.setUint32(at + 12, timeoutMs, true);
  out.attach(section);
  out.end();
}

/** `queries`: `count` × (length u32, query). It may be sent from where it lies: it must not change until it is sent. */
export function encodeRead(
  out: SendBuffer,
  request: number,
  group: number,
  timeoutMs: number,
  consistency: Consistency,
  maxStalenessMs: number,
  count: number,
  queries: Uint8Array,
): void {
  const at = out.begin(FrameType.read, readFieldsBytes);
  const view = out.view;
  writeSafe(view, at, request);
  view.setUint32(at + 8, group, true);
  view.setUint32(at + 12, timeoutMs, true);
  view.setUint32(at + 16, consistency, true);
  view.setUint32(at + 20, maxStalenessMs, true);
  view.setUint32(at + 24, count, true);
  view.setUint32(at + 28, crc32(queries), true);
  out.attach(queries);
  out.end();
}

/** Throws a RangeError where `body` is over `controlRequestBytesMax`. */
export function encodeControl(
  out: SendBuffer,
  request: number,
  operation: string,
  body: unknown,
): void {
  const packed = packControl({ operation, body });
  encodePacked(out, FrameType.control, request, packed, controlRequestBytesMax);
}

export function encodePing(out: SendBuffer, nonce: number): void {
  const at = out.begin(FrameType.ping, pingFieldsBytes);
  writeSafe(out.view, at, nonce);
  out.end();
}

/* ------------------------------------------------------------------ node to client */

/** `results` is copied: it may be a view that is valid during the call only. */
export function encodeWriteReply(
  out: SendBuffer,
  request: number,
  firstIndex: number,
  results: Uint8Array,
): void {
  const at = out.begin(FrameType.writeReply, writeReplyFieldsBytes);
  writeSafe(out.view, at, request);
  writeSafe(out.view, at + 8, firstIndex);
  out.view.setUint32(at + 16, results.byteLength === 0 ? 0 : crc32(results), true);
  if (results.byteLength > 0) out.append(results);
  out.end();
}

/**
 * Writes a read reply answer by answer, straight into the send buffer. One writer serves one reply after the other; between `begin` and
 * `end` nothing else may be written to that buffer.
 */
export class ReadReplyWriter {
  #out: SendBuffer | undefined;
  #count = 0;

  begin(out: SendBuffer, request: number, appliedIndex: number): void {
    const at = out.begin(FrameType.readReply, readReplyFieldsBytes);
    writeSafe(out.view, at, request);
    writeSafe(out.view, at + 8, appliedIndex);
    this.#out = out;
    this.#count = 0;
  }

  /** `bytes` is copied: a large answer into memory of its own, that goes as soon as it is sent. */
  answer(code: number, bytes: Uint8Array | undefined): void {
    const out = this.#building();
    const at = out.reserve(answerHeadBytes);
    out.view.setUint32(at, code, true);
    out.view.setUint32(at + 4, bytes === undefined ? 0 : bytes.byteLength, true);
    if (bytes !== undefined && bytes.byteLength > bodyDirectBytes) out.attach(bytes.slice());
    else if (bytes !== undefined) out.append(bytes);
    this.#count++;
  }

  /** Bytes of the answers so far, to bound the reply. */
  get bodyBytes(): number {
    return this.#building().bodyBytes;
  }

  end(): void {
    const out = this.#building();
    const at = out.fieldsAt;
    out.view.setUint32(at + 16, this.#count, true);
    out.view.setUint32(at + 20, out.bodyCrc(), true);
    out.end();
    this.#out = undefined;
  }

  /** Takes the reply back, so that an error can be sent instead. */
  abandon(): void {
    this.#building().abandon();
    this.#out = undefined;
  }

  #building(): SendBuffer {
    if (this.#out === undefined) throw new Error("read reply: not begun");
    return this.#out;
  }
}

/** A message or hint over its bound is cut. */
export function encodeErrorReply(
  out: SendBuffer,
  request: number,
  error: number,
  outcome: ErrorReply["outcome"],
  message: string,
  leaderHint: string,
): void {
  const hint = utf8(leaderHint, leaderHintBytesMax);
  const text = utf8(message, errorMessageBytesMax);
  const at = out.begin(
    FrameType.errorReply,
    errorReplyFixedBytes + hint.byteLength + text.byteLength,
  );
  const view = out.view;
  writeSafe(view, at, request);
  view.setUint32(at + 8, error, true);
  view.setUint8(at + 12, outcomes.indexOf(outcome));
  view.setUint8(at + 13, 0);
  view.setUint16(at + 14, hint.byteLength, true);
  out.setFields(errorReplyFixedBytes, hint);
  out.setFields(errorReplyFixedBytes + hint.byteLength, text);
  out.end();
}

/** Throws a RangeError where `body` is over `controlReplyBytesMax`. */
export function encodeControlReply(out: SendBuffer, request: number, body: unknown): void {
  const packed = packControl(body);
  encodePacked(out, FrameType.controlReply, request, packed, controlReplyBytesMax);
}

export function encodePong(out: SendBuffer, nonce: number): void {
  const at = out.begin(FrameType.pong, pingFieldsBytes);
  writeSafe(out.view, at, nonce);
  out.end();
}

function encodePacked(
  out: SendBuffer,
  type: FrameType,
  request: number,
  packed: Uint8Array,
  bytesMax: number,
): void {
  if (packed.byteLength > bytesMax) {
    throw new RangeError(`control message of ${packed.byteLength} bytes; at most ${bytesMax}`);
  }
  const at = out.begin(type, controlFixedBytes + packed.byteLength);
  writeSafe(out.view, at, request);
  out.setFields(controlFixedBytes, packed);
  out.end();
}

/* ------------------------------------------------------------------ reading */

/**
 * Reads a client's request; undefined where it is malformed. Sections and queries are views into `payload`, their crc and layout checked.
 */
export function decodeClientRequest(
  type: number,
  payload: Uint8Array,
  fieldsBytes: number,
): ClientRequest | undefined {
  switch (type) {
    case FrameType.write:
      return decodeWrite(payload, fieldsBytes);
    case FrameType.read:
      return decodeRead(payload, fieldsBytes);
    case FrameType.control:
      return decodeControl(payload, fieldsBytes);
    default:
      return undefined;
  }
}

/** The number of a request that is refused unread; undefined where there is none. */
export function requestOf(payload: Uint8Array, fieldsBytes: number): number | undefined {
  if (fieldsBytes < controlFixedBytes || payload.byteLength < fieldsBytes) return undefined;
  const request = readSafe(viewOf(payload), 0);
  return request >= 0 ? request : undefined;
}

/** The group of a `write` that is not decoded; undefined where there is none. */
export function groupOfWrite(payload: Uint8Array, fieldsBytes: number): number | undefined {
  if (fieldsBytes !== writeFieldsBytes || payload.byteLength < fieldsBytes) return undefined;
  return viewOf(payload).getUint32(8, true);
}

/** Reads a node's reply; undefined where it is malformed. Results and answers are views into `payload`, their crc checked. */
export function decodeServerReply(
  type: number,
  payload: Uint8Array,
  fieldsBytes: number,
): ServerReply | undefined {
  switch (type) {
    case FrameType.writeReply:
      return decodeWriteReply(payload, fieldsBytes);
    case FrameType.readReply:
      return decodeReadReply(payload, fieldsBytes);
    case FrameType.errorReply:
      return decodeErrorReply(payload, fieldsBytes);
    case FrameType.controlReply:
      return decodeControlReply(payload, fieldsBytes);
    default:
      return undefined;
  }
}

/** The nonce of a ping or pong; undefined where it is malformed. */
export function decodePing(payload: Uint8Array, fieldsBytes: number): number | undefined {
  if (fieldsBytes !== pingFieldsBytes || payload.byteLength !== fieldsBytes) return undefined;
  const nonce = readSafe(viewOf(payload), 0);
  return nonce >= 0 ? nonce : undefined;
}

function decodeWrite(payload: Uint8Array, fieldsBytes: number): ClientRequest | undefined {
  if (fieldsBytes !== writeFieldsBytes || payload.byteLength < fieldsBytes) return undefined;
  const view = viewOf(payload);
  const request = readSafe(view, 0);
  const section = payload.subarray(fieldsBytes);
  if (!(request >= 0) || !wholeSection(section)) return undefined;
  const group = view.getUint32(8, true);
  const timeoutMs = view.getUint32(12, true);
  return { type: "write", request, group, timeoutMs, section };
}

function decodeRead(payload: Uint8Array, fieldsBytes: number): ClientRequest | undefined {
  if (fieldsBytes !== readFieldsBytes || payload.byteLength < fieldsBytes) return undefined;
  const view = viewOf(payload);
  const request = readSafe(view, 0);
  const consistency = view.getUint32(16, true);
  const count = view.getUint32(24, true);
  const queries = payload.subarray(fieldsBytes);
  const wellFormed =
    request >= 0 &&
    consistency <= Consistency.local &&
    count >= 1 &&
    crc32(queries) === view.getUint32(28, true) &&
    holdsExactly(view, fieldsBytes, count, queryHeadBytes);
  if (!wellFormed) return undefined;
  return {
    type: "read",
    request,
    group: view.getUint32(8, true),
    timeoutMs: view.getUint32(12, true),
    consistency: consistency as Consistency,
    maxStalenessMs: view.getUint32(20, true),
    count,
    queries,
  };
}

function decodeControl(payload: Uint8Array, fieldsBytes: number): ClientRequest | undefined {
  if (fieldsBytes < controlFixedBytes || payload.byteLength !== fieldsBytes) return undefined;
  if (fieldsBytes > controlFixedBytes + controlRequestBytesMax) return undefined;
  const request = readSafe(viewOf(payload), 0);
  const map = unpackControl(payload.subarray(controlFixedBytes));
  if (!(request >= 0) || !isRecord(map)) return undefined;
  const operation = map["operation"];
  if (typeof operation !== "string" || operation.length > operationCharactersMax) return undefined;
  return { type: "control", request, operation, body: map["body"] };
}

function decodeWriteReply(payload: Uint8Array, fieldsBytes: number): ServerReply | undefined {
  if (fieldsBytes !== writeReplyFieldsBytes || payload.byteLength < fieldsBytes) return undefined;
  const view = viewOf(payload);
  const request = readSafe(view, 0);
  const firstIndex = readSafe(view, 8);
  const results = payload.subarray(fieldsBytes);
  if (!(request >= 0) || !(firstIndex >= 0)) return undefined;
  const crc = results.byteLength === 0 ? 0 : crc32(results);
  if (crc !== view.getUint32(16, true)) return undefined;
  return { type: "writeReply", request, firstIndex, results };
}

function decodeReadReply(payload: Uint8Array, fieldsBytes: number): ServerReply | undefined {
  if (fieldsBytes !== readReplyFieldsBytes || payload.byteLength < fieldsBytes) return undefined;
  const view = viewOf(payload);
  const request = readSafe(view, 0);
  const appliedIndex = readSafe(view, 8);
  const count = view.getUint32(16, true);
  const answers = payload.subarray(fieldsBytes);
  const wellFormed =
    request >= 0 &&
    appliedIndex >= 0 &&
    crc32(answers) === view.getUint32(20, true) &&
    holdsExactly(view, fieldsBytes, count, answerHeadBytes);
  return wellFormed ? { type: "readReply", request, appliedIndex, count, answers } : undefined;
}

function decodeErrorReply(payload: Uint8Array, fieldsBytes: number): ServerReply | undefined {
  if (fieldsBytes < errorReplyFixedBytes || payload.byteLength !== fieldsBytes) return undefined;
  const view = viewOf(payload);
  const request = readSafe(view, 0);
  const outcome = outcomes[view.getUint8(12)];
  const hintBytes = view.getUint16(14, true);
  const messageAt = errorReplyFixedBytes + hintBytes;
  const wellFormed =
    request >= 0 &&
    outcome !== undefined &&
    view.getUint8(13) === 0 &&
    hintBytes <= leaderHintBytesMax &&
    messageAt <= fieldsBytes &&
    fieldsBytes - messageAt <= errorMessageBytesMax;
  if (!wellFormed) return undefined;
  return {
    type: "errorReply",
    request,
    error: view.getUint32(8, true),
    outcome,
    message: decoder.decode(payload.subarray(messageAt)),
    leaderHint: decoder.decode(payload.subarray(errorReplyFixedBytes, messageAt)),
  };
}

function decodeControlReply(payload: Uint8Array, fieldsBytes: number): ServerReply | undefined {
  if (fieldsBytes < controlFixedBytes || payload.byteLength !== fieldsBytes) return undefined;
  if (fieldsBytes > controlFixedBytes + controlReplyBytesMax) return undefined;
  const request = readSafe(viewOf(payload), 0);
  const body = unpackControl(payload.subarray(controlFixedBytes));
  if (!(request >= 0) || body === undefined) return undefined;
  return { type: "controlReply", request, body };
}

/** True when from `start` to the end lie exactly `count` pieces: a head whose last four bytes are the length, then so many bytes. */
function holdsExactly(view: DataView, start: number, count: number, headBytes: number): boolean {
  const end = view.byteLength;
  let at = start;
  for (let i = 0; i < count; i++) {
    if (end - at < headBytes) return false;
    at += headBytes;
    const length = view.getUint32(at - 4, true);
    if (length > end - at) return false;
    at += length;
  }
  return at === end;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** UTF-8 of `text`, cut between two characters where it is longer than `bytesMax`. */
function utf8(text: string, bytesMax: number): Uint8Array {
  const bytes = encoder.encode(text);
  if (bytes.byteLength <= bytesMax) return bytes;
  let end = bytesMax;
  while ((bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

function viewOf(payload: Uint8Array): DataView {
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
}

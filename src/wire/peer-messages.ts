/**
 * Messages between nodes as frames. Every message between cores begins with the same 24 bytes; `flag` is transfer, granted, accepted, preferred
 * or ok; of an appendReply, 2 is added for wounded.
 *
 *     all of them        0 group u32 | 4 from u32 | 8 to u32 | 12 flag u32 | 16 term u64
 *     preVote, vote      24 lastIndex u64 | 32 lastTerm u64
 *     their replies      -
 *     append             24 prevIndex u64 | 32 prevTerm u64 | 40 commit u64 | 48 prevCrc u32 | 52 batch count u32 | body: batches, verbatim
 *     appendReply        24 index u64 | 32 hintIndex u64 | 40 hintTerm u64
 *     heartbeat          24 commit u64 | 32 readSeq u64 | 40 minMatch u64 | 48 freshStamp u64
 *     heartbeatReply     24 readSeq u64 | 32 stamp u64
 *     readIndex          24 context u64
 *     readIndexReply     24 context u64 | 32 index u64
 *     timeoutNow         24 lastIndex u64 | 32 lastTerm u64
 *
 *     forward            0 group u32 | 4 from u32 | 8 to u32 | 12 zero u32 | 16 request u64 | body: one section, verbatim
 *     forwardReply       0 group u32 | 4 from u32 | 8 to u32 | 12 error u32 | 16 request u64 | 24 firstIndex u64 | 32 term u64
 *
 * What is decoded has been checked as far as bytes alone allow it, so that the core may trust shape and numbers, though not the intent.
 */
import { decodeAdminMessage, encodeAdminMessage } from "./admin-messages.ts";
import {
  type Batch,
  batchHeaderBytes,
  batchIntact,
  BatchKind,
  lastIndexOf,
  readBatch,
  readSafe,
  writeSafe,
} from "./batch.ts";
import { decodeBeat, encodeBeat } from "./beat-message.ts";
import { type AppendMessage, FrameType, type PeerMessage } from "./messages.ts";
import { wholeSection } from "./section.ts";
import type { SendBuffer } from "./send-buffer.ts";
import {
  decodeSnapshotMessage,
  encodeSnapshotMessage,
  type SnapshotMessage,
} from "./snapshot-messages.ts";

/** All but those of admin-messages.ts, beat-message.ts and snapshot-messages.ts. */
type FixedType = Exclude<
  PeerMessage["type"],
  "adminRequest" | "adminReply" | "beat" | SnapshotMessage["type"]
>;

/** Fields of each message, in bytes: exact, as a changed layout is a changed version. */
const fieldsBytesOf = {
  preVote: 40,
  preVoteReply: 24,
  vote: 40,
  voteReply: 24,
  append: 56,
  appendReply: 48,
  heartbeat: 56,
  heartbeatReply: 40,
  readIndex: 32,
  readIndexReply: 40,
  timeoutNow: 40,
  forward: 24,
  forwardReply: 40,
} as const satisfies Record<FixedType, number>;

/** Those whose `flag` says something. */
const flagged: ReadonlySet<PeerMessage["type"]> = new Set<PeerMessage["type"]>([
  "vote",
  "preVoteReply",
  "voteReply",
  "appendReply",
  "heartbeatReply",
  "readIndexReply",
]);

const snapshotTypes: ReadonlyMap<number, SnapshotMessage["type"]> = new Map([
  [FrameType.snapshotOffer, "snapshotOffer"],
  [FrameType.snapshotChunk, "snapshotChunk"],
  [FrameType.snapshotReply, "snapshotReply"],
]);

const noBatches: readonly Batch[] = [];

/** Writes one message as a frame. For an append, `batches` must span [fromIndex, toIndex]; they are not to be changed any more. */
export function encodePeerMessage(
  out: SendBuffer,
  message: PeerMessage,
  batches?: readonly Batch[],
): void {
  const type = message.type;
  if (type === "append") return encodeAppend(out, message, batches ?? message.batches);
  if (type === "adminRequest" || type === "adminReply") return encodeAdminMessage(out, message);
  if (type === "snapshotOffer" || type === "snapshotChunk" || type === "snapshotReply") {
    return encodeSnapshotMessage(out, message);
  }
  if (type === "beat") return encodeBeat(out, message);
  const at = out.begin(FrameType[type], fieldsBytesOf[type]);
  const view = out.view;
  view.setUint32(at, message.group, true);
  view.setUint32(at + 4, message.from, true);
  view.setUint32(at + 8, message.to, true);
  switch (type) {
    case "forward":
      view.setUint32(at + 12, 0, true);
      writeSafe(view, at + 16, message.request);
      out.attach(message.section);
      break;
    case "forwardReply":
      view.setUint32(at + 12, message.error, true);
      writeSafe(view, at + 16, message.request);
      writeSafe(view, at + 24, message.firstIndex);
      writeSafe(view, at + 32, message.term);
      break;
    case "preVote":
    case "vote":
      writeFlagAndTerm(view, at, message.transfer, message.term);
      writeSafe(view, at + 24, message.lastIndex);
      writeSafe(view, at + 32, message.lastTerm);
      break;
    case "timeoutNow":
      writeFlagAndTerm(view, at, false, message.term);
      writeSafe(view, at + 24, message.lastIndex);
      writeSafe(view, at + 32, message.lastTerm);
      break;
    case "preVoteReply":
    case "voteReply":
      writeFlagAndTerm(view, at, message.granted, message.term);
      break;
    case "appendReply":
      writeFlagAndTerm(view, at, message.accepted, message.term);
      if (message.wounded) view.setUint32(at + 12, (message.accepted ? 1 : 0) + 2, true);
      writeSafe(view, at + 24, message.index);
      writeSafe(view, at + 32, message.hintIndex);
      writeSafe(view, at + 40, message.hintTerm);
      break;
    case "heartbeat":
      writeFlagAndTerm(view, at, false, message.term);
      writeSafe(view, at + 24, message.commit);
      writeSafe(view, at + 32, message.readSeq);
      writeSafe(view, at + 40, message.minMatch);
      writeSafe(view, at + 48, message.freshStamp);
      break;
    case "heartbeatReply":
      writeFlagAndTerm(view, at, message.preferred, message.term);
      writeSafe(view, at + 24, message.readSeq);
      writeSafe(view, at + 32, message.stamp);
      break;
    case "readIndex":
      writeFlagAndTerm(view, at, false, message.term);
      writeSafe(view, at + 24, message.context);
      break;
    case "readIndexReply":
      writeFlagAndTerm(view, at, message.ok, message.term);
      writeSafe(view, at + 24, message.context);
      writeSafe(view, at + 32, message.index);
      break;
  }
  out.end();
}

function encodeAppend(out: SendBuffer, message: AppendMessage, given: readonly Batch[]): void {
  const batches = message.fromIndex > message.toIndex ? noBatches : given;
  if (batches !== noBatches) {
    const spans =
      batches[0]?.firstIndex === message.fromIndex &&
      lastIndexOf(batches[batches.length - 1]!) === message.toIndex;
    if (!spans) {
      throw new Error(`append: batches do not span ${message.fromIndex} to ${message.toIndex}`);
    }
  }
  const at = out.begin(FrameType.append, fieldsBytesOf.append);
  const view = out.view;
  view.setUint32(at, message.group, true);
  view.setUint32(at + 4, message.from, true);
  view.setUint32(at + 8, message.to, true);
  writeFlagAndTerm(view, at, false, message.term);
  writeSafe(view, at + 24, message.prevIndex);
  writeSafe(view, at + 32, message.prevTerm);
  writeSafe(view, at + 40, message.commit);
  view.setUint32(at + 48, message.prevCrc, true);
  view.setUint32(at + 52, batches.length, true);
  for (const batch of batches) out.attach(batch.bytes);
  out.end();
}

function writeFlagAndTerm(view: DataView, at: number, flag: boolean, term: number): void {
  view.setUint32(at + 12, flag ? 1 : 0, true);
  writeSafe(view, at + 16, term);
}

/** Reads one frame; undefined where it is malformed. Sections and batches in the result are views into `payload`, crc checked. */
export function decodePeerMessage(
  type: number,
  payload: Uint8Array,
  fieldsBytes: number,
): PeerMessage | undefined {
  if (type === FrameType.adminRequest || type === FrameType.adminReply) {
    return decodeAdminMessage(type, payload, fieldsBytes);
  }
  if (type === FrameType.beat) return decodeBeat(payload, fieldsBytes);
  const ofSnapshot = snapshotTypes.get(type);
  if (ofSnapshot !== undefined) return decodeSnapshotMessage(ofSnapshot, payload, fieldsBytes);
  const name = nameOf(type);
  if (name === undefined || fieldsBytes !== fieldsBytesOf[name]) return undefined;
  if (payload.byteLength < fieldsBytes) return undefined;
  const hasBody = name === "append" || name === "forward";
  if (!hasBody && payload.byteLength !== fieldsBytes) return undefined;

  const view = new DataView(payload.buffer, payload.byteOffset, fieldsBytes);
  const group = view.getUint32(0, true);
  const from = view.getUint32(4, true);
  const to = view.getUint32(8, true);
  if (from === 0 || to === 0) return undefined;
  /** The u64 at `offset`; one that is not a safe integer is remembered, so that the message is refused below. */
  let safe = true;
  const number = (offset: number): number => {
    const value = readSafe(view, offset);
    safe &&= value >= 0;
    return value;
  };
  const checked = (message: PeerMessage): PeerMessage | undefined => (safe ? message : undefined);

  if (name === "forward") {
    const section = payload.subarray(fieldsBytes);
    if (view.getUint32(12, true) !== 0 || !wholeSection(section)) return undefined;
    return checked({ type: name, group, from, to, request: number(16), section });
  }
  if (name === "forwardReply") {
    const error = view.getUint32(12, true);
    const request = number(16);
    return checked({
      type: name,
      group,
      from,
      to,
      request,
      error,
      firstIndex: number(24),
      term: number(32),
    });
  }

  const flag = view.getUint32(12, true);
  const flagMax = name === "appendReply" ? 3 : flagged.has(name) ? 1 : 0;
  if (flag > flagMax) return undefined;
  const term = number(16);
  switch (name) {
    case "preVote":
    case "vote": {
      const lastIndex = number(24);
      const transfer = flag === 1;
      return checked({
        type: name,
        group,
        from,
        to,
        term,
        transfer,
        lastIndex,
        lastTerm: number(32),
      });
    }
    case "timeoutNow": {
      const lastIndex = number(24);
      return checked({ type: name, group, from, to, term, lastIndex, lastTerm: number(32) });
    }
    case "preVoteReply":
    case "voteReply":
      return checked({ type: name, group, from, to, term, granted: flag === 1 });
    case "append": {
      const prevIndex = number(24);
      const prevTerm = number(32);
      const commit = number(40);
      const prevCrc = view.getUint32(48, true);
      const batchCount = view.getUint32(52, true);
      const at = { group, term, prevIndex, prevTerm, prevCrc, batchCount };
      const batches = safe ? decodeBatches(payload, fieldsBytes, at) : undefined;
      if (batches === undefined) return undefined;
      const last = batches[batches.length - 1];
      return {
        type: name,
        group,
        from,
        to,
        term,
        prevIndex,
        prevTerm,
        prevCrc,
        commit,
        fromIndex: prevIndex + 1,
        toIndex: last === undefined ? prevIndex : lastIndexOf(last),
        batches,
      };
    }
    case "appendReply": {
      const index = number(24);
      const hintIndex = number(32);
      const hintTerm = number(40);
      const accepted = (flag & 1) !== 0;
      const wounded = (flag & 2) !== 0;
      return checked({
        type: name,
        group,
        from,
        to,
        term,
        accepted,
        index,
        hintIndex,
        hintTerm,
        wounded,
      });
    }
    case "heartbeat": {
      const commit = number(24);
      const readSeq = number(32);
      const minMatch = number(40);
      const freshStamp = number(48);
      return checked({
        type: name,
        group,
        from,
        to,
        term,
        commit,
        readSeq,
        minMatch,
        freshStamp,
      });
    }
    case "heartbeatReply": {
      const readSeq = number(24);
      const preferred = flag === 1;
      return checked({
        type: name,
        group,
        from,
        to,
        term,
        readSeq,
        stamp: number(32),
        preferred,
      });
    }
    case "readIndex":
      return checked({ type: name, group, from, to, term, context: number(24) });
    case "readIndexReply": {
      const context = number(24);
      const ok = flag === 1;
      return checked({ type: name, group, from, to, term, context, index: number(32), ok });
    }
  }
}

interface AppendHead {
  readonly group: number;
  readonly term: number;
  readonly prevIndex: number;
  readonly prevTerm: number;
  readonly prevCrc: number;
  readonly batchCount: number;
}

/** The batches behind the fields: exactly as many as announced, a chain that goes on from prev, each one intact. */
function decodeBatches(payload: Uint8Array, start: number, head: AppendHead): Batch[] | undefined {
  const batches: Batch[] = [];
  let nextIndex = head.prevIndex + 1;
  let term = head.prevTerm;
  let crc = head.prevCrc;
  if (!Number.isSafeInteger(nextIndex)) return undefined;
  let at = start;
  while (at < payload.byteLength) {
    const batch = readBatch(payload, at);
    if (batch === undefined || batches.length === head.batchCount) return undefined;
    const follows =
      batch.group === head.group &&
      batch.firstIndex === nextIndex &&
      batch.prevCrc === crc &&
      batch.term >= term &&
      batch.term <= head.term;
    if (!follows || !isDense(batch) || !batchIntact(batch)) return undefined;
    batches.push(batch);
    nextIndex += batch.count;
    term = batch.term;
    crc = batch.crc;
    at += batch.bytes.byteLength;
  }
  return batches.length === head.batchCount ? batches : undefined;
}

/** Each command takes four bytes and more [9]: whoever claims more of them would lead indexes to where numbers end. */
function isDense({ kind, count, bytes }: Batch): boolean {
  return kind !== BatchKind.commands || count * 4 <= bytes.byteLength - batchHeaderBytes;
}

const names = new Map<number, FixedType>();
for (const name of Object.keys(fieldsBytesOf) as FixedType[]) {
  names.set(FrameType[name], name);
}

function nameOf(type: number): FixedType | undefined {
  return names.get(type);
}

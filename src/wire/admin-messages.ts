/**
 * Administration between nodes as frames: a request on its way to the leader, and the answer. What is in them is admin.ts.
 *
 *     adminRequest  0 group u32 | 4 from u32 | 8 to u32 | 12 timeoutMs u32 | 16 request u64 | 24 msgpack map {operation, body}
 *     adminReply    0 group u32 | 4 from u32 | 8 to u32 | 12 error u32     | 16 request u64 | 24 msgpack map {body} or {outcome, message}
 */
import { readSafe, writeSafe } from "./batch.ts";
import {
  controlReplyBytesMax,
  controlRequestBytesMax,
  operationCharactersMax,
} from "./client-messages.ts";
import { isRecord, packControl, unpackControl } from "./control-codec.ts";
import { type AdminReplyMessage, type AdminRequestMessage, FrameType } from "./messages.ts";
import type { SendBuffer } from "./send-buffer.ts";

type AdminMessage = AdminRequestMessage | AdminReplyMessage;

const fixedBytes = 24;
const messageCharactersMax = 4_096;
const outcomes: readonly AdminReplyMessage["outcome"][] = ["applied", "not-applied", "unknown"];

/** Throws a RangeError where the body is over the bound of a control message. */
export function encodeAdminMessage(out: SendBuffer, message: AdminMessage): void {
  const asks = message.type === "adminRequest";
  const packed = packControl(mapOf(message));
  const bytesMax = asks ? controlRequestBytesMax : controlReplyBytesMax;
  if (packed.byteLength > bytesMax) {
    throw new RangeError(`control message of ${packed.byteLength} bytes; at most ${bytesMax}`);
  }
  const at = out.begin(FrameType[message.type], fixedBytes + packed.byteLength);
  const { view } = out;
  view.setUint32(at, message.group, true);
  view.setUint32(at + 4, message.from, true);
  view.setUint32(at + 8, message.to, true);
  view.setUint32(at + 12, asks ? message.timeoutMs : message.error, true);
  writeSafe(view, at + 16, message.request);
  out.setFields(fixedBytes, packed);
  out.end();
}

function mapOf(message: AdminMessage): object {
  if (message.type === "adminRequest") {
    return { operation: message.operation, body: message.body };
  }
  const { error, outcome, body } = message;
  return error === 0
    ? { body }
    : { outcome, message: message.message.slice(0, messageCharactersMax) };
}

/** Undefined where the payload is malformed. The body's own shape is for admin.ts to check. */
export function decodeAdminMessage(
  type: number,
  payload: Uint8Array,
  fieldsBytes: number,
): AdminMessage | undefined {
  const asks = type === FrameType.adminRequest;
  const bytesMax = fixedBytes + (asks ? controlRequestBytesMax : controlReplyBytesMax);
  if (payload.byteLength !== fieldsBytes) return undefined;
  if (fieldsBytes < fixedBytes || fieldsBytes > bytesMax) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, fixedBytes);
  const head = {
    group: view.getUint32(0, true),
    from: view.getUint32(4, true),
    to: view.getUint32(8, true),
    request: readSafe(view, 16),
  };
  const number = view.getUint32(12, true);
  const map = unpackControl(payload.subarray(fixedBytes));
  if (head.from === 0 || head.to === 0 || !(head.request >= 0) || !isRecord(map)) return undefined;
  return asks ? requestOf(head, number, map) : replyOf(head, number, map);
}

type Head = Pick<AdminMessage, "group" | "from" | "to" | "request">;

function requestOf(
  head: Head,
  timeoutMs: number,
  { operation, body }: Record<string, unknown>,
): AdminRequestMessage | undefined {
  if (typeof operation !== "string" || operation.length > operationCharactersMax) return undefined;
  return { type: "adminRequest", ...head, timeoutMs, operation, body };
}

function replyOf(
  head: Head,
  error: number,
  map: Record<string, unknown>,
): AdminReplyMessage | undefined {
  const reply = { type: "adminReply" as const, ...head, error };
  if (error === 0) return { ...reply, outcome: "applied", message: "", body: map["body"] };
  const outcome = outcomes.find((each) => each === map["outcome"]);
  const { message } = map;
  if (outcome === undefined || typeof message !== "string") return undefined;
  if (message.length > messageCharactersMax) return undefined;
  return { ...reply, outcome, message, body: undefined };
}

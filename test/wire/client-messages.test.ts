/** Checks on clients' and servers' messages beyond the round trip. */
import { expect, test } from "bun:test";
import {
  controlReplyBytesMax,
  controlRequestBytesMax,
  decodeClientRequest,
  decodeServerReply,
  encodeControl,
  encodeControlReply,
  encodeErrorReply,
  encodeWriteReply,
  ReadReplyWriter,
} from "../../src/wire/client-messages.ts";
import { type ErrorReply, FrameType, type ReadRequest } from "../../src/wire/messages.ts";
import { plainSection } from "../../src/wire/section.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { bytesOf, concat, drain, framesOf } from "./messages.ts";

const section = plainSection([new Uint8Array(3), new Uint8Array(0), new Uint8Array(10)]);

test("a written section must be exactly one, well formed and intact", () => {
  const write = { type: "write" as const, request: 1, group: 0, timeoutMs: 10, section };
  const [frame] = framesOf(bytesOf(write));
  const { payload, fieldsBytes } = frame!;
  const decode = (bytes: Uint8Array) => decodeClientRequest(FrameType.write, bytes, fieldsBytes);
  expect(decode(payload)).toEqual(write);
  for (let end = 0; end < payload.byteLength; end++) {
    expect(decode(payload.slice(0, end))).toBeUndefined();
  }
  expect(decode(concat([payload, section]))).toBeUndefined();
  expect(decode(concat([payload, new Uint8Array(1)]))).toBeUndefined();
  for (let at = fieldsBytes; at < payload.byteLength; at++) {
    const bytes = payload.slice();
    bytes[at]! ^= 1;
    expect(decode(bytes)).toBeUndefined();
  }
});

function read(count: number, queries: Uint8Array): ReadRequest {
  const consistency = 2 as const;
  return {
    type: "read",
    request: 1,
    group: 0,
    timeoutMs: 10,
    consistency,
    maxStalenessMs: 0,
    count,
    queries,
  };
}

test("queries fill the body exactly", () => {
  const decode = (request: ReadRequest) => {
    const [frame] = framesOf(bytesOf(request));
    return decodeClientRequest(frame!.type, frame!.payload, frame!.fieldsBytes);
  };
  const one = Uint8Array.of(2, 0, 0, 0, 7, 7);
  expect(decode(read(1, one))).toEqual(read(1, one));
  expect(decode(read(2, concat([one, one])))).toBeDefined();
  for (const [count, queries] of [
    [0, new Uint8Array(0)],
    [2, one],
    [1, concat([one, one])],
    [1, one.subarray(0, 5)],
    [1, one.subarray(0, 3)],
    [0xffff_ffff, one],
    [1, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 1)],
  ] as const) {
    expect(decode(read(count, queries))).toBeUndefined();
  }
  const [frame] = framesOf(bytesOf(read(1, one)));
  for (const at of [28, 32, 36, 37]) {
    const bytes = frame!.payload.slice();
    bytes[at]! ^= 1;
    expect(decodeClientRequest(frame!.type, bytes, frame!.fieldsBytes)).toBeUndefined();
  }
  const strange = frame!.payload.slice();
  strange[16] = 3;
  expect(decodeClientRequest(frame!.type, strange, frame!.fieldsBytes)).toBeUndefined();
});

test("a read reply is written in place, and can be taken back", () => {
  const out = new SendBuffer();
  const writer = new ReadReplyWriter();
  encodeWriteReply(out, 1, 50, new Uint8Array(0));
  writer.begin(out, 2, 60);
  writer.answer(0, new Uint8Array(200_000).fill(9));
  writer.abandon();
  encodeErrorReply(out, 2, 4, "not-applied", "late", "");
  writer.begin(out, 3, 70);
  for (let i = 0; i < 1_000; i++) writer.answer(i, new Uint8Array(i).fill(i));
  expect(writer.bodyBytes).toBe(1_000 * 8 + (999 * 1_000) / 2);
  writer.end();
  const replies = framesOf(drain(out)).map((frame) =>
    decodeServerReply(frame.type, frame.payload, frame.fieldsBytes),
  );
  expect(replies.map((reply) => [reply?.type, reply?.request])).toEqual([
    ["writeReply", 1],
    ["errorReply", 2],
    ["readReply", 3],
  ]);
  expect(() => writer.end()).toThrow("not begun");
});

test("damaged results and answers are noticed", () => {
  const out = new SendBuffer();
  encodeWriteReply(out, 1, 50, Uint8Array.of(0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0));
  const writer = new ReadReplyWriter();
  writer.begin(out, 3, 70);
  writer.answer(0, new Uint8Array(20));
  writer.end();
  for (const { type, payload, fieldsBytes } of framesOf(drain(out))) {
    expect(decodeServerReply(type, payload, fieldsBytes)).toBeDefined();
    for (let at = fieldsBytes; at < payload.byteLength; at++) {
      const bytes = payload.slice();
      bytes[at]! ^= 0x80;
      expect(decodeServerReply(type, bytes, fieldsBytes)).toBeUndefined();
    }
  }
});

test("long messages of errors are cut between characters, hints too", () => {
  const out = new SendBuffer();
  encodeErrorReply(out, 1, 6, "unknown", "é€😀".repeat(2_000), "h".repeat(1_000));
  const [frame] = framesOf(drain(out));
  const reply = decodeServerReply(frame!.type, frame!.payload, frame!.fieldsBytes) as ErrorReply;
  expect(reply.leaderHint).toBe("h".repeat(256));
  expect("é€😀".repeat(2_000).startsWith(reply.message)).toBe(true);
  expect(reply.message).not.toContain("\ufffd");
  expect(new TextEncoder().encode(reply.message).byteLength).toBeGreaterThan(4_090);
});

test("control messages are bounded on both sides", () => {
  const out = new SendBuffer();
  expect(() => encodeControl(out, 1, "x", "a".repeat(controlRequestBytesMax))).toThrow(RangeError);
  expect(() => encodeControlReply(out, 1, "a".repeat(controlReplyBytesMax))).toThrow(RangeError);
  expect(out.byteLength).toBe(0);
  encodeControl(out, 1, "x", "a".repeat(controlRequestBytesMax - 100));
  encodeControl(out, 1, "o".repeat(65), null);
  encodeControlReply(out, 1, "a".repeat(controlReplyBytesMax - 100));
  const [fits, longName, reply] = framesOf(drain(out));
  const decode = (frame: typeof fits) =>
    decodeClientRequest(frame!.type, frame!.payload, frame!.fieldsBytes);
  expect(decode(fits)).toBeDefined();
  expect(decode(longName)).toBeUndefined();
  expect(decodeServerReply(reply!.type, reply!.payload, reply!.fieldsBytes)).toBeDefined();
  const long = concat([fits!.payload, new Uint8Array(200)]);
  expect(decodeClientRequest(FrameType.control, long, long.byteLength)).toBeUndefined();
});

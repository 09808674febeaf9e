/** Every message comes back as it went, whatever the chunks; and no bytes do harm. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import {
  type AnyMessage,
  anyMessage,
  bytesOf,
  concat,
  decodeAny,
  drain,
  encodeAny,
  type Frame,
  framesOf,
} from "./messages.ts";
import { FrameType } from "../../src/wire/messages.ts";
import { holds } from "./property.ts";

test("every message comes back equal", () => {
  const types = new Set<string>();
  holds(1_500, anyMessage, (message) => {
    types.add(message.type);
    const frames = framesOf(bytesOf(message));
    expect(frames.length).toBe(1);
    expect(decodeAny(frames[0]!)).toEqual(message);
  });
  // All types were drawn.
  expect([...types].toSorted()).toEqual(Object.keys(FrameType).toSorted());
});

test("many messages in one buffer, bodies by reference from a few bytes on, taken piece by piece", () => {
  const sequence = fc.tuple(fc.array(anyMessage, { maxLength: 20 }), fc.nat(60), fc.nat(200));
  holds(200, sequence, ([messages, directBytesMin, most]) => {
    const out = new SendBuffer(directBytesMin);
    const taken: Uint8Array[] = [];
    for (const message of messages) {
      encodeAny(out, message);
      const chunk = out.chunk()!;
      const some = Math.min(most, chunk.byteLength);
      taken.push(chunk.slice(0, some));
      out.consume(some);
    }
    taken.push(drain(out));
    expect(framesOf(concat(taken)).map(decodeAny)).toEqual(messages);
    expect(out.byteLength).toBe(0);
  });
});

/** Frames that come out when `bytes` arrive cut at `cuts`. */
function readInChunks(bytes: Uint8Array, cuts: readonly number[]): Frame[] {
  const frames: Frame[] = [];
  const reader = new FrameReader(1 << 20, (type, payload, fieldsBytes) =>
    frames.push({ type, payload, fieldsBytes }),
  );
  let at = 0;
  for (const cut of [...cuts, bytes.byteLength]) {
    expect(reader.push(bytes.slice(at, cut))).toBeUndefined();
    at = cut;
  }
  expect(reader.midFrame).toBe(false);
  return frames;
}

test("how a stream is split into chunks does not matter", () => {
  const streams = fc
    .tuple(
      fc.array(anyMessage, { minLength: 1, maxLength: 12 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true })),
    )
    .map(([messages, at]) => {
      const bytes = concat(messages.map(bytesOf));
      const cuts = at.map((x) => Math.floor(x * bytes.byteLength)).sort((a, b) => a - b);
      return { messages, bytes, cuts };
    });
  holds(300, streams, ({ messages, bytes, cuts }) => {
    expect(readInChunks(bytes, cuts).map(decodeAny)).toEqual(messages);
  });
  holds(40, streams, ({ messages, bytes }) => {
    const everyByte = Array.from({ length: bytes.byteLength }, (_, i) => i);
    expect(readInChunks(bytes, everyByte).map(decodeAny)).toEqual(messages);
  });
});

/** Damage in the way of bad memory, bad peers and bad proxies. */
type Damage =
  | { readonly kind: "flip"; readonly at: number; readonly mask: number }
  | { readonly kind: "cut"; readonly at: number; readonly length: number }
  | { readonly kind: "insert"; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: "repeat"; readonly at: number; readonly length: number };

const unit = fc.double({ min: 0, max: 1, noNaN: true });
const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.record({
    kind: fc.constant("flip" as const),
    at: unit,
    mask: fc.integer({ min: 1, max: 255 }),
  }),
  fc.record({
    kind: fc.constant("cut" as const),
    at: unit,
    length: fc.integer({ min: 1, max: 40 }),
  }),
  fc.record({
    kind: fc.constant("insert" as const),
    at: unit,
    bytes: fc.uint8Array({ maxLength: 24 }),
  }),
  fc.record({
    kind: fc.constant("repeat" as const),
    at: unit,
    length: fc.integer({ min: 1, max: 60 }),
  }),
);

function damaged(bytes: Uint8Array, { at: where, ...how }: Damage): Uint8Array {
  const at = Math.min(bytes.byteLength - 1, Math.floor(where * bytes.byteLength));
  const head = bytes.subarray(0, at);
  switch (how.kind) {
    case "flip": {
      const copy = bytes.slice();
      copy[at]! ^= how.mask;
      return copy;
    }
    case "cut":
      return concat([head, bytes.subarray(at + how.length)]);
    case "insert":
      return concat([head, how.bytes, bytes.subarray(at)]);
    case "repeat":
      return concat([head, bytes.subarray(at, at + how.length), bytes.subarray(at)]);
  }
}

/** Reads and decodes whatever comes; returns the messages that were accepted. Fails when more is allotted than arrived, by far. */
function surviveReading(bytes: Uint8Array, frameBytesMax = 1 << 20): AnyMessage[] {
  const accepted: AnyMessage[] = [];
  const reader = new FrameReader(frameBytesMax, (type, payload, fieldsBytes) => {
    expect(fieldsBytes).toBeLessThanOrEqual(payload.byteLength);
    const message = decodeAny({ type, payload, fieldsBytes });
    if (message !== undefined) accepted.push(message);
  });
  reader.push(bytes);
  expect(reader.assemblyBytes).toBeLessThanOrEqual(Math.max(256 * 1024, bytes.byteLength * 4));
  if (reader.error !== undefined) {
    const before = accepted.length;
    reader.push(bytes);
    expect(accepted.length).toBe(before);
  }
  return accepted;
}

test("one damage to a stream never makes another message of it", () => {
  const cases = fc.tuple(fc.array(anyMessage, { minLength: 1, maxLength: 5 }), damage);
  holds(3_000, cases, ([messages, how]) => {
    const bytes = concat(messages.map(bytesOf));
    const accepted = surviveReading(damaged(bytes, how));
    // A repeat or cut along frame boundaries gives whole frames again; what is accepted was sent.
    for (const message of accepted) expect(messages).toContainEqual(message);
  });
});

test("several damages, random bytes and foreign fields neither crash nor hang", () => {
  const cases = fc.tuple(fc.array(anyMessage, { minLength: 1, maxLength: 5 }), fc.array(damage));
  holds(800, cases, ([messages, all]) => {
    let bytes = concat(messages.map(bytesOf));
    for (const how of all) if (bytes.byteLength > 0) bytes = damaged(bytes, how);
    surviveReading(bytes);
  });
  holds(800, fc.uint8Array({ maxLength: 300 }), (bytes) => void surviveReading(bytes));
  // Past the frame's crc, as a wrong or hostile implementation would be: any type, any payload, any count of fields.
  const frame = fc.record({
    type: fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(1, 2, 16, 20, 26, 64, 66, 69)),
    payload: fc.uint8Array({ maxLength: 200 }),
    fieldsBytes: fc.oneof(fc.nat(220), fc.constantFrom(16, 20, 24, 32, 40, 48, 52, 56)),
  });
  holds(4_000, frame, (value) => void decodeAny(value));
});

test("damage behind a right frame crc is refused or gives a message in bounds", () => {
  const cases = fc.tuple(anyMessage, fc.array(damage, { minLength: 1, maxLength: 3 }));
  holds(3_000, cases, ([message, all]) => {
    const frame = framesOf(bytesOf(message))[0]!;
    let payload: Uint8Array = frame.payload;
    for (const how of all) if (payload.byteLength > 0) payload = damaged(payload, how);
    const fieldsBytes =
      frame.fieldsBytes === frame.payload.byteLength ? payload.byteLength : frame.fieldsBytes;
    const got = decodeAny({ type: frame.type, payload, fieldsBytes });
    if (got === undefined) return;
    for (const value of Object.values(got)) {
      if (typeof value === "number") expect(Number.isSafeInteger(value) && value >= 0).toBe(true);
    }
  });
});

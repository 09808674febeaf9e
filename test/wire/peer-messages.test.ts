/** What an append must hold on arrival, and other checks on peers' messages. */
import { expect, test } from "bun:test";
import { type Batch, batchHeaderBytes, BatchKind, sealBatch } from "../../src/wire/batch.ts";
import { type AppendMessage, FrameType, type PeerMessage } from "../../src/wire/messages.ts";
import { decodePeerMessage, encodePeerMessage } from "../../src/wire/peer-messages.ts";
import { plainSection } from "../../src/wire/section.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { append, bytesOf, chain, concat, drain, framesOf } from "./messages.ts";
import { holds } from "./property.ts";

const head = { group: 3, from: 1, to: 2, term: 9 };
const prev = { prevIndex: 10, prevTerm: 7, prevCrc: 0xdead_beef };
const body = { body: new Uint8Array(20), count: 5, kind: BatchKind.commands, termStep: 1 };
const start = { group: 3, index: 10, term: 7, crc: 0xdead_beef };

function message(batches: readonly Batch[]): AppendMessage {
  const toIndex = batches.reduce((index, batch) => index + batch.count, 10);
  return { type: "append", ...head, ...prev, commit: 4, fromIndex: 11, toIndex, batches };
}

/** Decodes an append whose body is `batches`, whether they fit or not. */
function arrive(
  batches: readonly Batch[],
  change?: Partial<AppendMessage>,
): PeerMessage | undefined {
  const probe = { ...message([]), ...change };
  const [frame] = framesOf(bytesOf({ ...probe, fromIndex: 1, toIndex: 0 }));
  const payload = concat([frame!.payload, ...batches.map((batch) => batch.bytes)]);
  new DataView(payload.buffer).setUint32(52, batches.length, true);
  return decodePeerMessage(FrameType.append, payload, frame!.fieldsBytes);
}

function resealed(batch: Batch, change: Partial<Batch>): Batch {
  return sealBatch({ ...batch, ...change }, batch.bytes.slice());
}

const three = chain(start, [body, { ...body, termStep: 0 }, body], 9);
const [a, b, c] = three as [Batch, Batch, Batch];

test("a sound append arrives, its indexes derived, its batches views", () => {
  const got = arrive(three) as AppendMessage;
  expect(got).toEqual(message(three));
  expect([got.fromIndex, got.toIndex]).toEqual([11, 25]);
  expect(got.batches[0]!.bytes.buffer).toBe(got.batches[2]!.bytes.buffer);
  const probe = arrive([]) as AppendMessage;
  expect([probe.fromIndex, probe.toIndex]).toEqual([11, 10]);
});

test("an append whose batches do not continue the log is malformed", () => {
  const cases: [string, readonly Batch[]][] = [
    ["a gap after prev", [b, c]],
    ["a gap within", [a, c]],
    ["twice the same", [a, a]],
    ["of another group", [resealed(a, { group: 4 })]],
    ["wrong index, right chain", [resealed(a, { firstIndex: 12 })]],
    ["not chained to prev", [resealed(a, { prevCrc: 1 })]],
    ["not chained within", [a, resealed(b, { prevCrc: 1 })]],
    ["a term before prev's", [resealed(a, { term: 6 })]],
    ["a falling term", [a, resealed(b, { term: 7 })]],
    ["a term above the sender's", [resealed(a, { term: 10 })]],
    ["more commands than there is room for", [resealed(a, { count: 6 })]],
  ];
  for (const [what, batches] of cases) {
    expect(`${what}: ${arrive(batches) === undefined}`).toBe(`${what}: true`);
  }
  expect(arrive([a], { prevTerm: 8 })).toBeDefined();
  expect(arrive([a], { prevTerm: 9 })).toBeUndefined();
});

test("one flipped bit anywhere in a batch is noticed", () => {
  for (let bit = 0; bit < a.bytes.byteLength * 8; bit++) {
    const bytes = a.bytes.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    expect(arrive([{ ...a, bytes }])).toBeUndefined();
  }
});

test("batches are whole and as many as announced", () => {
  const [frame] = framesOf(bytesOf(message(three)));
  const { payload, fieldsBytes } = frame!;
  const decode = (bytes: Uint8Array) => decodePeerMessage(FrameType.append, bytes, fieldsBytes);
  expect(decode(payload)).toBeDefined();
  for (let end = 0; end < payload.byteLength; end++) {
    expect(decode(payload.slice(0, end))).toBeUndefined();
  }
  expect(decode(concat([payload, new Uint8Array(1)]))).toBeUndefined();
  for (const count of [0, 2, 4, 0xffff_ffff]) {
    const other = payload.slice();
    new DataView(other.buffer).setUint32(52, count, true);
    expect(decode(other)).toBeUndefined();
  }
});

test("an outgoing append takes its batches from the shell, and none as a probe", () => {
  const out = new SendBuffer();
  encodePeerMessage(out, { ...message(three), batches: [] }, three);
  encodePeerMessage(out, { ...message([]), fromIndex: 11, toIndex: 10 }, three);
  const [full, probe] = framesOf(drain(out)).map((frame) =>
    decodePeerMessage(frame.type, frame.payload, frame.fieldsBytes),
  );
  expect(full).toEqual(message(three));
  expect(probe).toEqual(message([]));
  expect(() => encodePeerMessage(out, { ...message(three), batches: [] }, [a, b])).toThrow("span");
  expect(() => encodePeerMessage(out, { ...message(three), batches: [] })).toThrow("span");
  expect(out.byteLength).toBe(0);
});

test("batches travel verbatim", () => {
  holds(200, append, (sent) => {
    const [frame] = framesOf(bytesOf(sent));
    const sentBytes = concat(sent.batches.map((batch) => batch.bytes));
    expect(frame!.payload.subarray(frame!.fieldsBytes)).toEqual(sentBytes);
  });
});

test("a number that is not a safe integer, nobody as sender, a strange flag: malformed", () => {
  const vote: PeerMessage = { type: "vote", ...head, transfer: false, lastIndex: 5, lastTerm: 6 };
  const [{ payload, fieldsBytes }] = framesOf(bytesOf(vote)) as [ReturnType<typeof framesOf>[0]];
  const decodeWith = (change: (view: DataView) => void): PeerMessage | undefined => {
    const bytes = payload.slice();
    change(new DataView(bytes.buffer));
    return decodePeerMessage(FrameType.vote, bytes, fieldsBytes);
  };
  expect(decodeWith(() => {})).toEqual(vote);
  for (const offset of [16, 24, 32]) {
    expect(decodeWith((view) => view.setUint32(offset + 4, 0x1f_ffff, true))).toBeDefined();
    expect(decodeWith((view) => view.setUint32(offset + 4, 0x20_0000, true))).toBeUndefined();
  }
  for (const offset of [4, 8]) {
    expect(decodeWith((view) => view.setUint32(offset, 0, true))).toBeUndefined();
  }
  expect(decodeWith((view) => view.setUint32(12, 1, true))).toEqual({ ...vote, transfer: true });
  expect(decodeWith((view) => view.setUint32(12, 2, true))).toBeUndefined();
});

test("a forwarded section must be whole, alone and intact", () => {
  const section = plainSection([new Uint8Array(5), new Uint8Array(9)]);
  const forward: PeerMessage = { type: "forward", group: 1, from: 1, to: 2, request: 8, section };
  const [frame] = framesOf(bytesOf(forward));
  const { payload, fieldsBytes } = frame!;
  const decode = (bytes: Uint8Array) => decodePeerMessage(FrameType.forward, bytes, fieldsBytes);
  expect(decode(payload)).toEqual(forward);
  for (let end = 0; end < payload.byteLength; end++) {
    expect(decode(payload.slice(0, end))).toBeUndefined();
  }
  expect(decode(concat([payload, section]))).toBeUndefined();
  for (let at = fieldsBytes; at < payload.byteLength; at++) {
    const bytes = payload.slice();
    bytes[at]! ^= 0x10;
    expect(decode(bytes)).toBeUndefined();
  }
});

test("types of clients and unknown ones are no peer messages", () => {
  const known = new Set<number>(Object.values(FrameType).filter((type) => type >= 16 && type < 64));
  for (let type = 0; type < 256; type++) {
    if (known.has(type)) continue;
    expect(decodePeerMessage(type, new Uint8Array(64), 64)).toBeUndefined();
  }
  expect(batchHeaderBytes).toBe(48);
});

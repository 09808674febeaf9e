/** The reader's bounds, memory, cost and errors. */
import { expect, spyOn, test } from "bun:test";
import fc from "fast-check";
import { crc32 } from "node:zlib";
import { encodePing } from "../../src/wire/client-messages.ts";
import { frameHeaderBytes, frameMagic, frameVersion } from "../../src/wire/frame.ts";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import { FrameType } from "../../src/wire/messages.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { concat, drain } from "./messages.ts";
import { holds } from "./property.ts";

/** A frame by hand, so that the layout is tested and not only agreed on. */
function handMade(
  type: number,
  fields: Uint8Array,
  body: Uint8Array,
  change: (header: DataView) => void = () => {},
): Uint8Array {
  const header = new DataView(new ArrayBuffer(frameHeaderBytes));
  header.setUint16(0, frameMagic, true);
  header.setUint8(2, frameVersion);
  header.setUint8(3, type);
  header.setUint32(4, fields.byteLength, true);
  header.setUint32(8, fields.byteLength + body.byteLength, true);
  change(header);
  const head = new Uint8Array(header.buffer, 0, 12);
  header.setUint32(12, crc32(fields, crc32(head)), true);
  return concat([new Uint8Array(header.buffer), fields, body]);
}

const none = new Uint8Array(0);
const ignore = (): void => {};

function bodyFrame(bytes: number): Uint8Array {
  return handMade(FrameType.append, new Uint8Array(8), new Uint8Array(bytes));
}

test("a frame made by hand is read; one made by the encoder is the same", () => {
  const fields = new Uint8Array(8);
  new DataView(fields.buffer).setUint32(0, 77, true);
  const expected = handMade(FrameType.ping, fields, none);
  const out = new SendBuffer();
  encodePing(out, 77);
  expect(drain(out)).toEqual(expected);
  const types: number[] = [];
  expect(new FrameReader(1_000, (type) => types.push(type)).push(expected)).toBeUndefined();
  expect(types).toEqual([FrameType.ping]);
});

test("each fault of a header has its name, and ends the stream", () => {
  const faults: [string, Uint8Array][] = [
    ["bad magic", handMade(3, new Uint8Array(8), none, (h) => h.setUint8(0, 0))],
    ["bad version", handMade(3, new Uint8Array(8), none, (h) => h.setUint8(2, 2))],
    ["too long", handMade(3, none, new Uint8Array(1_000 - frameHeaderBytes + 1))],
    ["bad fields", handMade(3, none, none, (h) => h.setUint32(4, 1, true))],
    [
      "bad crc",
      concat([handMade(3, new Uint8Array(8), none).subarray(0, 23), new Uint8Array(1).fill(1)]),
    ],
  ];
  const good = handMade(FrameType.ping, new Uint8Array(8), none);
  for (const [error, bytes] of faults) {
    for (const step of [1, 7, bytes.byteLength]) {
      let frames = 0;
      const reader = new FrameReader(1_000, () => frames++);
      reader.push(good);
      for (let at = 0; at < bytes.byteLength; at += step) reader.push(bytes.slice(at, at + step));
      expect(reader.error as string).toBe(error);
      expect(reader.push(good) as string).toBe(error);
      expect(frames).toBe(1);
      expect(reader.assemblyBytes).toBe(0);
    }
  }
});

test("a frame of exactly the bound is read, and the bound can be raised on the way", () => {
  let frames = 0;
  const reader = new FrameReader(1_000, (type) => {
    frames++;
    if (type === FrameType.hello) reader.frameBytesMax = 10_000;
  });
  const hello = handMade(FrameType.hello, new Uint8Array(1_000 - frameHeaderBytes), none);
  const longer = handMade(FrameType.append, new Uint8Array(10_000 - frameHeaderBytes), none);
  expect(reader.push(concat([hello, longer]))).toBeUndefined();
  expect(frames).toBe(2);
  expect(reader.push(handMade(3, new Uint8Array(10_001), none))).toBe("too long");
});

test("a declared length allots little until its bytes arrive", () => {
  const bytes = bodyFrame(8_000_000);
  const reader = new FrameReader(16_000_000, ignore);
  let at = 0;
  for (const upTo of [16, 17, 1_000, 200_000, 300_000, 900_000, 2_000_000, 7_999_000]) {
    reader.push(bytes.subarray(at, upTo));
    at = upTo;
    expect(reader.assemblyBytes).toBeLessThanOrEqual(Math.max(257 * 1024, 4 * upTo));
  }
  reader.push(bytes.subarray(at));
  expect(reader.assemblyBytes).toBe(0);
  expect(reader.midFrame).toBe(false);
});

test("a frame within a chunk is a view of it; one that straddles is assembled whole", () => {
  const payloads: Uint8Array[] = [];
  const reader = new FrameReader(1 << 20, (_type, payload) => payloads.push(payload));
  const stream = concat([bodyFrame(100), bodyFrame(200), bodyFrame(300)]);
  const first = stream.slice(0, 150);
  const rest = stream.slice(150);
  reader.push(first);
  reader.push(rest);
  expect(payloads.map((payload) => payload.byteLength)).toEqual([108, 208, 308]);
  expect(payloads[0]!.buffer).toBe(first.buffer);
  expect(payloads[1]!.buffer).not.toBe(first.buffer);
  expect(payloads[1]!.buffer.byteLength).toBe(208);
  expect(payloads[2]!.buffer).toBe(rest.buffer);
});

test("tens of thousands of frames in one chunk", () => {
  const ping = handMade(FrameType.ping, new Uint8Array(8), none);
  let frames = 0;
  const reader = new FrameReader(1_000, () => frames++);
  reader.push(concat(Array.from({ length: 65_536 }, () => ping)));
  expect(frames).toBe(65_536);
});

test("the cost of a long frame in small chunks grows with its length, not with its square", () => {
  const set = Uint8Array.prototype.set;
  let copied = 0;
  const spy = spyOn(Uint8Array.prototype, "set").mockImplementation(function (
    this: Uint8Array,
    from: ArrayLike<number>,
    at?: number,
  ) {
    copied += from.length;
    set.call(this, from, at);
  });
  try {
    for (const bytes of [100_000, 1_000_000]) {
      const frame = bodyFrame(bytes);
      const reader = new FrameReader(64_000_000, ignore);
      copied = 0;
      for (let at = 0; at < frame.byteLength; at += 16) reader.push(frame.subarray(at, at + 16));
      expect(reader.midFrame).toBe(false);
      expect(copied).toBeGreaterThanOrEqual(bytes);
      expect(copied).toBeLessThan(4 * bytes);
    }
  } finally {
    spy.mockRestore();
  }
});

test("nothing comes after stop, not even from the chunk at hand", () => {
  let frames = 0;
  const reader: FrameReader = new FrameReader(1_000, () => {
    frames++;
    reader.stop();
  });
  const ping = handMade(FrameType.ping, new Uint8Array(8), none);
  reader.push(concat([ping, ping, ping.subarray(0, 10)]));
  reader.push(ping);
  expect(frames).toBe(1);
  expect(reader.midFrame).toBe(false);
  expect(reader.error).toBeUndefined();
});

test("held back from within a handler, every frame comes later, once and in order, whatever the chunks", () => {
  const frames = Array.from({ length: 50 }, (_, i) =>
    handMade(FrameType.ping, new Uint8Array([i]), new Uint8Array(i * 7)),
  );
  const stream = concat(frames);
  for (const chunkBytes of [1, 5, 16, 17, 100, 1_000, stream.byteLength]) {
    const seen: number[] = [];
    const reader: FrameReader = new FrameReader(10_000, (_type, payload) => {
      seen.push(payload[0]!);
      if (seen.length % 3 === 0) reader.hold();
    });
    for (let at = 0; at < stream.byteLength; at += chunkBytes) {
      reader.push(stream.subarray(at, at + chunkBytes));
    }
    expect(seen).toEqual([0, 1, 2]);
    expect(reader.assemblyBytes).toBeGreaterThan(0);
    for (let times = 0; times < 50; times++) {
      reader.release();
      expect(reader.readOn()).toBeUndefined();
    }
    expect(seen).toEqual(frames.map((_, i) => i));
    expect([reader.assemblyBytes, reader.midFrame]).toEqual([0, false]);
  }
});

test("pushing from within the handler is a bug that shows", () => {
  const ping = handMade(FrameType.ping, new Uint8Array(8), none);
  const reader: FrameReader = new FrameReader(1_000, () => void reader.push(ping));
  expect(() => reader.push(ping)).toThrow("push within its own handler");
});

test("memory that is given back serves for the next frame that is as long, put together from chunks, and for no other", () => {
  const payloads: Uint8Array[] = [];
  const reader = new FrameReader(1_000_000, (_type, payload) => void payloads.push(payload));
  const inTwo = (frame: Uint8Array): Uint8Array => {
    reader.push(frame.subarray(0, 1_000));
    reader.push(frame.subarray(1_000));
    return payloads.at(-1)!;
  };
  const numbered = (number: number, bytes: number): Uint8Array =>
    handMade(FrameType.append, new Uint8Array(8).fill(number), new Uint8Array(bytes).fill(number));
  const first = inTwo(numbered(1, 20_000));
  const second = inTwo(numbered(2, 20_000));
  expect(second.buffer).not.toBe(first.buffer);
  expect(first.every((byte) => byte === 1)).toBe(true);

  reader.giveBack(new Uint8Array(first.buffer as ArrayBuffer));
  const third = inTwo(numbered(3, 20_000));
  expect(third.buffer).toBe(first.buffer);
  expect(third.every((byte) => byte === 3)).toBe(true);
  expect(second.every((byte) => byte === 2)).toBe(true);

  // Not for another length, and once only.
  reader.giveBack(new Uint8Array(second.buffer as ArrayBuffer));
  expect(inTwo(numbered(4, 20_001)).byteLength).toBe(8 + 20_001);
  expect(inTwo(numbered(5, 20_000)).buffer).toBe(second.buffer);
  expect(inTwo(numbered(6, 20_000)).buffer).not.toBe(second.buffer);
  // Some are kept, the newest; the others are gone at once, and those too at the end.
  const spares = Array.from({ length: 9 }, () => new Uint8Array(5_000));
  for (const spare of spares) reader.giveBack(spare);
  expect(spares.map(({ byteLength }) => byteLength)).toEqual([0, 0, 0, 0, ...Array(5).fill(5_000)]);
  expect(reader.assemblyBytes).toBe(25_000);
  reader.stop();
  expect(reader.assemblyBytes).toBe(0);
  expect(spares.every(({ byteLength }) => byteLength === 0)).toBe(true);
});

test("a piece of a snapshot has memory of its own, however it came; any other whole frame is a view", () => {
  const payloads: Uint8Array[] = [];
  const reader = new FrameReader(1_000_000, (_type, payload) => void payloads.push(payload));
  const pieces = [FrameType.snapshotChunk, FrameType.append].map((type) =>
    handMade(type, new Uint8Array(8), new Uint8Array(9_000).fill(type)),
  );
  const chunk = concat(pieces);
  reader.push(chunk);
  expect(payloads.map(({ buffer }) => buffer === chunk.buffer)).toEqual([false, true]);
  expect(reader.spent).toBe(false);
  reader.push(pieces[0]!);
  expect(reader.spent).toBe(true);
  expect(payloads[2]).toEqual(payloads[0]!);
  expect(payloads[0]!.byteLength).toBe(payloads[0]!.buffer.byteLength);
});

test("of a chunk that is spent nothing is looked at any more, however frames lie in chunks, and whatever waits", () => {
  const types = [FrameType.append, FrameType.snapshotChunk, FrameType.vote];
  const frame = fc.record({ type: fc.constantFrom(...types), bytes: fc.nat(3_000) });
  const cut = fc.array(fc.integer({ min: 1, max: 4_000 }), { minLength: 1 });
  const frames = fc.array(frame, { minLength: 1, maxLength: 20 });
  let spent = 0;
  holds(300, fc.tuple(frames, cut, fc.array(fc.boolean())), ([wanted, cuts, holdsAfter]) => {
    const payloads: Uint8Array[] = [];
    const reader = new FrameReader(1_000_000, (_type, payload) => {
      payloads.push(payload);
      if (holdsAfter[payloads.length] === true) reader.hold();
    });
    const bodies = wanted.map(({ bytes }, at) => new Uint8Array(bytes).fill(at + 1));
    const stream = concat(
      wanted.map(({ type }, at) => handMade(type, new Uint8Array(8).fill(at + 1), bodies[at]!)),
    );
    for (let at = 0, turn = 0; at < stream.byteLength; turn++) {
      const chunk = stream.slice(at, at + cuts[turn % cuts.length]!);
      at += chunk.byteLength;
      expect(reader.push(chunk)).toBeUndefined();
      if (reader.spent) spent++;
      if (reader.spent) chunk.fill(0xee);
      if (turn % 3 === 0) reader.release();
      reader.readOn();
    }
    for (reader.release(); payloads.length < wanted.length; reader.release()) reader.readOn();
    const expected = bodies.map((body, at) => new Uint8Array(8 + body.byteLength).fill(at + 1));
    expect(payloads).toEqual(expected);
  });
  expect(spent).toBeGreaterThan(100);
});

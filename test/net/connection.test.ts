/** One connection over a socket that the test plays: partial writes, bounds, time-outs, who may send what. */
import { beforeEach, expect, test } from "bun:test";
import { defaultLimits, type Limits } from "../../src/limits.ts";
import { type CloseReason, Connection, type Expectation } from "../../src/net/connection.ts";
import type { ByteSocket } from "../../src/net/socket.ts";
import { encodePing, encodePong, encodeWrite } from "../../src/wire/client-messages.ts";
import { encodeHello } from "../../src/wire/hello.ts";
import { FrameType } from "../../src/wire/messages.ts";
import { encodePeerMessage } from "../../src/wire/peer-messages.ts";
import { plainSection } from "../../src/wire/section.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { concat, drain, framesOf } from "../wire/messages.ts";

/** Takes as much as it is told to. */
class PlayedSocket implements ByteSocket {
  readonly remoteAddress = "test";
  readonly taken: Uint8Array[] = [];
  writes = 0;
  room = Number.POSITIVE_INFINITY;
  gone = false;
  paused = false;
  ended: "end" | "terminate" | undefined;

  write(bytes: Uint8Array): number {
    if (this.gone) return -1;
    this.writes++;
    const some = Math.min(this.room, bytes.byteLength);
    this.room -= some;
    this.taken.push(bytes.slice(0, some));
    return some;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  end(): void {
    this.ended ??= "end";
  }
  terminate(): void {
    this.ended ??= "terminate";
  }
}

let socket: PlayedSocket;
let frames: number[];
let reasons: CloseReason[];
let connection: Connection;
let nowMs: number;

function make(
  expectation: Expectation,
  change: Partial<Limits> = {},
  timing = { silenceMsMax: 60_000, pingMs: 0 },
): void {
  socket = new PlayedSocket();
  frames = [];
  reasons = [];
  nowMs = 5_000_000;
  connection = new Connection(socket, {
    epoch: 3,
    limits: { ...defaultLimits, ...change },
    handler: {
      frame: (_connection, type) => void frames.push(type),
      closed: (_connection, reason) => void reasons.push(reason),
    },
    ...timing,
  });
  if (expectation !== "hello") connection.expect(expectation);
}

beforeEach(() => make("client"));

function bytesOf(encode: (out: SendBuffer) => void): Uint8Array {
  const out = new SendBuffer();
  encode(out);
  return drain(out);
}

const section = plainSection([new Uint8Array(100)]);
const write = (bytes = section) => bytesOf((out) => encodeWrite(out, 1, 0, 1_000, bytes));
const ping = bytesOf((out) => encodePing(out, 5));
const vote = bytesOf((out) =>
  encodePeerMessage(out, {
    type: "vote",
    transfer: false,
    group: 0,
    from: 1,
    to: 2,
    term: 3,
    lastIndex: 4,
    lastTerm: 2,
  }),
);
const clientHello = bytesOf((out) =>
  encodeHello(out, { role: "client", versionMin: 1, versionMax: 1, features: 0, software: "t" }),
);

/** Lets time pass in checks of 100 ms. */
function pass(ms: number): void {
  connection.checkTimeouts(nowMs);
  for (let passed = 0; passed < ms; passed += 100) {
    nowMs += 100;
    connection.checkTimeouts(nowMs);
  }
}

test("a turn's frames leave in one write, and none before flush", () => {
  for (let i = 0; i < 100; i++) encodePing(connection.out, i);
  expect(socket.writes).toBe(0);
  connection.flush();
  expect(socket.writes).toBe(1);
  expect(framesOf(concat(socket.taken)).length).toBe(100);
  connection.flush();
  expect(socket.writes).toBe(1);
});

test("what the socket does not take is kept, in order, until it drains", () => {
  const large = plainSection([new Uint8Array(200_000).fill(1)]);
  socket.room = 0;
  for (let i = 0; i < 5; i++) {
    encodeWrite(connection.out, i, 0, 0, large);
    encodePing(connection.out, i);
  }
  const total = connection.sendQueueBytes;
  for (const room of [0, 1, 15, 7, 100_000, 150_000, 64, 300_000, Number.POSITIVE_INFINITY]) {
    connection.flush();
    socket.room = room;
    connection.drained();
    // Blocked: flushing again does not ask the socket.
    const { writes } = socket;
    connection.flush();
    expect(socket.writes).toBe(writes);
  }
  expect(connection.sendQueueBytes).toBe(0);
  expect(connection.bytesSent).toBe(total);
  const types = framesOf(concat(socket.taken)).map((frame) => frame.type);
  expect(types).toEqual(Array.from({ length: 5 }, () => [FrameType.write, FrameType.ping]).flat());
});

test("a queue above its bound stops reading, below half of it reading goes on, far above it is cut", () => {
  make("client", { sendQueueBytesMax: 10_000, sendQueueBytesCut: 50_000 });
  const fill = (bytes: number): void => {
    connection.out.begin(FrameType.writeReply, bytes);
    connection.out.end();
    connection.flush();
  };
  socket.room = 0;
  fill(9_000);
  expect(socket.paused).toBe(false);
  fill(2_000);
  expect(socket.paused).toBe(true);
  socket.room = 4_000;
  connection.drained();
  expect(socket.paused).toBe(true);
  socket.room = 3_000;
  connection.drained();
  expect(socket.paused).toBe(false);
  fill(60_000);
  expect(reasons).toEqual(["does not read"]);
  expect(socket.ended).toBe("terminate");
  expect(connection.sendQueueBytes).toBe(0);
});

test("the owner's pause and the queue's are two", () => {
  make("client", { sendQueueBytesMax: 1_000 });
  connection.pause();
  socket.room = 0;
  connection.out.begin(FrameType.writeReply, 2_000);
  connection.out.end();
  connection.flush();
  connection.resume();
  expect(socket.paused).toBe(true);
  connection.pause();
  socket.room = 10_000;
  connection.drained();
  expect(socket.paused).toBe(true);
  connection.resume();
  expect(socket.paused).toBe(false);
});

test("only frames of the role are handed on: a client can never carry a peer's message", () => {
  const allowed: [Expectation, Uint8Array, boolean][] = [
    ["hello", clientHello, true],
    ["hello", write(), false],
    ["hello", vote, false],
    ["hello", ping, false],
    ["client", write(), true],
    ["client", vote, false],
    ["client", clientHello, false],
    ["peer", vote, true],
    ["peer", write(), false],
    ["nothing", vote, false],
    ["nothing", write(), false],
  ];
  for (const [expectation, bytes, ok] of allowed) {
    make(expectation);
    connection.received(concat([bytes, bytes]));
    expect(frames.length).toBe(ok ? 2 : 0);
    expect(reasons).toEqual(ok ? [] : ["frame not allowed"]);
  }
  // Every type of a peer, whatever its payload.
  for (let type = 16; type < 64; type++) {
    make("client");
    connection.received(
      bytesOf((out) => {
        out.begin(type, 0);
        out.end();
      }),
    );
    expect(reasons).toEqual(["frame not allowed"]);
  }
});

test("before the hello a frame is short, afterwards long", () => {
  make("hello");
  connection.received(write(plainSection([new Uint8Array(70_000)])).slice(0, 100));
  expect(reasons).toEqual(["too long"]);
  make("client");
  connection.received(write(plainSection([new Uint8Array(70_000)])));
  expect(frames).toEqual([FrameType.write]);
});

test("a wrong crc closes; nothing behind it is handed on", () => {
  const bytes = concat([write(), write(), write()]);
  bytes[write().byteLength + 20]! ^= 1;
  connection.received(bytes);
  expect(frames).toEqual([FrameType.write]);
  expect(reasons).toEqual(["bad crc"]);
  connection.received(write());
  expect(frames.length).toBe(1);
});

test("pings are answered without the owner, in one write", () => {
  connection.received(concat([ping, ping, ping]));
  expect(frames).toEqual([]);
  expect(socket.writes).toBe(1);
  expect(framesOf(concat(socket.taken)).map((frame) => frame.type)).toEqual([4, 4, 4]);
});

test("closing tells once, sends what is queued, and drops what comes later", () => {
  encodePing(connection.out, 1);
  connection.close("refused");
  connection.close("closed here");
  connection.socketClosed("closed by the other side");
  expect(reasons).toEqual(["refused"]);
  expect(socket.ended).toBe("end");
  expect(socket.taken.length).toBe(1);
  connection.received(write());
  encodePing(connection.out, 1);
  connection.flush();
  expect(connection.sendQueueBytes).toBe(0);
  expect(frames).toEqual([]);
});

test("a handler that closes gets no more frames of the chunk", () => {
  connection.handler = {
    frame: (closing, type) => {
      frames.push(type);
      closing.close("malformed message");
    },
    closed: (_connection, reason) => void reasons.push(reason),
  };
  connection.received(concat([write(), write()]));
  expect(frames).toEqual([FrameType.write]);
  expect(reasons).toEqual(["malformed message"]);
});

test("a socket that is gone is noticed on writing", () => {
  socket.gone = true;
  encodePing(connection.out, 1);
  connection.flush();
  expect(reasons).toEqual(["socket failed"]);
});

test("a socket that reports its end from within a write does no harm", () => {
  socket.write = () => {
    connection.socketClosed("socket failed");
    return 10;
  };
  encodePing(connection.out, 1);
  connection.flush();
  expect(reasons).toEqual(["socket failed"]);
  expect(connection.sendQueueBytes).toBe(0);
});

test("the hello has its time, by checks alone", () => {
  make("hello", { helloTimeoutMs: 5_000 });
  pass(4_800);
  // Half a hello is no hello.
  connection.received(clientHello.slice(0, 10));
  expect(reasons).toEqual([]);
  pass(300);
  expect(reasons).toEqual(["hello time-out"]);
});

test("a frame that trickles in has its time from start to end", () => {
  make("client", { frameTimeoutMs: 3_000 });
  const bytes = write();
  let at = 0;
  for (; at < 25; at++) {
    connection.received(bytes.slice(at, at + 1));
    pass(100);
  }
  expect(reasons).toEqual([]);
  for (; at < 35; at++) {
    connection.received(bytes.slice(at, at + 1));
    pass(100);
  }
  expect(reasons).toEqual(["frame time-out"]);
  // One that is always within a frame, though of new ones, is well.
  make("client", { frameTimeoutMs: 3_000 });
  const stream = concat(Array.from({ length: 100 }, () => bytes));
  connection.received(stream.slice(0, 10));
  for (at = 10; at + bytes.byteLength < stream.byteLength; at += bytes.byteLength) {
    connection.received(stream.slice(at, at + bytes.byteLength));
    pass(500);
  }
  expect(reasons).toEqual([]);
});

test("silence ends a connection, a ping that is answered keeps it", () => {
  make("client", {}, { silenceMsMax: 2_000, pingMs: 500 });
  pass(600);
  expect(framesOf(concat(socket.taken)).length).toBe(1);
  for (let i = 0; i < 20; i++) {
    connection.received(bytesOf((out) => encodePong(out, 0)));
    pass(1_000);
  }
  expect(reasons).toEqual([]);
  // One ping at a time while none is answered.
  const before = framesOf(concat(socket.taken)).length;
  pass(1_500);
  expect(framesOf(concat(socket.taken)).length - before).toBeLessThanOrEqual(1);
  pass(500);
  expect(reasons).toEqual(["silent"]);
});

test("who was not looked at for long is asked before being called silent", () => {
  make("client", {}, { silenceMsMax: 1_000, pingMs: 250 });
  pass(100);
  nowMs += 10_000;
  connection.checkTimeouts(nowMs);
  expect(framesOf(concat(socket.taken)).length).toBe(1);
  expect(reasons).toEqual([]);
  pass(600);
  expect(reasons).toEqual([]);
  pass(300);
  expect(reasons).toEqual(["silent"]);
});

test("nobody is silent while we do not listen; who takes nothing is cut", () => {
  make("client", {}, { silenceMsMax: 2_000, pingMs: 0 });
  connection.pause();
  pass(10_000);
  expect(reasons).toEqual([]);
  socket.room = 0;
  encodePing(connection.out, 1);
  pass(1_800);
  expect(reasons).toEqual([]);
  pass(400);
  expect(reasons).toEqual(["does not read"]);
});

test("a slow receiver is not a silent one", () => {
  make("nothing", {}, { silenceMsMax: 2_000, pingMs: 500 });
  connection.out.begin(FrameType.append, 1_000_000);
  connection.out.end();
  socket.room = 0;
  connection.flush();
  for (let i = 0; i < 20; i++) {
    socket.room = 10_000;
    connection.drained();
    pass(1_000);
  }
  expect(reasons).toEqual([]);
  pass(2_100);
  expect(reasons.length).toBe(1);
});

test("after a pause of this process nobody is called silent before the input is read", () => {
  make("client", {}, { silenceMsMax: 2_000, pingMs: 0 });
  pass(500);
  nowMs += 3_600_000;
  connection.checkTimeouts(nowMs);
  expect(reasons).toEqual([]);
  connection.received(write());
  pass(1_900);
  expect(reasons).toEqual([]);
});

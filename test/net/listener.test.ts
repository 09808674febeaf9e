/** The listener over real sockets: hellos good and bad, time-outs, numbers of connections, slow readers. */
import { expect, test } from "bun:test";
import { defaultLimits } from "../../src/limits.ts";
import type { Connection } from "../../src/net/connection.ts";
import { listen, ListenError } from "../../src/net/listener.ts";
import { encodeWrite, encodeWriteReply } from "../../src/wire/client-messages.ts";
import { decodeHelloReply, encodeHello } from "../../src/wire/hello.ts";
import { FrameType, type Hello, type HelloReply } from "../../src/wire/messages.ts";
import { encodePeerMessage } from "../../src/wire/peer-messages.ts";
import { plainSection } from "../../src/wire/section.ts";
import { type Agreement, featuresKnown, protocolVersionMax } from "../../src/wire/versions.ts";
import { clientHello, clock, dial, listening, type Probe, replyOf, until } from "./loopback.ts";

const section = plainSection([new Uint8Array(100)]);

function greet(probe: Probe, hello: Hello = clientHello): void {
  encodeHello(probe.connection.out, hello);
  probe.connection.flush();
}

function repliesOf(probe: Probe): (HelloReply | undefined)[] {
  return probe.frames.map((frame) => decodeHelloReply(frame.payload, frame.fieldsBytes));
}

test("a hello is answered and the connection handed on; frames sent with the hello are not lost", async () => {
  const handed: Hello[] = [];
  const frames: number[] = [];
  const listener = listening({
    onConnection: (connection, hello) => {
      handed.push(hello);
      connection.handler = {
        frame: (_connection, type) => void frames.push(type),
        closed: () => {},
      };
    },
  });
  const probe = await dial(listener.port);
  encodeHello(probe.connection.out, clientHello);
  for (let i = 0; i < 3; i++) encodeWrite(probe.connection.out, i, 0, 0, section);
  probe.connection.flush();
  await until("frames", () => frames.length === 3 && probe.frames.length === 1);
  expect(handed).toEqual([clientHello]);
  expect(repliesOf(probe)).toEqual([replyOf(1)]);
  expect(listener.counts).toEqual({ all: 1, clients: 1 });
  probe.connection.close("closed here");
  await until("gone", () => listener.counts.all === 0);
  expect(listener.counts.clients).toBe(0);
});

test("a refusal arrives before the end", async () => {
  const error = { code: "unauthorised", message: "This is another cluster." };
  const listener = listening({
    decideHello: () => ({ ...replyOf(1), error }),
    onConnection: () => {
      throw new Error("handed on");
    },
  });
  const probe = await dial(listener.port);
  greet(probe);
  await until("closed", () => probe.closed.length === 1);
  expect(repliesOf(probe)[0]?.error).toEqual(error);
  await until("gone", () => listener.counts.all === 0);
});

test("no common version is refused with words", async () => {
  const listener = listening();
  for (const [versionMin, versionMax] of [
    [protocolVersionMax + 1, protocolVersionMax + 2],
    [7, 255],
  ] as const) {
    const probe = await dial(listener.port);
    greet(probe, { ...clientHello, versionMin, versionMax });
    await until("closed", () => probe.closed.length === 1);
    const [reply] = repliesOf(probe);
    expect(reply).toMatchObject({ version: 0, error: { code: "version_mismatch" } });
    expect(reply!.error!.message).toContain("upgrade the older of the two");
  }
  const newer = await dial(listener.port);
  greet(newer, { ...clientHello, versionMin: 1, versionMax: 9 });
  await until("reply", () => newer.frames.length === 1);
  expect(repliesOf(newer)[0]).toMatchObject({ version: protocolVersionMax, features: 0 });
  expect(repliesOf(newer)[0]?.error).toBeUndefined();
});

test("both sides agree on the highest version that both have, and on the features that both know", async () => {
  const agreed: Agreement[] = [];
  const listener = listening({ onConnection: (connection) => agreed.push(connection.agreed) });
  const unknown = 0x8000_0000;
  const older = await dial(listener.port);
  greet(older, { ...clientHello, versionMin: 1, versionMax: 1, features: unknown });
  await until("reply", () => older.frames.length === 1);
  const newer = await dial(listener.port);
  const features = featuresKnown + unknown;
  greet(newer, { ...clientHello, versionMin: 1, versionMax: 200, features });
  await until("reply", () => newer.frames.length === 1);
  expect(agreed).toEqual([
    { version: 1, features: 0 },
    { version: protocolVersionMax, features: featuresKnown },
  ]);
  expect(repliesOf(older)[0]).toMatchObject(agreed[0]!);
  expect(repliesOf(newer)[0]).toMatchObject(agreed[1]!);
});

test("what is no hello ends the connection at once", async () => {
  const listener = listening({
    onConnection: () => {
      throw new Error("handed on");
    },
  });
  const attempts: ((probe: Probe) => void)[] = [
    (probe) => probe.socket.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n")),
    (probe) => encodeWrite(probe.connection.out, 1, 0, 0, section),
    (probe) => {
      probe.connection.out.begin(FrameType.hello, 3);
      probe.connection.out.end();
    },
    // Longer than a hello may be: refused by its header, before its bytes.
    (probe) => {
      probe.connection.out.begin(FrameType.hello, 70_000);
      probe.connection.out.end();
    },
    (probe) => {
      encodeHello(probe.connection.out, clientHello);
      const bytes = probe.connection.out.chunk()!.slice();
      bytes[20]! ^= 4;
      probe.connection.out.clear();
      probe.socket.write(bytes);
    },
  ];
  for (const attempt of attempts) {
    const probe = await dial(listener.port);
    attempt(probe);
    probe.connection.flush();
    await until("closed", () => probe.closed.length === 1);
    expect(probe.frames.length).toBe(0);
  }
  await until("gone", () => listener.counts.all === 0);
});

test("who says no hello is sent away in time", async () => {
  const listener = listening();
  const silent = await dial(listener.port);
  const halting = await dial(listener.port);
  halting.socket.write(Uint8Array.of(0x36));
  await until("accepted", () => listener.counts.all === 2);
  clock.speed = 50;
  await until("sent away", () => silent.closed.length === 1 && halting.closed.length === 1);
  expect(listener.counts.all).toBe(0);
});

test("a client that sends a peer's frame is closed, and the frame goes nowhere", async () => {
  const frames: number[] = [];
  const reasons: string[] = [];
  const listener = listening({
    onConnection: (connection) => {
      connection.handler = {
        frame: (_connection, type) => void frames.push(type),
        closed: (_connection, reason) => void reasons.push(reason),
      };
    },
  });
  const probe = await dial(listener.port);
  encodeHello(probe.connection.out, clientHello);
  encodePeerMessage(probe.connection.out, {
    type: "vote",
    transfer: false,
    group: 0,
    from: 2,
    to: 1,
    term: 1_000,
    lastIndex: 1,
    lastTerm: 1,
  });
  probe.connection.flush();
  await until("closed", () => probe.closed.length === 1);
  expect(frames).toEqual([]);
  expect(reasons).toEqual(["frame not allowed"]);
});

test("connections are capped, and clients leave some for peers", async () => {
  const limits = { ...defaultLimits, connectionsMax: 4 };
  const listener = listening({ limits });
  const clients = await Promise.all([1, 2, 3].map(() => dial(listener.port)));
  for (const client of clients) greet(client);
  await until("three clients", () => listener.counts.clients === 3);
  const fourth = await dial(listener.port);
  greet(fourth);
  await until("refused", () => fourth.closed.length === 1);
  expect(repliesOf(fourth)[0]?.error?.code).toBe("overloaded");
  const peer = await dial(listener.port);
  greet(peer, {
    ...clientHello,
    role: "peer-bulk",
    clusterId: "cluster",
    nodeId: 2,
    incarnation: "i",
  });
  await until("peer", () => peer.frames.length === 1);
  expect(repliesOf(peer)[0]?.error).toBeUndefined();
  const tooMany = await dial(listener.port);
  await until("turned away", () => tooMany.closed.length === 1);
  clients[0]!.connection.close("closed here");
  await until("room again", () => listener.counts.all === 3);
  const next = await dial(listener.port);
  greet(next);
  await until("served", () => next.frames.length === 1);
  expect(repliesOf(next)[0]?.error).toBeUndefined();
});

test("an address in use is an error that names it", () => {
  const listener = listening();
  const again = () =>
    listen({
      host: "127.0.0.1",
      port: listener.port,
      limits: defaultLimits,
      decideHello: () => replyOf(1),
      onConnection: () => {},
    });
  expect(again).toThrow(ListenError);
  expect(again).toThrow(`127.0.0.1:${listener.port} is already in use`);
});

test("a slow reader gets everything, in order; the sender stops reading it meanwhile", async () => {
  let served: Connection | undefined;
  const listener = listening({
    onConnection: (connection) => {
      served = connection;
      connection.handler = { frame: () => {}, closed: () => {} };
    },
  });
  const probe = await dial(listener.port);
  greet(probe);
  await until("served", () => served !== undefined && probe.frames.length === 1);
  probe.connection.expect("client");
  probe.connection.pause();
  const count = 400;
  const results = new Uint8Array(50_000);
  for (let i = 0; i < count; i++) {
    results.fill(i);
    encodeWriteReply(served!.out, i, i, results);
    if (i % 10 === 0) served!.flush();
  }
  served!.flush();
  const stuck = served!.sendQueueBytes;
  expect(stuck).toBeGreaterThan(defaultLimits.sendQueueBytesMax);
  let paused = true;
  const turn = setInterval(() => {
    paused = !paused;
    if (paused) probe.connection.pause();
    else probe.connection.resume();
  }, 2);
  await until("all replies", () => probe.frames.length === count + 1);
  clearInterval(turn);
  expect(served!.sendQueueBytes).toBe(0);
  probe.frames.slice(1).forEach(({ payload }, i) => {
    const view = new DataView(payload.buffer, payload.byteOffset);
    expect(view.getUint32(0, true)).toBe(i);
    expect(payload[payload.byteLength - 1]).toBe(i & 0xff);
  });
});

test("who never reads is cut off, and costs no more memory", async () => {
  const reasons: string[] = [];
  let served: Connection | undefined;
  const listener = listening({
    limits: { ...defaultLimits, sendQueueBytesMax: 100_000, sendQueueBytesCut: 1_000_000 },
    onConnection: (connection) => {
      served = connection;
      connection.handler = {
        frame: () => {},
        closed: (_connection, reason) => void reasons.push(reason),
      };
    },
  });
  const probe = await dial(listener.port);
  greet(probe);
  await until("served", () => served !== undefined);
  probe.connection.pause();
  const results = new Uint8Array(50_000);
  for (let i = 0; i < 1_000 && reasons.length === 0; i++) {
    encodeWriteReply(served!.out, i, i, results);
    served!.flush();
  }
  expect(reasons).toEqual(["does not read"]);
  expect(served!.sendQueueBytes).toBe(0);
  expect(listener.counts.all).toBe(0);
});

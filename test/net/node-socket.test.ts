/** The sockets of Node.js under a connection: the same as Bun's, as far as a connection can tell. Run under `node` itself by test/client/package.test.ts. */
import { expect, test } from "bun:test";
import type { Connection } from "../../src/net/connection.ts";
import { dialNodeSocket } from "../../src/net/node-socket.ts";
import { encodeWrite, encodeWriteReply } from "../../src/wire/client-messages.ts";
import { FrameType } from "../../src/wire/messages.ts";
import { encodeHello } from "../../src/wire/hello.ts";
import { plainSection } from "../../src/wire/section.ts";
import { clientHello, dial, listening, type Probe, until } from "./loopback.ts";

async function pair(): Promise<{ here: Probe; there: Connection; arrived: Uint8Array[] }> {
  const arrived: Uint8Array[] = [];
  const { promise, resolve } = Promise.withResolvers<Connection>();
  const listener = listening({
    onConnection: (connection) => {
      connection.handler = {
        frame: (_connection, _type, payload) => void arrived.push(payload),
        closed: () => {},
      };
      resolve(connection);
    },
  });
  const here = await dial(listener.port, "hello", dialNodeSocket);
  encodeHello(here.connection.out, clientHello);
  here.connection.flush();
  const there = await promise;
  await until("the answer to the hello", () => here.frames.length === 1);
  here.connection.expect("client");
  here.frames.length = 0;
  return { here, there, arrived };
}

/** More than any buffer of a kernel takes. */
const sections = [1, 100, 70_000, 3_000_000, 12, 4_000_000, 4_000_000].map((size, i) =>
  plainSection([new Uint8Array(size).fill(i + 1)]),
);

test("what is sent arrives, byte for byte, however slowly it is taken; memory that is used again does no harm", async () => {
  const { here, there, arrived } = await pair();
  there.pause();
  const own = sections.map((section) => section.slice());
  for (const [i, section] of own.entries()) encodeWrite(here.connection.out, i, 0, 0, section);
  here.connection.flush();
  // Some of it waits here, in a queue that is counted.
  expect(here.connection.sendQueueBytes).toBeGreaterThan(0);
  there.resume();
  await until("all frames", () => arrived.length === sections.length);
  expect(here.connection.sendQueueBytes).toBe(0);
  for (const [i, payload] of arrived.entries()) {
    expect(Buffer.compare(payload.subarray(16), sections[i]!)).toBe(0);
  }
});

test("a paused one takes nothing more, and all of it once it goes on", async () => {
  const { here, there } = await pair();
  here.connection.pause();
  const results = new Uint8Array(2_000_000).fill(7);
  for (let i = 0; i < 8; i++) encodeWriteReply(there.out, i, 1, results);
  there.flush();
  await until("the kernel is full", () => there.sendQueueBytes > 0);
  const before = here.connection.figures.bytesReceived;
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(here.connection.figures.bytesReceived - before).toBeLessThan(1_000_000);
  expect(here.frames).toEqual([]);
  here.connection.resume();
  await until("all frames", () => here.frames.length === 8);
  expect(here.frames.every(({ type }) => type === FrameType.writeReply)).toBe(true);
});

test("the end is told once, whoever made it", async () => {
  const one = await pair();
  one.there.close("closed here");
  await until("closed", () => one.here.closed.length > 0);
  expect(one.here.closed).toEqual(["closed by the other side"]);

  const two = await pair();
  two.here.connection.close("closed here");
  expect(two.here.closed).toEqual(["closed here"]);
  await until("gone there", () => two.there.closed);
});

test("nobody there: one failure, with a reason; a socket that is not wanted any more is closed", async () => {
  const failures: string[] = [];
  dialNodeSocket(
    { host: "127.0.0.1", port: 1 },
    { open: () => undefined, failed: (message) => void failures.push(message) },
  );
  await until("a failure", () => failures.length > 0);
  expect(failures).toEqual([expect.stringContaining("ECONNREFUSED")]);

  const { promise: closed, resolve } = Promise.withResolvers<void>();
  using server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: () => {}, close: () => resolve() },
  });
  dialNodeSocket(
    { host: "127.0.0.1", port: server.port },
    { open: () => undefined, failed: (message) => void failures.push(message) },
  );
  await closed;
  expect(failures.length).toBe(1);
});

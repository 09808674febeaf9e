/** Real sockets on loopback for tests: wait for conditions, a raw client, listeners and transports whose time the test drives. */
import { afterEach } from "bun:test";
import { defaultLimits, type Limits } from "../../src/limits.ts";
import { dialSocket } from "../../src/net/bun-socket.ts";
import { type CloseReason, Connection, type Expectation } from "../../src/net/connection.ts";
import { listen, type Listener, type ListenerOptions } from "../../src/net/listener.ts";
import type { ByteSocket, Dial } from "../../src/net/socket.ts";
import type { Hello, HelloReply } from "../../src/wire/messages.ts";

const deadlineMs = 5_000;

/** Waits until `condition` holds; fails with `what` when it does not in time. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

interface Timed {
  checkTimeouts(nowMs: number): void;
}
interface Closing {
  close(): void;
}

/** Time of everything registered here: real by default, faster when a test asks for it. */
const timed = new Set<Timed>();
const closing = new Set<Closing>();
let timer: ReturnType<typeof setInterval> | undefined;
let clockMs = 0;
/** How many milliseconds pass per real one. */
export const clock = { speed: 1 };

export function drive<T extends Timed & Closing>(one: T): T {
  timed.add(one);
  closing.add(one);
  let last = performance.now();
  timer ??= setInterval(() => {
    const now = performance.now();
    clockMs += (now - last) * clock.speed;
    last = now;
    for (const each of timed) each.checkTimeouts(clockMs);
  }, 5);
  return one;
}

export function undrive(one: Timed & Closing): void {
  timed.delete(one);
  closing.delete(one);
  one.close();
}

afterEach(() => {
  clearInterval(timer);
  timer = undefined;
  clock.speed = 1;
  timed.clear();
  for (const each of closing) each.close();
  closing.clear();
});

export function replyOf(nodeId: number, limits: Limits = defaultLimits): HelloReply {
  return {
    version: 1,
    features: 0,
    software: "test",
    clusterId: "cluster",
    nodeId,
    incarnation: `i${nodeId}`,
    frameBytesMax: limits.frameBytesMax,
    sectionBytesMax: limits.sectionBytesMax,
    members: {},
    leader: 0,
  };
}

export function listening(options: Partial<ListenerOptions> = {}): Listener {
  return drive(
    listen({
      host: "127.0.0.1",
      port: 0,
      limits: defaultLimits,
      decideHello: () => replyOf(1),
      onConnection: () => {},
      ...options,
    }),
  );
}

export const clientHello: Hello = {
  role: "client",
  versionMin: 1,
  versionMax: 1,
  features: 0,
  software: "test",
};

/** The other end of a connection, under the test's control. */
export interface Probe {
  readonly connection: Connection;
  readonly socket: ByteSocket;
  readonly frames: {
    readonly type: number;
    readonly payload: Uint8Array;
    readonly fieldsBytes: number;
  }[];
  readonly closed: CloseReason[];
}

export function dial(
  port: number,
  expectation: Expectation = "hello",
  dialler: Dial = dialSocket,
): Promise<Probe> {
  return new Promise((resolve, reject) => {
    dialler(
      { host: "127.0.0.1", port },
      {
        open: (socket) => {
          const frames: Probe["frames"] = [];
          const closed: CloseReason[] = [];
          const connection = new Connection(socket, {
            epoch: 0,
            limits: defaultLimits,
            handler: {
              frame: (_connection, type, payload, fieldsBytes) =>
                void frames.push({ type, payload, fieldsBytes }),
              closed: (_connection, reason) => void closed.push(reason),
            },
            silenceMsMax: 60_000,
            pingMs: 0,
          });
          connection.expect(expectation);
          closing.add({ close: () => connection.close("closed here") });
          resolve({ connection, socket, frames, closed });
          return connection;
        },
        failed: (message) => reject(new Error(message)),
      },
    );
  });
}

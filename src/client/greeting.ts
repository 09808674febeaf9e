/** How every connection of the client begins: the hello, and what the node answers to it. */
import type { Limits } from "../limits.ts";
import { Connection, type ConnectionHandler } from "../net/connection.ts";
import type { ByteSocket } from "../net/socket.ts";
import { decodeHelloReply, encodeHello } from "../wire/hello.ts";
import { FrameType, type HelloReply } from "../wire/messages.ts";
import { versionsSpoken } from "../wire/versions.ts";

export interface GreetingOptions {
  readonly limits: Limits;
  readonly handler: ConnectionHandler;
  /** How long the node may be silent, though it is pinged. */
  readonly attemptTimeoutMs: number;
  readonly features: number;
  /** For people who look at the server's connections. */
  readonly software: string;
}

/** A connection on a socket that has just opened, with the hello to be flushed. */
export function greet(socket: ByteSocket, options: GreetingOptions): Connection {
  const { limits, handler, attemptTimeoutMs, features, software } = options;
  const connection = new Connection(socket, {
    epoch: 0,
    limits,
    handler,
    silenceMsMax: attemptTimeoutMs,
    pingMs: Math.max(1, Math.floor(attemptTimeoutMs / 4)),
  });
  encodeHello(connection.out, { role: "client", ...versionsSpoken, features, software });
  return connection;
}

/** The node's answer; `refused` is told why it refuses, where it does. Undefined where the connection was closed over it. */
export function readGreeting(
  connection: Connection,
  type: number,
  payload: Uint8Array,
  fieldsBytes: number,
  refused: (why: string) => void,
): HelloReply | undefined {
  const hello = type === FrameType.helloReply ? decodeHelloReply(payload, fieldsBytes) : undefined;
  if (hello === undefined) {
    const isReply = type === FrameType.helloReply;
    connection.close(isReply ? "malformed message" : "frame not allowed");
    return undefined;
  }
  if (hello.error === undefined) return hello;
  refused(`refused: ${hello.error.code}: ${hello.error.message}`);
  connection.close("refused");
  return undefined;
}

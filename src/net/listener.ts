/**
 * Accepts connections, reads the hello of each, lets the node decide about it, and hands accepted ones on. Counts them, bounds what those
 * of clients hold together, and drives the time-outs of all, handed on or not.
 */
import type { Limits } from "../limits.ts";
import { decodeHello, encodeHelloReply } from "../wire/hello.ts";
import { FrameType, type Hello, type HelloReply } from "../wire/messages.ts";
import { commonVersion, featuresKnown, rangeText, versionsSpoken } from "../wire/versions.ts";
import type { Address } from "./address.ts";
import { type BoundSocket, listenSocket } from "./bun-socket.ts";
import { Connection } from "./connection.ts";
import type { ByteSocket } from "./socket.ts";

export interface ListenerOptions {
  readonly host: string;
  /** 0 = any free one, see `Listener.port`. */
  readonly port: number;
  readonly limits: Limits;
  /** The reply to a hello; one with an error refuses the connection. Version and features are the listener's to fill in. */
  readonly decideHello: (hello: Hello, remoteAddress: string) => HelloReply;
  /** Somebody who speaks no common version was refused so. */
  readonly onMismatch?: (hello: Hello, message: string) => void;
  /**
   * An accepted connection, its reply already queued: set `connection.handler` within the call. It is flushed afterwards.
   */
  readonly onConnection: (connection: Connection, hello: Hello) => void;
}

/** The address to listen on is taken or cannot be bound. */
export class ListenError extends Error {
  override readonly name: string = "ListenError";
  readonly address: string;
  constructor(address: string, cause: unknown) {
    const code = (cause as { code?: unknown }).code;
    const why = code === "EADDRINUSE" ? "is already in use" : `cannot be bound: ${String(cause)}`;
    super(`${address} ${why}`, { cause });
    this.address = address;
  }
}

/** Throws ListenError. */
export function listen(options: ListenerOptions): Listener {
  return new Listener(options);
}

/**
 * Throws ListenError where one of the addresses cannot be bound, now and all of them at once. Nothing stays bound: for a check before
 * anything else is done.
 */
export function checkBindable(addresses: readonly Address[]): void {
  const bound: BoundSocket[] = [];
  try {
    for (const address of addresses) {
      try {
        bound.push(listenSocket(address, () => undefined));
      } catch (error) {
        throw new ListenError(`${address.host}:${address.port}`, error);
      }
    }
  } finally {
    for (const socket of bound) socket.stop();
  }
}

/** Connections that clients leave free for peers: so many, yet at most a quarter of all. */
const peersReserveMax = 64;

export class Listener {
  readonly #options: ListenerOptions;
  readonly #bound: BoundSocket;
  readonly #connections = new Map<Connection, Hello["role"] | "unknown">();
  /** Those without a hello, the oldest first. */
  readonly #unknown = new Set<Connection>();
  readonly #clientsMax: number;
  #clients = 0;
  #clientBytes = 0;
  #epoch = 0;

  constructor(options: ListenerOptions) {
    this.#options = options;
    const { connectionsMax } = options.limits;
    this.#clientsMax = connectionsMax - Math.min(peersReserveMax, Math.floor(connectionsMax / 4));
    const address: Address = { host: options.host, port: options.port };
    try {
      this.#bound = listenSocket(address, (socket) => this.#accept(socket));
    } catch (error) {
      throw new ListenError(`${options.host}:${options.port}`, error);
    }
  }

  get port(): number {
    return this.#bound.port;
  }

  /** Open connections, by what is known of them. */
  get counts(): { readonly all: number; readonly clients: number } {
    return { all: this.#connections.size, clients: this.#clients };
  }

  /** What the connections of clients and strangers held together at the last check. */
  get clientBytes(): number {
    return this.#clientBytes;
  }

  checkTimeouts(nowMs: number): void {
    for (const connection of this.#connections.keys()) connection.checkTimeouts(nowMs);
    this.#boundClientBytes();
  }

  /** Cuts those that hold the most until all together are below the bound: the others never notice. */
  #boundClientBytes(): void {
    const { clientBytesMax } = this.#options.limits;
    const holders: Connection[] = [];
    let bytes = 0;
    for (const [connection, role] of this.#connections) {
      const held = role === "client" || role === "unknown" ? connection.heldBytes : 0;
      if (held === 0) continue;
      holders.push(connection);
      bytes += held;
    }
    if (bytes > clientBytesMax) {
      holders.sort((a, b) => a.heldBytes - b.heldBytes);
      while (bytes > clientBytesMax) {
        const most = holders.pop()!;
        bytes -= most.heldBytes;
        most.close("holds too much");
      }
    }
    this.#clientBytes = bytes;
  }

  /** Accepts no more; what is open stays, so that replies still leave. */
  stop(): void {
    this.#bound.stop();
  }

  /** Also closes what is open. */
  close(): void {
    this.stop();
    for (const connection of this.#connections.keys()) connection.close("closed here");
  }

  #accept(socket: ByteSocket): Connection | undefined {
    const { limits } = this.#options;
    if (this.#connections.size >= limits.connectionsMax && !this.#makeRoom()) return undefined;
    const connection = new Connection(socket, {
      epoch: ++this.#epoch,
      limits,
      handler: {
        frame: (_connection, type, payload, fieldsBytes) =>
          this.#hello(connection, type, payload, fieldsBytes),
        closed: () => {},
      },
      onGone: (gone) => this.#gone(gone),
      silenceMsMax: limits.idleTimeoutMs,
      pingMs: 0,
    });
    this.#connections.set(connection, "unknown");
    this.#unknown.add(connection);
    return connection;
  }

  /** Whoever says hello does so at once: those that are silent for the longest must not keep a peer out. */
  #makeRoom(): boolean {
    const [oldest] = this.#unknown;
    oldest?.close("crowded out");
    return oldest !== undefined;
  }

  #hello(connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    const hello = type === FrameType.hello ? decodeHello(payload, fieldsBytes) : undefined;
    if (hello === undefined) return connection.close("malformed message");
    const reply = this.#decide(hello, connection);
    encodeHelloReply(connection.out, reply);
    if (reply.error !== undefined) return connection.close("refused");
    this.#connections.set(connection, hello.role);
    this.#unknown.delete(connection);
    if (hello.role === "client") this.#clients++;
    connection.agreed = { version: reply.version, features: reply.features };
    connection.expect(hello.role === "client" ? "client" : "peer");
    this.#options.onConnection(connection, hello);
    connection.flush();
  }

  #decide(hello: Hello, connection: Connection): HelloReply {
    const version = commonVersion(versionsSpoken, hello) ?? 0;
    const features = hello.features & featuresKnown;
    const decided = this.#options.decideHello(hello, connection.remoteAddress);
    const reply = { ...decided, version, features };
    if (reply.error !== undefined) return reply;
    if (version === 0) {
      const message =
        `This node (barge ${reply.software}) speaks protocol version ${rangeText(versionsSpoken)}, ` +
        `you (${hello.software}) speak ${rangeText(hello)}: upgrade the older of the two.`;
      this.#options.onMismatch?.(hello, message);
      return { ...reply, error: { code: "version_mismatch", message } };
    }
    if (hello.role === "client" && this.#clients >= this.#clientsMax) {
      const message = `This node serves at most ${this.#clientsMax} client connections.`;
      return { ...reply, error: { code: "overloaded", message } };
    }
    return reply;
  }

  #gone(connection: Connection): void {
    if (this.#connections.get(connection) === "client") this.#clients--;
    this.#connections.delete(connection);
    this.#unknown.delete(connection);
  }
}

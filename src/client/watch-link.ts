/** A connection to one node that carries watches and nothing else, so that they never stand in the way of other calls. */
import { defaultLimits } from "../limits.ts";
import { parseAddress } from "../net/address.ts";
import type { CloseReason, Connection, ConnectionHandler } from "../net/connection.ts";
import type { ByteSocket, Dial } from "../net/socket.ts";
import { Feature } from "../wire/versions.ts";
import {
  decodeWatchReply,
  encodeWatch,
  encodeWatchCredit,
  encodeWatchStop,
  type WatchEnded,
} from "../wire/watch-messages.ts";
import type { CodecName } from "./api.ts";
import { greet, readGreeting } from "./greeting.ts";
import type { WatchStream } from "./watch-stream.ts";

export type Stream = WatchStream<CodecName>;

export interface WatchLinkOptions {
  readonly dial: Dial;
  /** To connect and be greeted; and how long the node may be silent afterwards, though it is pinged. */
  readonly attemptTimeoutMs: number;
  /** `members`: `host:port` of the nodes that this one knows, by their ids. */
  readonly ready: (link: WatchLink, members: Record<string, string>) => void;
  readonly ended: (link: WatchLink, stream: Stream, message: WatchEnded) => void;
  /** Once. `streams` were on it. */
  readonly lost: (link: WatchLink, reason: string, streams: readonly Stream[]) => void;
}

/** For people who look at the server's connections. */
const software = "barge-client-watch/0.1.0";

interface Served {
  readonly stream: Stream;
  readonly number: number;
  /** Taken by the program, and the node does not know it yet. */
  creditBytes: number;
}

export class WatchLink implements ConnectionHandler {
  readonly endpoint: string;
  readonly #options: WatchLinkOptions;
  readonly #served = new Map<number, Served>();
  readonly #numbers = new Map<Stream, Served>();
  #connection: Connection | undefined;
  #state: "opening" | "ready" | "closed" = "opening";
  #refusal: string | undefined;
  #number = 0;
  readonly #dialledMs: number;
  #flushDue = false;

  constructor(endpoint: string, options: WatchLinkOptions, nowMs: number) {
    this.endpoint = endpoint;
    this.#options = options;
    this.#dialledMs = nowMs;
    const address = parseAddress(endpoint);
    if (address === undefined) throw new Error(`"${endpoint}" is not host:port`);
    options.dial(address, {
      open: (socket) => this.#opened(socket),
      failed: (message) => this.#finish(message),
    });
  }

  get ready(): boolean {
    return this.#state === "ready";
  }

  get size(): number {
    return this.#served.size;
  }

  has(stream: Stream): boolean {
    return this.#numbers.has(stream);
  }

  /** Begins where the stream has come to. */
  start(stream: Stream): void {
    const { group, prefix, exact } = stream.options;
    const number = ++this.#number;
    stream.heard = false;
    const served = { stream, number, creditBytes: 0 };
    this.#served.set(number, served);
    this.#numbers.set(stream, served);
    encodeWatch(this.#connection!.out, {
      watch: number,
      group,
      windowBytes: stream.roomBytes,
      from: stream.received + 1,
      exact,
      prefix,
    });
    this.#flushSoon();
  }

  stop(stream: Stream): void {
    const served = this.#numbers.get(stream);
    if (served === undefined) return;
    this.#forget(served);
    if (this.#connection === undefined) return;
    encodeWatchStop(this.#connection.out, served.number);
    this.#flushSoon();
  }

  /** Told to the node in shares of the window, not for each little. */
  taken(stream: Stream, bytes: number): void {
    const served = this.#numbers.get(stream);
    if (served === undefined || this.#connection === undefined) return;
    served.creditBytes += bytes;
    if (served.creditBytes * 4 < stream.options.windowBytes) return;
    encodeWatchCredit(this.#connection.out, served.number, served.creditBytes);
    served.creditBytes = 0;
    this.#flushSoon();
  }

  sweep(nowMs: number): void {
    if (this.#connection !== undefined) this.#connection.checkTimeouts(nowMs);
    else if (nowMs - this.#dialledMs >= this.#options.attemptTimeoutMs) {
      this.#finish("no connection in time");
    }
  }

  close(): void {
    if (this.#connection === undefined) this.#finish("closed here");
    else this.#connection.close("closed here");
  }

  frame(connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    if (this.#state === "opening") return this.#greeted(connection, type, payload, fieldsBytes);
    const reply = decodeWatchReply(type, payload, fieldsBytes);
    if (reply === undefined) return connection.close("malformed message");
    const served = this.#served.get(reply.watch);
    // It was stopped here meanwhile.
    if (served === undefined) return;
    if (reply.type === "watchChanges") return served.stream.add(reply);
    this.#forget(served);
    this.#options.ended(this, served.stream, reply);
  }

  closed(_connection: Connection, reason: CloseReason): void {
    this.#finish(this.#refusal ?? reason);
  }

  #forget(served: Served): void {
    this.#served.delete(served.number);
    this.#numbers.delete(served.stream);
  }

  #opened(socket: ByteSocket): Connection | undefined {
    if (this.#state === "closed") return undefined;
    const { attemptTimeoutMs } = this.#options;
    const connection = greet(socket, {
      limits: { ...defaultLimits, helloTimeoutMs: attemptTimeoutMs },
      handler: this,
      attemptTimeoutMs,
      features: Feature.watch,
      software,
    });
    this.#connection = connection;
    connection.flush();
    return connection;
  }

  #greeted(connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    const refused = (why: string): void => void (this.#refusal = why);
    const hello = readGreeting(connection, type, payload, fieldsBytes, refused);
    if (hello === undefined) return;
    if ((hello.features & Feature.watch) === 0) {
      this.#refusal = "it is of a version that knows no watches";
      return connection.close("refused");
    }
    connection.expect("client");
    this.#state = "ready";
    this.#options.ready(this, hello.members);
  }

  #flushSoon(): void {
    if (this.#flushDue) return;
    this.#flushDue = true;
    queueMicrotask(() => {
      this.#flushDue = false;
      this.#connection?.flush();
    });
  }

  #finish(reason: string): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    const streams = [...this.#numbers.keys()];
    this.#served.clear();
    this.#numbers.clear();
    this.#options.lost(this, reason, streams);
  }
}

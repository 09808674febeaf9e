/**
 * Keeps one outgoing connection to an address alive: connects, says hello, checks the reply, and begins again with back-off whenever it
 * ends. Has no timer: its owner calls `checkTimeouts`, which also dials.
 */
import type { Limits } from "../limits.ts";
import { decodeHelloReply, encodeHello } from "../wire/hello.ts";
import { FrameType, type Hello, type HelloReply } from "../wire/messages.ts";
import { featuresKnown, rangeText, versionsSpoken } from "../wire/versions.ts";
import type { Address } from "./address.ts";
import { dialSocket } from "./bun-socket.ts";
import { type CloseReason, Connection, type Expectation } from "./connection.ts";
import type { ByteSocket } from "./socket.ts";

export interface DialerEvents {
  /** Connected and accepted. Set `connection.handler` to receive frames; the dialer notices the end by itself. */
  up(connection: Connection, reply: HelloReply): void;
  /** After each `up`, once. */
  down(reason: CloseReason): void;
  /** The other side answered with an error, each time that it does. */
  refused(error: { readonly code: string; readonly message: string }, by: HelloReply): void;
  /** The other side answered in a version that this one does not speak. */
  mismatch?(message: string): void;
  /** An attempt failed or was refused; for the log. The same problem is reported once until it changes or the dialer is up. */
  problem(message: string): void;
  /** An attempt has had no answer for so long that another one begins beside it. Told as a problem is. */
  overdue?(message: string): void;
}

export interface DialerOptions {
  readonly address: Address;
  readonly limits: Limits;
  /** Asked at each attempt, as what we say of ourselves may have changed. */
  readonly hello: () => Hello;
  /** Frames that the other side may send after its reply. */
  readonly expectation: Expectation;
  /** Why this is not whom we meant to reach; undefined when it is. */
  readonly refuse: (reply: HelloReply) => string | undefined;
  readonly silenceMsMax: number;
  readonly random: () => number;
  readonly events: DialerEvents;
}

const backOffMsMin = 50;
const backOffMsMax = 1_000;
/** An attempt that has not connected by then is overtaken by another. */
const connectMsMax = 1_000;
/** Attempts that cannot be cancelled while the kernel still tries; whichever opens first is taken. */
const attemptsMax = 16;

export class Dialer {
  readonly #options: DialerOptions;
  #connection: Connection | undefined;
  #up = false;
  #closed = false;
  #epoch = 0;
  #attempts = 0;
  #failures = 0;
  #unreachable = false;
  #nextDialMs = 0;
  #nowMs = 0;
  #lastProblem = "";

  constructor(options: DialerOptions) {
    this.#options = options;
  }

  /** The connection, once accepted by the other side. */
  get connection(): Connection | undefined {
    return this.#up ? this.#connection : undefined;
  }

  /** It is not up, and since it last was an attempt has failed, was refused, or takes too long. */
  get unreachable(): boolean {
    return this.#unreachable;
  }

  /** Dials when it is time to, and drives the connection's time-outs. Every 100 ms or so; `nowMs` is monotonic. */
  checkTimeouts(nowMs: number): void {
    this.#nowMs = nowMs;
    if (this.#closed) return;
    if (this.#connection !== undefined) return this.#connection.checkTimeouts(nowMs);
    if (nowMs < this.#nextDialMs) return;
    if (this.#attempts > 0) {
      this.#unreachable = true;
      this.#overdue();
    }
    if (this.#attempts >= attemptsMax) return;
    this.#attempts++;
    this.#nextDialMs = nowMs + connectMsMax;
    dialSocket(this.#options.address, {
      open: (socket) => this.#opened(socket),
      failed: (message) => this.#failed(message),
    });
  }

  close(): void {
    this.#closed = true;
    this.#connection?.close("closed here");
  }

  #opened(socket: ByteSocket): Connection | undefined {
    this.#attempts--;
    if (this.#closed || this.#connection !== undefined) return undefined;
    const { limits, hello, silenceMsMax } = this.#options;
    const connection = new Connection(socket, {
      epoch: ++this.#epoch,
      limits,
      handler: {
        frame: (_connection, type, payload, fieldsBytes) =>
          this.#reply(connection, type, payload, fieldsBytes),
        closed: (_connection, reason) => this.#problem(reason),
      },
      onGone: (gone, reason) => this.#gone(gone, reason),
      silenceMsMax,
      pingMs: Math.ceil(silenceMsMax / 3),
    });
    this.#connection = connection;
    encodeHello(connection.out, hello());
    connection.flush();
    return connection;
  }

  #reply(connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    const reply =
      type === FrameType.helloReply ? decodeHelloReply(payload, fieldsBytes) : undefined;
    if (reply === undefined) return connection.close("malformed message");
    const refusal = this.#refusal(reply);
    if (refusal !== undefined) {
      // A refusal seldom changes within milliseconds.
      this.#failures = Math.max(this.#failures, 5);
      this.#problem(refusal);
      connection.handler = silent;
      return connection.close("refused");
    }
    this.#failures = 0;
    this.#lastProblem = "";
    this.#up = true;
    this.#unreachable = false;
    connection.agreed = { version: reply.version, features: reply.features & featuresKnown };
    connection.expect(this.#options.expectation);
    connection.handler = silent;
    this.#options.events.up(connection, reply);
  }

  #refusal(reply: HelloReply): string | undefined {
    if (reply.error !== undefined) {
      this.#options.events.refused(reply.error, reply);
      return `${reply.error.code}: ${reply.error.message}`;
    }
    const { version, software } = reply;
    if (version < versionsSpoken.versionMin || version > versionsSpoken.versionMax) {
      const ours = rangeText(versionsSpoken);
      const message = `it (barge ${software}) answers in protocol version ${version}, this build speaks ${ours}: upgrade the older of the two`;
      this.#options.events.mismatch?.(message);
      return `version_mismatch: ${message}`;
    }
    return this.#options.refuse(reply);
  }

  #gone(connection: Connection, reason: CloseReason): void {
    if (connection !== this.#connection) return;
    this.#connection = undefined;
    this.#backOff();
    if (!this.#up) {
      this.#unreachable = true;
      return;
    }
    this.#up = false;
    this.#options.events.down(reason);
  }

  #failed(message: string): void {
    this.#attempts--;
    if (this.#connection !== undefined || this.#closed) return;
    this.#unreachable = true;
    this.#problem(message);
    this.#backOff();
  }

  /** Doubles from 50 ms to 1 s, less up to half by chance, so that nodes do not dial in step. */
  #backOff(): void {
    const span = Math.min(backOffMsMax, backOffMsMin * 2 ** Math.min(this.#failures, 16));
    this.#failures++;
    this.#nextDialMs = this.#nowMs + span * (1 - this.#options.random() / 2);
  }

  #overdue(): void {
    const message = `no answer within ${connectMsMax} ms`;
    if (message === this.#lastProblem) return;
    this.#lastProblem = message;
    this.#options.events.overdue?.(message);
  }

  #problem(message: string): void {
    if (this.#closed || message === this.#lastProblem) return;
    this.#lastProblem = message;
    this.#options.events.problem(message);
  }
}

const silent = { frame: () => {}, closed: () => {} };

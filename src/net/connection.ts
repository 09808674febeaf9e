/**
 * One socket: splits what arrives into frames, sends what encoders put into `out`, and watches bounds and time-outs. Knows frames, not
 * what they mean, save the ping that it answers itself. Independent of the kind of socket: an adapter calls `received`, `drained`
 * and `socketClosed`.
 *
 * Nothing is sent until `flush`: its owner calls that once per turn, so that a turn's frames leave in one write.
 */
import type { Limits } from "../limits.ts";
import { decodePing, encodePing, encodePong } from "../wire/client-messages.ts";
import type { FrameError } from "../wire/frame.ts";
import { FrameReader } from "../wire/frame-reader.ts";
import { FrameType } from "../wire/messages.ts";
import { SendBuffer } from "../wire/send-buffer.ts";
import type { Agreement } from "../wire/versions.ts";
import type { ByteSocket } from "./socket.ts";

export type CloseReason =
  | FrameError
  | "closed here"
  | "closed by the other side"
  | "socket failed"
  | "hello time-out"
  | "frame time-out"
  | "silent"
  | "does not read"
  | "holds too much"
  | "crowded out"
  | "frame not allowed"
  | "malformed message"
  | "wrong sender"
  | "refused"
  | "replaced";

export interface ConnectionHandler {
  /** `fieldsBytes` of the payload are checked by the frame's crc. The payload may be kept: its bytes are never reused. */
  frame(connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void;
  /** Once, whoever closed it. */
  closed(connection: Connection, reason: CloseReason): void;
  /** The send queue, which was over its bound, is below half of it again. */
  drained?(connection: Connection): void;
}

/** Which frames may arrive besides ping and pong: a client can never carry a peer's message, whatever it sends [38]. */
export type Expectation = "hello" | "peer" | "client" | "nothing";

const allowedTypes = {
  hello: [FrameType.hello, FrameType.helloReply],
  peer: [16, 63],
  client: [64, 127],
  nothing: [FrameType.ping, FrameType.pong],
} as const satisfies Record<Expectation, readonly [number, number]>;

export interface ConnectionOptions {
  readonly epoch: number;
  readonly limits: Limits;
  readonly handler: ConnectionHandler;
  /** For the books of whoever made the connection, besides the handler's `closed`. */
  readonly onGone?: (connection: Connection, reason: CloseReason) => void;
  /** Closed when nothing was heard for so long. */
  readonly silenceMsMax: number;
  /** Sends a ping this often, so that a living connection is never silent; 0 = never. */
  readonly pingMs: number;
}

/**
 * One check counts at most this much: after a pause of the whole process the input that waits in the kernel is read before anyone
 * is called silent [E6].
 */
const stepMsMax = 1_000;

export class Connection {
  /** Distinguishes the connections of one owner in time [33]. */
  readonly epoch: number;
  /** Encoders write here; `flush` sends it. */
  readonly out = new SendBuffer();
  /** Who is told; handed on once the hello is read. */
  handler: ConnectionHandler;
  /** What both sides speak; set by whoever reads the hello or its reply. */
  agreed: Agreement = { version: 0, features: 0 };
  /** Bytes of received frames that its owner still keeps, where the owner counts them. */
  requestBytes = 0;
  readonly #onGone: ((connection: Connection, reason: CloseReason) => void) | undefined;
  readonly #socket: ByteSocket;
  readonly #limits: Limits;
  #silenceMsMax: number;
  readonly #pingMs: number;
  readonly #reader: FrameReader;
  #expectation: Expectation = "hello";
  #closed = false;

  /** The socket took less than it was given: `drained` will follow. */
  #blocked = false;
  #pausedByOwner = false;
  #pausedByQueue = false;
  #flushWanted = false;
  #pongAwaited = false;

  #bytesReceived = 0;
  #bytesSent = 0;
  #framesReceived = 0;

  /** For `checkTimeouts`: what had happened at the last check, and for how long each has gone on. */
  #checkedMs = Number.NaN;
  #bytesReceivedAtCheck = 0;
  #bytesSentAtCheck = 0;
  #framesReceivedAtCheck = 0;
  #drainedSinceCheck = false;
  #helloMs = 0;
  #silentMs = 0;
  #frameMs = 0;
  #stuckMs = 0;
  #sincePingMs = 0;

  constructor(socket: ByteSocket, options: ConnectionOptions) {
    this.#socket = socket;
    this.epoch = options.epoch;
    this.handler = options.handler;
    this.#onGone = options.onGone;
    this.#limits = options.limits;
    this.#silenceMsMax = options.silenceMsMax;
    this.#pingMs = options.pingMs;
    this.#reader = new FrameReader(options.limits.helloBytesMax, (type, payload, fieldsBytes) =>
      this.#frame(type, payload, fieldsBytes),
    );
  }

  get closed(): boolean {
    return this.#closed;
  }

  get remoteAddress(): string {
    return this.#socket.remoteAddress;
  }

  /** Encoded and not yet taken by the socket. */
  get sendQueueBytes(): number {
    return this.out.byteLength;
  }

  /** All memory that this connection makes the node hold. */
  get heldBytes(): number {
    return this.out.byteLength + this.#reader.assemblyBytes + this.requestBytes;
  }

  /** Bytes that the socket took so far. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  get figures(): ConnectionFigures {
    return {
      bytesReceived: this.#bytesReceived,
      bytesSent: this.#bytesSent,
      framesReceived: this.#framesReceived,
      sendQueueBytes: this.out.byteLength,
    };
  }

  /** The hello is done: from now on these frames may arrive, up to the full length. */
  expect(expectation: Expectation): void {
    this.#expectation = expectation;
    const { helloBytesMax, frameBytesMax } = this.#limits;
    this.#reader.frameBytesMax = expectation === "hello" ? helloBytesMax : frameBytesMax;
  }

  /** The other side is known to ping: it is gone when it was silent for so long. */
  expectPings(silenceMsMax: number): void {
    this.#silenceMsMax = silenceMsMax;
  }

  /** Hands queued frames to the socket, as much as it takes. Once per turn. */
  flush(): void {
    const out = this.out;
    // Replies to a client that is gone.
    if (this.#closed) return out.clear();
    if (this.#blocked) {
      this.#bound();
      return this.#readOn();
    }
    let chunk = out.chunk();
    while (chunk !== undefined) {
      const size = chunk.byteLength;
      const taken = this.#socket.write(chunk);
      // An adapter may report the end from within the write.
      if (this.closed) return out.clear();
      if (taken < 0) return this.#finish("socket failed");
      out.consume(taken);
      this.#bytesSent += taken;
      if (taken < size) {
        this.#blocked = true;
        break;
      }
      chunk = out.chunk();
    }
    this.#bound();
    this.#readOn();
  }

  /** Stops reading while what this connection asked for outgrows a bound of its owner: not one more frame comes. */
  pause(): void {
    this.#pausedByOwner = true;
    this.#applyPause();
  }

  /** Frames that were received meanwhile come with the next flush. */
  resume(): void {
    this.#pausedByOwner = false;
    this.#applyPause();
  }

  /** Sends what the socket still takes, then closes. Frames not yet handed on are dropped. */
  close(reason: CloseReason): void {
    if (this.#closed) return;
    this.#reader.stop();
    this.flush();
    this.#finish(reason);
  }

  /** Time-outs, by the owner's coarse timer: at least once a second. Also sends the pings. */
  checkTimeouts(nowMs: number): void {
    if (this.#closed) return;
    const stepMs = Math.min(Math.max(0, nowMs - this.#checkedMs), stepMsMax);
    this.#checkedMs = nowMs;
    if (Number.isNaN(stepMs)) return;
    const reason = this.#overdue(stepMs);
    if (reason !== undefined) return this.#finish(reason);
    this.#sincePingMs += stepMs;
    const pingDue = this.#pingMs > 0 && this.#sincePingMs >= this.#pingMs;
    if (pingDue && this.#expectation !== "hello" && !this.#pongAwaited) {
      this.#sincePingMs = 0;
      this.#pongAwaited = true;
      encodePing(this.out, 0);
    }
    this.flush();
  }

  /** Adapter: bytes arrived. They must not be reused, unless it returns true: nobody looks at them any more. */
  received(chunk: Uint8Array): boolean {
    if (this.#closed) return true;
    this.#bytesReceived += chunk.byteLength;
    const error = this.#reader.push(chunk);
    const { spent } = this.#reader;
    this.#handled(error);
    this.#readOn();
    return spent;
  }

  /** See FrameReader. */
  giveBack(memory: Uint8Array<ArrayBuffer>): void {
    this.#reader.giveBack(memory);
  }

  /** Adapter: the socket takes bytes again. */
  drained(): void {
    this.#blocked = false;
    this.#drainedSinceCheck = true;
    this.flush();
  }

  /** Adapter: the socket is gone. */
  socketClosed(reason: "closed by the other side" | "socket failed"): void {
    this.#finish(reason);
  }

  /** Frames that waited for the end of a pause. */
  #readOn(): void {
    if (!this.#closed) this.#handled(this.#reader.readOn());
  }

  #handled(error: FrameError | undefined): void {
    if (error !== undefined) return this.close(error);
    if (this.#flushWanted) {
      this.#flushWanted = false;
      this.flush();
    }
  }

  #frame(type: number, payload: Uint8Array, fieldsBytes: number): void {
    this.#framesReceived++;
    const isPing = type === FrameType.ping || type === FrameType.pong;
    if (isPing && this.#expectation !== "hello")
      return this.#answerPing(type, payload, fieldsBytes);
    const [first, last] = allowedTypes[this.#expectation];
    if (type < first || type > last) return this.close("frame not allowed");
    this.handler.frame(this, type, payload, fieldsBytes);
  }

  #answerPing(type: number, payload: Uint8Array, fieldsBytes: number): void {
    const nonce = decodePing(payload, fieldsBytes);
    if (nonce === undefined) return this.close("malformed message");
    if (type === FrameType.pong) {
      this.#pongAwaited = false;
      return;
    }
    encodePong(this.out, nonce);
    this.#flushWanted = true;
  }

  /** How long each condition has gone on; the reason to close, where one has for too long. */
  #overdue(stepMs: number): CloseReason | undefined {
    // A full socket that takes bytes again has had an answer too, from the other side's kernel: a slow peer is not a silent one.
    const heard = this.#bytesReceived !== this.#bytesReceivedAtCheck || this.#drainedSinceCheck;
    const newFrame = this.#framesReceived !== this.#framesReceivedAtCheck;
    const sent = this.#bytesSent !== this.#bytesSentAtCheck;
    this.#bytesReceivedAtCheck = this.#bytesReceived;
    this.#framesReceivedAtCheck = this.#framesReceived;
    this.#bytesSentAtCheck = this.#bytesSent;
    this.#drainedSinceCheck = false;

    // Nobody is silent while we do not listen, nor who was not asked: after an idle time without checks the ping goes first.
    const paused = this.#pausedByOwner || this.#pausedByQueue;
    const unheardMs = this.#pingMs === 0 ? stepMs : Math.min(stepMs, this.#pingMs);
    this.#silentMs = heard || paused ? 0 : this.#silentMs + unheardMs;
    this.#frameMs = !this.#reader.midFrame || newFrame || paused ? 0 : this.#frameMs + stepMs;
    this.#stuckMs = this.out.byteLength === 0 || sent ? 0 : this.#stuckMs + stepMs;
    this.#helloMs = this.#expectation === "hello" ? this.#helloMs + stepMs : 0;

    if (this.#helloMs >= this.#limits.helloTimeoutMs) return "hello time-out";
    if (this.#frameMs >= this.#limits.frameTimeoutMs) return "frame time-out";
    if (this.#silentMs >= this.#silenceMsMax) return "silent";
    if (this.#stuckMs >= this.#silenceMsMax) return "does not read";
    return undefined;
  }

  /** The send queue's bounds: above the first, stop taking requests; above the second, cut. */
  #bound(): void {
    if (this.#closed) return;
    const queued = this.out.byteLength;
    if (queued > this.#limits.sendQueueBytesCut) return this.#finish("does not read");
    const { sendQueueBytesMax } = this.#limits;
    const pause = queued > (this.#pausedByQueue ? sendQueueBytesMax / 2 : sendQueueBytesMax);
    if (pause === this.#pausedByQueue) return;
    this.#pausedByQueue = pause;
    this.#applyPause();
    if (!pause) this.handler.drained?.(this);
  }

  #applyPause(): void {
    if (this.#closed) return;
    if (this.#pausedByOwner || this.#pausedByQueue) {
      this.#reader.hold();
      this.#socket.pause();
    } else {
      this.#reader.release();
      this.#socket.resume();
    }
  }

  #finish(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reader.stop();
    const unsent = this.out.byteLength > 0;
    this.out.clear();
    // What the socket did not take is lost either way; waiting for more would keep a dead connection.
    if (unsent) this.#socket.terminate();
    else this.#socket.end();
    this.#onGone?.(this, reason);
    this.handler.closed(this, reason);
  }
}

export interface ConnectionFigures {
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly framesReceived: number;
  readonly sendQueueBytes: number;
}

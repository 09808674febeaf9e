/**
 * A client without manners: a bare socket that sends whatever bytes a test likes and reads only when told to. And the frames it needs, laid
 * out by hand, so that wrong ones can be made.
 */
import type { Socket } from "bun";
import { crc32 } from "node:zlib";
import { encodeRead, encodeWrite } from "../../src/wire/client-messages.ts";
import { frameHeaderBytes, writeFrameHeader } from "../../src/wire/frame.ts";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import { decodeHelloReply, encodeHello } from "../../src/wire/hello.ts";
import {
  type Consistency,
  FrameType,
  type Hello,
  type HelloReply,
  type ServerReply,
} from "../../src/wire/messages.ts";
import { decodeServerReply } from "../../src/wire/client-messages.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { until } from "../e2e/cluster.ts";

export const clientHello: Hello = {
  role: "client",
  versionMin: 1,
  versionMax: 1,
  features: 0,
  software: "misuse",
};

export interface RawOptions {
  /** Sends this first; undefined = nothing. */
  readonly hello?: Hello;
  /** Never takes a byte out of the kernel's buffer. */
  readonly deaf?: boolean;
  /** Sees each frame after the hello's reply; then nothing is decoded and kept. */
  readonly onFrame?: (type: number, payload: Uint8Array, fieldsBytes: number) => void;
  /** After the frames of one piece of input. */
  readonly onRead?: () => void;
}

export class RawClient implements Disposable {
  readonly replies: ServerReply[] = [];
  helloReply: HelloReply | undefined;
  pongs = 0;
  /** When the other side closed; NaN while it is open. */
  closedMs = Number.NaN;
  readonly openedMs = performance.now();
  bytesReceived = 0;
  readonly #options: RawOptions;
  readonly #reader: FrameReader;
  #socket!: Socket<undefined>;
  /** Given and not yet taken by the kernel. */
  #unsent: Uint8Array[] = [];
  #unsentBytes = 0;

  private constructor(options: RawOptions) {
    this.#options = options;
    this.#reader = new FrameReader(2 ** 30, (type, payload, fieldsBytes) =>
      this.#frame(type, payload, fieldsBytes),
    );
  }

  /** Connects to `host:port`; with a hello, waits for its reply unless it is deaf. */
  static async connect(address: string, options: RawOptions = {}): Promise<RawClient> {
    const client = new RawClient(options);
    const [hostname, port] = address.split(":");
    client.#socket = await Bun.connect({
      hostname: hostname!,
      port: Number(port),
      socket: {
        binaryType: "uint8array",
        data: (_socket, chunk) => client.#received(chunk),
        drain: () => client.#drain(),
        close: () => {
          client.closedMs = performance.now();
        },
        error: () => {},
      },
    });
    if (options.deaf === true) client.#socket.pause();
    const { hello } = options;
    if (hello === undefined) return client;
    client.send(frameOf((out) => encodeHello(out, hello)));
    if (options.deaf !== true) {
      await until("the hello is answered", () => client.helloReply !== undefined || client.closed);
    }
    return client;
  }

  get closed(): boolean {
    return !Number.isNaN(this.closedMs);
  }

  /** For how long it was open. */
  get lifeMs(): number {
    return this.closedMs - this.openedMs;
  }

  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  /** The rest waits here until the kernel takes it. */
  send(bytes: Uint8Array): void {
    this.#unsent.push(bytes);
    this.#unsentBytes += bytes.byteLength;
    if (this.#unsent.length === 1) this.#drain();
  }

  read(): void {
    this.#socket.resume();
  }

  async waitClosed(what: string, timeoutMs?: number): Promise<void> {
    await until(`closed: ${what}`, () => this.closed, timeoutMs);
  }

  async waitReplies(count: number): Promise<void> {
    await until(`${count} replies`, () => this.replies.length >= count || this.closed);
    if (this.replies.length < count) throw new Error(`closed after ${this.replies.length} replies`);
  }

  [Symbol.dispose](): void {
    if (!this.closed) this.#socket.terminate();
  }

  #drain(): void {
    while (this.#unsent.length > 0 && !this.closed) {
      const bytes = this.#unsent[0]!;
      const taken = this.#socket.write(bytes);
      if (taken < 0) return;
      this.#unsentBytes -= taken;
      if (taken < bytes.byteLength) {
        this.#unsent[0] = bytes.subarray(taken);
        return;
      }
      this.#unsent.shift();
    }
  }

  #received(chunk: Uint8Array): void {
    this.bytesReceived += chunk.byteLength;
    const error = this.#reader.push(chunk);
    if (error !== undefined) throw new Error(`the node sent what is no frame: ${error}`);
    this.#options.onRead?.();
  }

  #frame(type: number, payload: Uint8Array, fieldsBytes: number): void {
    if (type === FrameType.helloReply) {
      this.helloReply = decodeHelloReply(payload, fieldsBytes);
      return;
    }
    if (type === FrameType.pong) {
      this.pongs++;
      return;
    }
    if (this.#options.onFrame !== undefined)
      return this.#options.onFrame(type, payload, fieldsBytes);
    const reply = decodeServerReply(type, payload, fieldsBytes);
    if (reply === undefined) throw new Error(`the node sent a malformed frame of type ${type}`);
    this.replies.push(reply);
  }
}

/** What an encoder writes, as bytes. */
export function frameOf(encode: (out: SendBuffer) => void): Uint8Array {
  const out = new SendBuffer(Number.MAX_SAFE_INTEGER);
  encode(out);
  return out.chunk()!.slice();
}

/** A frame with a right crc around any payload. */
export function rawFrame(
  type: number,
  payload: Uint8Array,
  fieldsBytes = payload.byteLength,
): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes + payload.byteLength);
  bytes.set(payload, frameHeaderBytes);
  writeFrameHeader(bytes, new DataView(bytes.buffer), 0, type, fieldsBytes, payload.byteLength);
  return bytes;
}

/** A header alone, of a frame that claims `length` bytes of payload. */
export function rawHeader(type: number, length: number): Uint8Array {
  const bytes = rawFrame(type, new Uint8Array(0));
  const view = new DataView(bytes.buffer);
  view.setUint32(8, length, true);
  view.setUint32(12, crc32(bytes.subarray(0, 12)), true);
  return bytes;
}

export function writeFrame(request: number, section: Uint8Array, group = 0): Uint8Array {
  return frameOf((out) => encodeWrite(out, request, group, 0, section));
}

export function readFrame(
  request: number,
  consistency: Consistency,
  queries: readonly Uint8Array[],
): Uint8Array {
  const bytes = Buffer.concat(
    queries.map((query) => {
      const piece = Buffer.alloc(4 + query.byteLength);
      piece.writeUInt32LE(query.byteLength);
      piece.set(query, 4);
      return piece;
    }),
  );
  return frameOf((out) => encodeRead(out, request, 0, 0, consistency, 0, queries.length, bytes));
}

/** `count` times the same bytes, in one piece. */
export function repeated(bytes: Uint8Array, count: number): Uint8Array {
  const all = new Uint8Array(bytes.byteLength * count);
  for (let i = 0; i < count; i++) all.set(bytes, i * bytes.byteLength);
  return all;
}

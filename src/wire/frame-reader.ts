/**
 * Splits a stream of bytes into frames. A frame that lies within one chunk comes out as a view into it; only one that straddles chunks
 * is put together, and a piece of a snapshot: gigabytes of them come, and pass through memory that is used again. The declared length is
 * bounded before anything is allotted for it, and memory grows only as its bytes arrive.
 * Chunks are kept by whoever keeps a payload, so they must not be reused by their giver, unless `spent` says so. Pure.
 */
import { checkFrameHeader, type FrameError, frameCrc, frameHeaderBytes } from "./frame.ts";
import { freeMemory } from "./free-memory.ts";
import { FrameType } from "./messages.ts";

/** Takes the frames in order. `fieldsBytes` bytes of `payload` were covered by the frame's crc; the rest has its own. */
export type FrameHandler = (type: number, payload: Uint8Array, fieldsBytes: number) => void;

/** First allotment for a frame that straddles chunks, as a chunk of a snapshot needs it; from there it grows fourfold as it fills. */
const firstPartBytes = 257 * 1024;
const growth = 4;
/** Of payloads that were put together: as many pieces of a snapshot may come before one is looked at. */
const sparesMax = 5;

export class FrameReader {
  readonly #handler: FrameHandler;
  /** Longest frame that is accepted, header included: low until the hello is read, then raised. Holds from the next header on. */
  frameBytesMax: number;

  /** The header of a frame whose header or payload is not complete. */
  readonly #header = new Uint8Array(frameHeaderBytes);
  readonly #headerView = new DataView(this.#header.buffer);
  #headerFilled = 0;
  /** The payload of such a frame, once its header is complete. */
  #payload: Uint8Array<ArrayBuffer> | undefined;
  #payloadLength = 0;
  #payloadFilled = 0;
  readonly #spares: Uint8Array<ArrayBuffer>[] = [];
  #spareBytes = 0;

  /** Received while nothing was to be handed on, in order. */
  #rest: Uint8Array[] = [];
  #restBytes = 0;
  #held = false;
  #spent = false;

  #error: FrameError | undefined;
  #stopped = false;
  #pushing = false;

  constructor(frameBytesMax: number, handler: FrameHandler) {
    this.frameBytesMax = frameBytesMax;
    this.#handler = handler;
  }

  /** Why the stream is broken; from then on nothing more is read. */
  get error(): FrameError | undefined {
    return this.#error;
  }

  /** Of the chunk that was pushed last nothing is kept, here or by the handler: all that it had was put together elsewhere, or passed over. */
  get spent(): boolean {
    return this.#spent;
  }

  /** True between the first and the last byte of a frame. */
  get midFrame(): boolean {
    return this.#headerFilled > 0;
  }

  /** Memory allotted for a frame that is not complete, and for what is held back. */
  get assemblyBytes(): number {
    return (this.#payload?.byteLength ?? 0) + this.#restBytes + this.#spareBytes;
  }

  /** Memory of a payload that was put together, and that nobody looks at any more: for the next that is as long. */
  giveBack(memory: Uint8Array<ArrayBuffer>): void {
    if (this.#stopped || memory.byteLength > firstPartBytes) return freeMemory(memory);
    this.#spares.push(memory);
    this.#spareBytes += memory.byteLength;
    if (this.#spares.length > sparesMax) freeMemory(this.#takeSpare(0));
  }

  /** Hands on no more frames, from within a handler on: what has come and comes waits for `release` and `readOn`. */
  hold(): void {
    this.#held = true;
  }

  release(): void {
    this.#held = false;
  }

  /** Goes on with what was held back. Returns the error, if that breaks the stream. Does nothing within a handler. */
  readOn(): FrameError | undefined {
    if (this.#rest.length === 0 || this.#held || this.#pushing) return undefined;
    const rest = this.#rest;
    this.#rest = [];
    this.#restBytes = 0;
    for (const chunk of rest) this.push(chunk);
    return this.#error;
  }

  /** No more frames, not even the rest of the chunk at hand. */
  stop(): void {
    this.#stopped = true;
    this.#rest = [];
    this.#restBytes = 0;
    if (this.#payload !== undefined) freeMemory(this.#payload);
    this.#payload = undefined;
    while (this.#spares.length > 0) freeMemory(this.#takeSpare(0));
    this.#headerFilled = 0;
  }

  /** Hands on each frame that the chunk completes. Returns the error, if the stream is broken. */
  push(chunk: Uint8Array): FrameError | undefined {
    if (this.#pushing) throw new Error("frame reader: push within its own handler");
    this.#spent = true;
    if (this.#held || this.#rest.length > 0) {
      this.#keep(chunk, 0);
      return this.#error;
    }
    this.#pushing = true;
    try {
      let at = 0;
      if (this.#headerFilled > 0) at = this.#continue(chunk);
      if (this.#held) this.#keep(chunk, at);
      else if (at < chunk.byteLength && !this.#stopped) this.#split(chunk, at);
    } finally {
      this.#pushing = false;
    }
    return this.#error;
  }

  /** Whole frames from `at` on; what is left of the chunk becomes the incomplete frame. */
  #split(chunk: Uint8Array, start: number): void {
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let at = start;
    while (chunk.byteLength - at >= frameHeaderBytes) {
      const problem = checkFrameHeader(view, at, this.frameBytesMax);
      if (problem !== undefined) return this.#fail(problem);
      const length = view.getUint32(at + 8, true);
      const payloadAt = at + frameHeaderBytes;
      if (length > chunk.byteLength - payloadAt) break;
      const type = view.getUint8(at + 3);
      const fieldsBytes = view.getUint32(at + 4, true);
      const crc = frameCrc(chunk, at, chunk, payloadAt, fieldsBytes);
      if (crc !== view.getUint32(at + 12, true)) return this.#fail("bad crc");
      const part = chunk.subarray(payloadAt, payloadAt + length);
      const payload = type === FrameType.snapshotChunk ? this.#copyOf(part) : part;
      at = payloadAt + length;
      if (payload === part) this.#spent = false;
      this.#handler(type, payload, fieldsBytes);
      if (this.#stopped) return;
      if (this.#held) return this.#keep(chunk, at);
    }
    if (at < chunk.byteLength) this.#continue(at === 0 ? chunk : chunk.subarray(at));
  }

  #keep(chunk: Uint8Array, at: number): void {
    if (this.#stopped || at === chunk.byteLength) return;
    this.#spent = false;
    this.#rest.push(at === 0 ? chunk : chunk.subarray(at));
    this.#restBytes += chunk.byteLength - at;
  }

  /** Adds to the incomplete frame; returns how many bytes of the chunk it took. */
  #continue(chunk: Uint8Array): number {
    let at = 0;
    if (this.#payload === undefined) {
      at = Math.min(frameHeaderBytes - this.#headerFilled, chunk.byteLength);
      this.#header.set(chunk.subarray(0, at), this.#headerFilled);
      this.#headerFilled += at;
      if (this.#headerFilled < frameHeaderBytes) return at;
      const problem = checkFrameHeader(this.#headerView, 0, this.frameBytesMax);
      if (problem !== undefined) {
        this.#fail(problem);
        return at;
      }
      this.#payloadLength = this.#headerView.getUint32(8, true);
      this.#payload = this.#firstPart();
      this.#payloadFilled = 0;
    }
    const taken = Math.min(this.#payloadLength - this.#payloadFilled, chunk.byteLength - at);
    const payload = this.#withRoom(this.#payload, this.#payloadFilled + taken);
    payload.set(chunk.subarray(at, at + taken), this.#payloadFilled);
    this.#payloadFilled += taken;
    if (this.#payloadFilled === this.#payloadLength) this.#complete(payload);
    return at + taken;
  }

  #firstPart(): Uint8Array<ArrayBuffer> {
    return (
      this.#spareOf(this.#payloadLength) ??
      new Uint8Array(Math.min(this.#payloadLength, firstPartBytes))
    );
  }

  #copyOf(part: Uint8Array): Uint8Array {
    const copy = this.#spareOf(part.byteLength) ?? new Uint8Array(part.byteLength);
    copy.set(part);
    return copy;
  }

  #spareOf(length: number): Uint8Array<ArrayBuffer> | undefined {
    const at = this.#spares.findIndex(({ byteLength }) => byteLength === length);
    return at < 0 ? undefined : this.#takeSpare(at);
  }

  #takeSpare(at: number): Uint8Array<ArrayBuffer> {
    const [spare] = this.#spares.splice(at, 1) as [Uint8Array<ArrayBuffer>];
    this.#spareBytes -= spare.byteLength;
    return spare;
  }

  #withRoom(payload: Uint8Array<ArrayBuffer>, needed: number): Uint8Array<ArrayBuffer> {
    if (needed <= payload.byteLength) return payload;
    let capacity = payload.byteLength;
    while (capacity < needed) capacity *= growth;
    const larger = new Uint8Array(Math.min(capacity, this.#payloadLength));
    larger.set(payload.subarray(0, this.#payloadFilled));
    freeMemory(payload);
    this.#payload = larger;
    return larger;
  }

  #complete(payload: Uint8Array): void {
    const fieldsBytes = this.#headerView.getUint32(4, true);
    this.#payload = undefined;
    this.#headerFilled = 0;
    const crc = frameCrc(this.#header, 0, payload, 0, fieldsBytes);
    if (crc !== this.#headerView.getUint32(12, true)) return this.#fail("bad crc");
    this.#handler(this.#headerView.getUint8(3), payload, fieldsBytes);
  }

  #fail(error: FrameError): void {
    this.#error = error;
    this.stop();
  }
}

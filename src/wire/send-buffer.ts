/**
 * Where encoders put frames and sockets take bytes. Small pieces are copied into one reused array; large bodies are kept by
 * reference, in their place in the stream [40]. What a socket did not take stays without being copied again. Pure.
 *
 * A frame is built in place: `begin`, write the fields through `view`, then `append` or `attach` bodies, then `end`, which writes
 * the header. One frame at a time; only ended frames are handed out.
 */
import { crc32 } from "node:zlib";
import { frameHeaderBytes, writeFrameHeader } from "./frame.ts";

/** Bodies longer than this are sent from where they lie. */
export const bodyDirectBytes = 64 * 1024;

/** Kept when empty; a larger array is let go once it has been too large for `calmDrains` drains in a row. */
const keptBytes = 64 * 1024;
const calmDrains = 64;
const noFrame = -1;
/** Up to so many bytes a loop is faster than a view and a call of the runtime. */
const loopCopyMax = 96;

/** A body kept by reference: it goes out once the copied bytes before `at` are out. */
interface Direct {
  at: number;
  readonly bytes: Uint8Array;
}

export class SendBuffer {
  readonly #directBytesMin: number;
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  /** Copied bytes not yet taken lie in [head, tail). */
  #head = 0;
  #tail = 0;
  /** Bodies by reference not yet taken, in stream order. */
  readonly #direct: Direct[] = [];
  /** Bytes of the first of these that are already taken. */
  #directTaken = 0;
  /** Unsent bytes of ended frames. */
  #unsent = 0;

  /** The frame under construction: where its header is, or `noFrame`. */
  #frame = noFrame;
  #frameType = 0;
  #frameFieldsBytes = 0;
  /** Its bodies by reference: how many bytes, and the length of #direct before it began. */
  #frameDirectBytes = 0;
  #frameDirectFrom = 0;

  #peak = 0;
  #calm = 0;

  constructor(directBytesMin = bodyDirectBytes) {
    this.#directBytesMin = directBytesMin;
    this.#bytes = new Uint8Array(4 * 1024);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Unsent bytes of all ended frames. */
  get byteLength(): number {
    return this.#unsent;
  }

  /** Memory of the copied part, for figures and tests. */
  get capacity(): number {
    return this.#bytes.byteLength;
  }

  /** For writing fields. Changes when the buffer grows: read it again after each call of begin, reserve, append and attach. */
  get view(): DataView {
    return this.#view;
  }

  /** Where the fields of the frame under construction begin in `view`. Moves like `view`. */
  get fieldsAt(): number {
    return this.#frame + frameHeaderBytes;
  }

  /** Begins a frame with room for its fields; returns where they begin in `view`. All `fieldsBytes` must be written. */
  begin(type: number, fieldsBytes: number): number {
    if (this.#frame !== noFrame) throw new Error("send buffer: a frame is already being built");
    const at = this.#reserve(frameHeaderBytes + fieldsBytes);
    this.#frame = at;
    this.#frameType = type;
    this.#frameFieldsBytes = fieldsBytes;
    this.#frameDirectBytes = 0;
    this.#frameDirectFrom = this.#direct.length;
    return at + frameHeaderBytes;
  }

  /** Writes `bytes` over the fields, `offset` bytes after their beginning. For fields that are text or msgpack. */
  setFields(offset: number, bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.fieldsAt + offset);
  }

  /** Room for `byteCount` more body bytes, which the caller writes through `view` at the returned offset. */
  reserve(byteCount: number): number {
    this.#mustBuild();
    return this.#reserve(byteCount);
  }

  /** Copies `bytes` to the end of the body. */
  append(bytes: Uint8Array): void {
    this.#mustBuild();
    const at = this.#reserve(bytes.byteLength);
    this.#bytes.set(bytes, at);
  }

  /** Copies a part of `bytes` to the end of the body. A short one costs no view of it. */
  appendFrom(bytes: Uint8Array, offset: number, byteCount: number): void {
    if (byteCount > loopCopyMax) return this.append(bytes.subarray(offset, offset + byteCount));
    this.#mustBuild();
    const at = this.#reserve(byteCount);
    const to = this.#bytes;
    for (let i = 0; i < byteCount; i++) to[at + i] = bytes[offset + i]!;
  }

  /**
   * Puts `bytes` at the end of the body, by reference where that is worth it: the caller must not change them until they are sent.
   */
  attach(bytes: Uint8Array): void {
    if (bytes.byteLength <= this.#directBytesMin) return this.append(bytes);
    this.#mustBuild();
    this.#direct.push({ at: this.#tail, bytes });
    this.#frameDirectBytes += bytes.byteLength;
  }

  /** Body bytes of the frame under construction so far. */
  get bodyBytes(): number {
    const copied = this.#tail - this.fieldsAt - this.#frameFieldsBytes;
    return copied + this.#frameDirectBytes;
  }

  /** Crc of the body so far: for messages that carry it among their fields. */
  bodyCrc(): number {
    let from = this.fieldsAt + this.#frameFieldsBytes;
    let crc = 0;
    for (let i = this.#frameDirectFrom; i < this.#direct.length; i++) {
      const { at, bytes } = this.#direct[i]!;
      crc = crc32(bytes, crc32(this.#bytes.subarray(from, at), crc));
      from = at;
    }
    return crc32(this.#bytes.subarray(from, this.#tail), crc);
  }

  /** Ends the frame: from now on it can be taken. */
  end(): void {
    this.#mustBuild();
    const length = this.#frameFieldsBytes + this.bodyBytes;
    writeFrameHeader(
      this.#bytes,
      this.#view,
      this.#frame,
      this.#frameType,
      this.#frameFieldsBytes,
      length,
    );
    this.#unsent += frameHeaderBytes + length;
    this.#frame = noFrame;
  }

  /** Drops the frame under construction, as if it had never begun. */
  abandon(): void {
    this.#mustBuild();
    this.#tail = this.#frame;
    this.#direct.length = this.#frameDirectFrom;
    this.#frame = noFrame;
  }

  /** The next bytes in order, as long a run as lies together; undefined when nothing is unsent. Valid until the next call of another method. */
  chunk(): Uint8Array | undefined {
    if (this.#unsent === 0) return undefined;
    const direct = this.#direct[0];
    if (direct?.at === this.#head) return direct.bytes.subarray(this.#directTaken);
    const ended = this.#frame === noFrame ? this.#tail : this.#frame;
    return this.#bytes.subarray(this.#head, Math.min(direct?.at ?? ended, ended));
  }

  /** The first `byteCount` bytes of the last `chunk()` are sent. */
  consume(byteCount: number): void {
    if (byteCount > this.#unsent) throw new Error("send buffer: consumed more than there is");
    const direct = this.#direct[0];
    if (direct?.at === this.#head) {
      this.#directTaken += byteCount;
      if (this.#directTaken === direct.bytes.byteLength) this.#nextDirect();
    } else {
      this.#head += byteCount;
    }
    this.#unsent -= byteCount;
    if (this.#unsent === 0 && this.#frame === noFrame) this.#drained();
  }

  /** Drops everything, for a connection that is gone. */
  clear(): void {
    this.#frame = noFrame;
    this.#unsent = 0;
    this.#drained();
  }

  #mustBuild(): void {
    if (this.#frame === noFrame) throw new Error("send buffer: no frame is being built");
  }

  #nextDirect(): void {
    this.#directTaken = 0;
    this.#direct.shift();
    this.#frameDirectFrom--;
  }

  #drained(): void {
    this.#head = 0;
    this.#tail = 0;
    this.#direct.length = 0;
    this.#directTaken = 0;
    this.#shrink();
  }

  /** After a burst the memory goes, yet not between the waves of a steady load. */
  #shrink(): void {
    const tooLarge = this.#bytes.byteLength > keptBytes && this.#peak * 4 <= this.#bytes.byteLength;
    this.#peak = 0;
    this.#calm = tooLarge ? this.#calm + 1 : 0;
    if (this.#calm < calmDrains) return;
    this.#calm = 0;
    this.#resize(Math.max(keptBytes, this.#bytes.byteLength / 4));
  }

  #reserve(byteCount: number): number {
    if (this.#tail + byteCount > this.#bytes.byteLength) this.#makeRoom(byteCount);
    const at = this.#tail;
    this.#tail = at + byteCount;
    if (this.#tail > this.#peak) this.#peak = this.#tail;
    return at;
  }

  /** Moves what is unsent to the front where at least half of the array is free there, else grows: either way amortised. */
  #makeRoom(byteCount: number): void {
    const needed = this.#tail - this.#head + byteCount;
    if (needed * 2 <= this.#bytes.byteLength) {
      this.#bytes.copyWithin(0, this.#head, this.#tail);
      this.#shift();
    } else {
      let capacity = this.#bytes.byteLength * 2;
      while (capacity < needed * 2) capacity *= 2;
      this.#resize(capacity);
    }
  }

  #resize(capacity: number): void {
    const bytes = new Uint8Array(capacity);
    bytes.set(this.#bytes.subarray(this.#head, this.#tail));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
    this.#shift();
  }

  /** The unsent bytes now begin at 0. */
  #shift(): void {
    const by = this.#head;
    for (const direct of this.#direct) direct.at -= by;
    if (this.#frame !== noFrame) this.#frame -= by;
    this.#tail -= by;
    this.#head = 0;
  }
}

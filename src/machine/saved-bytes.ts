/** What a machine saves beside its data, as bytes: written and read back in the same order. Pure. */
import { readSafe, writeSafe } from "../wire/batch.ts";

export class BytesWriter {
  #bytes = new Uint8Array(1_024);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  u32(value: number): void {
    const at = this.#take(4);
    this.#view.setUint32(at, value, true);
  }

  /** A safe integer, in eight bytes. */
  safe(value: number): void {
    const at = this.#take(8);
    writeSafe(this.#view, at, value);
  }

  /** Without their length. */
  bytes(bytes: Uint8Array): void {
    const at = this.#take(bytes.byteLength);
    this.#bytes.set(bytes, at);
  }

  /** All of it, as memory of its own. */
  end(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  /** Where they go; the arrays may be new ones afterwards. */
  #take(size: number): number {
    const at = this.#length;
    this.#length += size;
    if (this.#length > this.#bytes.byteLength) {
      const bytes = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.byteLength));
      bytes.set(this.#bytes.subarray(0, at));
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer);
    }
    return at;
  }
}

/** The bytes are not what was ever saved: those of a snapshot are looked through before it is taken over, so of what is live that is a bug. */
export class SavedBytesError extends Error {
  override readonly name = "SavedBytesError";
}

/** Throws a SavedBytesError where the bytes end too early, or hold no number where there should be one. */
export class BytesReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  safe(): number {
    const value = readSafe(this.#view, this.#take(8));
    if (Number.isNaN(value)) throw new SavedBytesError("a number is beyond the safe integers");
    return value;
  }

  /** A copy. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length);
    return this.#bytes.slice(at, at + length);
  }

  get ended(): boolean {
    return this.#at === this.#bytes.byteLength;
  }

  #take(size: number): number {
    const at = this.#at;
    if (size > this.#bytes.byteLength - at) throw new SavedBytesError("they end too early");
    this.#at += size;
    return at;
  }
}

/**
 * Bytes on their way through, in order, in memory of their own that is used again and again. What came over a socket and is kept until somebody wants it outlives
 * a collection of young garbage, and then lies about until a full one. Pure.
 */
import { freeMemory } from "../../wire/free-memory.ts";

const firstBytes = 64 * 1_024;

export class ByteRing {
  #bytes = new Uint8Array(0);
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Copies them. */
  push(bytes: Uint8Array): void {
    const needed = this.#length + bytes.byteLength;
    if (needed > this.#bytes.byteLength) this.#grow(needed);
    const capacity = this.#bytes.byteLength;
    const at = (this.#head + this.#length) % Math.max(1, capacity);
    const first = Math.min(bytes.byteLength, capacity - at);
    this.#bytes.set(bytes.subarray(0, first), at);
    this.#bytes.set(bytes.subarray(first), 0);
    this.#length = needed;
  }

  /** Moves the first of them out, as many as `into` has room for: there must be so many. */
  take(into: Uint8Array): void {
    const { byteLength } = into;
    if (byteLength > this.#length) throw new Error("byte ring: there is not so much in it");
    this.#copy(into);
    this.#length -= byteLength;
    this.#head = this.#length === 0 ? 0 : (this.#head + byteLength) % this.#bytes.byteLength;
  }

  clear(): void {
    freeMemory(this.#bytes);
    this.#bytes = new Uint8Array(0);
    this.#head = 0;
    this.#length = 0;
  }

  #copy(into: Uint8Array): void {
    const first = this.#bytes.subarray(this.#head, this.#head + into.byteLength);
    into.set(first);
    into.set(this.#bytes.subarray(0, into.byteLength - first.byteLength), first.byteLength);
  }

  #grow(needed: number): void {
    let capacity = Math.max(firstBytes, this.#bytes.byteLength);
    while (capacity < needed) capacity *= 2;
    const bytes = new Uint8Array(capacity);
    this.#copy(bytes.subarray(0, this.#length));
    freeMemory(this.#bytes);
    this.#bytes = bytes;
    this.#head = 0;
  }
}

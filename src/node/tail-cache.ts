/**
 * The newest batches of one group's log, with bodies, bounded in bytes: sending and applying take them from here and only fall back to
 * the store for what is older [8]. All groups of a shard have a bound in common as well.
 */
import type { CommonBytes } from "../machine/common-bytes.ts";
import { lastIndexOf, type Batch } from "../wire/batch.ts";

/** Given up, and still in their places, until they are more than that and more than what is kept. */
const emptyPlacesMax = 64;

export class TailCache {
  /** From #head on; the places before it are empty. */
  #batches: (Batch | undefined)[] = [];
  #head = 0;
  #bytes = 0;
  readonly #bytesMax: number;
  #common: CommonBytes | undefined;
  /** As the others know them. */
  #toldBytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** From now on it shares that bound. */
  share(common: CommonBytes): void {
    this.#common = common;
    this.#tell();
  }

  #tell(): void {
    this.#common?.change(this.#toldBytes, this.#bytes);
    this.#toldBytes = this.#bytes;
  }

  /** Gives up what others need more: all but the newest, if need be. */
  yield(): void {
    if (this.#common?.wantsBack(this.#bytes) !== true) return;
    while (this.#common.wantsBack(this.#bytes) && this.#head < this.#batches.length - 1) {
      this.#dropOldest();
      this.#tell();
    }
    this.#closeUp();
  }

  #dropOldest(): void {
    this.#bytes -= this.#batches[this.#head]!.bytes.byteLength;
    this.#batches[this.#head++] = undefined;
  }

  /** At each append a few go: what stays is not moved for each of them. */
  #closeUp(): void {
    if (this.#head <= emptyPlacesMax || this.#head * 2 <= this.#batches.length) return;
    this.#batches = this.#batches.slice(this.#head);
    this.#head = 0;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Adds batches in order; the first may supersede what is here from its first index on. */
  append(batches: readonly Batch[]): void {
    const first = batches[0];
    if (first === undefined) return;
    this.truncate(first.firstIndex);
    for (const batch of batches) {
      this.#batches.push(batch);
      this.#bytes += batch.bytes.byteLength;
    }
    while (this.#bytes > this.#bytesMax && this.#head < this.#batches.length - 1) {
      this.#dropOldest();
    }
    this.#closeUp();
    this.#tell();
    this.yield();
  }

  /**
   * Whole batches from the one that begins at `fromIndex` (or spans it) through `toIndex`, at most `bytesMax` but at least one;
   * undefined when the first is no longer, or not yet, here.
   */
  take(fromIndex: number, toIndex: number, bytesMax: number): Batch[] | undefined {
    let at = this.#find(fromIndex);
    if (at < 0) return undefined;
    const taken: Batch[] = [];
    let bytes = 0;
    for (; at < this.#batches.length; at++) {
      const batch = this.#batches[at]!;
      bytes += batch.bytes.byteLength;
      if (lastIndexOf(batch) > toIndex || (taken.length > 0 && bytes > bytesMax)) break;
      taken.push(batch);
    }
    return taken;
  }

  /** The log begins anew elsewhere. */
  clear(): void {
    this.#batches = [];
    this.#head = this.#bytes = 0;
    this.#tell();
  }

  /** Drops what begins at or after an index. */
  truncate(fromIndex: number): void {
    while (this.#batches.length > this.#head && this.#batches.at(-1)!.firstIndex >= fromIndex) {
      this.#bytes -= this.#batches.pop()!.bytes.byteLength;
    }
    this.#tell();
  }

  /** Position of the batch that spans `index`, or -1. */
  #find(index: number): number {
    let low = this.#head;
    let high = this.#batches.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const batch = this.#batches[middle]!;
      if (index < batch.firstIndex) high = middle - 1;
      else if (index > lastIndexOf(batch)) low = middle + 1;
      else return middle;
    }
    return -1;
  }
}

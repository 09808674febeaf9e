/**
 * The core's view of the log: 36 bytes per live batch in typed arrays, no bodies [8]. Indexes count commands; every position that matters
 * (commit, match, prev) is the end of a batch, because a batch is never split [1]. Batches are found by binary search.
 *
 * A batch is named by its ordinal, 0 for the oldest that is held; ordinals shift when the log is compacted, so nobody keeps them.
 */
import type { BatchInfo, LogStart } from "../wire/batch.ts";

const capacityMin = 4;

export class Log {
  #start: LogStart;
  /** Live batches are the slots [#head, #tail) of each array. */
  #head = 0;
  #tail = 0;
  #bytesTotal = 0;
  #firstIndex = new Float64Array(capacityMin);
  #count = new Uint32Array(capacityMin);
  #bytes = new Uint32Array(capacityMin);
  #term = new Float64Array(capacityMin);
  #crc = new Uint32Array(capacityMin);
  #timeMs = new Float64Array(capacityMin);

  constructor(start: LogStart) {
    this.#start = start;
  }

  /** The position before the first batch that is held. */
  get start(): LogStart {
    return this.#start;
  }

  get length(): number {
    return this.#tail - this.#head;
  }

  /** Bytes of all batches that are held. */
  get bytes(): number {
    return this.#bytesTotal;
  }

  get lastIndex(): number {
    return this.#tail === this.#head ? this.#start.index : this.#lastOf(this.#tail - 1);
  }

  get lastTerm(): number {
    return this.#tail === this.#head ? this.#start.term : this.#term[this.#tail - 1]!;
  }

  get lastCrc(): number {
    return this.#tail === this.#head ? this.#start.crc : this.#crc[this.#tail - 1]!;
  }

  get lastTimeMs(): number {
    return this.#tail === this.#head ? this.#start.timeMs : this.#timeMs[this.#tail - 1]!;
  }

  firstIndexAt(ordinal: number): number {
    return this.#firstIndex[this.#head + ordinal]!;
  }

  lastIndexAt(ordinal: number): number {
    return this.#lastOf(this.#head + ordinal);
  }

  termAt(ordinal: number): number {
    return this.#term[this.#head + ordinal]!;
  }

  crcAt(ordinal: number): number {
    return this.#crc[this.#head + ordinal]!;
  }

  bytesAt(ordinal: number): number {
    return this.#bytes[this.#head + ordinal]!;
  }

  /** The position at the end of a batch, as a log that is compacted to there begins. */
  endAt(ordinal: number): LogStart {
    const slot = this.#head + ordinal;
    return {
      index: this.#lastOf(slot),
      term: this.#term[slot]!,
      crc: this.#crc[slot]!,
      timeMs: this.#timeMs[slot]!,
    };
  }

  /** The position of the log's start, or of the batch that ends exactly at `index`; undefined where none does. */
  positionAt(index: number): LogStart | undefined {
    if (index === this.#start.index) return this.#start;
    const ordinal = this.find(index);
    return ordinal >= 0 && this.lastIndexAt(ordinal) === index ? this.endAt(ordinal) : undefined;
  }

  /** Ordinal of the batch that spans `index`; -1 where the log holds none. */
  find(index: number): number {
    if (index <= this.#start.index || index > this.lastIndex) return -1;
    let low = this.#head;
    let high = this.#tail - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#firstIndex[middle]! <= index) low = middle;
      else high = middle - 1;
    }
    return low - this.#head;
  }

  /** Term of the batch that ends exactly at `index` (or of the log's start); -1 where none does. */
  termOfEnd(index: number): number {
    if (index === this.#start.index) return this.#start.term;
    const ordinal = this.find(index);
    return ordinal >= 0 && this.lastIndexAt(ordinal) === index ? this.termAt(ordinal) : -1;
  }

  /** Crc of the batch that ends exactly at `index` (or of the log's start); -1 where none does. */
  crcOfEnd(index: number): number {
    if (index === this.#start.index) return this.#start.crc;
    const ordinal = this.find(index);
    return ordinal >= 0 && this.lastIndexAt(ordinal) === index ? this.crcAt(ordinal) : -1;
  }

  /** The highest batch end at or below `index`; the log's start where that is lower. */
  floorToEnd(index: number): number {
    if (index >= this.lastIndex) return this.lastIndex;
    const ordinal = this.find(index);
    if (ordinal < 0) return this.#start.index;
    return this.lastIndexAt(ordinal) === index ? index : this.firstIndexAt(ordinal) - 1;
  }

  /**
   * The highest batch end at or below `index` whose term is at most `term`: a log that differs at (index, term) can match this one only
   * there or below. Terms never fall along a log, so this too is a binary search.
   */
  floorToTerm(index: number, term: number): number {
    const end = this.floorToEnd(index);
    if (this.termOfEnd(end) <= term || end === this.#start.index) return end;
    let low = -1;
    let high = this.find(end) - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.termAt(middle) <= term) low = middle;
      else high = middle - 1;
    }
    return low < 0 ? this.#start.index : this.lastIndexAt(low);
  }

  /** Ordinal of the last batch behind which at least `bytes` are held; -1 where there is none. Costs what lies before it. */
  lastBeyond(bytes: number): number {
    let ordinal = -1;
    let kept = this.#bytesTotal;
    while (ordinal + 1 < this.length && kept - this.bytesAt(ordinal + 1) >= bytes) {
      kept -= this.bytesAt(++ordinal);
    }
    return ordinal;
  }

  /** The caller has checked that it follows on the last batch. */
  append(batch: BatchInfo): void {
    if (this.#tail === this.#firstIndex.length) this.#makeRoom();
    const slot = this.#tail++;
    this.#firstIndex[slot] = batch.firstIndex;
    this.#count[slot] = batch.count;
    this.#bytes[slot] = batch.bytes;
    this.#term[slot] = batch.term;
    this.#crc[slot] = batch.crc;
    this.#timeMs[slot] = batch.timeMs;
    this.#bytesTotal += batch.bytes;
  }

  /** Begins anew after `start`, with nothing of what was held. */
  reset(start: LogStart): void {
    this.#head = this.#tail = 0;
    this.#bytesTotal = 0;
    this.#start = start;
  }

  /** Drops the batches from `firstIndex`, the first index of one of them, to the end. */
  truncateFrom(firstIndex: number): void {
    while (this.#tail > this.#head && this.#firstIndex[this.#tail - 1]! >= firstIndex)
      this.#bytesTotal -= this.#bytes[--this.#tail]!;
  }

  /** Drops the batches up to `start`, the end of one of them. */
  compactTo(start: LogStart): void {
    while (this.#head < this.#tail && this.#firstIndex[this.#head]! <= start.index)
      this.#bytesTotal -= this.#bytes[this.#head++]!;
    this.#start = start;
  }

  #lastOf(slot: number): number {
    return this.#firstIndex[slot]! + this.#count[slot]! - 1;
  }

  /** Moves the live batches to the front; into arrays of twice the size when more than half is live. */
  #makeRoom(): void {
    const capacity = this.#firstIndex.length;
    const grown = this.length * 2 > capacity ? capacity * 2 : capacity;
    this.#firstIndex = this.#moved(this.#firstIndex, new Float64Array(grown));
    this.#count = this.#moved(this.#count, new Uint32Array(grown));
    this.#bytes = this.#moved(this.#bytes, new Uint32Array(grown));
    this.#term = this.#moved(this.#term, new Float64Array(grown));
    this.#crc = this.#moved(this.#crc, new Uint32Array(grown));
    this.#timeMs = this.#moved(this.#timeMs, new Float64Array(grown));
    this.#tail -= this.#head;
    this.#head = 0;
  }

  #moved<A extends Float64Array | Uint32Array>(from: A, to: A): A {
    to.set(from.subarray(this.#head, this.#tail));
    return to;
  }
}

/**
 * The order of a memtable's keys, which its hash table does not know. Entries are gathered in blocks in the order of their arrival;
 * each full block is sorted once and is a run from then on, and a `RunCursor` merges the runs.
 *
 * Each distinct key is sorted once in any case, for the flush; doing it in blocks lets the shell do it in slices while it has time
 * (`sortSome`), so that neither a flush nor a range read pays for it in one go. A range read sorts what is left. What it costs
 * always is one binary search in each run of 4,096 keys, and the sorting of a last, unfinished block if it grew.
 */
import type { Memtable } from "./memtable.ts";

export const runLength = 4_096;

const noEntries = new Uint32Array(0);
const noNumbers = new Float64Array(0);
/** Never written to. */
const noBlocks: Uint32Array[] = [];

/** Bytes of a key that a merge compares as one number; each byte, or the key's end, is a digit of base 257 and 257^6 < 2^53. */
const mergeDigits = 6;
/** Bytes of a key that a sort compares as one number, beside the position in the block: 257^5 × 4,096 < 2^53. */
const sortDigits = 5;
/** Groups that share a head of `sortDigits` bytes are sorted by insertion up to this size, by further heads above it. */
const insertionMax = 8;

export class SortedRuns {
  readonly #table: Memtable;
  /** Full blocks; the first `#sorted` are sorted. */
  #blocks = noBlocks;
  #sorted = 0;
  /** The unfinished block, in the order of arrival, and a sorted copy of its first `#tailSortedCount`. */
  #tail = noEntries;
  #tailCount = 0;
  #tailSorted = noEntries;
  #tailSortedCount = 0;
  #sorter: BlockSorter | undefined;

  constructor(table: Memtable) {
    this.#table = table;
  }

  #sort(entries: Uint32Array, count: number): void {
    this.#sorter ??= new BlockSorter(this.#table);
    this.#sorter.sort(entries, count);
  }

  add(entry: number): void {
    if (this.#tailCount === this.#tail.length) this.#growTail();
    this.#tail[this.#tailCount++] = entry;
    if (this.#tailCount < runLength) return;
    if (this.#blocks === noBlocks) this.#blocks = [];
    this.#blocks.push(this.#tail);
    this.#tail = new Uint32Array(runLength);
    this.#tailCount = 0;
    this.#tailSortedCount = 0;
  }

  #growTail(): void {
    const tail = new Uint32Array(Math.min(runLength, Math.max(16, 2 * this.#tail.length)));
    tail.set(this.#tail);
    this.#tail = tail;
  }

  /** Full blocks that are not sorted yet. */
  get unsortedBlocks(): number {
    return this.#blocks.length - this.#sorted;
  }

  /** Sorts one full block if there is one. About half a millisecond. */
  sortSome(): void {
    if (this.#sorted < this.#blocks.length) {
      this.#sort(this.#blocks[this.#sorted]!, runLength);
      this.#sorted += 1;
    }
  }

  /** All runs, sorted: the arrays and how many entries of each count. They stay valid while nothing is added. */
  sortAll(): readonly Run[] {
    while (this.unsortedBlocks > 0) this.sortSome();
    const runs: Run[] = this.#blocks.map((entries) => ({ entries, count: runLength }));
    if (this.#tailCount > 0) {
      if (this.#tailSortedCount !== this.#tailCount) {
        this.#tailSorted = this.#tail.slice(0, this.#tailCount);
        this.#sort(this.#tailSorted, this.#tailCount);
        this.#tailSortedCount = this.#tailCount;
      }
      runs.push({ entries: this.#tailSorted, count: this.#tailCount });
    }
    return runs;
  }

  /** A cursor at the first key that is ≥ `from`, or > `from` with `exclusive`; without `from` at the first of all. */
  cursor(from?: Uint8Array, exclusive = false): RunCursor {
    return new RunCursor(this.#table, this.sortAll(), from, exclusive);
  }

  clear(): void {
    this.#blocks = noBlocks;
    this.#sorted = 0;
    this.#tailCount = 0;
    this.#tailSortedCount = 0;
  }
}

export interface Run {
  readonly entries: Uint32Array;
  readonly count: number;
}

/** Walks a memtable's entries in the order of their keys, merging runs with a heap of their heads. */
export class RunCursor {
  readonly #table: Memtable;
  readonly #runs: readonly Run[];
  readonly #next: Uint32Array;
  /** Of each run: the entry at its head, and the first bytes of that key beyond what all keys share. */
  readonly #heads: Uint32Array;
  readonly #headNumbers: Float64Array;
  /** A binary heap of run numbers, the least head on top. */
  readonly #heap: Uint32Array;
  #heapSize = 0;
  readonly #shared: number;

  constructor(
    table: Memtable,
    runs: readonly Run[],
    from: Uint8Array | undefined,
    exclusive: boolean,
  ) {
    this.#table = table;
    this.#runs = runs;
    this.#next = new Uint32Array(runs.length);
    this.#heads = new Uint32Array(runs.length);
    this.#headNumbers = new Float64Array(runs.length);
    this.#heap = new Uint32Array(runs.length);
    this.#shared = sharedByRuns(table, runs);
    for (const [run, { entries, count }] of runs.entries()) {
      const at = from === undefined ? 0 : lowerBound(table, entries, count, from, exclusive);
      if (at === count) continue;
      this.#next[run] = at;
      this.#loadHead(run);
      this.#siftUp(this.#heapSize++, run);
    }
  }

  /** The current entry, 0 behind the last. */
  get entry(): number {
    return this.#heapSize === 0 ? 0 : this.#heads[this.#heap[0]!]!;
  }

  advance(): void {
    const run = this.#heap[0]!;
    if (this.#next[run]! < this.#runs[run]!.count) {
      this.#loadHead(run);
      this.#siftDown(run);
      return;
    }
    this.#heapSize -= 1;
    if (this.#heapSize > 0) this.#siftDown(this.#heap[this.#heapSize]!);
  }

  #loadHead(run: number): void {
    const entry = this.#runs[run]!.entries[this.#next[run]!++]!;
    this.#heads[run] = entry;
    this.#headNumbers[run] = keyDigits(this.#table, entry, this.#shared, mergeDigits);
  }

  #less(a: number, b: number): boolean {
    const first = this.#headNumbers[a]!;
    const second = this.#headNumbers[b]!;
    if (first !== second) return first < second;
    return compareEntries(this.#table, this.#heads[a]!, this.#table, this.#heads[b]!) < 0;
  }

  #siftUp(hole: number, run: number): void {
    let at = hole;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!this.#less(run, this.#heap[parent]!)) break;
      this.#heap[at] = this.#heap[parent]!;
      at = parent;
    }
    this.#heap[at] = run;
  }

  #siftDown(run: number): void {
    let at = 0;
    while (true) {
      let child = 2 * at + 1;
      if (child >= this.#heapSize) break;
      if (child + 1 < this.#heapSize && this.#less(this.#heap[child + 1]!, this.#heap[child]!)) {
        child += 1;
      }
      if (!this.#less(this.#heap[child]!, run)) break;
      this.#heap[at] = this.#heap[child]!;
      at = child;
    }
    this.#heap[at] = run;
  }
}

/** Sorts entries by key: heads of five bytes beyond what all keys of a group share, as numbers, by the runtime's native sort. */
class BlockSorter {
  readonly #table: Memtable;
  #numbers = noNumbers;
  #sorted = noEntries;

  constructor(table: Memtable) {
    this.#table = table;
  }

  sort(entries: Uint32Array, count: number): void {
    if (this.#numbers.length < count) {
      this.#numbers = new Float64Array(runLength);
      this.#sorted = new Uint32Array(runLength);
    }
    this.#sortGroup(entries, 0, count);
  }

  #sortGroup(entries: Uint32Array, start: number, end: number): void {
    const count = end - start;
    if (count <= insertionMax) return this.#insertionSort(entries, start, end);
    const table = this.#table;
    const numbers = this.#numbers;
    const shared = this.#sharedByGroup(entries, start, end);
    for (let i = 0; i < count; i++) {
      numbers[i] = keyDigits(table, entries[start + i]!, shared, sortDigits) * runLength + i;
    }
    numbers.subarray(0, count).sort();
    // Where the digits are equal the order is still open; the start of each such group is noted before the scratch is used again.
    const sorted = this.#sorted;
    const ties: number[] = [];
    let previous = -1;
    for (let i = 0; i < count; i++) {
      const digits = Math.floor(numbers[i]! / runLength);
      sorted[i] = entries[start + (numbers[i]! - digits * runLength)]!;
      if (digits === previous) {
        if (ties.at(-1) === start + i) ties[ties.length - 1] = start + i + 1;
        else ties.push(start + i - 1, start + i + 1);
      }
      previous = digits;
    }
    entries.set(sorted.subarray(0, count), start);
    // Equal digits without a key's end among them are five more shared bytes, and with it they would be equal keys: this ends.
    for (let i = 0; i < ties.length; i += 2) this.#sortGroup(entries, ties[i]!, ties[i + 1]!);
  }

  #sharedByGroup(entries: Uint32Array, start: number, end: number): number {
    const first = entries[start]!;
    let shared = this.#table.keyLength(first);
    for (let i = start + 1; i < end && shared > 0; i++) {
      shared = sharedPrefix(this.#table, first, entries[i]!, shared);
    }
    return shared;
  }

  #insertionSort(entries: Uint32Array, start: number, end: number): void {
    for (let i = start + 1; i < end; i++) {
      const entry = entries[i]!;
      let at = i;
      while (at > start && compareEntries(this.#table, entry, this.#table, entries[at - 1]!) < 0) {
        entries[at] = entries[at - 1]!;
        at -= 1;
      }
      entries[at] = entry;
    }
  }
}

function lowerBound(
  table: Memtable,
  entries: Uint32Array,
  count: number,
  from: Uint8Array,
  exclusive: boolean,
): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const order = compareKey(table, entries[middle]!, from);
    if (order < 0 || (exclusive && order === 0)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The `digits` bytes of a key from `skip` on as one number that orders as the bytes do; the key's end comes before any byte. */
function keyDigits(table: Memtable, entry: number, skip: number, digits: number): number {
  const bytes = table.keyBytes(entry);
  const start = table.keyOffset(entry);
  const end = start + table.keyLength(entry);
  let number = 0;
  for (let at = start + skip; at < start + skip + digits; at++) {
    number = number * 257 + (at < end ? bytes[at]! + 1 : 0);
  }
  return number;
}

function sharedByRuns(table: Memtable, runs: readonly Run[]): number {
  const first = runs[0]?.entries[0];
  if (first === undefined) return 0;
  // A sorted run shares what its first and last key share.
  let shared = table.keyLength(first);
  for (const { entries, count } of runs) {
    shared = sharedPrefix(table, first, entries[0]!, shared);
    shared = sharedPrefix(table, first, entries[count - 1]!, shared);
  }
  return shared;
}

function sharedPrefix(table: Memtable, a: number, b: number, max: number): number {
  const first = table.keyBytes(a);
  const second = table.keyBytes(b);
  const firstAt = table.keyOffset(a);
  const secondAt = table.keyOffset(b);
  const end = Math.min(max, table.keyLength(b));
  let shared = 0;
  while (shared < end && first[firstAt + shared] === second[secondAt + shared]) shared += 1;
  return shared;
}

/** Orders two entries, of one table or of two, by their keys: bytewise, a key before those that it begins. */
export function compareEntries(
  firstTable: Memtable,
  first: number,
  secondTable: Memtable,
  second: number,
): number {
  const firstBytes = firstTable.keyBytes(first);
  const secondBytes = secondTable.keyBytes(second);
  const firstAt = firstTable.keyOffset(first);
  const secondAt = secondTable.keyOffset(second);
  const firstLength = firstTable.keyLength(first);
  const secondLength = secondTable.keyLength(second);
  const end = Math.min(firstLength, secondLength);
  for (let i = 0; i < end; i++) {
    const difference = firstBytes[firstAt + i]! - secondBytes[secondAt + i]!;
    if (difference !== 0) return difference;
  }
  return firstLength - secondLength;
}

/** Compares an entry's key with a key outside the table. */
export function compareKey(table: Memtable, entry: number, key: Uint8Array): number {
  const bytes = table.keyBytes(entry);
  const start = table.keyOffset(entry);
  const length = table.keyLength(entry);
  const end = Math.min(length, key.byteLength);
  for (let i = 0; i < end; i++) {
    const difference = bytes[start + i]! - key[i]!;
    if (difference !== 0) return difference;
  }
  return length - key.byteLength;
}

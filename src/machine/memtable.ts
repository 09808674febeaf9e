/**
 * Writes that the kv file does not hold yet: a hash table with open addressing over typed arrays, keys and values in an arena [28].
 * It holds the newest revision and value of each key, or that the key is deleted. Nothing is allocated per command, and nothing
 * stalls at growth: the arena grows by chunks that never move, and a larger hash table is filled a few slots at each insert.
 *
 * An entry is known by its address in the arena, in units of 8 bytes; 0 is no entry. It never moves, and is
 *
 *     0 revision f64 | 8 keyLength u32 | 12 valueLength u32 | 16 valueRoom u32 | 20 valueAddress u32 | 24 key | value
 *
 * where valueAddress 0 says that the value lies behind the key, and valueLength 0xffffffff that the key is deleted. A value that
 * outgrows its room goes to a new place, and the old one is lost until `clear`. The host is little-endian, as all that Bun runs on.
 */
import { RunCursor, SortedRuns, type Run } from "./sorted-runs.ts";

const headBytes = 24;
const keyLengthWord = 2;
const valueLengthWord = 3;
const valueRoomWord = 4;
const valueAddressWord = 5;
const deleted = 0xffff_ffff;

/** Addresses of one chunk: 2^19 units, 4 MiB, although the first chunks are shorter. 2^13 chunks are 32 GiB. */
const chunkShift = 19;
const chunkMask = (1 << chunkShift) - 1;
const chunkBytesMax = 4_194_304;
/** A table with a few keys takes little: there may be thousands of groups. */
const chunkBytesMin = 4_096;
const slotsMin = 16;
/** What a table without keys has; never written to, and no key is found there. */
const noSlots = new Uint32Array(2);
const noBuffers: SharedArrayBuffer[] = [];
const noBytes: Uint8Array[] = [];
const noWords: Uint32Array[] = [];
const noRevisions: Float64Array[] = [];
/** Old slots that one insert moves: the old table is empty long before the new one is full. */
const slotsPerInsert = 8;
/** Copying below this length by words costs less than a call into the runtime. */
const copyByWordsMax = 96;

/** A memtable that another thread may read: see `share`. */
export interface SharedMemtable {
  readonly chunks: readonly SharedArrayBuffer[];
  /** All runs, one after the other, and how many entries each has. */
  readonly entries: Uint32Array;
  readonly runCounts: readonly number[];
}

export class Memtable {
  #buffers = noBuffers;
  #bytes = noBytes;
  #words = noWords;
  #revisions = noRevisions;
  /** The chunk that is being filled, and its next free unit. */
  #chunk = 0;
  #nextUnit = 1;
  #unitsEnd = 0;
  #arenaBytes = 0;

  /** Pairs (entry, hash); entry 0 is free. Its size is a power of two. */
  #slots = noSlots;
  /** The table before, while its slots are being moved. What was moved stays readable in it, as entries never move. */
  #oldSlots: Uint32Array | undefined;
  #oldNext = 0;
  #count = 0;

  readonly #runs: SortedRuns;

  constructor() {
    this.#runs = new SortedRuns(this);
  }

  /** Distinct keys, deleted ones included. */
  get count(): number {
    return this.#count;
  }

  /** Memory in use: the arena, and what hash table and order take for an entry on average. */
  get bytes(): number {
    return this.#arenaBytes + 28 * this.#count;
  }

  /** The entries in the order of their keys. */
  get runs(): SortedRuns {
    return this.#runs;
  }

  /**
   * Sets a key. Key and value are read from `bytes`; `view` is over the same memory. Reuses the value's room where it fits.
   */
  put(
    bytes: Uint8Array,
    view: DataView,
    keyAt: number,
    keyLength: number,
    valueAt: number,
    valueLength: number,
    revision: number,
  ): void {
    const hash = hashKey(view, keyAt, keyLength);
    const entry = this.#lookUp(hash, view, keyAt, keyLength);
    if (entry === 0) {
      const inserted = this.#insert(hash, bytes, view, keyAt, keyLength, valueLength, revision);
      const target = ((inserted & chunkMask) << 3) + headBytes + keyLength;
      this.#copy(inserted >>> chunkShift, target, bytes, view, valueAt, valueLength);
      this.#words[inserted >>> chunkShift]![((inserted & chunkMask) << 1) + valueLengthWord] =
        valueLength;
      return;
    }
    const chunk = entry >>> chunkShift;
    const unit = entry & chunkMask;
    const words = this.#words[chunk]!;
    this.#revisions[chunk]![unit] = revision;
    const at = unit << 1;
    if (valueLength > words[at + valueRoomWord]!) {
      words[at + valueAddressWord] = this.#allocate(valueLength);
      words[at + valueRoomWord] = (valueLength + 7) & ~7;
    }
    words[at + valueLengthWord] = valueLength;
    this.#copy(this.#valueChunk(entry), this.valueOffset(entry), bytes, view, valueAt, valueLength);
  }

  /** Marks a key as deleted, present here or not: the layers below may hold it. */
  remove(
    bytes: Uint8Array,
    view: DataView,
    keyAt: number,
    keyLength: number,
    revision: number,
  ): void {
    const hash = hashKey(view, keyAt, keyLength);
    const found = this.#lookUp(hash, view, keyAt, keyLength);
    const entry =
      found === 0 ? this.#insert(hash, bytes, view, keyAt, keyLength, 0, revision) : found;
    const chunk = entry >>> chunkShift;
    const unit = entry & chunkMask;
    this.#revisions[chunk]![unit] = revision;
    this.#words[chunk]![(unit << 1) + valueLengthWord] = deleted;
  }

  /** The entry of the key at `offset` of `view`, or 0. A deleted key has an entry. */
  find(view: DataView, offset: number, length: number): number {
    return this.#lookUp(hashKey(view, offset, length), view, offset, length);
  }

  isDeleted(entry: number): boolean {
    return this.#word(entry, valueLengthWord) === deleted;
  }

  revision(entry: number): number {
    return this.#revisions[entry >>> chunkShift]![entry & chunkMask]!;
  }

  keyLength(entry: number): number {
    return this.#word(entry, keyLengthWord);
  }

  /** The memory that holds the entry's key, at `keyOffset`. */
  keyBytes(entry: number): Uint8Array {
    return this.#bytes[entry >>> chunkShift]!;
  }

  keyOffset(entry: number): number {
    return ((entry & chunkMask) << 3) + headBytes;
  }

  /** 0 for a deleted key. */
  valueLength(entry: number): number {
    const length = this.#word(entry, valueLengthWord);
    return length === deleted ? 0 : length;
  }

  /** The memory that holds the entry's value, at `valueOffset`. */
  valueBytes(entry: number): Uint8Array {
    return this.#bytes[this.#valueChunk(entry)]!;
  }

  valueOffset(entry: number): number {
    const address = this.#word(entry, valueAddressWord);
    if (address !== 0) return (address & chunkMask) << 3;
    return this.keyOffset(entry) + this.keyLength(entry);
  }

  /**
   * Forgets everything. With `keepMemory` chunks and table are used again, which spares the kernel and the collector the work;
   * without it an idle group holds next to nothing.
   */
  clear(keepMemory: boolean): void {
    if (!keepMemory) {
      this.#buffers = noBuffers;
      this.#bytes = noBytes;
      this.#words = noWords;
      this.#revisions = noRevisions;
    }
    if (keepMemory && this.#oldSlots === undefined && this.#slots !== noSlots) this.#slots.fill(0);
    else this.#slots = noSlots;
    this.#oldSlots = undefined;
    this.#chunk = 0;
    this.#nextUnit = 1;
    this.#unitsEnd = this.#bytes.length === 0 ? 0 : this.#bytes[0]!.byteLength >>> 3;
    this.#arenaBytes = 0;
    this.#count = 0;
    this.#runs.clear();
  }

  /** For another thread to walk with `adopt`, while nobody changes it: the arena itself, and a copy of its order. */
  share(): SharedMemtable {
    const runs = this.#runs.sortAll();
    const entries = new Uint32Array(this.#count);
    let at = 0;
    for (const { entries: run, count } of runs) {
      entries.set(run.subarray(0, count), at);
      at += count;
    }
    const used = this.#count === 0 ? [] : this.#buffers.slice(0, this.#chunk + 1);
    return { chunks: used, entries, runCounts: runs.map(({ count }) => count) };
  }

  /** What another thread shared: the entries in the order of their keys. The table finds no key; it only shows what its entries hold. */
  static adopt({ chunks, entries, runCounts }: SharedMemtable): {
    readonly table: Memtable;
    readonly cursor: RunCursor;
  } {
    const table = new Memtable();
    for (const chunk of chunks) table.#addChunk(chunk);
    const runs: Run[] = [];
    let at = 0;
    for (const count of runCounts) {
      runs.push({ entries: entries.subarray(at, at + count), count });
      at += count;
    }
    return { table, cursor: new RunCursor(table, runs, undefined, false) };
  }

  #addChunk(buffer: SharedArrayBuffer, at = this.#buffers.length): void {
    if (this.#buffers === noBuffers) {
      this.#buffers = [];
      this.#bytes = [];
      this.#words = [];
      this.#revisions = [];
    }
    this.#buffers[at] = buffer;
    this.#bytes[at] = new Uint8Array(buffer);
    this.#words[at] = new Uint32Array(buffer);
    this.#revisions[at] = new Float64Array(buffer);
  }

  #word(entry: number, word: number): number {
    return this.#words[entry >>> chunkShift]![((entry & chunkMask) << 1) + word]!;
  }

  #valueChunk(entry: number): number {
    const address = this.#word(entry, valueAddressWord);
    return (address === 0 ? entry : address) >>> chunkShift;
  }

  #lookUp(hash: number, view: DataView, offset: number, length: number): number {
    const entry = this.#probe(this.#slots, hash, view, offset, length);
    if (entry !== 0 || this.#oldSlots === undefined) return entry;
    return this.#probe(this.#oldSlots, hash, view, offset, length);
  }

  #probe(slots: Uint32Array, hash: number, view: DataView, offset: number, length: number): number {
    const mask = slots.length - 2;
    let at = (hash << 1) & mask;
    while (true) {
      const entry = slots[at]!;
      if (entry === 0) return 0;
      if (slots[at + 1] === hash && this.#keyEquals(entry, view, offset, length)) return entry;
      at = (at + 2) & mask;
    }
  }

  #keyEquals(entry: number, view: DataView, offset: number, length: number): boolean {
    const words = this.#words[entry >>> chunkShift]!;
    let word = (entry & chunkMask) << 1;
    if (words[word + keyLengthWord] !== length) return false;
    word += headBytes >>> 2;
    const end = offset + length;
    let at = offset;
    for (; at + 4 <= end; at += 4) {
      if (words[word++] !== view.getUint32(at, true)) return false;
    }
    if (at === end) return true;
    // The last word holds one to three bytes of the key, then bytes of the value.
    const rest = words[word]!;
    for (let shift = 0; at < end; at++, shift += 8) {
      if (((rest >>> shift) & 0xff) !== view.getUint8(at)) return false;
    }
    return true;
  }

  /** Makes an entry with its key and room for a value; the caller writes the value and its length. */
  #insert(
    hash: number,
    bytes: Uint8Array,
    view: DataView,
    keyAt: number,
    keyLength: number,
    valueLength: number,
    revision: number,
  ): number {
    const used = headBytes + keyLength;
    const entry = this.#allocate(used + valueLength);
    const chunk = entry >>> chunkShift;
    const unit = entry & chunkMask;
    const words = this.#words[chunk]!;
    const at = unit << 1;
    this.#revisions[chunk]![unit] = revision;
    words[at + keyLengthWord] = keyLength;
    words[at + valueRoomWord] = ((used + valueLength + 7) & ~7) - used;
    words[at + valueAddressWord] = 0;
    this.#copy(chunk, (unit << 3) + headBytes, bytes, view, keyAt, keyLength);
    this.#count += 1;
    // Half full at most: linear probing stays short. Slots are pairs, hence the factor of 4.
    if (this.#slots === noSlots) this.#slots = new Uint32Array(2 * slotsMin);
    if (this.#count * 4 > this.#slots.length) this.#growSlots();
    if (this.#oldSlots !== undefined) this.#moveSlots(this.#oldSlots, slotsPerInsert);
    occupy(this.#slots, hash, entry);
    this.#runs.add(entry);
    return entry;
  }

  #growSlots(): void {
    if (this.#oldSlots !== undefined) this.#moveSlots(this.#oldSlots, this.#oldSlots.length);
    this.#oldSlots = this.#slots;
    this.#oldNext = 0;
    this.#slots = new Uint32Array(2 * this.#oldSlots.length);
  }

  #moveSlots(old: Uint32Array, slots: number): void {
    const end = Math.min(old.length, this.#oldNext + 2 * slots);
    for (let at = this.#oldNext; at < end; at += 2) {
      if (old[at] !== 0) occupy(this.#slots, old[at + 1]!, old[at]!);
    }
    this.#oldNext = end;
    if (end === old.length) this.#oldSlots = undefined;
  }

  /** Room for that many bytes, in one chunk; returns its address. */
  #allocate(bytes: number): number {
    const units = (bytes + 7) >>> 3;
    if (this.#nextUnit + units > this.#unitsEnd) this.#nextChunk(bytes);
    const address = ((this.#chunk << chunkShift) | this.#nextUnit) >>> 0;
    this.#nextUnit += units;
    this.#arenaBytes += units << 3;
    return address;
  }

  #nextChunk(bytes: number): void {
    if (bytes + 8 > chunkBytesMax) throw new Error(`memtable: an entry of ${bytes} bytes`);
    // The very first chunk is 0; address 0 means nothing, so its unit 0 stays unused, as does that of each chunk.
    if (this.#unitsEnd !== 0) this.#chunk += 1;
    const chunk = this.#chunk;
    const kept = this.#bytes[chunk];
    if (kept === undefined || kept.byteLength < bytes + 8) {
      let size = Math.min(chunkBytesMax, chunkBytesMin * 2 ** Math.min(chunk, 10));
      while (size < bytes + 8) size *= 2;
      this.#addChunk(new SharedArrayBuffer(size), chunk);
    }
    this.#nextUnit = 1;
    this.#unitsEnd = this.#bytes[chunk]!.byteLength >>> 3;
  }

  #copy(
    chunk: number,
    target: number,
    bytes: Uint8Array,
    view: DataView,
    source: number,
    length: number,
  ): void {
    const into = this.#bytes[chunk]!;
    if (length > copyByWordsMax) {
      // The one native copy that takes offsets and so needs no view of the source.
      Buffer.prototype.copy.call(bytes, into, target, source, source + length);
      return;
    }
    const end = source + length;
    let at = source;
    let to = target;
    // Up to an aligned target, then by words, then the rest.
    while (at < end && (to & 3) !== 0) into[to++] = bytes[at++]!;
    const words = this.#words[chunk]!;
    for (let word = to >>> 2; at + 4 <= end; at += 4, to += 4) {
      words[word++] = view.getUint32(at, true);
    }
    while (at < end) into[to++] = bytes[at++]!;
  }
}

function occupy(slots: Uint32Array, hash: number, entry: number): void {
  const mask = slots.length - 2;
  let at = (hash << 1) & mask;
  while (slots[at] !== 0) at = (at + 2) & mask;
  slots[at] = entry;
  slots[at + 1] = hash;
}

/** Murmur3's 32-bit mixing over words, then its finish. Results never depend on it: only the order of keys is ever seen. */
export function hashKey(view: DataView, offset: number, length: number): number {
  const end = offset + length;
  let hash = length;
  let at = offset;
  for (; at + 4 <= end; at += 4) {
    let word = Math.imul(view.getUint32(at, true), 0xcc9e2d51);
    word = Math.imul((word << 15) | (word >>> 17), 0x1b873593);
    hash ^= word;
    hash = Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64;
  }
  if (at < end) {
    let word = 0;
    for (let shift = 0; at < end; at++, shift += 8) word |= view.getUint8(at) << shift;
    word = Math.imul(word, 0xcc9e2d51);
    hash ^= Math.imul((word << 15) | (word >>> 17), 0x1b873593);
  }
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

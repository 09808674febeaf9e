/**
 * Answers queries out of the three layers. A range merges them by key within one call and hands out a page; where the page ends its last key
 * says how to go on. The answers are views of memory that the next query uses again.
 */
import type { Limits } from "../limits.ts";
import { writeSafe } from "../wire/batch.ts";
import {
  kvGetHeadBytes,
  KvQuery,
  kvRangeAnswerHeadBytes,
  kvRangeItemHeadBytes,
  readKvQuery,
  type KvRange,
} from "../wire/kv.ts";
import type { KvRow } from "./kv-file.ts";
import type { KvLayers } from "./kv-layers.ts";
import { ResultCode, type AnswerSink } from "./machine.ts";
import type { Memtable } from "./memtable.ts";
import { compareEntries, compareKey, type RunCursor } from "./sorted-runs.ts";

/** An answer's memory is kept up to this size; a larger one is made for its answer alone. */
const keptBytesMax = 65_536;
const revisionBytes = 8;
const nothing = new Uint8Array(0);
const viewOfNothing = new DataView(nothing.buffer);

export class KvRead {
  readonly #layers: KvLayers;
  readonly #limits: Limits;
  #bytes: Uint8Array = nothing;
  #view = viewOfNothing;

  constructor(layers: KvLayers, limits: Limits) {
    this.#layers = layers;
    this.#limits = limits;
  }

  /** `pageBytesMax` bounds a page besides the machine's own bound; its first item may exceed both. */
  read(
    query: Uint8Array,
    appliedIndex: number,
    answers: AnswerSink,
    pageBytesMax = Number.POSITIVE_INFINITY,
  ): void {
    const read = readKvQuery(query);
    if (read === undefined) {
      answers.answer(ResultCode.malformed, undefined);
    } else if (read.op === KvQuery.range) {
      this.#range(read.range, appliedIndex, answers, pageBytesMax);
    } else if (read.key.byteLength > this.#limits.keyBytesMax) {
      answers.answer(ResultCode.tooLarge, undefined);
    } else {
      this.#get(query, read.key, answers);
    }
    if (this.#bytes.byteLength > keptBytesMax) {
      this.#bytes = nothing;
      this.#view = viewOfNothing;
    }
  }

  #get(query: Uint8Array, key: Uint8Array, answers: AnswerSink): void {
    const { tables, file } = this.#layers;
    const view = new DataView(query.buffer, query.byteOffset, query.byteLength);
    // No iterator: gets are many.
    for (let at = 0; at < tables.length; at++) {
      const table = tables[at]!;
      const entry = table.find(view, kvGetHeadBytes, key.byteLength);
      if (entry === 0) continue;
      if (table.isDeleted(entry)) return answers.answer(ResultCode.notFound, undefined);
      const valueAt = table.valueOffset(entry);
      const value = table.valueBytes(entry);
      const valueEnd = valueAt + table.valueLength(entry);
      return this.#answerEntry(table.revision(entry), value.subarray(valueAt, valueEnd), answers);
    }
    const row = file.get(key);
    if (row === undefined) return answers.answer(ResultCode.notFound, undefined);
    this.#answerEntry(row.revision, row.value, answers);
  }

  #answerEntry(revision: number, value: Uint8Array, answers: AnswerSink): void {
    const size = revisionBytes + value.byteLength;
    this.#makeRoom(0, size);
    writeSafe(this.#view, 0, revision);
    this.#bytes.set(value, revisionBytes);
    answers.answer(ResultCode.ok, this.#bytes.subarray(0, size));
  }

  #range(range: KvRange, appliedIndex: number, answers: AnswerSink, pageBytesMax: number): void {
    const first = range.prefix ?? range.from;
    const to = range.prefix === undefined ? range.to : successor(range.prefix);
    // The page goes on behind `after`, unless that lies before the range.
    const { after } = range;
    const exclusive =
      after !== undefined && (first === undefined || Buffer.compare(after, first) >= 0);
    const from = exclusive ? after : first;
    const page = new Page(this.#limits, range, pageBytesMax);
    const memory = new MemoryCursor(this.#layers.tables, from, exclusive, to);
    this.#layers.file.scan(from, (row) => {
      if (exclusive && from !== undefined && Buffer.compare(row.key, from) === 0) return true;
      if (to !== undefined && Buffer.compare(row.key, to) >= 0) return false;
      let order = memory.compare(row.key);
      while (order < 0) {
        if (!this.#addEntry(page, memory)) return false;
        order = memory.compare(row.key);
      }
      // The newer state of the same key hides the row.
      return order === 0 ? this.#addEntry(page, memory) : this.#addRow(page, row);
    });
    while (!page.full && !memory.ended) this.#addEntry(page, memory);
    this.#makeRoom(page.end, page.end);
    this.#view.setUint32(0, page.count, true);
    this.#view.setUint32(4, page.full ? 1 : 0, true);
    writeSafe(this.#view, 8, appliedIndex);
    answers.answer(ResultCode.ok, this.#bytes.subarray(0, page.end));
  }

  /** Adds the memory's current entry, unless it is deleted, and goes to the next; false when the page is full. */
  #addEntry(page: Page, memory: MemoryCursor): boolean {
    const { table, entry } = memory;
    if (!table.isDeleted(entry)) {
      const keyAt = table.keyOffset(entry);
      const key = table.keyBytes(entry).subarray(keyAt, keyAt + table.keyLength(entry));
      const valueAt = table.valueOffset(entry);
      const valueEnd = valueAt + table.valueLength(entry);
      const value = table.valueBytes(entry).subarray(valueAt, valueEnd);
      if (!this.#add(page, table.revision(entry), key, value)) return false;
    }
    memory.advance();
    return true;
  }

  #addRow(page: Page, row: KvRow): boolean {
    return this.#add(page, row.revision, row.key, row.value);
  }

  #add(page: Page, revision: number, key: Uint8Array, value: Uint8Array): boolean {
    const valueLength = page.keysOnly ? 0 : value.byteLength;
    const at = page.end;
    if (!page.take(kvRangeItemHeadBytes + key.byteLength + valueLength)) return false;
    this.#makeRoom(at, page.end);
    writeSafe(this.#view, at, revision);
    this.#view.setUint16(at + 8, key.byteLength, true);
    this.#view.setUint32(at + 10, valueLength, true);
    this.#bytes.set(key, at + kvRangeItemHeadBytes);
    if (valueLength > 0) this.#bytes.set(value, at + kvRangeItemHeadBytes + key.byteLength);
    return true;
  }

  /** Room for `size` bytes, of which the first `used` are kept. */
  #makeRoom(used: number, size: number): void {
    if (size <= this.#bytes.byteLength) return;
    const bytes = new Uint8Array(Math.max(size, 2 * this.#bytes.byteLength, 256));
    bytes.set(this.#bytes.subarray(0, used));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }
}

/** How far a page has come. */
class Page {
  readonly keysOnly: boolean;
  /** An item did not fit any more: there is more behind the last one. */
  full = false;
  count = 0;
  end = kvRangeAnswerHeadBytes;
  readonly #itemsMax: number;
  readonly #endMax: number;

  constructor(limits: Limits, range: KvRange, pageBytesMax: number) {
    this.keysOnly = range.keysOnly === true;
    const wanted = range.limit === 0 ? limits.rangeItemsMax : range.limit;
    this.#itemsMax = Math.min(wanted, limits.rangeItemsMax);
    this.#endMax = Math.min(kvRangeAnswerHeadBytes + limits.rangeBytesMax, pageBytesMax);
  }

  /** Takes an item of that size; the first one always, so that each page gets on. */
  take(bytes: number): boolean {
    const fits = this.count < this.#itemsMax && this.end + bytes <= this.#endMax;
    if (!fits && this.count > 0) {
      this.full = true;
      return false;
    }
    this.count += 1;
    this.end += bytes;
    return true;
  }
}

/** Walks the memtables by key, up to `to`; where several have a key the newest one's entry counts. */
class MemoryCursor {
  /** The newest first. */
  readonly #tables: readonly Memtable[];
  readonly #cursors: readonly RunCursor[];
  readonly #to: Uint8Array | undefined;
  #current = 0;
  table: Memtable;
  /** 0 at the end. */
  entry = 0;

  constructor(
    tables: readonly Memtable[],
    from: Uint8Array | undefined,
    exclusive: boolean,
    to: Uint8Array | undefined,
  ) {
    this.#tables = tables;
    this.#cursors = tables.map((table) => table.runs.cursor(from, exclusive));
    this.#to = to;
    this.table = tables[0]!;
    this.#choose();
  }

  get ended(): boolean {
    return this.entry === 0;
  }

  /** Order of the current key and `key`; beyond the end all keys are less. */
  compare(key: Uint8Array): number {
    return this.entry === 0 ? 1 : compareKey(this.table, this.entry, key);
  }

  advance(): void {
    this.#cursors[this.#current]!.advance();
    this.#choose();
  }

  #choose(): void {
    this.entry = 0;
    for (let at = 0; at < this.#tables.length; at++) {
      const { entry } = this.#cursors[at]!;
      if (entry === 0) continue;
      const table = this.#tables[at]!;
      const order = this.entry === 0 ? -1 : compareEntries(table, entry, this.table, this.entry);
      if (order === 0) this.#cursors[at]!.advance();
      if (order >= 0) continue;
      this.table = table;
      this.entry = entry;
      this.#current = at;
    }
    const to = this.#to;
    if (this.entry !== 0 && to !== undefined && compareKey(this.table, this.entry, to) >= 0) {
      this.entry = 0;
    }
  }
}

/** The least key beyond all that begin with `prefix`; undefined when there is none. */
function successor(prefix: Uint8Array): Uint8Array | undefined {
  const last = prefix.findLastIndex((byte) => byte !== 0xff);
  if (last < 0) return undefined;
  const key = prefix.slice(0, last + 1);
  key[last]! += 1;
  return key;
}

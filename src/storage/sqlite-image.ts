/**
 * A SQLite database read as the bytes that it is, main file and write-ahead log, without SQLite: nothing is locked, created, synced or moved, and a
 * file of any size takes little memory. For those who look at a folder that they must not change: SQLite cannot read a log in WAL mode without
 * writing a `-shm` beside it. Checks all that the format lets one check, and throws ImageError where it does not hold.
 *
 * Only what this project's files have: pages of one size, UTF-8, no auto-vacuum. https://sqlite.org/fileformat2.html has the layouts.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { readWal, type WalReading } from "./sqlite-wal.ts";

/** The bytes are not a whole database. */
export class ImageError extends Error {
  override readonly name: string = "ImageError";
}

/** What a column of a row holds; integers beyond 2^53 are refused. */
export type ImageValue = number | string | Uint8Array | null;

const fileHeaderBytes = 100;
const magic = "SQLite format 3\0";
const pageBytesMin = 512;
/** Deeper than any tree of this page size can be. */
const depthMax = 32;
/** The page that holds this byte is never used. */
const lockByte = 0x4000_0000;

const PageType = { keyInterior: 2, rowInterior: 5, keyLeaf: 10, rowLeaf: 13 } as const;

function must(ok: boolean, what: string): asserts ok {
  if (!ok) throw new ImageError(what);
}

interface Root {
  readonly kind: string;
  readonly page: number;
}

export class SqliteImage implements Disposable {
  readonly path: string;
  readonly pageBytes: number;
  readonly pageCount: number;
  /** Undefined where there is no `-wal`. */
  readonly wal: WalReading | undefined;
  readonly #main: number;
  readonly #mainPages: number;
  readonly #log: number | undefined;
  readonly #usableBytes: number;
  readonly #roots = new Map<string, Root>();
  /** Pages of trees that the present walk has come to: a tree that leads back into itself would have no end. */
  #walked = 0;
  /** Pages that something refers to; undefined = nobody counts. */
  #used: Uint8Array | undefined;

  constructor(path: string) {
    this.path = path;
    this.#main = openSync(path, "r");
    try {
      this.#log = openIfThere(`${path}-wal`);
      const header = readAt(this.#main, 0, fileHeaderBytes);
      const isDatabase = header?.subarray(0, magic.length).toString("latin1") === magic;
      must(header !== undefined && isDatabase, "it is no SQLite database");
      const coded = header.readUInt16BE(16);
      this.pageBytes = coded === 1 ? 65_536 : coded;
      const isPower = (this.pageBytes & (this.pageBytes - 1)) === 0;
      must(isPower && this.pageBytes >= pageBytesMin, "its page size is none");
      this.#mainPages = Math.floor(fstatSync(this.#main).size / this.pageBytes);
      if (this.#log !== undefined) this.wal = readWal(this.#log, this.pageBytes);
      this.pageCount = this.wal?.pageCount ?? this.#mainPages;
      // Newer in the log, where that has the first page.
      const first = this.#page(1);
      this.#usableBytes = this.pageBytes - first[20]!;
      must(this.#usableBytes >= pageBytesMin - 32, "its pages have no room");
      this.#readSchema();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  has(name: string): boolean {
    return this.#roots.has(name);
  }

  /** Rows of a table by rising row id; the row id stands for a column that is the integer primary key, which is null in `values`. */
  rows(table: string, visit: (rowId: number, values: readonly ImageValue[]) => void): void {
    this.#walked = 0;
    this.#rowsBelow(this.#root(table), 0, { last: Number.NEGATIVE_INFINITY }, visit);
  }

  /** One row, as `rows` has it. */
  row(table: string, rowId: number): readonly ImageValue[] | undefined {
    let at = this.#root(table);
    for (let depth = 0; depth < depthMax; depth++) {
      const page = this.#treePage(at);
      if (page.type === PageType.rowLeaf) {
        for (let cell = 0; cell < page.cells; cell++) {
          const reader = new CellReader(page, cell);
          const bytes = reader.varint();
          if (reader.varint() === rowId) return this.#record(reader, bytes, false);
        }
        return undefined;
      }
      must(page.type === PageType.rowInterior, `page ${at} is none of a table`);
      let next = page.right;
      for (let cell = 0; cell < page.cells; cell++) {
        const reader = new CellReader(page, cell);
        const child = reader.u32();
        if (rowId > reader.varint()) continue;
        next = child;
        break;
      }
      at = next;
    }
    throw new ImageError(`the tree of ${table} is too deep`);
  }

  /** Entries of an index, in its order. */
  entries(index: string, visit: (values: readonly ImageValue[]) => void): void {
    this.#walked = 0;
    this.#entriesBelow(this.#root(index), 0, visit);
  }

  /**
   * Each page has exactly one use. `read` goes through all trees, so that what they refer to is counted; those that it leaves out are gone through
   * without looking at what they hold.
   */
  checkPages(read: (left: (name: string) => void) => void): void {
    this.#used = new Uint8Array(Math.ceil((this.pageCount + 1) / 8));
    try {
      const left = new Set(this.#roots.keys());
      this.rows("sqlite_schema", () => {});
      left.delete("sqlite_schema");
      read((name) => void left.delete(name));
      for (const name of left) {
        if (this.#roots.get(name)!.kind === "index") this.entries(name, () => {});
        else this.rows(name, () => {});
      }
      this.#countFree();
      const lockPage = Math.floor(lockByte / this.pageBytes) + 1;
      for (let page = 1; page <= this.pageCount; page++) {
        if (page !== lockPage)
          must(this.#isUsed(page), `page ${page} is lost: nothing leads to it`);
      }
    } finally {
      this.#used = undefined;
    }
  }

  close(): void {
    closeSync(this.#main);
    if (this.#log !== undefined) closeSync(this.#log);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #root(name: string): number {
    const root = this.#roots.get(name);
    must(root !== undefined, `it has no ${name}`);
    return root.page;
  }

  #readSchema(): void {
    this.#roots.set("sqlite_schema", { kind: "table", page: 1 });
    this.rows("sqlite_schema", (_, [kind, name, , page]) => {
      must(typeof name === "string" && typeof kind === "string", "its schema is damaged");
      if (typeof page === "number" && page > 0) this.#roots.set(name, { kind, page });
    });
  }

  /* ---------------------------------------------------------------- pages */

  #page(number: number): Buffer {
    must(number >= 1 && number <= this.pageCount, `there is no page ${number}`);
    const inLog = this.wal?.pages.get(number);
    const bytes =
      inLog === undefined
        ? readAt(this.#main, (number - 1) * this.pageBytes, this.pageBytes)
        : readAt(this.#log!, inLog, this.pageBytes);
    must(bytes !== undefined, `page ${number} is cut off`);
    return bytes;
  }

  /** Counts a use of the page. */
  #use(number: number): void {
    const used = this.#used;
    if (used === undefined) return;
    must(number >= 1 && number <= this.pageCount, `there is no page ${number}`);
    must(!this.#isUsed(number), `page ${number} is used twice`);
    used[number >>> 3]! |= 1 << (number & 7);
  }

  #enter(number: number, depth: number): void {
    this.#walked++;
    const isTree = depth < depthMax && this.#walked <= this.pageCount;
    must(isTree, `the tree at page ${number} leads back into itself`);
    this.#use(number);
  }

  #isUsed(number: number): boolean {
    return (this.#used![number >>> 3]! & (1 << (number & 7))) !== 0;
  }

  #treePage(number: number): TreePage {
    const bytes = this.#page(number);
    const at = number === 1 ? fileHeaderBytes : 0;
    const type = bytes[at]!;
    const isInterior = type === PageType.keyInterior || type === PageType.rowInterior;
    const isLeaf = type === PageType.keyLeaf || type === PageType.rowLeaf;
    must(isInterior || isLeaf, `page ${number} is no page of a tree`);
    const cells = bytes.readUInt16BE(at + 3);
    const pointersAt = at + (isInterior ? 12 : 8);
    must(pointersAt + 2 * cells <= this.#usableBytes, `page ${number} has too many cells`);
    const right = isInterior ? bytes.readUInt32BE(at + 8) : 0;
    return { number, type, bytes: bytes.subarray(0, this.#usableBytes), cells, pointersAt, right };
  }

  #countFree(): void {
    const first = this.#page(1);
    let free = first.readUInt32BE(36);
    for (let trunk = first.readUInt32BE(32); trunk !== 0;) {
      must(free > 0, "its list of free pages is longer than it says");
      this.#use(trunk);
      const page = this.#page(trunk);
      const leaves = page.readUInt32BE(4);
      must(8 + 4 * leaves <= this.#usableBytes, `page ${trunk} of the free list is damaged`);
      for (let leaf = 0; leaf < leaves; leaf++) this.#use(page.readUInt32BE(8 + 4 * leaf));
      free -= 1 + leaves;
      trunk = page.readUInt32BE(0);
    }
    must(free === 0, "its list of free pages is not as long as it says");
  }

  /* ---------------------------------------------------------------- trees */

  #rowsBelow(
    number: number,
    depth: number,
    order: { last: number },
    visit: (rowId: number, values: readonly ImageValue[]) => void,
  ): void {
    this.#enter(number, depth);
    const page = this.#treePage(number);
    if (page.type === PageType.rowLeaf) {
      for (let cell = 0; cell < page.cells; cell++) {
        const reader = new CellReader(page, cell);
        const bytes = reader.varint();
        const rowId = reader.varint();
        must(rowId > order.last, `the rows of page ${number} are out of order`);
        order.last = rowId;
        visit(rowId, this.#record(reader, bytes, false));
      }
      return;
    }
    must(page.type === PageType.rowInterior, `page ${number} is none of a table`);
    for (let cell = 0; cell < page.cells; cell++) {
      const reader = new CellReader(page, cell);
      this.#rowsBelow(reader.u32(), depth + 1, order, visit);
      must(order.last <= reader.varint(), `the rows below page ${number} are out of order`);
    }
    this.#rowsBelow(page.right, depth + 1, order, visit);
  }

  #entriesBelow(
    number: number,
    depth: number,
    visit: (values: readonly ImageValue[]) => void,
  ): void {
    this.#enter(number, depth);
    const page = this.#treePage(number);
    const isLeaf = page.type === PageType.keyLeaf;
    must(isLeaf || page.type === PageType.keyInterior, `page ${number} is none of an index`);
    for (let cell = 0; cell < page.cells; cell++) {
      const reader = new CellReader(page, cell);
      if (!isLeaf) this.#entriesBelow(reader.u32(), depth + 1, visit);
      const bytes = reader.varint();
      visit(this.#record(reader, bytes, true));
    }
    if (!isLeaf) this.#entriesBelow(page.right, depth + 1, visit);
  }

  /** The values of a cell, of which `reader` has come to the payload of `bytes`. */
  #record(reader: CellReader, bytes: number, isKey: boolean): readonly ImageValue[] {
    return readRecord(this.#payload(reader, bytes, isKey));
  }

  #payload(reader: CellReader, bytes: number, isKey: boolean): Buffer {
    const usable = this.#usableBytes;
    const localMax = isKey ? Math.floor(((usable - 12) * 64) / 255) - 23 : usable - 35;
    if (bytes <= localMax) return reader.bytes(bytes);
    must(bytes <= this.pageCount * this.pageBytes, "a row is longer than the file");
    const localMin = Math.floor(((usable - 12) * 32) / 255) - 23;
    const fitting = localMin + ((bytes - localMin) % (usable - 4));
    const local = fitting <= localMax ? fitting : localMin;
    const payload = Buffer.allocUnsafe(bytes);
    reader.bytes(local).copy(payload);
    let next = reader.u32();
    for (let at = local; at < bytes; at += usable - 4) {
      this.#use(next);
      const page = this.#page(next);
      page.copy(payload, at, 4, Math.min(usable, 4 + bytes - at));
      next = page.readUInt32BE(0);
    }
    must(next === 0, "a row goes on beyond its end");
    return payload;
  }
}

interface TreePage {
  readonly number: number;
  readonly type: number;
  /** Without what is reserved at its end. */
  readonly bytes: Buffer;
  readonly cells: number;
  readonly pointersAt: number;
  /** The last child of an interior page. */
  readonly right: number;
}

/** Reads a cell from its beginning on; every read is checked against the page. */
class CellReader {
  readonly #page: TreePage;
  #at: number;

  constructor(page: TreePage, cell: number) {
    this.#page = page;
    this.#at = page.bytes.readUInt16BE(page.pointersAt + 2 * cell);
    must(
      this.#at >= page.pointersAt + 2 * page.cells,
      `a cell of page ${page.number} is misplaced`,
    );
  }

  u32(): number {
    return this.bytes(4).readUInt32BE(0);
  }

  varint(): number {
    const { bytes } = this.#page;
    const [value, end] = readVarint(bytes, this.#at);
    this.#at = end;
    return value;
  }

  bytes(count: number): Buffer {
    const { bytes, number } = this.#page;
    must(count <= bytes.byteLength - this.#at, `a cell of page ${number} goes beyond its end`);
    this.#at += count;
    return bytes.subarray(this.#at - count, this.#at);
  }
}

/** A varint of up to nine bytes, signed, and where it ends. */
function readVarint(bytes: Uint8Array, start: number): readonly [number, number] {
  let value = 0;
  for (let at = start; at < start + 8; at++) {
    must(at < bytes.byteLength, "a number is cut off");
    const byte = bytes[at]!;
    value = value * 128 + (byte & 0x7f);
    if (byte < 0x80) {
      must(Number.isSafeInteger(value), "a number is out of range");
      return [value, at + 1];
    }
  }
  throw new ImageError("a number is out of range");
}

/** Bytes of an integer by its serial type. */
const integerBytes = [0, 1, 2, 3, 4, 6, 8] as const;

function readRecord(payload: Buffer): readonly ImageValue[] {
  const [headerEnd, first] = readVarint(payload, 0);
  must(headerEnd <= payload.byteLength, "a row is cut off");
  const values: ImageValue[] = [];
  let at = headerEnd;
  for (let head = first; head < headerEnd;) {
    const [type, next] = readVarint(payload, head);
    head = next;
    const length = valueBytes(type);
    must(length <= payload.byteLength - at, "a row is cut off");
    values.push(valueOf(type, payload.subarray(at, at + length)));
    at += length;
  }
  must(at === payload.byteLength, "a row is longer than its columns");
  return values;
}

function valueBytes(type: number): number {
  if (type >= 12) return Math.floor((type - 12) / 2);
  must(type !== 7 && type !== 10 && type !== 11, "a column is of a type that no file here has");
  return type > 6 ? 0 : integerBytes[type]!;
}

function valueOf(type: number, bytes: Buffer): ImageValue {
  if (type === 0) return null;
  if (type === 8 || type === 9) return type - 8;
  if (type >= 12) return type % 2 === 0 ? bytes : bytes.toString("utf8");
  const value =
    bytes.byteLength === 8 ? Number(bytes.readBigInt64BE(0)) : bytes.readIntBE(0, bytes.byteLength);
  must(Number.isSafeInteger(value), "a number is out of range");
  return value;
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Undefined where the file ends before. */
function readAt(descriptor: number, offset: number, length: number): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const count = readSync(descriptor, bytes, done, length - done, offset + done);
    if (count === 0) return undefined;
    done += count;
  }
  return bytes;
}

/**
 * A SQLite database read as the bytes that it is, main file and write-ahead log, without SQLite: nothing is locked, created, synced or moved, and a
 * file of any size takes little memory. For those who look at a folder that they must not change: SQLite cannot read a log in WAL mode without
 * writing a `-shm` beside it. Checks all that the format lets one check, and throws ImageError where it does not hold.
 *
 * Only what this project's files have: pages of one size, UTF-8, no auto-vacuum. https://sqlite.org/fileformat2.html has the layouts.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { SchemaRow } from "./sqlite.ts";
import { readWal, walPageBytes, type WalReading } from "./sqlite-wal.ts";

/** The bytes are not a whole database. */
export class ImageError extends Error {
  override readonly name: string = "ImageError";
}

/** What a column of a row holds; integers beyond 2^53 are refused. */
export type ImageValue = number | string | Uint8Array | null;

const fileHeaderBytes = 100;
const magic = "SQLite format 3\0";
const pageBytesMin = 512;
const pageBytesUsual = 4_096;
/** What the header says of how much of each page a record may take, as the format fixes it. */
const payloadFractions = "402020";
const formatWal = 2;
const schemaFormatMax = 4;
const encodingUtf8 = 1;
/** Of the header: auto-vacuum and a size for caches; numbers of other programs, and what is kept free. None is ever set here. */
const zeroRanges = [
  [48, 56],
  [60, 92],
] as const;
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
  pageCount: number;
  /** Undefined where there is no `-wal`. */
  readonly wal: WalReading | undefined;
  readonly #main: number;
  readonly #mainPages: number;
  readonly #log: number | undefined;
  readonly #roots = new Map<string, Root>();
  readonly #schema: SchemaRow[] = [];
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
      must(header !== undefined, "it is no SQLite database");
      // Where the log has the first page, that is the header which counts; this one may be damaged then.
      const logged = this.#log === undefined ? undefined : walPageBytes(this.#log);
      this.pageBytes = logged ?? pageBytesIn(header) ?? pageBytesUsual;
      this.#mainPages = Math.floor(fstatSync(this.#main).size / this.pageBytes);
      if (this.#log !== undefined) this.wal = readWal(this.#log, this.pageBytes);
      this.pageCount = this.wal?.pageCount ?? this.#mainPages;
      const first = this.#page(1);
      this.#checkHeader(first);
      this.pageCount = pagesIn(first) ?? this.pageCount;
      this.#readSchema();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get schema(): readonly SchemaRow[] {
    return this.#schema;
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

  /** The one that a reader of all comes to first; what is behind it is not looked at. */
  firstRow(table: string): readonly ImageValue[] | undefined {
    let at = this.#root(table);
    for (let depth = 0; depth < depthMax; depth++) {
      const page = this.#treePage(at);
      const isLeaf = page.type === PageType.rowLeaf;
      must(isLeaf || page.type === PageType.rowInterior, `page ${at} is none of a table`);
      if (isLeaf && page.cells === 0) return undefined;
      if (isLeaf) {
        const reader = new CellReader(page, 0);
        const bytes = reader.varint();
        reader.varint();
        return this.#record(reader, bytes, false);
      }
      at = page.cells === 0 ? page.right : new CellReader(page, 0).u32();
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
      this.#checkRestOfHeader(this.#page(1));
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

  /** All for which SQLite, as this project opens it, would refuse the file. */
  #checkHeader(first: Buffer): void {
    const isDatabase = first.subarray(0, magic.length).toString("latin1") === magic;
    const isWal = first[19]! <= formatWal;
    const isPlain = first.subarray(21, 24).toString("hex") === payloadFractions;
    must(isDatabase && isWal && isPlain, "it is no SQLite database");
    must(pageBytesIn(first) === this.pageBytes, "its page size is another one, or none");
    must(first[20] === 0, "its pages have less room than they were made with");
    must((pagesIn(first) ?? 0) <= this.pageCount, "it is shorter than it says");
    must(first[47]! <= schemaFormatMax, "its format is another one");
    must(first.readUInt32BE(52) === 0, "it is set to auto-vacuum");
    must((first[59]! & 3) <= encodingUtf8, "its texts are in another encoding");
  }

  /** What SQLite passes over, and what nobody here has ever written. */
  #checkRestOfHeader(first: Buffer): void {
    const format = first.readUInt32BE(44);
    const encoding = first.readUInt32BE(56);
    // Where the process ended before the tables were made, neither is said yet.
    const isEmpty = this.pageCount === 1 && format === 0 && encoding === 0;
    const isAsMade =
      first[18] === formatWal &&
      first[19] === formatWal &&
      first.readUInt32BE(24) === first.readUInt32BE(92) &&
      (isEmpty || (format === schemaFormatMax && encoding === encodingUtf8)) &&
      zeroRanges.every(([from, to]) => first.subarray(from, to).every((byte) => byte === 0));
    must(isAsMade, "its header is not as it was made");
  }

  #readSchema(): void {
    this.#roots.set("sqlite_schema", { kind: "table", page: 1 });
    this.rows("sqlite_schema", (_, [kind, name, owner, page, text]) => {
      const isNamed =
        typeof kind === "string" &&
        typeof name === "string" &&
        typeof owner === "string" &&
        (typeof text === "string" || text === null);
      must(isNamed, "its schema is damaged");
      this.#schema.push({ kind, name, owner, text, hasPages: 1 });
      must(typeof page === "number" && page > 1 && page <= this.pageCount, "its schema is damaged");
      this.#roots.set(name, { kind, page });
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
    must(pointersAt + 2 * cells <= this.pageBytes, `page ${number} has too many cells`);
    const right = isInterior ? bytes.readUInt32BE(at + 8) : 0;
    const isChecked = this.#used !== undefined;
    return { number, type, isChecked, bytes, cells, pointersAt, right };
  }

  #countFree(): void {
    const first = this.#page(1);
    let free = first.readUInt32BE(36);
    for (let trunk = first.readUInt32BE(32); trunk !== 0;) {
      must(free > 0, "its list of free pages is longer than it says");
      this.#use(trunk);
      const page = this.#page(trunk);
      const leaves = page.readUInt32BE(4);
      must(8 + 4 * leaves <= this.pageBytes, `page ${trunk} of the free list is damaged`);
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
        // SQLite takes them as they come.
        must(!page.isChecked || rowId > order.last, `the rows of page ${number} are out of order`);
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
    const usable = this.pageBytes;
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
  /** Also for what SQLite passes over. */
  readonly isChecked: boolean;
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
    const pointer = page.bytes.readUInt16BE(page.pointersAt + 2 * cell);
    // As SQLite does: what is beyond the page is not looked at.
    this.#at = pointer & (page.bytes.byteLength - 1);
    const isPlaced = this.#at === pointer && pointer >= page.pointersAt + 2 * page.cells;
    must(isPlaced || !page.isChecked, `a cell of page ${page.number} is misplaced`);
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

/** Undefined where the header says none. */
function pageBytesIn(header: Buffer): number | undefined {
  const coded = header.readUInt16BE(16);
  const bytes = coded === 1 ? 65_536 : coded;
  const isPower = (bytes & (bytes - 1)) === 0;
  return isPower && bytes >= pageBytesMin ? bytes : undefined;
}

/** Undefined where the header does not say it, or not as of its last change. */
function pagesIn(header: Buffer): number | undefined {
  const pages = header.readUInt32BE(28);
  const isOfLastChange = header.readUInt32BE(24) === header.readUInt32BE(92);
  return pages > 0 && isOfLastChange ? pages : undefined;
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

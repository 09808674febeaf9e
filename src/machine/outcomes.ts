/**
 * What became of the commands that a batch alone does not tell of: which failed, which were refused, what a transaction did not find. By log index, in
 * typed arrays of twelve bytes a row, bounded; a command that did plainly what it says has no row. With it the log is the history of all keys.
 *
 * Rows come in the order of the log. Past the bound the oldest go, and what lies at or below `floor` is not known any more.
 */

/** The upper bits of a row say what the lower ones are. */
const rowKind = {
  /** The result code of the command at this index. */
  code: 0,
  /** The operation at this position of a transaction, of the list that was run, found no key. */
  missing: 1,
  /** So many commands from this index on were not applied at all. */
  skipped: 2,
} as const;
const kindShift = 30;
const valueMask = 2 ** kindShift - 1;

const rowBytes = 12;
/** Rows to begin with; and at least, whatever the bound. */
const rowsAtFirst = 8;
const rowsMin = 4;
const noIndexes = new Float64Array(0);
const noWhat = new Uint32Array(0);

/** What `codeAt` says of a command that was not applied at all; no machine's code. */
export const notApplied = -1;

export class Outcomes {
  /** What came of commands at or below this index is not known. */
  #floor = 0;
  readonly #rowsMax: number;
  /** A ring: rows are at #head … #head + #length - 1, modulo the capacity, a power of two, or none at all until there is a row. */
  #index = noIndexes;
  #what = noWhat;
  #head = 0;
  #length = 0;
  /** Reading: the row that is next, and where it begins to matter. */
  #at = 0;
  #nextIndex = Infinity;

  constructor(bytesMax: number) {
    this.#rowsMax = Math.max(rowsMin, 2 ** Math.floor(Math.log2(bytesMax / rowBytes)));
  }

  get floor(): number {
    return this.#floor;
  }

  get bytes(): number {
    return this.#index.length * rowBytes;
  }

  /** Nothing is known of what came up to `index`. */
  reset(index: number): void {
    this.#floor = index;
    this.#head = this.#length = 0;
  }

  code(index: number, code: number): void {
    this.#add(index, rowKind.code, code);
  }

  missing(index: number, position: number): void {
    this.#add(index, rowKind.missing, position);
  }

  skipped(index: number, count: number): void {
    this.#add(index, rowKind.skipped, count);
  }

  #add(index: number, kind: number, value: number): void {
    if (this.#length === this.#index.length) {
      if (this.#length < this.#rowsMax) this.#grow();
      else this.#forget();
    }
    const slot = (this.#head + this.#length++) & (this.#index.length - 1);
    this.#index[slot] = index;
    this.#what[slot] = kind * 2 ** kindShift + Math.min(value, valueMask);
  }

  #grow(): void {
    const { length } = this.#index;
    const rows = length === 0 ? Math.min(rowsAtFirst, this.#rowsMax) : length * 2;
    const index = new Float64Array(rows);
    const what = new Uint32Array(rows);
    for (let row = 0; row < length; row++) {
      const slot = (this.#head + row) & (length - 1);
      index[row] = this.#index[slot]!;
      what[row] = this.#what[slot]!;
    }
    this.#index = index;
    this.#what = what;
    this.#head = 0;
  }

  /** The oldest quarter goes. What else is said of its last command is below the floor, and never read. */
  #forget(): void {
    const rows = this.#length / 4;
    this.#floor = this.#indexAt(rows - 1) + this.#spanAt(rows - 1) - 1;
    this.#head = (this.#head + rows) & (this.#index.length - 1);
    this.#length -= rows;
  }

  #slot(row: number): number {
    return (this.#head + row) & (this.#index.length - 1);
  }
  #indexAt(row: number): number {
    return this.#index[this.#slot(row)]!;
  }
  #kindAt(row: number): number {
    return this.#what[this.#slot(row)]! >>> kindShift;
  }
  #valueAt(row: number): number {
    return this.#what[this.#slot(row)]! & valueMask;
  }
  #spanAt(row: number): number {
    return this.#kindAt(row) === rowKind.skipped ? this.#valueAt(row) : 1;
  }

  /* ---------------------------------------------------------------- reading, by rising index */

  /** Begins to read at `index`. */
  seek(index: number): void {
    let low = 0;
    let high = this.#length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#indexAt(middle) + this.#spanAt(middle) <= index) low = middle + 1;
      else high = middle;
    }
    this.#go(low);
  }

  /** The code of the command at `index`, which is no lower than the one asked for before; 0 where nothing is said of it. */
  codeAt(index: number): number {
    if (index < this.#nextIndex) return 0;
    while (this.#at < this.#length && this.#indexAt(this.#at) + this.#spanAt(this.#at) <= index) {
      this.#go(this.#at + 1);
    }
    if (index < this.#nextIndex) return 0;
    const kind = this.#kindAt(this.#at);
    if (kind === rowKind.skipped) return notApplied;
    return kind === rowKind.code ? this.#valueAt(this.#at) : 0;
  }

  /** Whether the operation at `position` of the transaction at `index`, whose code was asked for last, found no key. */
  isMissing(index: number, position: number): boolean {
    for (let row = this.#at; row < this.#length && this.#indexAt(row) === index; row++) {
      if (this.#kindAt(row) === rowKind.missing && this.#valueAt(row) === position) return true;
    }
    return false;
  }

  #go(row: number): void {
    this.#at = row;
    this.#nextIndex = row < this.#length ? this.#indexAt(row) : Infinity;
  }
}

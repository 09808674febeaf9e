/**
 * What one slice of the log changed, sorted by the watches that it concerns. Kept in arrays that are used again from slice to slice: a change is a row,
 * and each watch has a chain of links to rows. Only rows that somebody watches are kept.
 */
import type { ChangeSink } from "../machine/machine.ts";
import type { Changes } from "../server/groups.ts";
import { type Matched, type Prefixed, PrefixIndex } from "./prefix-index.ts";

const none = -1;
/** Rows and links that are kept from slice to slice; one index may need more. */
const keptMax = 65_536;

/** What a slice notes at a watch: its chain of links, and how many bytes of keys and values they lead to. */
export class SliceTarget {
  firstLink = none;
  lastLink = none;
  count = 0;
  changedBytes = 0;
}

export interface Target extends Prefixed {
  readonly slice: SliceTarget;
  /** Told up to here: what is at or below it is not told again. */
  readonly position: number;
}

export class ChangeSlice<T extends Target> implements ChangeSink, Matched<T>, Changes {
  /** Whom this slice concerns, in the order of their first change. */
  #targets: T[] = [];
  #index: PrefixIndex<T> = new PrefixIndex();
  /** Only those that are told up to here at least: for others the slice would leave a gap. */
  #afterMin = 0;
  readonly #linksMax: number;

  constructor(linksMax: number) {
    this.#linksMax = linksMax;
  }

  #rows = 0;
  #revisions: number[] = [];
  #deletions: boolean[] = [];
  #bytesOf: Uint8Array[] = [];
  #keyAts: number[] = [];
  #keyLengths: number[] = [];
  #valueLengths: number[] = [];
  #rowIsKept = false;

  #links = 0;
  #linkRow: number[] = [];
  #linkNext: number[] = [];

  /** The row that is being matched. */
  #revision = 0;
  #deleted = false;
  #bytes: Uint8Array = new Uint8Array(0);
  #keyAt = 0;
  #keyLength = 0;
  #valueLength = 0;

  /** The chain that is being read: its target, and the link that is next. */
  #target = new SliceTarget();
  #nextLink = none;
  #row = 0;

  /** Begins with the changes after `position`, for those of `index` that were told up to there. */
  begin(index: PrefixIndex<T>, position: number): void {
    this.#index = index;
    this.#afterMin = position;
  }

  change(
    index: number,
    deleted: boolean,
    bytes: Uint8Array,
    keyAt: number,
    keyLength: number,
    valueLength: number,
  ): void {
    this.#revision = index;
    this.#deleted = deleted;
    this.#bytes = bytes;
    this.#keyAt = keyAt;
    this.#keyLength = keyLength;
    this.#valueLength = valueLength;
    this.#rowIsKept = false;
    this.#index.match(bytes, keyAt, keyLength, this);
  }

  matched(target: T): void {
    if (this.#revision <= target.position || target.position < this.#afterMin) return;
    if (!this.#rowIsKept) this.#keepRow();
    const link = this.#links++;
    this.#linkRow[link] = this.#rows - 1;
    this.#linkNext[link] = none;
    const { slice } = target;
    if (slice.count === 0) {
      this.#targets.push(target);
      slice.firstLink = link;
    } else {
      this.#linkNext[slice.lastLink] = link;
    }
    slice.lastLink = link;
    slice.count++;
    slice.changedBytes += this.#keyLength + this.#valueLength;
  }

  #keepRow(): void {
    const row = this.#rows++;
    this.#revisions[row] = this.#revision;
    this.#deletions[row] = this.#deleted;
    this.#bytesOf[row] = this.#bytes;
    this.#keyAts[row] = this.#keyAt;
    this.#keyLengths[row] = this.#keyLength;
    this.#valueLengths[row] = this.#valueLength;
    this.#rowIsKept = true;
  }

  /** It has grown enough: better go on in another one. */
  get isFull(): boolean {
    return this.#links >= this.#linksMax;
  }

  /** Whom the slice concerns. `end` forgets them. */
  get targets(): readonly T[] {
    return this.#targets;
  }

  /** The changes of that target, to be read from the first on. */
  of(target: T): Changes {
    this.#target = target.slice;
    this.#nextLink = target.slice.firstLink;
    return this;
  }

  end(): void {
    for (const { slice } of this.#targets) {
      slice.firstLink = slice.lastLink = none;
      slice.count = slice.changedBytes = 0;
    }
    this.#targets = [];
    // They hold on to batches.
    this.#bytesOf.length = 0;
    if (this.#links > keptMax) {
      this.#linkRow = [];
      this.#linkNext = [];
    }
    if (this.#rows > keptMax) this.#dropRows();
    this.#rows = this.#links = 0;
    this.#bytes = new Uint8Array(0);
  }

  #dropRows(): void {
    this.#revisions = [];
    this.#deletions = [];
    this.#keyAts = [];
    this.#keyLengths = [];
    this.#valueLengths = [];
  }

  /* ---------------------------------------------------------------- reading one chain */

  get count(): number {
    return this.#target.count;
  }
  get byteLength(): number {
    return this.#target.changedBytes;
  }

  next(): boolean {
    if (this.#nextLink === none) return false;
    this.#row = this.#linkRow[this.#nextLink]!;
    this.#nextLink = this.#linkNext[this.#nextLink]!;
    return true;
  }

  get revision(): number {
    return this.#revisions[this.#row]!;
  }
  get deleted(): boolean {
    return this.#deletions[this.#row]!;
  }
  get bytes(): Uint8Array {
    return this.#bytesOf[this.#row]!;
  }
  get keyAt(): number {
    return this.#keyAts[this.#row]!;
  }
  get keyLength(): number {
    return this.#keyLengths[this.#row]!;
  }
  get valueLength(): number {
    return this.#valueLengths[this.#row]!;
  }
}

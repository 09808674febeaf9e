/**
 * How much of its WAL a segment has used. The size of a recycled WAL does not tell and SQLite does not say, so the pages that each
 * transaction writes are counted by what is known of SQLite's b-tree when rows are only ever added at its right edge. It counts
 * rather too many than too few. Pure.
 */

const usableBytes = 4_096;
const frameBytes = usableBytes + 24;
const leafFreeBytes = usableBytes - 8;
/** Record header, integer columns, cell header and cell pointer of a row, at their largest. */
const rowOverheadBytes = 36;
/** Limits of what SQLite keeps of a row in the leaf itself (its file format, section 1.6). */
const localBytesMax = usableBytes - 35;
const localBytesMin = Math.floor(((usableBytes - 12) * 32) / 255) - 23;
const overflowBytes = usableBytes - 4;
/** Per new leaf: a parent takes some 400 of them, then it is split, which writes up to 3 pages more. */
const parentSplitBytes = 64;

export class WalMeter {
  #bytes: number;
  #leafBytes = leafFreeBytes;
  #leaves = 0;
  #others = 0;

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** One more row in the current transaction. */
  row(dataBytes: number): void {
    const payload = dataBytes + rowOverheadBytes;
    let local = payload;
    if (payload > localBytesMax) {
      local = localBytesMin + ((payload - localBytesMin) % overflowBytes);
      if (local > localBytesMax) local = localBytesMin;
      this.#others += Math.ceil((payload - local) / overflowBytes);
      local += 4;
    }
    this.#leafBytes -= local;
    if (this.#leafBytes < 0) {
      this.#leaves++;
      this.#leafBytes = leafFreeBytes - local;
    }
  }

  /** The transaction is in the WAL: its new pages, the leaf at the edge, the header page where the file grew, and parents of new leaves. */
  commit(): void {
    let frames = 1 + this.#leaves + this.#others;
    if (this.#leaves + this.#others > 0) frames += 1;
    if (this.#leaves > 0) frames += 1;
    this.#bytes += frames * frameBytes + this.#leaves * parentSplitBytes;
    this.#leaves = 0;
    this.#others = 0;
  }
}

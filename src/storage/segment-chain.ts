/**
 * The segments that the log lies in, oldest first: which one a record is in, when the next begins, which need a sync, which may go.
 * Knows sequence numbers and how many live batches each segment holds, not what the records say.
 */
import type { Limits } from "../limits.ts";
import type { Disk, SegmentFile } from "./disk.ts";

export interface Segment {
  readonly file: SegmentFile;
  readonly firstSeq: number;
  lastSeq: number;
  liveBatches: number;
  liveBytes: number;
  /** Has records that no sync round covers yet. */
  dirty: boolean;
}

/** Segment numbers are u32 in the records; 2^32 segments of 64 MiB outlast any disk. */
const segmentNumberMax = 0xffff_ffff;

export class SegmentChain {
  readonly #disk: Disk;
  readonly #limits: Limits;
  #segments: Segment[] = [];
  #dirty: Segment[] = [];
  /** Found at the start and no part of the log; retired before any other. */
  #leftovers: SegmentFile[] = [];
  /** The oldest segment that the current one's first record names; 0 until this boot has begun its own. */
  #oldestNeeded = 0;
  /** The current segment counts as full. */
  #rotates = false;
  #nextNumber = 1;
  /** Number of the segment that comes next and is being prepared, 0 for none. */
  #preparing = 0;
  /** Made, but its first transaction has not succeeded: the disk was full. */
  #unused: SegmentFile | undefined;

  constructor(disk: Disk, limits: Limits) {
    this.#disk = disk;
    this.#limits = limits;
  }

  /** Takes over what recovery found. All of it needs a sync: a process that died may have left it unsynced. */
  adopt(
    found: readonly Pick<Segment, "file" | "firstSeq" | "lastSeq">[],
    leftovers: readonly SegmentFile[],
  ): void {
    this.#segments = found.map((segment) => ({
      ...segment,
      liveBatches: 0,
      liveBytes: 0,
      dirty: true,
    }));
    this.#dirty = [...this.#segments];
    this.#leftovers = [...leftovers];
    for (const { number } of this.#disk.segments) {
      this.#nextNumber = Math.max(this.#nextNumber, number + 1);
    }
  }

  get list(): readonly Segment[] {
    return this.#segments;
  }

  /** The one that takes the appends; undefined on a new folder. */
  get current(): Segment | undefined {
    return this.#segments.at(-1);
  }

  get bytes(): number {
    let bytes = 0;
    for (const segment of this.#segments) bytes += segment.file.bytes;
    return bytes;
  }

  /** The oldest one that the current segment has named as needed; 0 before this boot has one. */
  get oldestNeeded(): number {
    return this.#oldestNeeded;
  }

  /** The next transaction begins a new segment, as soon as one is prepared. */
  rotate(): void {
    this.#rotates = true;
    this.prepareNext();
  }

  get hasDirty(): boolean {
    return this.#dirty.length > 0;
  }

  of(seq: number): Segment {
    const segments = this.#segments;
    let low = 0;
    let high = segments.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (segments[middle]!.firstSeq <= seq) low = middle;
      else high = middle - 1;
    }
    return segments[low]!;
  }

  /** The oldest segment with a live batch in it, else the one that is about to begin. */
  oldestLive(beginning: number): number {
    for (const segment of this.#segments) {
      if (segment.liveBatches > 0) return segment.file.number;
    }
    return beginning;
  }

  /**
   * The file of a new segment if the next transaction must begin one, else undefined. While one is being prepared, the current takes
   * up to twice its size, for creating one blocks [M7].
   */
  nextFile(): SegmentFile | undefined {
    const current = this.current;
    // The segments that were found are never written again, for their lost tails could come back [M19].
    const isOfThisBoot = this.#oldestNeeded > 0;
    if (current !== undefined && isOfThisBoot && !this.#isFull(current, 1)) {
      // A growing one is left for one that does not grow as soon as there is one.
      if (current.file.growing && this.#preparing !== 0) this.#takePrepared();
      return this.#unused;
    }
    if (this.#unused !== undefined) return this.#unused;
    if (this.#preparing !== 0) {
      const canWait = isOfThisBoot && current !== undefined && !this.#isFull(current, 2);
      this.#takePrepared();
      if (this.#unused !== undefined || canWait) return this.#unused;
    } else {
      // Remembered, so that a number is not used up each time that the disk is too full.
      this.#preparing = this.#takeNumber();
    }
    this.#unused ??= this.#disk.create(this.#preparing);
    this.#preparing = 0;
    return this.#unused;
  }

  #takePrepared(): void {
    this.#unused = this.#disk.takePrepared(this.#preparing);
    if (this.#unused !== undefined) this.#preparing = 0;
  }

  /** The file of `nextFile` has its first transaction, which names `oldest`, and is the current segment now. */
  begin(file: SegmentFile, firstSeq: number, oldest: number): void {
    this.#rotates = false;
    this.#unused = undefined;
    this.#oldestNeeded = oldest;
    const lastSeq = firstSeq - 1;
    const nothing = { liveBatches: 0, liveBytes: 0, dirty: false };
    this.#segments.push({ file, firstSeq, lastSeq, ...nothing });
  }

  /** The current segment has grown up to `lastSeq`. */
  grown(lastSeq: number): void {
    const segment = this.current!;
    segment.lastSeq = lastSeq;
    if (segment.dirty) return;
    segment.dirty = true;
    this.#dirty.push(segment);
  }

  /** What the next sync round must cover, oldest first; none of it is dirty then. */
  takeDirty(): SegmentFile[] {
    const files: SegmentFile[] = [];
    for (const segment of this.#dirty) {
      segment.dirty = false;
      files.push(segment.file);
    }
    this.#dirty = [];
    return files;
  }

  /** True when the current segment has had its share. */
  get isFull(): boolean {
    return this.#isFull(this.current!, 1);
  }

  /** Has the next segment made off the loop: once the current one is half full, or sees some use while it still grows. */
  prepareNext(): void {
    if (this.#preparing !== 0 || this.#unused !== undefined) return;
    const current = this.current!;
    if (!this.#isFull(current, current.file.growing ? 1 / 64 : 1 / 2)) return;
    this.#preparing = this.#takeNumber();
    this.#disk.prepare(this.#preparing);
  }

  /** Gives up what the current segment does not need, once its beginning is durable. */
  retire(syncedSeq: number): void {
    if (this.current!.firstSeq > syncedSeq) return;
    for (const file of this.#leftovers) this.#disk.retire(file);
    this.#leftovers = [];
    while (this.#segments[0]!.file.number < this.#oldestNeeded) {
      const segment = this.#segments.shift()!;
      if (segment.liveBatches !== 0 || segment.dirty) {
        throw new Error(`log-store: segment ${segment.file.number} is in use and would be retired`);
      }
      this.#disk.retire(segment.file);
    }
  }

  #isFull(segment: Segment, times: number): boolean {
    return (
      (this.#rotates && times <= 1) ||
      segment.file.bytes >= this.#limits.segmentBytes * times ||
      segment.lastSeq - segment.firstSeq + 1 >= this.#limits.segmentRecordsMax * times
    );
  }

  #takeNumber(): number {
    if (this.#nextNumber > segmentNumberMax) throw new Error("log-store: no segment numbers left");
    return this.#nextNumber++;
  }
}

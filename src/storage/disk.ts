/**
 * The seam between the log's logic (log-store.ts: records, rotation, superseding, chain, recovery) and what keeps the bytes: SQLite
 * segment files (sqlite-disk.ts) or the simulated disk of test/sim [43]. Types only.
 *
 * The contract that both keep, and that the log-store relies on:
 * - `append` is atomic, visible to `read` and `scan` at once, and not durable.
 * - After a crash a segment holds a prefix of its appended transactions that includes at least all that were appended before a `sync`
 *   of it was called and completed. A transaction is never half there.
 * - Nothing of a former life of a recycled file is ever visible. A retired segment may be found again, as it was; numbers may have gaps.
 * - Any failure to sync ends the process; `done` then never runs.
 */

/** Kinds of records in the log's stream. Append-only numbers. */
export const RecordKind = {
  /** First record of each segment: what it continues and which older segments the log still needs (records.ts). */
  segmentStart: 1,
  /** A sealed batch, verbatim. Supersedes everything of its group from its firstIndex on [18]. */
  batch: 2,
  hardState: 3,
  /** Where a group's log begins, with the configuration in force there. */
  logStart: 4,
  /** A live batch copied forward so that its old segment may go [19]. Supersedes nothing. */
  rewrite: 5,
  /** Which file is the group's state machine: a snapshot becomes live by this record, in the transaction of its log start [25]. */
  machineFile: 6,
  /** A replica has lost durable data, or is whole again [22]. */
  wound: 7,
  /** The registry's entry that made this replica, or the one that removed it: then all that the log has of the group is void. */
  replica: 8,
} as const;
export type RecordKind = (typeof RecordKind)[keyof typeof RecordKind];

export interface LogRecord {
  /** The shard's own sequence number: rising by 1 over all segments. */
  readonly seq: number;
  readonly kind: RecordKind;
  readonly group: number;
  readonly data: Uint8Array;
}

export interface SegmentFile {
  /** Rising over the life of a data folder, never reused. */
  readonly number: number;
  /** Bytes that the segment takes on disk so far (for SQLite: used part of its WAL). Decides rotation. */
  readonly bytes: number;
  /** Its file grows as it is written, which syncs dearer than overwriting (M15). */
  readonly growing: boolean;
  /** One transaction. Throws DiskFullError with nothing written; any other failure is fatal and does not come back. */
  append(records: readonly LogRecord[]): void;
  /** One record's data, or undefined when it has none of that number. */
  read(seq: number): Uint8Array | undefined;
  /** All records in order; with `headBytes`, only that many leading bytes of each record's data (and `size` is the whole length). */
  scan(visit: (record: LogRecord, size: number) => void, headBytes?: number): void;
}

export interface Disk {
  /** What recovery found, oldest first; files without main, WAL or right stamp were dropped already [26]. */
  readonly segments: readonly SegmentFile[];
  /** Creates a segment at once, blocking: at boot, or when the one of this number that is being prepared is late. */
  create(number: number): SegmentFile;
  /** Prepares segment `number` off the loop, recycling a retired one if there is one. At most one at a time. */
  prepare(number: number): void;
  /** The prepared segment, once it is ready; the caller owns it then. */
  takePrepared(number: number): SegmentFile | undefined;
  /** Gives up a segment; the caller retires strictly oldest first. It is closed here, then recycled or unlinked off the loop. */
  retire(segment: SegmentFile): void;
  /**
   * Makes durable what was appended to these segments (oldest first) before the call, then runs `done`, later, never within the call.
   * One round at a time: the caller waits for `done` before the next call.
   */
  sync(segments: readonly SegmentFile[], done: () => void): void;
  /** True while a round is under way. */
  readonly syncing: boolean;
  /** The newest intact watermark, or undefined on a new folder. */
  readWatermark(): Uint8Array | undefined;
  /** Replaces the watermark: visible at once, durable after `syncWatermark` (or by luck). At most `watermarkBytesMax`. */
  writeWatermark(bytes: Uint8Array): void;
  syncWatermark(done: () => void): void;
  /** Leaves everything as it is: no sync, no checkpoint. */
  close(): void;
}

export const watermarkBytesMax = 1_048_576;

/** The disk is full: the transaction was rolled back, nothing of it is there, and later ones may succeed again. */
export class DiskFullError extends Error {
  override readonly name: string = "DiskFullError";
}

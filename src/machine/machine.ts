/**
 * What every state machine is to the shell (design.md, section 5). Synchronous: only `sync` and snapshots complete later.
 * The applied index lives in the machine alone, saved in the same transaction as the data [C7].
 */
import type { ErrorCode } from "../errors.ts";
import type { Batch } from "../wire/batch.ts";

/** Status of one command or query; 0 is plain ok. Append-only; a machine may use numbers from 64 on for its own. */
export const ResultCode = {
  ok: 0,
  /** The section or the command is malformed. Nothing was changed. */
  malformed: 1,
  /** Key absent: a get found nothing, a delete deleted nothing. */
  notFound: 2,
  /** Compare by revision failed; bytes = the key's revision as u64 (0 = absent). Nothing was changed. */
  compareFailed: 3,
  /** A bound of the machine was exceeded. Nothing was changed. */
  tooLarge: 4,
  /** The compares of a transaction did not hold, so its failure list was applied; bytes as with ok, for that list. */
  failureList: 5,
  /** The application behind the machine gave no answer, or refused; bytes = why, as text. Only of a read, which may be asked again. */
  applicationFailed: 6,
} as const;
export type ResultCode = number;

/**
 * Receives the results of one apply. The shell tells in advance whether anybody waits, so that a machine need not build bytes for
 * nobody; the state hash takes the codes and bytes all the same, hence `result` is always called for what is not plain ok.
 */
export interface ResultSink {
  /** A result other than plain ok without bytes, for the command at `index`. Called in index order. `bytes` is valid during the call. */
  result(index: number, code: ResultCode, bytes: Uint8Array | undefined): void;
  /**
   * The section at `index` changed nothing: it was applied before, at `originalIndex`, with these results (wire/section-results.ts; a view, valid
   * during the call). In index order with `result`, which is not called for any of its commands.
   */
  repeated(index: number, count: number, originalIndex: number, results: Uint8Array): void;
  /** The section at `index` changed nothing, and nothing can be said of it but that. As with `repeated`. */
  refused(index: number, count: number, code: ErrorCode): void;
}

/** Where `read` puts its answer: one call per query, within `read` unless the machine `answersLater`. `bytes` is valid during the call. */
export interface AnswerSink {
  answer(code: ResultCode, bytes: Uint8Array | undefined): void;
}

/** Where a history tells its changes: one call each, by rising index. */
export interface ChangeSink {
  /** `bytes` holds the key and, right behind it, the value; it is never written to again. A deletion has no value. */
  change(
    index: number,
    deleted: boolean,
    bytes: Uint8Array,
    keyAt: number,
    keyLength: number,
    valueLength: number,
  ): void;
  /** Better no more now: what follows may be told later, from the next index on. Asked between two indexes. */
  readonly isFull: boolean;
}

/** What commands changed, told again from the batches that they came in: for whoever watches keys. */
export interface ChangeHistory {
  /** What batches at or below this index changed cannot be told any more. */
  readonly floor: number;
  /** Memory that it takes. */
  readonly bytes: number;
  /** The changes of the commands of an applied batch above the floor, from index `from` on; returns the index up to which the sink took them. */
  tell(batch: Batch, from: number, sink: ChangeSink): number;
}

/**
 * The state at one index, which does not change while it is held: what a snapshot is sent from. Writes go on meanwhile, beside it. One serves any
 * number of receivers.
 */
export interface MachineSnapshot {
  readonly index: number;
  readonly bytes: number;
  /**
   * A part of it, read off the event loop; the bytes are the caller's. Runs `done` later, never within the call; undefined: it cannot be read any more. They lie
   * in `memory`, which is handed over, where that is given and as long.
   */
  read(
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer> | undefined) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void;
  /** Once. Reads under way still come to their end. */
  release(): void;
}

/** What a received snapshot must be. */
export interface SnapshotProof {
  readonly index: number;
  readonly bytes: number;
  /** Of each chunk but the last, and the digest over all of them (wire/snapshot-messages.ts). */
  readonly chunkBytes: number;
  readonly digest: number;
  /** It must not be beyond this apply version [16]. */
  readonly applyVersionMax: number;
}

/** How it went to open a received snapshot. noSpace: it may be asked again. unusable: what it says of itself makes no sense, and it has to go. */
export type SnapshotOpening = "opened" | "noSpace" | "unusable";

/** A snapshot that is being received, beside the live state and under a name of its own [25]. All of it off the event loop. */
export interface IncomingSnapshot {
  /** Its name; it is live once the log's pointer says so. Rising, never used again. */
  readonly generation: number;
  /** Writes the next part, copied within the call. `ok` false: the disk is full. Writes end in the order in which they were asked for. */
  write(offset: number, bytes: Uint8Array, done: (ok: boolean) => void): void;
  /** Reads all of it back, compares it with the proof, and makes it durable. Once, after the last write is done. */
  finish(proof: SnapshotProof, done: (ok: boolean) => void): void;
  /**
   * Once finished, and before anything depends on it: opens it and looks whether the machine can go over to it, so that doing so neither fails nor needs space
   * on the disk any more.
   */
  open(): SnapshotOpening;
  /** It is not wanted: no callback runs any more. */
  discard(): void;
}

/** See `holdFile`. */
export interface HeldFile {
  readonly path: string;
  /** Selects all rows above the key ?1 in order, with `key` among the columns. */
  readonly query: string;
  /** Selects, as `saved`, what has a seal of its own (wire/sealed-bytes.ts). */
  readonly sealedQuery: string;
  release(): void;
}

/** The machine is an application, and that is not there, or not ready. */
export interface Absence {
  /** What is waited for, for people. */
  readonly reason: string;
  /** For so long; Infinity: it was never there. */
  readonly forMs: number;
  /** For longer than a moment: others should do what this node would. */
  readonly isLong: boolean;
}

export interface StateMachine {
  /** Opens what is on disk and returns the index up to which it is applied and durable (0 for none). */
  open(): number;
  /** Applied, in memory. */
  readonly appliedIndex: number;
  /** Applied and durable: the log below may go. Never passes what `allowDurable` said. */
  readonly durableIndex: number;
  /** crc chain over everything applied: crc(previous, batch crc, results) [32]. Equal on all nodes at equal appliedIndex. */
  readonly stateHash: number;
  /** How commands take effect: part of the state, raised by the log alone [16]. */
  readonly applyVersion: number;
  /** Part of the state too: the first members of `system`, as the log said when it raised the apply version (wire/registry.ts). Empty where it has not. */
  readonly systemSeed?: Uint8Array | undefined;
  /** Where the machine holds keys. It does not outlive the process, nor a snapshot that is taken over. */
  readonly history?: ChangeHistory | undefined;
  /**
   * Applies committed batches in order, the first beginning at appliedIndex + 1 (or spanning it after a restart). Total: bad input
   * becomes a result. Returns how many batches it took; fewer than given when it must wait for a flush: call again after `work`.
   */
  apply(batches: readonly Batch[], results: ResultSink): number;
  /** False while `apply` would do nothing, whatever it were given. */
  readonly takesBatches?: boolean;
  /** Undefined where all is well. */
  readonly absence?: Absence | undefined;
  /** Reads at appliedIndex. Bad queries get an answer with an error code. */
  read(query: Uint8Array, answers: AnswerSink): void;
  /** Answers of `read` come in a later turn, from an application: each once, within a bound of time, whatever becomes of the application. */
  readonly answersLater?: true;
  /** The node's own log is durable up to here: the machine may make at most this durable [23]. */
  allowDurable(index: number): void;
  /**
   * A slice of background work (flush), bounded to some milliseconds; called once per turn while it is not at rest. `nowMs` is monotonic. Returns true when
   * there is more to do at once.
   */
  work(nowMs: number): boolean;
  /** Nothing is under way or wanted, so `work` need not be called each turn; some times a second is enough, for what is done by time. */
  readonly resting: boolean;
  /** Flushes what is applied as soon as it can: what is durable the log can drop. */
  flush(): void;
  /** The same at the end of the batch at which it has applied this index, instead of any index given before; Infinity = at none. Costs nothing to say again. */
  flushAt(index: number): void;
  /**
   * Opens a handle on the durable state, later, never within the call: once what is being flushed is. Undefined where the disk is too full for
   * it, or nothing is durable yet. Many may be open; while one is, the write-ahead log of the file grows.
   */
  prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void;
  /** Undefined where there is no room for it. */
  receiveSnapshot(bytes: number): IncomingSnapshot | undefined;
  /**
   * Goes over to a snapshot that is finished, at once: the log's pointer to it is visible. A crash before that pointer is durable brings back the
   * state of before, so its file stays until `snapshotDurable`.
   */
  recoverFromSnapshot(incoming: IncomingSnapshot): void;
  snapshotDurable(): void;
  /**
   * The file that keeps the state, to be read through beside all else: it stays where it is until `release`. Undefined where there is none yet, or where
   * the machine keeps no rows.
   */
  holdFile?(): HeldFile | undefined;
  /** The application has entries up to here, by its own word: it may have got more than this node remembers to be committed [30]. Undefined: it has not said. */
  readonly storedIndex?: number | undefined;
  /** The application has lost what the log does not hold any more: another member's state is needed, as of this index or later. Undefined: it is not. */
  readonly lacksStateAt?: number | undefined;
  /** Goes over to such a state, received like any other, while the log stays as it is [31]. */
  refill?(incoming: IncomingSnapshot): void;
  /** Figures for status and metrics, by name. */
  figures(): Record<string, number>;
  /** Leaves files without a sync, a checkpoint or a flush; everything since `durableIndex` is replayed from the log. */
  close(): void;
}

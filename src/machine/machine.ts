/**
 * What every state machine is to the shell (design.md, section 5). Synchronous: only `sync` and snapshots complete later.
 * The applied index lives in the machine alone, saved in the same transaction as the data [C7].
 */
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
} as const;
export type ResultCode = number;

/**
 * Receives the results of one apply. The shell tells in advance whether anybody waits, so that a machine need not build bytes for
 * nobody; the state hash takes the codes and bytes all the same, hence `result` is always called for what is not plain ok.
 */
export interface ResultSink {
  /** A result other than plain ok without bytes, for the command at `index`. Called in index order. `bytes` is valid during the call. */
  result(index: number, code: ResultCode, bytes: Uint8Array | undefined): void;
}

/** Where `read` puts its answer: one call per query, within `read`. `bytes` is valid during the call. */
export interface AnswerSink {
  answer(code: ResultCode, bytes: Uint8Array | undefined): void;
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
  /**
   * Applies committed batches in order, the first beginning at appliedIndex + 1 (or spanning it after a restart). Total: bad input
   * becomes a result. Returns how many batches it took; fewer than given when it must wait for a flush: call again after `work`.
   */
  apply(batches: readonly Batch[], results: ResultSink): number;
  /** Reads at appliedIndex. Bad queries get an answer with an error code. */
  read(query: Uint8Array, answers: AnswerSink): void;
  /** The node's own log is durable up to here: the machine may make at most this durable [23]. */
  allowDurable(index: number): void;
  /**
   * A slice of background work (flush), bounded to some milliseconds; called once per turn. `nowMs` is monotonic. Returns true when
   * there is more to do at once.
   */
  work(nowMs: number): boolean;
  /** Figures for status and metrics, by name. */
  figures(): Record<string, number>;
  /** Leaves files without a sync, a checkpoint or a flush; everything since `durableIndex` is replayed from the log. */
  close(): void;
}

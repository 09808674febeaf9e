/** What a program sees of watches, as types; a part of api.ts. */
import type { CodecName, Key, ValueOutput } from "./api.ts";

export interface WatchOptions {
  /** Keys of that group. @default the client's */
  readonly group?: number | undefined;
  /** Keys that begin with it; without it, and without `key`, all keys. */
  readonly prefix?: Key | undefined;
  /** This key alone; not together with `prefix`. */
  readonly key?: Key | undefined;
  /**
   * Changes from this revision on, those that were made before the call among them: the revision that a `range` was read at, plus one, goes on
   * exactly where that ends. Fails with `compacted` where no node reaches back so far. @default only what changes from now on
   */
  readonly from?: number | undefined;
  /** Bytes of changes that may come ahead of what the program has taken. @default 1048576 (1 MiB) */
  readonly windowBytes?: number | undefined;
  /**
   * Fails with `unreachable` once no node has served the watch for so long. @default never: it waits until one does
   */
  readonly giveUpMs?: number | undefined;
  /** Ends the watch: the iteration rejects with `aborted`. */
  readonly signal?: AbortSignal | undefined;
}

/** One change of a key. */
export type Change<C extends CodecName = "bytes"> =
  | {
      readonly type: "put";
      readonly key: Uint8Array;
      readonly value: ValueOutput<C>;
      /** Log index of the write: the key's revision from then on. */
      readonly revision: number;
    }
  | {
      readonly type: "delete";
      readonly key: Uint8Array;
      /** Log index of the delete. */
      readonly revision: number;
    };

/** Changes that came together: whole revisions, so all that one transaction changed is in one batch. */
export interface ChangeBatch<C extends CodecName = "bytes"> {
  /** In order; empty where there is only the news that nothing changed up to `revision`. */
  readonly changes: readonly Change<C>[];
  /** These are all changes up to here, after those of the batch before. */
  readonly revision: number;
}

/**
 * The changes of some keys as they happen: all of them, in the order of their revisions, each once, whatever becomes of nodes and connections
 * meanwhile. A transaction tells each key that it changed once, as it left it.
 *
 *     for await (const change of client.watch({ prefix: "config/", from: revision + 1 })) apply(change);
 *
 * To be iterated once. Leaving the loop ends the watch. It waits for a slow program without holding more than its window; the nodes keep the
 * changes meanwhile, as long as they keep their logs. Where that was not long enough, the iteration rejects with `compacted`: read
 * the keys anew, and watch from there.
 */
export interface Watch<C extends CodecName = "bytes"> extends AsyncIterable<Change<C>> {
  /**
   * Everything up to this revision was handed out and the next one asked for: to go on later, or in another process, watch from the one
   * after it. -1 until a node has said where the watch begins.
   */
  readonly revision: number;
  /** The same as batches, with how far the watch has come: cheaper where there are many, and the way to know that nothing changed. */
  batches(): AsyncIterable<ChangeBatch<C>>;
  /** Ends the watch, and the iteration, in peace. Idempotent. */
  close(): void;
}

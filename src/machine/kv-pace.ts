/**
 * How the Worker that writes a kv file has a second one sync that file meanwhile (kv-pacer.ts), in two words of shared memory. One call of SQLite can dirty
 * all that a flush wrote: a commit computes the checksums of all its frames anew once one of them was overwritten, and a checkpoint writes
 * hundreds of megabytes. Synced in one go, they would stand before the log's own syncs in the disk's queue for a tenth of a second.
 */
import { refuseSyncs } from "../storage/sqlite.ts";
import { isLatched, SyncError } from "../storage/sync-latch.ts";

export const PaceWord = {
  /** The descriptor to sync again and again, plus one; 0 = none. */
  descriptor: 0,
  /** 1 while a sync may be under way. */
  syncing: 1,
} as const;

export const paceBytes = 8;

export class Pace {
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
  }

  /** Syncs `descriptor` all along while `work` runs; nothing is under way in it any more afterwards, so that it may be closed [17]. */
  during(descriptor: number, work: () => void): void {
    const words = this.#words;
    Atomics.store(words, PaceWord.descriptor, descriptor + 1);
    Atomics.notify(words, PaceWord.descriptor);
    try {
      work();
    } catch (error) {
      // Or the file would be synced once more, as if that had not failed.
      refuseSyncs(error);
      throw error;
    } finally {
      Atomics.store(words, PaceWord.descriptor, 0);
      Atomics.notify(words, PaceWord.descriptor);
      while (Atomics.load(words, PaceWord.syncing) === 1) Atomics.wait(words, PaceWord.syncing, 1);
    }
    if (isLatched()) throw new SyncError("a sync beside a write failed");
  }
}

/*
 * ENGINEER A, PLEASE READ: these files (kv-file, kv-flush, kv-files, sqlite-kv-file, kv-checkpoint-worker, test/sim/sim-kv-file) are being rewritten on `main`, and
 * will be merged into `five` at about 19:05. Flushes stall the loop for up to 350 ms, so the whole flush moves into one Worker (kv-worker.ts), which also
 * checkpoints; jobs of all groups run there one after the other. The new seam replaces begin/upsert/remove/commit/sync:
 *     write(table: Memtable | undefined, meta: KvMeta, events: { committed(): void; durable(): void; diskFull(): void }): void   (one at a time; committed = visible)
 *     checkpoint(done: (moved: boolean) => void)                                                                               (never while a write is under way)
 * open, revision, get, scan, walBytes, close stay. Do the core, store and transport parts of snapshots first; touch these files after that merge (this note is gone then).
 */
/**
 * The thread that moves a kv file's write-ahead log into its main file, with connections of its own and synchronous calls [27]. Started
 * by kv-files.ts, which sees to it that nobody writes the file meanwhile.
 *
 * It then commits one row itself: the first commit after a whole checkpoint restarts the log from its beginning and syncs the new header,
 * and that must not fall on the event loop [29].
 */
import { parentPort, workerData } from "node:worker_threads";
import { isDiskFull, openDatabase } from "../storage/sqlite.ts";
import { adoptLatch, isLatched, tripLatch } from "../storage/sync-latch.ts";
import type { CheckpointFailure } from "./kv-files.ts";

export interface CheckpointRequest {
  readonly path: string;
}

export interface CheckpointReply {
  readonly failure: CheckpointFailure | undefined;
}

const cacheKiB = 2_048;

/** Between two looks whether a reader has ended. */
const readerMs = 1;
const nap = new Int32Array(new SharedArrayBuffer(4));

adoptLatch(workerData as SharedArrayBuffer);

parentPort?.on("message", ({ path }: CheckpointRequest) => {
  const reply: CheckpointReply = { failure: checkpoint(path) };
  parentPort?.postMessage(reply);
});

function checkpoint(path: string): CheckpointFailure | undefined {
  if (isLatched()) return { diskFull: false, reason: "an earlier sync failed" };
  try {
    const database = openDatabase(path, { cacheKiB });
    try {
      const move = database.prepare<{ log: number; checkpointed: number }, []>(
        "PRAGMA wal_checkpoint(PASSIVE)",
      );
      // A reader holds back what was committed since it began, for the rest of its turn.
      for (let moved = move.get(); moved !== null && moved.checkpointed < moved.log;) {
        Atomics.wait(nap, 0, 0, readerMs);
        moved = move.get();
      }
      database.begin();
      database
        .prepare("INSERT INTO restart VALUES (0, 1) ON CONFLICT DO UPDATE SET count = count + 1")
        .run();
      database.commit();
    } finally {
      database.leave();
    }
    return undefined;
  } catch (error) {
    const diskFull = isDiskFull(error);
    // A sync failed, or it cannot be told that none did [D9].
    if (!diskFull) tripLatch();
    return { diskFull, reason: String(error) };
  }
}

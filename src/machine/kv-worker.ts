/**
 * The thread that writes kv files: memtables into them, and their write-ahead logs into their main files, with connections of its own and
 * synchronous calls [27]. On the event loop, in slices, a flush held it for up to 350 ms at a time: where the file system commits its journal, a
 * single write of a page waits for it. Started by kv-files.ts, which gives it one job at a time.
 */
import { parentPort, workerData } from "node:worker_threads";
import { existsSync } from "node:fs";
import { setPriority } from "node:os";
import { isDiskFull, type OwnedDatabase, refuseSyncs } from "../storage/sqlite.ts";
import { adoptLatch, fdatasyncFile, isLatched } from "../storage/sync-latch.ts";
import { openKvDatabase, syncNames, walUse } from "./kv-database.ts";
import type { KvMeta } from "./kv-file.ts";
import type { KvJob, KvReply, KvWorkerData } from "./kv-jobs.ts";
import { Pace } from "./kv-pace.ts";
import { Memtable, type SharedMemtable } from "./memtable.ts";

/** What is still in here at the commit is written at once, and the log's own syncs wait behind it. */
const cacheKiB = 4_096;
/** Between two looks whether a reader has ended. */
const readerMs = 1;
const nap = new Int32Array(new SharedArrayBuffer(4));
/** The event loop goes first. */
const niceness = 10;

const { latch, pace: paceMemory } = workerData as KvWorkerData;
const pace = new Pace(paceMemory);
adoptLatch(latch);
// On Linux that is this thread's alone; elsewhere it would be the whole process's.
if (process.platform === "linux") setPriority(0, niceness);

parentPort?.on("message", (job: KvJob) => reply(run(job)));

function reply(message: KvReply): void {
  parentPort?.postMessage(message);
}

function run(job: KvJob): KvReply {
  if (isLatched()) return failed(false, "an earlier sync failed");
  try {
    const isNew = !existsSync(job.path);
    const database = openKvDatabase(job.path, cacheKiB);
    try {
      const walBytes = walUse(database);
      if (job.kind === "checkpoint") {
        pace.during(database.mainDescriptor, () => moveAll(database));
        // Only where no sync beside it has failed: that of SQLite may then have had nothing left to tell.
        restartLog(database);
      } else {
        if (isNew) syncNames(job.path);
        pace.during(database.walDescriptor, () => write(database, job.table, job.meta));
        reply({ kind: "committed", walBytes: walBytes() });
        fdatasyncFile(database.walDescriptor);
      }
      return { kind: "done", walBytes: walBytes() };
    } catch (error) {
      refuseSyncs(error);
      throw error;
    } finally {
      // Rolls back what was not committed.
      database.leave();
    }
  } catch (error) {
    refuseSyncs(error);
    return failed(isDiskFull(error), String(error));
  }
}

function failed(diskFull: boolean, reason: string): KvReply {
  return { kind: "failed", failure: { diskFull, reason } };
}

function write(database: OwnedDatabase, shared: SharedMemtable, meta: KvMeta): void {
  const upsert = database.prepare<unknown, [Uint8Array, number, Uint8Array]>(
    "INSERT INTO kv VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET revision = ?2, value = ?3",
  );
  const remove = database.prepare<unknown, [Uint8Array]>("DELETE FROM kv WHERE key = ?1");
  const saveMeta = database.prepare<unknown, [number, number, number]>(
    `INSERT INTO meta VALUES (0, ?1, ?2, ?3)
     ON CONFLICT DO UPDATE SET appliedIndex = ?1, stateHash = ?2, timeMs = ?3`,
  );
  const saveState = database.prepare<unknown, [number, Uint8Array]>(
    `INSERT INTO apply_state VALUES (0, ?1, ?2)
     ON CONFLICT DO UPDATE SET applyVersion = ?1, sessions = ?2`,
  );
  const { table, cursor } = Memtable.adopt(shared);
  database.begin();
  for (; cursor.entry !== 0; cursor.advance()) {
    const { entry } = cursor;
    const keyAt = table.keyOffset(entry);
    const key = table.keyBytes(entry).subarray(keyAt, keyAt + table.keyLength(entry));
    if (table.isDeleted(entry)) {
      remove.run(key);
      continue;
    }
    const valueAt = table.valueOffset(entry);
    const value = table.valueBytes(entry).subarray(valueAt, valueAt + table.valueLength(entry));
    upsert.run(key, table.revision(entry), value);
  }
  saveMeta.run(meta.appliedIndex, meta.stateHash, meta.timeMs);
  saveState.run(meta.applyVersion, meta.sessions);
  database.commit();
}

/** The whole of its log into the main file. */
function moveAll(database: OwnedDatabase): void {
  const move = database.prepare<{ log: number; checkpointed: number }, []>(
    "PRAGMA wal_checkpoint(PASSIVE)",
  );
  // A reader holds back what was committed since it began, for the rest of its turn.
  for (let moved = move.get(); moved !== null && moved.checkpointed < moved.log;) {
    Atomics.wait(nap, 0, 0, readerMs);
    moved = move.get();
  }
}

/**
 * The first commit after a whole checkpoint restarts the log from its beginning and syncs the new header; a commit of one row takes that
 * upon itself [29].
 */
function restartLog(database: OwnedDatabase): void {
  database.begin();
  database
    .prepare("INSERT INTO restart VALUES (0, 1) ON CONFLICT DO UPDATE SET count = count + 1")
    .run();
  database.commit();
}

/** The SQLite database of a kv file: its schema, and how it is opened by the event loop, which reads, and by the Worker, which writes. */
import { dirname } from "node:path";
import { openDatabase, type OwnedDatabase } from "../storage/sqlite.ts";
import { fsyncDirectory } from "../storage/sync-latch.ts";

/**
 * With row ids: the values lie in a tree of their own, so the one by key stays small. WITHOUT ROWID was as fast with values of 16 B; with
 * 256 B it wrote twice the log and read 1.6 times slower, with 1 KiB 3.5 and 11 times. `restart` is written after checkpoints alone. `apply_state` is
 * beside `meta`, so that a build that knows nothing of it reads and writes the file as ever, before the apply version is raised.
 */
export const kvSchema = `
  CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS meta (
    id INTEGER PRIMARY KEY CHECK (id = 0), appliedIndex INTEGER NOT NULL, stateHash INTEGER NOT NULL, timeMs INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS apply_state (
    id INTEGER PRIMARY KEY CHECK (id = 0), applyVersion INTEGER NOT NULL, sessions BLOB NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS restart (id INTEGER PRIMARY KEY CHECK (id = 0), count INTEGER NOT NULL) STRICT;
`;

const walFrameBytes = 4_096 + 24;

/** Creates it where it is missing. `cacheKiB` is for each of its two connections. */
export function openKvDatabase(path: string, cacheKiB: number): OwnedDatabase {
  return openDatabase(path, { cacheKiB, schema: kvSchema });
}

/**
 * How much of the `-wal` is in use, in bytes; its size does not tell, as a restarted one is overwritten in place. Moves nothing. Returns
 * a function, as it is asked again and again.
 */
export function walUse(database: OwnedDatabase): () => number {
  const frames = database.prepare<{ log: number }, []>("PRAGMA wal_checkpoint(NOOP)");
  return () => walFrameBytes * Math.max(0, frames.get()?.log ?? 0);
}

/** Makes the names of the file and of its folder, which may be as new, durable [D13]. Blocks. */
export function syncNames(path: string): void {
  fsyncDirectory(dirname(path));
  fsyncDirectory(dirname(dirname(path)));
}

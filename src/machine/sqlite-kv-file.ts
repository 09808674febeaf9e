/**
 * The kv file in SQLite. It is created by the first write and opened when it is needed, so that an idle group holds nothing open [28].
 * The event loop only reads, through a read-only connection that sees what is committed; all writing is the Worker's (kv-worker.ts).
 * The main file changes only by checkpoints.
 */
import { fstatSync, statSync } from "node:fs";
import { DiskFullError } from "../storage/disk.ts";
import {
  hasOnly,
  isDiskFull,
  isUnusable,
  readFailed,
  writeLost,
  type OwnedDatabase,
} from "../storage/sqlite.ts";
import { fdatasyncFile } from "../storage/sync-latch.ts";
import { applyVersionFirst } from "../wire/versions.ts";
import { kvSchema, openKvDatabase, syncNames, walUse } from "./kv-database.ts";
import type { KvFile, KvMeta, KvRow, KvWriteEvents, StoredState } from "./kv-file.ts";
import type { KvFiles } from "./kv-files.ts";
import type { KvJobFailure } from "./kv-jobs.ts";
import type { Memtable } from "./memtable.ts";

const cacheKiB = 2_048;

interface Statements {
  readonly meta: () => KvMeta | undefined;
  readonly revision: (key: Uint8Array) => number;
  readonly get: (key: Uint8Array) => Omit<KvRow, "key"> | undefined;
  readonly scan: (from: Uint8Array | undefined, visit: (row: KvRow) => boolean) => void;
}

interface Opened extends Statements {
  readonly database: OwnedDatabase;
}

export class SqliteKvFile implements KvFile {
  readonly path: string;
  readonly #files: KvFiles;
  #opened: Opened | undefined;
  /** The file is on the disk: known from `open` on. */
  #exists = false;
  /** The Worker writes it. */
  #busy = false;
  /** By snapshots, and by reads under way. */
  #holds = 0;
  #closed = false;
  #walBytes = 0;
  #mainBytes = 0;
  /** `KvFiles` counts uses, to leave the file that was not used for longest. */
  lastUse = 0;

  constructor(path: string, files: KvFiles) {
    this.path = path;
    this.#files = files;
  }

  open(): KvMeta | undefined {
    this.#exists = statSync(this.path, { throwIfNoEntry: false }) !== undefined;
    if (!this.#exists) return undefined;
    const { database } = this.#open();
    if (!hasOnly(database, kvSchema))
      throw new Error("its tables are not those of a state machine");
    // The last life may have ended between a commit and its sync. What is believed now must not be lost later [26].
    fdatasyncFile(database.walDescriptor);
    syncNames(this.path);
    this.#walBytes = walUse(database)();
    this.#mainBytes = fstatSync(database.mainDescriptor).size;
    try {
      return this.#open().meta();
    } catch (error) {
      // Whoever opens it can say what to do.
      if (isUnusable(error)) throw error;
      readFailed(database, error);
    }
  }

  write(table: Memtable, meta: KvMeta, events: KvWriteEvents): void {
    this.#begin();
    const job = { kind: "write", path: this.path, table: table.share(), meta } as const;
    this.#files.run(job, {
      committed: (walBytes) => {
        if (this.#closed) return;
        this.#exists = true;
        this.#walBytes = walBytes;
        events.committed();
      },
      done: () => this.#end(events.durable),
      failed: (failure) => this.#failed(failure, events.diskFull),
    });
  }

  revision(key: Uint8Array): number {
    return this.#exists ? this.#reading((file) => file.revision(key)) : 0;
  }

  get(key: Uint8Array): Omit<KvRow, "key"> | undefined {
    return this.#exists ? this.#reading((file) => file.get(key)) : undefined;
  }

  scan(from: Uint8Array | undefined, visit: (row: KvRow) => boolean): void {
    if (this.#exists) this.#reading((file) => file.scan(from, visit));
  }

  get mainBytes(): number {
    return this.#mainBytes;
  }

  get walBytes(): number {
    return this.#walBytes;
  }

  checkpoint(done: (moved: boolean) => void): void {
    this.#begin();
    this.#files.run(
      { kind: "checkpoint", path: this.path },
      {
        committed: () => {},
        done: (walBytes) => {
          this.#walBytes = walBytes;
          this.#mainBytes = statSync(this.path).size;
          this.#end(() => done(true));
        },
        failed: (failure) => this.#failed(failure, () => done(false)),
      },
    );
  }

  get stored(): StoredState | undefined {
    if (!this.#exists) return undefined;
    const query = "SELECT key, revision, value FROM kv WHERE key > ?1 ORDER BY key";
    return { path: this.path, query, sealedQuery: "SELECT sessions AS saved FROM apply_state" };
  }

  hold(): number {
    const { database } = this.#open();
    this.#holds += 1;
    return fstatSync(database.mainDescriptor).size;
  }

  readMain(
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer>) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void {
    const { database } = this.#open();
    this.#holds += 1;
    const read = (bytes: Uint8Array<ArrayBuffer>): void => {
      this.letGo();
      done(bytes);
    };
    this.#files.snapshots.read(database.mainDescriptor, offset, length, read, memory);
  }

  letGo(): void {
    this.#holds -= 1;
    if (this.#closed) this.#leave();
  }

  close(): void {
    this.#closed = true;
    this.#leave();
  }

  /** Nothing is under way, so the file can be left and opened again. */
  get idle(): boolean {
    return !this.#busy && this.#holds === 0;
  }

  /** Called by `KvFiles` to keep the number of open files bounded. */
  leaveIdle(): void {
    if (!this.idle) throw new Error("kv file: left while in use");
    this.#leave();
  }

  /** The file stays open beside the Worker, whose connection would otherwise read the whole `-wal` anew. */
  #begin(): void {
    if (this.#busy) throw new Error("kv file: two jobs at once");
    if (this.#closed) throw new Error("kv file: used after close");
    this.#busy = true;
    if (!this.#exists) return;
    try {
      this.#open();
    } catch (error) {
      // The Worker will find no space either.
      if (!(error instanceof DiskFullError)) throw error;
    }
  }

  #end(tell: () => void): void {
    this.#busy = false;
    if (this.#closed) this.#leave();
    else tell();
  }

  #failed({ diskFull, reason }: KvJobFailure, tell: () => void): void {
    if (diskFull) return this.#end(tell);
    writeLost(this.path, reason);
  }

  #leave(): void {
    if (!this.idle) return;
    this.#opened?.database.leave();
    this.#opened = undefined;
    this.#files.left(this);
  }

  #open(): Opened {
    this.lastUse = this.#files.nextUse();
    if (this.#opened !== undefined) return this.#opened;
    if (this.#closed) throw new Error("kv file: used after close");
    this.#files.opening(this);
    const database = this.#openDatabase();
    this.#opened = { database, ...prepare(database) };
    return this.#opened;
  }

  #openDatabase(): OwnedDatabase {
    try {
      return openKvDatabase(this.path, cacheKiB);
    } catch (error) {
      this.#files.left(this);
      throw isDiskFull(error) ? new DiskFullError(`no space left to open ${this.path}`) : error;
    }
  }

  #reading<T>(read: (file: Opened) => T): T {
    const file = this.#open();
    try {
      return read(file);
    } catch (error) {
      readFailed(file.database, error);
    }
  }
}

function prepare(database: OwnedDatabase): Statements {
  // A file of a build before sessions has no state of apply; one that is there and cannot be read must not pass for that.
  const meta = database.prepareRead<KvMeta, []>(
    `SELECT appliedIndex, stateHash, timeMs, iif(a.id IS NULL, ${applyVersionFirst}, applyVersion) AS applyVersion,
       iif(a.id IS NULL, x'', sessions) AS sessions
     FROM meta LEFT JOIN apply_state AS a ON a.id = meta.id`,
  );
  const revision = database.prepareRead<{ revision: number }, [Uint8Array]>(
    "SELECT revision FROM kv WHERE key = ?1",
  );
  const get = database.prepareRead<Omit<KvRow, "key">, [Uint8Array]>(
    "SELECT revision, value FROM kv WHERE key = ?1",
  );
  const scan = database.prepareRead<KvRow, [Uint8Array]>(
    "SELECT key, revision, value FROM kv WHERE key >= ?1 ORDER BY key",
  );
  return {
    meta: () => meta.get() ?? undefined,
    revision: (key) => revision.get(key)?.revision ?? 0,
    get: (key) => get.get(key) ?? undefined,
    scan: (from, visit) => {
      // Leaving the loop early ends the statement too, so the WAL is not pinned.
      for (const row of scan.iterate(from ?? new Uint8Array(0))) if (!visit(row)) break;
    },
  };
}

/**
 * The one place that opens and leaves SQLite databases [17]. Elsewhere nobody opens, closes, reads or copies a database's files: closing any
 * descriptor of the main file or the `-shm` drops the locks that SQLite holds in this process.
 *
 * A database is never closed in SQLite's sense: the last connection that closes would checkpoint, sync and unlink the `-wal`, and the log
 * lives in the `-wal` alone. So each has a read-only *guard* connection that outlives the writer; it cannot checkpoint, and while it is
 * there the writer does not try.
 */

import { Database } from "bun:sqlite";
import type { SQLQueryBindings, Statement } from "bun:sqlite";
import { closeSync, openSync, statSync } from "node:fs";
import { isMainThread } from "node:worker_threads";
import { fatal, onFatal } from "../fatal.ts";
import { DiskFullError } from "./disk.ts";
import { tripLatch } from "./sync-latch.ts";

export const pageBytes = 4_096;

/** Older ones can lose a WAL when it restarts. */
const sqliteVersionMin = [3, 51, 3] as const;

export interface DatabaseOptions {
  /** Page cache of each of the two connections. */
  readonly cacheKiB: number;
  /** Statements that create what is missing (`CREATE … IF NOT EXISTS`), run at each open. */
  readonly schema?: string;
}

/** SQLite does not do as it was told, without an error of its own: the file is another kind of database. */
class PragmaError extends Error {
  override readonly name = "PragmaError";
}

/** SQLITE_FCNTL_RESERVE_BYTES */
const fcntlReserveBytes = 38;

/** Codes that do not depend on what is in the file. */
const machineFailures = /^SQLITE_(?:IOERR|FULL|CANTOPEN|NOMEM|BUSY|LOCKED|PROTOCOL|INTERRUPT)/;

const open = new Set<OwnedDatabase>();
/** Locks: a database that nobody refers to is closed by the garbage collector, and its lock is gone. */
const held = new Set<Database>();
let leaveInstalled = false;

/** Opens a database, creating it where it is missing. Blocks: up to 6 syncs for a new one, none for one that exists. */
export function openDatabase(path: string, options: DatabaseOptions): OwnedDatabase {
  installLeave();
  return new OwnedDatabase(path, options);
}

/**
 * One look at a database that this process has open already. Read-only, and gone when it returns: neither it nor an end of the process meanwhile moves
 * or syncs anything.
 */
export function lookInto<T>(path: string, cacheKiB: number, look: (db: Database) => T): T {
  const guard = openGuard(path, { cacheKiB });
  if (guard === undefined) throw new Error(`${path} cannot be opened`);
  try {
    return look(guard);
  } finally {
    guard.close(true);
  }
}

/** The bytes of a database that has this schema and no rows and is in WAL mode. Made in memory: it leaves no file and takes no sync. */
export function databaseImage(schema: string): Uint8Array {
  const memory = new Database(":memory:", { strict: true });
  setPragma(memory, "page_size", pageBytes);
  memory.run(schema);
  const image = memory.serialize();
  memory.close(true);
  // The file format versions for reading and writing; 2 is WAL.
  image[18] = 2;
  image[19] = 2;
  return image;
}

/** A table or an index, as SQLite notes it. */
export interface SchemaRow {
  readonly kind: string;
  readonly name: string;
  /** The table that it belongs to. */
  readonly owner: string;
  /** Null where SQLite makes it by itself. */
  readonly text: string | null;
  /** 1: views and triggers have none. */
  readonly hasPages: number;
}

const schemaQuery =
  "SELECT type AS kind, name, tbl_name AS owner, sql AS text, rootpage > 0 AS hasPages FROM sqlite_schema";

/** What SQLite notes of what these statements make. */
function schemaRows(schema: string): readonly SchemaRow[] {
  const memory = new Database(":memory:", { strict: true });
  memory.run(schema);
  const statement = memory.prepare<SchemaRow, []>(schemaQuery);
  const rows = statement.all();
  statement.finalize();
  memory.close(true);
  return rows;
}

/** Whether all that is in the database was made by these statements, and no table, index, view or trigger by others. */
export function hasOnly(database: OwnedDatabase, schema: string): boolean {
  const found = database.prepareRead<SchemaRow, []>(schemaQuery).all();
  return areOf(schema, found);
}

/** Whether these statements, or some of them, make just that. */
export function areOf(schema: string, found: readonly SchemaRow[]): boolean {
  const asText = ({ kind, name, owner, text, hasPages }: SchemaRow): string =>
    JSON.stringify([kind, name, owner, text, hasPages]);
  const known = new Set(schemaRows(schema).map(asText));
  return found.every((row) => known.has(asText(row)));
}

/**
 * Takes a lock that other processes, and other callers in this one, cannot take; undefined when somebody has it. It ends with `release` or
 * with the process, however that ends: it is a lock of the kernel, and the file at `path` stays empty.
 */
export function lockFile(path: string): { release(): void } | undefined {
  const db = new Database(path, { readwrite: true, create: true, strict: true });
  try {
    // No journal file: nothing is ever written.
    setPragma(db, "journal_mode", "memory");
    db.run("BEGIN EXCLUSIVE");
  } catch (error) {
    db.close();
    if (sqliteCode(error) === "SQLITE_BUSY") return undefined;
    throw error;
  }
  held.add(db);
  const release = (): void => {
    held.delete(db);
    db.close(true);
  };
  return { release };
}

/** Leaves every database of this thread: no sync, no checkpoint. Safe to call twice. */
export function closeAll(): void {
  for (const database of open) database.leave();
}

/** A database with its writer, its guard, which serves reads too, and a descriptor of its `-wal` to sync. */
export class OwnedDatabase {
  readonly path: string;
  /** The writer. Make statements with `prepare`, never with `db.query` or `db.transaction`: those are never finalized. */
  readonly db: Database;
  /** What to fdatasync after a transaction. It stays valid until `leave`; never leave while a sync of it is in flight. */
  readonly walDescriptor: number;

  readonly #guard: Database;
  readonly #statements: { finalize(): void }[] = [];
  readonly #begin: Statement<unknown, []>;
  readonly #commit: Statement<unknown, []>;
  readonly #rollback: Statement<unknown, []>;
  #left = false;
  #mainDescriptor: number | undefined;

  /** Use `openDatabase`. */
  constructor(path: string, options: DatabaseOptions) {
    this.path = path;
    // Where the file exists the guard comes first, so that not even a failure below ends in a checkpoint.
    let guard = openGuard(path, options);
    this.db = new Database(path, { readwrite: true, create: true, strict: true });
    try {
      checkVersion(this.db);
      // The page size must be set before the file has its first page.
      setPragma(this.db, "page_size", pageBytes);
      setPragma(this.db, "journal_mode", "wal");
      // NORMAL orders the header of a new WAL before its frames; OFF loses data, FULL would sync on the event loop.
      setPragma(this.db, "synchronous", 1);
      setPragma(this.db, "wal_autocheckpoint", 0);
      setPragma(this.db, "cache_size", -options.cacheKiB);
      setPragma(this.db, "temp_store", 2);
      guard ??= openGuard(path, options);
      if (guard === undefined) throw new Error(`${path} cannot be opened a second time`);
      // A connection takes its lock and opens the WAL at its first read, not when it is made.
      readPragma(guard, "schema_version");
      checkLayout(guard);
      if (options.schema !== undefined) this.db.run(options.schema);
      this.walDescriptor = openSync(`${path}-wal`, "r");
    } catch (error) {
      this.db.close();
      guard?.close();
      throw error;
    }
    this.#guard = guard;
    this.#begin = this.prepare("BEGIN IMMEDIATE");
    this.#commit = this.prepare("COMMIT");
    this.#rollback = this.prepare("ROLLBACK");
    open.add(this);
  }

  /** A statement of the writer, finalized by `leave`. */
  prepare<Row, Params extends SQLQueryBindings[]>(sql: string): Statement<Row, Params> {
    const statement = this.db.prepare<Row, Params>(sql) as Statement<Row, Params>;
    this.#statements.push(statement);
    return statement;
  }

  /** A statement of the read-only connection: it sees what is committed. Finish every iteration, or the WAL is pinned. */
  prepareRead<Row, Params extends SQLQueryBindings[]>(sql: string): Statement<Row, Params> {
    const statement = this.#guard.prepare<Row, Params>(sql) as Statement<Row, Params>;
    this.#statements.push(statement);
    return statement;
  }

  /** A descriptor of the main file, to read from what no checkpoint changes meanwhile. Like the other, closed by `leave` alone [17]. */
  get mainDescriptor(): number {
    this.#mainDescriptor ??= openSync(this.path, "r");
    return this.#mainDescriptor;
  }

  begin(): void {
    this.#begin.run();
  }

  commit(): void {
    this.#commit.run();
  }

  /** SQLite rolls back by itself after some errors; then there is nothing left to do. */
  rollback(): void {
    if (this.db.inTransaction) this.#rollback.run();
  }

  /** Closes all, leaving the files exactly as they are. The order is what prevents a checkpoint: statements, writer, guard. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    for (const statement of this.#statements) statement.finalize();
    this.db.close(true);
    this.#guard.close(true);
    closeSync(this.walDescriptor);
    if (this.#mainDescriptor !== undefined) closeSync(this.#mainDescriptor);
    open.delete(this);
  }
}

/**
 * The end of every failed write. A full disk is the caller's to handle, once rolled back; after anything else what SQLite holds in memory
 * and what is on the disk may differ, and only a restart can tell.
 */
export function writeFailed(database: OwnedDatabase, error: unknown): never {
  if (isDiskFull(error)) {
    try {
      database.rollback();
    } catch (rollbackError) {
      tripLatch();
      fatal("sync_failed", `${database.path}: rollback on a full disk: ${String(rollbackError)}`);
    }
    throw new DiskFullError(`no space left to write ${database.path}`);
  }
  writeLost(database.path, describe(error));
}

/** A write failed, here or in a Worker, other than for want of space: ends the process. */
export function writeLost(path: string, reason: string): never {
  tripLatch();
  fatal("sync_failed", `${path}: ${reason}`);
}

/** The end of every failed read of data that was durable. */
export function readFailed(database: OwnedDatabase, error: unknown): never {
  const code = sqliteCode(error);
  if (code === undefined) throw error;
  const isIo = code.startsWith("SQLITE_IOERR");
  fatal(isIo ? "sync_failed" : "corrupt_data", `${database.path}: ${describe(error)}`);
}

/** The first thing to do once SQLite has thrown: a sync may have failed in it, and other threads sync on meanwhile [D9]. */
export function refuseSyncs(error: unknown): void {
  if (!isDiskFull(error)) tripLatch();
}

/** No space for a file, a WAL, or the `-shm` beside it. */
export function isDiskFull(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === "SQLITE_FULL" || code === "SQLITE_IOERR_SHMSIZE" || code === "ENOSPC";
}

/** The files are there, but not the database that was asked for. */
export function isDamaged(error: unknown): boolean {
  const code = sqliteCode(error);
  // SQLITE_ERROR: a table that a statement names is missing.
  if (code === "SQLITE_NOTADB" || code === "SQLITE_ERROR") return true;
  return code?.startsWith("SQLITE_CORRUPT") === true;
}

/** These bytes are no database to work with; nothing is said of the disk that they lie on, or of memory. */
export function isUnusable(error: unknown): boolean {
  if (error instanceof PragmaError) return true;
  const code = sqliteCode(error);
  return code?.startsWith("SQLITE_") === true && !machineFailures.test(code);
}

function describe(error: unknown): string {
  return `${String(error)} (${sqliteCode(error) ?? "not from SQLite"})`;
}

function sqliteCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** The guard of a database that exists and is whole, or undefined: a read-only connection can neither create nor roll back a journal. */
function openGuard(path: string, options: DatabaseOptions): Database | undefined {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size === 0) return undefined;
  const guard = new Database(path, { readonly: true, strict: true });
  try {
    setPragma(guard, "cache_size", -options.cacheKiB);
    readPragma(guard, "schema_version");
    return guard;
  } catch {
    guard.close();
    return undefined;
  }
}

function checkVersion(db: Database): void {
  const statement = db.prepare<{ version: string }, []>("SELECT sqlite_version() AS version");
  const version = statement.get()?.version ?? "";
  statement.finalize();
  const parts = version.split(".").map(Number);
  for (const [position, min] of sqliteVersionMin.entries()) {
    const part = parts[position] ?? 0;
    if (part > min) return;
    if (part < min) {
      throw new Error(`SQLite ${version} is too old, ${sqliteVersionMin.join(".")} is needed`);
    }
  }
}

/** Sets a pragma and reads it back: SQLite ignores what it does not like without a word. */
function setPragma(db: Database, name: string, value: number | string): void {
  db.run(`PRAGMA ${name} = ${value}`);
  const got = readPragma(db, name);
  if (got !== value) {
    throw new PragmaError(`${db.filename}: PRAGMA ${name} is ${String(got)}, not ${value}`);
  }
}

/** SQLite would read the pages of such a file as they are not, and write others between them. */
function checkLayout(db: Database): void {
  if (readPragma(db, "auto_vacuum") !== 0) {
    throw new PragmaError(`${db.filename} is set to auto-vacuum`);
  }
  // -1 asks.
  const reservedBytes = new Int32Array([-1, 0]);
  db.fileControl("main", fcntlReserveBytes, reservedBytes);
  if (reservedBytes[0] !== 0) {
    throw new PragmaError(`${db.filename}: its pages have less room than they were made with`);
  }
}

function readPragma(db: Database, name: string): unknown {
  const statement = db.prepare<Record<string, unknown>, []>(`PRAGMA ${name}`);
  try {
    return Object.values(statement.get() ?? {})[0];
  } finally {
    statement.finalize();
  }
}

/** From the first open on, every way out of the process goes through `closeAll`. */
function installLeave(): void {
  if (leaveInstalled) return;
  leaveInstalled = true;
  process.on("exit", () => {
    try {
      closeAll();
    } catch {
      // What is not left properly would be checkpointed by the exit, which takes the log out of its `-wal`.
      process.kill(process.pid, "SIGKILL");
    }
  });
  if (isMainThread) onFatal(closeAll);
}

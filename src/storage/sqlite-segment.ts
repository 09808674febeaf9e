/** One segment of the log as a SQLite database: rows are appended to its WAL, one transaction each time, and read back. */

import type { Statement } from "bun:sqlite";
import type { LogRecord, RecordKind, SegmentFile } from "./disk.ts";
import { readFailed, writeFailed } from "./sqlite.ts";
import type { OwnedDatabase } from "./sqlite.ts";
import { WalMeter } from "./wal-meter.ts";

interface RecordRow {
  readonly seq: number;
  readonly kind: RecordKind;
  readonly group: number;
  readonly data: Uint8Array;
  readonly size: number;
}

export class SqliteSegment implements SegmentFile {
  readonly number: number;
  readonly growing: boolean;
  readonly #database: OwnedDatabase;
  readonly #meter: WalMeter;
  readonly #insert: Statement<unknown, [number, number, number, Uint8Array]>;
  readonly #one: Statement<{ readonly data: Uint8Array }, [number]>;
  #count: Statement<{ readonly log: number }, []> | undefined;
  readonly #whole: Statement<RecordRow, []>;
  readonly #heads: Statement<RecordRow, [number]>;

  /** Takes over an open database; `walBytes` is how much of its WAL is used already. */
  constructor(number: number, database: OwnedDatabase, walBytes: number, growing: boolean) {
    this.number = number;
    this.growing = growing;
    this.#database = database;
    this.#meter = new WalMeter(walBytes);
    this.#insert = database.prepare(
      'INSERT INTO records (seq, kind, "group", data) VALUES (?1, ?2, ?3, ?4)',
    );
    this.#one = database.prepare("SELECT data FROM records WHERE seq = ?1");
    this.#whole = database.prepare(
      'SELECT seq, kind, "group", data, length(data) AS size FROM records ORDER BY seq',
    );
    this.#heads = database.prepare(
      'SELECT seq, kind, "group", substr(data, 1, ?1) AS data, length(data) AS size FROM records ORDER BY seq',
    );
  }

  get bytes(): number {
    return this.#meter.bytes;
  }

  /** Pages in its write-ahead log that count. */
  get frames(): number {
    this.#count ??= this.#database.prepare("PRAGMA wal_checkpoint(NOOP)");
    return Math.max(0, this.#count.get()?.log ?? 0);
  }

  /** What to sync after an append. */
  get walDescriptor(): number {
    return this.#database.walDescriptor;
  }

  append(records: readonly LogRecord[]): void {
    const database = this.#database;
    try {
      database.begin();
      for (const record of records) {
        this.#insert.run(record.seq, record.kind, record.group, record.data);
      }
      database.commit();
    } catch (error) {
      writeFailed(database, error);
    }
    for (const record of records) this.#meter.row(record.data.byteLength);
    this.#meter.commit();
  }

  read(seq: number): Uint8Array | undefined {
    try {
      return this.#one.get(seq)?.data;
    } catch (error) {
      return readFailed(this.#database, error);
    }
  }

  scan(visit: (record: LogRecord, size: number) => void, headBytes?: number): void {
    try {
      const rows = headBytes === undefined ? this.#whole.iterate() : this.#heads.iterate(headBytes);
      for (const row of rows) visit(row, row.size);
    } catch (error) {
      readFailed(this.#database, error);
    }
  }

  leave(): void {
    this.#database.leave();
  }
}

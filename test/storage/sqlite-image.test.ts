/** What is read without SQLite is what SQLite has, whatever was written; and damage is noticed. */
import { Database } from "bun:sqlite";
import { afterAll, expect, test } from "bun:test";
import fc from "fast-check";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDatabase, type OwnedDatabase } from "../../src/storage/sqlite.ts";
import { ImageError, type ImageValue, SqliteImage } from "../../src/storage/sqlite-image.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-image-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const schema = `
  CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, note TEXT, data BLOB NOT NULL) STRICT;
`;
const index = "sqlite_autoindex_kv_1";

let made = 0;
function make(): { path: string; database: OwnedDatabase } {
  const path = join(folder, `${++made}.db`);
  return { path, database: openDatabase(path, { cacheKiB: 256, schema }) };
}

const numbers = fc.oneof(
  fc.integer(),
  fc.maxSafeInteger(),
  fc.constantFrom(0, 1, -1, 2 ** 31, 2 ** 47),
);
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.integer({ min: 0, max: 30_000 }).map((size) => new Uint8Array(size).fill(size)),
);
const steps = fc.array(
  fc.oneof(
    fc.record({
      op: fc.constant("put" as const),
      key: fc.uint8Array({ minLength: 1, maxLength: 3 }),
      revision: numbers,
      value: bytes,
    }),
    fc.record({
      op: fc.constant("delete" as const),
      key: fc.uint8Array({ minLength: 1, maxLength: 3 }),
    }),
    fc.record({ op: fc.constant("record" as const), note: fc.option(fc.string()), data: bytes }),
    fc.record({ op: fc.constant("checkpoint" as const) }),
  ),
  { maxLength: 60 },
);

const plain = (values: readonly ImageValue[]): unknown[] =>
  values.map((value) => (value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value));

/** All rows as SQLite has them, from a connection of its own that leaves no trace. */
function rowsOf(database: OwnedDatabase, table: "kv" | "records"): unknown[] {
  const statement = database.prepareRead<Record<string, ImageValue>, []>(
    `SELECT rowid AS id, * FROM ${table} ORDER BY rowid`,
  );
  return statement.all().map(({ id, ...row }) => {
    const columns = Object.values(row);
    if (table === "records") columns[0] = null;
    return [id, ...plain(columns)];
  });
}

function readRows(image: SqliteImage, table: string): unknown[] {
  const rows: unknown[] = [];
  image.rows(table, (rowId, values) => void rows.push([rowId, ...plain(values)]));
  return rows;
}

test("rows and entries are those that SQLite has, log and main file together", () => {
  fc.assert(
    fc.property(steps, (script) => {
      const { path, database } = make();
      try {
        const put = database.prepare(
          "INSERT INTO kv VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET revision = ?2, value = ?3",
        );
        const remove = database.prepare("DELETE FROM kv WHERE key = ?1");
        const record = database.prepare("INSERT INTO records (note, data) VALUES (?1, ?2)");
        for (const step of script) {
          if (step.op === "put") put.run(step.key, step.revision, step.value);
          if (step.op === "delete") remove.run(step.key);
          if (step.op === "record") record.run(step.note, step.data);
          if (step.op === "checkpoint") database.db.run("PRAGMA wal_checkpoint(PASSIVE)");
        }
        using image = new SqliteImage(path);
        for (const table of ["kv", "records"] as const) {
          const expected = rowsOf(database, table);
          expect(readRows(image, table)).toEqual(expected);
          for (const [id] of expected as [number][]) {
            expect(plain(image.row(table, id)!)).toEqual(
              (expected as unknown[][]).find(([rowId]) => rowId === id)!.slice(1),
            );
          }
          expect(image.row(table, 1_000)).toBeUndefined();
        }
        const entries: unknown[] = [];
        image.entries(index, (values) => void entries.push(plain(values)));
        const inOrder = database.prepareRead<{ key: Uint8Array; id: number }, []>(
          "SELECT key, rowid AS id FROM kv ORDER BY key",
        );
        expect(entries).toEqual(inOrder.all().map(({ key, id }) => plain([key, id])));
        image.checkPages(() => {});
      } finally {
        database.leave();
      }
    }),
    { numRuns: 60 },
  );
});

function filled(): string {
  const { path, database } = make();
  const insert = database.prepare("INSERT INTO records (note, data) VALUES ('note', ?1)");
  for (let i = 0; i < 300; i++) insert.run(new Uint8Array(100 * (i % 90)).fill(i));
  database.leave();
  return path;
}

test("a log is read up to the first frame that is not whole, and what follows it is counted", () => {
  const path = filled();
  using whole = new SqliteImage(path);
  expect(whole.wal!.framesBeyond).toBe(0);
  const frames = whole.wal!.frames;
  const wal = readFileSync(`${path}-wal`);
  const frameBytes = 24 + 4_096;
  for (const frame of [20, Math.floor(frames / 2), frames - 1]) {
    const damaged = Buffer.from(wal);
    damaged[32 + frame * frameBytes + 24 + 1_000]! ^= 4;
    writeFileSync(`${path}-wal`, damaged);
    const copy = join(folder, "copy.db");
    for (const suffix of ["", "-wal"]) copyFileSync(path + suffix, copy + suffix);
    rmSync(`${copy}-shm`, { force: true });
    using image = new SqliteImage(path);
    expect(image.wal!.frames).toBeLessThanOrEqual(frame);
    expect(image.wal!.frames + image.wal!.framesBeyond).toBe(frames);
    // What SQLite makes of the same bytes.
    const database = openDatabase(copy, { cacheKiB: 256, schema });
    expect(readRows(image, "records")).toEqual(rowsOf(database, "records"));
    database.leave();
  }
});

test("whatever byte of a page is damaged, reading ends, with an ImageError at most", () => {
  const path = filled();
  const db = new Database(path);
  db.run("PRAGMA wal_checkpoint(TRUNCATE)");
  db.close();
  const main = readFileSync(path);
  const damagedPath = join(folder, "damaged.db");
  let noticed = 0;
  fc.assert(
    fc.property(
      fc.integer({ min: 100, max: main.byteLength - 1 }),
      fc.integer({ min: 1, max: 255 }),
      (at, flip) => {
        const damaged = Buffer.from(main);
        damaged[at]! ^= flip;
        writeFileSync(damagedPath, damaged);
        try {
          using image = new SqliteImage(damagedPath);
          image.checkPages(() => {});
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
          noticed++;
        }
      },
    ),
    { numRuns: 300 },
  );
  expect(noticed).toBeGreaterThan(0);
});

test("what is no database is refused in words", () => {
  const path = join(folder, "text.db");
  for (const bytes of ["", "hello", "SQLite format 3\0".padEnd(200, "\0")]) {
    writeFileSync(path, bytes);
    expect(() => new SqliteImage(path)).toThrow(ImageError);
  }
});

/** Files of snapshots in their Worker: what is read is what is there, what is received counts only when it is whole. */
import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { SnapshotFiles, type FileProof } from "../../src/storage/snapshot-files.ts";
import { openDatabase } from "../../src/storage/sqlite.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-snapshot-files-"));
const files = new SnapshotFiles();
const chunkBytes = 4_000;
const indexQuery = "SELECT at AS value FROM place";
const schema = "CREATE TABLE IF NOT EXISTS place (at INTEGER)";

afterAll(() => {
  files.close();
  rmSync(folder, { recursive: true });
});

/** The main file of a database that says it is at 42. */
function source(more = ""): Uint8Array {
  const path = join(folder, `source-${crypto.randomUUID()}.db`);
  const database = openDatabase(path, { cacheKiB: 64, schema });
  database.db.run(`INSERT INTO place VALUES (42); ${more}`);
  database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get();
  database.leave();
  return new Uint8Array(readFileSync(path));
}

/** A database that somebody else has made. */
function forged(make: (db: Database) => void): Uint8Array {
  const db = new Database(":memory:");
  make(db);
  if (db.query("SELECT 1 FROM sqlite_schema WHERE name = 'place'").get() !== null)
    db.run("INSERT INTO place VALUES (42)");
  const image = db.serialize();
  db.close();
  return new Uint8Array(image);
}

const bytes = source();

/** Its rows lie where the page says that there are none. */
function damaged(): Uint8Array {
  const copy = bytes.slice();
  copy.fill(0xff, 4_096 + 3, 4_096 + 12);
  return copy;
}

function chunksOf(whole: Uint8Array): { offset: number; part: Uint8Array }[] {
  const chunks = [];
  for (let offset = 0; offset < whole.byteLength; offset += chunkBytes)
    chunks.push({ offset, part: whole.slice(offset, offset + chunkBytes) });
  return chunks;
}

function proofOf(whole: Uint8Array, change: Partial<FileProof> = {}): FileProof {
  const digest = chunksOf(whole).reduce((sum, { part }) => nextDigest(sum, crc32(part)), 0);
  const bytes = whole.byteLength;
  const bounds = [{ query: indexQuery, max: 42 }];
  return { index: 42, bytes, chunkBytes, digest, schema, indexQuery, bounds, ...change };
}

async function receive(
  whole: Uint8Array,
  proof: FileProof,
): Promise<{ path: string; ok: boolean }> {
  const path = join(folder, `${crypto.randomUUID()}.db`);
  for (const { offset, part } of chunksOf(whole)) {
    expect(await new Promise((done) => files.write(path, offset, new Uint8Array(part), done))).toBe(
      true,
    );
  }
  const ok = await new Promise<boolean>((done) => files.finish(path, proof, done));
  return { path, ok };
}

describe("receiving", () => {
  test("what is written is what was there when it was given, however much is under way", async () => {
    const path = join(folder, `${crypto.randomUUID()}.db`);
    const memory = new Uint8Array(chunkBytes);
    const written: Promise<boolean>[] = [];
    for (let number = 0; number < 40; number++) {
      memory.fill(number + 1);
      const write = (done: (ok: boolean) => void): void =>
        files.write(path, number * chunkBytes, memory, done);
      written.push(new Promise<boolean>(write));
      // Later ones find memory of earlier ones.
      if (number % 7 === 6) await Promise.all(written);
    }
    expect((await Promise.all(written)).every((ok) => ok)).toBe(true);
    const found = readFileSync(path);
    for (let number = 0; number < 40; number++) {
      const part = found.subarray(number * chunkBytes, (number + 1) * chunkBytes);
      expect(part.every((byte) => byte === number + 1)).toBe(true);
    }
  });

  test("a whole one is a database, and byte for byte what was sent", async () => {
    const { path, ok } = await receive(bytes, proofOf(bytes));
    expect(ok).toBe(true);
    expect(Buffer.compare(readFileSync(path), bytes)).toBe(0);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("other bytes, another index, fewer bytes, or no database at all are refused", async () => {
    const other = bytes.slice();
    other[5_000]! ^= 1;
    expect((await receive(other, proofOf(bytes))).ok).toBe(false);
    expect((await receive(bytes, proofOf(bytes, { index: 41 }))).ok).toBe(false);
    const noise = new Uint8Array(10_000).fill(7);
    expect((await receive(noise, proofOf(noise))).ok).toBe(false);
    expect(
      (await receive(bytes, proofOf(bytes, { indexQuery: "SELECT 42 AS value FROM none" }))).ok,
    ).toBe(false);
  });

  test("one beyond a bound is refused; one that has no such number is not", async () => {
    const beyond = [{ query: indexQuery, max: 41 }];
    expect((await receive(bytes, proofOf(bytes, { bounds: beyond }))).ok).toBe(false);
    const unknown = [{ query: "SELECT version AS value FROM versions", max: 0 }];
    expect((await receive(bytes, proofOf(bytes, { bounds: unknown }))).ok).toBe(true);
  });

  test.each([
    ["a table of its own", source("CREATE TABLE own (at INTEGER)")],
    ["a view", source("CREATE VIEW own AS SELECT 1")],
    ["a trigger", source("CREATE TRIGGER own AFTER INSERT ON place BEGIN DELETE FROM place; END")],
    ["an index", source("CREATE INDEX own ON place (at)")],
    ["a table with another constraint", forged((db) => db.run("CREATE TABLE place (at INT)"))],
    ["pages of another size", forged((db) => db.run(`PRAGMA page_size = 512; ${schema}`))],
    ["no table at all", forged((db) => db.run("PRAGMA user_version = 1"))],
    ["a page that is damaged", damaged()],
    ["half of a header", bytes.slice(0, 50)],
    ["nothing but its first page", bytes.slice(0, 4_096)],
  ])("one with %s is refused, and nothing else comes of it", async (_, whole) => {
    expect((await receive(whole, proofOf(whole))).ok).toBe(false);
    // The Worker goes on.
    expect((await receive(bytes, proofOf(bytes))).ok).toBe(true);
  });

  test("removed, nothing of it is left, and what is not there is removed already", async () => {
    const { path } = await receive(bytes, proofOf(bytes));
    await new Promise<void>((done) => files.remove(path, done));
    for (const name of ["", "-wal", "-shm"]) expect(existsSync(`${path}${name}`)).toBe(false);
    await new Promise<void>((done) => files.remove(path, done));
  });

  test("one that is given up in the middle goes too", async () => {
    const path = join(folder, "middle.db");
    await new Promise((done) => files.write(path, 0, new Uint8Array(bytes.slice(0, 100)), done));
    await new Promise<void>((done) => files.remove(path, done));
    expect(existsSync(path)).toBe(false);
  });
});

test("reads are answered in their order", async () => {
  const path = join(folder, "read.db");
  await Bun.write(path, bytes);
  const descriptor = openSync(path, "r");
  const parts = await Promise.all(
    chunksOf(bytes).map(
      ({ offset, part }) =>
        new Promise<Uint8Array>((done) => files.read(descriptor, offset, part.byteLength, done)),
    ),
  );
  closeSync(descriptor);
  expect(Buffer.compare(Buffer.concat(parts), bytes)).toBe(0);
});

test("what is under way in a folder is known, and a file may be removed whose folder is gone", async () => {
  const directory = mkdtempSync(join(folder, "group-"));
  const path = join(directory, "kv-1.db");
  const part = new Uint8Array(chunkBytes);
  const written = new Promise<boolean>((resolve) => files.write(path, 0, part, resolve));
  expect([files.isWriting(directory), files.isWriting(folder)]).toEqual([true, false]);
  expect(await written).toBe(true);
  expect(files.isWriting(directory)).toBe(false);
  rmSync(directory, { recursive: true });
  await new Promise<void>((resolve) => files.remove(path, resolve));
});

test("a read fills the memory that it is given, where that is as long as what is read", async () => {
  const path = join(folder, "read-from");
  await Bun.write(path, bytes);
  const descriptor = openSync(path, "r");
  const read = (offset: number, length: number, memory?: Uint8Array<ArrayBuffer>) =>
    new Promise<Uint8Array<ArrayBuffer>>((done) =>
      files.read(descriptor, offset, length, done, memory),
    );
  const first = await read(0, 1_000);
  expect(Buffer.compare(first, bytes.subarray(0, 1_000))).toBe(0);
  const second = await read(1_000, 1_000, first);
  // It was handed over.
  expect(first.byteLength).toBe(0);
  expect(Buffer.compare(second, bytes.subarray(1_000, 2_000))).toBe(0);
  const last = await read(2_000, 500, second);
  expect(second.byteLength).toBe(1_000);
  expect(Buffer.compare(last, bytes.subarray(2_000, 2_500))).toBe(0);
  closeSync(descriptor);
});

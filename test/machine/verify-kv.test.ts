/**
 * What is said of a damaged state file is what a start does with it: whether it opens, and how far its state goes. In all that a start looks at: the
 * header, the schema, what the file says of itself, and the sessions.
 */
import { Database } from "bun:sqlite";
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultLimits } from "../../src/limits.ts";
import { openKvDatabase } from "../../src/machine/kv-database.ts";
import { KvFiles } from "../../src/machine/kv-files.ts";
import { createMachine } from "../../src/machine/machines.ts";
import { Sessions } from "../../src/machine/sessions.ts";
import { verifyMachineFile } from "../../src/machine/verify-kv.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";

setDefaultTimeout(30_000);

const folder = mkdtempSync(join(tmpdir(), "barge-verify-kv-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const pageBytes = 4_096;
const headerBytes = 100;
const appliedIndex = 0x1234;
const stateHash = 0x5a5a_5a5a;

/** A main file that has all, as a checkpoint leaves it. */
function made(): Buffer {
  const path = join(folder, "made.db");
  const database = openKvDatabase(path, 256);
  const sessions = new Sessions({ run: () => undefined }, defaultLimits, applyVersionMax).save();
  database.begin();
  const put = database.prepare("INSERT INTO kv VALUES (?1, ?2, ?3)");
  for (let i = 0; i < 100; i++) put.run(Buffer.from(`key${i}`), i + 1, Buffer.from("value"));
  database.prepare("INSERT INTO meta VALUES (0, ?1, ?2, 7)").run(appliedIndex, stateHash);
  database.prepare("INSERT INTO apply_state VALUES (0, ?1, ?2)").run(applyVersionMax, sessions);
  database.commit();
  database.db.run("PRAGMA wal_checkpoint(PASSIVE)");
  database.leave();
  return readFileSync(path);
}

/** What a start makes of it; undefined where it is refused. */
function opened(directory: string): number | undefined {
  const files = new KvFiles({ limits: defaultLimits, hasRoomFor: () => true });
  const machine = createMachine("kv", {
    directory,
    files,
    limits: defaultLimits,
    nowMs: () => 0,
  });
  try {
    return machine.open();
  } catch {
    return undefined;
  } finally {
    machine.close();
  }
}

const whole = made();
const directory = join(folder, "machine/0");
const file = join(directory, "kv.db");
mkdirSync(directory, { recursive: true });

function put(bytes: Uint8Array): void {
  for (const suffix of ["-wal", "-shm"]) rmSync(file + suffix, { force: true });
  writeFileSync(file, bytes);
}

/** The page of a table that has one. */
function pageOf(text: Uint8Array): number {
  const at = whole.indexOf(text);
  expect(at).toBeGreaterThan(pageBytes);
  return Math.floor(at / pageBytes);
}

/** Bytes of a page where anything is: its header, and its cells, which lie at its end. */
function usedOf(page: number): number[] {
  const start = page * pageBytes;
  const used: number[] = [];
  for (let at = start; at < start + pageBytes; at++) if (whole[at] !== 0) used.push(at);
  return used;
}

/** In places of which there are many, one bit of each byte. */
function sameAsStart(places: readonly number[], where: string): { damages: number } {
  let damages = 0;
  const isMany = places.length > 300;
  for (const at of places) {
    for (let bit = isMany ? at % 8 : 0; bit < 8; bit += isMany ? 8 : 1) {
      const bytes = Buffer.from(whole);
      bytes[at]! ^= 1 << bit;
      put(bytes);
      const said = verifyMachineFile(file);
      const expected = said.unreadable ? undefined : said.appliedIndex;
      const found = opened(directory);
      if (found !== expected) {
        throw new Error(
          `${where}, bit ${bit} of byte ${at}: a start comes to ${found}, not ${expected} (${said.damage})`,
        );
      }
      if (said.damage !== undefined) damages++;
    }
  }
  return { damages };
}

test("a whole one is whole", () => {
  put(whole);
  expect(verifyMachineFile(file)).toMatchObject({ appliedIndex, keys: 100 });
  // What is saved of sessions is no text, and may be much.
  expect(verifyMachineFile(file)).not.toHaveProperty("sessions");
  expect(verifyMachineFile(file).damage).toBeUndefined();
  expect(opened(directory)).toBe(appliedIndex);
});

test("one that has no tables yet, as the process ended while it made it, is whole and empty", () => {
  const directory = join(folder, "begun");
  mkdirSync(directory);
  const path = join(directory, "kv.db");
  const database = new Database(path);
  database.run("PRAGMA page_size = 4096");
  database.run("PRAGMA journal_mode = WAL");
  database.close();
  expect(readFileSync(path).byteLength).toBe(pageBytes);
  const { damage, ...reading } = verifyMachineFile(path);
  expect(damage).toBeUndefined();
  expect(reading).toMatchObject({ appliedIndex: 0, keys: 0 });
  expect(opened(directory)).toBe(0);
});

test("every bit of the header, and every byte of the schema", () => {
  const header = Array.from({ length: headerBytes }, (_, at) => at);
  const { damages } = sameAsStart(header, "the header");
  // But for the counter of changes of the schema, and which SQLite wrote last.
  expect(damages).toBeGreaterThanOrEqual(8 * (headerBytes - 8 - 4));
  sameAsStart(
    usedOf(0).filter((at) => at >= headerBytes),
    "the schema",
  );
});

test("every bit of what it says of itself", () => {
  sameAsStart(usedOf(pageOf(Uint8Array.of(0x12, 0x34, 0x5a, 0x5a, 0x5a, 0x5a))), "the state");
});

test("every bit of the sessions", () => {
  const sessions = new Sessions({ run: () => undefined }, defaultLimits, applyVersionMax).save();
  const at = whole.indexOf(sessions);
  const places = Array.from({ length: sessions.byteLength }, (_, byte) => at + byte);
  const { damages } = sameAsStart(places, "the sessions");
  expect(damages).toBe(8 * sessions.byteLength);
});

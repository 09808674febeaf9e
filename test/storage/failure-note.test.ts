/** Why a node ended by itself: kept for its next start, told once, and never in the way. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FailureNote, readFailure } from "../../src/storage/failure-note.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-note-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("is found by the next life, until it is cleared", () => {
  const first = new FailureNote(folder);
  expect(first.previous).toBeUndefined();
  first.write("sync_failed", `${"long ".repeat(1_000)}`);
  first.write("sync_failed", 'EIO at "x"');
  first.close();
  expect(readFailure(folder)).toMatchObject({ reason: "sync_failed", message: 'EIO at "x"' });
  const second = new FailureNote(folder);
  expect(second.previous).toMatchObject({ reason: "sync_failed", message: 'EIO at "x"' });
  second.clear();
  second.close();
  expect(new FailureNote(folder).previous).toBeUndefined();
});

test("words of any length and kind fit, or are cut", () => {
  const note = new FailureNote(folder);
  for (const message of ["", "\u0000\n\"'", "ü".repeat(3_000), "\u0001".repeat(3_000)]) {
    note.write("invariant", message);
    const found = readFailure(folder);
    expect(found?.reason).toBe("invariant");
    expect(message.startsWith(found!.message)).toBe(true);
  }
  note.close();
});

test("what is no note is none, and a folder that is not there has none", () => {
  for (const text of ["", "{", "[]", "null", "7", '{"at":1}', "\u00ff".repeat(5_000)]) {
    writeFileSync(join(folder, "failure.json"), text);
    expect(readFailure(folder)).toBeUndefined();
    const note = new FailureNote(folder);
    expect(note.previous).toBeUndefined();
    note.close();
  }
  expect(readFailure(join(folder, "nowhere"))).toBeUndefined();
  const nowhere = new FailureNote(join(folder, "nowhere"));
  nowhere.write("invariant", "x");
  nowhere.close();
});

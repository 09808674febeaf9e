/** Whom a node has met survives restarts, and nobody is taken for another. */
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DiskFullError } from "../../src/storage/disk.ts";
import { PeerLedger } from "../../src/storage/peer-ledger.ts";
import { NodeDisk } from "../e2e/mount.ts";

const folder = (): string => mkdtempSync(join(tmpdir(), "barge-peers-"));

test("the first folder met under an id is the only one, also after a restart", () => {
  const path = folder();
  const ledger = new PeerLedger(path);
  expect(ledger.incarnationOf(2)).toBeUndefined();
  expect(ledger.meet(2, "aa")).toBe("aa");
  expect(ledger.meet(3, "cc")).toBe("cc");
  expect(ledger.meet(2, "bb")).toBe("aa");
  const later = new PeerLedger(path);
  expect(later.meet(2, "bb")).toBe("aa");
  expect(later.incarnationOf(2)).toBe("aa");
  expect(later.meet(3, "cc")).toBe("cc");
});

test("a cluster that has formed once stays formed", () => {
  const path = folder();
  const ledger = new PeerLedger(path);
  expect(ledger.formed).toBe(false);
  ledger.form();
  ledger.meet(2, "aa");
  expect(ledger.formed).toBe(true);
  expect(new PeerLedger(path).formed).toBe(true);
});

test("on a full disk nothing is noted, what was noted stays, and later it is", () => {
  const disk = NodeDisk.make(folder(), "1m");
  if (disk === undefined) return;
  using small = disk;
  const path = small.folder;
  mkdirSync(path);
  const ledger = new PeerLedger(path);
  ledger.meet(2, "aa");
  disk.leave(0);
  disk.fill();
  expect(() => ledger.meet(3, "cc")).toThrow(DiskFullError);
  expect(() => ledger.form()).toThrow(DiskFullError);
  expect(() => ledger.setOtherVoters(true)).toThrow(DiskFullError);
  for (const each of [ledger, new PeerLedger(path)]) {
    expect(each.incarnationOf(2)).toBe("aa");
    expect(each.incarnationOf(3)).toBeUndefined();
    expect(each).toMatchObject({ formed: false, hasOtherVoters: undefined });
  }
  disk.free();
  ledger.meet(3, "cc");
  ledger.form();
  expect(new PeerLedger(path).incarnationOf(3)).toBe("cc");
});

test("whether there are other voters is kept once it was said", () => {
  const path = folder();
  expect(new PeerLedger(path).hasOtherVoters).toBeUndefined();
  new PeerLedger(path).setOtherVoters(true);
  const later = new PeerLedger(path);
  expect(later.hasOtherVoters).toBe(true);
  later.setOtherVoters(false);
  later.form();
  expect(new PeerLedger(path).hasOtherVoters).toBe(false);
});

test.each([
  "",
  "nonsense",
  "[]",
  '{"formed":1,"incarnations":{}}',
  '{"formed":true}',
  '{"formed":true,"incarnations":{},"hasOtherVoters":1}',
])("a damaged ledger is refused with words: %p", (text) => {
  const path = folder();
  writeFileSync(join(path, "peers.json"), text);
  expect(() => new PeerLedger(path)).toThrow("bring it back from a copy");
});

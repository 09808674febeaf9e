/** Whom a node has met survives restarts, and nobody is taken for another. */
import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PeerLedger } from "../../src/storage/peer-ledger.ts";

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

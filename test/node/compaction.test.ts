/** When the log is cut, and how far: the policy alone, over a log of batches of 10 commands and 1,000 bytes. */
import { describe, expect, test } from "bun:test";
import {
  type CompactableLog,
  compactionProblem,
  cutAt,
  defaultCompaction,
  isDue,
} from "../../src/node/compaction.ts";

const off = { entries: 0, bytes: 0, tailBytes: 0 };

function logOf(startIndex: number, batches: number): CompactableLog {
  return {
    startIndex,
    lastIndex: startIndex + 10 * batches,
    logBytes: 1_000 * batches,
    compactionPoint: (index, tailBytes) => {
      const kept = Math.ceil(tailBytes / 1_000);
      const free = Math.floor((index - startIndex) / 10);
      const cut = Math.min(free, batches - kept);
      return cut <= 0 ? undefined : { index: startIndex + 10 * cut, term: 1, crc: 0, timeMs: 0 };
    },
  };
}

const cut = (log: CompactableLog, index: number, policy: object): number | undefined =>
  cutAt(log, index, { ...off, ...policy })?.index;

describe("compaction", () => {
  test("0 is off", () => {
    const log = logOf(0, 1_000);
    expect(isDue(log, off)).toBe(false);
    expect(cut(log, 10_000, {})).toBeUndefined();
  });

  test("by commands: once the interval can go, to the batch", () => {
    expect(cut(logOf(0, 9), 90, { entries: 100 })).toBeUndefined();
    expect(cut(logOf(0, 10), 100, { entries: 100 })).toBe(100);
    // What is not free to go does not count.
    expect(cut(logOf(0, 20), 95, { entries: 100 })).toBeUndefined();
    expect(cut(logOf(50, 20), 160, { entries: 100 })).toBe(160);
  });

  test("by bytes: down to the tail, as far as it is free to go", () => {
    const policy = { bytes: 20_000, tailBytes: 5_000 };
    expect(cut(logOf(0, 19), 190, policy)).toBeUndefined();
    expect(cut(logOf(0, 20), 200, policy)).toBe(150);
    expect(cut(logOf(0, 20), 64, policy)).toBe(60);
    expect(cut(logOf(0, 20), 5, policy)).toBeUndefined();
  });

  test("the tail is kept from the interval by commands too", () => {
    expect(cut(logOf(0, 12), 120, { entries: 100, tailBytes: 5_000 })).toBeUndefined();
    expect(cut(logOf(0, 15), 150, { entries: 100, tailBytes: 5_000 })).toBe(100);
  });

  test("bounds that make no sense are named", () => {
    expect(compactionProblem(defaultCompaction)).toBeUndefined();
    expect(compactionProblem(off)).toBeUndefined();
    expect(compactionProblem({ ...off, entries: -1 })).toContain("entries");
    expect(compactionProblem({ ...off, bytes: 1.5 })).toContain("bytes");
    expect(compactionProblem({ ...off, bytes: 10, tailBytes: 10 })).toContain("tail");
  });
});

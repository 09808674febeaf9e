/** When the log is cut, and how far: the policy alone, over a log of batches of 10 commands and 1,000 bytes. */
import { describe, expect, test } from "bun:test";
import {
  type CompactableLog,
  Compaction,
  type CompactionPolicy,
  compactionProblem,
  defaultCompaction,
} from "../../src/node/compaction.ts";
import type { LogStart } from "../../src/wire/batch.ts";

const off = { entries: 0, bytes: 0, tailBytes: 0 };
const batchCommands = 10;
const batchBytes = 1_000;

class FakeLog implements CompactableLog {
  startIndex: number;
  lastIndex: number;

  constructor(startIndex = 0, batches = 0) {
    this.startIndex = startIndex;
    this.lastIndex = startIndex + batchCommands * batches;
  }

  get logBytes(): number {
    return ((this.lastIndex - this.startIndex) / batchCommands) * batchBytes;
  }

  compactionPoint(index: number, tailBytes: number): LogStart | undefined {
    const kept = Math.ceil(tailBytes / batchBytes) * batchCommands;
    const end = Math.floor(Math.min(index, this.lastIndex - kept) / batchCommands) * batchCommands;
    return end <= this.startIndex ? undefined : { index: end, term: 1, crc: 0, timeMs: 0 };
  }
}

/** A node that does what the policy says: its machine writes for `writeBatches` batches. */
class FakeNode {
  readonly log: FakeLog;
  readonly compaction: Compaction;
  readonly cuts: number[] = [];
  /** The longest that a restart would replay. */
  replayed = 0;
  keptFrom = Infinity;
  #durable: number;
  #frozen: number;
  #durableIn = 0;

  constructor(policy: Partial<CompactionPolicy>, log = new FakeLog()) {
    this.log = log;
    this.#durable = this.#frozen = log.startIndex;
    this.compaction = new Compaction(log, { ...off, ...policy }, this.#durable);
  }

  run(batches: number, writeBatches = 0): this {
    for (let at = 0; at < batches; at++) {
      this.log.lastIndex += batchCommands;
      if (this.#durable < this.#frozen && this.#durableIn-- === 0) this.#durable = this.#frozen;
      this.turn(writeBatches);
      this.replayed = Math.max(this.replayed, this.log.lastIndex - this.#durable);
    }
    return this;
  }

  /** Until nothing is left to do. */
  turn(writeBatches = 0): void {
    for (let again = true; again;) {
      again = false;
      this.compaction.step(this.#durable);
      const cut = this.compaction.cut(this.#durable, this.keptFrom);
      if (cut !== undefined) {
        this.cuts.push(cut.index);
        this.log.startIndex = cut.index;
        again = true;
      }
      const flushAt = this.compaction.flushAt(this.#durable);
      if (this.#durable === this.#frozen && this.log.lastIndex >= flushAt) {
        if (this.#durable >= flushAt) continue;
        this.#frozen = this.log.lastIndex;
        this.#durableIn = writeBatches;
        if (writeBatches > 0) continue;
        this.#durable = this.#frozen;
        again = true;
      }
    }
  }
}

describe("compaction", () => {
  test("0 is off", () => {
    const { cuts, compaction } = new FakeNode(off).run(1_000);
    expect(cuts).toEqual([]);
    expect(compaction.flushAt(0)).toBe(Infinity);
  });

  test("by commands: each interval ends with the batch that completes it", () => {
    expect(new FakeNode({ entries: 100 }).run(35).cuts).toEqual([100, 200, 300]);
    expect(new FakeNode({ entries: 101 }).run(35).cuts).toEqual([110, 220, 330]);
    expect(new FakeNode({ entries: 99 }).run(35).cuts).toEqual([100, 200, 300]);
    expect(new FakeNode({ entries: 1 }).run(3).cuts).toEqual([10, 20, 30]);
  });

  test("an interval is longer by what comes while the machine is being written, never shorter", () => {
    const { cuts, replayed } = new FakeNode({ entries: 100 }).run(1_000, 25);
    for (const [at, cut] of cuts.entries()) {
      const length = cut - (cuts[at - 1] ?? 0);
      expect(length).toBeGreaterThanOrEqual(100);
      expect(length).toBeLessThan(100 + 26 * batchCommands + batchCommands);
    }
    expect(cuts.length).toBeGreaterThan(20);
    expect(replayed).toBeLessThanOrEqual(2 * 26 * batchCommands + 100);
  });

  test("by bytes: down to the tail as soon as there are so many", () => {
    const node = new FakeNode({ bytes: 20_000, tailBytes: 5_000 }).run(19);
    expect(node.cuts).toEqual([]);
    expect(node.run(1).cuts).toEqual([150]);
    expect(node.run(14).cuts).toEqual([150]);
    expect(node.run(1).cuts).toEqual([150, 300]);
  });

  test("by bytes: the log is no longer than that and what comes while the machine is being written", () => {
    const node = new FakeNode({ bytes: 20_000, tailBytes: 5_000 });
    let longest = 0;
    for (let at = 0; at < 500; at++) longest = Math.max(longest, node.run(1, 10).log.logBytes);
    expect(longest).toBeLessThanOrEqual(20_000 + 12 * batchBytes);
    expect(node.cuts.length).toBeGreaterThan(10);
  });

  test("the tail is kept from the interval by commands, and a restart replays no more for it", () => {
    const node = new FakeNode({ entries: 100, tailBytes: 5_000 }).run(60);
    expect(node.cuts).toEqual([50, 150, 250, 350, 450, 550]);
    expect(node.replayed).toBeLessThanOrEqual(100);
    // Longer than what is written: nothing goes, and yet the machine becomes durable.
    const short = new FakeNode({ entries: 100, tailBytes: 1_000_000 }).run(60);
    expect(short.cuts).toEqual([]);
    expect(short.replayed).toBeLessThanOrEqual(100);
  });

  test("a member that is waited for holds the log, but an interval at a time goes, and all that was due once it is there", () => {
    const node = new FakeNode({ entries: 100 });
    node.keptFrom = 55;
    node.run(50);
    expect(node.cuts).toEqual([]);
    expect(node.replayed).toBeLessThanOrEqual(100);
    node.keptFrom = 275;
    node.turn();
    expect(node.cuts).toEqual([270]);
    node.keptFrom = 499;
    node.turn();
    expect(node.cuts).toEqual([270, 490]);
    node.keptFrom = 505;
    node.turn();
    expect(node.cuts).toEqual([270, 490, 500]);
    node.run(10);
    expect(node.cuts).toEqual([270, 490, 500]);
  });

  test("by bytes: as far as it is free to go", () => {
    const node = new FakeNode({ bytes: 20_000, tailBytes: 5_000 });
    node.keptFrom = 64;
    node.run(20);
    expect(node.cuts).toEqual([60]);
  });

  test("a log that was found longer than it may be is cut at once", () => {
    const log = new FakeLog(500, 30);
    const compaction = new Compaction(log, { ...off, entries: 100 }, 730);
    compaction.step(730);
    expect(compaction.cut(730, Infinity)?.index).toBe(730);
    expect(compaction.flushAt(730)).toBe(830);
    const shorter = new Compaction(log, { ...off, entries: 300 }, 730);
    shorter.step(730);
    expect(shorter.isDue(730)).toBe(false);
    expect(shorter.flushAt(730)).toBe(800);
  });

  test("bounds change while it runs", () => {
    const node = new FakeNode(off).run(50);
    node.compaction.change({ ...off, entries: 100 }, 0);
    node.turn();
    expect(node.cuts).toEqual([500]);
    expect(node.run(10).cuts).toEqual([500, 600]);
    node.compaction.change(off, 600);
    expect(node.run(100).cuts).toEqual([500, 600]);
  });

  test("bounds that make no sense are named", () => {
    expect(compactionProblem(defaultCompaction)).toBeUndefined();
    expect(compactionProblem(off)).toBeUndefined();
    expect(compactionProblem({ ...off, entries: -1 })).toContain("entries");
    expect(compactionProblem({ ...off, bytes: 1.5 })).toContain("bytes");
    expect(compactionProblem({ ...off, bytes: 10, tailBytes: 10 })).toContain("tail");
  });
});

/** A snapshot takes the place of a group's log: log start, machine file and what follows in one transaction, whole or not at all [25]. */
import { describe, expect, test } from "bun:test";
import { bodyOf, type Batch } from "../../src/wire/batch.ts";
import { LogWorld, makeBatch, makeRun, seedCrc, startAfter } from "./log-world.ts";

const configuration = new Uint8Array([1, 2, 3]);
const start = { index: 40, term: 3, crc: 0xfeed, timeMs: 7 };
const restore = { start, configuration, machineGeneration: 1 };
const hardState = { term: 3, votedFor: 0, commit: 40 };

const spans = (batches: readonly Batch[]): string =>
  batches.map((b) => `${b.firstIndex}+${b.count}@${b.term}`).join(" ");

function world(seed: number, limits = {}): LogWorld {
  const made = new LogWorld(seed, limits);
  made.appendRun(1, [2, 2, 2]);
  made.sync();
  return made;
}

describe("restore", () => {
  test("begins the log anew, with what follows in the same transaction", () => {
    const made = world(1);
    const next = makeRun(start, 3, [2, 1]);
    made.store.append([{ group: 0, hardState, restore, append: next }]);
    expect(made.store.batches(0, 1, 40, 1e9)).toEqual([]);
    expect(spans(made.log(0, 41))).toBe("41+2@3 43+1@3");
    expect(made.store.logBytes(0)).toBe(2 * 64);
    made.sync();
    const found = made.crash("none").get(0)!;
    expect(found).toMatchObject({
      hardState,
      start,
      startConfiguration: configuration,
      machineGeneration: 1,
    });
    expect(found.batches.map((b) => b.firstIndex)).toEqual([41, 43]);
  });

  test("is there after a crash with all of it, or not at all", () => {
    for (const mode of ["none", "all", "prefix"] as const) {
      for (let seed = 1; seed <= 20; seed++) {
        const made = world(seed, { segmentRecordsMax: 4 });
        const next = makeRun(start, 3, [1]);
        made.store.append([{ group: 0, hardState, restore, append: next }]);
        const { batches, machineGeneration, ...found } = made.crash(mode).get(0)!;
        const old = machineGeneration === 0;
        expect([found.start.index, found.hardState.term, batches.map((b) => b.term)]).toEqual(
          old ? [0, 0, [1, 1, 1]] : [40, 3, [3]],
        );
        if (mode !== "prefix") expect(old).toBe(mode === "none");
      }
    }
  });

  test("each segment repeats it, so the one that it was written in can go", () => {
    const made = world(2, { segmentRecordsMax: 6 });
    made.store.append([{ group: 0, hardState: undefined, restore, append: [] }]);
    let end: { index: number; crc: number } = start;
    for (let term = 3; term < 20; term++) {
      const batch = makeBatch({ firstIndex: end.index + 1, count: 1, term, prevCrc: end.crc });
      made.append(batch);
      end = startAfter(batch);
      made.store.compactTo(0, startAfter(batch), configuration);
      made.sync();
      made.tick();
      made.sync();
    }
    expect(made.disk.segments[0]!.number).toBeGreaterThan(3);
    const found = made.crash("none").get(0)!;
    expect(found.machineGeneration).toBe(1);
    expect(found.start.index).toBe(57);
  });

  test("a compaction of before, not written yet, does not undo it", () => {
    const made = world(3);
    made.store.compactTo(0, startAfter(made.log(0)[0]!), configuration);
    made.store.append([{ group: 0, hardState: undefined, restore, append: [] }]);
    made.tick();
    made.sync();
    expect(made.crash("none").get(0)!.start).toEqual(start);
  });

  test("other groups are as before", () => {
    const made = world(4);
    const run = makeRun({ index: 0, crc: seedCrc }, 1, [1, 1], { group: 5 });
    made.append(...run);
    made.store.append([{ group: 0, hardState: undefined, restore, append: [] }]);
    made.sync();
    made.crash("none");
    expect(made.log(5).map(bodyOf)).toEqual(run.map(bodyOf));
  });

  test("back in time, or under a name that was used, is refused before anything changes", () => {
    const made = world(5);
    made.store.append([{ group: 0, hardState: undefined, restore, append: [] }]);
    const seq = made.store.appendSeq;
    const older = { ...restore, start: { ...start, index: 39 }, machineGeneration: 2 };
    const again = { ...restore, start: { ...start, index: 41 } };
    for (const one of [older, again]) {
      const write = { group: 0, hardState: undefined, restore: one, append: [] };
      expect(() => made.store.append([write])).toThrow(/log-store/);
    }
    const gap = makeRun({ index: 42, crc: 1 }, 3, [1]);
    const beyond = { ...again, machineGeneration: 2 };
    const write = { group: 0, hardState: undefined, restore: beyond, append: gap };
    expect(() => made.store.append([write])).toThrow(/beyond the last index 41/);
    expect(made.store.appendSeq).toBe(seq);
  });
});

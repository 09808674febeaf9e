/** The rules of the log, one by one, over the simulated disk [18-22, 26]. */
import { describe, expect, test } from "bun:test";
import { FatalError } from "../../src/fatal.ts";
import { DiskFullError } from "../../src/storage/disk.ts";
import { CorruptBatchError } from "../../src/storage/log-store.ts";
import { readWatermark } from "../../src/storage/watermark.ts";
import type { Batch } from "../../src/wire/batch.ts";
import { BatchKind, LogWorld, makeBatch, makeRun, seedCrc, startAfter } from "./log-world.ts";

const none = new Uint8Array(0);
const spans = (batches: readonly Batch[]): string =>
  batches.map((b) => `${b.firstIndex}+${b.count}@${b.term}`).join(" ");

describe("appending", () => {
  test("batches come back verbatim, whole, and bounded", () => {
    const world = new LogWorld(1);
    const run = world.appendRun(1, [1, 5, 3, 2], 100);
    expect(world.log(0)).toEqual(run);
    // From within a batch; up to within a batch; at least one whatever the bound.
    expect(spans(world.store.batches(0, 4, 9, 1e9))).toBe("2+5@1 7+3@1");
    expect(spans(world.store.batches(0, 4, 6, 1e9))).toBe("2+5@1");
    expect(spans(world.store.batches(0, 1, 99, 1))).toBe("1+1@1");
    expect(spans(world.store.batches(0, 1, 99, 2 * 148))).toBe("1+1@1 2+5@1");
    expect(world.store.batches(0, 12, 99, 1e9)).toEqual([]);
    expect(world.store.batches(7, 1, 99, 1e9)).toEqual([]);
    expect(world.store.logBytes(0)).toBe(4 * 148);
  });

  test("one transaction for all groups, and nothing of it after a full disk", () => {
    const world = new LogWorld(2);
    const before = world.store.appendSeq;
    const write = (group: number) => ({
      group,
      hardState: { term: 1, votedFor: 2, commit: 0 },
      append: makeRun({ index: 0, crc: seedCrc }, 1, [1, 1], { group }),
    });
    world.disk.bytesMax = world.store.diskBytes + 200;
    expect(() => world.store.append([write(0), write(1)])).toThrow(DiskFullError);
    expect(world.store.appendSeq).toBe(before);
    expect(world.log(0)).toEqual([]);
    expect(world.store.logBytes(0)).toBe(0);
    world.disk.bytesMax = Number.POSITIVE_INFINITY;
    expect(world.store.append([write(0), write(1)])).toBe(before + 6);
    const groups = world.crash("all");
    expect([...groups.keys()].sort()).toEqual([0, 1]);
    expect(groups.get(1)!.hardState).toEqual({ term: 1, votedFor: 2, commit: 0 });
  });

  test("a full disk in the middle of a rotation is got over", () => {
    const world = new LogWorld(3, { segmentRecordsMax: 3 });
    world.appendRun(1, [1, 1, 1]);
    world.disk.bytesMax = world.store.diskBytes;
    expect(() => world.appendRun(1, [1])).toThrow(DiskFullError);
    expect(() => world.appendRun(1, [1])).toThrow(DiskFullError);
    world.disk.bytesMax = Number.POSITIVE_INFINITY;
    world.appendRun(1, [1]);
    world.sync();
    expect(world.disk.segments.length).toBe(2);
    expect(spans(world.log(0))).toBe("1+1@1 2+1@1 3+1@1 4+1@1");
    expect(world.crash("none").get(0)!.batches.length).toBe(4);
  });

  test("a batch at an index that exists supersedes all from there", () => {
    const world = new LogWorld(4);
    const old = world.appendRun(1, [2, 2, 2]);
    const [fresh] = makeRun(startAfter(old[0]!), 2, [1]);
    world.append(fresh!);
    expect(spans(world.log(0))).toBe("1+2@1 3+1@2");
    expect(world.store.logBytes(0)).toBe(2 * 64);
    world.sync();
    expect(
      world
        .crash("none")
        .get(0)!
        .batches.map((b) => b.term),
    ).toEqual([1, 2]);
  });

  test("what would break the log is refused before anything changes", () => {
    const world = new LogWorld(5);
    const run = world.appendRun(2, [2, 2]);
    world.store.compactTo(0, startAfter(run[0]!), none);
    const seq = world.store.appendSeq;
    const at = (firstIndex: number, prevCrc: number) =>
      makeBatch({ firstIndex, prevCrc, term: 3, count: 1 });
    expect(() => world.append(at(6, run[1]!.crc))).toThrow("beyond the last index");
    expect(() => world.append(at(2, run[0]!.crc))).toThrow("at or below the log start");
    expect(() => world.append(at(4, run[0]!.crc))).toThrow("within a batch");
    expect(() => world.append(at(5, run[0]!.crc))).toThrow("prevCrc");
    const good = at(5, run[1]!.crc);
    expect(() => world.append(good, at(7, good.crc))).toThrow("does not continue");
    const hard = (term: number, votedFor: number) => () =>
      world.store.append([{ group: 0, hardState: { term, votedFor, commit: 0 }, append: [] }]);
    hard(4, 1)();
    expect(hard(3, 1)).toThrow("term would go back");
    expect(hard(4, 2)).toThrow("would change");
    const write = { group: 0, hardState: undefined, append: [good] };
    expect(() => world.store.append([write, write])).toThrow("twice");
    const first = makeBatch({ group: 8, firstIndex: 1, prevCrc: seedCrc, term: 1 });
    const other = { group: 8, hardState: undefined, append: [first] };
    expect(() => world.store.append([other, other])).toThrow("twice");
    // The start record, and the one hard state that was accepted.
    expect(world.store.appendSeq).toBe(seq + 2);
    expect(spans(world.log(0, 3))).toBe("3+2@2");
  });
});

describe("syncing", () => {
  test("covers what was appended before the call, one round at a time", () => {
    const world = new LogWorld(10);
    world.sync();
    expect(world.store.sync(() => {})).toBe(false);
    world.appendRun(1, [1]);
    const covered = world.store.appendSeq;
    const completed: number[] = [];
    expect(world.store.sync((seq) => completed.push(seq))).toBe(true);
    expect(world.store.syncing).toBe(true);
    world.appendRun(1, [1]);
    expect(world.store.sync(() => {})).toBe(false);
    while (world.store.syncing) world.scheduler.step();
    expect(completed).toEqual([covered]);
    expect(world.store.syncedSeq).toBe(covered);
    expect(world.crash("none").get(0)!.batches.length).toBe(1);
  });

  test("no callback of a round that a crash cut short", () => {
    const world = new LogWorld(11);
    world.appendRun(1, [1]);
    let completed = 0;
    world.store.sync(() => (completed += 1));
    world.crash("prefix");
    while (world.scheduler.step());
    expect(completed).toBe(0);
  });

  test("the watermark is renewed with each round and made durable by ticks", () => {
    const world = new LogWorld(12);
    world.appendRun(3, [4]);
    world.sync();
    const mark = readWatermark(world.disk.readWatermark()!)!;
    expect(mark.seq).toBe(world.store.syncedSeq);
    expect(mark.groups.get(0)).toEqual({ term: 3, index: 4, hardTerm: 0 });
    expect(world.disk.crash("none").readWatermark()).toBeUndefined();
    const again = new LogWorld(12);
    again.appendRun(3, [4]);
    again.sync();
    again.tick();
    expect(again.disk.crash("none").readWatermark()).toBeDefined();
  });

  test("superseding lowers what counts as durable, also during the round", () => {
    const world = new LogWorld(13);
    const old = world.appendRun(1, [2, 2, 2]);
    world.sync();
    world.appendRun(1, [1]);
    world.store.sync(() => {});
    world.append(...makeRun(startAfter(old[0]!), 2, [5, 5]));
    while (world.store.syncing) world.scheduler.step();
    const mark = readWatermark(world.disk.readWatermark()!)!;
    expect(mark.groups.get(0)).toEqual({ term: 1, index: 2, hardTerm: 0 });
    world.sync();
    const next = readWatermark(world.disk.readWatermark()!)!;
    expect(next.groups.get(0)).toEqual({ term: 2, index: 12, hardTerm: 0 });
    world.append(...makeRun(world.end(0), 2, [1]));
    world.store.sync(() => {});
    world.store.compactTo(0, { index: 40, term: 3, crc: 1, timeMs: 0 }, none);
    while (world.store.syncing) world.scheduler.step();
    const anew = readWatermark(world.disk.readWatermark()!)!;
    expect(anew.groups.get(0)).toEqual({ term: 0, index: 0, hardTerm: 0 });
  });
});

describe("recovery", () => {
  test("hard state, start, batches and configurations, across several starts", () => {
    const world = new LogWorld(20, { segmentRecordsMax: 4 });
    const first = makeBatch({
      firstIndex: 1,
      term: 1,
      prevCrc: seedCrc,
      kind: BatchKind.configuration,
      tag: 77,
    });
    world.append(first);
    const run = world.appendRun(1, [3, 3, 3, 3]);
    const config = makeBatch({
      firstIndex: 14,
      term: 2,
      prevCrc: run.at(-1)!.crc,
      kind: BatchKind.configuration,
    });
    world.store.append([
      { group: 0, hardState: { term: 2, votedFor: 3, commit: 7 }, append: [config] },
    ]);
    const configuration = new Uint8Array([1, 2, 3]);
    world.store.compactTo(0, startAfter(run[0]!), configuration);
    world.tick();
    world.sync();
    for (let start = 0; start < 4; start++) {
      const group = world.crash(start % 2 === 0 ? "none" : "all").get(0)!;
      expect(group.hardState).toEqual({ term: 2, votedFor: 3, commit: 7 });
      expect(group.start).toEqual(startAfter(run[0]!));
      expect([...group.startConfiguration]).toEqual([1, 2, 3]);
      expect(group.batches.map((b) => b.firstIndex)).toEqual([5, 8, 11, 14]);
      expect(group.configurations).toEqual([config]);
      world.sync();
    }
  });

  test("each start begins a segment; nothing is retired before that is durable", () => {
    const world = new LogWorld(21);
    const run = world.appendRun(1, [1, 1, 1]);
    world.sync();
    world.store.compactTo(0, startAfter(run[2]!), none);
    world.tick();
    world.sync();
    world.crash("all");
    expect(world.disk.segments.map((s) => s.number)).toEqual([1, 2]);
    world.sync();
    expect(world.disk.segments.map((s) => s.number)).toEqual([2]);
    expect(world.crash("none").get(0)!.start.index).toBe(3);
  });

  test("a newer segment whose predecessor lost its tail was never acknowledged", () => {
    // Found by search: a cut that kept the newer segment and not the older one's end.
    let found = 0;
    for (let seed = 0; seed < 60; seed++) {
      const world = new LogWorld(seed, { segmentRecordsMax: 3 });
      world.sync();
      world.appendRun(1, [1]);
      world.sync();
      for (let each = 0; each < 6; each++) world.appendRun(1, [1]);
      const group = world.crash("prefix").get(0)!;
      const last = group.batches.at(-1)!;
      expect(group.batches.length).toBe(last.firstIndex);
      expect(world.damage).toEqual([]);
      if (world.disk.segments.length > 2 && last.firstIndex < 7) found += 1;
      world.sync();
      expect(world.crash("none").get(0)!.batches.length).toBe(last.firstIndex);
    }
    expect(found).toBeGreaterThan(0);
  });

  test("a legal truncation to a lower term and index raises no alarm", () => {
    for (const mode of ["all", "none", "prefix"] as const) {
      const world = new LogWorld(22);
      const run = world.appendRun(1, [2, 2]);
      world.append(...makeRun(startAfter(run[1]!), 4, [3]));
      world.sync();
      world.tick();
      // The next leader, of term 5, first sends what it has of term 3: below the watermark (4, 7), yet nothing is lost.
      world.append(...makeRun(startAfter(run[1]!), 3, [1]));
      const last = world.crash(mode).get(0)!.batches.at(-1)!;
      expect([3, 4]).toContain(last.term);
    }
  });

  test.each([3, 100])("a start that the log does not contain voids the log (%d)", (records) => {
    const world = new LogWorld(23, { segmentRecordsMax: records });
    world.appendRun(1, [1, 1, 1, 1, 1]);
    world.store.compactTo(0, { index: 3, term: 2, crc: 99, timeMs: 5 }, none);
    expect(world.log(0, 4)).toEqual([]);
    world.tick();
    world.sync();
    const group = world.crash("none").get(0)!;
    expect(group.start).toEqual({ index: 3, term: 2, crc: 99, timeMs: 5 });
    expect(group.batches).toEqual([]);
    world.append(...makeRun({ index: 3, crc: 99 }, 2, [2]));
    world.sync();
    expect(
      world
        .crash("all")
        .get(0)!
        .batches.map((b) => b.firstIndex),
    ).toEqual([4]);
  });

  test("a log that began anew grows on over further segments", () => {
    const world = new LogWorld(24, { segmentRecordsMax: 3 });
    world.appendRun(1, [1, 1]);
    world.store.compactTo(0, { index: 9, term: 2, crc: 99, timeMs: 5 }, none);
    for (const batch of makeRun({ index: 9, crc: 99 }, 2, [1, 1, 1, 1, 1, 1])) world.append(batch);
    world.sync();
    const { batches } = world.crash("none").get(0)!;
    expect(batches.map((batch) => batch.firstIndex)).toEqual([10, 11, 12, 13, 14, 15]);
  });
});

describe("damage", () => {
  /** Ten batches, synced, with a durable watermark; tiny segments unless told otherwise. */
  const settled = (seed: number, segmentRecordsMax = 100): { world: LogWorld; run: Batch[] } => {
    const world = new LogWorld(seed, { segmentRecordsMax });
    const run: Batch[] = [];
    for (let each = 0; each < 10; each++) {
      run.push(...world.appendRun(1, [2]));
      world.sync();
    }
    world.tick();
    return { world, run };
  };
  const refusal = (world: LogWorld): FatalError => {
    try {
      world.crash("none");
    } catch (error) {
      if (error instanceof FatalError) return error;
      throw error;
    }
    throw new Error("the start was not refused");
  };

  test("a log that silently lost its durable end refuses to start and says what it lacks", () => {
    const { world } = settled(30);
    const segments = world.disk.segments.length;
    world.disk.cutTail(world.store.syncedSeq - 2);
    const error = refusal(world);
    expect(error.reason).toBe("below_watermark");
    expect(error.message).toContain("group 0: have index 14 of term 1, need index 20 of term 1");
    expect(error.message).toContain("no other member to fetch it from");
    // The one that had been prepared, and none of the refused start.
    expect(world.disk.segments.length).toBe(segments + 1);
  });

  test("any flipped bit in a durable record is refused, in whichever segment of the last two", () => {
    for (let seed = 0; seed < 40; seed++) {
      const { world } = settled(seed, seed % 2 === 0 ? 100 : 6);
      const newest = world.disk.segments.at(-1)!;
      let first = Number.MAX_SAFE_INTEGER;
      newest.scan((record) => (first = Math.min(first, record.seq)));
      const seq = first + (seed % (world.store.syncedSeq - first + 1));
      world.disk.flipBit(seq, world.random.below(1 << 16));
      expect(refusal(world).reason).toBe("corrupt_data");
    }
  });

  test("a misdirected write of a record with a right crc is noticed", () => {
    const { world } = settled(31);
    world.disk.misdirect(world.store.syncedSeq - 5, world.store.syncedSeq - 4);
    expect(refusal(world).reason).toBe("corrupt_data");
    // The last one: each record is right and the chain is whole, only the stream is another.
    const { world: again } = settled(31);
    again.disk.misdirect(again.store.syncedSeq - 1, again.store.syncedSeq);
    expect(refusal(again).message).toContain("is not what was known durable");
  });

  test("a batch without a body is told from another one in its place", () => {
    const world = new LogWorld(31);
    world.appendRun(1, [1, 1, 1, 1], 0);
    world.sync();
    world.tick();
    world.disk.misdirect(world.store.syncedSeq - 1, world.store.syncedSeq);
    expect(refusal(world).message).toContain("is not what was known durable");
  });

  test("a body is verified in both of the last two segments", () => {
    const { world } = settled(37, 5);
    const previous = world.disk.segments.at(-2)!;
    let last = 0;
    previous.scan((record) => (last = record.seq));
    world.disk.flipBit(last, 50 * 8);
    expect(refusal(world).message).toContain(`record ${last} in segment ${previous.number}`);
  });

  test("a newest segment damaged where it repeats the groups' state is not believed", () => {
    const { world, run } = settled(38);
    world.store.append([{ group: 0, hardState: { term: 9, votedFor: 2, commit: 0 }, append: [] }]);
    world.store.compactTo(0, startAfter(run.at(-1)!), none);
    world.tick();
    world.sync();
    world.tick();
    const seq = world.store.appendSeq;
    // The segment of the next start needs no older one; its hard state rots before it was synced.
    world.crash("all");
    world.disk.flipBit(seq + 2, 70);
    const group = world.crash("all").get(0)!;
    expect(group.hardState).toEqual({ term: 9, votedFor: 2, commit: 0 });
    expect(world.damage.length).toBe(1);
  });

  test("a record lost from the middle is noticed", () => {
    const { world } = settled(39);
    world.disk.loseRecord(world.store.syncedSeq - 3);
    expect(refusal(world).reason).toBe("corrupt_data");
  });

  test("of older segments heads are verified at the start, bodies when they are served", () => {
    for (let seed = 0; seed < 40; seed++) {
      const { world } = settled(seed, 4);
      const oldest = world.disk.segments[0]!;
      const seqs: number[] = [];
      oldest.scan((record) => seqs.push(record.seq));
      world.disk.flipBit(world.random.pick(seqs), world.random.below(44 * 8));
      expect(refusal(world).reason).toBe("corrupt_data");
    }
    const { world } = settled(40, 4);
    world.disk.flipBit(2, 50 * 8);
    world.crash("none");
    expect(() => world.log(0)).toThrow(CorruptBatchError);
    expect(world.log(0, 3).length).toBe(9);
  });

  test("a missing segment is noticed", () => {
    const { world } = settled(32, 5);
    expect(world.disk.segments.length).toBeGreaterThan(2);
    const second = world.disk.segments[1]!;
    const seqs: number[] = [];
    second.scan((record) => seqs.push(record.seq));
    world.disk.cutTail(seqs[0]!);
    expect(refusal(world).message).toContain(`segment ${second.number}`);
  });

  test("a whole log that is gone is noticed", () => {
    const { world } = settled(33);
    world.disk.cutTail(1);
    expect(refusal(world).reason).toBe("below_watermark");
  });

  test("damage beyond what was known durable is cut off and reported", () => {
    const { world } = settled(34);
    world.appendRun(1, [2, 2, 2]);
    world.disk.flipBit(world.store.appendSeq - 1, 400);
    const group = world.crash("all").get(0)!;
    expect(group.batches.at(-1)!.firstIndex).toBe(21);
    expect(world.damage.length).toBe(1);
    // What was cut off stays void although its segment still holds it.
    world.appendRun(2, [1]);
    world.sync();
    expect(
      world
        .crash("none")
        .get(0)!
        .batches.slice(-2)
        .map((b) => b.term),
    ).toEqual([1, 2]);
  });

  test("a damaged watermark is refused", () => {
    const { world } = settled(35);
    const bytes = world.disk.readWatermark()!.slice();
    bytes[9]! ^= 4;
    world.disk.writeWatermark(bytes);
    world.disk.syncWatermark(() => {});
    while (world.scheduler.step());
    expect(refusal(world).reason).toBe("corrupt_data");
  });

  test("a damaged body is never served, and its group is named", () => {
    const { world, run } = settled(36);
    world.disk.flipBit(4, (48 + 3) * 8);
    const error = (() => {
      try {
        return world.log(0);
      } catch (caught) {
        return caught;
      }
    })();
    expect(error).toBeInstanceOf(CorruptBatchError);
    expect((error as CorruptBatchError).firstIndex).toBeGreaterThanOrEqual(run[0]!.firstIndex);
  });
});

describe("retiring", () => {
  test("segments with nothing live go, oldest first, once the next one is durable", () => {
    const world = new LogWorld(40, { segmentRecordsMax: 4 });
    const run: Batch[] = [];
    for (let each = 0; each < 12; each++) run.push(...world.appendRun(1, [1]));
    world.sync();
    const before = world.disk.segments.length;
    expect(before).toBeGreaterThan(3);
    world.store.compactTo(0, startAfter(run[9]!), none);
    for (let each = 0; each < 4; each++) {
      world.append(...makeRun(world.end(0, 11), 1, [1]));
    }
    expect(world.disk.segments.length).toBeGreaterThanOrEqual(before);
    world.sync();
    expect(world.disk.segments.length).toBeLessThan(before);
    expect(world.store.batches(0, 10, 20, 1e9)).toEqual([]);
    expect(world.store.logBytes(0)).toBe(6 * 64);
    expect(
      world
        .crash("none")
        .get(0)!
        .batches.map((b) => b.firstIndex),
    ).toEqual([11, 12, 13, 14, 15, 16]);
  });

  test("the next segment is prepared before it is needed, and recycling goes on for ever", () => {
    const world = new LogWorld(41, { segmentBytes: 2_000 });
    let end = { index: 0, crc: seedCrc };
    let most = 0;
    for (let each = 0; each < 200; each++) {
      const [batch] = makeRun(end, 1, [1], { bodyBytes: 200 });
      world.append(batch!);
      end = startAfter(batch!);
      world.sync();
      world.store.compactTo(0, startAfter(batch!), none);
      world.tick();
      most = Math.max(most, world.disk.segments.length);
    }
    expect(most).toBeLessThanOrEqual(3);
    expect(world.disk.segments.at(-1)!.number).toBeGreaterThan(20);
  });

  test("a group that stands still is copied forward; one group alone never is", () => {
    const world = new LogWorld(42, { segmentBytes: 4_000, appendBytesMax: 300 });
    const still = makeRun({ index: 0, crc: seedCrc }, 1, [1, 1, 1, 1, 1], { group: 9 });
    world.append(...still);
    let end = { index: 0, crc: seedCrc };
    let most = 0;
    for (let each = 0; each < 300; each++) {
      const [batch] = makeRun(end, 1, [1], { bodyBytes: 300 });
      world.append(batch!);
      end = startAfter(batch!);
      world.store.compactTo(0, startAfter(batch!), none);
      world.sync();
      world.tick();
      most = Math.max(most, world.store.diskBytes);
      if (each % 50 === 17) {
        const group = world.crash("none").get(9)!;
        expect(group.batches.length).toBe(5);
      }
    }
    expect(most).toBeLessThan(8 * 4_000);
    expect(world.log(9)).toEqual(still);
    expect(world.disk.segments[0]!.number).toBeGreaterThan(10);
    // Superseding what was copied still works.
    world.append(...makeRun(startAfter(still[1]!), 2, [1], { group: 9 }));
    world.sync();
    expect(spans(world.log(9))).toBe("1+1@1 2+1@1 3+1@2");
    expect(world.crash("none").get(9)!.batches.length).toBe(3);
  });

  test("copying forward is bounded per tick and passes over what was superseded meanwhile", () => {
    const world = new LogWorld(43, { segmentBytes: 1_000, appendBytesMax: 1 });
    const still = makeRun({ index: 0, crc: seedCrc }, 1, [1, 1, 1, 1, 1], { group: 9 });
    world.append(...still);
    let end = { index: 0, crc: seedCrc };
    for (let each = 0; each < 12; each++) {
      const [batch] = makeRun(end, 1, [1], { bodyBytes: 300 });
      world.append(batch!);
      end = startAfter(batch!);
      world.store.compactTo(0, startAfter(batch!), none);
    }
    world.sync();
    world.tick();
    const seq = world.store.appendSeq;
    world.tick();
    expect(world.store.appendSeq).toBe(seq + 1);
    world.append(...makeRun(startAfter(still[2]!), 2, [1], { group: 9 }));
    for (let each = 0; each < 6; each++) world.tick();
    world.sync();
    expect(spans(world.log(9))).toBe("1+1@1 2+1@1 3+1@1 4+1@2");
    expect(world.crash("none").get(9)!.batches.length).toBe(4);
  });
});

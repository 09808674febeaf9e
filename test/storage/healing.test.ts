/** What the store does when something that was durable is gone and others have it: it starts with what is whole, and does not forget that it is wounded. */
import { describe, expect, test } from "bun:test";
import { BatchKind } from "../../src/wire/batch.ts";
import { CorruptBatchError } from "../../src/storage/log-store.ts";
import { RecordKind } from "../../src/storage/disk.ts";
import { readWatermark } from "../../src/storage/watermark.ts";
import { LogWorld, makeBatch, makeRun, seedCrc, startAfter } from "./log-world.ts";

/** Ten batches of two indexes in term 1, a vote in term 4, all durable, the watermark too. */
function settled(seed: number, segmentRecordsMax = 100): LogWorld {
  const world = new LogWorld(seed, { segmentRecordsMax }, true);
  for (let each = 0; each < 10; each++) {
    world.appendRun(1, [2]);
    world.sync();
  }
  world.store.append([{ group: 0, hardState: { term: 4, votedFor: 2, commit: 20 }, append: [] }]);
  world.sync();
  world.tick();
  return world;
}

const all = { term: 1, index: 20, hardTerm: 4 };

function lastIndex(world: LogWorld): number {
  return world.end(0).index;
}

function mark(world: LogWorld): object | undefined {
  return readWatermark(world.disk.readWatermark()!)!.groups.get(0);
}

/** What the store still has continues up to `index`, durably. */
function refetch(world: LogWorld, index: number, term = 5): void {
  const end = world.end(0);
  for (const batch of makeRun(
    end,
    term,
    Array.from({ length: index - end.index }, () => 1),
  )) {
    world.append(batch);
  }
  world.sync();
}

describe("a loss that others can make good", () => {
  test("leaves what is whole, and says how far it was", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const world = settled(seed, seed % 2 === 0 ? 100 : 5);
      // Not the last record alone: the stream's end is then whole, and only its crc differs.
      const seq = world.random.between(2, world.store.syncedSeq - 1);
      const rots = [
        () => world.disk.flipBit(seq, world.random.below(44 * 8)),
        () => world.disk.cutTail(seq),
        () => world.disk.loseRecord(seq),
      ];
      world.random.pick(rots)();
      const group = world.crash("none").get(0)!;
      expect(group.wound).toEqual(all);
      expect(world.damage.length).toBeGreaterThan(0);
      let { index, crc } = group.start;
      for (const batch of world.log(0)) {
        expect([batch.firstIndex, batch.prevCrc]).toEqual([index + 1, crc]);
        index += batch.count;
        crc = batch.crc;
      }
      expect(index).toBeLessThanOrEqual(20);
    }
  });

  test("may leave nothing at all", () => {
    const world = settled(1);
    world.disk.cutTail(1);
    const group = world.crash("none").get(0)!;
    expect(group).toMatchObject({ wound: all, batches: [], start: { index: 0 } });
  });

  test("is remembered over starts and segments, and a second loss does not make it less", () => {
    const world = settled(2, 6);
    world.disk.cutTail(world.store.syncedSeq - 8);
    world.crash("none");
    const before = lastIndex(world);
    expect(before).toBeLessThan(20);
    world.sync();
    expect(mark(world)).toEqual(all);
    for (let start = 0; start < 3; start++) {
      expect(world.crash("none").get(0)!.wound).toEqual(all);
      refetch(world, lastIndex(world) + 2, 1);
    }
    expect(lastIndex(world)).toBeLessThan(20);
    world.tick();
    world.disk.cutTail(2);
    expect(world.crash("none").get(0)!.wound).toEqual(all);
    expect(world.disk.segments.length).toBeGreaterThan(0);
  });

  test("before its first sync the start can be repeated", () => {
    const world = settled(3);
    world.disk.cutTail(world.store.syncedSeq - 8);
    const first = world.crash("none").get(0)!;
    expect(world.crash("none").get(0)).toEqual(first);
    expect(world.crash("all").get(0)).toEqual(first);
  });

  test("is over once it is healed, not before that is durable", () => {
    const world = settled(4);
    world.disk.cutTail(world.store.syncedSeq - 8);
    world.crash("none");
    refetch(world, 30);
    world.store.heal(0);
    expect(world.crash("none").get(0)!.wound).toEqual(all);
    world.store.heal(0);
    world.append(makeBatch({ firstIndex: 31, term: 5, prevCrc: world.end(0).crc }));
    world.sync();
    expect(mark(world)).toMatchObject({ term: 5, index: 31 });
    world.tick();
    expect(world.crash("none").get(0)!.wound).toBeUndefined();
    expect(lastIndex(world)).toBe(31);
  });

  test("by a batch in another record's place leaves what chains", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const world = settled(seed, seed % 2 === 0 ? 100 : 5);
      const seqs: number[] = [];
      for (const segment of world.disk.segments)
        segment.scan(({ seq, kind }) => kind === RecordKind.batch && seqs.push(seq));
      const from = world.random.pick(seqs);
      const to = world.random.between(2, world.store.syncedSeq);
      if (from === to) continue;
      world.disk.misdirect(from, to);
      for (const mode of ["none", "all"] as const) {
        const group = world.crash(mode).get(0)!;
        expect(group.wound).toEqual(all);
        let { index, crc } = group.start;
        for (const batch of world.log(0)) {
          expect([batch.firstIndex, batch.prevCrc]).toEqual([index + 1, crc]);
          index += batch.count;
          crc = batch.crc;
        }
        world.sync();
      }
    }
  });

  test("may take the state machine's file too: then the log that stood on it is given up", () => {
    const world = settled(6);
    world.store.compactTo(0, startAfter(world.log(0)[4]!), new Uint8Array(0));
    world.append(makeBatch({ firstIndex: 21, term: 5, prevCrc: world.end(0, 11).crc }));
    world.sync();
    world.tick();
    world.disk.cutTail(world.store.syncedSeq);
    const group = world.crash("all").get(0)!;
    expect(group.start.index).toBe(10);
    expect(world.store.empty(0)).toEqual({ index: 0, term: 0, crc: seedCrc, timeMs: 0 });
    refetch(world, 3, 6);
    expect(world.crash("none").get(0)).toMatchObject({ start: { index: 0 }, wound: group.wound! });
    expect(lastIndex(world)).toBe(3);
  });

  test("makes every group wounded: nobody knows whose the lost records were", () => {
    const world = settled(5);
    world.append(makeBatch({ group: 3, firstIndex: 1, term: 2, prevCrc: seedCrc }));
    world.sync();
    world.tick();
    world.disk.cutTail(world.store.syncedSeq);
    const groups = world.crash("all");
    expect(groups.get(0)!.wound).toEqual(all);
    expect(groups.get(3)).toMatchObject({ wound: { term: 2, index: 1 }, batches: [] });
  });
});

describe("a damaged batch", () => {
  const damaged = (seed: number, kind?: BatchKind): LogWorld => {
    const world = new LogWorld(seed, { segmentRecordsMax: 4 }, true);
    for (let index = 1; index <= 20; index++) {
      const isThat = index === 5 && kind !== undefined;
      const { crc } = world.end(0);
      world.append(
        makeBatch({ firstIndex: index, term: 1, prevCrc: crc, ...(isThat ? { kind } : {}) }),
      );
      world.sync();
    }
    world.tick();
    let seq = 0;
    for (const segment of world.disk.segments)
      segment.scan((record) => {
        const view = new DataView(record.data.buffer, record.data.byteOffset);
        if (record.kind === 2 && view.getUint32(8, true) === 5) ({ seq } = record);
      });
    world.disk.flipBit(seq, 50 * 8);
    return world;
  };

  test("that is met ends the log before it, and that is as durable as what comes next", () => {
    const world = damaged(1);
    expect(world.crash("none").get(0)!.wound).toBeUndefined();
    world.sync();
    expect(() => world.log(0)).toThrow(CorruptBatchError);
    expect(world.store.wound(0, 5)).toEqual({ term: 1, index: 20, hardTerm: 0 });
    expect(lastIndex(world)).toBe(4);
    // Nothing was written yet, so it may be met again.
    expect(world.crash("none").get(0)!.batches.length).toBe(20);
    world.store.wound(0, 5);
    refetch(world, 7, 2);
    world.tick();
    const group = world.crash("none").get(0)!;
    expect(group.wound).toEqual({ term: 1, index: 20, hardTerm: 0 });
    expect(lastIndex(world)).toBe(7);
    world.sync();
    expect(mark(world)).toMatchObject({ term: 2, index: 7 });
  });

  test("that is a configuration is met at the start", () => {
    const world = damaged(2, BatchKind.configuration);
    const group = world.crash("none").get(0)!;
    expect(group.wound).toEqual({ term: 1, index: 20, hardTerm: 0 });
    expect(group.batches.length).toBe(4);
    world.sync();
    expect(world.crash("none").get(0)!.batches.length).toBe(4);
  });

  test("does not keep its segment: the damage goes with it", () => {
    const world = damaged(3);
    world.crash("none");
    world.store.wound(0, 5);
    const before = world.disk.segments[0]!.number;
    refetch(world, 60, 2);
    for (let times = 0; times < 20; times++) {
      world.tick();
      world.sync();
    }
    expect(world.log(0).length).toBe(60);
    expect(world.disk.segments[0]!.number).toBeGreaterThanOrEqual(before);
  });
});

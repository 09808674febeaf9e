/**
 * Groups that leave a log [19]: nothing of them comes back, whatever a crash leaves, until the registry itself has it durably that they are gone; and
 * a group may come again by a newer entry of the registry.
 */
import { expect, test } from "bun:test";
import type { LogStart } from "../../src/wire/batch.ts";
import { readWatermark } from "../../src/storage/watermark.ts";
import { BatchKind, LogWorld, makeRun, seedCrc, startAfter } from "./log-world.ts";

const none = new Uint8Array(0);
const voted = { term: 3, votedFor: 2, commit: 0 };

function make(world: World, group: number, registryIndex: number, batches = 3): void {
  const append = makeRun({ index: 0, crc: seedCrc }, 1, Array<number>(batches).fill(1), { group });
  world.store.append([{ group, hardState: voted, append, registryIndex }]);
}

class World extends LogWorld {
  /** Ends of what `write` has written. */
  readonly starts: LogStart[] = [];
}

/** Group 0 goes on, and keeps no more than its last batch. */
function write(world: World, bodyBytes = 100): void {
  const start = world.starts.at(-1);
  const run = makeRun(start ?? { index: 0, crc: seedCrc }, 1, [1, 1], { bodyBytes });
  world.append(...run);
  world.starts.push(startAfter(run[1]!));
  if (start !== undefined) world.store.compactTo(0, start, none);
  world.tick();
  world.sync();
}

/** Until a new segment has begun. */
function rotate(world: World): void {
  const { number } = world.disk.segments.at(-1)!;
  while (world.disk.segments.at(-1)!.number === number) write(world);
}

test("what made a replica is kept with it, over restarts and rotations", () => {
  const world = new World(1, { segmentRecordsMax: 12 });
  make(world, 7, 41);
  world.sync();
  expect(world.crash("none").get(7)).toMatchObject({ registryIndex: 41, hardState: voted });
  rotate(world);
  rotate(world);
  const found = world.crash("none").get(7)!;
  expect(found).toMatchObject({ registryIndex: 41, hardState: voted });
  expect(found.batches.length).toBe(3);
  // Group 0 comes from no entry.
  expect(world.recovered.get(0)!.registryIndex).toBe(0);
});

test("a removed group is gone at once, and after any crash that comes later", () => {
  const world = new World(2);
  make(world, 7, 41);
  make(world, 8, 42);
  world.sync();
  expect(world.store.logBytes(7)).toBeGreaterThan(0);
  world.store.remove(7, 50);
  expect(world.log(7)).toEqual([]);
  expect(world.store.logBytes(7)).toBe(0);
  // Not in the log yet: the crash brings it back, and the registry removes it again.
  expect([...world.crash("all").keys()].sort()).toEqual([7, 8]);
  world.store.remove(7, 50);
  world.tick();
  world.sync();
  expect([...world.crash("none").keys()]).toEqual([8]);
  expect([...world.store.tombstones]).toEqual([[7, 50]]);
});

test("the tombstone goes along from segment to segment, until the registry is durable beyond it", () => {
  const world = new World(3, { segmentRecordsMax: 12 });
  make(world, 7, 41);
  world.store.remove(7, 50);
  for (let round = 0; round < 5; round++) rotate(world);
  world.crash("none");
  expect([...world.store.tombstones]).toEqual([[7, 50]]);
  world.store.forgetTombstones(49);
  expect(world.store.tombstones.size).toBe(1);
  world.store.forgetTombstones(50);
  expect(world.store.tombstones.size).toBe(0);
  for (let round = 0; round < 5; round++) rotate(world);
  expect(world.crash("none").has(7)).toBe(false);
  expect(world.store.tombstones.size).toBe(0);
});

test("a tombstone that is not written yet is not forgotten", () => {
  const world = new World(4);
  make(world, 7, 41);
  world.sync();
  world.store.remove(7, 50);
  world.store.forgetTombstones(60);
  world.tick();
  world.sync();
  expect(world.crash("none").has(7)).toBe(false);
});

test("what made a replica that was removed, or what came before it, never makes it again", () => {
  const world = new World(5);
  make(world, 7, 41);
  world.store.remove(7, 50);
  for (const index of [41, 50]) expect(() => make(world, 7, index)).toThrow("was removed at");
  const append = makeRun({ index: 0, crc: seedCrc }, 1, [1], { group: 7 });
  expect(() => world.store.append([{ group: 7, hardState: undefined, append }])).toThrow(
    "was removed at",
  );
  world.tick();
  world.sync();
  world.crash("none");
  expect(() => make(world, 7, 50)).toThrow("was removed at");
});

test("a newer entry brings the group back, empty, and what was removed stays away", () => {
  for (const isWritten of [true, false]) {
    const world = new World(6, { segmentRecordsMax: 12 });
    make(world, 7, 41, 5);
    world.sync();
    world.store.remove(7, 50);
    if (isWritten) world.tick();
    make(world, 7, 60, 1);
    expect(world.store.tombstones.size).toBe(0);
    expect(world.log(7).length).toBe(1);
    world.sync();
    for (let round = 0; round < 3; round++) {
      const found = world.crash("none").get(7)!;
      expect(found.registryIndex).toBe(60);
      expect(found.batches.length).toBe(1);
      rotate(world);
    }
    // What the registry said in between cannot remove it.
    expect(() => world.store.remove(7, 55)).toThrow("not newer");
  }
});

test("a removed group pins no segment", () => {
  const world = new World(7, { segmentRecordsMax: 12 });
  make(world, 7, 41);
  for (let round = 0; round < 4; round++) rotate(world);
  expect(world.disk.segments.length).toBeGreaterThan(2);
  world.store.remove(7, 50);
  rotate(world);
  rotate(world);
  expect(world.disk.segments.length).toBeLessThanOrEqual(2);
});

test("the watermark asks nothing more of a removed group", () => {
  const world = new World(8);
  for (const group of [5, 6, 7, 8]) make(world, group, 40 + group);
  world.sync();
  const named = (): number[] =>
    [...readWatermark(world.disk.readWatermark()!)!.groups.keys()].sort();
  expect(named()).toEqual([5, 6, 7, 8]);
  // The sync that is under way does not cover the tombstone.
  world.appendRun(1, [1]);
  world.store.sync(() => {});
  world.store.remove(6, 60);
  world.tick();
  expect(named()).toEqual([0, 5, 6, 7, 8]);
  world.sync();
  expect(named()).toEqual([0, 5, 7, 8]);
  world.store.remove(8, 61);
  world.store.remove(0, 62);
  world.tick();
  world.sync();
  expect(named()).toEqual([5, 7]);
  const entry = readWatermark(world.disk.readWatermark()!)!.groups.get(5)!;
  expect(entry).toEqual({ term: 1, index: 3, hardTerm: 3 });
});

test("a group that is removed while its batches are copied forward, or its start moves", () => {
  const world = new World(9, { segmentRecordsMax: 40, segmentBytes: 2_000, appendBytesMax: 1 });
  make(world, 7, 41, 20);
  make(world, 8, 42, 20);
  for (let round = 0; round < 30; round++) {
    write(world, 300);
    if (round === 12) {
      const second = world.log(7, 2)[0]!;
      world.store.compactTo(7, startAfter(second), none);
      world.store.remove(7, 50);
    }
  }
  const found = world.crash("none");
  expect(found.has(7)).toBe(false);
  expect(found.get(8)!.batches.length).toBe(20);
  expect(world.log(8).every(({ kind }) => kind === BatchKind.commands)).toBe(true);
});

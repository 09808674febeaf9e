/**
 * Many groups in one shard: what they share (turn, transaction, sync, memory, the log's room) and how, what one at rest costs, and that none is in the way
 * of another.
 */
import { describe, expect, test } from "bun:test";
import type { KvMachine } from "../../src/machine/kv.ts";
import type { StateMachine } from "../../src/machine/machine.ts";
import { ShardWorld, type Written } from "./shard-world.ts";

const KiB = 1_024;
const count = (written: readonly Written[], outcome: string): number =>
  written.filter((one) => one.outcome === outcome).length;

describe("turns", () => {
  test("only who has something to do takes part in them", () => {
    const world = new ShardWorld(100);
    world.run(20);
    const groups = world.groups();
    expect(groups.every(({ raft }) => raft.role === "leader")).toBe(true);
    expect(groups.filter(({ isActive }) => isActive)).toEqual([]);
    const written = world.write(7);
    expect(groups.filter(({ isActive }) => isActive).map(({ id }) => id)).toEqual([7]);
    world.turn();
    world.sync();
    world.turn();
    expect(written.outcome).toBe("applied");
    world.turn();
    expect(groups.filter(({ isActive }) => isActive)).toEqual([]);
  });

  test("one transaction and one sync serve all groups", () => {
    const world = new ShardWorld(100);
    world.run(20);
    const before = world.transactions;
    const written = world.groups().map(({ id }) => world.write(id));
    world.turn();
    expect(world.transactions).toBe(before + 1);
    expect(count(written, "applied")).toBe(0);
    world.sync();
    world.turn();
    expect(count(written, "applied")).toBe(100);
    expect(world.transactions).toBe(before + 1);
  });

  test("what comes while a sync runs waits for its end, all groups' together, and costs no turn meanwhile", () => {
    const world = new ShardWorld(20);
    world.run(20);
    world.write(1);
    world.turn();
    const before = world.transactions;
    const written = world.groups().map(({ id }) => world.write(id));
    world.turn();
    world.turn();
    expect(world.transactions).toBe(before);
    expect(world.groups().filter(({ isActive }) => isActive)).toEqual([]);
    world.sync();
    world.turn();
    world.sync();
    world.turn();
    expect(count(written, "applied")).toBe(20);
    expect(world.transactions).toBe(before + 1);
  });

  test("groups at rest have all their ticks, if some at a time", () => {
    const world = new ShardWorld(40);
    world.run(8);
    const ticked = world.groups().map((group) => group.tickedTo);
    world.run(40);
    for (const [at, group] of world.groups().entries()) {
      expect(group.tickedTo - ticked[at]!).toBeWithin(37, 44);
    }
  });
});

describe("sharing", () => {
  test("a hot group leaves room for the others until the next sync, in turn", () => {
    const world = new ShardWorld(30, {
      sealBytes: 4 * KiB,
      batchBytesMax: 4 * KiB,
      sectionBytesMax: 4 * KiB,
      unsyncedBytesMax: 64 * KiB,
      shardUnsyncedBytesMax: 64 * KiB,
    });
    world.run(20);
    const hot = Array.from({ length: 500 }, () => world.write(1, 2 * KiB));
    const others = Array.from({ length: 29 }, (_, at) => world.write(at + 2, 2 * KiB));
    let syncs = 0;
    while (count(others, "applied") < others.length) {
      world.turn();
      world.sync();
      world.turn();
      syncs++;
    }
    expect(syncs).toBeLessThanOrEqual(3);
    expect(count(hot, "applied")).toBeLessThan(100);
    world.run(200);
    expect(count(hot, "applied")).toBe(500);
  });

  test("where there is room for one batch at a time, who has been served is behind those who have not", () => {
    const world = new ShardWorld(30, {
      sealBytes: 4 * KiB,
      batchBytesMax: 4 * KiB,
      sectionBytesMax: 4 * KiB,
      unsyncedBytesMax: 4 * KiB,
      shardUnsyncedBytesMax: 4 * KiB,
    });
    world.run(20);
    const hot = Array.from({ length: 500 }, () => world.write(1, 2 * KiB));
    const others = Array.from({ length: 29 }, (_, at) => world.write(at + 2, 2 * KiB));
    let syncs = 0;
    while (count(others, "applied") < others.length && syncs < 100) {
      world.turn();
      world.sync();
      world.turn();
      syncs++;
    }
    expect(count(others, "applied")).toBe(others.length);
    expect(syncs).toBeLessThanOrEqual(30);
    expect(count(hot, "applied")).toBeLessThan(10);
    world.run(400);
    expect(count(hot, "applied")).toBe(500);
  });

  test("the memory of the log's tails has a bound in common, and what stands still is given back", () => {
    const world = new ShardWorld(20, {
      tailCacheBytes: 100 * KiB,
      shardTailCacheBytes: 200 * KiB,
    });
    const tails = (): number =>
      world.groups().reduce((sum, group) => sum + group.queues().tailCacheBytes, 0);
    for (let round = 0; round < 40; round++) {
      for (let group = 1; group <= 20; group++) world.write(group, 4 * KiB);
      world.run(1);
      // Each keeps its newest batch.
      expect(tails()).toBeLessThanOrEqual(200 * KiB + 20 * 5 * KiB);
    }
    expect(tails()).toBeGreaterThan(100 * KiB);
    world.run(500);
    expect(tails()).toBe(0);
    expect(world.write(3).outcome).toBe("waits");
    world.run(3);
  });

  test("where all logs together are too long, the longest are cut, whatever the policy", () => {
    const world = new ShardWorld(10, { shardLogBytesMax: 256 * KiB, segmentBytes: 64 * KiB });
    for (let round = 0; round < 300; round++) {
      world.write(1 + (round % 3), 4 * KiB);
      world.run(1);
    }
    world.run(50);
    expect(world.store.liveBytes).toBeLessThan(300 * KiB);
    // Who has little is left alone.
    expect(world.shard.group(9)!.raft.startIndex).toBe(0);
  });

  test("one is written and all others stand still: the log takes no more than twice what is live and some segments", () => {
    const segmentBytes = 64 * KiB;
    const world = new ShardWorld(200, { segmentBytes });
    world.shard.group(1)!.changeCompaction({ entries: 0, bytes: 128 * KiB, tailBytes: 32 * KiB });
    for (let group = 2; group <= 200; group++) world.write(group);
    world.run(2);
    let most = 0;
    for (let round = 0; round < 600; round++) {
      world.write(1, 4 * KiB);
      world.run(1);
      most = Math.max(most, world.store.diskBytes);
    }
    expect(most).toBeLessThan(2 * (world.store.liveBytes + 128 * KiB) + 4 * segmentBytes);
  });
});

describe("one group's trouble is its own", () => {
  /** A machine that takes nothing for as long as it is told to. */
  class Blocked {
    isBlocked = true;
    readonly wrap = (kv: KvMachine): StateMachine =>
      new Proxy(kv, {
        get: (target, name) => {
          if (name === "apply" && this.isBlocked) return () => 0;
          const value: unknown = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
  }

  test("a machine that blocks makes no other group wait, and fills its own log alone", () => {
    const world = new ShardWorld(5, { segmentBytes: 64 * KiB });
    const blocked = new Blocked();
    const limits = { ...world.limits, groupLogBytesMax: 128 * KiB };
    world.add(6, 2, blocked.wrap, limits);
    world.run(40);
    const stuck: Written[] = [];
    for (let round = 0; round < 60; round++) {
      stuck.push(world.write(6, 4 * KiB));
      const others = [1, 2, 3, 4, 5].map((group) => world.write(group));
      world.turn();
      world.sync();
      world.turn();
      expect(count(others, "applied")).toBe(5);
    }
    expect(count(stuck, "waits")).toBeGreaterThan(20);
    expect(count(stuck, "group_log_full")).toBeGreaterThan(20);
    expect(world.shard.group(6)!.stopped).toBeUndefined();
    blocked.isBlocked = false;
    world.run(40);
    expect(count(stuck, "applied") + count(stuck, "group_log_full")).toBe(60);
  });

  test("a removed group answers whoever waits, and nothing of it is left; the others go on", () => {
    const world = new ShardWorld(5);
    world.run(20);
    const written = [1, 2, 3].map((group) => world.write(group));
    world.turn();
    expect(world.shard.remove(2, 10)?.id).toBe(2);
    expect(written[1]!.outcome).toBe("unknown_group");
    expect(world.write(2).outcome).toBe("unknown_group");
    world.sync();
    world.turn();
    world.run(5);
    expect(written.map(({ outcome }) => outcome)).toEqual(["applied", "unknown_group", "applied"]);
    expect(world.store.logBytes(2)).toBe(0);
    expect([...world.store.tombstones]).toEqual([[2, 10]]);
    expect(() => world.add(2, 9)).toThrow("was removed");
    world.add(2, 11);
    world.run(40);
    const again = world.write(2);
    world.run(2);
    expect(again.outcome).toBe("applied");
  });

  test("one that is removed while the disk is full is in nobody's way", () => {
    const world = new ShardWorld(3);
    world.run(20);
    world.disk.bytesMax = world.store.diskBytes;
    const written = [1, 2, 3].map((group) => world.write(group, 1_000));
    world.turn();
    expect(world.shard.diskFull).toBe(true);
    world.shard.remove(2, 10);
    world.disk.bytesMax = Infinity;
    world.run(5);
    expect(written.map(({ outcome }) => outcome)).toEqual(["applied", "unknown_group", "applied"]);
    expect(world.store.logBytes(2)).toBe(0);
  });
});

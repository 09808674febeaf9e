/** Leaders spread over the nodes by themselves, and stay (decision 34, row R-53). */
import { describe, expect, test } from "bun:test";
import type { TimeoutNowMessage } from "../../src/wire/messages.ts";
import { World, type WorldOptions } from "./beats-world.ts";

function balanced(options: WorldOptions): World {
  return new World({ ...options, balances: true });
}

/** All groups led by one node. */
function heaped(options: WorldOptions, leader = 1): World {
  const world = balanced({ ...options, limits: { ...options.limits, balanceRestMs: 1_000_000 } });
  world.leadAll(leader);
  Object.assign(world.limits, { balanceRestMs: 2_000 });
  return world;
}

function seconds(world: World, count: number): void {
  world.tick((count * 1_000) / world.limits.tickMs);
}

function spread(world: World, among = world.led()): number {
  return Math.max(...among) - Math.min(...among);
}

function handedOver(world: World): TimeoutNowMessage[] {
  return world.sent.filter(
    (message): message is TimeoutNowMessage => message.type === "timeoutNow",
  );
}

describe("balance", () => {
  test("one node leads all: soon all lead equally many, and then nothing moves any more", () => {
    const world = heaped({ groups: 60 });
    expect(world.led()).toEqual([60, 0, 0]);
    seconds(world, 25);
    expect(spread(world)).toBeLessThanOrEqual(2);
    expect(world.led().reduce((sum, each) => sum + each)).toBe(60);
    // Each group once, and no more of them than have to.
    const moved = handedOver(world).map(({ group }) => group);
    expect(new Set(moved).size).toBe(moved.length);
    expect(moved.length).toBeLessThanOrEqual(41);
    world.sent = [];
    seconds(world, 60);
    expect(handedOver(world)).toEqual([]);
  });

  test("to both others at once", () => {
    const world = heaped({ groups: 60 });
    seconds(world, 0.6);
    expect(new Set(handedOver(world).map(({ to }) => to))).toEqual(new Set([2, 3]));
  });

  test("some at a time", () => {
    const world = heaped({ groups: 40, limits: { balanceAtOnceMax: 2 } });
    for (let i = 0; i < 50; i++) {
      world.sent = [];
      seconds(world, 0.5);
      expect(handedOver(world).length).toBeLessThanOrEqual(4);
    }
    expect(spread(world)).toBeLessThanOrEqual(2);
  });

  test("a node that comes back gets its share from both others", () => {
    const world = balanced({ groups: 45, seed: 4 });
    world.delivers = ({ from, to }) => from !== 3 && to !== 3;
    seconds(world, 20);
    expect(world.led()[2]).toBe(0);
    world.delivers = () => true;
    world.restart(3);
    world.sent = [];
    seconds(world, 30);
    expect(spread(world)).toBeLessThanOrEqual(2);
    expect(new Set(handedOver(world).map(({ from }) => from))).toEqual(new Set([1, 2]));
    world.sent = [];
    seconds(world, 60);
    expect(handedOver(world)).toEqual([]);
  });

  test("few groups stay where they are", () => {
    const world = heaped({ groups: 2 });
    seconds(world, 30);
    expect(world.led()).toEqual([2, 0, 0]);
  });

  test("groups on other nodes: none goes where it has no replica", () => {
    const world = heaped({
      nodes: 5,
      groups: 40,
      membersOf: (group) => [0, 1, 2].map((at) => ((group + at) % 5) + 1).toSorted(),
    });
    seconds(world, 30);
    expect(spread(world)).toBeLessThanOrEqual(3);
    for (let group = 0; group < 40; group++) expect(world.leaderOf(group)).toBeDefined();
  });

  test("a group that was led for a moment only stays", () => {
    const world = balanced({ groups: 30, limits: { balanceRestMs: 60_000 } }).leadAll(2);
    seconds(world, 20);
    expect(world.led()).toEqual([0, 30, 0]);
  });

  test("nobody who would rather not lead is given a group", () => {
    const world = heaped({ groups: 30 });
    world.node(2).beats.isReluctant = true;
    seconds(world, 30);
    expect(world.led()[1]).toBe(0);
    expect(spread(world, [world.led()[0]!, world.led()[2]!])).toBeLessThanOrEqual(2);
    world.node(2).beats.isReluctant = false;
    seconds(world, 30);
    expect(spread(world)).toBeLessThanOrEqual(2);
  });

  test("to a preferred node nothing is balanced, and nothing from it to others", () => {
    const preferred = heaped({ groups: 30, preferred: [1] });
    seconds(preferred, 20);
    expect(preferred.led()).toEqual([30, 0, 0]);
    const other = heaped({ groups: 30, preferred: [1] }, 2);
    seconds(other, 20);
    expect(other.led()[0]).toBe(0);
    expect(spread(other, other.led().slice(1))).toBeLessThanOrEqual(2);
  });

  test("a node that does not take over is left alone, so that its groups are not without a leader again and again", () => {
    const world = heaped({ groups: 30 });
    for (const replica of world.node(3).groups.values()) replica.declines = true;
    seconds(world, 60);
    expect(world.led()[2]).toBe(0);
    expect(spread(world, world.led().slice(0, 2))).toBeLessThanOrEqual(2);
    // One after the other, and then none for a while.
    const tries = handedOver(world).filter(({ to }) => to === 3);
    expect(new Set(tries.map(({ group }) => group)).size).toBeLessThanOrEqual(8);
  });

  test("a node of which nothing is known gets nothing", () => {
    const world = heaped({ groups: 30, old: [3] });
    seconds(world, 30);
    expect(world.led()[2]).toBe(0);
    expect(spread(world, world.led().slice(0, 2))).toBeLessThanOrEqual(2);
  });
});

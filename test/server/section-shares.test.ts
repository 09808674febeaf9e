/** Whose sections wait: the books are right after any run, and shares are kept. */
import { expect, test } from "bun:test";
import {
  type GroupShare,
  type SectionShare,
  SectionShares,
} from "../../src/server/section-shares.ts";

function connection(): SectionShare {
  return { sectionBytes: 0, groupShares: new Map(), lastGroup: undefined };
}

test("what is added is removed, in any order; nothing is kept of what has gone", () => {
  for (let seed = 1; seed <= 20; seed++) {
    let state = seed;
    const below = (max: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % max;
    };
    const shares = new SectionShares(1_000);
    const connections = [connection(), connection(), connection()];
    const open: { of: SectionShare; share: GroupShare; bytes: number }[] = [];
    for (let step = 0; step < 2_000; step++) {
      if (below(2) === 0) {
        const of = connections[below(3)]!;
        const bytes = 1 + below(50);
        open.push({ of, share: shares.add(of, below(5), bytes), bytes });
      } else if (open.length > 0) {
        const [gone] = open.splice(below(open.length), 1);
        shares.remove(gone!.of, gone!.share, gone!.bytes);
      }
      const sum = open.reduce((all, { bytes }) => all + bytes, 0);
      expect([seed, step, shares.bytes]).toEqual([seed, step, sum]);
      for (const each of connections) {
        const groups = new Set(
          open.filter(({ of }) => of === each).map(({ share }) => share.group),
        );
        // One at most without anything.
        expect(each.groupShares.size - groups.size).toBeWithin(0, 2);
      }
    }
    for (const each of connections) {
      shares.removeAll(each);
      expect([each.sectionBytes, each.groupShares.size]).toEqual([0, 0]);
    }
    expect(shares.bytes).toBe(0);
    // Nobody waits: the first one has all of it.
    const [one] = connections;
    expect(shares.isTooMuch(one!, 1, 2_000)).toBe(false);
  }
});

test("a group below its share has room, whatever its connection has of others", () => {
  const shares = new SectionShares(1_000);
  const [one, two] = [connection(), connection()];
  shares.add(one, 1, 900);
  expect(shares.isTooMuch(one, 1, 200)).toBe(true);
  expect(shares.isAllOf(one, 1)).toBe(true);
  // One that has none yet, and up to its half.
  expect(shares.isTooMuch(one, 2, 200)).toBe(false);
  const second = shares.add(one, 2, 200);
  expect(shares.isAllOf(one, 1)).toBe(false);
  expect(shares.isTooMuch(one, 2, 200)).toBe(false);
  expect(shares.isTooMuch(one, 2, 400)).toBe(true);
  expect(shares.isTooMuch(one, 1, 1)).toBe(true);
  // Another connection has its share in any group.
  expect(shares.isTooMuch(two, 1, 400)).toBe(false);
  shares.remove(one, second, 200);
  expect(shares.hasRoomFor(one)).toBe(false);
  shares.removeAll(one);
  expect(shares.hasRoomFor(one)).toBe(true);
});

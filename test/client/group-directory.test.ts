/** What a client believes of groups, when several nodes tell, some of them late. */
import { expect, test } from "bun:test";
import { GroupDirectory } from "../../src/client/group-directory.ts";
import type { GroupLeader, GroupLeaders } from "../../src/wire/group-leaders.ts";

function says(
  version: number,
  whole: boolean,
  ...groups: readonly (Partial<GroupLeader> & { readonly group: number })[]
): GroupLeaders {
  const all = groups.map((each) => ({ leader: 0, term: 0, members: [], gone: false, ...each }));
  return { type: "groupLeaders", version, whole, groups: all };
}

test("the highest term says who leads, whoever says it and when", () => {
  const directory = new GroupDirectory();
  expect(directory.take(says(5, true, { group: 1, leader: 2, term: 3 }))).toEqual([1]);
  expect(directory.take(says(5, true, { group: 1, leader: 1, term: 2 }))).toEqual([]);
  expect(directory.leaderOf(1)).toBe(2);
  expect(directory.take(says(4, false, { group: 1, leader: 3, term: 4 }))).toEqual([1]);
  expect(directory.leaderOf(1)).toBe(3);
  // That it knows none is no reason to forget the one that led in that term.
  expect(directory.take(says(6, false, { group: 1, leader: 0, term: 9 }))).toEqual([]);
  expect(directory.leaderOf(1)).toBe(3);
});

test("the newest registry says which groups there are and where", () => {
  const directory = new GroupDirectory();
  directory.take(says(10, true, { group: 1, members: [1, 2] }, { group: 2, members: [3] }));
  // One that lags knows neither of the groups, nor that they moved.
  directory.take(says(8, true, { group: 1, members: [4, 5] }, { group: 3, members: [1] }));
  expect(directory.ids).toEqual([1, 2]);
  expect([directory.mayServe(1, 1), directory.mayServe(1, 4)]).toEqual([true, false]);
  expect(directory.take(says(11, false, { group: 1, members: [4, 5] }))).toEqual([1]);
  expect([directory.mayServe(1, 1), directory.mayServe(1, 4)]).toEqual([false, true]);
  // Gone, by a difference or by being left out of all; an older word does not bring it back.
  expect(directory.take(says(12, false, { group: 2, gone: true }))).toEqual([2]);
  expect(directory.take(says(13, true))).toEqual([1]);
  expect(directory.ids).toEqual([]);
  directory.take(says(12, true, { group: 1, members: [4, 5] }));
  expect(directory.isListed(1)).toBe(false);
  // A later group of another id may come.
  directory.take(says(14, false, { group: 9 }));
  expect(directory.ids).toEqual([9]);
});

test("of what nobody has told, any node may have it", () => {
  const directory = new GroupDirectory();
  expect([directory.mayServe(7, 1), directory.isListed(7), directory.leaderOf(7)]).toEqual([
    true,
    false,
    0,
  ]);
  expect([directory.guess(0, 3), directory.guess(0, 2), directory.leaderOf(0)]).toEqual([
    true,
    false,
    3,
  ]);
  expect(directory.led(0, 4, 1)).toBe(true);
  // Group 0 is always there.
  directory.take(says(20, true));
  expect(directory.leaderOf(0)).toBe(1);
});

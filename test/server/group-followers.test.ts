/** Who follows groups is told all of them once, then what changes; and all of it again after not having read. */
import { beforeEach, expect, test } from "bun:test";
import type { Connection } from "../../src/net/connection.ts";
import { type Follower, GroupFollowers } from "../../src/server/group-followers.ts";
import {
  decodeGroupLeaders,
  type FollowGroups,
  type GroupLeader,
  type GroupLeaders,
} from "../../src/wire/group-leaders.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { drain, framesOf } from "../wire/messages.ts";

const leaders = new Map<number, GroupLeader>();
let version: number;
let blocked: Set<Connection>;
let followers: GroupFollowers<Follower>;

beforeEach(() => {
  leaders.clear();
  for (let group = 0; group < 4; group++) lead(group, 1, 1);
  version = 5;
  blocked = new Set();
  followers = new GroupFollowers<Follower>({
    known: () => ({ version, leaderOf: (id) => leaders.get(id), all: () => [...leaders.values()] }),
    hasRoom: (connection) => !blocked.has(connection),
    sent: () => {},
  });
});

function lead(group: number, leader: number, term: number): void {
  leaders.set(group, { group, leader, term, members: [1, 2, 3], gone: false });
}

function follower(): Follower {
  const connection = { out: new SendBuffer() } as unknown as Connection;
  return { connection, follows: undefined, leadersDue: false };
}

const all: FollowGroups = { type: "followGroups", all: true, group: 0 };
const one = (group: number): FollowGroups => ({ type: "followGroups", all: false, group });

function told({ connection }: Follower): GroupLeaders[] {
  return framesOf(drain(connection.out)).map(({ payload, fieldsBytes }) =>
    decodeGroupLeaders(payload, fieldsBytes)!,
  );
}

const ids = ({ groups }: GroupLeaders): number[] => groups.map(({ group }) => group);

test("all of it first, then what changed in a turn, in one message", () => {
  const each = follower();
  followers.follow(each, all);
  const [first] = told(each);
  expect([first!.whole, first!.version, ids(first!)]).toEqual([true, 5, [0, 1, 2, 3]]);
  followers.flush();
  expect(told(each)).toEqual([]);
  lead(1, 2, 2);
  lead(3, 3, 2);
  version = 6;
  leaders.delete(2);
  for (const group of [1, 3, 2, 1]) followers.changed(group);
  followers.flush();
  const [news, ...none] = told(each);
  expect(none).toEqual([]);
  expect([news!.whole, news!.version, ids(news!)]).toEqual([false, 6, [1, 3, 2]]);
  expect(news!.groups.map(({ leader, gone }) => [leader, gone])).toEqual([
    [2, false],
    [3, false],
    [0, true],
  ]);
});

test("who follows one group hears of no other", () => {
  const each = follower();
  followers.follow(each, one(2));
  expect(told(each).map(ids)).toEqual([[2]]);
  lead(1, 2, 2);
  followers.changed(1);
  followers.flush();
  expect(told(each)).toEqual([]);
  lead(2, 3, 2);
  followers.changed(2);
  followers.flush();
  expect(told(each).map(ids)).toEqual([[2]]);
  followers.follow(each, one(99));
  expect(told(each).map(ids)).toEqual([[]]);
  followers.follow(each, all);
  expect(told(each).map(ids)).toEqual([[0, 1, 2, 3]]);
});

test("who does not read has one list in its queue, and gets all of it again", () => {
  const each = follower();
  followers.follow(each, all);
  told(each);
  blocked.add(each.connection);
  for (let turn = 0; turn < 100; turn++) {
    lead(turn % 4, 2, turn + 2);
    followers.changed(turn % 4);
    followers.flush();
  }
  expect(told(each)).toEqual([]);
  expect(each.leadersDue).toBe(true);
  blocked.clear();
  // What changes before it drains is not told by itself.
  followers.changed(1);
  followers.flush();
  expect(told(each)).toEqual([]);
  followers.tellAll(each);
  const [again] = told(each);
  expect([again!.whole, again!.groups.map(({ term }) => term)]).toEqual([true, [98, 99, 100, 101]]);
  followers.forget(each);
  followers.changed(1);
  followers.flush();
  expect(told(each)).toEqual([]);
});

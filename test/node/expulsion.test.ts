/** One member that says that this node is none of them does not end it; a majority does, and so does what its own log leaves to be said. */
import { expect, test } from "bun:test";
import { Expulsion } from "../../src/node/expulsion.ts";
import type { Configuration } from "../../src/raft/ready.ts";

function members(voters: readonly number[], more: Partial<Configuration> = {}): Configuration {
  return { voters, outgoing: [], learners: [], addresses: {}, ...more };
}

function world(configuration: Configuration, contacts: readonly number[] = []) {
  const told: string[] = [];
  const tell = (message: string): void => void told.push(message);
  const options = { nodeId: 3, configuration: () => configuration, contacts, tell };
  return { told, expulsion: new Expulsion(options) };
}

const removed = "member_removed";
const folder = "wrong_incarnation";

test.each([
  ["of three", members([1, 2, 3]), [1, 2]],
  ["of five", members([1, 2, 3, 4, 5]), [1, 2, 5]],
  ["for a learner", members([1, 2, 4], { learners: [3] }), [1, 4]],
  ["for a learner of one voter, who decides alone", members([1], { learners: [3] }), [1]],
  [
    "of both sides of a change that is under way",
    members([1, 4, 5], { outgoing: [1, 2, 3] }),
    [1, 4],
  ],
] as const)("it takes a majority of the voters %s, and all of it", (_, configuration, sayers) => {
  const { expulsion, told } = world(configuration);
  const words = sayers.map((id) => expulsion.said(id, removed, 0));
  expect(words).toEqual(sayers.map((_id, at) => at === sayers.length - 1));
  expect(told).toHaveLength(Math.min(1, sayers.length - 1));
});

test("others than voters, other words and words that were taken back do not count", () => {
  const { expulsion } = world(members([1, 2, 3]));
  expect(expulsion.said(1, removed, 0)).toBe(false);
  expect(expulsion.said(7, removed, 0)).toBe(false);
  expect(expulsion.said(2, folder, 0)).toBe(false);
  expulsion.withdrawn(1);
  expect(expulsion.said(2, removed, 0)).toBe(false);
  expect(expulsion.said(1, removed, 0)).toBe(true);
});

test("of two, one alone never: a change that removed the other is in the other's log", () => {
  const alone = world(members([1, 3])).expulsion;
  expect([alone.said(1, removed, 0), alone.said(1, folder, 0)]).toEqual([false, false]);
  const leaving = world(members([1], { outgoing: [1, 3] })).expulsion;
  expect([leaving.said(1, folder, 0), leaving.said(1, removed, 0)]).toEqual([false, true]);
});

test("a node without a log asks those that it was given", () => {
  const { expulsion } = world(members([]), [1, 2, 4]);
  expect([expulsion.said(2, removed, 0), expulsion.said(1, removed, 0)]).toEqual([false, true]);
  expect(world(members([])).expulsion.said(1, removed, 0)).toBe(false);
});

test("what is not believed is told at once, then ever less often", () => {
  const { expulsion, told } = world(members([1, 2, 3]));
  const toldAt: number[] = [];
  for (let nowMs = 0; nowMs < 3_600_000; nowMs += 500) {
    const before = told.length;
    expulsion.said(2, removed, nowMs);
    if (told.length > before) toldAt.push(nowMs / 1_000);
  }
  expect(toldAt.slice(0, 5)).toEqual([0, 5, 15, 35, 75]);
  expect(toldAt.length).toBeLessThan(20);
  expect(told[0]).toContain("node 2 says that this node was removed");
  expect(expulsion.doubt).toBe(told[0]!);
  expulsion.withdrawn(2);
  expect(expulsion.doubt).toBeUndefined();
});

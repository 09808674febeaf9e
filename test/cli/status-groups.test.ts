/** What `barge status` makes of many groups on several nodes. */
import { expect, test } from "bun:test";
import type { GroupBrief } from "../../src/client/index.ts";
import { choose, linesOf, summaryText, tableOf } from "../../src/cli/status-groups.ts";
import { sizeText } from "../../src/cli/status.ts";

function brief(id: number, more: Partial<GroupBrief> = {}): GroupBrief {
  return {
    id,
    role: "follower",
    leader: 1,
    term: 2,
    commitIndex: 10,
    appliedIndex: 10,
    logBytes: 100,
    stateBytes: 200,
    members: [1, 2, 3],
    ...more,
  };
}

const said = [
  {
    nodeId: 1,
    briefs: [
      brief(1, { role: "leader" }),
      brief(2, { leader: 0, term: 7 }),
      brief(3, { role: "stopped", stateBytes: 5_000 }),
      brief(4, { members: [1, 4, 5], commitIndex: 9_000, appliedIndex: 9_000, leader: 4 }),
      brief(0xffff_ffff, { role: "leader" }),
    ],
  },
  {
    nodeId: 2,
    briefs: [
      // Cut off, in an old term.
      brief(1, { term: 1, leader: 3, commitIndex: 8, appliedIndex: 7 }),
      brief(2, { leader: 2, term: 6, waits: true }),
      brief(3, { wounded: true }),
    ],
  },
  { nodeId: 4, briefs: [brief(4, { members: [1, 4, 5], commitIndex: 9_000, leader: 4 })] },
];

test("the newest term says who leads, the furthest behind how much", () => {
  const lines = linesOf(said, 4_096);
  expect(lines.map(({ id, leader, lag, trouble }) => ({ id, leader, lag, trouble }))).toEqual([
    { id: 1, leader: 1, lag: 3, trouble: [] },
    { id: 2, leader: 0, lag: 0, trouble: ["no-leader", "no-application"] },
    { id: 3, leader: 1, lag: 0, trouble: ["stopped", "wounded", "large"] },
    { id: 4, leader: 4, lag: 8_990, trouble: ["lagging"] },
    { id: 0xffff_ffff, leader: 1, lag: 0, trouble: [] },
  ]);
  expect(summaryText(lines, sizeText)).toBe(
    "4 groups, 5.5 KiB: 1 no-leader, 1 stopped, 1 wounded, 1 no-application, 1 lagging, 1 large",
  );
  expect(summaryText(lines.slice(0, 1), sizeText)).toBe("1 group, 200 B: all well");
  expect(linesOf(said, 0).every(({ trouble }) => !trouble.includes("large"))).toBe(true);
});

test("groups are chosen and sorted", () => {
  const lines = linesOf(said, 4_096);
  const ids = (choice: Partial<Parameters<typeof choose>[1]>): number[] =>
    choose(lines, { sort: "id", limit: 10, ...choice }).map(({ id }) => id);
  expect(ids({})).toEqual([1, 2, 3, 4, 0xffff_ffff]);
  expect(ids({ only: "wounded" })).toEqual([3]);
  expect(ids({ ledBy: 4 })).toEqual([4]);
  expect(ids({ on: 5 })).toEqual([4]);
  expect(ids({ sort: "state" })).toEqual([3, 1, 2, 4, 0xffff_ffff]);
  expect(ids({ sort: "lag" }).slice(0, 2)).toEqual([4, 1]);
  expect(ids({ sort: "commit", on: 1 })[0]).toBe(4);
});

test("a table for people", () => {
  const [one, two, , , system] = linesOf(said, 0);
  const rows = tableOf([one!, two!, system!], sizeText).split("\n");
  expect(rows[0]).toBe(" group  leader  term  members  commit  lag    log  state");
  expect(rows[1]).toBe("     1       1     2  1,2,3        10    3  100 B  200 B");
  expect(rows[2]).toBe(
    "     2    none     7  1,2,3        10    0  100 B  200 B  no-leader, no-application",
  );
  expect(rows[3]).toStartWith("system");
});

/** What a node says of many groups at once, and what of them keeps it from being ready. */
import { expect, test } from "bun:test";
import type { Group } from "../../src/node/group.ts";
import { Overview } from "../../src/node/overview.ts";
import { PacedFigure } from "../../src/node/paced-figure.ts";
import { Readiness } from "../../src/node/readiness.ts";
import type { RegistryView } from "../../src/node/registry-view.ts";
import { type GroupBrief, statusGroups } from "../../src/wire/status.ts";

const system = 0xffff_ffff;

interface FakeGroup {
  id: number;
  leader: number;
  role: string;
  stateBytes: number;
  wound: { index: number } | undefined;
  machine: { absence: { reason: string } | undefined };
  isStopped: boolean;
  toApply: number;
}

function groupsOf(ids: readonly number[]): {
  readonly groups: Map<number, Group>;
  readonly fakes: Map<number, FakeGroup>;
} {
  const groups = new Map<number, Group>();
  const fakes = new Map<number, FakeGroup>();
  for (const id of ids) {
    const fake = {
      id,
      leader: 2,
      role: "follower",
      stateBytes: 100,
      wound: undefined,
      machine: { absence: undefined },
      isStopped: false,
      toApply: 0,
      memberIds: [1, 2, 3],
      get raft() {
        return { term: 4, wound: this.wound };
      },
      brief(): GroupBrief {
        const { leader, role, stateBytes, wound } = this;
        const indexes = { term: 4, commitIndex: 9, appliedIndex: 9, logBytes: 10 };
        const wounded = wound === undefined ? {} : { wounded: true as const };
        return { id, role, leader, ...indexes, stateBytes, members: [1, 2, 3], ...wounded };
      },
      status: () => ({ id }),
    };
    fakes.set(id, fake);
    groups.set(id, fake as unknown as Group);
  }
  return { groups, fakes };
}

const thousand = [system, ...Array.from({ length: 1_000 }, (_, i) => 999 - i)];

function overviewOf(groups: ReadonlyMap<number, Group>, largeBytes = 0): Overview {
  return new Overview({ groups, registry: () => undefined, largeBytes });
}

test("a status has the first groups, or those that are asked for, page after page", () => {
  const overview = overviewOf(groupsOf(thousand).groups);
  const first = overview.status({});
  expect(first.groups.map(({ id }) => id)).toEqual(
    Array.from({ length: statusGroups.usual }, (_, i) => i),
  );
  expect([first.more, first.briefs]).toEqual([true, undefined]);
  expect(overview.status({ groups: [7, 5_000, system] }).groups.map(({ id }) => id)).toEqual([
    7,
    system,
  ]);
  const found: number[] = [];
  for (let after: number | undefined; ;) {
    const { briefs = [], groups, more } = overview.status({ brief: true, after, limit: 300 });
    expect(groups).toEqual([]);
    found.push(...briefs.map(({ id }) => id));
    if (more !== true) break;
    after = found.at(-1);
  }
  expect(found).toEqual(thousand.toSorted((a, b) => a - b));
  expect(overview.status({ limit: 4_096 }).groups.length).toBe(statusGroups.max);
});

test("a summary counts what needs a look; system is the nodes' own", () => {
  const { groups, fakes } = groupsOf(thousand);
  const overview = overviewOf(groups, 1_000);
  for (const id of [3, 4, system]) fakes.get(id)!.role = "leader";
  fakes.get(5)!.leader = 0;
  Object.assign(fakes.get(6)!, { role: "stopped", leader: 0 });
  fakes.get(7)!.wound = { index: 3 };
  fakes.get(8)!.stateBytes = 2_000;
  expect(overview.summary()).toEqual({
    total: 1_000,
    leads: 2,
    leaderless: 1,
    stopped: 1,
    wounded: 1,
    large: 1,
    logBytes: 10_010,
    stateBytes: 102_000,
    suspects: [5, 6, 7, 8],
  });
});

test("a group that becomes large is told once, and again after it was smaller", () => {
  const { groups, fakes } = groupsOf([0, 1]);
  const overview = overviewOf(groups, 1_000);
  const told = (bytes: number): number[] => {
    fakes.get(1)!.stateBytes = bytes;
    return overview.newlyLarge().map(({ id }) => id);
  };
  expect([500, 1_001, 999, 1_001, 2_000, 899, 1_500].map(told)).toEqual([
    [],
    [1],
    [],
    [],
    [],
    [],
    [1],
  ]);
  expect(overviewOf(groups).newlyLarge()).toEqual([]);
});

test("who leads what: also of groups that are elsewhere", () => {
  const { groups } = groupsOf([0, 7]);
  const entries = new Map([
    [7, { entry: { members: [{ id: 1 }, { id: 4 }] } }],
    [8, { entry: { members: [{ id: 5 }, { id: 6 }] } }],
  ]);
  const view = { index: 12, groups: entries, group: (id: number) => entries.get(id) };
  const registry = (): RegistryView => view as unknown as RegistryView;
  const overview = new Overview({ groups, registry, largeBytes: 0 });
  expect(overview.version).toBe(12);
  expect(overview.all()).toEqual([
    { group: 0, leader: 2, term: 4, members: [1, 2, 3], gone: false },
    { group: 7, leader: 2, term: 4, members: [1, 4], gone: false },
    { group: 8, leader: 0, term: 0, members: [5, 6], gone: false },
  ]);
  expect(overview.leaderOf(9)).toBeUndefined();
});

test("a node is not ready before all groups are, for a while; later only group 0 counts", () => {
  const { groups, fakes } = groupsOf([0, 1, 2]);
  const connected = new Set([2]);
  const options = {
    nodeId: 1,
    groups,
    connected: (id: number) => connected.has(id),
    woundText: ({ id }: Group) => `group ${id} is wounded`,
  };
  const readiness = new Readiness(options, 0);
  expect(readiness.missing(10)).toEqual([]);
  fakes.get(1)!.leader = 0;
  fakes.get(2)!.toApply = 5;
  expect(readiness.missing(10)).toEqual([
    "group 1 has no leader",
    "group 2 has 5 committed commands to apply",
  ]);
  // One that has lost its majority for good does not keep the node away for good.
  expect(readiness.missing(60_000)).toEqual([]);
  readiness.ready();
  expect(readiness.missing(10)).toEqual([]);
  fakes.get(0)!.wound = { index: 1 };
  connected.clear();
  expect(readiness.missing(20)).toEqual([
    "group 0 is wounded",
    "group 0: no connection to its leader, node 2",
  ]);
});

test("of one group alone, whichever it is; with the application that it waits for", () => {
  const { groups, fakes } = groupsOf([0, 1]);
  const readiness = new Readiness(
    { nodeId: 1, groups, connected: () => true, woundText: () => "" },
    0,
  );
  readiness.ready();
  fakes.get(0)!.leader = 0;
  fakes.get(1)!.machine.absence = { reason: "nobody answers there" };
  expect(readiness.missing(60_000, 0)).toEqual(["group 0 has no leader"]);
  expect(readiness.missing(60_000, 1)).toEqual([
    "group 1 waits for its application: nobody answers there",
  ]);
  expect(readiness.missing(60_000, 2)).toEqual(["this node has no group 2"]);
});

test("what is missing is bounded, however many groups there are", () => {
  const { groups, fakes } = groupsOf(thousand);
  for (const fake of fakes.values()) fake.leader = 0;
  const readiness = new Readiness(
    { nodeId: 1, groups, connected: () => true, woundText: () => "" },
    0,
  );
  const missing = readiness.missing(1);
  expect(missing.length).toBe(11);
  expect(missing.at(-1)).toBe("and 991 groups more");
});

test("a figure that takes long is looked for seldom", () => {
  let looks = 0;
  const figure = new PacedFigure(() => {
    const untilMs = performance.now() + 2;
    while (performance.now() < untilMs);
    return ++looks;
  });
  const nowMs = performance.now();
  expect([0, 1, 50, 150].map((ms) => figure.value(nowMs + ms))).toEqual([1, 1, 1, 1]);
  expect(figure.value(nowMs + 60_000)).toBe(2);
});

/** What changes of the members come to (src/raft/membership.ts): from one configuration to the next, without any node. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  decodeConfiguration,
  encodeConfiguration,
  removedMax,
} from "../../src/raft/configuration.ts";
import {
  follows,
  leaveJoint,
  planChange,
  promoteLearners,
  votersMax,
} from "../../src/raft/membership.ts";
import type { ChangePlan, MemberChange } from "../../src/raft/membership.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { configurationOf } from "./harness.ts";

const three = configurationOf([1, 2, 3]);
const at = (id: number): string => `node-${id}:9091`;
const add = (id: number, learner = false): MemberChange => ({
  op: "add",
  id,
  address: at(id),
  learner,
});
const replace = (id: number, by: number): MemberChange => ({
  op: "replace",
  id,
  by,
  address: at(by),
});

/** `1 2 3 | 4>0 5 | -6 | was 1 2`: voters, learners with the place that each is to take, removed, outgoing. */
function shown(plan: ChangePlan | Configuration): string {
  if ("unchanged" in plan) return "unchanged";
  if ("refused" in plan) return plan.refused;
  const {
    voters,
    learners,
    outgoing,
    promotions = {},
    removed = [],
  } = "next" in plan ? plan.next : plan;
  const learnersShown = learners.map((id) => (id in promotions ? `${id}>${promotions[id]}` : id));
  const parts = [voters.join(" "), learnersShown.join(" "), removed.map((id) => -id).join(" ")];
  if (outgoing.length > 0) parts.push(`was ${outgoing.join(" ")}`);
  return parts.join(" | ");
}

function next(current: Configuration, ...changes: MemberChange[]): Configuration {
  const plan = planChange(current, changes);
  if (!("next" in plan)) throw new Error(shown(plan));
  return plan.next;
}

describe("one change", () => {
  const cases: [string, Configuration, MemberChange[], string][] = [
    ["a new member is a learner that is promised its vote", three, [add(4)], "1 2 3 | 4>0 | "],
    ["or stays a learner", three, [add(4, true)], "1 2 3 | 4 | "],
    [
      "a learner is promised its vote",
      configurationOf([1], [2]),
      [{ op: "promote", id: 2 }],
      "1 | 2>0 | ",
    ],
    ["a voter leaves by a joint state", three, [{ op: "remove", id: 3 }], "1 2 |  |  | was 1 2 3"],
    [
      "so does the leader, whoever that is",
      three,
      [{ op: "remove", id: 1 }],
      "2 3 |  |  | was 1 2 3",
    ],
    [
      "an address changes in one step",
      three,
      [{ op: "move", id: 2, address: "new:1" }],
      "1 2 3 |  | ",
    ],
    ["a learner leaves at once", configurationOf([1], [2]), [{ op: "remove", id: 2 }], "1 |  | -2"],
    [
      "a voter becomes a learner by a joint state",
      three,
      [{ op: "demote", id: 3 }],
      "1 2 | 3 |  | was 1 2 3",
    ],
    ["a place is kept until it can be taken", three, [replace(3, 4)], "1 2 3 | 4>3 | "],
    ["a learner is replaced at once", configurationOf([1], [2]), [replace(2, 3)], "1 | 3 | -2"],
    [
      "a learner takes a voter's place",
      configurationOf([1, 2], [3]),
      [replace(2, 3)],
      "1 2 | 3>2 | ",
    ],
    [
      "several take effect together",
      three,
      [{ op: "remove", id: 1 }, { op: "demote", id: 2 }, add(4), add(5, true)],
      "3 | 2 4>0 5 |  | was 1 2 3",
    ],
  ];
  for (const [name, current, changes, expected] of cases)
    test(name, () => expect(shown(planChange(current, changes))).toBe(expected));

  test("of a promise: it can be taken back by a demotion, and ends with the place that it was for", () => {
    const promised = next(three, replace(3, 4));
    expect(shown(next(promised, { op: "demote", id: 4 }))).toBe("1 2 3 | 4 | ");
    expect(shown(next(promised, { op: "remove", id: 3 }))).toBe("1 2 | 4>0 |  | was 1 2 3");
    expect(shown(next(promised, { op: "remove", id: 4 }))).toBe("1 2 3 |  | -4");
  });
});

test("who moves is at the new address alone, in whatever role", () => {
  const move: MemberChange = { op: "move", id: 2, address: "new:1" };
  for (const current of [three, configurationOf([1, 3], [2])]) {
    expect(next(current, move)).toEqual({
      ...current,
      addresses: { ...current.addresses, 2: "new:1" },
    });
  }
  // Its former address is another's to take.
  const freed = next(three, move, {
    op: "add",
    id: 4,
    address: three.addresses[2]!,
    learner: true,
  });
  expect(freed.addresses[4]).toBe(three.addresses[2]!);
});

test("who replaces a member may have its address: the machine is new, its name is not", () => {
  const sameName: MemberChange = { op: "replace", id: 3, by: 4, address: three.addresses[3]! };
  const promised = next(three, sameName);
  expect(shown(promised)).toBe("1 2 3 | 4>3 | ");
  expect(promised.addresses[4]).toBe(three.addresses[3]!);
  for (const again of [sameName, { ...sameName, op: "add" as const, id: 4, learner: false }])
    expect(shown(planChange(promised, [again]))).toBe("unchanged");
  const done = leaveJoint(promoteLearners(promised, [4]));
  expect([shown(done), done.addresses[4]]).toEqual(["1 2 4 |  | -3", three.addresses[3]!]);
  const learner = next(configurationOf([1, 2], [3]), sameName);
  expect([shown(learner), learner.addresses[4]]).toEqual(["1 2 | 4 | -3", three.addresses[3]!]);
  // The name of yet another member it may not have.
  const other: MemberChange = { ...sameName, address: three.addresses[2]! };
  expect(shown(planChange(three, [other]))).toBe("member_exists");
});

describe("what follows by itself", () => {
  test("a joint state is left for its incoming voters; who is in no role any more is remembered, without address", () => {
    const joint = next(three, { op: "remove", id: 1 }, { op: "demote", id: 2 });
    expect(shown(joint)).toBe("3 | 2 |  | was 1 2 3");
    expect(joint.addresses).toEqual({ 1: at(1), 2: at(2), 3: at(3) });
    const left = leaveJoint(joint);
    expect(shown(left)).toBe("3 | 2 | -1");
    expect(left.addresses).toEqual({ 2: at(2), 3: at(3) });
  });

  test("a learner that is replaced and caught up at the same moment goes (seed 131404)", () => {
    const replaced = next(configurationOf([1, 2, 3, 5]), replace(5, 4));
    const demoted = leaveJoint(next(replaced, { op: "demote", id: 5 }));
    const both = next(demoted, { op: "promote", id: 5 });
    expect(shown(both)).toBe("1 2 3 | 4>5 5>0 | ");
    for (const ids of [
      [4, 5],
      [5, 4],
    ]) {
      const joint = promoteLearners(both, ids);
      expect(decodeConfiguration(encodeConfiguration(joint))).toEqual(joint);
      expect(shown(leaveJoint(joint))).toBe("1 2 3 4 |  | -5");
    }
  });

  test("learners become voters, and those whose places they take go", () => {
    const promised = next(three, replace(3, 4), add(5), add(6));
    const joint = promoteLearners(promised, [4, 5]);
    expect(shown(joint)).toBe("1 2 4 5 | 6>0 |  | was 1 2 3");
    expect(shown(leaveJoint(joint))).toBe("1 2 4 5 | 6>0 | -3");
  });

  test("a place may have become free, or its holder a learner, meanwhile", () => {
    const promised = next(three, replace(3, 4));
    const demoted = leaveJoint(next(promised, { op: "demote", id: 3 }));
    expect(shown(demoted)).toBe("1 2 | 3 4>3 | ");
    expect(shown(leaveJoint(promoteLearners(demoted, [4])))).toBe("1 2 4 |  | -3");
  });
});

describe("asked again", () => {
  const cases: [string, Configuration, MemberChange[]][] = [
    ["a member that is there", three, [add(3)]],
    ["a learner that is there", configurationOf([1], [2]), [add(2, true)]],
    ["a learner that is promised its vote", next(three, add(4)), [add(4)]],
    ["one that was to stay a learner, and is promised more", next(three, add(4)), [add(4, true)]],
    ["a promise to a voter", three, [{ op: "promote", id: 1 }]],
    ["a demotion of a learner", configurationOf([1], [2]), [{ op: "demote", id: 2 }]],
    ["a replacement that is promised", next(three, replace(3, 4)), [replace(3, 4)]],
    [
      "a replacement that is done",
      leaveJoint(promoteLearners(next(three, replace(3, 4)), [4])),
      [replace(3, 4)],
    ],
    ["a move that is done", three, [{ op: "move", id: 2, address: three.addresses[2]! }]],
    [
      "a removal that is done",
      leaveJoint(next(three, { op: "remove", id: 3 })),
      [{ op: "remove", id: 3 }],
    ],
  ];
  for (const [name, current, changes] of cases)
    test(name, () => expect(shown(planChange(current, changes))).toBe("unchanged"));
});

test("with as many former members as can be remembered nobody is added any more; who is there can still go, and the log stays readable", () => {
  const removed = Array.from({ length: removedMax - 3 }, (_, i) => 10 + i);
  const full: Configuration = { ...three, removed };
  for (const change of [add(4), add(4, true), replace(3, 4)])
    expect(shown(planChange(full, [change]))).toBe("bad_request");
  const gone: MemberChange[] = [
    { op: "remove", id: 2 },
    { op: "remove", id: 3 },
  ];
  const last = leaveJoint(next(full, ...gone));
  expect(last.removed).toHaveLength(removedMax - 1);
  expect(decodeConfiguration(encodeConfiguration(last))?.voters).toEqual([1]);
  const before: Configuration = { ...three, removed: removed.slice(1) };
  const replaced = leaveJoint(promoteLearners(next(before, replace(3, 4)), [4]));
  expect(decodeConfiguration(encodeConfiguration(replaced))?.voters).toEqual([1, 2, 4]);
});

describe("refused", () => {
  const joint = next(three, { op: "remove", id: 3 });
  const removed = leaveJoint(joint);
  const bound = next(three, {
    ...add(4),
    op: "add",
    address: at(4),
    learner: true,
    incarnation: "a",
  });
  const cases: [string, Configuration, MemberChange[], string][] = [
    ["nothing", three, [], "bad_request"],
    ["anything during a joint state", joint, [add(4)], "change_in_progress"],
    ["an id that was given up", removed, [add(3)], "member_removed"],
    ["to replace by an id that was given up", removed, [replace(2, 3)], "member_removed"],
    [
      "the address of another",
      three,
      [{ op: "add", id: 4, address: at(3), learner: false }],
      "member_exists",
    ],
    [
      "another address of a member",
      three,
      [{ op: "add", id: 3, address: "x:1", learner: false }],
      "member_exists",
    ],
    ["a voter as a learner", three, [add(3, true)], "member_exists"],
    [
      "a member with another data folder",
      bound,
      [{ op: "add", id: 4, address: at(4), learner: true, incarnation: "b" }],
      "member_exists",
    ],
    ["a node in its own place", three, [replace(3, 3)], "bad_request"],
    ["a voter in another's place", three, [replace(3, 2)], "member_exists"],
    ["two places for one", next(three, replace(3, 4)), [replace(2, 4)], "member_exists"],
    [
      "to move to the address of another",
      three,
      [{ op: "move", id: 2, address: three.addresses[3]! }],
      "member_exists",
    ],
    ["to move to nowhere", three, [{ op: "move", id: 2, address: "" }], "bad_request"],
    ["to move a stranger", three, [{ op: "move", id: 9, address: "x:1" }], "unknown_member"],
    ["to remove a stranger", three, [{ op: "remove", id: 9 }], "unknown_member"],
    ["to promote a stranger", three, [{ op: "promote", id: 9 }], "unknown_member"],
    ["to demote a stranger", three, [{ op: "demote", id: 9 }], "unknown_member"],
    ["to replace a stranger", three, [replace(9, 4)], "unknown_member"],
    [
      "to remove the last voter",
      configurationOf([1], [2]),
      [{ op: "remove", id: 1 }],
      "bad_request",
    ],
    ["to demote the last voter", configurationOf([1]), [{ op: "demote", id: 1 }], "bad_request"],
    ["to remove and add at once", three, [{ op: "remove", id: 3 }, add(3)], "bad_request"],
    [
      "to demote and promote at once",
      three,
      [
        { op: "demote", id: 3 },
        { op: "promote", id: 3 },
      ],
      "bad_request",
    ],
    ["id 0", three, [add(0)], "bad_request"],
    ["an id that is none", three, [add(1.5)], "bad_request"],
    ["the reserved id", three, [add(0xffff_ffff)], "bad_request"],
    ["no address", three, [{ op: "add", id: 4, address: "", learner: false }], "bad_request"],
    [
      "more voters than are good",
      configurationOf(Array.from({ length: votersMax }, (_, id) => id + 1)),
      [add(100)],
      "bad_request",
    ],
  ];
  for (const [name, current, changes, expected] of cases) {
    test(name, () => {
      const plan = planChange(current, changes);
      expect(shown(plan)).toBe(expected);
      if ("message" in plan) expect(plan.message).toMatch(/\w+.*\.$/);
    });
  }
});

test("any walk of changes goes by configurations that may follow one another, are encodable, and bring nobody back", () => {
  const id = fc.integer({ min: 1, max: 8 });
  const change: fc.Arbitrary<MemberChange> = fc.oneof(
    fc.tuple(id, fc.boolean()).map(([one, learner]) => add(one, learner)),
    fc.tuple(id, id).map(([one, by]) => replace(one, by)),
    fc
      .tuple(fc.constantFrom("promote" as const, "demote" as const, "remove" as const), id)
      .map(([op, one]) => ({ op, id: one })),
  );
  const step = fc.oneof(
    fc.array(change, { minLength: 1, maxLength: 3 }),
    fc.constant("promote caught up" as const),
  );
  let joints = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 20 }), (steps) => {
      let current = three;
      const gone = new Set<number>();
      for (const one of steps) {
        let after: Configuration | undefined;
        if (one === "promote caught up") {
          const promised = Object.keys(current.promotions ?? {}).map(Number);
          if (promised.length > 0) after = promoteLearners(current, promised);
        } else {
          const plan = planChange(current, one);
          if ("next" in plan) after = plan.next;
        }
        if (after === undefined) continue;
        for (const following of after.outgoing.length > 0 ? [after, leaveJoint(after)] : [after]) {
          joints += following.outgoing.length > 0 ? 1 : 0;
          expect(follows(current, following)).toBe(true);
          expect(decodeConfiguration(encodeConfiguration(following))).toEqual(following);
          current = following;
        }
        for (const member of [...current.voters, ...current.learners])
          expect(gone.has(member)).toBe(false);
        for (const former of current.removed ?? []) gone.add(former);
        expect(new Set(current.removed)).toEqual(gone);
      }
    }),
    { numRuns: 500, seed: 1 },
  );
  expect(joints).toBeGreaterThan(300);
});

test("voters change only into a joint state and out of it", () => {
  const joint = configurationOf([2, 3], [], [1, 2, 3]);
  expect(follows(three, configurationOf([2, 3]))).toBe(false);
  expect(follows(three, configurationOf([1, 2, 3, 4]))).toBe(false);
  expect(follows(three, joint)).toBe(true);
  expect(follows(joint, configurationOf([2, 3]))).toBe(true);
  expect(follows(joint, three)).toBe(false);
  expect(follows(joint, configurationOf([2], [], [2, 3]))).toBe(false);
  expect(follows(three, configurationOf([2, 3], [], [1, 2]))).toBe(false);
});

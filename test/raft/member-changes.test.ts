/** Members that come and go (§6 of the paper, 4 of the dissertation; correctness.md part M): cores that talk to each other, and disks that they keep. */
import { describe, expect, test } from "bun:test";
import { InvariantError } from "../../src/raft/invariants.ts";
import type { ChangePlan, MemberChange } from "../../src/raft/membership.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import type { AppendReplyMessage } from "../../src/wire/messages.ts";
import {
  TestCluster,
  TestNode,
  configurationOf,
  group,
  sealConfiguration,
  seedCrc,
  testLimits,
} from "./harness.ts";

const { electionTicksMin, electionTicksMax, checkQuorumTicks, heartbeatTicks } = testLimits;
const nothing: Configuration = { voters: [], outgoing: [], learners: [], addresses: {} };

const add = (id: number, learner = false): MemberChange => ({
  op: "add",
  id,
  address: `node-${id}:9091`,
  learner,
});
const remove = (id: number): MemberChange => ({ op: "remove", id });

/** Nodes 1 to `count` as voters, which finish their changes, under node 1. */
function led(count: number): TestCluster {
  const cluster = TestCluster.of(count);
  for (const node of cluster.nodes.values()) node.autoConfigure = true;
  cluster.elect(1);
  cluster.settle();
  return cluster;
}

/** A node with an empty disk, which knows nobody. */
function join(cluster: TestCluster, id: number): TestNode {
  const node = new TestNode({ id, configuration: nothing });
  node.autoConfigure = true;
  cluster.nodes.set(id, node);
  return node;
}

function change(leader: TestNode, changes: readonly MemberChange[], force = false): ChangePlan {
  const plan = leader.raft.planChange(changes, force);
  if ("next" in plan) leader.proposeConfiguration(plan.next);
  return plan;
}

/** The change must not be refused. */
function changed(cluster: TestCluster, leader: TestNode, ...changes: MemberChange[]): void {
  expect(change(leader, changes)).toHaveProperty("next");
  cluster.settle();
}

const refusalOf = (plan: ChangePlan): string | undefined =>
  "refused" in plan ? plan.refused : undefined;

/** `1 2 3 | 4`: voters and learners, as this node has them in force. */
function membersAt(node: TestNode): string {
  const { voters, learners, outgoing } = node.raft.configuration;
  const was = outgoing.length > 0 ? ` was ${outgoing.join(" ")}` : "";
  return `${voters.join(" ")} |${learners.map((id) => ` ${id}`).join("")}${was}`;
}

describe("a new member", () => {
  test("is a learner, gets the log, and votes once it has been caught up for two election time-outs", () => {
    const cluster = led(3);
    const leader = cluster.node(1);
    leader.propose(10);
    const joiner = join(cluster, 4);
    changed(cluster, leader, add(4));
    expect(membersAt(joiner)).toBe("1 2 3 | 4");
    cluster.tick(2 * electionTicksMax - 1);
    expect(membersAt(leader)).toBe("1 2 3 | 4");
    cluster.tick(heartbeatTicks + 2);
    expect([1, 2, 3, 4].map((id) => membersAt(cluster.node(id)))).toEqual(
      Array.from({ length: 4 }, () => "1 2 3 4 |"),
    );
    expect(leader.raft.configurationCommitted).toBe(true);
    expect(joiner.commit).toBe(leader.commit);
  });

  test("may be one that has left and did not know it: it gets the log as any other", () => {
    const cluster = led(4);
    const leader = cluster.node(1);
    const returning = cluster.node(4);
    cluster.isolate(4);
    changed(cluster, leader, remove(4));
    const address = "node-4:9091";
    changed(cluster, leader, { op: "add", id: 4, address, learner: false, returns: true });
    cluster.tick(6 * electionTicksMax);
    cluster.heal();
    cluster.tick(2 * checkQuorumTicks);
    expect(returning.commit).toBe(leader.commit);
    expect(leader.raft.progress().map(({ id }) => id)).toEqual([2, 3, 4]);
  });

  test("is never counted as a learner: the voters alone commit, and elect", () => {
    const cluster = led(3);
    const leader = cluster.node(1);
    join(cluster, 4);
    join(cluster, 5);
    changed(cluster, leader, add(4, true), add(5, true));
    cluster.isolate(1, 4, 5);
    const { commit } = leader;
    leader.propose();
    cluster.settle();
    expect(
      leader.raft.progress().map(({ id, match }) => [id, match === leader.raft.lastIndex]),
    ).toEqual([2, 3, 4, 5].map((id) => [id, id > 3]));
    expect(leader.commit).toBe(commit);
    cluster.tick(checkQuorumTicks + 1);
    expect(leader.raft.role).not.toBe("leader");
    cluster.tick(5 * electionTicksMax);
    expect([2, 3]).toContain(cluster.leader!.id);
  });

  test("that stays a learner is not promoted; promised it, it is", () => {
    const cluster = led(3);
    join(cluster, 4);
    changed(cluster, cluster.node(1), add(4, true));
    cluster.tick(10 * electionTicksMax);
    expect(membersAt(cluster.node(1))).toBe("1 2 3 | 4");
    changed(cluster, cluster.node(1), { op: "promote", id: 4 });
    cluster.tick(3 * electionTicksMax);
    expect(membersAt(cluster.node(1))).toBe("1 2 3 4 |");
  });

  test("that is down, or behind by more than a window, waits", () => {
    const cluster = led(1);
    const leader = cluster.node(1);
    changed(cluster, leader, add(2));
    cluster.tick(10 * electionTicksMax);
    expect(membersAt(leader)).toBe("1 | 2");

    const joiner = join(cluster, 2);
    cluster.tick(electionTicksMax);
    cluster.delivers = ({ type }) => type !== "append";
    leader.propose(1, "x".repeat(testLimits.inflightBytesMax));
    cluster.tick(10 * electionTicksMax);
    expect(membersAt(leader)).toBe("1 | 2");
    expect(joiner.raft.lastIndex).toBeLessThan(leader.raft.lastIndex);
    cluster.heal();
    cluster.tick(3 * electionTicksMax);
    expect(membersAt(joiner)).toBe("1 2 |");
  });

  test("is promoted by the next leader too", () => {
    const cluster = led(3);
    join(cluster, 4);
    changed(cluster, cluster.node(1), add(4));
    cluster.tick(electionTicksMax);
    cluster.node(1).restart();
    cluster.elect(2);
    cluster.tick(3 * electionTicksMax);
    expect(membersAt(cluster.node(2))).toBe("1 2 3 4 |");
  });

  test("is not promoted before it has something of the leader's own term, however little it lacks", () => {
    const cluster = led(3);
    const joiner = join(cluster, 4);
    changed(cluster, cluster.node(1), add(4));
    cluster.tick(electionTicksMax);
    cluster.isolate(4);
    cluster.node(1).propose(1, "x".repeat(testLimits.appendBytesMax));
    cluster.settle();
    cluster.node(1).restart();
    // It gets what is left of the first term, as one append, and nothing of the second.
    cluster.delivers = (message) =>
      message.type !== "append" ||
      message.to !== 4 ||
      message.prevIndex > joiner.raft.lastIndex ||
      message.batches.every((batch) => batch.term === 1);
    const leader = cluster.elect(2);
    cluster.tick(10 * electionTicksMax);
    const { match, active } = leader.raft.progress().find(({ id }) => id === 4)!;
    expect([leader.raft.lastIndex - match, active]).toEqual([1, true]);
    expect(membersAt(leader)).toBe("1 2 3 | 4");
    cluster.heal();
    cluster.tick(3 * electionTicksMax);
    expect(membersAt(leader)).toBe("1 2 3 4 |");
  });

  test("has no vote to give before it knows any member: under its id another disk may have voted [36]", () => {
    const joiner = new TestNode({ id: 3, configuration: nothing });
    const vote = { group, from: 2, to: 3, term: 2, lastIndex: 5, lastTerm: 1, transfer: false };
    joiner.raft.step({ ...vote, type: "preVote" });
    joiner.raft.step({ ...vote, type: "vote" });
    const messages = joiner.turn()!.messages;
    expect(messages.map((message) => "granted" in message && message.granted)).toEqual([
      false,
      false,
    ]);
    expect(joiner.raft.votedFor).toBe(0);
  });

  test("that was promoted and does not know it yet votes all the same", () => {
    const cluster = led(3);
    join(cluster, 4);
    changed(cluster, cluster.node(1), add(4));
    // From here on it hears nothing of the log: it is promoted, and 2 and 3 know.
    cluster.tick(2 * electionTicksMax - 1);
    cluster.delivers = ({ to, type }) => to !== 4 || type !== "append";
    cluster.tick(heartbeatTicks + 2);
    expect(membersAt(cluster.node(4))).toBe("1 2 3 | 4");
    expect(membersAt(cluster.node(2))).toContain("1 2 3 4 |");
    // Two of four are gone, and it is needed.
    cluster.delivers = ({ from, to, type }) =>
      from !== 1 && to !== 1 && (to !== 4 || type !== "append");
    cluster.tick(5 * electionTicksMax);
    expect([2, 3]).toContain(cluster.leader!.id);
  });
});

describe("a joint state", () => {
  test("needs both majorities, and ends by itself", () => {
    const cluster = led(5);
    const leader = cluster.node(1);
    // Of the three that stay, only the leader is left.
    cluster.isolate(2, 3);
    change(leader, [remove(4), remove(5)], true);
    cluster.settle();
    leader.propose();
    cluster.settle();
    expect(membersAt(leader)).toBe("1 2 3 | was 1 2 3 4 5");
    expect(leader.raft.configurationCommitted).toBe(false);
    cluster.heal();
    cluster.tick(2 * electionTicksMin);
    expect(membersAt(leader)).toBe("1 2 3 |");
    expect(leader.raft.configurationCommitted).toBe(true);
    expect(leader.raft.configuration.removed).toEqual([4, 5]);
  });

  test("the old majority alone does not do it", () => {
    const cluster = led(3);
    for (const id of [4, 5]) join(cluster, id);
    const leader = cluster.node(1);
    changed(cluster, leader, add(4), add(5), remove(2), remove(3));
    expect(membersAt(leader)).toBe("1 | 4 5");
    cluster.tick(2 * electionTicksMax - 1);
    cluster.isolate(4, 5);
    cluster.tick(heartbeatTicks + 2);
    expect(membersAt(leader)).toBe("1 4 5 | was 1");
    expect(leader.raft.configurationCommitted).toBe(false);
  });

  test("left by a dead leader is finished by the next, committed or not", () => {
    for (const committed of [true, false]) {
      const cluster = led(3);
      const leader = cluster.node(1);
      leader.autoConfigure = false;
      // Node 2 has it; node 3, which is to leave, only where it is to be committed... the leader has it in any case.
      if (!committed) cluster.delivers = ({ from, to }) => from === to || (to !== 1 && to !== 3);
      change(leader, [remove(3)]);
      cluster.settle();
      expect(leader.raft.configurationCommitted).toBe(committed);
      expect(membersAt(cluster.node(2))).toBe("1 2 | was 1 2 3");
      cluster.heal();
      cluster.isolate(1);
      leader.restart();
      // Of the old {1, 2, 3}, 2 and 3 are there; of the new {1, 2}, 2 alone: nobody can lead.
      cluster.tick(5 * electionTicksMax);
      expect(cluster.leader).toBeUndefined();
      cluster.heal();
      cluster.elect(2);
      cluster.tick(electionTicksMax);
      expect(membersAt(cluster.node(2))).toBe("1 2 |");
      expect(membersAt(cluster.node(1))).toBe("1 2 |");
    }
  });

  test("that only a dead leader had is taken back with its batch", () => {
    const cluster = led(3);
    cluster.isolate(1);
    change(cluster.node(1), [remove(3)]);
    cluster.settle();
    expect(membersAt(cluster.node(1))).toBe("1 2 | was 1 2 3");
    cluster.tick(5 * electionTicksMax);
    expect([2, 3]).toContain(cluster.leader!.id);
    cluster.heal();
    cluster.tick(electionTicksMax);
    expect(membersAt(cluster.node(1))).toBe("1 2 3 |");
    changed(cluster, cluster.leader!, remove(1));
    expect(membersAt(cluster.leader!)).toBe("2 3 |");
  });
});

describe("a removed member", () => {
  test("is told, says so, and does not campaign", () => {
    const cluster = led(3);
    changed(cluster, cluster.node(1), remove(3));
    cluster.tick(2 * heartbeatTicks);
    expect(membersAt(cluster.node(3))).toBe("1 2 |");
    expect(cluster.node(3).raft.removed).toBe(true);
    const { term } = cluster.node(1).raft;
    cluster.sent = [];
    cluster.tick(10 * electionTicksMax);
    expect(cluster.sent.filter(({ from, to }) => from === 3 || to === 3)).toEqual([]);
    expect(cluster.node(1).raft).toMatchObject({ role: "leader", term });
  });

  test("that did not hear of it disturbs nobody, and learns it when it asks", () => {
    const cluster = led(4);
    cluster.isolate(4);
    changed(cluster, cluster.node(1), remove(4));
    // So long that nobody tries to tell it any more.
    cluster.tick(10 * electionTicksMax);
    expect(membersAt(cluster.node(4))).toBe("1 2 3 4 |");
    const { term } = cluster.node(1).raft;
    cluster.heal();
    cluster.tick(5 * electionTicksMax);
    expect(cluster.node(1).raft).toMatchObject({ role: "leader", term });
    expect(cluster.node(4).raft).toMatchObject({ removed: true, role: "follower" });
    cluster.sent = [];
    cluster.tick(10 * electionTicksMax);
    expect(cluster.sent.filter(({ from }) => from === 4)).toEqual([]);
  });

  test("gets no vote, even from nodes that hear no leader", () => {
    const cluster = led(4);
    cluster.isolate(4);
    changed(cluster, cluster.node(1), remove(4));
    cluster.tick(heartbeatTicks);
    const node = cluster.node(2);
    for (let ticks = 0; ticks < electionTicksMin; ticks++) node.raft.tick();
    node.turn();
    node.raft.step({
      type: "preVote",
      group,
      from: 4,
      to: 2,
      term: 9,
      lastIndex: 100,
      lastTerm: 8,
      transfer: false,
    });
    expect(node.turn()!.messages).toMatchObject([{ type: "preVoteReply", granted: false }]);
  });

  test("that leads goes on until it is committed, without counting itself, and hands over", () => {
    const cluster = led(3);
    const leader = cluster.node(1);
    leader.autoConfigure = false;
    changed(cluster, leader, remove(1));
    cluster.isolate(2);
    leader.proposeConfiguration(configurationOf([2, 3]));
    const last = leader.raft.lastIndex;
    cluster.settle();
    // 1 and 3 have it; of {2, 3} that is one.
    expect(leader.raft.progress().map(({ id, match }) => [id, match === last])).toEqual([
      [2, false],
      [3, true],
    ]);
    expect(leader.raft.role).toBe("leader");
    expect(leader.commit).toBeLessThan(last);
    cluster.heal();
    cluster.tick(2 * electionTicksMin);
    expect(leader.commit).toBeGreaterThanOrEqual(last);
    expect(String(leader.raft.role)).toBe("follower");
    expect(leader.raft.stepDownReason).toContain("no longer a voter");
    expect([2, 3]).toContain(cluster.leader!.id);
  });

  test("that leads goes even if nobody can take over", () => {
    const cluster = led(3);
    const leader = cluster.node(1);
    cluster.delivers = ({ type }) => type !== "timeoutNow";
    changed(cluster, leader, remove(1));
    cluster.tick(electionTicksMin + 1);
    expect(leader.raft.role).toBe("follower");
    cluster.tick(5 * electionTicksMax);
    expect([2, 3]).toContain(cluster.leader!.id);
  });

  test("becomes a learner by a demotion, the leader too", () => {
    const cluster = led(3);
    changed(cluster, cluster.node(1), { op: "demote", id: 1 });
    cluster.tick(2 * heartbeatTicks);
    const leader = cluster.leader!;
    expect([2, 3]).toContain(leader.id);
    expect(membersAt(cluster.node(1))).toBe("2 3 | 1");
    leader.propose();
    cluster.tick(heartbeatTicks);
    expect(cluster.node(1).commit).toBe(leader.commit);
    expect(cluster.node(1).raft.removed).toBe(false);
  });

  test("whose log alone can win still campaigns (dissertation 4.2.2)", () => {
    // 1 led and alone wrote the end of the joint state; 3 is gone. The logs of 2 and 4 are shorter than that of 1, without which 2 has no majority of {1, 2, 3}.
    const start = { firstIndex: 1, term: 1, prevCrc: seedCrc };
    const joint = sealConfiguration(start, configurationOf([2, 3, 4], [], [1, 2, 3]));
    const end = sealConfiguration(
      { firstIndex: 2, term: 1, prevCrc: joint.crc },
      configurationOf([2, 3, 4]),
    );
    const hardState = { term: 1, votedFor: 1, commit: 1 };
    const configuration = configurationOf([1, 2, 3]);
    const cluster = new TestCluster([
      { id: 1, configuration, hardState, batches: [joint, end] },
      { id: 2, configuration, hardState, batches: [joint] },
      { id: 4, configuration, hardState, batches: [joint] },
    ]);
    cluster.tick(20 * electionTicksMax);
    expect(cluster.node(2).commit).toBeGreaterThan(2);
    expect(membersAt(cluster.node(4))).toBe("2 3 4 |");
    expect(cluster.node(1).raft.role).toBe("follower");
    expect([2, 4]).toContain(cluster.leader!.id);
  });
});

describe("refused", () => {
  test("by who does not lead", () => {
    const cluster = led(3);
    expect(refusalOf(cluster.node(2).raft.planChange([add(4)]))).toBe("not_leader");
  });

  test("while another change is under way: they never mix", () => {
    const cluster = led(3);
    const leader = cluster.node(1);
    cluster.isolate(1);
    expect(change(leader, [add(4)])).toHaveProperty("next");
    expect(refusalOf(change(leader, [add(5)]))).toBe("change_in_progress");
    // The very same too: that it is in force does not mean that it is done.
    expect(refusalOf(change(leader, [add(4)]))).toBe("change_in_progress");
    cluster.heal();
    cluster.tick(heartbeatTicks);
    expect(change(leader, [add(4)])).toEqual({ unchanged: true });
    expect(change(leader, [add(5)])).toHaveProperty("next");
  });

  test("to a leader that has committed nothing in its term: what its predecessor left may still be in force elsewhere (2015)", () => {
    const cluster = led(4);
    cluster.isolate(1);
    cluster.delivers = ({ from, to, type }) =>
      from !== 1 && to !== 1 && (type !== "appendReply" || from === to);
    const leader = cluster.elect(2);
    expect(refusalOf(change(leader, [add(5)]))).toBe("change_in_progress");
    expect(() => leader.proposeConfiguration(configurationOf([1, 2, 3, 4], [5]))).toThrow(
      InvariantError,
    );
  });

  test("where those who would be left are not alive in their majority, unless it is forced", () => {
    const cluster = led(3);
    const leader = cluster.node(1);
    cluster.isolate(3);
    cluster.tick(checkQuorumTicks + heartbeatTicks);
    expect(leader.raft.role).toBe("leader");
    expect(leader.raft.liveMajority(configurationOf([1, 3]))).toBe(false);
    expect(refusalOf(change(leader, [remove(2)]))).toBe("no_live_majority");
    expect(change(leader, [remove(3)])).toHaveProperty("next");
    cluster.settle();
    expect(membersAt(leader)).toBe("1 2 |");

    const other = led(3);
    other.isolate(3);
    other.tick(checkQuorumTicks + heartbeatTicks);
    expect(change(other.node(1), [remove(2)], true)).toHaveProperty("next");
  });

  test("by a leader that has not led for long enough to know who is alive: later", () => {
    const cluster = led(5);
    cluster.isolate(5);
    const leader = cluster.elect(2);
    cluster.settle();
    const changes = [remove(1), remove(3), remove(4)];
    expect(refusalOf(change(leader, changes))).toBe("change_in_progress");
    cluster.tick(checkQuorumTicks + heartbeatTicks);
    expect(leader.raft.role).toBe("leader");
    expect(refusalOf(change(leader, changes))).toBe("no_live_majority");
  });

  test("while leadership is being handed over", () => {
    const cluster = led(3);
    cluster.delivers = ({ type }) => type !== "timeoutNow";
    const { raft } = cluster.node(1);
    raft.transferLeadership(2);
    expect(refusalOf(raft.planChange([add(4)]))).toBe("not_leader");
  });

  test("by the core itself: voters change in no other way", () => {
    for (const wrong of [configurationOf([1, 2]), configurationOf([1, 2], [], [1, 2])]) {
      const cluster = led(3);
      expect(() => cluster.node(1).proposeConfiguration(wrong)).toThrow(InvariantError);
    }
  });
});

describe("a replacement", () => {
  test("takes the place of a node that is gone", () => {
    const cluster = led(3);
    cluster.isolate(3);
    join(cluster, 4);
    cluster.delivers = ({ from, to }) => from !== 3 && to !== 3;
    changed(cluster, cluster.node(1), { op: "replace", id: 3, by: 4, address: "node-4:9091" });
    expect(membersAt(cluster.node(1))).toBe("1 2 3 | 4");
    cluster.tick(3 * electionTicksMax);
    expect(membersAt(cluster.node(4))).toBe("1 2 4 |");
    expect(cluster.node(1).raft.configuration.removed).toEqual([3]);
  });

  test("waits, though it has caught up, while something else needs the one that goes", () => {
    const cluster = led(3);
    const leader = cluster.node(1);
    join(cluster, 4);
    leader.raft.keptPlaces = new Map([[3, "system"]]);
    changed(cluster, leader, { op: "replace", id: 3, by: 4, address: "node-4:9091" });
    cluster.tick(10 * electionTicksMax);
    expect(membersAt(leader)).toBe("1 2 3 | 4");
    leader.raft.keptPlaces = new Map();
    cluster.tick(3 * electionTicksMax);
    expect(membersAt(leader)).toBe("1 2 4 |");
  });

  test("of all members one after the other, the leader included, keeps what is committed", () => {
    const cluster = led(3);
    cluster.node(1).propose(5);
    cluster.settle();
    for (const old of [1, 2, 3]) {
      const by = old + 3;
      join(cluster, by);
      const leader = cluster.leader!;
      changed(cluster, leader, { op: "replace", id: old, by, address: `node-${by}:9091` });
      cluster.tick(4 * electionTicksMax);
      cluster.leader!.propose();
      cluster.settle();
      cluster.nodes.delete(old);
    }
    expect(membersAt(cluster.leader!)).toBe("4 5 6 |");
    expect(new Set([4, 5, 6].map((id) => cluster.node(id).commit)).size).toBe(1);
    expect(cluster.leader!.raft.startIndex).toBe(0);
  });
});

test("messages of one who is no member change no quorum", () => {
  const cluster = led(3);
  cluster.isolate(1);
  const leader = cluster.node(1);
  leader.propose();
  leader.turn();
  leader.sync();
  const message: AppendReplyMessage = {
    type: "appendReply",
    group,
    from: 8,
    to: 1,
    term: leader.raft.term,
    accepted: true,
    index: leader.raft.lastIndex,
    hintIndex: 0,
    hintTerm: 0,
    wounded: false,
  };
  const { commit } = leader;
  for (const from of [8, 9, 10]) leader.raft.step({ ...message, from });
  leader.turn();
  expect(leader.commit).toBe(commit);
});

test("a promotion that is due gives way to a change that is asked for in the same turn", () => {
  const cluster = led(3);
  const leader = cluster.node(1);
  join(cluster, 4);
  changed(cluster, leader, add(4));
  cluster.tick(2 * electionTicksMax - 1);
  // The turn in which the learner has been caught up for long enough.
  for (let ticks = 0; ticks <= heartbeatTicks && !leader.raft.hasReady(); ticks++)
    leader.raft.tick();
  expect(change(leader, [add(5, true)])).toHaveProperty("next");
  expect(leader.turn()!.ready.configurationDue).toBeUndefined();
  cluster.tick(3 * electionTicksMax);
  expect(membersAt(leader)).toBe("1 2 3 4 | 5");
});

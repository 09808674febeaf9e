/** Elections under failures: pre-vote and check-quorum together, and the ways out of every stuck state (correctness.md part E). */
import { describe, expect, test } from "bun:test";
import type { RaftMessage } from "../../src/wire/messages.ts";
import { TestCluster, TestNode, configurationOf, group, logOf, testLimits } from "./harness.ts";

const { electionTicksMin, electionTicksMax, checkQuorumTicks } = testLimits;

function voteFrom(from: number, to: number, term: number, type: "vote" | "preVote"): RaftMessage {
  return { type, group, from, to, term, transfer: false, lastIndex: 100, lastTerm: term - 1 };
}

describe("pre-vote and check-quorum", () => {
  test("while a leader is heard, pre-votes are refused and votes ignored, by followers and by the leader (E2)", () => {
    const cluster = TestCluster.of(3);
    cluster.elect(1);
    for (const id of [1, 2]) {
      cluster.sent = [];
      cluster.node(id).raft.step(voteFrom(3, id, 9, "preVote"));
      cluster.node(id).raft.step(voteFrom(3, id, 9, "vote"));
      cluster.run(cluster.node(id));
      expect(cluster.sent.filter(({ type }) => type.includes("ote"))).toMatchObject([
        { type: "preVoteReply", to: 3, granted: false, term: 1 },
      ]);
      expect(cluster.node(id).raft.term).toBe(1);
    }
  });

  test("once the leader has been silent for the shortest time-out, both are granted", () => {
    const cluster = TestCluster.of(3);
    cluster.elect(1);
    const node = cluster.node(2);
    const heard = node.raft.leader;
    for (let ticks = 0; ticks < electionTicksMin - 1; ticks++) node.raft.tick();
    node.raft.step(voteFrom(3, 2, 9, "preVote"));
    node.raft.tick();
    node.raft.step(voteFrom(3, 2, 9, "preVote"));
    cluster.sent = [];
    cluster.run(node);
    expect(heard).toBe(1);
    expect(
      cluster.sent.flatMap((message) => (message.type === "preVoteReply" ? [message.granted] : [])),
    ).toEqual([false, true]);
    expect(node.raft.term).toBe(1);
  });

  test("a node that was cut off does not disturb when it comes back", () => {
    const cluster = TestCluster.of(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.tick(10 * electionTicksMax);
    expect(cluster.node(3).raft.term).toBe(1);
    cluster.heal();
    cluster.tick(2 * electionTicksMax);
    expect(
      [...cluster.nodes.values()].map(({ raft }) => ({ term: raft.term, leader: raft.leader })),
    ).toEqual(Array.from({ length: 3 }, () => ({ term: 1, leader: 1 })));
  });

  test("a leader that hears no quorum steps down; the others go on", () => {
    const cluster = TestCluster.of(3);
    const old = cluster.elect(1);
    cluster.isolate(1);
    cluster.tick(checkQuorumTicks + 1);
    expect(old.raft.role).not.toBe("leader");
    expect(old.raft.nextSeal()).toBeUndefined();
    expect(old.raft.stepDownReason).toContain("quorum");
    cluster.tick(3 * electionTicksMax);
    expect(cluster.leader!.id).not.toBe(1);
    cluster.heal();
    cluster.tick(electionTicksMax);
    expect(old.raft.leader).toBe(cluster.leader!.id);
  });

  test("a leader that hears a quorum stays", () => {
    const cluster = TestCluster.of(5);
    cluster.elect(1);
    cluster.isolate(4, 5);
    cluster.tick(10 * checkQuorumTicks);
    expect(cluster.node(1).raft).toMatchObject({ role: "leader", term: 1 });
  });

  test("a candidate stuck in a higher term makes the leader catch up (E3)", () => {
    const cluster = TestCluster.of(3);
    cluster.elect(1);
    // It had won a pre-vote and raised its term, then was cut off and missed the election of another.
    const stuck = new TestNode({
      id: 3,
      configuration: configurationOf([1, 2, 3]),
      hardState: { term: 5, votedFor: 3, commit: 0 },
      batches: cluster.node(3).durable.batches,
    });
    cluster.nodes.set(3, stuck);
    cluster.tick(6 * electionTicksMax);
    const leader = cluster.leader!;
    expect(leader.raft.term).toBeGreaterThan(5);
    expect(stuck.raft.leader).toBe(leader.id);
    leader.propose();
    cluster.tick();
    expect(stuck.commit).toBe(leader.raft.lastIndex);
  });
});

describe("who may lead", () => {
  test("a learner, or a node outside the configuration, never campaigns", () => {
    for (const configuration of [configurationOf([1, 2], [3]), configurationOf([1, 2])]) {
      const node = new TestNode({ id: 3, configuration });
      for (let ticks = 0; ticks < 10 * electionTicksMax; ticks++) node.raft.tick();
      expect({ role: node.raft.role, ready: node.raft.hasReady() }).toEqual({
        role: "follower",
        ready: false,
      });
    }
  });

  test("votes of learners and strangers do not count", () => {
    const node = new TestNode({ id: 1, configuration: configurationOf([1, 2, 3], [4]) });
    for (let ticks = 0; ticks < electionTicksMax; ticks++) node.raft.tick();
    for (const from of [4, 9])
      node.raft.step({ type: "preVoteReply", group, from, to: 1, term: 1, granted: true });
    expect(node.raft.role).toBe("preCandidate");
    expect(node.raft.term).toBe(0);
  });

  test("a leader that steps down refuses proposals at once, and leads again only in another term [20]", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    leader.raft.stepDown("the disk is full");
    expect(leader.raft.nextSeal()).toBeUndefined();
    expect(leader.raft).toMatchObject({
      role: "follower",
      leader: 0,
      stepDownReason: "the disk is full",
    });
    cluster.tick(4 * electionTicksMax);
    expect(cluster.leader!.raft.term).toBeGreaterThan(1);
  });

  test("in a joint configuration an election needs both majorities", () => {
    const configuration = configurationOf([1, 2, 3], [], [3, 4, 5]);
    const ids = [1, 2, 3, 4, 5];
    const cluster = new TestCluster(ids.map((id) => ({ id, configuration })));
    cluster.isolate(4, 5);
    cluster.tick(5 * electionTicksMax);
    expect(cluster.leader).toBeUndefined();
    cluster.heal();
    cluster.tick(5 * electionTicksMax);
    expect(cluster.leader).toBeDefined();
  });
});

test("an idle tick does nothing and is ready with nothing", () => {
  const node = new TestNode({
    id: 2,
    configuration: configurationOf([1, 2, 3]),
    batches: logOf([]),
  });
  node.raft.tick();
  expect(node.raft.hasReady()).toBe(false);
});

/** The Raft paper, §5.2 leader election, in the style of etcd's raft_paper_test: state before, messages in, messages out. */
import { describe, expect, test } from "bun:test";
import { TestNode, configurationOf, group, logOf, testLimits } from "../harness.ts";
import { nodeWith, campaign, drain, vote, append, lonelyLeader } from "./steps.ts";

describe("§5.2 leader election", () => {
  test("all servers start as followers", () => {
    const node = nodeWith({});
    expect(node.raft.role).toBe("follower");
  });

  test("a leader sends heartbeats to all followers, every heartbeat interval", () => {
    const { cluster, leader } = lonelyLeader();
    for (let tick = 0; tick < testLimits.heartbeatTicks; tick++) leader.raft.tick();
    cluster.settle();
    const heartbeats = cluster.sent.filter(({ type }) => type === "heartbeat");
    expect(heartbeats.map(({ to }) => to)).toEqual([2, 3]);
  });

  test("a follower that hears nobody over the election time-out campaigns: it raises its term, votes for itself, asks all others", () => {
    const node = nodeWith({ terms: [1, 1], term: 1 });
    campaign(node);
    const preVotes = drain(node);
    expect(preVotes.map(({ type, to, term }) => ({ type, to, term }))).toEqual([
      { type: "preVote", to: 2, term: 2 },
      { type: "preVote", to: 3, term: 2 },
    ]);
    expect(node.raft.term).toBe(1);
    node.raft.step({ type: "preVoteReply", group, from: 3, to: 1, term: 2, granted: true });
    expect({ role: node.raft.role, term: node.raft.term, votedFor: node.raft.votedFor }).toEqual({
      role: "candidate",
      term: 2,
      votedFor: 1,
    });
    const votes = drain(node);
    expect(votes).toEqual(
      [2, 3].map((to) => ({
        type: "vote",
        group,
        from: 1,
        to,
        term: 2,
        transfer: false,
        lastIndex: 2,
        lastTerm: 1,
      })),
    );
    expect(node.durable.hardState).toMatchObject({ term: 2, votedFor: 1 });
  });

  const outcomes = [
    { size: 1, granted: [], refused: [], role: "leader" },
    { size: 3, granted: [2, 3], refused: [], role: "leader" },
    { size: 3, granted: [2], refused: [], role: "leader" },
    { size: 5, granted: [2, 3], refused: [4, 5], role: "leader" },
    { size: 5, granted: [2], refused: [], role: "candidate" },
    { size: 3, granted: [], refused: [2, 3], role: "follower" },
    { size: 5, granted: [5], refused: [2, 3, 4], role: "follower" },
    { size: 5, granted: [], refused: [2], role: "candidate" },
  ];
  for (const { size, granted, refused, role } of outcomes) {
    test(`a candidate of ${size} with ${granted.length} votes for and ${refused.length} against is ${role}`, () => {
      const ids = Array.from({ length: size }, (_, at) => at + 1);
      const node = new TestNode({ id: 1, configuration: configurationOf(ids) });
      campaign(node);
      for (const from of ids.slice(1))
        node.raft.step({ type: "preVoteReply", group, from, to: 1, term: 1, granted: true });
      drain(node);
      for (const from of granted)
        node.raft.step({ type: "voteReply", group, from, to: 1, term: 1, granted: true });
      for (const from of refused)
        node.raft.step({ type: "voteReply", group, from, to: 1, term: 1, granted: false });
      expect({ role: node.raft.role, term: node.raft.term }).toEqual({
        role: role as typeof node.raft.role,
        term: 1,
      });
    });
  }

  test("each server votes for at most one candidate in a term, first come first served", () => {
    const cases = [
      { votedFor: 0, from: 2, granted: true },
      { votedFor: 0, from: 3, granted: true },
      { votedFor: 2, from: 2, granted: true },
      { votedFor: 2, from: 3, granted: false },
    ];
    for (const { votedFor, from, granted } of cases) {
      const node = nodeWith({ term: 1, votedFor });
      node.raft.step(vote({ term: 1, from }));
      expect(drain(node)).toEqual([
        { type: "voteReply", group, from: 1, to: from, term: 1, granted },
      ]);
    }
  });

  test("a candidate that hears from a leader of its term or a later one gives way to it", () => {
    for (const term of [1, 2]) {
      const node = nodeWith({});
      campaign(node);
      node.raft.step({ type: "preVoteReply", group, from: 2, to: 1, term: 1, granted: true });
      expect(node.raft.role).toBe("candidate");
      node.raft.step(append(term, logOf([term]), 0));
      expect({ role: node.raft.role, term: node.raft.term, leader: node.raft.leader }).toEqual({
        role: "follower",
        term,
        leader: 2,
      });
    }
  });

  test("election time-outs are spread over the whole interval, and drawn anew for each wait", () => {
    const seen = new Set<number>();
    const node = nodeWith({});
    for (let round = 0; round < 400; round++) {
      node.raft.step(append(1, logOf([1]), 0));
      let ticks = 0;
      while (node.raft.role === "follower") {
        node.raft.tick();
        ticks++;
      }
      seen.add(ticks);
    }
    const { electionTicksMin, electionTicksMax } = testLimits;
    expect([...seen].sort((a, b) => a - b)).toEqual(
      Array.from({ length: electionTicksMax - electionTicksMin }, (_, at) => electionTicksMin + at),
    );
  });
});

/**
 * The Raft paper, section by section, in the style of etcd's raft_paper_test: each test sets a state up, steps messages in, and looks at
 * what comes out. Quotes are from the extended version of the paper.
 */
import { describe, expect, test } from "bun:test";
import { lastIndexOf } from "../../src/wire/batch.ts";
import type { Batch } from "../../src/wire/batch.ts";
import type { AppendReplyMessage, RaftMessage } from "../../src/wire/messages.ts";
import {
  TestCluster,
  TestNode,
  configurationOf,
  group,
  logOf,
  seedCrc,
  testLimits,
} from "./harness.ts";

type Partial<T> = { [K in keyof T]?: T[K] };

const three = configurationOf([1, 2, 3]);

function nodeWith(options: {
  id?: number;
  terms?: readonly number[];
  counts?: readonly number[];
  term?: number;
  votedFor?: number;
  seed?: number;
}): TestNode {
  const { id = 1, terms = [], counts = [], votedFor = 0, seed = 1 } = options;
  const term = options.term ?? terms.at(-1) ?? 0;
  const batches = logOf(terms, counts);
  const hardState = { term, votedFor, commit: 0 };
  return new TestNode({ id, configuration: three, batches, hardState, seed });
}

function campaign(node: TestNode): void {
  while (node.raft.role === "follower") node.raft.tick();
}

/** Messages of all turns, syncing in between. */
function drain(node: TestNode): RaftMessage[] {
  const messages: RaftMessage[] = [];
  for (let turn = node.turn(); turn !== undefined; turn = node.turn()) {
    messages.push(...turn.messages);
    node.sync();
  }
  return messages;
}

function vote(fields: {
  term: number;
  lastIndex?: number;
  lastTerm?: number;
  from?: number;
}): RaftMessage {
  const { term, lastIndex = 0, lastTerm = 0, from = 2 } = fields;
  return { type: "vote", group, from, to: 1, term, transfer: false, lastIndex, lastTerm };
}

/** An append from node 2 to node 1 of `log`'s batches, those after `prev` batches and at most `count`. */
function append(
  term: number,
  log: readonly Batch[],
  prev: number,
  { count = Infinity, commit = 0 }: { count?: number; commit?: number } = {},
): RaftMessage {
  const before = log[prev - 1];
  const batches = log.slice(prev, prev + count);
  const prevIndex = before === undefined ? 0 : lastIndexOf(before);
  return {
    type: "append",
    group,
    from: 2,
    to: 1,
    term,
    prevIndex,
    prevTerm: before?.term ?? 0,
    prevCrc: before?.crc ?? seedCrc,
    commit,
    fromIndex: prevIndex + 1,
    toIndex: batches.length === 0 ? prevIndex : lastIndexOf(batches.at(-1)!),
    batches,
  };
}

function terms(node: TestNode): number[] {
  return node.visible.batches.map((batch) => batch.term);
}

/** A leader of three with a settled log, all messages to the others lost from now on. */
function lonelyLeader(): { cluster: TestCluster; leader: TestNode } {
  const cluster = TestCluster.of(3);
  const leader = cluster.elect(1);
  cluster.delivers = () => false;
  cluster.settle();
  cluster.sent = [];
  return { cluster, leader };
}

function reply(leader: TestNode, from: number, fields: Partial<AppendReplyMessage>): RaftMessage {
  const { term } = leader.raft;
  const base = { type: "appendReply", group, from, to: leader.id, term } as const;
  const none = { accepted: true, index: 0, hintIndex: 0, hintTerm: 0, wounded: false };
  return { ...base, ...none, ...fields };
}

describe("§5.1 terms", () => {
  test("if one server's current term is smaller than the other's, it updates to the larger value", () => {
    for (const role of ["follower", "preCandidate", "leader"] as const) {
      const cluster = TestCluster.of(3);
      const node = role === "leader" ? cluster.elect(1) : cluster.node(1);
      cluster.delivers = () => false;
      while (node.raft.role !== role) node.raft.tick();
      const term = node.raft.term + 4;
      node.raft.step({
        type: "heartbeat",
        group,
        from: 2,
        to: 1,
        term,
        commit: 0,
        readSeq: 1,
        freshStamp: 0,
        minMatch: 0,
      });
      expect({ role: node.raft.role, term: node.raft.term, leader: node.raft.leader }).toEqual({
        role: "follower",
        term,
        leader: 2,
      });
    }
  });

  test("a request with a stale term is rejected, and the answer carries the current term", () => {
    const node = nodeWith({ term: 5 });
    node.raft.step(append(4, logOf([4]), 0));
    node.raft.step(vote({ term: 4 }));
    const messages = drain(node);
    expect(messages.map(({ type, term }) => ({ type, term }))).toEqual([
      { type: "appendReply", term: 5 },
      { type: "voteReply", term: 5 },
    ]);
    expect(messages[0]).toMatchObject({ accepted: false });
    expect(messages[1]).toMatchObject({ granted: false });
    expect(node.raft.lastIndex).toBe(0);
  });
});

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

describe("§5.3 log replication", () => {
  test("the leader appends the command as a new entry and sends it to all others", () => {
    const { cluster, leader } = lonelyLeader();
    const batch = leader.propose(3)!;
    cluster.settle();
    expect(lastIndexOf(batch)).toBe(4);
    const appends = cluster.sent.filter((message) => message.type === "append");
    expect(appends).toEqual(
      [2, 3].map((to) => ({
        type: "append",
        group,
        from: 1,
        to,
        term: 1,
        prevIndex: 1,
        prevTerm: 1,
        prevCrc: batch.prevCrc,
        commit: 1,
        fromIndex: 2,
        toIndex: 4,
        batches: [batch],
      })),
    );
  });

  test("an entry is committed once the leader has replicated it on a majority, and with it all before", () => {
    const cases = [
      { size: 3, acks: [2], committed: true },
      { size: 3, acks: [], committed: false },
      { size: 5, acks: [2], committed: false },
      { size: 5, acks: [2, 5], committed: true },
    ];
    for (const { size, acks, committed } of cases) {
      const cluster = TestCluster.of(size);
      const leader = cluster.elect(1);
      cluster.delivers = () => false;
      leader.propose();
      leader.propose();
      cluster.settle();
      for (const from of acks) leader.raft.step(reply(leader, from, { index: 3 }));
      drain(leader);
      expect({ size, acks, commit: leader.commit }).toEqual({
        size,
        acks,
        commit: committed ? 3 : 1,
      });
    }
  });

  test("a follower learns from the leader what is committed", () => {
    const node = nodeWith({});
    const log = logOf([1, 1, 1]);
    node.raft.step(append(1, log, 0, { commit: 2 }));
    drain(node);
    expect(node.commit).toBe(2);
  });

  test("consistency check: a follower refuses an append whose predecessor it does not have", () => {
    const cases = [
      // Same log.
      { terms: [1, 2], log: [1, 2, 3], prev: 2, accepted: true, hint: 0, hintTerm: 0 },
      { terms: [1, 2], log: [1, 2, 3], prev: 1, accepted: true, hint: 0, hintTerm: 0 },
      { terms: [1, 2], log: [1, 2, 3], prev: 0, accepted: true, hint: 0, hintTerm: 0 },
      // Too short.
      { terms: [1], log: [1, 2, 3], prev: 2, accepted: false, hint: 1, hintTerm: 1 },
      // Another term there; the hint skips the terms that cannot match.
      {
        terms: [1, 1, 2, 2, 2],
        log: [1, 1, 1, 1, 1, 3],
        prev: 5,
        accepted: false,
        hint: 2,
        hintTerm: 1,
      },
      { terms: [1, 1, 1, 1], log: [1, 2, 2, 2, 3], prev: 4, accepted: false, hint: 4, hintTerm: 1 },
    ];
    for (const { terms: held, log, prev, accepted, hint, hintTerm } of cases) {
      const node = nodeWith({ terms: held, term: 3 });
      node.raft.step(append(3, logOf(log), prev));
      // The first answer may be about what was durable before; the last one comes after the sync.
      const answer = drain(node).at(-1);
      expect(answer).toMatchObject({ type: "appendReply", accepted, hintIndex: hint, hintTerm });
      expect((answer as AppendReplyMessage).index).toBe(accepted ? log.length : prev);
    }
  });

  test("a follower drops what conflicts with the leader, and only that", () => {
    const cases = [
      { held: [1, 2, 3], log: [1, 2, 4], prev: 2, count: 1, expected: [1, 2, 4] },
      { held: [1, 2, 3], log: [1, 4, 4], prev: 1, count: 2, expected: [1, 4, 4] },
      { held: [1, 2, 3], log: [1, 4, 4], prev: 1, count: 1, expected: [1, 4] },
      { held: [1, 2, 3], log: [1, 2, 3], prev: 1, count: 1, expected: [1, 2, 3] },
      { held: [1, 2, 3], log: [1, 2, 3, 4], prev: 0, count: 4, expected: [1, 2, 3, 4] },
      { held: [1, 2, 3], log: [1, 2, 3], prev: 1, count: 0, expected: [1, 2, 3] },
    ];
    for (const { held, log, prev, count, expected } of cases) {
      const node = nodeWith({ terms: held, term: 4 });
      node.raft.step(append(4, logOf(log), prev, { count }));
      drain(node);
      expect(terms(node)).toEqual(expected);
      expect(node.durable.batches.map(({ term }) => term)).toEqual(expected);
    }
  });

  test("figure 7: whatever a follower's log looks like, the leader makes it its own", () => {
    const leaderTerms = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    const followers = [
      [1, 1, 1, 4, 4, 5, 5, 6, 6],
      [1, 1, 1, 4],
      [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
      [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
      [1, 1, 1, 4, 4, 4, 4],
      [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
      [],
    ];
    for (const held of followers) {
      const hardState = (log: readonly number[]) => ({
        term: log.at(-1) ?? 0,
        votedFor: 0,
        commit: 0,
      });
      const cluster = new TestCluster([
        { id: 1, configuration: three, batches: logOf(leaderTerms), hardState: hardState([8]) },
        { id: 2, configuration: three, batches: logOf(held), hardState: hardState(held) },
        // Its vote, and a log that no vote can fail for.
        { id: 3, configuration: three, hardState: hardState([8]) },
      ]);
      cluster.elect(1);
      cluster.tick(20);
      expect(terms(cluster.node(2))).toEqual([...leaderTerms, cluster.node(1).raft.term]);
      expect(cluster.node(2).commit).toBe(11);
    }
  });
});

describe("§5.4 safety", () => {
  test("a voter denies its vote if its own log is more up-to-date than the candidate's", () => {
    const cases = [
      { held: [1], lastTerm: 1, lastIndex: 1, granted: true },
      { held: [1], lastTerm: 1, lastIndex: 2, granted: true },
      { held: [1, 1], lastTerm: 1, lastIndex: 1, granted: false },
      { held: [1], lastTerm: 2, lastIndex: 1, granted: true },
      { held: [1, 1], lastTerm: 2, lastIndex: 1, granted: true },
      { held: [2], lastTerm: 1, lastIndex: 1, granted: false },
      { held: [2], lastTerm: 1, lastIndex: 5, granted: false },
      { held: [1, 2], lastTerm: 1, lastIndex: 1, granted: false },
    ];
    for (const { held, lastTerm, lastIndex, granted } of cases) {
      for (const type of ["vote", "preVote"] as const) {
        const node = nodeWith({ terms: held, term: 3 });
        node.raft.step({
          type,
          group,
          from: 2,
          to: 1,
          term: 4,
          transfer: false,
          lastIndex,
          lastTerm,
        });
        expect(drain(node)[0]).toMatchObject({ type: `${type}Reply`, granted });
      }
    }
  });

  test("§5.4.2 only entries of the leader's current term are committed by counting", () => {
    const cluster = new TestCluster(
      [1, 2, 3].map((id) => ({
        id,
        configuration: three,
        batches: logOf([1, 2]),
        hardState: { term: 2, votedFor: 0, commit: 0 },
      })),
    );
    cluster.delivers = ({ type }) => type !== "append";
    const leader = cluster.elect(1);
    leader.raft.step(reply(leader, 2, { index: 1 }));
    leader.raft.step(reply(leader, 2, { index: 2 }));
    drain(leader);
    expect(leader.commit).toBe(0);
    leader.raft.step(reply(leader, 2, { index: 3 }));
    drain(leader);
    expect(leader.commit).toBe(3);
  });
});

describe("§8 client interaction", () => {
  test("a leader appends a no-op at once", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(2);
    expect(leader.visible.batches).toHaveLength(1);
    expect(leader.visible.batches[0]).toMatchObject({
      firstIndex: 1,
      count: 1,
      term: 1,
      kind: 0,
      timeMs: 0,
    });
    expect([...cluster.nodes.values()].map(({ commit }) => commit)).toEqual([1, 1, 1]);
  });
});

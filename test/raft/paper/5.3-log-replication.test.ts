/** The Raft paper, §5.3 log replication, in the style of etcd's raft_paper_test: state before, messages in, messages out. */
import { describe, expect, test } from "bun:test";
import { lastIndexOf } from "../../../src/wire/batch.ts";
import type { AppendReplyMessage } from "../../../src/wire/messages.ts";
import { TestCluster, group, logOf } from "../harness.ts";
import { three, nodeWith, drain, append, terms, lonelyLeader, reply } from "./steps.ts";

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

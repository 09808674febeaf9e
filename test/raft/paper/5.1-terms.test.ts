/** The Raft paper, §5.1 terms, in the style of etcd's raft_paper_test: state before, messages in, messages out. */
import { describe, expect, test } from "bun:test";
import { TestCluster, group, logOf } from "../harness.ts";
import { nodeWith, drain, vote, append } from "./steps.ts";

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

/** The Raft paper, §8 client interaction, in the style of etcd's raft_paper_test: state before, messages in, messages out. */
import { describe, expect, test } from "bun:test";
import { TestCluster, testLimits } from "../harness.ts";
import { lonelyLeader } from "./steps.ts";

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

  test("a leader answers no read before a batch of its own term is committed, and then only with a quorum's word", () => {
    const { cluster, leader } = lonelyLeader();
    cluster.heal();
    leader.raft.readIndex(7);
    cluster.run(leader);
    expect(leader.reads).toEqual([]);
    cluster.settle();
    cluster.tick(testLimits.heartbeatTicks);
    expect(leader.reads).toEqual([{ context: 7, index: leader.raft.commit, ok: true }]);
  });

  test("a leader that lost touch with the majority does not answer: its state may be stale", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    cluster.tick(testLimits.heartbeatTicks);
    cluster.isolate(1);
    leader.raft.readIndex(7);
    cluster.tick(testLimits.checkQuorumTicks + 1);
    expect(leader.reads).toMatchObject([{ context: 7, ok: false }]);
    expect(leader.raft.role).toBe("follower");
  });
});

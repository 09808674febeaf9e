/** The Raft paper, §6 cluster membership changes, by joint consensus. What else there is to members: member-changes.test.ts. */
import { describe, expect, test } from "bun:test";
import {
  configurationOf,
  sealConfiguration,
  seedCrc,
  TestCluster,
  testLimits,
} from "../harness.ts";
import { drain, nodeWith } from "./steps.ts";

describe("§6 cluster membership changes", () => {
  test("a server uses the latest configuration in its log, whether it is committed or not", () => {
    const node = nodeWith({ term: 1 });
    const next = configurationOf([1, 2, 3], [4]);
    const batch = sealConfiguration({ firstIndex: 1, term: 1, prevCrc: seedCrc }, next);
    node.raft.step({
      type: "append",
      group: batch.group,
      from: 2,
      to: 1,
      term: 1,
      prevIndex: 0,
      prevTerm: 0,
      prevCrc: seedCrc,
      commit: 0,
      fromIndex: 1,
      toIndex: 1,
      batches: [batch],
    });
    expect(node.raft.configuration.learners).toEqual([4]);
    expect(node.raft.configurationCommitted).toBe(false);
    expect(drain(node)).toMatchObject([{ type: "appendReply", accepted: true, index: 1 }]);
  });

  test("agreement in a joint state needs a majority of the old and one of the new configuration", () => {
    const cluster = TestCluster.of(5);
    const leader = cluster.elect(1);
    cluster.tick(testLimits.heartbeatTicks);
    const plan = leader.raft.planChange([
      { op: "remove", id: 4 },
      { op: "remove", id: 5 },
    ]);
    if (!("next" in plan)) throw new Error("refused");
    expect(plan.next).toMatchObject({ voters: [1, 2, 3], outgoing: [1, 2, 3, 4, 5] });
    // 1, 4 and 5 are a majority of the old, but not of the new one.
    cluster.delivers = ({ from, to }) => ![2, 3].includes(from) && ![2, 3].includes(to);
    const { firstIndex } = leader.proposeConfiguration(plan.next);
    cluster.settle();
    expect(leader.raft.commit).toBeLessThan(firstIndex);
    // 1 and 2 are one of the new, and with 4 and 5 of the old one.
    cluster.delivers = ({ from, to }) => from !== 3 && to !== 3;
    cluster.tick(2 * testLimits.electionTicksMin);
    expect(leader.raft.commit).toBeGreaterThanOrEqual(firstIndex);
  });

  test("new servers join without a vote until they have caught up", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    const change = { op: "add", id: 4, address: "node-4:9091", learner: false } as const;
    const plan = leader.raft.planChange([change]);
    if (!("next" in plan)) throw new Error("refused");
    expect(plan.next).toMatchObject({ voters: [1, 2, 3], learners: [4], outgoing: [] });
  });

  test("a leader that is not part of the new configuration steps down once it is committed", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    for (const node of cluster.nodes.values()) node.autoConfigure = true;
    cluster.tick(testLimits.heartbeatTicks);
    const plan = leader.raft.planChange([{ op: "remove", id: 1 }]);
    if (!("next" in plan)) throw new Error("refused");
    leader.proposeConfiguration(plan.next);
    cluster.settle();
    expect(leader.raft.role).toBe("follower");
    expect(leader.raft.configuration.voters).toEqual([2, 3]);
  });

  test("votes are disregarded while a current leader is heard: removed servers do not disturb", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    cluster.tick(testLimits.heartbeatTicks);
    const follower = cluster.node(2);
    const { term, lastIndex, lastTerm, group } = follower.raft;
    follower.raft.step({
      type: "vote",
      group,
      from: 3,
      to: 2,
      term: term + 5,
      transfer: false,
      lastIndex,
      lastTerm,
    });
    cluster.settle();
    expect(follower.raft.term).toBe(term);
    expect(leader.raft.role).toBe("leader");
  });
});

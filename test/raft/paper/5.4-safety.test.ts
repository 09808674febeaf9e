/** The Raft paper, §5.4 safety, in the style of etcd's raft_paper_test: state before, messages in, messages out. */
import { describe, expect, test } from "bun:test";
import { TestCluster, group, logOf } from "../harness.ts";
import { three, nodeWith, drain, reply } from "./steps.ts";

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

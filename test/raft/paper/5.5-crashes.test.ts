/** The Raft paper, §5.5 follower and candidate crashes: requests are repeated until they are answered, and repeating them does no harm. */
import { describe, expect, test } from "bun:test";
import { logOf, TestCluster, testLimits } from "../harness.ts";
import { append, drain, nodeWith, terms, vote } from "./steps.ts";

describe("§5.5 follower and candidate crashes", () => {
  test("an append that has been received before is ignored, and answered as before", () => {
    const log = logOf([1, 1, 2]);
    const node = nodeWith({ terms: [1], term: 2 });
    for (let times = 0; times < 3; times++) {
      node.raft.step(append(2, log, 1));
      expect(drain(node).at(-1)).toMatchObject({ type: "appendReply", accepted: true, index: 3 });
      expect(terms(node)).toEqual([1, 1, 2]);
    }
  });

  test("a vote that was given is given again to whoever asks again, also after a restart", () => {
    const node = nodeWith({ terms: [1] });
    const request = vote({ term: 2, lastIndex: 1, lastTerm: 1 });
    for (let times = 0; times < 3; times++) {
      node.raft.step(request);
      expect(drain(node)).toMatchObject([{ type: "voteReply", to: 2, granted: true }]);
      node.restart();
    }
    node.raft.step(vote({ term: 2, lastIndex: 1, lastTerm: 1, from: 3 }));
    expect(drain(node)).toMatchObject([{ type: "voteReply", to: 3, granted: false }]);
  });

  test("a leader repeats an append until it is answered", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    cluster.delivers = ({ to }) => to !== 3;
    leader.propose();
    cluster.tick(4 * testLimits.electionTicksMax);
    const unanswered = cluster.sent.filter(({ type, to }) => type === "append" && to === 3);
    expect(unanswered.length).toBeGreaterThan(3);
    cluster.node(3).restart();
    cluster.heal();
    cluster.tick(testLimits.electionTicksMax);
    expect(cluster.node(3).raft.lastIndex).toBe(leader.raft.lastIndex);
  });
});

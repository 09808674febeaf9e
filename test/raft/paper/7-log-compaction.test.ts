/** The Raft paper, §7 log compaction. What else there is to snapshots: snapshots.test.ts. */
import { describe, expect, test } from "bun:test";
import { configurationOf, logOf, TestCluster, TestNode, testLimits } from "../harness.ts";
import { append, drain } from "./steps.ts";

const configuration = configurationOf([1, 2, 3]);
const start = { index: 7, term: 2, crc: 0x77, timeMs: 70 };

describe("§7 log compaction", () => {
  test("the position of the last batch that was dropped is kept, for the consistency check of the first one after it", () => {
    const hardState = { term: 2, votedFor: 0, commit: 7 };
    const node = new TestNode({ id: 1, configuration, start, hardState, appliedIndex: 7 });
    const after = logOf([2, 2], [], start);
    node.raft.step({
      ...append(2, after, 0),
      prevIndex: 7,
      prevTerm: 2,
      prevCrc: 0x77,
      fromIndex: 8,
      toIndex: 9,
    } as Parameters<typeof node.raft.step>[0]);
    expect(drain(node).at(-1)).toMatchObject({ type: "appendReply", accepted: true, index: 9 });
  });

  test("a leader sends a snapshot to a follower that needs what it has dropped, and goes on behind it", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    cluster.delivers = ({ from, to }) => from !== 3 && to !== 3;
    for (let i = 0; i < 5; i++) leader.propose();
    cluster.settle();
    for (const node of cluster.nodes.values()) node.apply();
    leader.compact(leader.raft.commit);
    const { startIndex } = leader.raft;
    cluster.heal();
    cluster.tick(2 * testLimits.electionTicksMax);
    expect(leader.snapshots).toContainEqual({ to: 3, minIndex: startIndex });
    expect(leader.sendSnapshot(cluster.node(3), startIndex)).toBe("needed");
    leader.propose();
    cluster.tick(2 * testLimits.heartbeatTicks);
    expect(cluster.node(3).raft.firstIndex).toBe(startIndex + 1);
    expect(cluster.node(3).raft.lastIndex).toBe(leader.raft.lastIndex);
  });

  test("a snapshot of a position that the log has changes nothing: what follows it is kept", () => {
    const batches = logOf([1, 1, 1]);
    const hardState = { term: 1, votedFor: 0, commit: 1 };
    const node = new TestNode({ id: 1, configuration, batches, hardState });
    const at = batches[1]!;
    const position = { index: 2, term: at.term, crc: at.crc, timeMs: at.timeMs };
    expect(node.raft.snapshotOffered(2, 1, position)).toBe("held");
    expect(node.raft.lastIndex).toBe(3);
    expect(node.raft.commit).toBe(2);
  });

  test("a snapshot of an older term's leader is refused, with the term", () => {
    const node = new TestNode({
      id: 1,
      configuration,
      hardState: { term: 5, votedFor: 0, commit: 0 },
    });
    expect(node.raft.snapshotOffered(2, 4, start)).toBe("refused");
    expect(drain(node)).toMatchObject([{ type: "appendReply", term: 5, accepted: false }]);
  });
});

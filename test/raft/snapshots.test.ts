/** Snapshots in the core (paper §7; correctness.md N): when one is asked for, what an offer is worth, and what taking one over means. */
import { describe, expect, test } from "bun:test";
import { lastIndexOf } from "../../src/wire/batch.ts";
import type { AppendReplyMessage } from "../../src/wire/messages.ts";
import { TestCluster, configurationOf, logOf, testLimits } from "./harness.ts";

const three = configurationOf([1, 2, 3]);
const { electionTicksMin, heartbeatTicks } = testLimits;
const hardState = { term: 1, votedFor: 0, commit: 0 };

/** Node 1 leads 2 and 3; 3 is cut off, and the leader's log begins beyond what 3 has. */
function behind(): TestCluster {
  const cluster = TestCluster.of(3);
  cluster.elect(1);
  cluster.settle();
  cluster.isolate(3);
  for (let i = 0; i < 5; i++) {
    cluster.node(1).propose(2);
    cluster.settle();
  }
  for (const node of cluster.nodes.values()) node.apply();
  cluster.node(1).compact(9);
  return cluster;
}

/** 3 is back, and the leader has found out how little it has. */
function found(): TestCluster {
  const cluster = behind();
  cluster.heal();
  cluster.node(1).raft.peerReset(3);
  cluster.tick(2 * heartbeatTicks);
  cluster.sent = [];
  return cluster;
}

function acksOf(cluster: TestCluster, from: number): AppendReplyMessage[] {
  return cluster.sent.filter(
    (message) => message.type === "appendReply" && message.from === from && message.accepted,
  ) as AppendReplyMessage[];
}

describe("leader", () => {
  test("asks the shell once for a snapshot at or above its log's start, and sends no appends meanwhile", () => {
    const cluster = found();
    const leader = cluster.node(1);
    expect(leader.raft.progress().find(({ id }) => id === 3)!.state).toBe("snapshot");
    expect(leader.snapshots).toEqual([{ to: 3, minIndex: 9 }]);
    leader.propose();
    cluster.tick(3 * electionTicksMin);
    expect(leader.snapshots.length).toBe(1);
    expect(cluster.sent.filter(({ type, to }) => type === "append" && to === 3)).toEqual([]);
    expect(leader.raft.role).toBe("leader");
  });

  test("asks again some time after a stream has ended without effect, not at once", () => {
    const cluster = found();
    const leader = cluster.node(1);
    leader.raft.snapshotEnded(3);
    cluster.settle();
    cluster.tick(heartbeatTicks);
    expect(leader.snapshots.length).toBe(1);
    cluster.tick(electionTicksMin + heartbeatTicks);
    expect(leader.snapshots.length).toBe(2);
  });

  test("asks a node that is gone no more, and a follower asks nobody", () => {
    const cluster = found();
    cluster.node(1).raft.snapshotEnded(9);
    cluster.node(1).raft.stepDown("test");
    cluster.node(1).raft.snapshotEnded(3);
    cluster.tick(2 * heartbeatTicks);
    expect(cluster.node(1).snapshots.length).toBe(1);
  });

  test("goes on from the snapshot once the receiver has it durably", () => {
    const cluster = found();
    const leader = cluster.node(1);
    const receiver = cluster.node(3);
    expect(leader.sendSnapshot(receiver, 11)).toBe("needed");
    cluster.settle();
    for (const node of cluster.nodes.values()) node.apply();
    expect(acksOf(cluster, 3)[0]!.index).toBe(11);
    expect(receiver.raft.startIndex).toBe(11);
    leader.propose();
    cluster.settle();
    expect(receiver.raft.lastIndex).toBe(12);
    expect(receiver.commit).toBe(12);
    expect(leader.raft.progress().find(({ id }) => id === 3)).toMatchObject({
      match: 12,
      state: "replicate",
    });
  });

  test("asks for a newer one where its log has moved on past what the receiver took over", () => {
    const cluster = found();
    const leader = cluster.node(1);
    leader.sendSnapshot(cluster.node(3), 9);
    leader.compact(11);
    cluster.settle();
    cluster.tick(electionTicksMin + heartbeatTicks);
    expect(leader.snapshots.at(-1)).toEqual({ to: 3, minIndex: 11 });
  });
});

/** Node 1 has started anew and leads: what its machine holds it knows no more to be committed, and nobody else has the log from its start on. */
function forgetful(): TestCluster {
  const start = logOf([1, 1], [2, 2]).map((batch) => ({
    index: lastIndexOf(batch),
    term: batch.term,
    crc: batch.crc,
    timeMs: 0,
  }))[1]!;
  const batches = logOf([1, 1, 2], [3, 2, 1], start);
  const cluster = new TestCluster([
    { id: 1, configuration: three, start, batches, hardState: { term: 2, votedFor: 1, commit: 4 } },
    { id: 2, configuration: three },
    { id: 3, configuration: three },
  ]);
  cluster.elect(1);
  cluster.settle();
  return cluster;
}

describe("what the machine holds", () => {
  test("is committed, though the leader has forgotten it: so its state can go to those who need it first", () => {
    const cluster = forgetful();
    const leader = cluster.node(1);
    cluster.tick(2 * electionTicksMin);
    expect(leader.raft).toMatchObject({ commit: 4, lastIndex: 11, role: "leader" });
    // Within the second batch: it is committed as a whole.
    leader.raft.machineHolds(8);
    expect(leader.raft.commit).toBe(9);
    for (const id of [2, 3]) {
      cluster.run(leader);
      leader.apply();
      expect(leader.sendSnapshot(cluster.node(id), 9)).toBe("needed");
    }
    cluster.settle();
    cluster.tick(2 * heartbeatTicks);
    for (const { raft } of cluster.nodes.values()) expect(raft.commit).toBe(11);
  });

  test("is nobody's word but the leader's, and nothing of its own term, nor what its log does not hold", () => {
    const cluster = forgetful();
    const leader = cluster.node(1);
    for (const index of [3, 11, 12, 2 ** 53]) leader.raft.machineHolds(index);
    expect(leader.raft.commit).toBe(4);
    leader.raft.stepDown("test");
    leader.raft.machineHolds(8);
    expect(leader.raft.commit).toBe(4);
  });

  test("says nothing new once the leader knows by itself what is committed", () => {
    const cluster = TestCluster.of(3);
    cluster.elect(1);
    cluster.settle();
    cluster.isolate(1);
    cluster.node(1).propose(2);
    cluster.settle();
    cluster.node(1).raft.machineHolds(3);
    expect(cluster.node(1).raft).toMatchObject({ commit: 1, lastIndex: 3 });
  });
});

describe("receiver", () => {
  test("acknowledges only when log start and machine are durable", () => {
    const cluster = found();
    const receiver = cluster.node(3);
    cluster.autoSync = false;
    cluster.node(1).sendSnapshot(receiver, 11);
    cluster.run(receiver);
    expect(receiver.raft.commit).toBe(11);
    expect(receiver.raft.durableIndex).toBe(0);
    expect(acksOf(cluster, 3)).toEqual([]);
    receiver.sync();
    cluster.run(receiver);
    expect(acksOf(cluster, 3).map(({ index }) => index)).toEqual([11]);
    expect(receiver.raft.durableIndex).toBe(11);
  });

  test("after a crash before that sync it is as before, after it it begins at the snapshot", () => {
    for (const kept of [0, 1]) {
      const cluster = found();
      const receiver = cluster.node(3);
      const { lastIndex: before, appliedIndex } = receiver.raft;
      cluster.autoSync = false;
      cluster.node(1).sendSnapshot(receiver, 11);
      cluster.run(receiver);
      receiver.restart(kept);
      expect(receiver.raft.lastIndex).toBe(kept === 0 ? before : 11);
      expect(receiver.raft.startIndex).toBe(kept === 0 ? 0 : 11);
      expect(receiver.raft.appliedIndex).toBe(kept === 0 ? appliedIndex : 11);
    }
  });

  test("takes over the configuration of the snapshot, not that of its log", () => {
    const five = configurationOf([1, 2, 3, 4, 5]);
    const cluster = found();
    const receiver = cluster.node(3);
    const { raft } = cluster.node(1);
    const start = raft.positionAt(11)!;
    expect(receiver.raft.snapshotOffered(1, raft.term, start)).toBe("needed");
    expect(receiver.raft.restored(start, five)).toBe(true);
    expect(receiver.raft.configuration).toEqual(five);
    expect(receiver.raft.configurationAt(11)).toEqual(five);
  });

  test("a conflicting suffix is void, and an old sync of it counts for nothing", () => {
    // Node 3 has three batches of term 2 that nobody else has, the last two of them not durable yet.
    const ours = logOf([1, 2, 2, 2]);
    const theirs = logOf([1, 3, 3, 3, 3]);
    const cluster = new TestCluster([
      { id: 3, configuration: three, hardState: { ...hardState, term: 2 }, batches: ours },
    ]);
    const node = cluster.node(3);
    cluster.autoSync = false;
    node.raft.step({
      type: "append",
      group: ours[0]!.group,
      from: 2,
      to: 3,
      term: 2,
      prevIndex: 4,
      prevTerm: 2,
      prevCrc: ours[3]!.crc,
      commit: 0,
      fromIndex: 5,
      toIndex: 6,
      batches: logOf([2, 2], [], positionOf(ours[3]!)),
    });
    cluster.run(node);
    const start = positionOf(theirs[2]!);
    expect(node.raft.snapshotOffered(1, 3, start)).toBe("needed");
    expect(node.raft.restored(start, three)).toBe(true);
    expect([node.raft.lastIndex, node.raft.lastTerm, node.raft.commit]).toEqual([3, 3, 3]);
    // The writes of before come to their end.
    cluster.sent = [];
    node.sync(1);
    expect(node.raft.durableIndex).toBe(0);
    cluster.run(node);
    node.sync();
    expect(node.raft.durableIndex).toBe(3);
    node.raft.step({
      type: "append",
      group: ours[0]!.group,
      from: 1,
      to: 3,
      term: 3,
      prevIndex: 3,
      prevTerm: 3,
      prevCrc: theirs[2]!.crc,
      commit: 3,
      fromIndex: 4,
      toIndex: 5,
      batches: theirs.slice(3),
    });
    cluster.run(node);
    node.sync();
    cluster.run(node);
    expect(acksOf(cluster, 3).at(-1)!.index).toBe(5);
  });

  test("what its log has already is not taken over: the log is kept, and known as committed", () => {
    const batches = logOf([1, 1, 1, 1]);
    const cluster = new TestCluster([{ id: 3, configuration: three, hardState, batches }]);
    const node = cluster.node(3);
    const start = positionOf(batches[2]!);
    expect(node.raft.snapshotOffered(1, 2, start)).toBe("held");
    expect(node.raft.commit).toBe(3);
    expect(node.raft.lastIndex).toBe(4);
    expect(node.raft.restored(start, three)).toBe(false);
    cluster.run(node);
    expect(acksOf(cluster, 3).map(({ index }) => index)).toEqual([3]);
  });

  test("an older one than its log's start changes nothing, and is answered", () => {
    const cluster = found();
    const receiver = cluster.node(3);
    const leader = cluster.node(1);
    const older = leader.raft.positionAt(9)!;
    leader.sendSnapshot(receiver, 11);
    cluster.settle();
    cluster.sent = [];
    expect(receiver.raft.snapshotOffered(1, leader.raft.term, older)).toBe("held");
    expect(receiver.raft.restored(older, three)).toBe(false);
    cluster.settle();
    expect(receiver.raft.startIndex).toBe(11);
    expect(acksOf(cluster, 3).map(({ index }) => index)).toEqual([11]);
  });

  test("an offer of an older term is refused with the newer one; one of a newer term makes a follower", () => {
    const cluster = found();
    const receiver = cluster.node(3);
    const { term } = receiver.raft;
    const start = cluster.node(1).raft.positionAt(11)!;
    expect(receiver.raft.snapshotOffered(2, term + 1, start)).toBe("needed");
    expect(receiver.raft).toMatchObject({ term: term + 1, leader: 2, role: "follower" });
    expect(receiver.raft.snapshotOffered(1, term, start)).toBe("refused");
    cluster.run(receiver);
    expect(cluster.sent.at(-1)).toMatchObject({
      type: "appendReply",
      to: 1,
      accepted: false,
      term: term + 1,
    });
    // Within a term only its leader is believed.
    expect(receiver.raft.snapshotOffered(1, term + 1, start)).toBe("refused");
  });

  test("nonsense is refused", () => {
    const node = found().node(3);
    const { term } = node.raft;
    const start = { index: 50, term, crc: 1, timeMs: 0 };
    for (const [from, inTerm, odd] of [
      [3, term, {}],
      [0, term, {}],
      [1, 2 ** 53, {}],
      [1, -1, {}],
      [1, term, { index: -1 }],
      [1, term, { index: 2 ** 53 }],
      [1, term, { term: term + 1 }],
      [1, term, { timeMs: Number.NaN }],
    ] as const) {
      expect(node.raft.snapshotOffered(from, inTerm, { ...start, ...odd })).toBe("refused");
    }
    expect(node.raft.term).toBe(term);
  });

  test("one that differs from what is committed here stops the group", () => {
    const batches = logOf([1, 1, 1]);
    const cluster = new TestCluster([
      { id: 3, configuration: three, hardState: { ...hardState, commit: 3 }, batches },
    ]);
    const { raft } = cluster.node(3);
    const start = positionOf(batches[1]!);
    expect(() => raft.snapshotOffered(1, 2, { ...start, term: 2 })).toThrow(/committed/);
    expect(() => raft.snapshotOffered(1, 2, { ...start, crc: start.crc + 1 })).toThrow(/corrupt/);
  });

  test("a leader takes none over", () => {
    const cluster = found();
    const { raft } = cluster.node(1);
    const start = { index: 100, term: raft.term, crc: 1, timeMs: 0 };
    expect(raft.restored(start, three)).toBe(false);
    expect(raft.snapshotOffered(2, raft.term, start)).toBe("refused");
  });
});

function positionOf(batch: { firstIndex: number; count: number; term: number; crc: number }) {
  return { index: batch.firstIndex + batch.count - 1, term: batch.term, crc: batch.crc, timeMs: 0 };
}

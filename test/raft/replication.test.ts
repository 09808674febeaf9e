/** Pipelining, back-off, windows and recovery from loss (correctness.md part C), and configurations along the log. */
import { describe, expect, test } from "bun:test";
import { checkLimits } from "../../src/limits.ts";
import { batchHeaderBytes, lastIndexOf } from "../../src/wire/batch.ts";
import type { AppendMessage, RaftMessage } from "../../src/wire/messages.ts";
import { TestCluster, configurationOf, group, logOf, testLimits } from "./harness.ts";

const three = configurationOf([1, 2, 3]);
const { electionTicksMin, electionTicksMax, heartbeatTicks } = testLimits;

function appendsTo(cluster: TestCluster, to: number): AppendMessage[] {
  return cluster.sent.filter(
    (message) => message.type === "append" && message.to === to,
  ) as AppendMessage[];
}

/** Cluster of three that node 1 leads, all in replicate state. */
function led(limits = testLimits): TestCluster {
  const cluster = TestCluster.of(3, 1, limits);
  cluster.elect(1);
  cluster.settle();
  cluster.sent = [];
  return cluster;
}

describe("pipelining", () => {
  test("appends leave without waiting for acknowledgements, up to the window in frames", () => {
    const cluster = led(checkLimits({ ...testLimits, inflightFramesMax: 3 }));
    cluster.delivers = () => false;
    for (let round = 0; round < 6; round++) {
      cluster.node(1).propose();
      cluster.settle();
    }
    expect(appendsTo(cluster, 2).map(({ fromIndex, toIndex }) => [fromIndex, toIndex])).toEqual([
      [2, 2],
      [3, 3],
      [4, 4],
    ]);
    const { term } = cluster.node(1).raft;
    cluster.node(1).raft.step({
      type: "appendReply",
      group,
      from: 2,
      to: 1,
      term,
      accepted: true,
      index: 3,
      hintIndex: 0,
      hintTerm: 0,
      wounded: false,
    });
    cluster.settle();
    // What waited goes as one frame.
    expect(
      appendsTo(cluster, 2)
        .slice(3)
        .map(({ fromIndex, toIndex }) => [fromIndex, toIndex]),
    ).toEqual([[5, 7]]);
  });

  test("and in bytes; a batch over the window travels alone; frames are bounded", () => {
    const bytes = (body: number): number => batchHeaderBytes + body;
    const limits = checkLimits({
      ...testLimits,
      inflightBytesMax: bytes(100) * 3,
      appendBytesMax: bytes(100) * 2,
    });
    const cluster = led(limits);
    cluster.delivers = () => false;
    for (let round = 0; round < 4; round++) cluster.node(1).propose(1, "x".repeat(100));
    cluster.node(1).propose(1, "x".repeat(1_000));
    cluster.settle();
    const sizes = (): number[][] =>
      appendsTo(cluster, 2).map(({ batches }) =>
        batches.map((batch) => batch.bytes.byteLength - batchHeaderBytes),
      );
    expect(sizes()).toEqual([[100, 100], [100]]);
    expect(cluster.node(1).raft.progress()[0]!.inflightBytes).toBe(bytes(100) * 3);
    const ack = (index: number): void =>
      cluster.node(1).raft.step({
        type: "appendReply",
        group,
        from: 2,
        to: 1,
        term: 1,
        accepted: true,
        index,
        hintIndex: 0,
        hintTerm: 0,
        wounded: false,
      });
    ack(3);
    cluster.settle();
    expect(sizes().slice(2)).toEqual([[100]]);
    ack(5);
    cluster.settle();
    expect(sizes().slice(3)).toEqual([[1_000]]);
  });

  test("news of a commit reaches a follower without waiting for a heartbeat", () => {
    const cluster = led();
    cluster.node(1).propose();
    cluster.settle();
    expect([1, 2, 3].map((id) => cluster.node(id).commit)).toEqual([2, 2, 2]);
    expect(cluster.sent.some(({ type }) => type === "heartbeat")).toBe(false);
    // Two frames there, one acknowledgement back.
    expect(appendsTo(cluster, 2)).toHaveLength(2);
    expect(
      cluster.sent.filter(({ type, from }) => type === "appendReply" && from === 2),
    ).toHaveLength(1);
  });
});

describe("loss", () => {
  test("in probe one append leaves per heartbeat interval", () => {
    const cluster = led();
    cluster.isolate(2);
    cluster.node(1).raft.peerReset(2);
    for (let round = 0; round < 5; round++) cluster.node(1).propose();
    cluster.settle();
    expect(appendsTo(cluster, 2)).toHaveLength(1);
    cluster.tick(heartbeatTicks * 3);
    expect(appendsTo(cluster, 2)).toHaveLength(4);
    expect(cluster.node(1).raft.progress()[0]!.state).toBe("probe");
  });

  test("a pipeline that lost everything starts over without being told of a connection", () => {
    const cluster = led();
    cluster.delivers = ({ type, to }) => type !== "append" || to !== 2;
    for (let round = 0; round < 20; round++) {
      cluster.node(1).propose();
      cluster.settle();
    }
    expect(cluster.node(2).raft.lastIndex).toBe(1);
    cluster.heal();
    cluster.tick(electionTicksMin + heartbeatTicks);
    expect(cluster.node(2).commit).toBe(21);
    expect(cluster.node(1).raft.progress()[0]!.state).toBe("replicate");
  });

  test("acknowledgements that were lost are made good", () => {
    const cluster = led();
    cluster.delivers = ({ type, from }) => type !== "appendReply" || from !== 2;
    for (let round = 0; round < 20; round++) {
      cluster.node(1).propose();
      cluster.settle();
    }
    cluster.heal();
    cluster.tick(electionTicksMin + heartbeatTicks);
    expect(cluster.node(1).raft.progress()[0]).toMatchObject({
      match: 21,
      state: "replicate",
      inflightBytes: 0,
    });
  });

  test("a lost probe is sent again, though reads make heartbeats all the time", () => {
    const cluster = led();
    cluster.delivers = ({ type, to }) => type !== "append" || to !== 2;
    cluster.node(1).raft.peerReset(2);
    cluster.node(1).propose();
    cluster.settle();
    cluster.heal();
    for (let ticks = 0; ticks < 2 * heartbeatTicks; ticks++) {
      cluster.node(1).raft.readIndex(ticks + 1);
      cluster.tick();
    }
    expect(cluster.node(1).raft.progress()[0]).toMatchObject({ match: 2, state: "replicate" });
  });

  test("old and shorter appends never cut the log (C4)", () => {
    const cluster = led();
    for (let round = 0; round < 4; round++) {
      cluster.node(1).propose(2);
      cluster.settle();
    }
    for (const message of appendsTo(cluster, 2)) cluster.node(2).raft.step(message);
    cluster.settle();
    expect(cluster.node(2).raft.lastIndex).toBe(9);
  });

  test("a follower that restarts while nothing is written learns what is committed, once it is connected", () => {
    const cluster = led();
    const leader = cluster.node(1);
    leader.propose(3);
    cluster.settle();
    cluster.tick(3 * heartbeatTicks);
    const two = cluster.node(2);
    const { commit } = leader;
    two.restart();
    expect(two.raft.commit).toBeLessThan(commit);
    leader.raft.peerReset(2);
    cluster.settle();
    cluster.tick(2 * heartbeatTicks);
    expect(leader.raft.role).toBe("leader");
    expect(two.raft.commit).toBe(commit);
  });

  test("a follower that restarts, having lost what was not synced, is brought up again", () => {
    const cluster = led();
    cluster.autoSync = false;
    for (let round = 0; round < 10; round++) {
      cluster.node(1).propose();
      cluster.settle();
    }
    cluster.node(2).restart();
    cluster.autoSync = true;
    cluster.node(1).raft.peerReset(2);
    cluster.node(1).sync();
    cluster.node(3).sync();
    cluster.tick(electionTicksMin);
    expect(cluster.node(2).commit).toBe(11);
  });
});

describe("back-off", () => {
  const hardState = (term: number) => ({ term, votedFor: 0, commit: 0 });

  test("a hint inside one of the leader's batches is rounded down to its first index [2]", () => {
    const cluster = new TestCluster([
      {
        id: 1,
        configuration: three,
        batches: logOf([1, 2, 2], [2, 5, 4]),
        hardState: hardState(2),
      },
      {
        id: 2,
        configuration: three,
        batches: logOf([1, 1, 1], [2, 2, 2]),
        hardState: hardState(1),
      },
      { id: 3, configuration: three, hardState: hardState(2) },
    ]);
    cluster.elect(1);
    cluster.tick(2 * heartbeatTicks);
    expect(cluster.node(2).visible.batches.map(({ crc }) => crc)).toEqual(
      cluster.node(1).visible.batches.map(({ crc }) => crc),
    );
    expect(cluster.node(2).commit).toBe(12);
  });

  test("one rejection skips a whole run of conflicting terms", () => {
    const cluster = new TestCluster([
      {
        id: 1,
        configuration: three,
        batches: logOf([1, ...Array.from({ length: 50 }, () => 5)]),
        hardState: hardState(5),
      },
      {
        id: 2,
        configuration: three,
        batches: logOf([1, ...Array.from({ length: 50 }, () => 3)]),
        hardState: hardState(3),
      },
      { id: 3, configuration: three, hardState: hardState(5) },
    ]);
    cluster.elect(1);
    cluster.tick(heartbeatTicks);
    const rejections = cluster.sent.filter(
      (message) => message.type === "appendReply" && message.from === 2 && !message.accepted,
    );
    expect(rejections.length).toBeLessThanOrEqual(2);
    expect(cluster.node(2).commit).toBe(52);
  });

  test("an acknowledgement that ends in no batch is a protocol error: not believed, and the peer is probed [2]", () => {
    const cluster = led();
    cluster.delivers = () => false;
    cluster.node(1).propose(4);
    cluster.settle();
    for (const index of [3, 99])
      cluster.node(1).raft.step({
        type: "appendReply",
        group,
        from: 2,
        to: 1,
        term: 1,
        accepted: true,
        index,
        hintIndex: 0,
        hintTerm: 0,
        wounded: false,
      });
    cluster.run(cluster.node(1));
    expect(cluster.node(1).raft.progress()[0]).toMatchObject({ match: 1, next: 2, state: "probe" });
    expect(cluster.node(1).commit).toBe(1);
  });

  test("a stale rejection neither lowers match nor moves a replicating peer (C3)", () => {
    const cluster = led();
    cluster.node(1).propose();
    cluster.settle();
    cluster.node(1).raft.step({
      type: "appendReply",
      group,
      from: 2,
      to: 1,
      term: 1,
      accepted: false,
      index: 1,
      hintIndex: 0,
      hintTerm: 0,
      wounded: false,
    });
    expect(cluster.node(1).raft.progress()[0]).toMatchObject({
      match: 2,
      next: 3,
      state: "replicate",
    });
  });
});

describe("log retirement", () => {
  test("every member learns up to where all have the log; below, it may go", () => {
    const cluster = led();
    for (let round = 0; round < 5; round++) cluster.node(1).propose(2);
    cluster.settle();
    cluster.tick(heartbeatTicks);
    expect([1, 2, 3].map((id) => cluster.node(id).raft.minMatch())).toEqual([11, 11, 11]);
    for (const id of [1, 2, 3]) {
      cluster.node(id).apply();
      cluster.node(id).compact(8);
      expect(cluster.node(id).raft).toMatchObject({ firstIndex: 8, lastIndex: 11 });
    }
    const leader = cluster.elect(2);
    leader.propose();
    cluster.tick(heartbeatTicks);
    expect([1, 2, 3].map((id) => cluster.node(id).commit)).toEqual([13, 13, 13]);
    expect(cluster.node(3).raft.compactionPoint(12)).toMatchObject({ index: 11, term: 1 });
  });

  test("a member that lags, or is away, holds the log of all", () => {
    const cluster = led();
    cluster.isolate(3);
    for (let round = 0; round < 5; round++) cluster.node(1).propose();
    cluster.tick(3 * heartbeatTicks);
    expect([1, 2].map((id) => cluster.node(id).raft.minMatch())).toEqual([1, 1]);
  });

  test("a member that needs what is gone is shown in snapshot state, and gets heartbeats only", () => {
    const cluster = led();
    for (let round = 0; round < 5; round++) cluster.node(1).propose();
    cluster.settle();
    const leader = cluster.node(1);
    leader.apply();
    leader.compact(4);
    const empty = TestCluster.of(3).node(3);
    cluster.nodes.set(3, empty);
    leader.raft.peerReset(3);
    cluster.sent = [];
    leader.propose();
    cluster.tick(4 * heartbeatTicks + electionTicksMin);
    const progress = leader.raft.progress()[1]!;
    // It acknowledged all this before it lost it: its match is not taken back, and it does not get there again.
    expect(progress.match).toBe(6);
    expect(empty.raft.lastIndex).toBe(0);
    // A leader that never heard of that match finds out.
    cluster.node(2).apply();
    cluster.node(2).compact(4);
    const next = cluster.elect(2);
    cluster.tick(4 * heartbeatTicks);
    expect(next.raft.progress().find(({ id }) => id === 3)!.state).toBe("snapshot");
    cluster.sent = [];
    next.propose();
    cluster.tick(electionTicksMax);
    expect(appendsTo(cluster, 3)).toEqual([]);
    expect(cluster.sent.some(({ type, to }) => type === "heartbeat" && to === 3)).toBe(true);
    expect(next.commit).toBe(next.raft.lastIndex);
  });
});

describe("configurations", () => {
  test("in force on append, on leader and followers, and taken back with its batch [37]", () => {
    const cluster = led();
    const leader = cluster.node(1);
    cluster.delivers = ({ from, to }) => from !== 3 && to !== 3 && (from !== 2 || to !== 1);
    leader.proposeConfiguration(configurationOf([1, 2, 3], [4]));
    expect(leader.raft.configuration.learners).toEqual([4]);
    expect(leader.raft.configurationCommitted).toBe(false);
    expect(leader.raft.progress().map(({ id }) => id)).toEqual([2, 3, 4]);
    cluster.settle();
    expect(cluster.node(2).raft.configuration.learners).toEqual([4]);
    // Node 3 never saw it, and leads next: with its no-op the others' configuration batch is gone.
    cluster.delivers = ({ from, to }) => from !== 1 && to !== 1;
    const two = cluster.node(2);
    two.restart();
    two.visible.batches.pop();
    two.durable.batches.pop();
    two.restart();
    cluster.tick(3 * electionTicksMax);
    cluster.heal();
    cluster.tick(3 * electionTicksMax);
    expect(cluster.leader!.id).not.toBe(1);
    expect([1, 2, 3].map((id) => cluster.node(id).raft.configuration)).toEqual([
      three,
      three,
      three,
    ]);
  });

  test("a learner is sent everything and counts for nothing", () => {
    const configuration = configurationOf([1, 2], [3]);
    const cluster = new TestCluster([1, 2, 3].map((id) => ({ id, configuration })));
    const leader = cluster.elect(1);
    cluster.isolate(2);
    leader.propose();
    cluster.settle();
    expect(cluster.node(3).raft.durableIndex).toBe(2);
    expect(leader.commit).toBe(1);
  });

  test("a joint configuration commits with both majorities", () => {
    const configuration = configurationOf([1, 2, 3], [], [1, 4, 5]);
    const cluster = new TestCluster([1, 2, 3, 4, 5].map((id) => ({ id, configuration })));
    const leader = cluster.elect(1);
    cluster.isolate(4, 5);
    leader.propose();
    cluster.settle();
    expect(leader.commit).toBe(1);
    cluster.heal();
    cluster.tick(electionTicksMin + heartbeatTicks);
    expect(leader.commit).toBe(2);
  });

  test("a leader that is no longer a voter goes once that is committed", () => {
    const cluster = led();
    const leader = cluster.node(1);
    leader.proposeConfiguration(configurationOf([2, 3], [], [1, 2, 3]));
    cluster.settle();
    const batch = leader.proposeConfiguration(configurationOf([2, 3]));
    expect(leader.raft.role).toBe("leader");
    cluster.settle();
    expect(leader.commit).toBeGreaterThanOrEqual(lastIndexOf(batch));
    expect(String(leader.raft.role)).toBe("follower");
    // It has handed over: nobody waits for a time-out.
    expect([2, 3]).toContain(cluster.leader!.id);
  });
});

test("messages of other groups, for others, or from oneself are dropped", () => {
  const cluster = led();
  const node = cluster.node(2);
  const message: RaftMessage = {
    type: "heartbeat",
    group,
    from: 1,
    to: 2,
    term: 9,
    commit: 0,
    readSeq: 0,
    freshStamp: 0,
    minMatch: 0,
  };
  for (const wrong of [{ group: 8 }, { to: 3 }, { from: 2 }, { term: Number.NaN }, { commit: -1 }])
    node.raft.step({ ...message, ...wrong } as RaftMessage);
  expect({ term: node.raft.term, ready: node.raft.hasReady() }).toEqual({ term: 1, ready: false });
});

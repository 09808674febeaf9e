/** Read index and bounded staleness (decisions 34 and 35, correctness.md part R). */
import { describe, expect, test } from "bun:test";
import type { RaftMessage } from "../../src/wire/messages.ts";
import { checkLimits } from "../../src/limits.ts";
import { TestCluster, TestNode, configurationOf, testLimits } from "./harness.ts";

const { electionTicksMax, heartbeatTicks } = testLimits;

function led(): TestCluster {
  const cluster = TestCluster.of(3);
  cluster.elect(1);
  cluster.sent = [];
  return cluster;
}

function rounds(cluster: TestCluster): number[] {
  return cluster.sent.flatMap((message) =>
    message.type === "heartbeat" && message.to === 2 ? [message.readSeq] : [],
  );
}

describe("on the leader", () => {
  test("all reads of a turn share one round, sent at once; its quorum answers them", () => {
    const cluster = led();
    for (const context of [1, 2, 3]) cluster.node(1).raft.readIndex(context);
    cluster.settle();
    expect(rounds(cluster)).toHaveLength(1);
    expect(cluster.node(1).reads).toEqual(
      [1, 2, 3].map((context) => ({ context, index: 1, ok: true })),
    );
  });

  test("a read never joins a round that was sent before it came (R1)", () => {
    const cluster = led();
    const leader = cluster.node(1);
    leader.raft.readIndex(1);
    cluster.run(leader);
    const sent = cluster.wire.splice(0);
    leader.raft.readIndex(2);
    cluster.run(leader);
    // The first round is under way: the second waits for it, and has not left.
    expect(cluster.wire).toEqual([]);
    for (const message of sent) cluster.node(message.to).raft.step(message);
    cluster.run(cluster.node(2));
    for (const message of cluster.wire.splice(0)) leader.raft.step(message);
    cluster.run(leader);
    expect(leader.reads.map(({ context }) => context)).toEqual([1]);
    cluster.settle();
    expect(leader.reads.map(({ context }) => context)).toEqual([1, 2]);
  });

  test("a round that is lost is made good by the next heartbeat", () => {
    const cluster = led();
    cluster.delivers = () => false;
    cluster.node(1).raft.readIndex(1);
    cluster.settle();
    cluster.heal();
    cluster.tick(heartbeatTicks);
    expect(cluster.node(1).reads).toEqual([{ context: 1, index: 1, ok: true }]);
  });

  test("a leader without a quorum answers nothing, and fails its reads when it steps down", () => {
    const cluster = led();
    const old = cluster.node(1);
    cluster.isolate(1);
    old.raft.readIndex(1);
    cluster.tick(4);
    expect(old.reads).toEqual([]);
    cluster.tick(testLimits.checkQuorumTicks);
    expect(old.reads).toEqual([{ context: 1, index: 0, ok: false }]);
  });

  test("before the leader's own term has committed, reads wait (R1)", () => {
    const cluster = TestCluster.of(3);
    cluster.delivers = ({ type }) => type !== "append";
    const leader = cluster.elect(1);
    leader.raft.readIndex(1);
    cluster.tick(3 * heartbeatTicks);
    expect(leader.reads).toEqual([]);
    cluster.heal();
    cluster.tick(2 * heartbeatTicks);
    expect(leader.reads).toEqual([{ context: 1, index: 1, ok: true }]);
  });

  test("a single voter needs nobody", () => {
    const node = new TestNode({ id: 1, configuration: configurationOf([1]) });
    node.raft.tick();
    for (let turn = node.turn(); turn !== undefined; turn = node.turn()) node.sync();
    node.raft.readIndex(5);
    node.turn();
    expect(node.reads).toEqual([{ context: 5, index: 1, ok: true }]);
  });

  test("too many reads are refused", () => {
    const cluster = TestCluster.of(3, 1, checkLimits({ ...testLimits, readWaitersMax: 2 }));
    cluster.elect(1);
    for (const context of [1, 2, 3]) cluster.node(1).raft.readIndex(context);
    cluster.settle();
    expect(cluster.node(1).reads.filter(({ ok }) => !ok)).toEqual([
      { context: 3, index: 0, ok: false },
    ]);
    expect(cluster.node(1).reads).toHaveLength(3);
  });
});

describe("on a follower", () => {
  test("the leader is asked once for all reads, and the index covers what was committed before", () => {
    const cluster = led();
    cluster.node(1).propose(3);
    cluster.settle();
    for (const context of [7, 8]) cluster.node(2).raft.readIndex(context);
    cluster.settle();
    expect(cluster.sent.filter(({ type }) => type === "readIndex")).toHaveLength(1);
    expect(cluster.node(2).reads).toEqual(
      [7, 8].map((context) => ({ context, index: 4, ok: true })),
    );
  });

  test("a question or an answer that is lost is asked again; without a leader the read fails in time", () => {
    const cluster = led();
    cluster.delivers = ({ type }) => type !== "readIndex";
    cluster.node(2).raft.readIndex(1);
    cluster.tick(1);
    cluster.delivers = ({ type }) => type !== "readIndexReply";
    cluster.tick(heartbeatTicks);
    cluster.heal();
    cluster.tick(heartbeatTicks);
    expect(cluster.node(2).reads).toEqual([{ context: 1, index: 1, ok: true }]);
    cluster.isolate(2);
    cluster.node(2).raft.readIndex(2);
    cluster.tick(electionTicksMax + 2);
    expect(cluster.node(2).reads.slice(1)).toEqual([{ context: 2, index: 0, ok: false }]);
  });

  test("an answer to a question of an earlier life is not taken", () => {
    const cluster = led();
    const node = cluster.node(2);
    node.raft.readIndex(1);
    const answers: RaftMessage[] = [];
    cluster.delivers = (message) => {
      if (message.type === "readIndexReply") answers.push(message);
      return message.type !== "readIndexReply";
    };
    cluster.settle();
    node.restart();
    cluster.tick(heartbeatTicks);
    node.raft.readIndex(2);
    cluster.settle();
    node.raft.step(answers[0]!);
    cluster.settle();
    expect(node.reads).toEqual([]);
  });

  test("reads that wait when a node is elected are its own", () => {
    const cluster = led();
    cluster.isolate(1);
    const node = cluster.node(2);
    for (
      let ticks = 0;
      ticks < 3 * electionTicksMax && cluster.node(2).raft.role === "follower";
      ticks++
    )
      cluster.tick();
    node.raft.readIndex(1);
    cluster.tick(2 * electionTicksMax);
    expect(node.reads).toHaveLength(1);
  });
});

describe("staleness of local reads", () => {
  const ages = (cluster: TestCluster): number[] =>
    [1, 2, 3].map((id) => cluster.node(id).raft.stalenessTicks);

  test("stays within two heartbeats while all is well, and grows with silence", () => {
    const cluster = led();
    for (const node of cluster.nodes.values()) node.apply();
    cluster.tick(3 * heartbeatTicks);
    for (const age of ages(cluster)) expect(age).toBeLessThanOrEqual(2 * heartbeatTicks);
    cluster.isolate(3);
    const before = cluster.node(3).raft.stalenessTicks;
    cluster.tick(10);
    expect(cluster.node(3).raft.stalenessTicks).toBe(before + 10);
    expect(cluster.node(1).raft.stalenessTicks).toBeLessThanOrEqual(2 * heartbeatTicks);
  });

  test("a follower that does not apply, or does not get the log, is not fresh, however many heartbeats it hears", () => {
    const cluster = led();
    for (const node of cluster.nodes.values()) node.apply();
    cluster.tick(3 * heartbeatTicks);
    cluster.delivers = ({ type, to }) => type !== "append" || to !== 3;
    cluster.node(1).propose();
    cluster.settle();
    cluster.node(1).apply();
    cluster.tick(20);
    // Node 2 has it committed but not applied, node 3 has not got it.
    expect(cluster.node(2).raft.stalenessTicks).toBeGreaterThan(15);
    expect(cluster.node(3).raft.stalenessTicks).toBeGreaterThan(15);
    expect(cluster.node(1).raft.stalenessTicks).toBeLessThanOrEqual(2 * heartbeatTicks);
    cluster.node(2).apply();
    cluster.tick(heartbeatTicks);
    expect(cluster.node(2).raft.stalenessTicks).toBeLessThanOrEqual(2 * heartbeatTicks);
  });

  test("what a machine has forgotten counts as not applied, until it has that again", () => {
    const cluster = led();
    for (const node of cluster.nodes.values()) node.apply();
    cluster.node(1).propose();
    cluster.tick(3 * heartbeatTicks);
    for (const node of cluster.nodes.values()) node.apply();
    cluster.tick(heartbeatTicks);
    for (const { raft } of cluster.nodes.values()) {
      expect(raft.stalenessTicks).toBeLessThanOrEqual(2 * heartbeatTicks);
      raft.applied(raft.commit - 1);
    }
    cluster.tick(2 * heartbeatTicks);
    for (const { raft } of cluster.nodes.values()) {
      expect(raft.unappliedBytes).toBeGreaterThan(0);
      raft.applied(raft.commit);
      expect(raft.unappliedBytes).toBe(0);
    }
    cluster.tick(heartbeatTicks);
    for (const age of ages(cluster)) expect(age).toBeLessThanOrEqual(2 * heartbeatTicks);
  });

  test("a follower whose machine has forgotten what it had is not fresh until then", () => {
    const cluster = led();
    for (const node of cluster.nodes.values()) node.apply();
    cluster.node(1).propose();
    cluster.tick(3 * heartbeatTicks);
    for (const node of cluster.nodes.values()) node.apply();
    cluster.tick(heartbeatTicks);
    const { raft } = cluster.node(3);
    expect(raft.stalenessTicks).toBeLessThanOrEqual(2 * heartbeatTicks);
    raft.applied(raft.commit - 1);
    expect(raft.stalenessTicks).toBe(Infinity);
    cluster.tick(20);
    expect(raft.stalenessTicks).toBe(Infinity);
    raft.applied(raft.commit);
    cluster.tick(heartbeatTicks);
    expect(raft.stalenessTicks).toBeLessThanOrEqual(2 * heartbeatTicks);
  });

  test("a heartbeat that was long under way makes nothing look fresher than it is", () => {
    const cluster = led();
    for (const node of cluster.nodes.values()) node.apply();
    cluster.tick(3 * heartbeatTicks);
    const late: RaftMessage[] = [];
    cluster.delivers = (message) => {
      if (message.type === "heartbeat" && message.to === 3) late.push(message);
      return message.to !== 3;
    };
    // Until check-quorum node 1 leads on, and its heartbeats wait on the way.
    cluster.tick(3 * heartbeatTicks);
    cluster.delivers = ({ to, from }) => to !== 3 && from !== 3;
    cluster.tick(30);
    const before = cluster.node(3).raft.stalenessTicks;
    expect(before).toBeGreaterThan(30);
    for (const message of late) cluster.node(3).raft.step(message);
    expect(cluster.node(3).raft.stalenessTicks).toBeGreaterThan(30);
  });

  test("a heartbeat of an earlier life says nothing", () => {
    const cluster = led();
    for (const node of cluster.nodes.values()) node.apply();
    cluster.tick(3 * heartbeatTicks);
    let last: RaftMessage | undefined;
    cluster.delivers = (message) => {
      if (message.type === "heartbeat" && message.to === 3) last = message;
      return true;
    };
    cluster.tick(2 * heartbeatTicks);
    cluster.node(3).restart();
    cluster.node(3).apply();
    cluster.node(3).raft.step(last!);
    expect(cluster.node(3).raft.stalenessTicks).toBe(Infinity);
  });

  test("the answer to a question is as fresh as the question", () => {
    const cluster = led();
    for (const node of cluster.nodes.values()) node.apply();
    cluster.delivers = ({ type }) => type !== "heartbeat" || cluster.node(1).raft.readsWaiting > 0;
    const asked = cluster.node(2).raft;
    cluster.tick(1);
    asked.readIndex(1);
    cluster.settle();
    expect(asked.stalenessTicks).toBe(0);
    cluster.tick(3);
    expect(asked.stalenessTicks).toBe(3);
  });

  test("unknown until a leader was heard", () => {
    expect(TestCluster.of(3).node(1).raft.stalenessTicks).toBe(Infinity);
  });
});

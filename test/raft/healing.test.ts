/** A node that has lost durable data: it promises nothing, fetches, and is whole again once a leader has matched it as far as it was. */
import { describe, expect, test } from "bun:test";
import { checkLimits } from "../../src/limits.ts";
import { Healing } from "../../src/raft/healing.ts";
import type { RaftMessage } from "../../src/wire/messages.ts";
import { group, logOf, TestCluster, testLimits, type TestNode } from "./harness.ts";

/** Three nodes, node 1 leads, ten commands are committed and applied everywhere. */
function settled(nodes = 3, limits = testLimits): { cluster: TestCluster; leader: TestNode } {
  const cluster = TestCluster.of(nodes, 1, limits);
  const leader = cluster.elect(1);
  for (let i = 0; i < 5; i++) leader.propose(2);
  cluster.settle();
  cluster.tick(testLimits.heartbeatTicks);
  for (const node of cluster.nodes.values()) node.apply();
  return { cluster, leader };
}

function vote(to: TestNode, from: number, term: number, lastIndex = 100): RaftMessage {
  const lastTerm = term - 1;
  return { type: "vote", group, from, to: to.id, term, lastIndex, lastTerm, transfer: false };
}

/** What the node answers to a message. */
function answers(node: TestNode, message: RaftMessage): RaftMessage[] {
  node.raft.step(message);
  const sent: RaftMessage[] = [];
  for (let turn = node.turn(); turn !== undefined; turn = node.turn()) {
    sent.push(...turn.messages);
    node.sync();
  }
  return sent;
}

describe("a wounded node", () => {
  test("neither votes nor campaigns, pre-vote included", () => {
    const { cluster } = settled();
    const node = cluster.node(2);
    node.restartRotten(5);
    expect(node.raft.wound).toMatchObject({ index: 11, term: 1 });
    for (const type of ["preVote", "vote"] as const) {
      const term = node.raft.term + 1;
      const [answer] = answers(node, { ...vote(node, 3, term), type } as RaftMessage);
      expect(answer).toMatchObject({ type: `${type}Reply`, granted: false });
    }
    cluster.isolate(2);
    cluster.sent = [];
    cluster.tick(5 * testLimits.electionTicksMax);
    expect(cluster.sent.filter(({ from }) => from === 2)).toEqual([]);
    expect(node.raft.role).toBe("follower");
  });

  test("does not follow the wish of its leader to lead", () => {
    const { cluster, leader } = settled();
    const node = cluster.node(2);
    node.restartRotten(5);
    const { lastIndex, lastTerm, term } = node.raft;
    node.raft.step({ type: "timeoutNow", group, from: 1, to: 2, term, lastIndex, lastTerm });
    cluster.settle();
    expect(node.raft.role).toBe("follower");
    expect(leader.raft.role).toBe("leader");
  });

  test("fetches what the same leader takes for matched, and heals", () => {
    const { cluster, leader } = settled();
    const node = cluster.node(2);
    node.restartRotten(5);
    expect(leader.raft.progress().find(({ id }) => id === 2)!.match).toBe(11);
    cluster.tick(2 * testLimits.heartbeatTicks);
    expect(node.raft.wound).toBeUndefined();
    expect(node.wound).toBeUndefined();
    expect(node.raft.lastIndex).toBe(11);
    expect(leader.raft.progress().find(({ id }) => id === 2)!.match).toBe(11);
    expect(leader.raft.term).toBe(1);
  });

  test("fetches an empty log too", () => {
    const { cluster, leader } = settled();
    const node = cluster.node(2);
    node.restartRotten(0);
    cluster.tick(3 * testLimits.heartbeatTicks);
    expect(node.raft.wound).toBeUndefined();
    expect(node.raft.lastIndex).toBe(leader.raft.lastIndex);
  });

  test("that lost nothing of its log heals once the leader has matched it", () => {
    const { cluster } = settled();
    const node = cluster.node(2);
    node.restartRotten(11, { term: 0, votedFor: 0, commit: 0 });
    expect(node.raft.wound).toBeDefined();
    cluster.tick(2 * testLimits.heartbeatTicks);
    expect(node.raft.wound).toBeUndefined();
  });

  test("counts its vote in the terms that it may have forgotten as given", () => {
    const { cluster } = settled();
    const node = cluster.node(2);
    // It votes for 3 in term 5, and forgets.
    cluster.isolate(2);
    for (let i = 0; i <= testLimits.electionTicksMin; i++) node.raft.tick();
    const answer = answers(node, vote(node, 3, 5)).at(-1);
    expect(answer).toMatchObject({ type: "voteReply", granted: true });
    node.restartRotten(11, { term: 1, votedFor: 1, commit: 0 });
    cluster.sent = [];
    expect(node.raft.term).toBe(5);
    expect(node.raft.votedFor).toBe(2);
    cluster.heal();
    cluster.tick(4 * testLimits.electionTicksMax);
    // The leader of term 1 met the higher term; a later one has healed the node.
    expect(node.raft.wound).toBeUndefined();
    expect(cluster.leader!.raft.term).toBeGreaterThan(5);
    const votes = cluster.sent.filter((message) => message.type === "voteReply" && message.granted);
    expect(votes.filter(({ from, term }) => from === 2 && term <= 5)).toEqual([]);
  });

  test("does not count towards a commit, nor does what it said before", () => {
    const { cluster, leader } = settled();
    const node = cluster.node(2);
    cluster.isolate(3);
    leader.propose(1);
    cluster.settle();
    const { commit } = leader.raft;
    expect(commit).toBe(12);
    // It comes to all but the end: a frame is lost.
    node.restartRotten(5);
    cluster.delivers = ({ type, from, to }) =>
      from !== 3 && to !== 3 && !(type === "append" && to === 2);
    cluster.tick(testLimits.heartbeatTicks);
    leader.propose(1);
    cluster.settle();
    expect(leader.raft.commit).toBe(commit);
    // Healed, it counts again.
    cluster.isolate(3);
    cluster.tick(2 * testLimits.heartbeatTicks);
    expect(node.raft.wound).toBeUndefined();
    expect(leader.raft.commit).toBe(13);
  });

  test("does not heal before the place where it was", () => {
    const { cluster } = settled(3, checkLimits({ ...testLimits, appendBytesMax: 1 }));
    const node = cluster.node(2);
    node.restartRotten(5);
    cluster.delivers = (message) =>
      !(message.type === "append" && message.to === 2 && message.toIndex > 9);
    cluster.tick(4 * testLimits.heartbeatTicks);
    expect(node.raft.verifiedIndex).toBe(9);
    expect(node.raft.wound).toBeDefined();
    cluster.heal();
    cluster.tick(4 * testLimits.heartbeatTicks);
    expect(node.raft.wound).toBeUndefined();
  });

  test("keeps the wound over restarts until it is healed", () => {
    const { cluster } = settled();
    const node = cluster.node(2);
    node.restartRotten(5);
    cluster.run(node);
    node.restart();
    expect(node.raft.wound).toBeDefined();
    expect(answers(node, vote(node, 3, 9))).toMatchObject([{ granted: false }]);
  });

  test("keeps what its state machine had, and its log comes up to it", () => {
    const { cluster } = settled();
    const node = cluster.node(2);
    expect(node.appliedDurable).toBe(11);
    node.restartRotten(3);
    // Batches that are left may have been superseded by those that are lost, so none counts as committed.
    expect(node.raft.commit).toBe(0);
    cluster.tick(3 * testLimits.heartbeatTicks);
    expect(node.raft.commit).toBe(11);
    expect(node.raft.wound).toBeUndefined();
  });

  test("whose machine is ahead of what a leader has matched is not healed, whatever the watermark says", () => {
    const healing = new Healing({ term: 1, index: 3, hardTerm: 1 }, 11);
    expect(healing.isOver(1, 3)).toBe(false);
    expect(healing.isOver(1, 9)).toBe(false);
    expect(healing.isOver(1, 11)).toBe(true);
  });

  test("is healed by a later leader whose log is shorter, if it is of a later term", () => {
    // Node 3 had batches of term 2 that nobody else has; the others are in term 1 and elect a leader of term 3.
    const held = logOf([1, 1, 2, 2, 2]);
    const configuration = { voters: [1, 2, 3], outgoing: [], learners: [], addresses: {} };
    const cluster = new TestCluster(
      [1, 2, 3].map((id) => ({
        id,
        configuration,
        batches: id === 3 ? held : held.slice(0, 2),
        hardState: { term: 2, votedFor: 3, commit: 2 },
      })),
    );
    const node = cluster.node(3);
    node.restartRotten(4);
    expect(node.raft.wound).toEqual({ term: 2, index: 5, hardTerm: 2 });
    cluster.elect(1);
    cluster.tick(2 * testLimits.heartbeatTicks);
    expect(node.raft.wound).toBeUndefined();
    expect(node.raft.lastIndex).toBe(3);
    expect(node.raft.lastTerm).toBe(3);
  });
});

describe("damage found while running", () => {
  test("ends a leader's term of office, and the next one heals it", () => {
    const { cluster, leader } = settled();
    leader.findDamage(4);
    expect(leader.raft.role).toBe("follower");
    expect(leader.raft.stepDownReason).toContain("damaged");
    expect(leader.raft.lastIndex).toBe(3);
    expect(leader.raft.commit).toBe(3);
    cluster.tick(5 * testLimits.electionTicksMax);
    expect(cluster.leader!.id).not.toBe(1);
    expect(leader.raft.wound).toBeUndefined();
    expect(leader.raft.commit).toBe(cluster.leader!.raft.commit);
  });

  test("lets nothing leave that was promised on the strength of what is gone", () => {
    const { cluster, leader } = settled();
    const node = cluster.node(2);
    cluster.autoSync = false;
    leader.propose(1);
    cluster.run(leader);
    const append = cluster.wire.find(({ type, to }) => type === "append" && to === 2)!;
    node.raft.step(append);
    node.turn();
    node.sync();
    // The acknowledgement of 12 waits in the core.
    node.findDamage(4);
    const sent: RaftMessage[] = [];
    for (let turn = node.turn(); turn !== undefined; turn = node.turn())
      sent.push(...turn.messages);
    expect(sent.filter((message) => message.type === "appendReply" && message.index > 3)).toEqual(
      [],
    );
  });

  test("a wounded majority makes no progress, and loses nothing once one of it is whole", () => {
    const { cluster, leader } = settled();
    cluster.isolate(1);
    cluster.node(2).restartRotten(5);
    cluster.node(3).restartRotten(7);
    cluster.tick(6 * testLimits.electionTicksMax);
    expect(cluster.leader).toBeUndefined();
    // The leader that was cut off is whole, but cannot be elected by wounded nodes.
    cluster.heal();
    cluster.tick(6 * testLimits.electionTicksMax);
    expect(cluster.leader).toBeUndefined();
    expect(leader.raft.lastIndex).toBe(11);
    for (const id of [2, 3]) expect(cluster.node(id).raft.wound).toBeDefined();
  });

  test("a leader that is still there heals a majority", () => {
    const { cluster } = settled();
    cluster.node(2).restartRotten(5);
    cluster.node(3).restartRotten(7);
    cluster.tick(3 * testLimits.heartbeatTicks);
    for (const id of [2, 3]) expect(cluster.node(id).raft.wound).toBeUndefined();
  });
});

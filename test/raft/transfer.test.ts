/** Leadership transfer (dissertation 3.10, correctness.md E8): whom, when, what is held meanwhile, and what races with it. */
import { describe, expect, test } from "bun:test";
import { checkLimits } from "../../src/limits.ts";
import { InvariantError } from "../../src/raft/invariants.ts";
import type { RaftMessage } from "../../src/wire/messages.ts";
import { TestCluster, configurationOf, sealCommands, testLimits } from "./harness.ts";

const { electionTicksMin, electionTicksMax, heartbeatTicks } = testLimits;

function led(size = 3): TestCluster {
  const cluster = TestCluster.of(size);
  cluster.elect(1);
  cluster.node(1).propose(3);
  cluster.settle();
  cluster.sent = [];
  return cluster;
}

const roles = (cluster: TestCluster): string[] =>
  [...cluster.nodes.values()].map(({ raft }) => raft.role);
const sentTypes = (cluster: TestCluster): string[] => cluster.sent.map(({ type }) => type);

describe("a transfer", () => {
  test("goes to a member that has the whole log, at once, without a tick or a pre-vote", () => {
    const cluster = led();
    const { term, lastIndex } = cluster.node(1).raft;
    expect(cluster.node(1).raft.transferLeadership(2)).toEqual({ target: 2, refusal: undefined });
    cluster.settle();
    expect(roles(cluster)).toEqual(["follower", "leader", "follower"]);
    expect(cluster.node(2).raft.term).toBe(term + 1);
    expect(sentTypes(cluster)).not.toContain("preVote");
    expect(cluster.sent[0]).toMatchObject({ type: "timeoutNow", to: 2, term, lastIndex });
    // Its voters hear the old leader, and vote all the same, as their leader wants it.
    for (const message of cluster.sent)
      if (message.type === "vote") expect(message).toMatchObject({ from: 2, transfer: true });
    expect(cluster.node(1).raft).toMatchObject({ transferTarget: 0, leader: 2 });
  });

  test("without a target goes to who has most of the log", () => {
    const cluster = led(5);
    cluster.delivers = ({ to, type }) => type !== "append" || to === 4;
    cluster.node(1).propose();
    cluster.settle();
    expect(cluster.node(1).raft.transferLeadership(0)).toEqual({ target: 4, refusal: undefined });
    cluster.settle();
    expect(cluster.leader?.id).toBe(4);
  });

  test("prefers a member that says so, and only such a one is a preferred target", () => {
    const configuration = configurationOf([1, 2, 3]);
    const cluster = new TestCluster(
      [1, 2, 3].map((id) => ({ id, configuration, preferred: id === 3 })),
    );
    cluster.elect(1);
    cluster.tick(heartbeatTicks);
    expect(cluster.node(1).raft.preferredTarget).toBe(3);
    expect(cluster.node(1).raft.transferLeadership(0).target).toBe(3);
    cluster.settle();
    expect(cluster.leader?.id).toBe(3);
    cluster.tick(heartbeatTicks);
    expect(cluster.node(3).raft.preferredTarget).toBe(0);
  });

  test("to the leader itself, or asked for twice, changes nothing", () => {
    const cluster = led();
    const { raft } = cluster.node(1);
    expect(raft.transferLeadership(1)).toEqual({ target: 1, refusal: undefined });
    expect(raft.hasReady()).toBe(false);
    cluster.delivers = ({ type }) => type !== "timeoutNow";
    raft.transferLeadership(2);
    cluster.settle();
    const before = cluster.sent.length;
    expect(raft.transferLeadership(2)).toEqual({ target: 2, refusal: undefined });
    expect(raft.transferLeadership(0)).toEqual({ target: 2, refusal: undefined });
    expect(raft.transferLeadership(3)).toEqual({ target: 2, refusal: "under_way" });
    cluster.settle();
    expect(cluster.sent).toHaveLength(before);
  });

  test("waits until the target has durably what the leader has, and holds proposals meanwhile (E8)", () => {
    const cluster = led();
    const [leader, target] = [cluster.node(1), cluster.node(2)];
    cluster.autoSync = false;
    leader.propose();
    cluster.settle();
    leader.raft.transferLeadership(2);
    cluster.settle();
    // The target has it, but not on its disk.
    expect(target.raft.lastIndex).toBe(leader.raft.lastIndex);
    expect(sentTypes(cluster)).not.toContain("timeoutNow");
    expect(leader.raft.nextSeal()).toBeUndefined();
    target.sync();
    cluster.settle();
    expect(sentTypes(cluster)).toContain("timeoutNow");
    cluster.autoSync = true;
    for (const node of cluster.nodes.values()) node.sync();
    cluster.settle();
    expect(cluster.leader?.id).toBe(2);
  });

  test("proposing during one is a broken invariant", () => {
    const cluster = led();
    const { raft } = cluster.node(1);
    const seal = raft.nextSeal()!;
    cluster.delivers = ({ type }) => type !== "timeoutNow";
    raft.transferLeadership(2);
    expect(() => raft.propose(sealCommands({ ...seal, timeMs: 1 }, 1, "x"))).toThrow(
      InvariantError,
    );
  });

  test("that does not succeed ends after an election time-out, and the leader goes on in its term", () => {
    const cluster = led();
    const { raft } = cluster.node(1);
    const { term } = raft;
    cluster.delivers = ({ type }) => type !== "timeoutNow";
    raft.transferLeadership(2);
    cluster.tick(electionTicksMin - 1);
    expect(raft.transferTarget).toBe(2);
    // A lost message is sent again with each heartbeat.
    expect(sentTypes(cluster).filter((type) => type === "timeoutNow").length).toBeGreaterThan(2);
    cluster.tick();
    expect(raft).toMatchObject({ transferTarget: 0, role: "leader", term });
    expect(cluster.node(1).propose()).toBeDefined();
    cluster.settle();
    expect(raft.commit).toBe(raft.lastIndex);
  });
});

describe("refused", () => {
  test("where this node does not lead, with who does", () => {
    const answer = led().node(2).raft.transferLeadership(3);
    expect(answer).toEqual({ target: 1, refusal: "not_leader" });
  });

  test("to who is no member, or no voter", () => {
    const configuration = configurationOf([1, 2, 3], [4]);
    const cluster = new TestCluster([1, 2, 3, 4].map((id) => ({ id, configuration })));
    cluster.elect(1);
    const { raft } = cluster.node(1);
    expect(raft.transferLeadership(9)).toEqual({ target: 9, refusal: "unknown_member" });
    expect(raft.transferLeadership(4)).toEqual({ target: 4, refusal: "not_voter" });
    expect(raft.transferTarget).toBe(0);
  });

  test("to a voter that a change under way removes", () => {
    const configuration = configurationOf([1, 2], [], [1, 2, 3]);
    const cluster = new TestCluster([1, 2, 3].map((id) => ({ id, configuration })));
    // It finishes the change at once where the shell lets it; the core alone does not.
    cluster.elect(1);
    expect(cluster.node(1).raft.transferLeadership(3)).toEqual({ target: 3, refusal: "not_voter" });
  });

  test("to who is not heard, or far behind; and then nobody may be left", () => {
    const limits = checkLimits({ ...testLimits, inflightBytesMax: 1, unsyncedBytesMax: 1 });
    const cluster = TestCluster.of(3, 1, limits);
    cluster.elect(1);
    cluster.delivers = ({ to, type }) => to !== 3 || type !== "append";
    cluster.node(1).propose();
    cluster.settle();
    const { raft } = cluster.node(1);
    expect(raft.transferLeadership(3)).toEqual({ target: 3, refusal: "behind" });
    cluster.delivers = ({ from, to, type }) =>
      from !== 2 && to !== 2 && (to !== 3 || type !== "append");
    cluster.tick(electionTicksMin);
    expect(raft.transferLeadership(2)).toEqual({ target: 2, refusal: "unreachable" });
    expect(raft.transferLeadership(0)).toEqual({ target: 0, refusal: "nobody" });
  });

  test("by a single voter: there is nobody else", () => {
    const cluster = TestCluster.of(1);
    cluster.tick();
    const { raft } = cluster.node(1);
    expect(raft.transferLeadership(0)).toEqual({ target: 0, refusal: "nobody" });
    expect(raft.transferLeadership(1)).toEqual({ target: 1, refusal: undefined });
  });
});

describe("races", () => {
  /** The message that tells node 2 to campaign, kept back. */
  function kept(cluster: TestCluster): RaftMessage {
    let message: RaftMessage | undefined;
    cluster.delivers = (one) => {
      if (one.type === "timeoutNow") message ??= one;
      return one.type !== "timeoutNow";
    };
    cluster.node(1).raft.transferLeadership(2);
    cluster.settle();
    return message!;
  }

  test("a message that arrives after the leader gave up and went on is ignored", () => {
    const cluster = led();
    const late = kept(cluster);
    cluster.tick(electionTicksMin);
    cluster.node(1).propose();
    cluster.settle();
    cluster.heal();
    cluster.node(2).raft.step(late);
    cluster.settle();
    expect(roles(cluster)).toEqual(["leader", "follower", "follower"]);
  });

  test("one that arrives in a later term is ignored; a copy of one that worked too", () => {
    const cluster = led();
    const late = kept(cluster);
    cluster.heal();
    cluster.node(2).raft.step(late);
    cluster.settle();
    expect(cluster.leader?.id).toBe(2);
    const { term } = cluster.node(2).raft;
    cluster.node(2).raft.step(late);
    cluster.node(3).raft.step({ ...late, to: 3 });
    cluster.settle();
    expect(cluster.node(2).raft).toMatchObject({ role: "leader", term });
  });

  test("a target that went on without its log loses: voters compare logs, whoever wants what", () => {
    const cluster = led();
    const late = kept(cluster);
    // The leader gave up and committed more without the target.
    cluster.delivers = ({ to, from, type }) => to !== 2 && from !== 2 && type !== "timeoutNow";
    cluster.tick(electionTicksMin);
    cluster.node(1).propose();
    cluster.settle();
    const { commit } = cluster.node(1).raft;
    cluster.heal();
    cluster.node(2).raft.step(late);
    cluster.run(cluster.node(2));
    expect(cluster.node(2).raft.role).toBe("candidate");
    cluster.settle();
    expect(cluster.node(2).raft.role).not.toBe("leader");
    cluster.tick(4 * electionTicksMax);
    expect(cluster.leader!.raft.commit).toBeGreaterThan(commit);
  });

  test("a leader that crashes in the middle is followed by its target", () => {
    const cluster = led();
    cluster.node(1).raft.transferLeadership(2);
    cluster.run(cluster.node(1));
    cluster.node(1).restart();
    cluster.settle();
    expect(cluster.leader?.id).toBe(2);
  });

  test("a target that crashes, or never answers, costs the others no more than the wait", () => {
    const cluster = led();
    const { raft } = cluster.node(1);
    cluster.isolate(2);
    raft.transferLeadership(2);
    cluster.settle();
    cluster.node(2).restart();
    cluster.tick(electionTicksMin);
    cluster.node(1).propose();
    cluster.settle();
    expect(raft).toMatchObject({ role: "leader", transferTarget: 0 });
    expect(raft.commit).toBe(raft.lastIndex);
  });

  test("a leader that steps down for another reason holds nothing any more", () => {
    const cluster = led();
    const { raft } = cluster.node(1);
    kept(cluster);
    raft.stepDown("test");
    expect(raft.transferTarget).toBe(0);
    cluster.heal();
    cluster.elect(1);
    expect(raft.transferTarget).toBe(0);
    expect(cluster.node(1).propose()).toBeDefined();
  });

  test("the target's vote is durable before it asks for others (D2)", () => {
    const cluster = led();
    const late = kept(cluster);
    cluster.heal();
    cluster.autoSync = false;
    cluster.sent = [];
    cluster.node(2).raft.step(late);
    cluster.settle();
    expect(sentTypes(cluster)).not.toContain("vote");
    cluster.node(2).sync();
    cluster.settle();
    expect(sentTypes(cluster)).toContain("vote");
  });

  test("a candidacy of its own later is without the leader's wish", () => {
    const cluster = led();
    const late = kept(cluster);
    cluster.isolate(2);
    cluster.node(2).raft.step(late);
    cluster.settle();
    expect(cluster.node(2).raft.role).toBe("candidate");
    cluster.heal();
    cluster.sent = [];
    cluster.delivers = ({ to, from, type }) =>
      type === "preVote" || type === "preVoteReply" || (to !== 2 && from !== 2);
    // Its candidacy ends with its time, and from then on it asks like any other.
    for (let ticks = 0; ticks < 4 * electionTicksMax; ticks++) cluster.tick();
    const wishes = cluster.sent.filter((one) => one.type === "vote" && one.transfer);
    expect(wishes).toEqual([]);
  });

  test("reads are confirmed by a quorum during a transfer as ever, so none is answered once another leads", () => {
    const cluster = led();
    const { raft } = cluster.node(1);
    cluster.node(1).raft.transferLeadership(2);
    cluster.run(cluster.node(1));
    // All that leaves is delivered, but node 1 hears of it last.
    const toOld: RaftMessage[] = [];
    cluster.delivers = (message) => {
      if (message.to === 1) toOld.push(message);
      return message.to !== 1;
    };
    cluster.settle();
    expect(cluster.node(2).raft.role).toBe("leader");
    cluster.node(2).propose();
    cluster.settle();
    raft.readIndex(1);
    cluster.settle();
    expect(cluster.node(1).reads).toEqual([]);
    cluster.heal();
    for (const message of toOld) raft.step(message);
    cluster.settle();
    expect(cluster.node(1).reads).toEqual([{ context: 1, index: 0, ok: false }]);
  });
});

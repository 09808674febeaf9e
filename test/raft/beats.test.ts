/** What the core leaves to the beats of its node, and what it makes of them (decision 34). The beats themselves are in test/node/beats.test.ts. */
import { describe, expect, test } from "bun:test";
import type { RaftMessage } from "../../src/wire/messages.ts";
import { TestCluster, testLimits } from "./harness.ts";

const { heartbeatTicks, electionTicksMin, electionTicksMax, checkQuorumTicks } = testLimits;

/** Node 1 leads three, all have answered its heartbeats in this term. */
function steady(): TestCluster {
  const cluster = TestCluster.of(3);
  cluster.elect(1);
  cluster.tick(2 * heartbeatTicks);
  cluster.sent = [];
  return cluster;
}

/** What node 1 says of itself at a beat to that member, which leaves now; undefined where the core does not let it. */
interface Said {
  readonly to: number;
  readonly term: number;
  readonly commit: number;
  readonly minMatch: number;
  readonly sentAt: number;
}

let nowTick = 0;

function say(cluster: TestCluster, to: number): Said | undefined {
  const { raft } = cluster.node(1);
  if (!raft.joinsBeat(to)) return undefined;
  const { term, commit } = raft;
  return { to, term, commit, minMatch: raft.minMatch(), sentAt: nowTick };
}

/** The beat arrives, and its answer comes back at once. */
function hear(cluster: TestCluster, said: Said, freshTicks = Infinity): boolean {
  const { to, term, commit, minMatch, sentAt } = said;
  const heard = cluster.node(to).raft.heardBeat(1, term, commit, minMatch, freshTicks);
  const { raft } = cluster.node(1);
  if (heard) raft.beatAnswered(to, term, nowTick - sentAt, false);
  else raft.beatRefused(to, term);
  cluster.settle();
  return heard;
}

function tick(cluster: TestCluster, ticks: number, members: readonly number[] = [2, 3]): void {
  for (let i = 0; i < ticks; i++) {
    nowTick++;
    cluster.tick();
    if (nowTick % heartbeatTicks !== 0) continue;
    for (const to of members) {
      const said = say(cluster, to);
      if (said !== undefined) hear(cluster, said);
    }
  }
}

function count(cluster: TestCluster, type: RaftMessage["type"], to?: number): number {
  return cluster.sent.filter(
    (message) => message.type === type && (to ?? message.to) === message.to,
  ).length;
}

describe("the leader", () => {
  test("sends no heartbeats of its own while beats speak for it, and nobody campaigns", () => {
    const cluster = steady();
    tick(cluster, heartbeatTicks);
    cluster.sent = [];
    tick(cluster, 10 * electionTicksMax);
    expect(cluster.sent).toEqual([]);
    expect(cluster.leader).toBe(cluster.node(1));
    expect(cluster.node(1).raft.ledAgeTicks).toBeLessThanOrEqual(heartbeatTicks);
  });

  test("sends them again as soon as beats stop, to the members that they stopped for", () => {
    const cluster = steady();
    tick(cluster, 4 * heartbeatTicks);
    cluster.sent = [];
    tick(cluster, 3 * heartbeatTicks + 1, [3]);
    expect(count(cluster, "heartbeat", 2)).toBeGreaterThan(0);
    expect(count(cluster, "heartbeat", 3)).toBe(0);
    cluster.sent = [];
    cluster.node(1).raft.leavesBeat(3);
    tick(cluster, heartbeatTicks, []);
    expect(count(cluster, "heartbeat", 3)).toBe(1);
    tick(cluster, 4 * electionTicksMax, []);
    expect(cluster.leader).toBe(cluster.node(1));
    expect(count(cluster, "preVote")).toBe(0);
  });

  test("steps down by check-quorum when nobody answers its beats", () => {
    const cluster = steady();
    cluster.delivers = () => false;
    for (let i = 0; i < checkQuorumTicks + heartbeatTicks; i++) {
      nowTick++;
      cluster.node(1).raft.tick();
      say(cluster, 2);
      say(cluster, 3);
    }
    expect(cluster.node(1).raft.role).not.toBe("leader");
  });

  test("asks on its own before its time is over where the answers to beats come late", () => {
    const cluster = steady();
    const { term } = cluster.node(1).raft;
    for (let i = 0; i < 10 * checkQuorumTicks; i++) {
      nowTick++;
      cluster.tick();
      for (const to of nowTick % heartbeatTicks === 0 ? [2, 3] : []) {
        const { commit, minMatch } = say(cluster, to)!;
        expect(cluster.node(to).raft.heardBeat(1, term, commit, minMatch, Infinity)).toBe(true);
      }
    }
    expect(cluster.node(1).raft.role).toBe("leader");
    expect(cluster.node(1).raft.term).toBe(term);
    expect(count(cluster, "heartbeat", 2)).toBeWithin(9, 13);
  });

  test("leaves to beats nobody that it has to find something out of", () => {
    const cluster = TestCluster.of(3);
    cluster.delivers = ({ type }) => type !== "heartbeatReply";
    cluster.elect(1);
    const leader = cluster.node(1).raft;
    // They have not said yet that this term is durable with them.
    expect([leader.joinsBeat(2), leader.joinsBeat(3), leader.joinsBeat(9)]).toEqual([
      false,
      false,
      false,
    ]);
    cluster.heal();
    cluster.tick(heartbeatTicks);
    expect(leader.joinsBeat(2)).toBe(true);
    // With a new connection nothing is lost where nothing was on its way.
    leader.peerReset(2);
    expect(leader.joinsBeat(2)).toBe(true);
    cluster.settle();
    cluster.delivers = ({ to }) => to !== 2;
    cluster.node(1).propose();
    cluster.settle();
    expect(leader.joinsBeat(2)).toBe(false);
    leader.leavesBeat(2);
    cluster.sent = [];
    cluster.tick(heartbeatTicks);
    expect(count(cluster, "heartbeat", 2)).toBe(1);
    expect(cluster.node(2).raft.joinsBeat(1)).toBe(false);
  });

  test("does not trust an older leadership's answers", () => {
    const cluster = steady();
    const said = say(cluster, 2)!;
    cluster.elect(2);
    cluster.elect(1);
    const { raft } = cluster.node(1);
    expect(raft.term).toBeGreaterThan(said.term);
    for (let i = 0; i < 3; i++) raft.tick();
    const before = raft.ledAgeTicks;
    raft.beatAnswered(2, said.term, 1, true);
    expect(raft.ledAgeTicks).toBe(before);
    expect(raft.preferredTarget).toBe(0);
    cluster.run(cluster.node(1));
    raft.beatRefused(2, said.term);
    expect(raft.hasReady()).toBe(false);
  });

  test("where a member is gone, rounds do not pile up, and reads are answered", () => {
    const cluster = steady();
    cluster.isolate(3);
    tick(cluster, checkQuorumTicks * 4, [2]);
    expect(cluster.node(1).raft.role).toBe("leader");
    expect(cluster.node(1).raft.ledAgeTicks).toBeLessThanOrEqual(2 * heartbeatTicks);
    cluster.node(1).raft.readIndex(77);
    cluster.settle();
    expect(cluster.node(1).reads).toEqual([{ context: 77, index: 1, ok: true }]);
  });
});

test("the leader's own state is as fresh as the beat that a majority has answered", () => {
  const cluster = steady();
  cluster.node(1).apply();
  tick(cluster, 4 * heartbeatTicks);
  const said = say(cluster, 2)!;
  const { raft } = cluster.node(1);
  cluster.delivers = () => false;
  for (let i = 0; i < 3; i++) {
    nowTick++;
    raft.tick();
  }
  expect(raft.stalenessTicks).toBeGreaterThan(3);
  hear(cluster, said);
  expect([raft.stalenessTicks, raft.ledAgeTicks]).toEqual([3, 3]);
});

describe("a read round", () => {
  test("is not confirmed by an answer to a beat that left before it", () => {
    const cluster = steady();
    tick(cluster, 4 * heartbeatTicks);
    const leader = cluster.node(1);
    const before = [say(cluster, 2)!, say(cluster, 3)!];
    cluster.delivers = ({ type }) => type !== "heartbeat";
    leader.raft.readIndex(5);
    cluster.settle();
    for (const said of before) hear(cluster, said);
    expect(leader.reads).toEqual([]);
    // Nor by one that left in the same tick: which came first is not known.
    for (const to of [2, 3]) hear(cluster, say(cluster, to)!);
    expect(leader.reads).toEqual([]);
    nowTick++;
    leader.raft.tick();
    hear(cluster, say(cluster, 2)!);
    expect(leader.reads).toEqual([{ context: 5, index: 1, ok: true }]);
  });
});

describe("a follower", () => {
  test("takes from a beat what a heartbeat says", () => {
    const cluster = steady();
    cluster.delivers = ({ type }) => type !== "heartbeat";
    cluster.node(2).apply();
    const follower = cluster.node(2).raft;
    const { term, commit } = follower;
    for (let i = 0; i < 4 * electionTicksMax; i++) {
      follower.tick();
      if (i % electionTicksMin === 0) expect(follower.heardBeat(1, term, 1, 1, 3)).toBe(true);
    }
    expect([follower.role, follower.term, follower.leader, follower.commit]).toEqual([
      "follower",
      term,
      1,
      commit,
    ]);
    expect(follower.heardBeat(1, term, 1, 1, 3)).toBe(true);
    expect(follower.stalenessTicks).toBe(3);
    // Beyond what is known to match the leader's log nothing is committed.
    expect(follower.heardBeat(1, term, 1_000_000, 0, Infinity)).toBe(true);
    expect(follower.commit).toBe(commit);
  });

  test("learns from it who leads, and gives up a candidacy", () => {
    const cluster = steady();
    cluster.delivers = () => false;
    const follower = cluster.node(2);
    const { term } = follower.raft;
    for (let i = 0; i < electionTicksMax; i++) follower.raft.tick();
    expect(follower.raft.role).toBe("preCandidate");
    expect(follower.raft.heardBeat(1, term, 1, 1, Infinity)).toBe(true);
    expect([follower.raft.role, follower.raft.leader]).toEqual(["follower", 1]);
    follower.restart();
    expect(follower.raft.leader).toBe(0);
    expect(follower.raft.heardBeat(1, term, 1, 1, Infinity)).toBe(true);
    expect(follower.raft.leader).toBe(1);
  });

  test("stands by nothing of another term, of another leader, or while it leads itself", () => {
    const cluster = steady();
    const { term } = cluster.node(1).raft;
    const two = cluster.node(2).raft;
    expect(two.heardBeat(1, term + 1, 1, 1, Infinity)).toBe(false);
    expect(two.heardBeat(1, term - 1, 1, 1, Infinity)).toBe(false);
    expect(two.heardBeat(3, term, 1, 1, Infinity)).toBe(false);
    expect(two.heardBeat(2, term, 1, 1, Infinity)).toBe(false);
    expect(cluster.node(1).raft.heardBeat(3, term, 1, 1, Infinity)).toBe(false);
    expect([two.term, two.leader]).toEqual([term, 1]);
  });

  test("stands by no term that is not durable here", () => {
    const cluster = steady();
    cluster.autoSync = false;
    const two = cluster.node(2);
    const { term } = two.raft;
    two.raft.step({
      type: "heartbeat",
      group: two.raft.group,
      from: 3,
      to: 2,
      term: term + 1,
      commit: 0,
      readSeq: 1,
      freshStamp: 0,
      minMatch: 0,
    });
    cluster.run(two);
    expect(two.raft.heardBeat(3, term + 1, 0, 0, Infinity)).toBe(false);
    two.sync();
    expect(two.raft.heardBeat(3, term + 1, 0, 0, Infinity)).toBe(true);
  });

  test("that is wounded says so on its own, and goes by beats again once it is whole", () => {
    const cluster = steady();
    tick(cluster, 2 * heartbeatTicks);
    const two = cluster.node(2);
    two.findDamage(1);
    cluster.delivers = ({ type, to }) => type !== "append" || to !== 2;
    expect(hear(cluster, say(cluster, 2)!)).toBe(false);
    expect(cluster.node(1).raft.joinsBeat(2)).toBe(false);
    cluster.heal();
    tick(cluster, 4 * heartbeatTicks);
    expect(two.raft.wound).toBeUndefined();
    expect(say(cluster, 2)).toBeDefined();
  });

  test("that refused is asked on its own, and again by beats only once it has answered", () => {
    const cluster = steady();
    tick(cluster, 2 * heartbeatTicks);
    const { raft } = cluster.node(1);
    const said = say(cluster, 2)!;
    cluster.delivers = ({ type }) => type !== "heartbeatReply";
    cluster.sent = [];
    raft.beatRefused(2, said.term);
    cluster.settle();
    expect(count(cluster, "heartbeat", 2)).toBe(1);
    expect(count(cluster, "heartbeat", 3)).toBe(0);
    expect(say(cluster, 2)).toBeUndefined();
    // An older answer does not count.
    raft.step({
      type: "heartbeatReply",
      group: raft.group,
      from: 2,
      to: 1,
      term: raft.term,
      readSeq: 1,
      stamp: 1,
      preferred: false,
    });
    expect(say(cluster, 2)).toBeUndefined();
    cluster.heal();
    tick(cluster, 2 * heartbeatTicks, [3]);
    expect(say(cluster, 2)).toBeDefined();
  });
});

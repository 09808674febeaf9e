/** What a broken or hostile peer may do: be ignored. Only a contradiction of committed or identical data stops a group, with a reason. */
import { describe, expect, test } from "bun:test";
import { InvariantError } from "../../src/raft/invariants.ts";
import type { Batch } from "../../src/wire/batch.ts";
import type { AppendMessage, RaftMessage } from "../../src/wire/messages.ts";
import {
  type NodeOptions,
  TestCluster,
  TestNode,
  configurationOf,
  group,
  logOf,
  randomFrom,
  sealCommands,
  sealConfiguration,
  seedCrc,
  testLimits,
} from "./harness.ts";
import { append } from "./paper/steps.ts";

const three = configurationOf([1, 2, 3]);

function follower(log: readonly Batch[], applied = 0): TestNode {
  const hardState = { term: 3, votedFor: 0, commit: 0 };
  return new TestNode({
    id: 1,
    configuration: three,
    batches: log,
    hardState,
    appliedIndex: applied,
  });
}

describe("contradictions stop the group, and change nothing", () => {
  const log = logOf([1, 1, 2]);

  test("another crc at an equal position is corruption, never truncated [4]", () => {
    const node = follower(log);
    expect(() => node.raft.step({ ...append(3, log, 3), prevCrc: 1 })).toThrow(/corruption/);
    const twin = sealCommands({ firstIndex: 3, term: 2, prevCrc: log[1]!.crc }, 1, "other bytes");
    expect(() => follower(log).raft.step({ ...append(3, log, 2), batches: [twin] })).toThrow(
      /corruption/,
    );
    expect(() => follower([]).raft.step({ ...append(3, log, 0), prevCrc: 5, batches: [] })).toThrow(
      /corruption/,
    );
    expect(node.raft.lastIndex).toBe(3);
  });

  test("a leader that contradicts what is committed here (C4)", () => {
    const node = follower(log, 3);
    const other = logOf([1, 3, 3, 3]);
    expect(() => node.raft.step(append(3, other, 3))).toThrow(InvariantError);
    expect(() => node.raft.step(append(3, other, 1))).toThrow(InvariantError);
    expect(node.raft.lastIndex).toBe(3);
    expect(node.visible.batches).toEqual([...log]);
  });

  test("a leader that rewrites what it sent in the same term", () => {
    const node = follower([]);
    node.raft.step(append(3, logOf([1, 2, 3]), 0));
    expect(() => node.raft.step(append(3, logOf([1, 3]), 1))).toThrow(/rewrites/);
  });
});

describe("a term from beyond all reason", () => {
  const beyond = Number.MAX_SAFE_INTEGER - 1;
  const step = 2 ** 20;
  const { electionTicksMin, electionTicksMax } = testLimits;
  const beat = (from: number, term: number): RaftMessage => ({
    type: "heartbeatReply",
    group,
    from,
    to: 1,
    term,
    readSeq: 1,
    stamp: 0,
    preferred: false,
  });

  test("leads a node on by one step in a while, however often one peer claims it", () => {
    const node = follower([]);
    const head = { group, from: 2, to: 1, term: beyond };
    for (let again = 0; again < 3; again++) {
      node.raft.step({ ...head, type: "vote", transfer: false, lastIndex: 0, lastTerm: 0 });
      node.raft.step(beat(2, beyond - again));
      node.raft.step({ ...append(3, logOf([1]), 0), term: head.term });
      node.raft.snapshotOffered(2, beyond, { index: 9, term: 3, crc: 0, timeMs: 0 });
    }
    expect(node.raft).toMatchObject({ term: 3 + step, leader: 0, lastIndex: 0 });
    // What is claimed by steps comes no further.
    node.raft.step(beat(2, 3 + step + 1));
    expect(node.raft.term).toBe(3 + step);
    for (let ticks = 0; ticks < electionTicksMin; ticks++) node.raft.tick();
    node.raft.step(beat(2, beyond));
    expect(node.raft.term).toBe(3 + 2 * step);
  });

  test("counts at once where a majority of the voters claims it: the lower of their terms", () => {
    const node = follower([]);
    node.raft.step(beat(2, 2 ** 40));
    expect(node.raft.term).toBe(3 + step);
    // No voter has a word in it.
    node.raft.step(beat(4, 2 ** 50));
    expect(node.raft.term).toBe(3 + step);
    node.raft.step(beat(3, 2 ** 41));
    expect(node.raft.term).toBe(2 ** 40);
  });

  test("a plausible one is adopted at once, as ever", () => {
    const node = follower([]);
    node.raft.step(beat(2, 1_000_000));
    expect(node.raft.term).toBe(1_000_000);
  });

  const led = (term: number, id: number): NodeOptions => ({
    id,
    configuration: three,
    hardState: { term, votedFor: 0, commit: 0 },
  });

  test("a node that was away while the others were led there comes to them within an election", () => {
    const cluster = new TestCluster([led(3, 1), led(2 ** 45, 2), led(2 ** 45 + 5, 3)]);
    cluster.elect(2);
    cluster.tick(electionTicksMax);
    expect(new Set([1, 2, 3].map((id) => cluster.node(id).raft.term)).size).toBe(1);
    expect(cluster.node(1).raft.leader).toBe(2);
  });

  test("two of three that are far apart come together step by step, and elect", () => {
    const steps = 10;
    const cluster = new TestCluster([led(3, 1), led(3 + steps * step, 2), led(3, 3)]);
    cluster.isolate(3);
    cluster.tick((steps + 3) * 2 * electionTicksMax);
    const terms = [1, 2].map((id) => cluster.node(id).raft.term);
    expect(terms[0]).toBe(terms[1]!);
    expect(cluster.leader?.raft.commit).toBe(1);
  });
});

describe("nonsense is dropped", () => {
  test("batches with gaps, broken chains, falling or future terms, malformed configurations", () => {
    const log = logOf([1, 1, 2, 2], [2, 1, 3, 1]);
    const badConfiguration = sealConfiguration(
      { firstIndex: 1, term: 1, prevCrc: seedCrc },
      configurationOf([]),
    );
    const wrong: AppendMessage[] = [
      { ...append(3, log, 0), batches: [log[0]!, log[2]!] },
      { ...append(3, log, 0), batches: [log[1]!] },
      { ...append(3, log, 0), prevCrc: 4 },
      { ...append(3, log, 0), batches: [log[0]!, { ...log[1]!, prevCrc: 9 }] },
      { ...append(3, log, 0), batches: [{ ...log[0]!, group: 8 }] },
      { ...append(3, log, 0), batches: [{ ...log[0]!, count: 0 }] },
      { ...append(3, log, 0), batches: [badConfiguration] },
      append(3, logOf([1, 4]), 0),
      append(3, logOf([2, 1]), 0),
      { ...append(3, log, 0), prevTerm: 9 },
    ];
    for (const message of wrong) {
      // The log's own start decides about prevCrc, so look at one that has something there.
      const node = follower([]);
      if (message.prevCrc !== 4) node.raft.step(message);
      expect(node.raft.lastIndex).toBe(0);
    }
  });

  test("a snapshot from where numbers end, whose log could not go on", () => {
    const offered = (index: number): string =>
      follower([]).raft.snapshotOffered(2, 4, { index, term: 3, crc: 0, timeMs: 0 });
    expect(offered(1_000_000)).toBe("needed");
    for (const index of [2 ** 52 + 1, Number.MAX_SAFE_INTEGER, Number.NaN, -1, 0.5])
      expect(offered(index)).toBe("refused");
  });

  test("a second leader in one term is not followed, nor one that this node is", () => {
    const node = follower([]);
    node.raft.step(append(3, logOf([3]), 0));
    node.raft.step({ ...append(3, logOf([1, 3]), 0), from: 3 });
    expect({ leader: node.raft.leader, lastIndex: node.raft.lastIndex }).toEqual({
      leader: 2,
      lastIndex: 1,
    });
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    leader.raft.step(append(1, logOf([1, 1, 1]), 0));
    leader.raft.step({
      type: "heartbeat",
      group,
      from: 2,
      to: 1,
      term: 1,
      commit: 9,
      readSeq: 1,
      freshStamp: 0,
      minMatch: 9,
    });
    expect(leader.raft).toMatchObject({ role: "leader", lastIndex: 1, commit: 1 });
  });

  test("random messages of every type never throw, unless they speak as the leader of the term", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = randomFrom(seed);
      const pick = <T>(...choices: readonly T[]): T =>
        choices[Math.floor(random() * choices.length)]!;
      const number = (): number =>
        pick(0, 1, 2, 3, 4, 5, 7, 2 ** 31, 2 ** 53 - 1, 2 ** 53, -1, 1.5, Number.NaN, Infinity);
      const cluster = TestCluster.of(3, seed);
      cluster.elect(1);
      for (let round = 0; round < 4; round++) cluster.node(1).propose(2);
      cluster.settle();
      cluster.delivers = () => false;
      for (let step = 0; step < 300; step++) {
        const node = cluster.node(pick(1, 2));
        const type = pick(
          "preVote",
          "preVoteReply",
          "vote",
          "voteReply",
          "appendReply",
          "heartbeat",
          "heartbeatReply",
          "readIndex",
          "readIndexReply",
          "timeoutNow",
        );
        const message = {
          type,
          group,
          from: pick(1, 2, 3, 4, 0),
          to: node.id,
          // Terms that never end would end the test's own elections.
          term: pick(0, 1, 2, node.raft.term, node.raft.term, node.raft.term + 1, Number.NaN, -1),
          lastIndex: number(),
          lastTerm: number(),
          granted: pick(true, false),
          accepted: pick(true, false),
          index: number(),
          hintIndex: number(),
          hintTerm: number(),
          commit: number(),
          readSeq: number(),
          freshStamp: number(),
          stamp: number(),
          preferred: pick(true, false),
          transfer: pick(true, false),
          minMatch: number(),
          context: number(),
          ok: pick(true, false),
        } as unknown as RaftMessage;
        node.raft.step(message);
        if (random() < 0.2) node.raft.tick();
        cluster.run(node);
        if (random() < 0.2) node.propose();
      }
    }
  });
});

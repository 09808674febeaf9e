/** Nothing counts, and nothing that depends on it leaves, before it is durable (correctness.md part D). */
import { describe, expect, test } from "bun:test";
import { InvariantError } from "../../src/raft/invariants.ts";
import { lastIndexOf } from "../../src/wire/batch.ts";
import type { Batch } from "../../src/wire/batch.ts";
import type { RaftMessage } from "../../src/wire/messages.ts";
import { TestCluster, TestNode, configurationOf, group, logOf, seedCrc } from "./harness.ts";

const three = configurationOf([1, 2, 3]);

function messagesOf(node: TestNode): RaftMessage[] {
  const messages: RaftMessage[] = [];
  for (let turn = node.turn(); turn !== undefined; turn = node.turn())
    messages.push(...turn.messages);
  return messages;
}

/** From the leader `from`: `log` from batch `prev` on. */
function append(term: number, log: readonly Batch[], prev: number, from = 2): RaftMessage {
  const before = log[prev - 1];
  const prevIndex = before === undefined ? 0 : lastIndexOf(before);
  return {
    type: "append",
    group,
    from,
    to: 1,
    term,
    prevIndex,
    prevTerm: before?.term ?? 0,
    prevCrc: before?.crc ?? seedCrc,
    commit: 0,
    fromIndex: prevIndex + 1,
    toIndex: log.length === prev ? prevIndex : lastIndexOf(log.at(-1)!),
    batches: log.slice(prev),
  };
}

function heartbeat(term: number, readSeq: number): RaftMessage {
  return {
    type: "heartbeat",
    group,
    from: 2,
    to: 1,
    term,
    commit: 0,
    readSeq,
    freshStamp: 0,
    minMatch: 0,
  };
}

function acks(messages: readonly RaftMessage[]): number[] {
  return messages.flatMap((message) =>
    message.type === "appendReply" && message.accepted ? [message.index] : [],
  );
}

describe("leader", () => {
  test("sends before it has synced, and counts itself only afterwards (D3)", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    cluster.delivers = ({ from, to }) => from !== 3 && to !== 3;
    cluster.autoSync = false;
    leader.propose();
    cluster.settle();
    expect(cluster.node(2).raft.lastIndex).toBe(2);
    cluster.node(2).sync();
    cluster.settle();
    expect(leader.raft.progress()[0]).toMatchObject({ id: 2, match: 2 });
    expect(leader.commit).toBe(1);
    leader.sync();
    cluster.settle();
    expect(leader.commit).toBe(2);
  });

  test("commits by its followers alone while its own disk is slow", () => {
    const cluster = TestCluster.of(3);
    const leader = cluster.elect(1);
    cluster.autoSync = false;
    leader.propose();
    cluster.settle();
    for (const id of [2, 3]) cluster.node(id).sync();
    cluster.settle();
    expect({ commit: leader.commit, durable: leader.raft.durableIndex }).toEqual({
      commit: 2,
      durable: 1,
    });
    expect(leader.raft.unsyncedBytes).toBeGreaterThan(0);
    leader.sync();
    expect(leader.raft.unsyncedBytes).toBe(0);
  });
});

describe("follower", () => {
  test("acknowledges after the sync, once for all appends that it covers", () => {
    const node = new TestNode({ id: 1, configuration: three });
    const log = logOf([1, 1, 1, 1]);
    node.raft.step(append(1, log.slice(0, 2), 0));
    expect(acks(messagesOf(node))).toEqual([]);
    node.raft.step(append(1, log.slice(0, 3), 2));
    expect(acks(messagesOf(node))).toEqual([]);
    node.sync();
    expect(acks(messagesOf(node))).toEqual([3]);
    // Nothing new, all durable: at once.
    node.raft.step(append(1, log.slice(0, 3), 1));
    expect(acks(messagesOf(node))).toEqual([3]);
  });

  test("acknowledges what a sync covers, not what came after it was issued (D6)", () => {
    const node = new TestNode({ id: 1, configuration: three });
    const log = logOf([1, 1, 1]);
    node.raft.step(append(1, log.slice(0, 1), 0));
    messagesOf(node);
    node.raft.step(append(1, log, 1));
    messagesOf(node);
    node.sync(1);
    expect(acks(messagesOf(node))).toEqual([1]);
    node.sync(1);
    expect(acks(messagesOf(node))).toEqual([3]);
  });

  test("acknowledges no more than what is verified in this term, however much is durable (D4)", () => {
    const log = logOf([1, 1, 1, 2, 2]);
    const hardState = { term: 3, votedFor: 0, commit: 0 };
    const node = new TestNode({ id: 1, configuration: three, batches: log, hardState });
    node.raft.step(append(3, log.slice(0, 2), 1));
    expect(acks(messagesOf(node))).toEqual([2]);
  });

  test("commits no more than what is verified, though its own log goes on (C2)", () => {
    const log = logOf([1, 1, 1, 2, 2]);
    const hardState = { term: 3, votedFor: 0, commit: 0 };
    const node = new TestNode({ id: 1, configuration: three, batches: log, hardState });
    node.raft.step({ ...append(3, log.slice(0, 2), 1), commit: 5 } as RaftMessage);
    node.raft.step({ ...heartbeat(3, 1), commit: 5 } as RaftMessage);
    messagesOf(node);
    expect(node.commit).toBe(2);
  });

  test("a refused append moves nothing", () => {
    const log = logOf([1, 1, 1]);
    const hardState = { term: 3, votedFor: 0, commit: 0 };
    const node = new TestNode({ id: 1, configuration: three, batches: log, hardState });
    const refused = append(3, logOf([1, 2, 2, 3]), 3);
    node.raft.step({ ...refused, commit: 3 } as RaftMessage);
    expect(acks(messagesOf(node))).toEqual([]);
    expect(node.commit).toBe(0);
    expect(node.raft.lastIndex).toBe(3);
  });

  test("a sync of a suffix that was truncated since counts for nothing (D5)", () => {
    const node = new TestNode({ id: 1, configuration: three });
    const old = logOf([1, 1, 1, 1]);
    node.raft.step(append(1, old, 0));
    messagesOf(node);
    const young = logOf([1, 2, 2, 2]);
    node.raft.step(append(2, young, 1, 3));
    messagesOf(node);
    expect(node.raft.durableIndex).toBe(0);
    node.sync(1);
    expect(node.raft.durableIndex).toBe(1);
    expect(acks(messagesOf(node))).toEqual([]);
    node.sync(1);
    expect(node.raft.durableIndex).toBe(4);
    expect(acks(messagesOf(node))).toEqual([4]);
  });

  test("two suffixes that meet before any turn: only the second is written", () => {
    const node = new TestNode({ id: 1, configuration: three });
    node.raft.step(append(1, logOf([1, 1, 1]), 0));
    const young = logOf([1, 2]);
    node.raft.step(append(2, young, 1, 3));
    const { ready } = node.turn()!;
    expect(ready.append.map(({ term }) => term)).toEqual([1, 2]);
    node.sync();
    expect(node.raft.unsyncedBytes).toBe(0);
    expect(node.raft.durableIndex).toBe(2);
  });

  test("answers heartbeats and appends of a new term only once that term is durable", () => {
    const node = new TestNode({ id: 1, configuration: three });
    node.raft.step(heartbeat(4, 1));
    node.raft.step(heartbeat(4, 2));
    expect(messagesOf(node)).toEqual([]);
    node.sync();
    expect(messagesOf(node)).toEqual([
      {
        type: "heartbeatReply",
        group,
        from: 1,
        to: 2,
        term: 4,
        readSeq: 2,
        preferred: false,
        stamp: expect.any(Number),
      },
    ]);
    node.raft.step(heartbeat(4, 3));
    expect(messagesOf(node)).toHaveLength(1);
  });
});

describe("votes", () => {
  const vote: RaftMessage = {
    type: "vote",
    group,
    from: 2,
    to: 1,
    term: 1,
    transfer: false,
    lastIndex: 0,
    lastTerm: 0,
  };

  test("a vote leaves only once it is durable, and is still known after a crash", () => {
    const node = new TestNode({ id: 1, configuration: three });
    node.raft.step(vote);
    node.raft.step(vote);
    expect(messagesOf(node)).toEqual([]);
    node.sync();
    expect(messagesOf(node)).toEqual([
      { type: "voteReply", group, from: 1, to: 2, term: 1, granted: true },
    ]);
    node.restart();
    node.raft.step({ ...vote, from: 3 });
    expect(messagesOf(node)).toMatchObject([{ type: "voteReply", to: 3, granted: false }]);
  });

  test("a vote whose term is over before its sync never leaves", () => {
    const node = new TestNode({ id: 1, configuration: three });
    node.raft.step(vote);
    messagesOf(node);
    node.raft.step(append(2, [], 0, 3));
    node.sync();
    expect(messagesOf(node).filter(({ type }) => type === "voteReply")).toEqual([]);
  });

  test("a candidate asks for votes, and counts its own, only once its term is durable (D2)", () => {
    const node = new TestNode({ id: 1, configuration: three });
    for (let ticks = 0; ticks < 40; ticks++) {
      node.raft.tick();
      node.raft.step({ type: "preVoteReply", group, from: 2, to: 1, term: 1, granted: true });
    }
    const reply = { type: "voteReply", group, from: 2, to: 1, term: 1, granted: true } as const;
    const requested = messagesOf(node).filter(({ type }) => type === "vote");
    node.raft.step(reply);
    expect(requested).toEqual([]);
    expect(node.raft.role).not.toBe("leader");
  });

  test("a single voter leads as soon as its own vote is durable, and not before (E4)", () => {
    const node = new TestNode({ id: 1, configuration: configurationOf([1]) });
    node.raft.tick();
    messagesOf(node);
    expect(node.raft.role).toBe("candidate");
    node.sync();
    expect(String(node.raft.role)).toBe("leader");
    messagesOf(node);
    expect(node.commit).toBe(0);
    node.sync();
    messagesOf(node);
    expect(node.commit).toBe(1);
    node.restart();
    node.raft.tick();
    messagesOf(node);
    node.sync();
    expect({ role: String(node.raft.role), term: node.raft.term }).toEqual({
      role: "leader",
      term: 2,
    });
  });
});

describe("start", () => {
  test("commit begins at what is applied or hinted, never above the log, at a batch end (D8)", () => {
    const batches = logOf([1, 1, 1], [3, 3, 3]);
    const cases = [
      { hint: 0, applied: 0, commit: 0 },
      { hint: 6, applied: 3, commit: 6 },
      { hint: 3, applied: 6, commit: 6 },
      { hint: 99, applied: 0, commit: 9 },
      { hint: 5, applied: 0, commit: 3 },
      { hint: 0, applied: 5, commit: 6 },
    ];
    for (const { hint, applied, commit } of cases) {
      const hardState = { term: 1, votedFor: 0, commit: hint };
      const node = new TestNode({
        id: 1,
        configuration: three,
        batches,
        hardState,
        appliedIndex: applied,
      });
      expect({ hint, applied, commit: node.raft.commit }).toEqual({ hint, applied, commit });
    }
  });

  test("a state machine ahead of the log, a gap, a log ahead of its hard state are refused", () => {
    const batches = logOf([1, 1, 1]);
    const hardState = { term: 1, votedFor: 0, commit: 0 };
    const wrong = [
      { batches, hardState, appliedIndex: 4 },
      { batches: [batches[0]!, batches[2]!], hardState },
      { batches, hardState: { ...hardState, term: 0 } },
    ];
    for (const options of wrong)
      expect(() => new TestNode({ id: 1, configuration: three, ...options })).toThrow(
        InvariantError,
      );
  });
});

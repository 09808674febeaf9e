/** What the tests of the paper share: a node in a given state, messages to step into it, all that it sends. */
import { lastIndexOf } from "../../../src/wire/batch.ts";
import type { Batch } from "../../../src/wire/batch.ts";
import type { AppendMessage, AppendReplyMessage, RaftMessage } from "../../../src/wire/messages.ts";
import { TestCluster, TestNode, configurationOf, group, logOf, seedCrc } from "../harness.ts";

export type Partial<T> = { [K in keyof T]?: T[K] };

export const three = configurationOf([1, 2, 3]);

export function nodeWith(options: {
  id?: number;
  terms?: readonly number[];
  counts?: readonly number[];
  term?: number;
  votedFor?: number;
  seed?: number;
}): TestNode {
  const { id = 1, terms = [], counts = [], votedFor = 0, seed = 1 } = options;
  const term = options.term ?? terms.at(-1) ?? 0;
  const batches = logOf(terms, counts);
  const hardState = { term, votedFor, commit: 0 };
  return new TestNode({ id, configuration: three, batches, hardState, seed });
}

export function campaign(node: TestNode): void {
  while (node.raft.role === "follower") node.raft.tick();
}

/** Messages of all turns, syncing in between. */
export function drain(node: TestNode): RaftMessage[] {
  const messages: RaftMessage[] = [];
  for (let turn = node.turn(); turn !== undefined; turn = node.turn()) {
    messages.push(...turn.messages);
    node.sync();
  }
  return messages;
}

export function vote(fields: {
  term: number;
  lastIndex?: number;
  lastTerm?: number;
  from?: number;
}): RaftMessage {
  const { term, lastIndex = 0, lastTerm = 0, from = 2 } = fields;
  return { type: "vote", group, from, to: 1, term, transfer: false, lastIndex, lastTerm };
}

/** An append from node 2 to node 1 of `log`'s batches, those after `prev` batches and at most `count`. */
export function append(
  term: number,
  log: readonly Batch[],
  prev: number,
  { count = Infinity, commit = 0 }: { count?: number; commit?: number } = {},
): AppendMessage {
  const before = log[prev - 1];
  const batches = log.slice(prev, prev + count);
  const prevIndex = before === undefined ? 0 : lastIndexOf(before);
  return {
    type: "append",
    group,
    from: 2,
    to: 1,
    term,
    prevIndex,
    prevTerm: before?.term ?? 0,
    prevCrc: before?.crc ?? seedCrc,
    commit,
    fromIndex: prevIndex + 1,
    toIndex: batches.length === 0 ? prevIndex : lastIndexOf(batches.at(-1)!),
    batches,
  };
}

export function terms(node: TestNode): number[] {
  return node.visible.batches.map((batch) => batch.term);
}

/** A leader of three with a settled log, all messages to the others lost from now on. */
export function lonelyLeader(): { cluster: TestCluster; leader: TestNode } {
  const cluster = TestCluster.of(3);
  const leader = cluster.elect(1);
  cluster.delivers = () => false;
  cluster.settle();
  cluster.sent = [];
  return { cluster, leader };
}

export function reply(
  leader: TestNode,
  from: number,
  fields: Partial<AppendReplyMessage>,
): RaftMessage {
  const { term } = leader.raft;
  const base = { type: "appendReply", group, from, to: leader.id, term } as const;
  const none = { accepted: true, index: 0, hintIndex: 0, hintTerm: 0, wounded: false };
  return { ...base, ...none, ...fields };
}

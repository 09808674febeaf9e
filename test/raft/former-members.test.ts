/** A node that comes back to a group with nothing of what it had there: it has forgotten what its earlier replica acknowledged, and others count on. */
import { expect, test } from "bun:test";
import type { AppendMessage, RaftMessage } from "../../src/wire/messages.ts";
import {
  configurationOf,
  sealCommands,
  sealConfiguration,
  seedCrc,
  TestCluster,
  testLimits,
  type TestNode,
} from "./harness.ts";

/** More than one append carries, so that the log comes in parts. */
const body = new Uint8Array(2 * testLimits.appendBytesMax);

/** 1, 2 and 3 were the members, 1 and 2 have decided on 2, 4 and 5, and 3 has heard nothing of it. 1 has left in term 2, and comes back. */
function returning(): { cluster: TestCluster; returns: TestNode; leader: TestNode } {
  const founding = sealConfiguration(
    { firstIndex: 1, term: 1, prevCrc: seedCrc },
    configurationOf([1, 2, 3]),
  );
  const commands = sealCommands({ firstIndex: 2, term: 2, prevCrc: founding.crc }, 1, body);
  const joint = sealConfiguration(
    { firstIndex: 3, term: 2, prevCrc: commands.crc },
    configurationOf([2, 4, 5], [], [1, 2, 3]),
  );
  const left = sealConfiguration(
    { firstIndex: 4, term: 2, prevCrc: joint.crc },
    { ...configurationOf([2, 4, 5]), removed: [1, 3] },
  );
  const configuration = { voters: [], outgoing: [], learners: [], addresses: {} };
  const stays = {
    configuration,
    hardState: { term: 2, votedFor: 2, commit: 4 },
    batches: [founding, commands, joint, left],
  };
  const cluster = new TestCluster([
    { id: 1, configuration, hardState: { term: 3, votedFor: 0, commit: 0 }, formerTerm: 2 },
    { id: 2, ...stays },
    {
      id: 3,
      configuration,
      hardState: { term: 1, votedFor: 0, commit: 1 },
      batches: [founding],
    },
    { id: 4, ...stays },
    { id: 5, ...stays },
  ]);
  cluster.isolate(3);
  const leader = cluster.elect(2);
  leader.proposeConfiguration({ ...configurationOf([2, 4, 5], [1]), removed: [3] });
  return { cluster, returns: cluster.node(1), leader };
}

function concerns({ from, to }: RaftMessage, node: number): boolean {
  return from === node || to === node;
}

/** A probe is empty. */
function isSecond({ fromIndex, toIndex }: AppendMessage): boolean {
  return fromIndex > 1 && toIndex >= fromIndex;
}

test("who comes back makes no leader by the members of then, of whom its log tells first", () => {
  const { cluster, returns, leader } = returning();
  let isCut = false;
  cluster.delivers = (message) => {
    if (message.type === "append" && message.to === 1) isCut ||= isSecond(message);
    if (!isCut) return !concerns(message, 3);
    // Then it hears 3 alone.
    return concerns(message, 1) === concerns(message, 3);
  };
  cluster.tick(20 * testLimits.electionTicksMax);
  expect(isCut).toBe(true);
  expect(returns.raft.configuration.voters).toEqual([1, 2, 3]);
  expect([returns.raft.role, leader.raft.role]).toEqual(["follower", "leader"]);
  expect([returns.commit, cluster.node(3).commit]).toEqual([1, 1]);
  expect(cluster.node(3).raft.role).not.toBe("leader");
});

test("once its log goes beyond the term in which it had left, it votes", () => {
  const { cluster, returns, leader } = returning();
  cluster.tick(4 * testLimits.heartbeatTicks);
  expect(returns.raft.lastTerm).toBe(3);
  leader.proposeConfiguration({ ...configurationOf([1, 2, 4], [], [2, 4, 5]), removed: [3] });
  cluster.settle();
  leader.proposeConfiguration({ ...configurationOf([1, 2, 4]), removed: [3, 5] });
  cluster.settle();
  cluster.isolate(2, 3, 5);
  expect(cluster.elect(4).raft.term).toBe(4);
});

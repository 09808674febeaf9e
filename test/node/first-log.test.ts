/** What a replica begins with that the registry makes. */
import { expect, test } from "bun:test";
import { createCore, emptyLog } from "../../src/node/bootstrap.ts";
import { firstLogOf } from "../../src/node/first-log.ts";
import type { Raft } from "../../src/raft/raft.ts";
import type { RecoveredGroup } from "../../src/storage/log-store.ts";
import type { GroupMember, RegistryEntry } from "../../src/wire/registry.ts";
import { testLimits } from "../raft/harness.ts";

const founders = [1, 2, 3].map((id) => ({ id, incarnation: `folder ${id}` }));

function firstOf(member: GroupMember): RecoveredGroup {
  const others = founders.filter(({ id }) => id !== member.id);
  const members = [...others.map((each) => ({ ...each, since: 1 })), member];
  const entry: RegistryEntry = {
    id: 7,
    machine: "kv",
    applyVersion: 3,
    replicas: 3,
    members,
    leaving: [],
    founders,
    version: 5,
  };
  const place = { group: 7, seedCrc: 1, registryIndex: 9 };
  return firstLogOf(entry, place, (each) => each === member).recovered;
}

/** Node 3, which had left in term 6. */
function returning(): Raft {
  const recovered = firstOf({ id: 3, incarnation: "folder 3", since: 4, aboveTerm: 6 });
  return createCore({
    group: 7,
    nodeId: 3,
    limits: testLimits,
    random: () => 0,
    store: { empty: () => recovered.start },
    recovered,
    appliedIndex: 0,
  });
}

function firstTerm(member: GroupMember): { term: number; batches: number } {
  const { hardState, batches } = firstOf(member);
  return { term: hardState.term, batches: batches.length };
}

test("a founder has the group's first log; who comes later has none, and who comes back is above the terms in which it was heard", () => {
  const member = { id: 3, incarnation: "folder 3" };
  expect(firstTerm({ ...member, since: 1 })).toEqual({ term: 1, batches: 2 });
  expect(firstTerm({ ...member, since: 4 })).toEqual({ term: 0, batches: 0 });
  expect(firstTerm({ ...member, since: 4, aboveTerm: 6 })).toEqual({ term: 7, batches: 0 });
});

test("who comes back follows no leader of a term in which it was heard: what it said then it has forgotten", () => {
  const core = returning();
  const about = { group: 7, from: 2, to: 3, term: 6, commit: 0 } as const;
  // It has not heard yet of who comes back, and tells it that it has left.
  core.step({ type: "heartbeat", ...about, readSeq: 25, freshStamp: 0, minMatch: 0 });
  const sent = core.ready()?.messages.map((message) => ({ ...message, stamp: 0 }));
  expect(sent).toMatchObject([{ type: "heartbeatReply", to: 2, term: 7, readSeq: 0 }]);
});

test("who comes back answers the leader of the very term that it begins in once that term is durable", () => {
  const core = returning();
  const about = { group: 7, from: 2, to: 3, term: 7, commit: 0 } as const;
  core.step({ type: "heartbeat", ...about, readSeq: 25, freshStamp: 0, minMatch: 0 });
  const first = core.ready();
  expect(first).toMatchObject({ hardState: { term: 7, votedFor: 0 }, messages: [] });
  core.synced(first.token!);
  const sent = core.ready().messages.map((message) => ({ ...message, stamp: 0 }));
  expect(sent).toMatchObject([{ type: "heartbeatReply", to: 2, term: 7, readSeq: 25 }]);
});

test("who was a member before begins in a term in which it has said nothing, with no vote given", () => {
  const { write, recovered } = emptyLog({ group: 7, seedCrc: 1, registryIndex: 9 }, 7);
  expect(write.hardState).toEqual({ term: 7, votedFor: 0, commit: 0 });
  expect(recovered.hardState).toEqual({ term: 7, votedFor: 0, commit: 0 });
  expect(write.registryIndex).toBe(9);
});

test("who never was begins before all terms", () => {
  expect(emptyLog({ group: 7, seedCrc: 1 }).recovered.hardState.term).toBe(0);
});

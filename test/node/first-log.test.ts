/** What a replica begins with that the registry makes. */
import { expect, test } from "bun:test";
import { emptyLog } from "../../src/node/bootstrap.ts";
import { firstLogOf } from "../../src/node/first-log.ts";
import type { GroupMember, RegistryEntry } from "../../src/wire/registry.ts";

const founders = [1, 2, 3].map((id) => ({ id, incarnation: `folder ${id}` }));

function firstTerm(member: GroupMember): { term: number; batches: number } {
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
  const { hardState, batches } = firstLogOf(entry, place, (each) => each === member).recovered;
  return { term: hardState.term, batches: batches.length };
}

test("a founder has the group's first log; who comes later has none, and who comes back is above the terms in which it was heard", () => {
  const member = { id: 3, incarnation: "folder 3" };
  expect(firstTerm({ ...member, since: 1 })).toEqual({ term: 1, batches: 2 });
  expect(firstTerm({ ...member, since: 4 })).toEqual({ term: 0, batches: 0 });
  expect(firstTerm({ ...member, since: 4, aboveTerm: 6 })).toEqual({ term: 6, batches: 0 });
});

test("who was a member before begins in the term up to which it was heard", () => {
  const { write, recovered } = emptyLog({ group: 7, seedCrc: 1, registryIndex: 9 }, 6);
  expect(write.hardState).toEqual({ term: 6, votedFor: 0, commit: 0 });
  expect(recovered.hardState).toEqual({ term: 6, votedFor: 0, commit: 0 });
  expect(write.registryIndex).toBe(9);
});

test("who never was begins before all terms", () => {
  expect(emptyLog({ group: 7, seedCrc: 1 }).recovered.hardState.term).toBe(0);
});

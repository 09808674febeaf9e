/** What a replica begins with that the registry makes. */
import { expect, test } from "bun:test";
import { emptyLog } from "../../src/node/bootstrap.ts";

test("who was a member before begins in the term up to which it was heard", () => {
  const { write, recovered } = emptyLog({ group: 7, seedCrc: 1, registryIndex: 9 }, 6);
  expect(write.hardState).toEqual({ term: 6, votedFor: 0, commit: 0 });
  expect(recovered.hardState).toEqual({ term: 6, votedFor: 0, commit: 0 });
  expect(write.registryIndex).toBe(9);
});

test("who never was begins before all terms", () => {
  expect(emptyLog({ group: 7, seedCrc: 1 }).recovered.hardState.term).toBe(0);
});

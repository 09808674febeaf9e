/** What administration takes: nothing but the shapes that it names, with words for what is wrong. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { adminOperations, type AdminOperation } from "../../src/wire/admin.ts";
import { adminBodies, checkAdminBody } from "../../src/wire/admin-bodies.ts";
import { holds } from "./property.ts";

const add = { op: "add" as const, id: 4, address: "127.0.0.1:9091" };

test("a body gets its defaults", () => {
  expect(checkAdminBody("changeMembers", { changes: [add] })).toEqual({
    body: { group: 0, timeoutMs: 0, changes: [{ ...add, learner: false }], force: false },
  });
  expect(checkAdminBody("members", undefined)).toEqual({ body: { group: 0, timeoutMs: 0 } });
});

test.each([
  [{ changes: [] }, "changes: "],
  [{ changes: Array.from({ length: 65 }, () => add) }, "changes: "],
  [{ changes: [{ ...add, id: 0 }] }, "changes.0.id: "],
  [{ changes: [{ ...add, id: 4_294_967_295 }] }, "changes.0.id: "],
  [{ changes: [{ ...add, id: 1.5 }] }, "changes.0.id: "],
  [{ changes: [{ ...add, address: "nowhere" }] }, "changes.0.address: it must be HOST:PORT"],
  [{ changes: [{ ...add, incarnation: "mine" }] }, "changes.0.incarnation: "],
  [{ changes: [{ op: "bind", id: 4, incarnation: "mine" }] }, "changes.0.op: "],
  [{ changes: [{ op: "remove", id: 4, force: true }] }, "changes.0.force: "],
  [{ changes: [add], forced: true }, "forced: "],
  [{ changes: [add], group: -1 }, "group: "],
  [[], ""],
  ["members", ""],
])("%j is refused", (body, words) => {
  const checked: object = checkAdminBody("changeMembers", body);
  expect("problem" in checked && checked.problem).toStartWith(words);
});

test("what a node says that it has dropped is bounded", () => {
  const check = (dropped: readonly object[], node = 3): object =>
    checkAdminBody("dropGroups", { node, dropped });
  const one = { id: 1, left: 4 };
  expect(check([one])).toEqual({
    body: { group: 0, timeoutMs: 0, node: 3, dropped: [one] },
  });
  expect(check([])).toHaveProperty("problem");
  expect(check(Array.from({ length: 65 }, () => one))).toHaveProperty("problem");
  expect(check([{ ...one, left: -1 }])).toHaveProperty("problem");
  expect(check([{ ...one, id: 0 }])).toHaveProperty("problem");
  expect(check([one], 0)).toHaveProperty("problem");
});

test("each operation has a body, and nothing that is sent does harm", () => {
  expect(Object.keys(adminBodies).toSorted()).toEqual(Object.keys(adminOperations).toSorted());
  const names = fc.constantFrom(...(Object.keys(adminOperations) as AdminOperation[]));
  holds(300, fc.tuple(names, fc.anything()), ([name, body]) => {
    const checked = checkAdminBody(name, body);
    expect("body" in checked || checked.problem.length > 0).toBe(true);
  });
});

/** What may be asked of a status, and how much of it there is. */
import { expect, test } from "bun:test";
import { statusGroups } from "../../src/wire/status.ts";
import { checkStatusRequest, limitOf } from "../../src/wire/status-request.ts";

test("what an older client asks, and what a newer one may, is taken", () => {
  for (const nothing of [undefined, null, {}, { later: 1 }]) {
    expect(checkStatusRequest(nothing)).toEqual({});
  }
  const asked = { groups: [0, 0xffff_ffff], after: 7, limit: 10, brief: true };
  expect(checkStatusRequest(asked)).toEqual(asked);
});

test("anything else is refused, with its place", () => {
  const wrong: readonly [unknown, string][] = [
    ["status", ""],
    [{ groups: "0" }, "groups"],
    [{ groups: [-1] }, "groups.0"],
    [{ groups: Array.from({ length: statusGroups.max + 1 }, () => 0) }, "groups"],
    [{ after: 0.5 }, "after"],
    [{ limit: 0 }, "limit"],
    [{ limit: statusGroups.briefsMax + 1 }, "limit"],
    [{ brief: 1 }, "brief"],
  ];
  for (const [body, place] of wrong) {
    const checked = checkStatusRequest(body);
    if (!("problem" in checked)) throw new Error(`taken: ${JSON.stringify(body)}`);
    expect(checked.problem).toStartWith(place);
  }
});

test("an answer never has more than its bound", () => {
  expect(limitOf({})).toBe(statusGroups.usual);
  expect(limitOf({ limit: 4_096 })).toBe(statusGroups.max);
  expect(limitOf({ brief: true })).toBe(statusGroups.briefsMax);
  expect(limitOf({ brief: true, limit: 3 })).toBe(3);
});

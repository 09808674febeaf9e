/** The checks beyond single keys, on hand-made histories: each break that they are there for is found, and nothing else. */
import { describe, expect, test } from "bun:test";
import { checkChanges, type SeenChange } from "./changes.ts";
import type { Operation } from "./history.ts";
import { checkAppends, checkSessions, checkTransactions } from "./together.ts";

const base: Operation = {
  client: 1,
  key: "k",
  kind: "put",
  value: "",
  expected: 0,
  call: 0,
  return: 0,
  outcome: "ok",
  index: 0,
  success: true,
  seenValue: "",
  seenRevision: 0,
};

let clock = 0;
const operation = (fields: Partial<Operation>): Operation => ({
  ...base,
  call: ++clock,
  return: ++clock,
  ...fields,
});
const put = (value: string, index: number, more: Partial<Operation> = {}): Operation =>
  operation({ value, index, ...more });
const unknown = (fields: Partial<Operation>): Operation =>
  operation({ ...fields, outcome: "unknown", return: Infinity, success: false });
const refused = (fields: Partial<Operation>): Operation =>
  operation({ ...fields, outcome: "refused", success: false });
const get = (key: string, seenValue: string, seenRevision: number, transaction: number) =>
  operation({ kind: "get", key, seenValue, seenRevision, transaction });

describe("transactions", () => {
  const write = (n: number, index: number): Operation[] => [
    put(`${n}a`, index, { key: "a", transaction: n }),
    put(`${n}b`, index, { key: "b", transaction: n }),
  ];
  const history = [...write(1, 5), ...write(2, 8)];

  test("both parts, or a later write", () => {
    const read = [get("a", "1a", 5, 9), get("b", "1b", 5, 9)];
    expect(checkTransactions([...history, ...read])).toBeUndefined();
    const later = [put("x", 9, { key: "b" }), get("a", "2a", 8, 9), get("b", "x", 9, 9)];
    expect(checkTransactions([...history, ...later])).toBeUndefined();
  });
  test("one part of it alone", () => {
    const read = [get("a", "2a", 8, 9), get("b", "1b", 5, 9)];
    expect(checkTransactions([...history, ...read])).toContain("saw 2a@8");
  });
  test("one part of a transaction of unknown outcome", () => {
    const lost = [
      unknown({ key: "a", value: "3a", transaction: 3 }),
      unknown({ key: "b", value: "3b", transaction: 3 }),
    ];
    const read = [get("a", "3a", 11, 9), get("b", "2b", 8, 9)];
    expect(checkTransactions([...history, ...lost, ...read])).toContain("saw 3a@11");
  });
});

describe("sessions", () => {
  test("in the order of the calls", () => {
    const calls = [put("1", 5, { session: 1 }), put("2", 7, { session: 1 }), put("3", 6)];
    expect(checkSessions(calls)).toBeUndefined();
  });
  test("against it", () => {
    const calls = [put("1", 7, { session: 1 }), put("2", 5, { session: 1 })];
    expect(checkSessions(calls)).toContain("not after 1");
  });
});

describe("lists", () => {
  const elements = (value: string): string[] => value.split(" ");
  const append = (value: string, index: number, more: Partial<Operation> = {}): Operation =>
    operation({ kind: "compareAndPut", value, index, ...more });
  const read = (value: string, revision: number): Operation =>
    operation({ kind: "get", seenValue: value, seenRevision: revision });
  const first = append("1", 5);

  test("each acknowledged element once", () => {
    expect(checkAppends([first, append("1 2", 6), read("1 2", 6)], elements)).toBeUndefined();
  });
  test("an element that is lost", () => {
    expect(checkAppends([first, read("2", 6)], elements)).toContain("lacks 1");
  });
  test("an element twice", () => {
    expect(checkAppends([first, read("1 2 1", 8)], elements)).toContain("twice");
  });
  test("an append that was applied, and answered as failed when it was tried again", () => {
    const failed = append("1 2", 0, { success: false, seenRevision: 6 });
    expect(checkAppends([first, failed, read("1 2", 6)], elements)).toContain("without effect");
    expect(
      checkAppends(
        [first, refused({ kind: "compareAndPut", value: "1 2" }), read("1 2", 6)],
        elements,
      ),
    ).toContain("without effect");
  });
});

describe("watches", () => {
  const change = (key: string, value: string | undefined, revision: number): SeenChange => ({
    key,
    value,
    revision,
  });
  const history = [
    put("1", 5, { session: 1 }),
    unknown({ value: "2", session: 1 }),
    operation({ kind: "delete", index: 8 }),
    put("3", 9, { session: 1 }),
    refused({ value: "4" }),
  ];
  const told = [
    change("k", "1", 5),
    change("k", "2", 6),
    change("k", undefined, 8),
    change("k", "3", 9),
  ];
  const check = (changes: readonly SeenChange[], upTo = 9): string | undefined =>
    checkChanges(history, changes, upTo);

  test("complete, in order, once", () => expect(check(told)).toBeUndefined());
  test("what is of unknown outcome may be missing", () => {
    expect(check(told.filter(({ value }) => value !== "2"))).toBeUndefined();
  });
  test("not yet as far as that", () => expect(check(told.slice(0, 3), 8)).toBeUndefined());
  test("a change that is missing", () => {
    expect(check(told.slice(0, 3))).toContain("3 at k@9 was not told");
    expect(check(told.filter(({ revision }) => revision !== 8))).toContain("was not told");
  });
  test("a change twice", () => expect(check([told[0]!, ...told])).toContain("told twice"));
  test("a command that was applied twice", () => {
    expect(check([...told, change("k", "1", 11)])).toContain("applied twice");
  });
  test("out of order", () => {
    expect(check([told[1]!, told[0]!, ...told.slice(2)])).toContain("after revision 6");
  });
  test("another value, another revision", () => {
    expect(check([change("k", "2", 5), ...told.slice(2)])).toContain("is told as 2");
  });
  test("out of thin air", () => {
    expect(check([...told, change("k", "x", 10)])).toContain("nobody wrote x");
    expect(check([...told, change("k", undefined, 10)])).toContain("nobody deleted");
  });
  test("what was reported as not applied", () => {
    expect(check([...told, change("k", "4", 10)])).toContain("had no effect");
  });
  test("against the order of its session, though nobody knows whether it was applied", () => {
    const late = [told[0]!, told[2]!, told[3]!, change("k", "2", 10)];
    expect(check(late)).toContain("before 2, called earlier");
  });
});

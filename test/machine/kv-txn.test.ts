/** What a transaction promises, one promise a test; kv.test.ts has random ones against a model. */
import { expect, test } from "bun:test";
import { checkLimits, defaultLimits, type Limits } from "../../src/limits.ts";
import { KvMachine } from "../../src/machine/kv.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import { encodeKvGet, encodeKvPut, readKvEntry } from "../../src/wire/kv.ts";
import {
  encodeKvTxn,
  type KvCompare,
  type KvOperation,
  KvOperator,
  KvTarget,
  type KvTxn,
  kvTxnFaultText,
  readKvTxnResults,
} from "../../src/wire/kv-txn.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";
import { Answers, Results, TestLog } from "./log.ts";

const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
const text = (value: Uint8Array): string => new TextDecoder().decode(value);

const put = (key: string, value: string | Uint8Array): KvOperation => ({
  op: "put",
  key: bytes(key),
  value: typeof value === "string" ? bytes(value) : value,
});
const del = (key: string): KvOperation => ({ op: "delete", key: bytes(key) });
const get = (key: string): KvOperation => ({ op: "get", key: bytes(key) });
const range = (prefix = "", limit = 0): KvOperation => ({
  op: "range",
  range: { prefix: bytes(prefix), limit },
});
const exists = (key: string): KvCompare => ({
  key: bytes(key),
  target: KvTarget.exists,
  operator: KvOperator.equal,
});

class Store {
  readonly machine: KvMachine;
  readonly #log = new TestLog();

  constructor(changes: Partial<Limits> = {}) {
    const file = new SimKvFile({ random: () => 0, schedule: () => undefined });
    const limits = checkLimits({ ...defaultLimits, ...changes });
    this.machine = new KvMachine({ file, limits, nowMs: () => 0 });
    this.machine.open();
  }

  apply(command: Uint8Array): { code: number; bytes: Uint8Array } {
    const results = new Results();
    const batch = this.#log.add([[command]]);
    this.machine.apply([batch], results);
    const { code, bytes: said } = results.all.get(batch.firstIndex) ?? { code: ResultCode.ok };
    return { code, bytes: said ?? new Uint8Array(0) };
  }

  put(key: string, value: string): void {
    expect(this.apply(encodeKvPut(bytes(key), bytes(value))).code).toBe(ResultCode.ok);
  }

  /** What the list that was taken says; deleted and found as booleans, entries as `value@revision`. */
  txn(txn: Partial<KvTxn>): { code: number; said: unknown } {
    const whole = { compare: [], success: [], failure: [], ...txn };
    const { code, bytes: result } = this.apply(encodeKvTxn(whole));
    const list = code === ResultCode.failureList ? whole.failure : whole.success;
    if (code !== ResultCode.ok && code !== ResultCode.failureList) {
      return { code, said: kvTxnFaultText(result) };
    }
    const said = readKvTxnResults(list, result)!.map((each) => {
      if (each.op === "put") return "put";
      if (each.op === "delete") return each.deleted;
      if (each.op === "get")
        return each.entry && `${text(each.entry.value)}@${each.entry.revision}`;
      const items = each.page.items.map(
        ({ key, value, revision }) => `${text(key)}=${text(value)}@${revision}`,
      );
      return each.page.more ? [...items, "more"] : items;
    });
    return { code, said };
  }

  get(key: string): string | undefined {
    const answers = new Answers();
    this.machine.read(encodeKvGet(bytes(key)), answers);
    if (answers.code === ResultCode.notFound) return undefined;
    const { value, revision } = readKvEntry(answers.bytes)!;
    return `${text(value)}@${revision}`;
  }
}

test("all that is written has the index of the transaction, and nothing has to be said", () => {
  const store = new Store();
  store.put("a", "1");
  expect(
    store.apply(
      encodeKvTxn({ compare: [], success: [put("a", "2"), put("b", "3"), del("a")], failure: [] }),
    ),
  ).toEqual({
    code: ResultCode.ok,
    bytes: new Uint8Array(0),
  });
  expect([store.get("a"), store.get("b")]).toEqual([undefined, "3@2"]);
});

test("operations run in order, and each sees those before it", () => {
  const store = new Store();
  store.put("a", "old");
  store.put("b", "old");
  const success = [
    get("a"),
    put("a", "first"),
    get("a"),
    put("a", "second, and longer"),
    range(),
    del("b"),
    del("b"),
    get("b"),
    put("c", "3"),
    range("", 1),
    del("c"),
    put("b", "back"),
    range(),
  ];
  expect(store.txn({ success })).toEqual({
    code: ResultCode.ok,
    said: [
      "old@1",
      "put",
      "first@3",
      "put",
      ["a=second, and longer@3", "b=old@2"],
      true,
      false,
      undefined,
      "put",
      ["a=second, and longer@3", "more"],
      true,
      "put",
      ["a=second, and longer@3", "b=back@3"],
    ],
  });
  expect([store.get("a"), store.get("b"), store.get("c")]).toEqual([
    "second, and longer@3",
    "back@3",
    undefined,
  ]);
});

test("compares look at the state before, all must hold, and the other list may write too", () => {
  const store = new Store();
  const lists = { success: [put("won", "x")], failure: [put("lost", "x"), get("lost")] };
  store.put("a", "1");
  expect(store.txn({ compare: [exists("a"), exists("b")], ...lists })).toEqual({
    code: ResultCode.failureList,
    said: ["put", "x@2"],
  });
  expect([store.get("won"), store.get("lost")]).toEqual([undefined, "x@2"]);
  expect(store.txn({ compare: [exists("a"), exists("lost")], ...lists }).code).toBe(ResultCode.ok);
  expect(store.get("won")).toBe("x@3");
});

test("compares by revision, value and existence, of keys that are there and that are not", () => {
  const store = new Store();
  store.put("other", "x");
  store.put("a", "v");
  const { revision, value, exists: there } = KvTarget;
  const { equal, notEqual, less, greater } = KvOperator;
  const a = bytes("a");
  const none = bytes("none");
  const cases: readonly [KvCompare, boolean][] = [
    [{ key: a, target: revision, operator: equal, revision: 2 }, true],
    [{ key: a, target: revision, operator: equal, revision: 1 }, false],
    [{ key: a, target: revision, operator: notEqual, revision: 2 }, false],
    [{ key: a, target: revision, operator: less, revision: 3 }, true],
    [{ key: a, target: revision, operator: less, revision: 2 }, false],
    [{ key: a, target: revision, operator: greater, revision: 1 }, true],
    [{ key: a, target: revision, operator: greater, revision: 2 }, false],
    [{ key: none, target: revision, operator: equal, revision: 0 }, true],
    [{ key: none, target: revision, operator: greater, revision: 0 }, false],
    [{ key: a, target: value, operator: equal, value: bytes("v") }, true],
    [{ key: a, target: value, operator: equal, value: bytes("vv") }, false],
    [{ key: a, target: value, operator: notEqual, value: bytes("w") }, true],
    [{ key: none, target: value, operator: equal, value: new Uint8Array(0) }, false],
    [{ key: none, target: value, operator: notEqual, value: new Uint8Array(0) }, true],
    [{ key: a, target: there, operator: equal }, true],
    [{ key: a, target: there, operator: notEqual }, false],
    [{ key: none, target: there, operator: equal }, false],
    [{ key: none, target: there, operator: notEqual }, true],
  ];
  for (const [compare, holds] of cases) {
    const code = holds ? ResultCode.ok : ResultCode.failureList;
    expect(store.txn({ compare: [compare] }).code).toBe(code);
  }
});

test("results over their bound refuse the whole, and name the operation", () => {
  const store = new Store({ resultBytesMax: 200 });
  store.put("large", "x".repeat(100));
  const success = [put("a", "1"), get("large"), put("b", "2"), get("large"), put("c", "3")];
  expect(store.txn({ success })).toEqual({
    code: ResultCode.tooLarge,
    said: "success[3] makes the results of the transaction too large; read less in it",
  });
  expect([store.get("a"), store.get("b"), store.get("c")]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
  const hash = store.machine.stateHash;
  expect(store.txn({ success: success.slice(0, 3) }).said).toEqual([
    "put",
    `${"x".repeat(100)}@1`,
    "put",
  ]);
  expect(store.machine.stateHash).not.toBe(hash);
});

test("a range ends where its page would not fit beside what follows", () => {
  const store = new Store({ resultBytesMax: 200 });
  for (const key of ["a", "b", "c", "d"]) store.put(key, "x".repeat(20));
  const value = "x".repeat(20);
  expect(store.txn({ success: [range(), get("none"), del("none")] }).said).toEqual([
    [`a=${value}@1`, `b=${value}@2`, `c=${value}@3`, "more"],
    undefined,
    false,
  ]);
});

test("the list that is not taken must be right too", () => {
  const store = new Store({ valueBytesMax: 10 });
  const txn = { compare: [exists("none")], success: [put("a", "1"), put("b", "x".repeat(11))] };
  expect(store.txn({ ...txn, failure: [put("c", "3")] })).toEqual({
    code: ResultCode.tooLarge,
    said: "success[1] is over a bound",
  });
  const command = encodeKvTxn({ compare: [], success: [put("a", "1")], failure: [get("a")] });
  // The get becomes a query that there is not.
  command[command.length - 5] = 99;
  const { code, bytes: fault } = store.apply(command);
  expect([code, kvTxnFaultText(fault)]).toEqual([ResultCode.malformed, "failure[0] is malformed"]);
  expect(store.get("a")).toBeUndefined();
});

test("as many operations and bytes as a transaction may have", () => {
  const store = new Store();
  const { txnOperationsMax, txnBytesMax } = defaultLimits;
  const most = Array.from({ length: txnOperationsMax }, (_, i) => put(`key-${i}`, `${i}`));
  expect(store.txn({ success: most }).code).toBe(ResultCode.ok);
  expect(store.get(`key-${txnOperationsMax - 1}`)).toBe(`${txnOperationsMax - 1}@1`);
  expect(store.txn({ success: most, failure: [get("a")] })).toEqual({
    code: ResultCode.tooLarge,
    said: "the transaction is over a bound",
  });
  // Head 8, and each put 4 + 8 + 1 beside its value.
  const rest = (txnBytesMax - 8 - 4 * 13) / 4;
  const values = ["a", "b", "c", "d"].map((key) => put(key, new Uint8Array(rest)));
  expect(store.txn({ success: values }).code).toBe(ResultCode.ok);
  const more = [...values.slice(1), put("a", new Uint8Array(rest + 1))];
  expect(store.txn({ success: more }).code).toBe(ResultCode.tooLarge);
});

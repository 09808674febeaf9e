/** Transactions as bytes and as objects: both ways, golden bytes, and that whatever is wrong is refused with its place. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { BargeError } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import { writeSafe } from "../../src/wire/batch.ts";
import { KvCommandReader, KvOp, KvQuery, readKvQuery } from "../../src/wire/kv.ts";
import {
  encodeKvTxn,
  encodeKvTxnFault,
  type KvCompare,
  KvCompareReader,
  type KvOperation,
  KvOperator,
  KvTarget,
  type KvTxn,
  kvTxnFaultText,
  KvTxnList,
  KvTxnProblem,
  KvTxnReader,
  operationEnd,
  operationStart,
  readKvTxnResults,
} from "../../src/wire/kv-txn.ts";
import { layOutTxn, type TxnNotation } from "../../src/wire/kv-txn-object.ts";
import { SectionResults } from "../../src/wire/section-results.ts";
import { holds } from "./property.ts";

const key = fc.uint8Array({ minLength: 1, maxLength: 20 });
const value = fc.uint8Array({ maxLength: 40 });
const bound = fc.option(key, { nil: undefined });
const byValue = fc.constantFrom(KvOperator.equal, KvOperator.notEqual);

const compare: fc.Arbitrary<KvCompare> = fc.oneof(
  fc.record({
    key,
    target: fc.constant(KvTarget.revision),
    operator: fc.constantFrom(...Object.values(KvOperator)),
    revision: fc.maxSafeNat(),
  }),
  fc.record({ key, target: fc.constant(KvTarget.value), operator: byValue, value }),
  fc.record({ key, target: fc.constant(KvTarget.exists), operator: byValue }),
);
const range = fc.record({
  prefix: fc.constant(undefined),
  from: bound,
  to: bound,
  after: bound,
  limit: fc.nat(1_000),
  keysOnly: fc.boolean(),
});
const operation: fc.Arbitrary<KvOperation> = fc.oneof(
  fc.record({ op: fc.constant("put" as const), key, value }),
  fc.record({ op: fc.constant("delete" as const), key }),
  fc.record({ op: fc.constant("get" as const), key }),
  fc.record({ op: fc.constant("range" as const), range }),
);
const txn: fc.Arbitrary<KvTxn> = fc.record({
  compare: fc.array(compare, { maxLength: 5 }),
  success: fc.array(operation, { maxLength: 5 }),
  failure: fc.array(operation, { maxLength: 5 }),
});

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Reads all of a transaction that the reader accepted. */
function decode(bytes: Uint8Array, reader: KvTxnReader): KvTxn {
  const view = viewOf(bytes);
  const compares: KvCompare[] = [];
  const one = new KvCompareReader();
  let at = reader.comparesAt;
  for (let i = 0; i < reader.compareCount; i++) {
    at = one.read(view, at, bytes.byteLength);
    const { target, operator } = one;
    const own = bytes.slice(one.keyAt, one.keyAt + one.keyLength);
    const operand = bytes.slice(one.operandAt, one.operandAt + one.operandLength);
    if (target === KvTarget.revision) {
      compares.push({ key: own, target, operator, revision: one.revision });
    } else if (target === KvTarget.value) {
      compares.push({ key: own, target, operator, value: operand });
    } else compares.push({ key: own, target, operator });
  }
  const success = decodeList(bytes, reader.successAt, reader.successCount);
  const failure = decodeList(bytes, reader.failureAt, reader.failureCount);
  return { compare: compares, success, failure };
}

function decodeList(bytes: Uint8Array, start: number, count: number): KvOperation[] {
  const view = viewOf(bytes);
  const command = new KvCommandReader();
  const operations: KvOperation[] = [];
  let at = start;
  for (let i = 0; i < count; i++) {
    const from = operationStart(at);
    at = operationEnd(view, at);
    if (command.read(view, from, at - from)) {
      const own = bytes.slice(command.keyAt, command.valueAt);
      const written = bytes.slice(command.valueAt, at);
      if (command.op === KvOp.put) operations.push({ op: "put", key: own, value: written });
      else operations.push({ op: "delete", key: own });
      continue;
    }
    const query = readKvQuery(bytes.slice(from, at))!;
    if (query.op === KvQuery.get) operations.push({ op: "get", key: query.key });
    else operations.push({ op: "range", range: query.range });
  }
  return operations;
}

function read(bytes: Uint8Array, bounds = defaultLimits): KvTxnReader & { ok: boolean } {
  const reader = new KvTxnReader();
  const ok = reader.read(bytes, viewOf(bytes), 0, bytes.byteLength, bounds);
  return Object.assign(reader, { ok });
}

function fault({ ok, list, position, problem }: ReturnType<typeof read>): string | undefined {
  return ok ? undefined : kvTxnFaultText(encodeKvTxnFault(list, position, problem));
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const put = (name: string, bytes = 1): KvOperation => ({
  op: "put",
  key: ascii(name),
  value: new Uint8Array(bytes),
});

describe("transactions as bytes", () => {
  test("are read as they were written, in the midst of other bytes", () => {
    holds(300, fc.tuple(txn, fc.nat(7)), ([given, offset]) => {
      const bytes = encodeKvTxn(given);
      const among = new Uint8Array(offset + bytes.byteLength + 3).fill(0xee);
      among.set(bytes, offset);
      const reader = new KvTxnReader();
      const size = bytes.byteLength;
      expect(reader.read(among, viewOf(among), offset, size, defaultLimits)).toBe(true);
      expect(decode(among, reader)).toEqual(given);
      expect(reader.read(among, viewOf(among), offset, size - 1, defaultLimits)).toBe(false);
      expect(reader.read(among, viewOf(among), offset, size + 1, defaultLimits)).toBe(false);
    });
  });

  test("have the bytes of the agreed layout", () => {
    const a = ascii("a");
    const bytes = encodeKvTxn({
      compare: [
        { key: a, target: KvTarget.revision, operator: KvOperator.greater, revision: 2 ** 33 + 5 },
        { key: a, target: KvTarget.value, operator: KvOperator.notEqual, value: ascii("xy") },
        { key: a, target: KvTarget.exists, operator: KvOperator.equal },
      ],
      success: [
        { op: "put", key: a, value: ascii("v") },
        { op: "delete", key: a },
      ],
      failure: [
        { op: "get", key: a },
        { op: "range", range: { prefix: a, limit: 7 } },
      ],
    });
    expect(Buffer.from(bytes).toString("hex")).toBe(
      "0501030002000200" +
        "0003010008000000" +
        "61" +
        "0500000002000000" +
        "0101010002000000" +
        "61" +
        "7879" +
        "0200010000000000" +
        "61" +
        "0a000000" +
        "0101010001000000" +
        "6176" +
        "09000000" +
        "0201010000000000" +
        "61" +
        "05000000" +
        "40010100" +
        "61" +
        "11000000" +
        "41010200" +
        "07000000" +
        "0100000000000000" +
        "61",
    );
  });

  test("any bytes are accepted as one transaction or refused, never more", () => {
    const flips = fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { minLength: 1, maxLength: 4 });
    holds(2_000, fc.tuple(txn, flips, fc.nat(30)), ([given, changes, cut]) => {
      const whole = encodeKvTxn(given);
      const bytes = whole.slice(0, Math.max(0, whole.byteLength - (cut > 20 ? cut : 0)));
      for (const [at, byte] of changes) if (at < bytes.byteLength) bytes[at] = byte;
      const reader = read(bytes);
      if (reader.ok) expect(encodeKvTxn(decode(bytes, reader))).toEqual(bytes);
      else expect(fault(reader)).toBeString();
    });
    holds(1_000, fc.uint8Array({ maxLength: 60 }), (bytes) => {
      if (bytes.byteLength > 1) bytes.set([5, 1]);
      read(bytes);
    });
  });

  test("what is wrong is named: the list, the position, the kind", () => {
    const bounds = { ...defaultLimits, keyBytesMax: 4, valueBytesMax: 10, txnOperationsMax: 4 };
    const of = (given: Partial<KvTxn>): string | undefined =>
      fault(read(encodeKvTxn({ compare: [], success: [], failure: [], ...given }), bounds));
    const long = ascii("12345");
    expect(of({})).toBeUndefined();
    expect(of({ success: [put("1234", 10)], failure: [put("1"), put("2"), put("3")] })).toBe(
      undefined,
    );
    expect(of({ success: [put("12345")] })).toBe("success[0] is over a bound");
    expect(of({ failure: [put("1"), put("2", 11)] })).toBe("failure[1] is over a bound");
    expect(of({ success: [{ op: "get", key: long }] })).toBe("success[0] is over a bound");
    for (const side of ["prefix", "from", "to", "after"]) {
      const ranged = { op: "range" as const, range: { [side]: long, limit: 1 } };
      expect(of({ success: [put("1"), ranged] })).toBe("success[1] is over a bound");
    }
    const exists = { target: KvTarget.exists, operator: KvOperator.equal };
    expect(
      of({
        compare: [
          { key: ascii("1"), ...exists },
          { key: long, ...exists },
        ],
      }),
    ).toBe("compare[1] is over a bound");
    const five = [put("1"), put("2"), put("3")];
    expect(of({ success: five, failure: five })).toBe("the transaction is over a bound");

    const bytes = encodeKvTxn({ compare: [], success: [put("a"), put("b")], failure: [] });
    expect(fault(read(bytes, { ...bounds, txnBytesMax: bytes.byteLength - 1 }))).toBe(
      "the transaction is over a bound",
    );
    // The op of the second put becomes a compare-and-delete: no operation of a transaction.
    bytes[8 + 14 + 4] = KvOp.compareAndDelete;
    expect(fault(read(bytes))).toBe("success[1] is malformed");
    expect(fault(read(bytes.subarray(0, 7)))).toBe("the transaction is malformed");
  });

  test("an unsafe revision, an operator for another target and an operand too many are refused", () => {
    const one = encodeKvTxn({
      compare: [
        { key: ascii("a"), target: KvTarget.revision, operator: KvOperator.less, revision: 1 },
      ],
      success: [],
      failure: [],
    });
    const changed = (change: (bytes: Uint8Array) => void): string | undefined => {
      const bytes = one.slice();
      change(bytes);
      return fault(read(bytes));
    };
    expect(changed(() => undefined)).toBeUndefined();
    expect(changed((bytes) => bytes.fill(0xff, 17, 25))).toBe("compare[0] is malformed");
    expect(changed((bytes) => (bytes[8] = KvTarget.value))).toBe("compare[0] is malformed");
    expect(changed((bytes) => bytes.set([KvTarget.exists, KvOperator.equal], 8))).toBe(
      "compare[0] is malformed",
    );
    expect(changed((bytes) => (bytes[9] = 4))).toBe("compare[0] is malformed");
  });
});

describe("results of transactions", () => {
  const entry = new Uint8Array(9);
  writeSafe(viewOf(entry), 0, 17);
  entry[8] = 0x78;
  const operations = (["put", "delete", "delete", "get", "get"] as const).map((op) => ({ op }));

  test("are read by position", () => {
    const results = new SectionResults();
    results.add(2, 2, undefined);
    results.add(3, 0, entry);
    results.add(4, 2, undefined);
    expect(readKvTxnResults(operations, results.view())).toEqual([
      { op: "put" },
      { op: "delete", deleted: true },
      { op: "delete", deleted: false },
      { op: "get", entry: { revision: 17, value: ascii("x") } },
      { op: "get", entry: undefined },
    ]);
  });

  test("what does not belong is refused", () => {
    const with_ = (...added: [number, number, Uint8Array?][]): unknown => {
      const results = new SectionResults();
      for (const [position, code, bytes] of added) results.add(position, code, bytes);
      return readKvTxnResults(operations, results.view());
    };
    expect(with_([3, 0, entry])).toBeUndefined(); // the second get has no answer
    expect(with_([0, 2], [3, 2], [4, 2])).toBeUndefined(); // a put finds always
    expect(with_([3, 1], [4, 2])).toBeUndefined();
    expect(with_([3, 2], [4, 2], [5, 2])).toBeUndefined();
    expect(readKvTxnResults([{ op: "range" }], new Uint8Array(0))).toBeUndefined();
    holds(500, fc.uint8Array({ maxLength: 60 }), (bytes) => {
      readKvTxnResults(operations, bytes);
      kvTxnFaultText(bytes);
    });
  });
});

describe("transactions as objects", () => {
  const text: TxnNotation = {
    key: (given) => (typeof given === "string" ? ascii(given) : "text"),
    value: (given) => (typeof given === "string" ? ascii(given) : "text"),
  };
  const limits = { ...defaultLimits, keyBytesMax: 5, valueBytesMax: 6, txnOperationsMax: 4 };
  const refusal = (given: unknown, bounds = limits): string => {
    try {
      layOutTxn(given, text, bounds);
    } catch (error) {
      if (!(error instanceof BargeError)) throw error;
      expect(error.outcome).toBe("not-applied");
      return `${error.code} ${error.message}`;
    }
    return "none";
  };

  test("are read with their defaults", () => {
    const { txn: got, command } = layOutTxn(
      {
        compare: [
          { key: "a", revision: 0 },
          { key: "b", revision: 9, operator: "less" },
          { key: "c", value: "v", operator: "notEqual" },
          { key: "d", exists: false },
        ],
      },
      text,
      limits,
    );
    const { revision, value: byTheValue, exists } = KvTarget;
    const { equal, notEqual, less } = KvOperator;
    expect(got.compare).toEqual([
      { key: ascii("a"), target: revision, operator: equal, revision: 0 },
      { key: ascii("b"), target: revision, operator: less, revision: 9 },
      { key: ascii("c"), target: byTheValue, operator: notEqual, value: ascii("v") },
      { key: ascii("d"), target: exists, operator: notEqual },
    ]);
    expect(decode(command, read(command))).toEqual(got);
    const { txn: other } = layOutTxn(
      {
        success: [
          { op: "put", key: "k", value: "" },
          { op: "range", prefix: "p", limit: 3, keysOnly: true, after: undefined },
        ],
        failure: [{ op: "delete", key: "k" }, { op: "range" }],
      },
      text,
      limits,
    );
    expect(other.success).toEqual([
      { op: "put", key: ascii("k"), value: new Uint8Array(0) },
      { op: "range", range: { prefix: ascii("p"), limit: 3, keysOnly: true } },
    ]);
    expect(other.failure[1]).toEqual({ op: "range", range: { limit: 0, keysOnly: false } });
  });

  const success = (...operations: readonly unknown[]): unknown => ({ success: operations });
  const compares = (...all: readonly unknown[]): unknown => ({ compare: all });
  const get = { op: "get", key: "k" };
  const cases: readonly [string, unknown][] = [
    ["bad_request the transaction: must be an object", []],
    ["bad_request the transaction: must be an object", null],
    ["bad_request else: is unknown; known here: compare, success, failure", { else: [] }],
    ["bad_request failure: must be a list", { failure: {} }],
    ["bad_request success[1]: must be an object", success(get, 7)],
    ["bad_request success[0].op: must be one of put, delete, get, range", success({ key: "k" })],
    ["bad_request success[0].op: must be one of", success({ op: "toString", key: "k" })],
    ["bad_request success[1].key: must be text", success(get, { op: "put", value: "v" })],
    ["bad_request success[0].key: must not be empty", success({ op: "get", key: "" })],
    ["too_large success[0].key: may be at most 5 bytes", success({ op: "get", key: "123456" })],
    ["bad_request success[0].value: must be text", success({ op: "put", key: "k", value: 1 })],
    ["too_large success[0].value: may be", success({ op: "put", key: "k", value: "1234567" })],
    ["bad_request success[0].value: is unknown", success({ ...get, value: "v" })],
    ["bad_request success[0].limit: must be a whole", success({ op: "range", limit: 1_001 })],
    ["bad_request success[0].limit: must be a whole", success({ op: "range", limit: "1" })],
    ["bad_request success[0].keysOnly: must be true", success({ op: "range", keysOnly: 1 })],
    ["bad_request success[0].prefix: does not go", success({ op: "range", prefix: "", to: "b" })],
    ["too_large success[0].to: may be at most 5", success({ op: "range", to: "123456" })],
    ["bad_request compare[0]: must have one of revision, value, exists", compares({ key: "k" })],
    ["bad_request compare[0]: must have one of", compares({ key: "k", exists: true, revision: 1 })],
    ["bad_request compare[0].key: must be text", compares({ exists: true })],
    ["bad_request compare[0].exists: must be true or false", compares({ key: "k", exists: 0 })],
    [
      "bad_request compare[0].operator: goes with revision and value only",
      compares({ key: "k", exists: true, operator: "equal" }),
    ],
    ["bad_request compare[0].revision: must be a whole", compares({ key: "k", revision: -1 })],
    ["bad_request compare[0].revision: must be a whole", compares({ key: "k", revision: 2 ** 53 })],
    [
      "bad_request compare[0].operator: must be one of equal, notEqual",
      compares({ key: "k", value: "v", operator: "less" }),
    ],
    [
      "bad_request compare[0].operator: must be one of equal, notEqual, less, greater",
      compares({ key: "k", revision: 1, operator: "==" }),
    ],
    ["too_large a transaction has at most 4", success(get, get, get, get, get)],
  ];
  test.each(cases)("%s", (message, given) => {
    expect(refusal(given)).toStartWith(message);
  });

  test("the bound of the whole is checked", () => {
    const four = success(get, get, get, get);
    expect(refusal(four)).toBe("none");
    expect(refusal(four, { ...limits, txnBytesMax: 20 })).toBe(
      "too_large the transaction takes 44 bytes and may take 20",
    );
  });

  test("whatever is given is laid out or refused", () => {
    holds(
      1_000,
      fc.object({ key: fc.constantFrom("compare", "success", "op", "key") }),
      (given) => {
        refusal(given);
      },
    );
  });
});

test("every list and every problem has words", () => {
  for (const list of Object.values(KvTxnList)) {
    for (const problem of Object.values(KvTxnProblem)) {
      const text = kvTxnFaultText(encodeKvTxnFault(list, 300, problem));
      if (problem === KvTxnProblem.none) expect(text).toBeUndefined();
      else if (list !== KvTxnList.whole) expect(text).toContain("[300] ");
    }
  }
});

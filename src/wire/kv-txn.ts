/**
 * A transaction of the key-value machine as one command: compares, then one of two lists of operations. Pure. The operations are the
 * very commands and queries of kv.ts, laid out one behind the other.
 *
 *     command    0 op u8 (5) | 1 version u8 | 2 compares u16 | 4 success operations u16 | 6 failure operations u16
 *                8 compares | success operations | failure operations
 *     compare    0 target u8 | 1 operator u8 | 2 keyLength u16 | 4 operandLength u32 | key | operand
 *                operand: of a revision a u64, of a value its bytes, of existence nothing
 *     operation  0 length u32 | a put or delete command, a get or range query
 *
 *     result     as in section-results.ts, by position in the list that was applied: what is not plain ok; of a get and a range the answer
 *     fault      0 list u8 | 1 problem u8 | 2 position u16: the bytes of a result that refuses the transaction
 *
 * All compares look at the state before the transaction. A key that is absent has revision 0 and no value, which equals none. The
 * operations run in order, each sees what those before it did, and a key that is written twice keeps the last value. Every key written has
 * the log index of the transaction as its revision.
 */
import { readSafe, writeSafe } from "./batch.ts";
import {
  encodeKvDelete,
  encodeKvGet,
  encodeKvPut,
  encodeKvRange,
  KvCommandReader,
  type KvEntry,
  KvOp,
  type KvPage,
  KvQuery,
  type KvRange,
  kvVersion,
  readKvEntry,
  readKvPage,
  readKvQuery,
} from "./kv.ts";
import { readSectionResults } from "./section-results.ts";

/** In the number space of `KvOp`. */
export const kvTxnOp = 5;

/** Append-only. */
export const KvTarget = { revision: 0, value: 1, exists: 2 } as const;
export type KvTarget = (typeof KvTarget)[keyof typeof KvTarget];

/** Append-only. `less` and `greater` are for revisions. */
export const KvOperator = { equal: 0, notEqual: 1, less: 2, greater: 3 } as const;
export type KvOperator = (typeof KvOperator)[keyof typeof KvOperator];

/** What holds for a key: `less` says that its revision is less than the given one. */
export type KvCompare = { readonly key: Uint8Array; readonly operator: KvOperator } & (
  | { readonly target: typeof KvTarget.revision; readonly revision: number }
  | { readonly target: typeof KvTarget.value; readonly value: Uint8Array }
  /** equal: there is the key; notEqual: there is none. */
  | { readonly target: typeof KvTarget.exists }
);

export type KvOperation =
  | { readonly op: "put"; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly op: "delete"; readonly key: Uint8Array }
  | { readonly op: "get"; readonly key: Uint8Array }
  | { readonly op: "range"; readonly range: KvRange };

export interface KvTxn {
  readonly compare: readonly KvCompare[];
  /** Applied where all compares hold; also where there are none. */
  readonly success: readonly KvOperation[];
  readonly failure: readonly KvOperation[];
}

/** The lists of a transaction in their order; `whole` says that it is refused as such. Append-only. */
export const KvTxnList = { compare: 0, success: 1, failure: 2, whole: 3 } as const;
export type KvTxnList = (typeof KvTxnList)[keyof typeof KvTxnList];

/** Why a transaction is refused, at the place that is named with it. Append-only. */
export const KvTxnProblem = {
  none: 0,
  malformed: 1,
  /** A key or a value, or of the whole the bytes or the number of operations. */
  tooLarge: 2,
  /** What the list answers, up to here. */
  resultTooLarge: 3,
} as const;
export type KvTxnProblem = (typeof KvTxnProblem)[keyof typeof KvTxnProblem];

/** Rows of `Limits`. */
export interface KvTxnBounds {
  readonly keyBytesMax: number;
  readonly valueBytesMax: number;
  readonly rangeItemsMax: number;
  readonly txnOperationsMax: number;
  readonly txnBytesMax: number;
}

const headBytes = 8;
const compareHeadBytes = 8;
const operationHeadBytes = 4;
const revisionBytes = 8;
const faultBytes = 4;

/* ------------------------------------------------------------------ writing */

/** Keys must be at most 65,535 bytes and lists as long; the machine's own bounds are lower. */
export function encodeKvTxn({ compare, success, failure }: KvTxn): Uint8Array {
  const operations = [...success, ...failure].map(encodeOperation);
  let size = headBytes;
  for (const each of compare) size += compareHeadBytes + each.key.byteLength + operandBytes(each);
  for (const each of operations) size += operationHeadBytes + each.byteLength;
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, kvTxnOp);
  view.setUint8(1, kvVersion);
  view.setUint16(2, compare.length, true);
  view.setUint16(4, success.length, true);
  view.setUint16(6, failure.length, true);
  let at = headBytes;
  for (const each of compare) at = writeCompare(bytes, view, at, each);
  for (const each of operations) {
    view.setUint32(at, each.byteLength, true);
    bytes.set(each, at + operationHeadBytes);
    at += operationHeadBytes + each.byteLength;
  }
  return bytes;
}

function operandBytes(compare: KvCompare): number {
  if (compare.target === KvTarget.revision) return revisionBytes;
  return compare.target === KvTarget.value ? compare.value.byteLength : 0;
}

function writeCompare(bytes: Uint8Array, view: DataView, at: number, compare: KvCompare): number {
  const { key, target, operator } = compare;
  const operandAt = at + compareHeadBytes + key.byteLength;
  view.setUint8(at, target);
  view.setUint8(at + 1, operator);
  view.setUint16(at + 2, key.byteLength, true);
  view.setUint32(at + 4, operandBytes(compare), true);
  bytes.set(key, at + compareHeadBytes);
  if (target === KvTarget.revision) writeSafe(view, operandAt, compare.revision);
  if (target === KvTarget.value) bytes.set(compare.value, operandAt);
  return operandAt + operandBytes(compare);
}

function encodeOperation(operation: KvOperation): Uint8Array {
  switch (operation.op) {
    case "put":
      return encodeKvPut(operation.key, operation.value);
    case "delete":
      return encodeKvDelete(operation.key);
    case "get":
      return encodeKvGet(operation.key);
    case "range":
      return encodeKvRange(operation.range);
  }
}

/* ------------------------------------------------------------------ reading in place */

/** One compare read in place. */
export class KvCompareReader {
  target: KvTarget = KvTarget.revision;
  operator: KvOperator = KvOperator.equal;
  keyAt = 0;
  keyLength = 0;
  operandAt = 0;
  operandLength = 0;
  /** The operand of a revision. */
  revision = 0;

  /** Returns where it ends; 0 where there is no well-formed one before `end`. */
  read(view: DataView, at: number, end: number): number {
    if (end - at < compareHeadBytes) return 0;
    const target = view.getUint8(at);
    const operator = view.getUint8(at + 1);
    if (target > KvTarget.exists || operator > KvOperator.greater) return 0;
    if (target !== KvTarget.revision && operator > KvOperator.notEqual) return 0;
    this.target = target as KvTarget;
    this.operator = operator as KvOperator;
    this.keyAt = at + compareHeadBytes;
    this.keyLength = view.getUint16(at + 2, true);
    this.operandAt = this.keyAt + this.keyLength;
    this.operandLength = view.getUint32(at + 4, true);
    if (this.keyLength === 0 || this.operandLength > end - this.operandAt) return 0;
    if (target === KvTarget.exists && this.operandLength !== 0) return 0;
    this.revision = 0;
    if (target === KvTarget.revision) {
      if (this.operandLength !== revisionBytes) return 0;
      this.revision = readSafe(view, this.operandAt);
      if (!(this.revision >= 0)) return 0;
    }
    return this.operandAt + this.operandLength;
  }
}

/** The operation at `at` of a transaction that was read: its command or query lies in [start, end). */
export function operationStart(at: number): number {
  return at + operationHeadBytes;
}
export function operationEnd(view: DataView, at: number): number {
  return at + operationHeadBytes + view.getUint32(at, true);
}

/** A transaction read in place and checked as a whole, both lists of it. Made once, filled by `read` for each. */
export class KvTxnReader {
  compareCount = 0;
  successCount = 0;
  failureCount = 0;
  comparesAt = 0;
  successAt = 0;
  failureAt = 0;

  /** Where `read` returned false: what is wrong, and with what. */
  problem: KvTxnProblem = KvTxnProblem.none;
  list: KvTxnList = KvTxnList.whole;
  position = 0;

  readonly #compare = new KvCompareReader();
  readonly #command = new KvCommandReader();

  /** False where the `length` bytes at `offset` are not exactly one well-formed transaction within its bounds. */
  read(
    bytes: Uint8Array,
    view: DataView,
    offset: number,
    length: number,
    bounds: KvTxnBounds,
  ): boolean {
    const { malformed, tooLarge } = KvTxnProblem;
    if (length > bounds.txnBytesMax) return this.#fault(KvTxnList.whole, 0, tooLarge);
    if (length < headBytes || view.getUint8(offset) !== kvTxnOp) {
      return this.#fault(KvTxnList.whole, 0, malformed);
    }
    if (view.getUint8(offset + 1) !== kvVersion) return this.#fault(KvTxnList.whole, 0, malformed);
    this.compareCount = view.getUint16(offset + 2, true);
    this.successCount = view.getUint16(offset + 4, true);
    this.failureCount = view.getUint16(offset + 6, true);
    if (this.compareCount + this.successCount + this.failureCount > bounds.txnOperationsMax) {
      return this.#fault(KvTxnList.whole, 0, tooLarge);
    }
    const end = offset + length;
    this.comparesAt = offset + headBytes;
    this.successAt = this.#checkCompares(view, this.comparesAt, end, bounds);
    if (this.successAt === 0) return false;
    const { success, failure } = KvTxnList;
    this.failureAt = this.#checkList(bytes, view, success, this.successAt, end, bounds);
    if (this.failureAt === 0) return false;
    const last = this.#checkList(bytes, view, failure, this.failureAt, end, bounds);
    if (last === 0) return false;
    return last === end || this.#fault(KvTxnList.whole, 0, malformed);
  }

  #fault(list: KvTxnList, position: number, problem: KvTxnProblem): false {
    this.list = list;
    this.position = position;
    this.problem = problem;
    return false;
  }

  /** Returns where the compares end, or 0 after a fault. */
  #checkCompares(view: DataView, start: number, end: number, bounds: KvTxnBounds): number {
    const compare = this.#compare;
    let at = start;
    for (let position = 0; position < this.compareCount; position++) {
      at = compare.read(view, at, end);
      let problem: KvTxnProblem = KvTxnProblem.none;
      if (at === 0) problem = KvTxnProblem.malformed;
      else if (compare.keyLength > bounds.keyBytesMax) problem = KvTxnProblem.tooLarge;
      else if (compare.operandLength > Math.max(bounds.valueBytesMax, revisionBytes)) {
        problem = KvTxnProblem.tooLarge;
      }
      if (problem === KvTxnProblem.none) continue;
      this.#fault(KvTxnList.compare, position, problem);
      return 0;
    }
    return at;
  }

  /** Returns where the list ends, or 0 after a fault. */
  #checkList(
    bytes: Uint8Array,
    view: DataView,
    list: KvTxnList,
    start: number,
    end: number,
    bounds: KvTxnBounds,
  ): number {
    const count = list === KvTxnList.success ? this.successCount : this.failureCount;
    let at = start;
    for (let position = 0; position < count; position++) {
      const next = end - at < operationHeadBytes ? 0 : operationEnd(view, at);
      const problem =
        next === 0 || next > end
          ? KvTxnProblem.malformed
          : this.#checkOperation(bytes, view, operationStart(at), next, bounds);
      if (problem !== KvTxnProblem.none) {
        this.#fault(list, position, problem);
        return 0;
      }
      at = next;
    }
    return at;
  }

  #checkOperation(
    bytes: Uint8Array,
    view: DataView,
    start: number,
    end: number,
    { keyBytesMax, valueBytesMax }: KvTxnBounds,
  ): KvTxnProblem {
    const { none, malformed, tooLarge } = KvTxnProblem;
    if (start === end) return malformed;
    const op = view.getUint8(start);
    if (op === KvOp.put || op === KvOp.delete) {
      const command = this.#command;
      if (!command.read(view, start, end - start)) return malformed;
      const fits = command.keyLength <= keyBytesMax && command.valueLength <= valueBytesMax;
      return fits ? none : tooLarge;
    }
    const query = readKvQuery(bytes.subarray(start, end));
    if (query === undefined) return malformed;
    if (query.op === KvQuery.get) return query.key.byteLength <= keyBytesMax ? none : tooLarge;
    const { prefix, from, to, after } = query.range;
    for (const key of [prefix, from, to, after]) {
      if (key !== undefined && key.byteLength > keyBytesMax) return tooLarge;
    }
    return none;
  }
}

/* ------------------------------------------------------------------ results */

/** Codes of a transaction's result and of its operations; numbers of machine.ResultCode, which wire may not import. */
export const kvTxnCode = { ok: 0, malformed: 1, notFound: 2, tooLarge: 4, failureList: 5 } as const;

export type KvOperationResult =
  | { readonly op: "put" }
  | { readonly op: "delete"; readonly deleted: boolean }
  /** Undefined where the key is absent. */
  | { readonly op: "get"; readonly entry: KvEntry | undefined }
  | { readonly op: "range"; readonly page: KvPage };

/**
 * Reads the bytes of the result of a transaction that was applied, for the list that was; undefined where they are not well formed. Values
 * and keys are views of `bytes`.
 */
export function readKvTxnResults(
  operations: readonly Pick<KvOperation, "op">[],
  bytes: Uint8Array,
): KvOperationResult[] | undefined {
  const exceptions = readSectionResults(bytes, operations.length);
  if (exceptions === undefined) return undefined;
  const results: KvOperationResult[] = [];
  let next = 0;
  for (const [position, { op }] of operations.entries()) {
    const exception = exceptions[next]?.position === position ? exceptions[next++] : undefined;
    const result = operationResult(op, exception?.code ?? kvTxnCode.ok, exception?.bytes);
    if (result === undefined) return undefined;
    results.push(result);
  }
  return results;
}

function operationResult(
  op: KvOperation["op"],
  code: number,
  bytes: Uint8Array | undefined,
): KvOperationResult | undefined {
  const found = code === kvTxnCode.ok;
  if (!found && (code !== kvTxnCode.notFound || op === "put" || op === "range")) return undefined;
  if (op === "put") return { op };
  if (op === "delete") return { op, deleted: found };
  if (op === "get") {
    const entry = found && bytes !== undefined ? readKvEntry(bytes) : undefined;
    return found && entry === undefined ? undefined : { op, entry };
  }
  const page = bytes === undefined ? undefined : readKvPage(bytes);
  return page === undefined ? undefined : { op, page };
}

export function encodeKvTxnFault(
  list: KvTxnList,
  position: number,
  problem: KvTxnProblem,
): Uint8Array {
  const bytes = new Uint8Array(faultBytes);
  bytes[0] = list;
  bytes[1] = problem;
  new DataView(bytes.buffer).setUint16(2, position, true);
  return bytes;
}

const problemWords: Readonly<Record<number, string>> = {
  [KvTxnProblem.malformed]: "is malformed",
  [KvTxnProblem.tooLarge]: "is over a bound",
  [KvTxnProblem.resultTooLarge]: "makes the results of the transaction too large; read less in it",
};

/** Says in words what the result of a refused transaction names, such as `success[3] is malformed`; undefined where it names nothing. */
export function kvTxnFaultText(bytes: Uint8Array): string | undefined {
  const list = Object.keys(KvTxnList)[bytes[0] ?? -1];
  const words = problemWords[bytes[1] ?? -1];
  if (bytes.byteLength !== faultBytes || list === undefined || words === undefined) {
    return undefined;
  }
  const position = bytes[2]! + 256 * bytes[3]!;
  return `${list === "whole" ? "the transaction" : `${list}[${position}]`} ${words}`;
}

/**
 * The object form of a transaction, which the HTTP door, the SDK and the command line share, checked into the one of kv-txn.ts. Pure; only the
 * notation of keys and values differs, and is given. What is wrong is named by its place, such as `success[3].key`.
 *
 *     compare  { key, revision | value | exists, operator? }
 *     success, failure
 *              { op: "put", key, value } | { op: "delete", key } | { op: "get", key }
 *              { op: "range", prefix? | from? to?, after?, limit?, keysOnly? }
 *
 * Anything else is refused, unknown fields included: a typo must not change what is done.
 */
import { BargeError } from "../errors.ts";
import type { KvRange } from "./kv.ts";
import {
  encodeKvTxn,
  type KvCompare,
  type KvOperation,
  KvOperator,
  KvTarget,
  type KvTxn,
  type KvTxnBounds,
} from "./kv-txn.ts";

/** How keys and values are written. Each returns the bytes, or what it must be instead. */
export interface TxnNotation {
  key(given: unknown): Uint8Array | string;
  value(given: unknown): Uint8Array | string;
}

type Fields = Readonly<Record<string, unknown>>;

const listNames = ["compare", "success", "failure"] as const;
/** Fields of each operation besides `op`. */
const operationFields: Readonly<Record<KvOperation["op"], readonly string[]>> = {
  put: ["key", "value"],
  delete: ["key"],
  get: ["key"],
  range: ["prefix", "from", "to", "after", "limit", "keysOnly"],
};

export interface LaidOutTxn {
  readonly txn: KvTxn;
  readonly command: Uint8Array;
}

/** Throws a BargeError, `bad_request` or `too_large`, that names the place. An absent list is an empty one. */
export function layOutTxn(given: unknown, notation: TxnNotation, bounds: KvTxnBounds): LaidOutTxn {
  const txn = new TxnObject(notation, bounds).read(given);
  const command = encodeKvTxn(txn);
  if (command.byteLength <= bounds.txnBytesMax) return { txn, command };
  throw tooLarge(
    `the transaction takes ${command.byteLength} bytes and may take ${bounds.txnBytesMax}`,
  );
}

class TxnObject {
  readonly #notation: TxnNotation;
  readonly #bounds: KvTxnBounds;

  constructor(notation: TxnNotation, bounds: KvTxnBounds) {
    this.#notation = notation;
    this.#bounds = bounds;
  }

  read(given: unknown): KvTxn {
    const fields = fieldsOf(given, "the transaction");
    refuseOthers(fields, listNames, "");
    const [compare, success, failure] = listNames.map((name) => listOf(fields[name], name));
    const count = compare!.length + success!.length + failure!.length;
    const { txnOperationsMax } = this.#bounds;
    if (count > txnOperationsMax) {
      throw tooLarge(`a transaction has at most ${txnOperationsMax} compares and operations`);
    }
    return {
      compare: compare!.map((each, position) => this.#compare(each, `compare[${position}]`)),
      success: success!.map((each, position) => this.#operation(each, `success[${position}]`)),
      failure: failure!.map((each, position) => this.#operation(each, `failure[${position}]`)),
    };
  }

  #compare(given: unknown, place: string): KvCompare {
    const fields = fieldsOf(given, place);
    refuseOthers(fields, ["key", "revision", "value", "exists", "operator"], place);
    const key = this.#key(fields, "key", place);
    const targets = Object.keys(KvTarget).filter((name) => fields[name] !== undefined);
    const [target] = targets;
    if (targets.length !== 1) {
      throw wrong(place, `must have one of ${Object.keys(KvTarget).join(", ")}`);
    }
    if (target === "exists") {
      if (fields["operator"] !== undefined) {
        throw wrong(`${place}.operator`, "goes with revision and value only");
      }
      const exists = booleanOf(fields["exists"], `${place}.exists`);
      const operator = exists ? KvOperator.equal : KvOperator.notEqual;
      return { key, target: KvTarget.exists, operator };
    }
    const byValue = target === "value";
    const operator = operatorOf(fields["operator"], byValue, `${place}.operator`);
    if (byValue) {
      return { key, target: KvTarget.value, operator, value: this.#value(fields, place) };
    }
    const { revision } = fields;
    const where = `${place}.revision`;
    return {
      key,
      target: KvTarget.revision,
      operator,
      revision: wholeNumber(revision, 0, Number.MAX_SAFE_INTEGER, where),
    };
  }

  #operation(given: unknown, place: string): KvOperation {
    const fields = fieldsOf(given, place);
    const op = fields["op"];
    if (typeof op !== "string" || !isOperation(op)) {
      throw wrong(`${place}.op`, `must be one of ${Object.keys(operationFields).join(", ")}`);
    }
    refuseOthers(fields, ["op", ...operationFields[op]], place);
    if (op === "range") return { op, range: this.#range(fields, place) };
    const key = this.#key(fields, "key", place);
    return op === "put" ? { op, key, value: this.#value(fields, place) } : { op, key };
  }

  #range(fields: Fields, place: string): KvRange {
    const [prefix, from, to, after] = ["prefix", "from", "to", "after"].map((name) =>
      fields[name] === undefined ? undefined : this.#key(fields, name, place),
    );
    if (prefix !== undefined && (from !== undefined || to !== undefined)) {
      throw wrong(`${place}.prefix`, "does not go with from or to");
    }
    const { limit, keysOnly } = fields;
    const { rangeItemsMax } = this.#bounds;
    return {
      prefix,
      from,
      to,
      after,
      limit: limit === undefined ? 0 : wholeNumber(limit, 1, rangeItemsMax, `${place}.limit`),
      keysOnly: keysOnly === undefined ? false : booleanOf(keysOnly, `${place}.keysOnly`),
    };
  }

  /** A bound of a range may be empty, a key not. */
  #key(fields: Fields, name: string, place: string): Uint8Array {
    const where = `${place}.${name}`;
    const key = this.#notation.key(fields[name]);
    if (typeof key === "string") throw wrong(where, `must be ${key}`);
    if (name === "key" && key.byteLength === 0) throw wrong(where, "must not be empty");
    const { keyBytesMax } = this.#bounds;
    if (key.byteLength > keyBytesMax)
      throw tooLarge(`${where}: may be at most ${keyBytesMax} bytes`);
    return key;
  }

  #value(fields: Fields, place: string): Uint8Array {
    const where = `${place}.value`;
    const value = this.#notation.value(fields["value"]);
    if (typeof value === "string") throw wrong(where, `must be ${value}`);
    const { valueBytesMax } = this.#bounds;
    if (value.byteLength > valueBytesMax) {
      throw tooLarge(`${where}: may be at most ${valueBytesMax} bytes`);
    }
    return value;
  }
}

function isOperation(op: string): op is KvOperation["op"] {
  return Object.hasOwn(operationFields, op);
}

function fieldsOf(given: unknown, place: string): Fields {
  if (typeof given === "object" && given !== null && !Array.isArray(given)) return given as Fields;
  throw wrong(place, "must be an object");
}

function listOf(given: unknown, place: string): readonly unknown[] {
  if (given === undefined) return [];
  if (Array.isArray(given)) return given;
  throw wrong(place, "must be a list");
}

function refuseOthers(fields: Fields, known: readonly string[], place: string): void {
  for (const name of Object.keys(fields)) {
    if (known.includes(name)) continue;
    const where = place === "" ? name : `${place}.${name}`;
    throw wrong(where, `is unknown; known here: ${known.join(", ")}`);
  }
}

function operatorOf(given: unknown, byValue: boolean, place: string): KvOperator {
  if (given === undefined) return KvOperator.equal;
  const names = byValue ? ["equal", "notEqual"] : Object.keys(KvOperator);
  if (typeof given === "string" && names.includes(given)) {
    return KvOperator[given as keyof typeof KvOperator];
  }
  throw wrong(place, `must be one of ${names.join(", ")}`);
}

function booleanOf(given: unknown, place: string): boolean {
  if (typeof given === "boolean") return given;
  throw wrong(place, "must be true or false");
}

function wholeNumber(given: unknown, min: number, max: number, place: string): number {
  if (typeof given === "number" && Number.isSafeInteger(given) && given >= min && given <= max) {
    return given;
  }
  throw wrong(place, `must be a whole number from ${min} to ${max}`);
}

function wrong(place: string, what: string): BargeError {
  return new BargeError("bad_request", `${place}: ${what}`);
}

function tooLarge(what: string): BargeError {
  return new BargeError("too_large", what);
}

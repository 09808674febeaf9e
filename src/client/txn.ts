/** The transaction that a caller builds (api.ts, `Txn`): laid out at `commit` as one command. */
import { BargeError } from "../errors.ts";
import { defaultLimits } from "../limits.ts";
import {
  kvTxnCode,
  kvTxnFaultText,
  type KvOperation,
  type KvOperationResult,
  type KvTxn,
  readKvTxnResults,
} from "../wire/kv-txn.ts";
import { layOutTxn, type TxnNotation } from "../wire/kv-txn-object.ts";
import type {
  CallOptions,
  CodecName,
  Txn,
  TxnCompare,
  TxnOperation,
  TxnResult,
  WriteResult,
} from "./api.ts";
import { keyBytes } from "./text.ts";
import type { ValueCodec } from "./value-codec.ts";
import { commandError } from "./write-section.ts";

/** What a transaction needs of its client. */
export interface TxnContext {
  readonly codecName: CodecName;
  readonly codec: ValueCodec;
  /** Sends one command; `alone` in a section of its own. */
  send(command: Uint8Array, alone: boolean, options: CallOptions | undefined): Promise<WriteResult>;
}

type Operations<C extends CodecName> = readonly TxnOperation<C>[];

export class TxnBuilder<
  C extends CodecName,
  S extends Operations<C>,
  F extends Operations<C>,
> implements Txn<C, S, F> {
  readonly #context: TxnContext;
  readonly #compare: readonly TxnCompare<C>[];
  readonly #success: S;
  readonly #failure: F;

  constructor(context: TxnContext, compare: readonly TxnCompare<C>[], success: S, failure: F) {
    this.#context = context;
    this.#compare = compare;
    this.#success = success;
    this.#failure = failure;
  }

  compare(...compares: readonly TxnCompare<C>[]): Txn<C, S, F> {
    const all = [...this.#compare, ...compares];
    return new TxnBuilder(this.#context, all, this.#success, this.#failure);
  }

  onSuccess<const O extends Operations<C>>(...operations: O): Txn<C, readonly [...S, ...O], F> {
    const all = [...this.#success, ...operations] as const;
    return new TxnBuilder(this.#context, this.#compare, all, this.#failure);
  }

  onFailure<const O extends Operations<C>>(...operations: O): Txn<C, S, readonly [...F, ...O]> {
    const all = [...this.#failure, ...operations] as const;
    return new TxnBuilder(this.#context, this.#compare, this.#success, all);
  }

  async commit(options?: CallOptions): Promise<TxnResult<C, S, F>> {
    const given = { compare: this.#compare, success: this.#success, failure: this.#failure };
    const { txn, command } = layOutTxn(given, this.#notation, defaultLimits);
    // What all commands of a section answer is bounded together, so that one whose answer may be long goes alone.
    const reads = [...txn.success, ...txn.failure].some(isRead);
    const result = await this.#context.send(command, reads, options);
    return this.#result(txn, result) as TxnResult<C, S, F>;
  }

  get #notation(): TxnNotation {
    const { codec, codecName } = this.#context;
    const bytes = "a string or a Uint8Array";
    return {
      key: (given) =>
        typeof given === "string" || given instanceof Uint8Array ? keyBytes(given) : bytes,
      value: (given) => {
        try {
          return keyBytes(codec.encode(given));
        } catch {
          return codecName === "bytes" ? bytes : `a value that the ${codecName} codec can write`;
        }
      },
    };
  }

  #decode(bytes: Uint8Array): unknown {
    try {
      return this.#context.codec.decode(bytes);
    } catch (cause) {
      const { message } = cause as Error;
      throw new BargeError("bad_request", message, { outcome: "applied", cause });
    }
  }

  /** The bytes of the result are the caller's own: keys stay views of them. */
  #result(txn: KvTxn, { index, code, bytes }: WriteResult): unknown {
    const succeeded = code === kvTxnCode.ok;
    if (!succeeded && code !== kvTxnCode.failureList) throw refusal(code, bytes);
    const operations = succeeded ? txn.success : txn.failure;
    const results = readKvTxnResults(operations, bytes);
    if (results === undefined) {
      throw new BargeError("internal", "the result of the transaction is malformed", {
        outcome: "applied",
      });
    }
    return {
      succeeded,
      revision: index,
      results: results.map((each, at) => this.#operationResult(operations[at]!, each, index)),
    };
  }

  #operationResult(operation: KvOperation, result: KvOperationResult, revision: number): unknown {
    switch (result.op) {
      case "put":
        return { revision };
      case "delete":
        return { revision, deleted: result.deleted };
      case "get": {
        const { entry } = result;
        return entry && { value: this.#decode(entry.value), revision: entry.revision };
      }
      case "range": {
        const { items, more } = result.page;
        const keysOnly = operation.op === "range" && operation.range.keysOnly === true;
        const decoded = items.map(({ key, value, revision: own }) => ({
          key,
          value: keysOnly ? this.#context.codec.leftOut : this.#decode(value),
          revision: own,
        }));
        return { items: decoded, more, revision };
      }
    }
  }
}

function isRead({ op }: KvOperation): boolean {
  return op === "get" || op === "range";
}

function refusal(code: number, bytes: Uint8Array): BargeError {
  const text = kvTxnFaultText(bytes);
  if (text === undefined) return commandError(code);
  return new BargeError(code === kvTxnCode.tooLarge ? "too_large" : "bad_request", text);
}

/**
 * Keys and values over HTTP: each request becomes one section of one command, plain or under its request id, or one read with one query [12]. What a key or a
 * value may be is checked here, so that a wrong one is refused before it costs a log entry.
 */
import { BargeError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import {
  encodeKvCompareAndDelete,
  encodeKvCompareAndPut,
  encodeKvDelete,
  encodeKvGet,
  encodeKvPut,
  encodeKvRange,
  readKvEntry,
  readKvPage,
  readKvRevision,
} from "../wire/kv.ts";
import type { CommandResult } from "../wire/section-results.ts";
import { jsonAnswer, jsonItems, refusal } from "./http-answers.ts";
import type { HttpCalls } from "./http-calls.ts";
import type { HttpParameters } from "./http-parameters.ts";
import { answerTxn, readTxn } from "./http-txn.ts";
import { encodeEscapes } from "./request-target.ts";

/** Codes that the kv machine answers with; numbers of machine.ResultCode, which the server may not import. */
const kvCode = { ok: 0, malformed: 1, notFound: 2, compareFailed: 3, tooLarge: 4 } as const;

export class HttpKv {
  readonly #calls: HttpCalls;
  readonly #limits: Limits;

  constructor(calls: HttpCalls, limits: Limits) {
    this.#calls = calls;
    this.#limits = limits;
  }

  async put(
    key: Uint8Array,
    value: Uint8Array,
    parameters: HttpParameters,
    requestId: string | undefined,
  ): Promise<Response> {
    const prevRevision = parameters.integer("prevRevision");
    const command =
      prevRevision === undefined
        ? encodeKvPut(key, value)
        : encodeKvCompareAndPut(key, value, prevRevision);
    const { index, result } = await this.#calls.write(command, parameters, requestId);
    return refusedWrite(result) ?? jsonAnswer({ revision: index });
  }

  async delete(
    key: Uint8Array,
    parameters: HttpParameters,
    requestId: string | undefined,
  ): Promise<Response> {
    const prevRevision = parameters.integer("prevRevision");
    const command =
      prevRevision === undefined
        ? encodeKvDelete(key)
        : encodeKvCompareAndDelete(key, prevRevision);
    const { index, result } = await this.#calls.write(command, parameters, requestId);
    const deleted = result?.code !== kvCode.notFound;
    return refusedWrite(result) ?? jsonAnswer({ revision: index, deleted });
  }

  async get(key: Uint8Array, parameters: HttpParameters): Promise<Response> {
    const { code, bytes } = await this.#calls.read(encodeKvGet(key), parameters);
    if (code === kvCode.notFound) return refusal(404, "not_found", "There is no such key.");
    const entry = code === kvCode.ok ? readKvEntry(bytes) : undefined;
    if (entry === undefined) throw wrongMachine(code);
    return new Response(entry.value, {
      headers: {
        "content-type": "application/octet-stream",
        "barge-revision": String(entry.revision),
      },
    });
  }

  async range(parameters: HttpParameters): Promise<Response> {
    const limit = parameters.integer("limit") ?? 0;
    const prefix = parameters.bytes("prefix");
    const after = parameters.bytes("after");
    for (const bound of [prefix, after]) {
      if (bound !== undefined && bound.byteLength > this.#limits.keyBytesMax) throw longKey();
    }
    if (limit > this.#limits.rangeItemsMax) {
      throw new BargeError("bad_request", `limit may be at most ${this.#limits.rangeItemsMax}.`);
    }
    const query = encodeKvRange({ prefix, after, limit });
    const { code, bytes } = await this.#calls.read(query, parameters);
    const page = code === kvCode.ok ? readKvPage(bytes) : undefined;
    if (page === undefined) throw wrongMachine(code);
    const items = jsonItems(page);
    const last = page.items.at(-1);
    const next = page.more && last !== undefined ? { next: encodeEscapes(last.key) } : {};
    return jsonAnswer({ items, more: page.more, revision: page.revision, ...next });
  }

  async txn(
    body: Uint8Array,
    parameters: HttpParameters,
    requestId: string | undefined,
  ): Promise<Response> {
    const { txn, command } = readTxn(body, this.#limits);
    const { index, result } = await this.#calls.write(command, parameters, requestId);
    return answerTxn(txn, index, result);
  }

  /** The key, or a BargeError that says what is wrong with it. */
  checkKey(key: Uint8Array): Uint8Array {
    if (key.byteLength === 0) {
      throw new BargeError(
        "bad_request",
        'The key is empty. A key of "." or ".." cannot be part of a path: give it as /v1/kv?key=.. instead.',
      );
    }
    if (key.byteLength > this.#limits.keyBytesMax) throw longKey();
    return key;
  }
}

/** The answer where the machine did not do what was asked; undefined where it did. */
function refusedWrite(result: CommandResult | undefined): Response | undefined {
  if (result === undefined || result.code === kvCode.notFound) return undefined;
  if (result.code === kvCode.compareFailed) {
    const revision = readKvRevision(result.bytes) ?? 0;
    return refusal(409, "compare_failed", `The key's revision is ${revision}.`, {
      body: { revision },
      headers: { "barge-revision": String(revision) },
    });
  }
  throw wrongMachine(result.code);
}

function wrongMachine(code: number): BargeError {
  if (code === kvCode.tooLarge) {
    return new BargeError("too_large", "The key, the value or the answer is over a bound.");
  }
  return new BargeError("bad_request", "The state machine of this group did not understand it.");
}

function longKey(): BargeError {
  return new BargeError("too_large", "The key is longer than a key may be.");
}

/**
 * Keys and values over HTTP: each request becomes one section of one command, plain or under its request id, or one read with one query [12]. What a key or a
 * value may be is checked here, so that a wrong one is refused before it costs a log entry.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { BargeError, type ErrorCode } from "../errors.ts";
import type { Limits } from "../limits.ts";
import { Consistency } from "../wire/messages.ts";
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
import { type CommandResult, readSectionResults } from "../wire/section-results.ts";
import { readSectionHeader } from "../wire/section.ts";
import type { Groups, ReadSink, ReadSource, ReadWaiter, WriteWaiter } from "./groups.ts";
import { jsonAnswer, jsonItems, refusal } from "./http-answers.ts";
import { type HttpParameters } from "./http-parameters.ts";
import { answerTxn, readTxn } from "./http-txn.ts";
import { requestError, requestSection } from "./request-ids.ts";
import { encodeEscapes } from "./request-target.ts";

/** Codes that the kv machine answers with; numbers of machine.ResultCode, which the server may not import. */
const kvCode = { ok: 0, malformed: 1, notFound: 2, compareFailed: 3, tooLarge: 4 } as const;

/** Others may lead in a moment. */
const lostLeader: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "not_leader",
  "no_leader",
  "outcome_unknown",
]);
/** Between two attempts under a request id. */
const retryMsMin = 25;
const retryMsMax = 200;

export class HttpKv {
  readonly #groups: Groups;
  readonly #limits: Limits;

  constructor(groups: Groups, limits: Limits) {
    this.#groups = groups;
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
    const { index, result } = await this.#write(command, parameters, requestId);
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
    const { index, result } = await this.#write(command, parameters, requestId);
    const deleted = result?.code !== kvCode.notFound;
    return refusedWrite(result) ?? jsonAnswer({ revision: index, deleted });
  }

  async get(key: Uint8Array, parameters: HttpParameters): Promise<Response> {
    const { code, bytes } = await this.#read(encodeKvGet(key), parameters);
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
    const { code, bytes } = await this.#read(query, parameters);
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
    const { index, result } = await this.#write(command, parameters, requestId);
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

  /**
   * Under a request id the write is sent again, within its time, where contact with the leader is lost: it is done once all the same. Where that
   * does not help either, an earlier attempt may have been done.
   */
  async #write(
    command: Uint8Array,
    parameters: HttpParameters,
    requestId: string | undefined,
  ): Promise<Written> {
    const untilMs = performance.now() + this.#timeoutMs(parameters);
    const group = parameters.integer("group") ?? 0;
    const section = requestSection(command, requestId);
    let isUnknown = false;
    for (let waitMs = retryMsMin; ; waitMs = Math.min(2 * waitMs, retryMsMax)) {
      try {
        return await this.#send(group, section, Math.max(1, untilMs - performance.now()));
      } catch (error) {
        if (!(error instanceof BargeError) || requestId === undefined) throw error;
        isUnknown ||= error.outcome === "unknown";
        const goesOn = lostLeader.has(error.code) && performance.now() + waitMs < untilMs;
        if (!goesOn) throw requestError(error, isUnknown);
        await sleep(waitMs);
      }
    }
  }

  #send(group: number, section: Uint8Array, timeoutMs: number): Promise<Written> {
    const header = readSectionHeader(section, 0)!;
    return new Promise((resolve, reject) => {
      this.#groups.write(group, section, header, timeoutMs, new HttpWrite(resolve, reject));
    });
  }

  #read(query: Uint8Array, parameters: HttpParameters): Promise<Answer> {
    const timeoutMs = this.#timeoutMs(parameters);
    const group = parameters.integer("group") ?? 0;
    const consistency = parameters.choice("consistency", Consistency) ?? Consistency.linearizable;
    const maxStalenessMs = parameters.integer("maxStalenessMs");
    if (maxStalenessMs !== undefined && consistency !== Consistency.local) {
      throw new BargeError("bad_request", "maxStalenessMs goes with consistency=local only.");
    }
    return new Promise((resolve, reject) => {
      const waiter = new HttpRead(query, resolve, reject);
      this.#groups.read(group, consistency, maxStalenessMs ?? 0, timeoutMs, waiter);
    });
  }

  #timeoutMs(parameters: HttpParameters): number {
    const { requestTimeoutMs, requestTimeoutMsMax } = this.#limits;
    const timeoutMs = parameters.integer("timeoutMs") ?? requestTimeoutMs;
    if (timeoutMs >= 1 && timeoutMs <= requestTimeoutMsMax) return timeoutMs;
    throw new BargeError("bad_request", `timeoutMs must be from 1 to ${requestTimeoutMsMax}.`);
  }
}

interface Written {
  readonly index: number;
  /** Undefined for the plain ok. */
  readonly result: CommandResult | undefined;
}

interface Answer {
  readonly code: number;
  readonly bytes: Uint8Array;
}

class HttpWrite implements WriteWaiter {
  readonly #resolve: (written: Written) => void;
  readonly failed: (error: BargeError) => void;

  constructor(resolve: (written: Written) => void, reject: (error: BargeError) => void) {
    this.#resolve = resolve;
    this.failed = reject;
  }

  applied(firstIndex: number, results: Uint8Array): void {
    // Results are a view into memory that is used again after this call.
    const result = readSectionResults(results.slice(), 1)?.[0];
    this.#resolve({ index: firstIndex, result });
  }
}

class HttpRead implements ReadWaiter, ReadSink {
  readonly #query: Uint8Array;
  readonly #resolve: (answer: Answer) => void;
  readonly failed: (error: BargeError) => void;

  constructor(
    query: Uint8Array,
    resolve: (answer: Answer) => void,
    reject: (error: BargeError) => void,
  ) {
    this.#query = query;
    this.#resolve = resolve;
    this.failed = reject;
  }

  ready(source: ReadSource): void {
    source.read(this.#query, this);
  }

  answer(code: number, bytes: Uint8Array | undefined): void {
    this.#resolve({ code, bytes: bytes?.slice() ?? new Uint8Array(0) });
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

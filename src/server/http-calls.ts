/**
 * Writes and reads of single HTTP requests: one command as a section, plain or under its request id [12], or one query. What the command and its result mean is
 * for the callers.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { BargeError, type ErrorCode } from "../errors.ts";
import type { Limits } from "../limits.ts";
import { Consistency } from "../wire/messages.ts";
import { type CommandResult, readSectionResults } from "../wire/section-results.ts";
import { readSectionHeader } from "../wire/section.ts";
import type { Groups, ReadSink, ReadSource, ReadWaiter, WriteWaiter } from "./groups.ts";
import type { HttpParameters } from "./http-parameters.ts";
import { requestError, requestSection } from "./request-ids.ts";

/** Others may lead in a moment. */
const lostLeader: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "not_leader",
  "no_leader",
  "outcome_unknown",
]);
/** Between two attempts under a request id. */
const retryMsMin = 25;
const retryMsMax = 200;

export interface Written {
  readonly index: number;
  /** Undefined for the plain ok. */
  readonly result: CommandResult | undefined;
}

export interface Answer {
  readonly code: number;
  readonly bytes: Uint8Array;
  /** The state that was read held all commands up to here, and maybe more. */
  readonly index: number;
}

export class HttpCalls {
  readonly #groups: Groups;
  readonly #limits: Limits;

  constructor(groups: Groups, limits: Limits) {
    this.#groups = groups;
    this.#limits = limits;
  }

  /** Throws where the group keeps its data in an application, which knows nothing of keys and values. */
  checkKeysAndValues(parameters: HttpParameters): void {
    const group = parameters.integer("group") ?? 0;
    if (this.#groups.machineKind(group) !== "http") return;
    const text = `Group ${group} keeps its data in an application: use /raft/update and /raft/read.`;
    throw new BargeError("wrong_machine", text);
  }

  /**
   * Under a request id the write is sent again, within its time, where contact with the leader is lost: it is done once all the same. Where that
   * does not help either, an earlier attempt may have been done.
   */
  async write(
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

  read(query: Uint8Array, parameters: HttpParameters): Promise<Answer> {
    const timeoutMs = this.#timeoutMs(parameters);
    const group = parameters.integer("group") ?? 0;
    const consistency = parameters.choice("consistency", Consistency) ?? Consistency.linearizable;
    const maxStalenessMs = parameters.integer("maxStalenessMs");
    if (maxStalenessMs !== undefined && consistency !== Consistency.local) {
      throw new BargeError("bad_request", "maxStalenessMs goes with consistency=local only.");
    }
    return new Promise((resolve, reject) => {
      const waiter = new HttpRead(query, performance.now() + timeoutMs, resolve, reject);
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
  readonly #untilMs: number;
  readonly #resolve: (answer: Answer) => void;
  readonly failed: (error: BargeError) => void;
  #index = 0;
  /** Runs while an application is asked. */
  #timer: Timer | undefined;

  constructor(
    query: Uint8Array,
    untilMs: number,
    resolve: (answer: Answer) => void,
    reject: (error: BargeError) => void,
  ) {
    this.#query = query;
    this.#untilMs = untilMs;
    this.#resolve = resolve;
    this.failed = reject;
  }

  ready(source: ReadSource, appliedIndex: number): void {
    this.#index = appliedIndex;
    if (source.answersLater) {
      const leftMs = Math.max(0, this.#untilMs - performance.now());
      this.#timer = setTimeout(() => this.failed(answeredTooLate()), leftMs);
    }
    source.read(this.#query, this);
  }

  answer(code: number, bytes: Uint8Array | undefined): void {
    clearTimeout(this.#timer);
    this.#resolve({ code, bytes: bytes?.slice() ?? new Uint8Array(0), index: this.#index });
  }
}

function answeredTooLate(): BargeError {
  return new BargeError("timeout", "The application did not answer the read in time.", {
    outcome: "not-applied",
  });
}

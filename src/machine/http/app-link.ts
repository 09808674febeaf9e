/**
 * The tie to one application: asks `Ready` and `LastLogIndex` until both succeed, and from then on it is open. Whatever goes wrong closes it, whoever notices: then
 * it is opened anew after a while, and its owner goes on from what the application says it has [30]. It never gives up, and says what it waits for.
 *
 *     waiting ──time──▶ opening: Ready, LastLogIndex ──owner agrees──▶ open ──failure, other instance──▶ waiting
 *
 * Called within turns, and by events of AppCalls.
 */
import type { Limits } from "../../limits.ts";
import type { AppCalls, AppEvents, AppExchange } from "./app-calls.ts";
import type { AppTraffic } from "./app-traffic.ts";
import {
  ContractError,
  errorText,
  readInstance,
  readLastLogIndex,
  readReady,
  type ReadyReply,
} from "./contract.ts";
import type { ResponseHead } from "./response-reader.ts";

export interface AppLogger {
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

export interface AppLinkOptions {
  readonly group: number;
  readonly nodeId: number;
  readonly calls: AppCalls;
  /** Shared by all groups of a node. */
  readonly traffic: AppTraffic;
  readonly limits: Limits;
  readonly logger: AppLogger;
  /** `Sync` makes durable what updates have stored: only an instance id tells that some of it may be lost. */
  readonly sync: boolean;
  readonly wake: () => void;
}

export interface AppLinkOwner {
  /** The application has all entries up to there. Returns why that cannot be, or what has to happen first; undefined: it is open. */
  opening(storedIndex: number): string | undefined;
  /** What was asked and not answered is void. */
  closed(): void;
  /** For the header of all callbacks. */
  readonly previousIndex: number;
}

export interface AppReply {
  readonly contentType: string | undefined;
  readonly body: Uint8Array;
}

/** Exactly one of the two is called, once, unless it is cancelled. */
export interface ReplyEvents {
  replied(reply: AppReply): void;
  /** `status` is 0 where there was no answer. */
  failed(reason: string, status: number): void;
}

export interface Asking {
  readonly name: string;
  readonly contentType?: string | undefined;
  readonly body?: Uint8Array | number | undefined;
  /** No reply for so long is a failure; what moves a stream forward moves this as well. */
  readonly timeoutMs?: number;
  readonly isCopied?: boolean;
}

interface UnderWay {
  readonly name: string;
  readonly timeoutMs: number;
  /** Undefined until the next turn. */
  sinceMs: number | undefined;
  readonly exchange: AppExchange;
  late(): void;
}

const errorBytesMax = 1_024;
const goldenRatio = (Math.sqrt(5) - 1) / 2;
const withoutInstance = "with RAFT_SYNC=1 each reply must have the header barge-instance";

export class AppLink {
  readonly #options: AppLinkOptions;
  readonly #owner: AppLinkOwner;
  readonly #underWay = new Set<UnderWay>();
  #state: "waiting" | "opening" | "open" = "waiting";
  #problem = "it has not answered yet";
  /** What it failed to do last, until it does its work again. */
  #doubt: string | undefined;
  /** When it was open last; undefined before the next turn sees to it. */
  #outSinceMs: number | undefined = -Infinity;
  #retryMs: number;
  #retryAtMs = -Infinity;
  #nowMs = -Infinity;
  #heardMs = 0;
  #polling = false;
  /** Groups that are idle do not ask all at once. */
  readonly #phase: number;
  #toldProblem: string | undefined;
  /** What the application said of itself last. */
  instance: string | undefined;
  ready: ReadyReply = { shape: "json", prepareEvery: 0 };
  storedIndex = 0;
  /** Callbacks that failed, since the process began. */
  failures = 0;

  constructor(options: AppLinkOptions, owner: AppLinkOwner) {
    this.#options = options;
    this.#owner = owner;
    this.#retryMs = options.limits.appRetryMsMin;
    options.traffic.join();
    this.#phase = (options.group * goldenRatio) % 1;
  }

  get isOpen(): boolean {
    return this.#state === "open";
  }

  /** For people; undefined where all is well. */
  get waitsFor(): string | undefined {
    return this.isOpen ? this.#doubt : this.#problem;
  }

  /** It has not done its work for so long; Infinity: never yet. */
  get outMs(): number {
    if (this.#outSinceMs === undefined) return 0;
    return this.#outSinceMs === -Infinity ? Infinity : this.#nowMs - this.#outSinceMs;
  }

  /** It does its work: should it fail again, it is asked again soon. */
  succeeded(): void {
    this.#retryMs = this.#options.limits.appRetryMsMin;
    if (this.isOpen) this.#outSinceMs = undefined;
    if (this.#doubt === undefined) return;
    this.#doubt = undefined;
    this.#tellReady();
  }

  #tellReady(): void {
    const { group, logger } = this.#options;
    const { instance, storedIndex, ready } = this;
    this.#toldProblem = undefined;
    logger.info({ group, storedIndex, instance, shape: ready.shape }, "the application is ready");
  }

  work(nowMs: number): void {
    this.#nowMs = nowMs;
    if (this.waitsFor !== undefined) this.#outSinceMs ??= nowMs;
    for (const asked of this.#underWay) {
      asked.sinceMs ??= nowMs;
      if (nowMs - asked.sinceMs >= asked.timeoutMs) asked.late();
    }
    const { traffic } = this.#options;
    if (this.#state === "waiting" && nowMs >= this.#retryAtMs && traffic.mayOpen(this))
      this.#open();
    const mayPoll = this.isOpen && !this.#polling;
    if (mayPoll && traffic.mayPoll(this.#heardMs, this.#phase, nowMs)) this.#poll();
  }

  #open(): void {
    this.#state = "opening";
    const failed = (name: string) => (reason: string) => this.#unopened(`${name}: ${reason}`);
    this.#askWith({ name: "Ready" }, [], {
      failed: failed("Ready"),
      replied: ({ body }) => {
        this.ready = readReady(body);
        this.#askWith({ name: "LastLogIndex" }, [], {
          failed: failed("LastLogIndex"),
          replied: (reply) => this.#opening(readLastLogIndex(reply.body)),
        });
      },
    });
  }

  #opening(storedIndex: number): void {
    const { sync, wake } = this.#options;
    if (sync && this.instance === undefined) {
      return this.#unopened(withoutInstance);
    }
    const refusal = this.#owner.opening(storedIndex);
    if (refusal !== undefined) return this.#unopened(refusal);
    this.#options.traffic.opened();
    this.#state = "open";
    this.storedIndex = storedIndex;
    if (this.#doubt === undefined) {
      this.#outSinceMs = undefined;
      this.#tellReady();
    }
    wake();
  }

  #poll(): void {
    this.#polling = true;
    this.#askWith({ name: "Ready" }, [], {
      replied: () => this.#polled(),
      failed: (reason, status) => {
        if (status === 0) this.#options.traffic.doubt(this.#nowMs);
        this.fail(`Ready: ${reason}`);
      },
    });
  }

  #polled(): void {
    if (this.#polling) this.#options.traffic.polled();
    this.#polling = false;
  }

  /** It did not do what it was asked for: that it says that it is ready is not enough any more. */
  failedTo(what: string): void {
    if (!this.isOpen) return;
    this.#doubt = what;
    this.fail(what);
  }

  /** Something went wrong, or another instance answers. */
  fail(reason: string): void {
    if (!this.isOpen) return;
    this.#unopened(reason);
    this.#owner.closed();
  }

  #unopened(reason: string): void {
    const { limits, logger, group, wake } = this.#options;
    this.failures++;
    this.#problem = reason;
    this.#leave();
    for (const { exchange } of this.#underWay) exchange.cancel();
    this.#underWay.clear();
    this.#retryAtMs = this.#nowMs + this.#retryMs;
    this.#retryMs = Math.min(2 * this.#retryMs, limits.appRetryMsMax);
    if (reason !== this.#toldProblem) {
      this.#toldProblem = reason;
      logger.warn({ group }, `waiting for its application: ${reason}`);
    }
    wake();
  }

  /** Only while it is open, and for what follows in it: an answer of another instance closes it. */
  ask(asking: Asking, events: ReplyEvents, drained?: () => void): AppExchange {
    return this.#askWith(asking, [this.#previous], events, drained);
  }

  get #previous(): readonly [string, string] {
    return ["barge-previous-index", String(this.#owner.previousIndex)];
  }

  #askWith(
    asking: Asking,
    headers: readonly (readonly [string, string])[],
    events: ReplyEvents,
    drained: () => void = () => {},
  ): AppExchange {
    const { appReplyBytesMax } = this.#options.limits;
    let status = 0;
    let contentType: string | undefined;
    let length = 0;
    const parts: Uint8Array[] = [];
    return this.#begin(asking, headers, {
      drained,
      head: (head) => {
        status = head.status;
        contentType = head.headers.get("content-type");
      },
      data: (bytes) => {
        const room = (status > 299 ? errorBytesMax : appReplyBytesMax + 1) - length;
        if (room > 0) parts.push(bytes.subarray(0, room));
        length += Math.min(room, bytes.byteLength);
      },
      end: () => {
        const body = Buffer.concat(parts);
        if (status > 299) events.failed(errorText(status, body), status);
        else if (length > appReplyBytesMax) {
          events.failed(`the reply has more than ${appReplyBytesMax} bytes`, status);
        } else this.#checked(() => events.replied({ contentType, body }), events);
      },
      failed: (reason) => events.failed(reason, 0),
    });
  }

  /** An application that does not keep to the contract has not answered. */
  #checked(action: () => void, events: ReplyEvents): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof ContractError)) throw error;
      events.failed(error.message, 0);
    }
  }

  /** Like `ask`, with the answer as it comes, of whatever status. */
  stream(asking: Asking, events: AppEvents): AppExchange {
    return this.#begin(asking, [this.#previous], events);
  }

  #begin(
    { name, contentType, body, timeoutMs, isCopied = false }: Asking,
    headers: readonly (readonly [string, string])[],
    events: AppEvents,
  ): AppExchange {
    const { calls, wake, limits } = this.#options;
    const end = (action: () => void): void => {
      if (!this.#underWay.delete(asked)) return;
      action();
      wake();
    };
    // Who does not want to hear anything waits for as long as he likes.
    let isPaused = false;
    const moved = (): void => {
      asked.sinceMs = isPaused ? Infinity : undefined;
    };
    const all = [...this.#identity(), ...headers];
    const exchange = calls.begin(
      { name, headers: all, contentType, body, isCopied },
      {
        head: (head) => {
          if (!this.#underWay.has(asked) || !this.#heard(head, end, events)) return;
          events.head(head);
        },
        data: (bytes) => {
          if (!this.#underWay.has(asked)) return;
          moved();
          events.data(bytes);
        },
        end: () => end(() => events.end()),
        failed: (reason) => end(() => events.failed(reason)),
        drained: () => {
          moved();
          events.drained?.();
        },
      },
    );
    const asked: UnderWay = {
      name,
      timeoutMs: timeoutMs ?? limits.appTimeoutMs,
      sinceMs: undefined,
      exchange,
      late: () => {
        exchange.cancel();
        end(() => events.failed(`no answer within ${asked.timeoutMs} ms`));
      },
    };
    this.#underWay.add(asked);
    return {
      write: (part) => {
        moved();
        return exchange.write(part);
      },
      pause: () => {
        isPaused = true;
        moved();
        exchange.pause();
      },
      resume: () => {
        isPaused = false;
        moved();
        exchange.resume();
      },
      cancel: () => {
        this.#underWay.delete(asked);
        exchange.cancel();
      },
    };
  }

  /** False where it is the answer of another instance than is known, and what was asked is void therefore. */
  #heard({ headers }: ResponseHead, end: (action: () => void) => void, events: AppEvents): boolean {
    this.#heardMs = this.#nowMs;
    const { sync } = this.#options;
    let instance: string | undefined;
    try {
      instance = readInstance(headers.get("barge-instance"));
    } catch (error) {
      end(() => events.failed((error as Error).message));
      return false;
    }
    // What is under way is void then, this too: the owner hears that it is closed.
    if (this.isOpen && sync && instance === undefined) {
      this.fail(withoutInstance);
      return false;
    }
    if (!this.isOpen) this.instance = instance ?? this.instance;
    else if (instance !== undefined && instance !== this.instance) {
      this.fail("it was started anew");
      return false;
    }
    return true;
  }

  #identity(): (readonly [string, string])[] {
    const { group, nodeId } = this.#options;
    const { instance } = this;
    return [
      ["raftd-shard-id", String(group)],
      ["raftd-replica-id", String(nodeId)],
      ["raftd-node-id", String(nodeId)],
      ...(instance === undefined ? [] : [["barge-instance", instance] as const]),
    ];
  }

  /** Nothing is under way that others wait for. */
  #leave(): void {
    if (this.#state === "opening") this.#options.traffic.opened();
    this.#state = "waiting";
    this.#polled();
  }

  wake(): void {
    this.#options.wake();
  }

  get underWay(): number {
    return this.#underWay.size;
  }

  close(): void {
    this.#leave();
    this.#options.traffic.leave(this);
    for (const { exchange } of this.#underWay) exchange.cancel();
    this.#underWay.clear();
    this.#options.calls.close();
  }
}

/**
 * When the leader of one group hands over: asked by hand or because the node stops, on its own when its disk or its loop is too slow to lead,
 * or when a preferred member could lead instead. The core does it; this decides, remembers who asked, and says what came of it.
 *
 * What it does on its own it does at most once in a while, and never twice for the same reason in a row without waiting: leadership that
 * goes to and fro is worse than a slow leader.
 */
import { BargeError, type ErrorCode } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { Raft } from "../raft/raft.ts";
import type { TransferAnswer } from "../raft/transfer.ts";
import type { HandOverStatus } from "../wire/status.ts";

/** Somebody asked for the transfer and waits. Exactly one of the two is called, once. */
export interface HandOverWaiter {
  /** `changed` false: it was so already. */
  done(leader: number, changed: boolean): void;
  failed(error: BargeError): void;
}

export interface HandOverOptions {
  readonly nodeId: number;
  readonly limits: Limits;
  readonly raft: Raft;
  /** Leadership is about to be handed over to a member, for a reason that is for the log. */
  readonly begun: (target: number, reason: string) => void;
}

interface Waiting {
  readonly waiter: HandOverWaiter;
  readonly target: number;
  readonly deadlineMs: number;
}

interface Begun {
  readonly target: number;
  readonly reason: string;
  readonly atMs: number;
  state: HandOverStatus["state"];
}

/** A transfer takes milliseconds: it is told of for so long. */
const toldMs = 60_000;
/** Requests for one transfer; whoever repeats his joins it. */
const waitersMax = 64;

export class HandOver {
  readonly #nodeId: number;
  readonly #limits: Limits;
  readonly #raft: Raft;
  readonly #begun: HandOverOptions["begun"];
  #waiting: Waiting[] = [];
  #last: Begun | undefined;
  /** Of the last tick. */
  #nowMs = 0;
  /** Of the stalls of the loop that are not long ago. */
  #stallsMs: number[] = [];
  /** Before that, nothing is handed over for the node's own reasons. */
  #restUntilMs = -Infinity;
  /** Members that were asked to lead in place of this one, as it lacks space, and did not. */
  readonly #declined = new Set<number>();
  /** Since then a preferred member could lead. */
  #preferredSinceMs = Infinity;

  constructor(options: HandOverOptions) {
    this.#nodeId = options.nodeId;
    this.#limits = options.limits;
    this.#raft = options.raft;
    this.#begun = options.begun;
  }

  get idle(): boolean {
    return this.#waiting.length === 0;
  }

  status(): HandOverStatus | undefined {
    if (this.#last === undefined) return undefined;
    const { target: to, reason, state, atMs } = this.#last;
    const forMs = this.#nowMs - atMs;
    if (forMs > toldMs) return undefined;
    return { to, reason, state, secondsAgo: Math.max(0, Math.round(forMs / 1_000)) };
  }

  /** By hand. With `from`, only away from that node: where another leads, it is so already. */
  ask(target: number, from: number, deadlineMs: number, waiter: HandOverWaiter): void {
    if (this.#raft.role === "leader" && from !== 0 && from !== this.#nodeId)
      return waiter.done(this.#nodeId, false);
    if (this.#waiting.length >= waitersMax)
      return waiter.failed(error("overloaded", "Too many requests for a transfer of leadership."));
    const answer = this.begin(target, "asked by hand");
    if (answer.refusal !== undefined) return waiter.failed(refusalError(answer));
    if (answer.target === this.#nodeId) return waiter.done(this.#nodeId, false);
    this.#waiting.push({ waiter, target: answer.target, deadlineMs });
  }

  /** With `above`, only to a member that has the log durably beyond that index. */
  begin(target: number, reason: string, above = -1, avoid?: ReadonlySet<number>): TransferAnswer {
    const before = this.#raft.transferTarget;
    const answer = this.#raft.transferLeadership(target, above, avoid);
    const { transferTarget } = this.#raft;
    if (transferTarget !== 0 && transferTarget !== before) {
      // Whatever comes of it, who is preferred waits anew.
      this.#preferredSinceMs = Infinity;
      this.#last = { target: transferTarget, reason, atMs: this.#nowMs, state: "under way" };
      this.#begun(transferTarget, reason);
    }
    return answer;
  }

  /** Role or leader changed. */
  led(leader: number): void {
    if (this.#raft.role !== "leader") {
      this.#preferredSinceMs = Infinity;
      this.#declined.clear();
    }
    if (leader === 0) return;
    this.#settle(leader);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { waiter, target } of waiting) {
      if (leader === target) waiter.done(leader, true);
      else waiter.failed(notTransferred(`Node ${leader} leads now, not node ${target}.`));
    }
  }

  /** Some times a second. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs;
    if (this.#raft.role === "leader" && this.#raft.transferTarget === 0) {
      this.#ended();
      this.#prefer(nowMs);
    }
    if (this.#waiting.length === 0) return;
    const late = this.#waiting.filter(({ deadlineMs }) => deadlineMs <= nowMs);
    this.#waiting = this.#waiting.filter(({ deadlineMs }) => deadlineMs > nowMs);
    for (const { waiter } of late)
      waiter.failed(error("timeout", "No leader was known in time; ask who leads."));
  }

  /** The transfer did not succeed in its time, and this node leads on. */
  #ended(): void {
    this.#settle(this.#nodeId);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { waiter, target } of waiting)
      waiter.failed(
        notTransferred(`Node ${target} did not take over in time; this node leads on.`),
      );
  }

  #settle(leader: number): void {
    if (this.#last?.state === "under way")
      this.#last.state = leader === this.#last.target ? "done" : "failed";
  }

  #prefer(nowMs: number): void {
    const target = this.#raft.preferredTarget;
    if (target === 0) this.#preferredSinceMs = Infinity;
    else if (this.#preferredSinceMs === Infinity) this.#preferredSinceMs = nowMs;
    else if (nowMs - this.#preferredSinceMs >= this.#limits.preferredDelayMs) {
      this.begin(target, "it is preferred");
    }
  }

  /**
   * The sync that is under way, of a log up to `roundIndex`, takes too long. To a member that has on its disk what this one has not, all that this sync is
   * to bring: where all disks are as slow, others may be a sync ahead for a moment, and nothing would be won. True where it has begun to.
   */
  slowSync(forMs: number, roundIndex: number, nowMs: number): boolean {
    if (forMs < this.#limits.syncStallMs || nowMs < this.#restUntilMs) return false;
    const above = Math.max(this.#raft.durableIndex, roundIndex - 1);
    return this.#flee(`a sync takes ${Math.round(forMs)} ms`, nowMs, above);
  }

  /** The loop stood still for so long. Once is bad luck. True where it has begun to hand over; not `mayFlee`: it is only noted. */
  loopStalled(forMs: number, nowMs: number, mayFlee = true): boolean {
    const { loopStallMs, loopStallsMax, stallWindowMs } = this.#limits;
    if (forMs < loopStallMs) return false;
    this.#stallsMs = this.#stallsMs.filter((atMs) => nowMs - atMs < stallWindowMs);
    this.#stallsMs.push(nowMs);
    if (this.#stallsMs.length < loopStallsMax || nowMs < this.#restUntilMs) return false;
    if (!mayFlee) return false;
    this.#stallsMs = [];
    return this.#flee(`the event loop stood still ${loopStallsMax} times`, nowMs, -1);
  }

  /**
   * This node should not lead, for its lack of space or of an application. The members are asked in turn, as one that lacks the same does not take
   * over; then all of them again, after a while.
   */
  unfit(reason: string, nowMs: number): void {
    if (this.#raft.role !== "leader" || this.#raft.transferTarget !== 0) return;
    if (nowMs < this.#restUntilMs) return;
    const { target, refusal } = this.begin(0, reason, -1, this.#declined);
    if (refusal === undefined) return void this.#declined.add(target);
    this.#declined.clear();
    this.#restUntilMs = nowMs + this.#limits.stallWindowMs;
  }

  #flee(reason: string, nowMs: number, above: number): boolean {
    if (this.#raft.role !== "leader") return false;
    const { refusal } = this.begin(0, reason, above);
    if (refusal === undefined) this.#restUntilMs = nowMs + this.#limits.stallWindowMs;
    return refusal === undefined;
  }

  failAll(failure: BargeError): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { waiter } of waiting) waiter.failed(failure);
  }
}

function error(code: ErrorCode, message: string): BargeError {
  return new BargeError(code, message);
}

function notTransferred(message: string): BargeError {
  return error("not_transferred", message);
}

function refusalError({ target, refusal }: TransferAnswer): BargeError {
  switch (refusal) {
    case "unknown_member":
      return error(
        "unknown_member",
        `Node ${target} is not a member; barge status lists the members.`,
      );
    case "not_voter":
      return error(
        "not_voter",
        `Node ${target} is not a voter and cannot lead: promote it first, or name a voter.`,
      );
    case "unreachable":
      return notTransferred(`Node ${target} does not answer; start it, or name another voter.`);
    case "behind":
      return notTransferred(
        `Node ${target} is too far behind to take over without making writes wait; try again once it has caught up.`,
      );
    case "under_way":
      return notTransferred(`Leadership is being handed over to node ${target}; try again.`);
    case "nobody":
      return notTransferred("No other voter is there that could take over; start one.");
    case "not_leader":
    case undefined:
      return error("not_leader", "This node does not lead; ask the leader.");
  }
}

/**
 * Requests to change the members of a group, on the leader: one after the other, each answered once its configuration is committed and no longer
 * joint. Whoever is not told so is told that the change may have been made; to ask again does no harm, as what holds already changes nothing.
 */
import { BargeError, type ErrorCode } from "../errors.ts";
import { isJoint, sameConfiguration } from "../raft/configuration.ts";
import type { ChangePlan, MemberChange } from "../raft/membership.ts";
import type { Raft } from "../raft/raft.ts";
import type { Configuration } from "../raft/ready.ts";

export interface ChangeWaiter {
  /** The members are as was asked; `changed` false when they were before. */
  done(changed: boolean): void;
  failed(error: BargeError): void;
}

export interface ChangeRequest {
  readonly changes: readonly MemberChange[];
  readonly force: boolean;
  readonly deadlineMs: number;
  readonly waiter: ChangeWaiter;
  /** Asked right before it is proposed: why what was made sure of does not hold any more. */
  readonly refusal?: () => BargeError | undefined;
}

interface ActiveChange extends ChangeRequest {
  readonly index: number;
  readonly configuration: Configuration;
}

/** Requests that wait for their turn. */
const waitingMax = 64;

export class MemberChanges {
  readonly #raft: Raft;
  readonly #propose: (request: ChangeRequest, nowMs: number) => ChangePlan;
  #waiting: ChangeRequest[] = [];
  /** Proposed; what was asked for holds when the configuration is that of `index` or a later one, committed and not joint. */
  #active: ActiveChange | undefined;

  constructor(raft: Raft, propose: (request: ChangeRequest, nowMs: number) => ChangePlan) {
    this.#raft = raft;
    this.#propose = propose;
  }

  get idle(): boolean {
    return this.#active === undefined && this.#waiting.length === 0;
  }

  ask(request: ChangeRequest): void {
    if (this.#waiting.length < waitingMax) this.#waiting.push(request);
    else request.waiter.failed(new BargeError("change_in_progress", "Too many changes wait."));
  }

  /** Once per turn, only where not idle. */
  step(nowMs: number): void {
    this.#finish(nowMs);
    while (this.#active === undefined && this.#waiting.length > 0) {
      if (!this.#begin(this.#waiting[0]!, nowMs)) break;
      this.#waiting.shift();
    }
    if (this.#waiting.some(({ deadlineMs }) => deadlineMs <= nowMs)) this.#expire(nowMs);
  }

  /** False where it has to wait for its turn. */
  #begin(request: ChangeRequest, nowMs: number): boolean {
    const refusal = request.refusal?.();
    if (refusal !== undefined) {
      request.waiter.failed(refusal);
      return true;
    }
    const before = this.#raft.configurationIndex;
    const plan = this.#propose(request, nowMs);
    const index = this.#raft.configurationIndex;
    if ("unchanged" in plan) request.waiter.done(false);
    else if ("next" in plan) {
      // Nothing is proposed while leadership is handed over.
      if (index === before) return false;
      this.#active = { ...request, index, configuration: this.#raft.configuration };
    } else if (plan.refused === "change_in_progress") return false;
    else request.waiter.failed(new BargeError(plan.refused, plan.message));
    return true;
  }

  #finish(nowMs: number): void {
    const active = this.#active;
    if (active === undefined) return;
    const { index, configuration, waiter, deadlineMs } = active;
    const raft = this.#raft;
    const isOurs =
      raft.configurationIndex >= index &&
      sameConfiguration(raft.configurationAt(index), configuration);
    if (isOurs && raft.configurationCommitted && !isJoint(raft.configuration)) waiter.done(true);
    else if (!isOurs) waiter.failed(mayHaveChanged("outcome_unknown", "Leadership was lost"));
    else if (nowMs < deadlineMs) return;
    else waiter.failed(mayHaveChanged("timeout", "The change is not committed yet"));
    this.#active = undefined;
  }

  #expire(nowMs: number): void {
    const late = this.#waiting.filter(({ deadlineMs }) => deadlineMs <= nowMs);
    this.#waiting = this.#waiting.filter(({ deadlineMs }) => deadlineMs > nowMs);
    for (const { waiter } of late) {
      const text = "Another change of the members is still under way; try again when it is done.";
      waiter.failed(new BargeError("change_in_progress", text));
    }
  }

  /** Leadership is gone: what waits was never begun. What was begun is awaited, as the next leader finishes it. */
  refuseWaiting(error: BargeError): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { waiter } of waiting) waiter.failed(error);
  }

  failAll(error: BargeError): void {
    this.refuseWaiting(error);
    this.#active?.waiter.failed(mayHaveChanged("outcome_unknown", "The node stops"));
    this.#active = undefined;
  }
}

function mayHaveChanged(code: ErrorCode, why: string): BargeError {
  return new BargeError(
    code,
    `${why}: the members may have been changed or not, or may be yet. Look with \`barge member list\`, or ask again; to repeat it does no harm.`,
    { outcome: "unknown" },
  );
}

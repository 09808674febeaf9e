/** Sections that this follower passed on to the leader and that have no place in the log yet [14]. */
import type { WriteWaiter } from "../server/groups.ts";

export interface Forwarded {
  readonly waiter: WriteWaiter;
  /** The leader that it was sent to. */
  readonly to: number;
  readonly count: number;
  readonly deadlineMs: number;
}

export class Forwards {
  readonly #forwards = new Map<number, Forwarded>();
  #lastRequest: number;

  /** `firstRequest` is random, so that an answer to a life before a crash is not taken for one to this. */
  constructor(firstRequest: number) {
    this.#lastRequest = firstRequest;
  }

  get size(): number {
    return this.#forwards.size;
  }

  /** Returns the number under which the leader will answer. */
  add(forwarded: Forwarded): number {
    this.#forwards.set(++this.#lastRequest, forwarded);
    return this.#lastRequest;
  }

  /** The section that node `from` answers, taken out; undefined when nobody waits for it any more. */
  take(request: number, from: number): Forwarded | undefined {
    const forwarded = this.#forwards.get(request);
    if (forwarded === undefined || forwarded.to !== from) return undefined;
    this.#forwards.delete(request);
    return forwarded;
  }

  /** Takes out all for which `gone` holds. */
  takeWhere(gone: (forwarded: Forwarded) => boolean): WriteWaiter[] {
    const waiters: WriteWaiter[] = [];
    for (const [request, forwarded] of this.#forwards) {
      if (!gone(forwarded)) continue;
      this.#forwards.delete(request);
      waiters.push(forwarded.waiter);
    }
    return waiters;
  }
}

/** Calls that wait for room, in order and within a bound: the back-pressure of a client. */
import { BargeError } from "../errors.ts";
import { deferred } from "./deferred.ts";

interface WaitingCall {
  readonly deadlineMs: number;
  /** Makes the call, with what is left of its time. */
  readonly begin: (leftMs: number) => void;
  readonly reject: (error: BargeError) => void;
  settled: boolean;
}

/**
 * What is left of a call's time is rounded up to this: calls that waited then still share a section, which has one time-out.
 */
const roundMs = 50;

export class WaitingCalls {
  #calls: WaitingCall[] = [];
  #head = 0;

  get length(): number {
    return this.#calls.length - this.#head;
  }

  /** Throws `overloaded` when `max` wait. */
  add<T>(
    max: number,
    deadlineMs: number,
    signal: AbortSignal | undefined,
    call: (leftMs: number) => Promise<T>,
  ): Promise<T> {
    if (this.length >= max) {
      throw new BargeError(
        "overloaded",
        `${this.length} calls wait for room already; await some, or raise maxInFlightRequests`,
      );
    }
    const { promise, resolve, reject } = deferred<T>();
    const abandon = (): void => {
      waiting.settled = true;
      const text = "the caller gave up before anything was sent";
      reject(new BargeError("aborted", text, { outcome: "not-applied", cause: signal?.reason }));
    };
    const waiting: WaitingCall = {
      deadlineMs,
      begin: (leftMs) => {
        signal?.removeEventListener("abort", abandon);
        resolve(call(leftMs));
      },
      reject: (error) => {
        signal?.removeEventListener("abort", abandon);
        reject(error);
      },
      settled: false,
    };
    signal?.addEventListener("abort", abandon, { once: true });
    this.#calls.push(waiting);
    return promise;
  }

  /** Begins the call that waited longest. */
  admit(nowMs: number): void {
    const call = this.#calls[this.#head++];
    if (this.#head * 2 > this.#calls.length) {
      this.#calls.splice(0, this.#head);
      this.#head = 0;
    }
    if (call === undefined || call.settled) return;
    call.settled = true;
    const leftMs = call.deadlineMs - nowMs;
    if (leftMs <= 0) call.reject(expiredError());
    else call.begin(Math.ceil(leftMs / roundMs) * roundMs);
  }

  expire(nowMs: number): void {
    for (let i = this.#head; i < this.#calls.length; i++) {
      const call = this.#calls[i]!;
      if (call.settled || nowMs < call.deadlineMs) continue;
      call.settled = true;
      call.reject(expiredError());
    }
    // The dead at the front make room for those that may still come.
    while (this.#head < this.#calls.length && this.#calls[this.#head]!.settled) this.#head++;
  }

  rejectAll(error: BargeError): void {
    const calls = this.#calls.slice(this.#head);
    this.#calls = [];
    this.#head = 0;
    for (const call of calls) if (!call.settled) call.reject(error);
  }
}

function expiredError(): BargeError {
  return new BargeError("timeout", "no room to send it in time: too much is in flight", {
    outcome: "not-applied",
  });
}

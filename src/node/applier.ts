/**
 * Gives committed batches to the state machine, in order, and hands the results to whoever waits for them, by position.
 * Nothing here is per command except a result that is not plain ok [39].
 */
import { BargeError, type ErrorCode, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { ResultSink, StateMachine } from "../machine/machine.ts";
import type { WriteWaiter } from "../server/groups.ts";
import { lastIndexOf, type Batch } from "../wire/batch.ts";
import { SectionResults } from "../wire/section-results.ts";
import type { Pending } from "./pending.ts";

export class Applier implements ResultSink {
  readonly #machine: StateMachine;
  readonly #pending: Pending;
  readonly #resultBytesMax: number;
  /** Results of the section at the head of `pending`. */
  readonly #results = new SectionResults();

  constructor(machine: StateMachine, pending: Pending, limits: Limits) {
    this.#machine = machine;
    this.#pending = pending;
    this.#resultBytesMax = limits.resultBytesMax;
  }

  /** Applies committed batches; returns how many the machine took. Fewer means: call again after the machine's `work`. */
  apply(batches: readonly Batch[]): number {
    // Without a word in the log, the machine may have gone over to another member's state: what that has is not lost.
    if (batches.length > 0) this.restored(batches[0]!.firstIndex - 1);
    this.#pending.failSuperseded(batches);
    const taken = this.#machine.apply(batches, this);
    if (taken > 0) this.#completeThrough(lastIndexOf(batches[taken - 1]!));
    return taken;
  }

  /** The machine has gone over to a state at `index`: what led there is not given to it. */
  restored(index: number): void {
    if (this.#pending.firstIndex > index) return;
    this.#pending.failThrough(index);
    this.#results.reset();
  }

  result(index: number, code: number, bytes: Uint8Array | undefined): void {
    this.#completeThrough(index - 1);
    const section = this.#pending.first();
    if (section === undefined || index < section.firstIndex) return;
    if (this.#results.byteLength <= this.#resultBytesMax) {
      this.#results.add(index - section.firstIndex, code, bytes);
    }
  }

  repeated(index: number, count: number, originalIndex: number, results: Uint8Array): void {
    this.#take(index, count)?.applied(originalIndex, results);
  }

  refused(index: number, count: number, code: ErrorCode): void {
    this.#take(index, count)?.failed(new BargeError(code, errorTable[code].help));
  }

  /** Whoever waits for the section at `index`, which ran not. */
  #take(index: number, count: number): WriteWaiter | undefined {
    this.#completeThrough(index - 1);
    const section = this.#pending.first();
    if (section === undefined || section.firstIndex !== index || section.count !== count) {
      return undefined;
    }
    this.#pending.shift();
    return section.waiter;
  }

  #completeThrough(index: number): void {
    while (this.#pending.firstIndex <= index) {
      const { firstIndex, count, waiter } = this.#pending.first()!;
      if (firstIndex + count - 1 > index) return;
      this.#pending.shift();
      if (waiter !== undefined) {
        if (this.#results.byteLength <= this.#resultBytesMax) {
          waiter.applied(firstIndex, this.#results.view());
        } else {
          waiter.failed(new BargeError("result_too_large", "Applied; its results are too large."));
        }
      }
      this.#results.reset();
    }
  }
}

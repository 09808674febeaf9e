/**
 * Write sections whose log position is known and that wait to be applied: index → waiting request [13, 14].
 * Ordered by first index. One entry per section, never per command.
 */
import { BargeError } from "../errors.ts";
import type { WriteWaiter } from "../server/groups.ts";
import { lastIndexOf, type Batch } from "../wire/batch.ts";

interface PendingSection {
  readonly firstIndex: number;
  readonly count: number;
  /** Term in which the section was appended: it is applied only if a batch of this term commits at its index. */
  readonly term: number;
  readonly deadlineMs: number;
  /** Undefined once answered: the entry stays in place until its index is applied. */
  waiter: WriteWaiter | undefined;
}

export class Pending {
  #entries: PendingSection[] = [];
  #head = 0;

  get size(): number {
    return this.#entries.length - this.#head;
  }

  add(
    firstIndex: number,
    count: number,
    term: number,
    deadlineMs: number,
    waiter: WriteWaiter,
  ): void {
    const entries = this.#entries;
    let at = entries.length;
    // Nearly always at the end: only a new leader that overwrites a lost suffix goes back.
    while (at > this.#head && entries[at - 1]!.firstIndex > firstIndex) at--;
    const entry = { firstIndex, count, term, deadlineMs, waiter };
    if (at === entries.length) entries.push(entry);
    else entries.splice(at, 0, entry);
  }

  /** First index that somebody waits for; Infinity when nobody does. */
  get firstIndex(): number {
    return this.#head < this.#entries.length
      ? this.#entries[this.#head]!.firstIndex
      : Number.POSITIVE_INFINITY;
  }

  /** The first entry; the caller must know that there is one. */
  first(): Readonly<PendingSection> | undefined {
    return this.#entries[this.#head];
  }

  shift(): void {
    this.#head++;
    if (this.#head === this.#entries.length) {
      this.#entries.length = 0;
      this.#head = 0;
    } else if (this.#head > 1_024 && this.#head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
  }

  /**
   * These batches are committed: a section that was appended in another term at one of their indexes can never be applied. This is
   * the only place where a write that was in a log is reported as not applied [13].
   */
  failSuperseded(batches: readonly Batch[]): void {
    const last = batches[batches.length - 1];
    if (last === undefined || this.firstIndex > lastIndexOf(last)) return;
    const lost: PendingSection[] = [];
    let at = this.#head;
    for (const batch of batches) {
      const end = lastIndexOf(batch);
      while (at < this.#entries.length && this.#entries[at]!.firstIndex <= end) {
        const entry = this.#entries[at++]!;
        if (entry.term !== batch.term) lost.push(entry);
      }
    }
    if (lost.length === 0) return;
    const gone = new Set(lost);
    this.#entries = this.#entries.slice(this.#head).filter((entry) => !gone.has(entry));
    this.#head = 0;
    for (const { waiter } of lost) {
      waiter?.failed(
        new BargeError("not_leader", "A new leader replaced this write; it was not applied.", {
          outcome: "not-applied",
        }),
      );
    }
  }

  /** Answers what is past its deadline: the write is in a log, so its outcome is unknown. */
  expire(nowMs: number): void {
    let answered = 0;
    for (let at = this.#head; at < this.#entries.length; at++) {
      const entry = this.#entries[at]!;
      if (entry.waiter === undefined) answered++;
      else if (entry.deadlineMs <= nowMs) {
        const waiter = entry.waiter;
        entry.waiter = undefined;
        answered++;
        waiter.failed(
          new BargeError("timeout", "Not committed in time; it may still be applied later."),
        );
      }
    }
    if (answered * 2 > this.size) {
      this.#entries = this.#entries.slice(this.#head).filter((entry) => entry.waiter !== undefined);
      this.#head = 0;
    }
  }

  /** These indexes came with a snapshot: what was written there is applied, or not, and nobody can tell any more. */
  failThrough(index: number): void {
    while (this.firstIndex <= index) {
      const { waiter } = this.first()!;
      this.shift();
      waiter?.failed(
        new BargeError("outcome_unknown", "This node went over to a snapshot; ask again."),
      );
    }
  }

  failAll(error: BargeError): void {
    const entries = this.#entries.slice(this.#head);
    this.#entries.length = 0;
    this.#head = 0;
    for (const { waiter } of entries) waiter?.failed(error);
  }
}

/** The changes of a watch one by one, from its batches. A part of watch-stream.ts. */
import type { CodecName } from "./api.ts";
import type { Change, ChangeBatch } from "./watch-api.ts";

type Next<C extends CodecName> = IteratorResult<Change<C>, void>;

export class ChangeIterator<C extends CodecName> implements AsyncIterator<Change<C>, void> {
  readonly #batches: AsyncIterator<ChangeBatch<C>, void>;
  readonly #handed: (change: Change<C>) => void;
  #changes: readonly Change<C>[] = [];
  #at = 0;
  /** The last call that found no change at hand: those after it come after it. */
  #waiting: Promise<unknown> | undefined;

  constructor(batches: AsyncIterator<ChangeBatch<C>, void>, handed: (change: Change<C>) => void) {
    this.#batches = batches;
    this.#handed = handed;
  }

  next(): Promise<Next<C>> {
    const change = this.#waiting === undefined ? this.#changeAtHand() : undefined;
    if (change !== undefined) return Promise.resolve({ done: false, value: change });
    const found = this.#afterWaiting(this.#waiting);
    const settled = (): void => {
      if (this.#waiting === waiting) this.#waiting = undefined;
    };
    const waiting = found.then(settled, settled);
    this.#waiting = waiting;
    return found;
  }

  return(): Promise<Next<C>> {
    this.#changes = [];
    return this.#batches.return!() as Promise<Next<C>>;
  }

  async #afterWaiting(before: Promise<unknown> | undefined): Promise<Next<C>> {
    await before;
    for (;;) {
      const change = this.#changeAtHand();
      if (change !== undefined) return { done: false, value: change };
      const next = await this.#batches.next();
      if (next.done === true) return next;
      this.#changes = next.value.changes;
      this.#at = 0;
    }
  }

  #changeAtHand(): Change<C> | undefined {
    const change = this.#changes[this.#at];
    if (change === undefined) return undefined;
    this.#at++;
    this.#handed(change);
    return change;
  }
}

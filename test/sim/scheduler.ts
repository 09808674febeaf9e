/**
 * The simulated clock and the queue of what happens next: a binary heap over (virtual milliseconds, order of scheduling), so that
 * two events of one moment always run in the order in which they were scheduled. Times may be fractions of a millisecond.
 */
interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class Scheduler {
  #heap: Event[] = [];
  #nowMs = 0;
  #scheduled = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  get pending(): number {
    return this.#heap.length;
  }

  /** Runs `run` after `delayMs`. There is no cancelling: what may become void checks for itself. */
  after(delayMs: number, run: () => void): void {
    if (!(delayMs >= 0)) throw new Error(`delay ${delayMs}`);
    const event = { atMs: this.#nowMs + delayMs, order: this.#scheduled++, run };
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (before(heap[parent]!, event)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  /** Moves the clock to the next event and runs it; false when there is none. */
  step(): boolean {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined) return false;
    const last = heap.pop()!;
    if (heap.length > 0) {
      let at = 0;
      for (;;) {
        let child = 2 * at + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
        if (before(last, heap[child]!)) break;
        heap[at] = heap[child]!;
        at = child;
      }
      heap[at] = last;
    }
    this.#nowMs = first.atMs;
    first.run();
    return true;
  }
}

/** What somebody has still to do: nothing of it once that has ended. */
export class Agenda {
  readonly #scheduler: Scheduler;
  #isOver = false;

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  after(delayMs: number, run: () => void): void {
    this.#scheduler.after(delayMs, () => {
      if (!this.#isOver) run();
    });
  }

  end(): void {
    this.#isOver = true;
  }
}

function before(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/**
 * How long to wait for what must come: on a clock that runs only while this process does. It counts firings of a timer, so that on a crowded machine, where the
 * daemons wait for a core as long as this does, it runs as much slower, and who is merely slow is not late.
 */
const tickMs = 50;
const pollMs = 20;

export class Patience implements Disposable {
  #ticks = 0;
  #timer = this.#next();

  /** Of this clock. */
  get nowMs(): number {
    return this.#ticks * tickMs;
  }

  /** Polls until `condition` holds; one that throws does not hold yet. */
  async until(
    what: string,
    condition: () => boolean | Promise<boolean>,
    timeoutMs: number,
  ): Promise<void> {
    const untilMs = this.nowMs + timeoutMs;
    let last: unknown;
    while (this.nowMs < untilMs) {
      try {
        if (await condition()) return;
        last = undefined;
      } catch (error) {
        last = error;
      }
      await Bun.sleep(pollMs);
    }
    const why = last instanceof Error ? `: ${last.message}` : "";
    throw new Error(`not within ${timeoutMs} ms: ${what}${why}`);
  }

  #next(): Timer {
    return setTimeout(() => {
      this.#ticks++;
      this.#timer = this.#next();
    }, tickMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}

/**
 * How long the event loop was held: for each tick of the clock, the longer of how late it came and of the longest turn since the one before. As
 * counts by size, so that the difference of two readings tells of the time between them.
 */
const boundsMs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000] as const;

export interface LoopGapReading {
  readonly boundsMs: readonly number[];
  /** Per bound, and one for all above the last. */
  readonly counts: readonly number[];
  /** Of all gaps. */
  readonly sumMs: number;
}

export class LoopGapCounts {
  readonly #counts = [...boundsMs, 0].map(() => 0);
  #sumMs = 0;
  #longestTurnMs = 0;

  turnTook(ms: number): void {
    if (ms > this.#longestTurnMs) this.#longestTurnMs = ms;
  }

  /** Returns the gap in milliseconds. */
  ticked(lateMs: number): number {
    const gapMs = Math.max(0, lateMs, this.#longestTurnMs);
    this.#longestTurnMs = 0;
    let at = 0;
    while (at < boundsMs.length && gapMs > boundsMs[at]!) at += 1;
    this.#counts[at]! += 1;
    this.#sumMs += gapMs;
    return gapMs;
  }

  reading(): LoopGapReading {
    return { boundsMs, counts: [...this.#counts], sumMs: this.#sumMs };
  }
}

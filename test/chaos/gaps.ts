/**
 * The longest time without any acknowledged write, for each kind of fault that was in force at any moment of it; and in peace. A gap in which
 * only one kind was in force is that kind's alone.
 */

export const peace = "no fault";

export interface FaultFigures {
  /** How often it was brought on. */
  count: number;
  /** Time in force. */
  ms: number;
  longestGapMs: number;
  /** Of the gaps in which no other kind was in force. */
  longestGapAloneMs: number;
}

export class Gaps {
  readonly figures = new Map<string, FaultFigures>();
  readonly #inForce = new Map<string, number>();
  /** In force at any moment since the last success. */
  #since = new Set<string>();
  #lastMs = performance.now();

  begin(kind: string): void {
    this.of(kind).count++;
    this.#inForce.set(kind, performance.now());
    this.#since.add(kind);
  }

  end(kind: string): void {
    this.of(kind).ms += performance.now() - (this.#inForce.get(kind) ?? performance.now());
    this.#inForce.delete(kind);
  }

  /** A write was acknowledged. */
  succeeded(): void {
    const nowMs = performance.now();
    const gapMs = nowMs - this.#lastMs;
    this.#lastMs = nowMs;
    const alone = this.#since.size <= 1 ? gapMs : 0;
    for (const kind of this.#since.size === 0 ? [peace] : this.#since) {
      const figures = this.of(kind);
      figures.longestGapMs = Math.max(figures.longestGapMs, gapMs);
      figures.longestGapAloneMs = Math.max(figures.longestGapAloneMs, alone);
    }
    this.#since = new Set(this.#inForce.keys());
  }

  get sinceLastMs(): number {
    return performance.now() - this.#lastMs;
  }

  of(kind: string): FaultFigures {
    let figures = this.figures.get(kind);
    if (figures === undefined) {
      figures = { count: 0, ms: 0, longestGapMs: 0, longestGapAloneMs: 0 };
      this.figures.set(kind, figures);
    }
    return figures;
  }
}

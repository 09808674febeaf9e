/** A figure that takes long to find: looked at again only after a hundred times as long as that took, so that who asks often does not hold the loop. */

const pauseTimes = 100;

export class PacedFigure {
  readonly #find: () => number;
  #value = 0;
  #notBeforeMs = -Infinity;

  constructor(find: () => number) {
    this.#find = find;
  }

  value(nowMs: number): number {
    if (nowMs < this.#notBeforeMs) return this.#value;
    this.#value = this.#find();
    this.#notBeforeMs = nowMs + (performance.now() - nowMs) * pauseTimes;
    return this.#value;
  }
}

/**
 * Memory that many groups take under one bound. As long as there is room each takes what its own bound allows; where there is none any more, whoever has
 * as much as the average or more gives some up. So a thousand groups do not take a thousand times what one may, and a small one is left alone.
 */
export class CommonBytes {
  readonly #bytesMax: number;
  #used = 0;
  #holders = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get used(): number {
    return this.#used;
  }

  /** A holder has so many bytes now, instead of those that it had before. */
  change(before: number, after: number): void {
    this.#used += after - before;
    if (before === 0 && after > 0) this.#holders++;
    if (before > 0 && after === 0) this.#holders--;
  }

  /** There is more than there should be, and a holder of so many bytes is one of those to give some up. */
  wantsBack(bytes: number): boolean {
    return this.#used > this.#bytesMax && bytes * this.#holders >= this.#used;
  }

  /** Twice as much as there should be: what was given up is still being written, and no more can be taken. */
  get isExhausted(): boolean {
    return this.#used > 2 * this.#bytesMax;
  }
}

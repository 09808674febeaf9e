/** A hash over everything that happens in a run, in order: equal for two runs of one seed, or the simulation is not deterministic. */
export class Trace {
  #high = 0x9e37_79b9;
  #low = 0x85eb_ca6b;
  #events = 0;

  add(a: number, b: number, c: number): void {
    this.#events++;
    this.#mix(a);
    this.#mix(b);
    this.#mix(c);
  }

  /** Sixteen hex digits. */
  get hash(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, "0");
    return hex(this.#high ^ this.#events) + hex(this.#low);
  }

  #mix(value: number): void {
    // Fractions of a millisecond count too.
    const word = (Math.floor(value) ^ Math.floor((value % 1) * 0x1_0000_0000)) | 0;
    this.#low = Math.imul(this.#low ^ word, 0xcc9e_2d51);
    this.#low ^= this.#low >>> 15;
    this.#high = Math.imul(this.#high ^ this.#low, 0x1b87_3593);
    this.#high = (this.#high << 13) | (this.#high >>> 19);
  }
}

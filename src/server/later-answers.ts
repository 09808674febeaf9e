/**
 * Answers to the queries of one request that an application gives: each when it comes, in any order. They are kept until the last one is there, and bounded together
 * like the reply that they make.
 */
import type { ReadSink } from "./groups.ts";

export interface LaterAnswer {
  readonly code: number;
  readonly bytes: Uint8Array | undefined;
}

export class LaterAnswers {
  readonly #answers: (LaterAnswer | undefined)[];
  readonly #tooLarge: LaterAnswer;
  readonly #done: (answers: readonly LaterAnswer[]) => void;
  #bytesLeft: number;
  #left: number;

  /** `tooLarge` is the code of an answer that finds no room; `done` runs once, with the last answer. */
  constructor(
    count: number,
    bytesMax: number,
    tooLarge: number,
    done: (answers: readonly LaterAnswer[]) => void,
  ) {
    this.#answers = Array.from({ length: count });
    this.#left = count;
    this.#bytesLeft = bytesMax;
    this.#tooLarge = { code: tooLarge, bytes: undefined };
    this.#done = done;
  }

  /** For the answer to the query at that position. */
  sink(position: number): ReadSink {
    return { answer: (code, bytes) => this.#answered(position, code, bytes) };
  }

  #answered(position: number, code: number, bytes: Uint8Array | undefined): void {
    if (this.#answers[position] !== undefined) return;
    const size = bytes?.byteLength ?? 0;
    const fits = size <= this.#bytesLeft;
    if (fits) this.#bytesLeft -= size;
    this.#answers[position] = fits ? { code, bytes: bytes?.slice() } : this.#tooLarge;
    if (--this.#left === 0) this.#done(this.#answers as readonly LaterAnswer[]);
  }
}

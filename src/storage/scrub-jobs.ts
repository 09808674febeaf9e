/** What the scrubber and its Worker, scrub-worker.ts, say to each other. One target at a time, one step at a time. */

/** What is to be read through. */
export type ScrubTarget =
  /** The write-ahead log of a segment, up to the frames that SQLite counts in it. */
  | { readonly kind: "log"; readonly path: string; readonly frames: number }
  /**
   * A table by its key: `query` selects `key` and other columns above ?1, in order. In short reads, each of its own, so that the file's write-ahead
   * log is never held back for long. `sealedQuery` selects `saved`, bytes with a seal of their own, looked at last.
   */
  | {
      readonly kind: "table";
      readonly path: string;
      readonly query: string;
      readonly sealedQuery: string;
    };

export type ScrubJob =
  { readonly kind: "begin"; readonly target: ScrubTarget } | { readonly kind: "step" | "end" };

/** Each job is answered. */
export interface ScrubStep {
  /** Read in this step. */
  readonly bytes: number;
  /** Nothing of the target is left. */
  readonly done: boolean;
  /** It is not what was written, or cannot be read: no more of it is read then. */
  readonly damage?: string;
}

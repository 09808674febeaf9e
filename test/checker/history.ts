/**
 * What clients saw, as the checkers take it: operations on single keys with call and return on one clock that never shows the same time twice.
 * Shared by the simulator and the tests with real processes.
 */

export type OperationKind = "put" | "delete" | "compareAndPut" | "get";

/**
 * `ok`: done, and the result fields hold. `refused`: surely without effect, as the server said. `unknown`: it may take effect at any time
 * after the call, or never.
 */
export type OperationOutcome = "ok" | "refused" | "unknown";

export interface Operation {
  readonly client: number;
  readonly key: string;
  readonly kind: OperationKind;
  /** What a put writes: unique over the whole history, so that a value names its writer. Empty for get and delete. */
  readonly value: string;
  /** compareAndPut only: the revision that the key must have, 0 = absent. */
  readonly expected: number;
  readonly call: number;
  /** Infinity while the outcome is unknown. */
  readonly return: number;
  readonly outcome: OperationOutcome;
  /** `ok` only. A write: the log index of the command. A get: the applied index at which it was read; 0 = not told. */
  readonly index: number;
  /** `ok` only. put: true. delete: the key was there. compareAndPut: the revision was the expected one. get: the key was there. */
  readonly success: boolean;
  /** get: the value and revision that it saw (revision 0 = absent). A failed compareAndPut: the revision that it met. */
  readonly seenValue: string;
  readonly seenRevision: number;
  /**
   * Operations with the same number are the parts, one for each key, of a transaction or of a read of many keys: they take effect at one
   * moment. A part that may or may not have written is `unknown` where that is not known.
   */
  readonly transaction?: number;
  /** Writes of one session take effect in the order of their calls. */
  readonly session?: number;
}

/** Property tests with a fixed seed; fast-check prints seed and path of a failure, and `BARGE_TEST_SEED=N` repeats or varies a run. */
import fc from "fast-check";

const seed = Number(process.env["BARGE_TEST_SEED"] ?? 20_260_101);

export function holds<T>(runs: number, arbitrary: fc.Arbitrary<T>, check: (value: T) => void) {
  fc.assert(fc.property(arbitrary, check), { seed, numRuns: runs });
}

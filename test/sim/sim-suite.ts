/** A range of seeds as one test file's share, so that two files keep two cores busy. */
import { expect, test } from "bun:test";
import { simulate } from "./simulation.ts";

const events = 2_000;
/** Seeds in one test, so that a failure shows early. */
const stride = 50;

export function simulationSuite(from: number, to: number): void {
  for (let first = from; first <= to; first += stride) {
    const last = Math.min(to, first + stride - 1);
    test(`seeds ${first} to ${last}, ${events} events each`, () => {
      for (let seed = first; seed <= last; seed++) run(seed);
    });
  }

  test("the same seed gives the same trace", () => {
    for (let seed = from; seed < from + 10; seed++) {
      expect(`${seed} ${run(seed)}`).toBe(`${seed} ${run(seed)}`);
    }
  });

  test("different seeds give different traces", () => {
    expect(run(from)).not.toBe(run(from + 1));
  });
}

/** The hash of the seed's trace; throws what broke, with the command that repeats it. */
function run(seed: number): string {
  const { failure, hash } = simulate({ seed, events });
  if (failure === undefined) return hash;
  const command = `bun test/sim/run.ts --seeds 1 --from ${seed} --events ${events}`;
  throw new Error(`seed ${seed} fails; repeat with: ${command}`, { cause: failure });
}

/** A range of seeds as one test file's share, so that two files keep two cores busy. */
import { expect, test } from "bun:test";
import { commandOf, shrink } from "./shrink.ts";
import { simulate } from "./simulation.ts";
import { emptyTally, happenings } from "./tally.ts";

const events = 2_000;
/** Seeds in one test, so that a failure shows early. */
const stride = 50;

export function simulationSuite(from: number, to: number): void {
  const tally = emptyTally();
  for (let first = from; first <= to; first += stride) {
    const last = Math.min(to, first + stride - 1);
    test(`seeds ${first} to ${last}, ${events} events each`, () => {
      for (let seed = first; seed <= last; seed++) {
        const run = runSeed(seed);
        for (const happening of happenings) tally[happening] += run.tally[happening];
      }
    });
  }

  test("what is simulated happens", () => {
    // Rot that is met only while running is rare: long runs have it.
    const missing = happenings.filter((name) => name !== "rotMetRunning" && tally[name] === 0);
    expect(missing).toEqual([]);
  });

  test("the same seed gives the same trace", () => {
    for (let seed = from; seed < from + 10; seed++) {
      expect(`${seed} ${runSeed(seed).hash}`).toBe(`${seed} ${runSeed(seed).hash}`);
    }
  });

  test("different seeds give different traces", () => {
    expect(runSeed(from).hash).not.toBe(runSeed(from + 1).hash);
  });
}

/** Throws what broke, with the command that repeats the smallest run that breaks. */
function runSeed(seed: number): ReturnType<typeof simulate> {
  const result = simulate({ seed, events });
  if (result.failure === undefined) return result;
  const small = shrink({ seed, events });
  throw new Error(
    `seed ${seed} fails; repeat with: ${commandOf({ seed, events })}; smallest: ${commandOf(small.options)}`,
    { cause: result.failure },
  );
}

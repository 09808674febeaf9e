/**
 * Each planted bug is found again from its recorded seed on, and without the bug the seed that found it passes. Any change of the code shifts
 * what a seed does, so a few more seeds may be needed than the recorded one; find-bugs.ts records afresh.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { plantedBugs, type BugName } from "./planted-bugs.ts";
import records from "./planted-bugs.json" with { type: "json" };
import { readmePath, renderReadme } from "./readme.ts";
import { simulate } from "./simulation.ts";

/** Of the 2,000 within which each bug must be found. */
const replaySeedsMax = 400;
/** Searched where nobody has looked before. */
const freshFrom = 1_000_001;
const freshBugs: readonly BugName[] = ["voteWithoutLogCheck", "commitBeyondVerified"];

/** The seed that finds the bug. */
async function find(name: string, from: number, seeds: number): Promise<number> {
  const flags = ["--from", `${from}`, "--seeds", `${seeds}`, "--bug", name, "--no-shrink"];
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "run.ts"), ...flags], {
    stdout: "ignore",
    stderr: "pipe",
  });
  const text = await new Response(child.stderr).text();
  const [, seed] = /^seed (\d+) fails after \d+ events/.exec(text) ?? [];
  expect(seed, `${name} survives seeds ${from} to ${from + seeds - 1}: ${text}`).toBeDefined();
  expect(await child.exited).toBe(1);
  return Number(seed);
}

function passesWithout(seed: number): void {
  const { failure } = simulate({ seed, events: 2_000 });
  if (failure !== undefined) throw new Error(`seed ${seed} fails without it`, { cause: failure });
}

describe("planted bugs", () => {
  test("each has a recorded seed", () => {
    expect(Object.keys(records).toSorted()).toEqual(Object.keys(plantedBugs).toSorted());
  });

  for (const [name, { seed }] of Object.entries(records)) {
    test(`${name} is found from seed ${seed} on`, async () => {
      passesWithout(await find(name, seed, replaySeedsMax));
    });
  }

  for (const name of freshBugs) {
    test(`${name} is found afresh`, async () => {
      passesWithout(await find(name, freshFrom, 2_000));
    });
  }
});

/** The formatter pads tables; only the words count. */
const words = (text: string): string => text.replace(/ +/g, " ").replace(/-{3,}/g, "---");

test("README.md is what `bun test/sim/readme.ts` writes", async () => {
  expect(words(await Bun.file(readmePath).text())).toBe(words(renderReadme()));
});

/**
 * Each planted bug is found again from its recorded seed on, and without the bug the seed that found it passes. Any change of the code shifts
 * what a seed does, so a few more seeds may be needed than the recorded one; find-bugs.ts records afresh.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { plantedBugs } from "./planted-bugs.ts";
import records from "./planted-bugs.json" with { type: "json" };

/** Of the 2,000 within which each bug must be found. */
const seedsMax = 400;

async function run(...flags: readonly string[]): Promise<string> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "run.ts"), ...flags], {
    stdout: "ignore",
    stderr: "pipe",
  });
  const text = await new Response(child.stderr).text();
  return `${await child.exited} ${text}`;
}

describe("planted bugs", () => {
  test("each has a recorded seed", () => {
    expect(Object.keys(records).toSorted()).toEqual(Object.keys(plantedBugs).toSorted());
  });

  for (const [name, { seed, events }] of Object.entries(records)) {
    test(`${name} is found from seed ${seed} on`, async () => {
      const length = `--events=${events}`;
      const planted = await run(`--from=${seed}`, `--seeds=${seedsMax}`, length, `--bug=${name}`);
      const [, finder] = /^1 seed (\d+) fails after \d+ events/.exec(planted) ?? [];
      expect(finder, planted).toBeDefined();
      expect(await run(`--from=${finder}`, "--seeds=1", length)).toBe("0 ");
    });
  }
});

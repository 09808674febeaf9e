/** Each planted bug is found again by its recorded seed, and without the bug the same seed passes. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { plantedBugs } from "./planted-bugs.ts";
import records from "./planted-bugs.json" with { type: "json" };

async function run(seed: number, events: number, more: readonly string[]): Promise<string> {
  const script = join(import.meta.dir, "run.ts");
  const seeds = ["--seeds", "1", "--from", String(seed), "--events", String(events)];
  const child = Bun.spawn([process.execPath, script, ...seeds, ...more], {
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
    test(`${name} is found by seed ${seed}`, async () => {
      const [planted, clean] = await Promise.all([
        run(seed, events, ["--bug", name]),
        run(seed, events, []),
      ]);
      expect(planted).toMatch(/^1 seed \d+ fails after \d+ events/);
      expect(clean).toBe("0 ");
    });
  }
});

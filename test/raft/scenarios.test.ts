/**
 * Every scenario prints the trace that its file has. `REWRITE_SCENARIOS=1 bun test test/raft/scenarios.test.ts` writes the files anew: then read
 * the difference, for the trace is the expectation.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatScenario, parseScenario, Scenario } from "./scenario.ts";

const folder = join(import.meta.dir, "scenarios");
const rewrites = process.env["REWRITE_SCENARIOS"] === "1";

for (const name of readdirSync(folder).filter((file) => file.endsWith(".txt"))) {
  test(name, () => {
    const path = join(folder, name);
    const { steps, rest } = parseScenario(readFileSync(path, "utf8"));
    expect(rest.trim()).toBe("");
    expect(steps.length).toBeGreaterThan(1);
    const scenario = new Scenario();
    const found = steps.map((step) => ({ ...step, expected: scenario.run(step.commands) }));
    if (rewrites) writeFileSync(path, formatScenario(found, rest));
    else
      for (const [at, { commands, expected }] of steps.entries())
        expect(`${commands}----\n${found[at]!.expected}`).toBe(`${commands}----\n${expected}`);
  });
}

test("a scenario is written as it is read", () => {
  const text = "# a comment\nnodes 3\nstatus\n----\n1: follower\n\n# more\nsettle\n----\n";
  const { steps, rest } = parseScenario(text);
  expect(steps.length).toBe(2);
  expect(formatScenario(steps, rest)).toBe(text);
});

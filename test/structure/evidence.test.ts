/** The table of evidence in README.md is that of test/evidence.jsonl. */
import { readFileSync } from "node:fs";
import { expect, test } from "bun:test";
import { readEvidence, readmePath, withTable } from "../evidence.ts";

test("the table in README.md is fresh: bun test/evidence.ts writes it", () => {
  expect(readEvidence().length).toBeGreaterThan(0);
  const readme = readFileSync(readmePath, "utf8");
  expect(withTable(readme)).toBe(readme);
});

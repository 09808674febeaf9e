/** Counts of how long the event loop was held. */
import { expect, test } from "bun:test";
import { LoopGapCounts } from "../../src/telemetry/loop-gaps.ts";

test("a tick counts once, by the longer of its lateness and the longest turn before it", () => {
  const gaps = new LoopGapCounts();
  const { boundsMs, counts } = gaps.reading();
  expect(counts).toHaveLength(boundsMs.length + 1);
  gaps.turnTook(3);
  gaps.turnTook(30);
  gaps.turnTook(7);
  expect(gaps.ticked(4)).toBe(30);
  // The turn counted for the tick before.
  expect(gaps.ticked(4)).toBe(4);
  expect(gaps.ticked(-2)).toBe(0);
  expect(gaps.ticked(5)).toBe(5);
  expect(gaps.ticked(9_999)).toBe(9_999);
  const now = gaps.reading().counts;
  const at = (ms: number): number | undefined => now[boundsMs.indexOf(ms)];
  expect([at(1), at(2), at(5), at(10), at(20), at(50)]).toEqual([1, 0, 2, 0, 0, 1]);
  expect(now.at(-1)).toBe(1);
  expect(counts.every((count) => count === 0)).toBe(true);
});

/** Twenty seconds of fuzz.ts: `BARGE_TEST_SEED=N` repeats or varies a run. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { frameKinds, type FuzzReport, fuzzRound } from "./fuzz-round.ts";

setDefaultTimeout(120_000);

const seed = Number(process.env["BARGE_TEST_SEED"] ?? 20_260_501);
function expectAllKinds({ kinds }: FuzzReport): void {
  expect(frameKinds.filter((kind) => kinds[kind] === undefined)).toEqual([]);
}

test(`strangers and clients fuzz one node, seed ${seed}`, async () => {
  const report = await fuzzRound({ nodes: 1, seed, seconds: 8 });
  expect(report.framesAnswered).toBeGreaterThan(report.connections / 10);
});

test(`a member, strangers and clients fuzz two others, seed ${seed}`, async () => {
  const report = await fuzzRound({ nodes: 3, seed, seconds: 12 });
  expectAllKinds(report);
});

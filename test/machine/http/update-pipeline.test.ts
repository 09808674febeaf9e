/** What is applied follows what the application has, also where that goes back. */
import { expect, test } from "bun:test";
import { defaultLimits } from "../../../src/limits.ts";
import type { ResultSink } from "../../../src/machine/machine.ts";
import { encodeState } from "../../../src/machine/http/saved-state.ts";
import { UpdatePipeline } from "../../../src/machine/http/update-pipeline.ts";
import type { Batch } from "../../../src/wire/batch.ts";
import { TestLog } from "../log.ts";

const nobody: ResultSink = { result: () => {}, repeated: () => {}, refused: () => {} };
const empty = { isMiscounted: false, next: () => undefined };

function apply(pipeline: UpdatePipeline, batch: Batch): void {
  pipeline.plan(batch);
  if (pipeline.take() !== undefined) pipeline.answered(empty);
  expect(pipeline.deliver(batch, nobody)).toBe(true);
}

test("the last entry of an application that has forgotten all is none, until it has one again", () => {
  const log = new TestLog();
  const [version, entries] = [log.raise(2), log.add([[Buffer.from("a"), Buffer.from("b")]])];
  const pipeline = new UpdatePipeline(defaultLimits);
  const start = pipeline.save();
  pipeline.begin(0, "json");
  apply(pipeline, version);
  apply(pipeline, entries);
  expect(pipeline.save()).toMatchObject({ appliedIndex: 3, appIndex: 3 });
  pipeline.load(start);
  pipeline.begin(0, "json");
  apply(pipeline, version);
  expect(pipeline.save()).toMatchObject({ appliedIndex: 1, appIndex: 0 });
  apply(pipeline, entries);
  expect(pipeline.save()).toMatchObject({ appliedIndex: 3, appIndex: 3 });
});

test("a state that nobody could read again is not saved", () => {
  const state = new UpdatePipeline(defaultLimits).save();
  const saved = { ...state, snapshot: 0, restores: false, appliedIndex: 1, appIndex: 2 };
  expect(() => encodeState(saved)).toThrow("entries up to 2 of an application that has 1");
});

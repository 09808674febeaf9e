/** Sections that wait for their index: who is told what, and when. */
import { describe, expect, test } from "bun:test";
import type { BargeError } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import type { ResultSink, StateMachine } from "../../src/machine/machine.ts";
import { Applier } from "../../src/node/applier.ts";
import { Pending } from "../../src/node/pending.ts";
import type { WriteWaiter } from "../../src/server/groups.ts";
import { BatchKind, batchHeaderBytes, sealBatch, type Batch } from "../../src/wire/batch.ts";

class Recorder implements WriteWaiter {
  readonly log: string[] = [];
  readonly results: number[] = [];
  applied(firstIndex: number, results: Uint8Array): void {
    this.log.push(`applied ${firstIndex}`);
    this.results.push(results.byteLength);
  }
  failed(error: BargeError): void {
    this.log.push(`${error.code} ${error.outcome}`);
  }
}

function batch(firstIndex: number, count: number, term: number): Batch {
  return sealBatch(
    { group: 0, kind: BatchKind.commands, firstIndex, count, term, timeMs: 0, prevCrc: 0 },
    new Uint8Array(batchHeaderBytes),
  );
}

/** A machine that reports the indexes in `exceptions` and takes at most `takeMax` batches a call. */
function applierOf(
  pending: Pending,
  exceptions: ReadonlySet<number> = new Set(),
  takeMax = 100,
): Applier {
  const machine = {
    apply(batches: readonly Batch[], results: ResultSink): number {
      for (const { firstIndex, count } of batches.slice(0, takeMax)) {
        for (let index = firstIndex; index < firstIndex + count; index++) {
          if (exceptions.has(index)) results.result(index, 2, new Uint8Array(1));
        }
      }
      return Math.min(takeMax, batches.length);
    },
  } as unknown as StateMachine;
  return new Applier(machine, pending, defaultLimits);
}

describe("pending", () => {
  test("what the machine has passed by, as it took over another member's state, is not said to be replaced", () => {
    const pending = new Pending();
    const [passed, replaced, kept] = [new Recorder(), new Recorder(), new Recorder()];
    pending.add(3, 2, 5, 100, passed);
    pending.add(5, 1, 5, 100, replaced);
    pending.add(6, 1, 6, 100, kept);
    applierOf(pending).apply([batch(5, 1, 6), batch(6, 1, 6)]);
    expect(passed.log).toEqual(["outcome_unknown unknown"]);
    expect(replaced.log).toEqual(["not_leader not-applied"]);
    expect(kept.log).toEqual(["applied 6"]);
  });

  test("a section is answered when its last index is applied, with its own results only", () => {
    const pending = new Pending();
    const [a, b, c] = [new Recorder(), new Recorder(), new Recorder()];
    pending.add(1, 2, 1, 100, a);
    pending.add(3, 3, 1, 100, b);
    pending.add(6, 1, 1, 100, c);
    const applier = applierOf(pending, new Set([1, 4, 5]));
    applier.apply([batch(1, 2, 1), batch(3, 3, 1)]);
    expect([a.log, b.log, c.log]).toEqual([["applied 1"], ["applied 3"], []]);
    expect([a.results, b.results]).toEqual([[13], [26]]);
    applier.apply([batch(6, 1, 1)]);
    expect(c.log).toEqual(["applied 6"]);
    expect(c.results).toEqual([0]);
    expect(pending.size).toBe(0);
  });

  test("only a batch of another term at its index makes a section not applied", () => {
    const pending = new Pending();
    const [old, fresh, later] = [new Recorder(), new Recorder(), new Recorder()];
    pending.add(5, 10, 1, 100, old);
    pending.add(7, 1, 2, 100, fresh);
    pending.add(20, 1, 1, 100, later);
    const applier = applierOf(pending);
    applier.apply([batch(4, 1, 1)]);
    expect(old.log).toEqual([]);
    applier.apply([batch(5, 2, 2), batch(7, 1, 2)]);
    expect(old.log).toEqual(["not_leader not-applied"]);
    expect(fresh.log).toEqual(["applied 7"]);
    expect(later.log).toEqual([]);
  });

  test("an entry of a newer term goes before older ones at higher indexes", () => {
    const pending = new Pending();
    const [old, fresh] = [new Recorder(), new Recorder()];
    pending.add(100, 1, 1, 100, old);
    pending.add(98, 1, 2, 100, fresh);
    expect(pending.firstIndex).toBe(98);
    applierOf(pending).apply([batch(98, 1, 2), batch(99, 5, 2)]);
    expect(fresh.log).toEqual(["applied 98"]);
    expect(old.log).toEqual(["not_leader not-applied"]);
  });

  test("past the deadline the outcome is unknown, and a later apply says nothing more", () => {
    const pending = new Pending();
    const [late, intime] = [new Recorder(), new Recorder()];
    pending.add(1, 1, 1, 100, late);
    pending.add(2, 1, 1, 300, intime);
    pending.expire(200);
    expect(late.log).toEqual(["timeout unknown"]);
    applierOf(pending).apply([batch(1, 2, 1)]);
    expect(late.log).toEqual(["timeout unknown"]);
    expect(intime.log).toEqual(["applied 2"]);
  });

  test("a machine that takes fewer batches answers only what it took", () => {
    const pending = new Pending();
    const [a, b] = [new Recorder(), new Recorder()];
    pending.add(1, 1, 1, 100, a);
    pending.add(2, 1, 1, 100, b);
    const applier = applierOf(pending, new Set(), 1);
    expect(applier.apply([batch(1, 1, 1), batch(2, 1, 1)])).toBe(1);
    expect([a.log, b.log]).toEqual([["applied 1"], []]);
    applier.apply([batch(2, 1, 1)]);
    expect(b.log).toEqual(["applied 2"]);
  });

  test("results over the bound are applied, and said to be too large", () => {
    const pending = new Pending();
    const waiter = new Recorder();
    pending.add(1, 200_000, 1, 100, waiter);
    const every = new Set(Array.from({ length: 200_000 }, (_, i) => i + 1));
    applierOf(pending, every).apply([batch(1, 200_000, 1)]);
    expect(waiter.log).toEqual(["result_too_large applied"]);
  });
});

test("a section that came again is answered with its first index, one that did not run with why; those beside them as ever", () => {
  const pending = new Pending();
  const machine = {
    apply(batches: readonly Batch[], results: ResultSink): number {
      results.repeated(11, 2, 3, new Uint8Array(20));
      results.refused(13, 1, "sequence_gap");
      results.refused(15, 1, "session_expired");
      return batches.length;
    },
  } as unknown as StateMachine;
  const applier = new Applier(machine, pending, defaultLimits);
  const recorders = [10, 11, 13, 14, 16].map((index) => {
    const recorder = new Recorder();
    pending.add(index, index === 11 ? 2 : 1, 1, Infinity, recorder);
    return recorder;
  });
  applier.apply([batch(10, 7, 1)]);
  expect(recorders.map(({ log }) => log)).toEqual([
    ["applied 10"],
    ["applied 3"],
    ["sequence_gap not-applied"],
    ["applied 14"],
    // Nobody waits for what was refused at 15.
    ["applied 16"],
  ]);
  expect(recorders[1]!.results).toEqual([20]);
  expect(pending.size).toBe(0);
});

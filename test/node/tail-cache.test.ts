/** The cache of the log's tail: what it gives must be what the log holds. */
import { expect, test } from "bun:test";
import { TailCache } from "../../src/node/tail-cache.ts";
import { BatchKind, batchHeaderBytes, sealBatch, type Batch } from "../../src/wire/batch.ts";

function batch(firstIndex: number, count: number, term = 1, bodyBytes = 52): Batch {
  return sealBatch(
    { group: 0, kind: BatchKind.commands, firstIndex, count, term, timeMs: 0, prevCrc: 0 },
    new Uint8Array(batchHeaderBytes + bodyBytes),
  );
}

const firsts = (batches: readonly Batch[] | undefined): number[] | undefined =>
  batches?.map((b) => b.firstIndex);

test("takes whole batches, bounded in bytes but at least one", () => {
  const cache = new TailCache(10_000);
  cache.append([batch(1, 5), batch(6, 1), batch(7, 10)]);
  expect(firsts(cache.take(1, 16, 10_000))).toEqual([1, 6, 7]);
  expect(firsts(cache.take(6, 16, 150))).toEqual([6]);
  expect(firsts(cache.take(6, 16, 1))).toEqual([6]);
  expect(firsts(cache.take(3, 16, 1))).toEqual([1]);
  expect(firsts(cache.take(1, 10, 10_000))).toEqual([1, 6]);
  expect(cache.take(17, 20, 1)).toBeUndefined();
});

test("a superseding append replaces the suffix", () => {
  const cache = new TailCache(10_000);
  cache.append([batch(1, 1), batch(2, 1), batch(3, 1)]);
  cache.append([batch(2, 4, 2)]);
  expect(cache.take(1, 9, 10_000)!.map((b) => b.term)).toEqual([1, 2]);
  expect(cache.bytes).toBe(200);
});

test("keeps the newest within its bound", () => {
  const cache = new TailCache(1_000);
  for (let index = 1; index <= 500; index++) cache.append([batch(index, 1)]);
  expect(cache.bytes).toBe(1_000);
  expect(cache.take(490, 500, 10_000)).toBeUndefined();
  expect(firsts(cache.take(491, 500, 10_000))).toHaveLength(10);
});

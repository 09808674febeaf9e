/** The cache of the log's tail: what it gives must be what the log holds. */
import { expect, test } from "bun:test";
import { CommonBytes } from "../../src/machine/common-bytes.ts";
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

test("what it gives up for others is gone, whatever is appended or superseded then", () => {
  const common = new CommonBytes(20_000);
  const caches = [new TailCache(100_000), new TailCache(100_000)];
  for (const cache of caches) cache.share(common);
  for (let index = 1; index <= 1_000; index++) {
    const isAgain = index % 97 === 0;
    for (const cache of caches) {
      cache.append([...(isAgain ? [batch(index - 1, 1, 2)] : []), batch(index, 1, 2)]);
      const kept = cache.bytes / 100;
      const oldest = index - kept + 1;
      expect(cache.take(oldest - 1, index, 1e6)).toBeUndefined();
      expect(firsts(cache.take(oldest, index, 1e6))).toEqual(
        Array.from({ length: kept }, (_, at) => oldest + at),
      );
    }
  }
  expect(common.used).toBe(caches[0]!.bytes + caches[1]!.bytes);
  expect(common.used).toBeLessThanOrEqual(20_100);
  expect(common.used).toBeGreaterThan(19_000);
});

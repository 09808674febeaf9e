/** Where results come from applications they may differ from node to node, or be lost on one: which ids are known, and which are refused, must not. */
import { expect, test } from "bun:test";
import { defaultLimits } from "../../../src/limits.ts";
import { RequestIds } from "../../../src/machine/request-ids.ts";
import { Random } from "../../sim/random.ts";

const limits = {
  ...defaultLimits,
  requestIdsMax: 20,
  requestIdTtlMs: 1_000,
  requestIdBytesMax: 1_500,
};

test("the same ids are known and refused, whatever the results are", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const max = random.pick([1_500, 100_000, 500]);
    const given = { ...limits, requestIdBytesMax: max };
    const nodes = [new RequestIds(given, true), new RequestIds(given, true)];
    let timeMs = 0;
    for (let step = 0; step < 100; step++) {
      timeMs += random.between(0, 100);
      const id = { session: random.below(40), firstSeq: 1, doneUpTo: 2 };
      const seen = nodes.map((ids) => {
        ids.sweep(timeMs);
        const isKnown = ids.find(id) !== undefined;
        const { full } = ids;
        if (!isKnown && !full) {
          const results = random.chance(0.3) ? undefined : new Uint8Array(random.below(200));
          ids.add(id, 7, step + 1, timeMs, results);
        }
        expect(ids.byteLength).toBeLessThanOrEqual(max);
        return [isKnown, full, ids.count];
      });
      expect([seed, ...seen[0]!]).toEqual([seed, ...seen[1]!]);
    }
  }
});

test("results that are not known stay so, also when they are saved and loaded", () => {
  const ids = new RequestIds(limits, true);
  const id = { session: 1, firstSeq: 2, doneUpTo: 3 };
  ids.add(id, 7, 10, 0, undefined);
  expect(ids.find(id)).toEqual({ crc: 7, firstIndex: 10, results: undefined });
});

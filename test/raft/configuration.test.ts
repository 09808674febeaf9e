import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  ConfigurationStack,
  decodeConfiguration,
  encodeConfiguration,
} from "../../src/raft/configuration.ts";
import { configurationOf, sealConfiguration, seedCrc } from "./harness.ts";

const ids = fc.uniqueArray(fc.integer({ min: 1, max: 500 }), { maxLength: 7 });

describe("configuration", () => {
  test("what is encoded is decoded; the order in which members were named does not matter", () => {
    fc.assert(
      fc.property(ids, ids, fc.string({ maxLength: 40 }), (some, others, address) => {
        const voters = [...some, 501];
        const configuration = {
          voters,
          outgoing: [],
          learners: others.filter((id) => !voters.includes(id)),
          addresses: { 501: address.toWellFormed(), 3: "b:1" },
          ...(address.length % 2 === 0 ? {} : { removed: [700, 600], incarnations: { 501: "ab" } }),
        };
        const reversed = {
          ...configuration,
          voters: [...voters].reverse(),
          learners: [...configuration.learners].reverse(),
          addresses: { 3: "b:1", 501: address.toWellFormed() },
        };
        const bytes = encodeConfiguration(configuration);
        expect(encodeConfiguration(reversed)).toEqual(bytes);
        const decoded = decodeConfiguration(bytes)!;
        expect(decoded.voters).toEqual([...voters].sort((a, b) => a - b));
        expect(decoded.addresses).toEqual(configuration.addresses);
        expect(decoded.incarnations).toEqual(configuration.incarnations);
        expect(decoded.removed).toEqual(configuration.removed?.toReversed());
        expect(encodeConfiguration(decoded)).toEqual(bytes);
      }),
      { numRuns: 200, seed: 1 },
    );
  });

  test("other bytes are refused, never thrown at", () => {
    const plain = configurationOf([1, 2, 3], [4], [1, 2]);
    const full = { ...plain, removed: [5, 9], incarnations: { 1: "a", 2: "b" } };
    const good = encodeConfiguration(full);
    expect(decodeConfiguration(good)).toEqual(full);
    for (const bytes of [good, encodeConfiguration(plain)]) {
      for (let length = 0; length < bytes.byteLength; length++)
        expect(decodeConfiguration(bytes.subarray(0, length))).toBeUndefined();
    }
    expect(decodeConfiguration(encodeConfiguration({ ...full, removed: [1] }))).toBeUndefined();
    expect(decodeConfiguration(new Uint8Array([...good, 0]))).toBeUndefined();
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: good.byteLength - 1 }),
        fc.integer({ min: 1, max: 255 }),
        (at, flip) => {
          const bytes = good.slice();
          bytes[at]! ^= flip;
          const decoded = decodeConfiguration(bytes);
          // What is accepted is canonical.
          if (decoded !== undefined) expect(encodeConfiguration(decoded)).toEqual(bytes);
        },
      ),
      { numRuns: 500, seed: 1 },
    );
    const refused = [
      configurationOf([]),
      configurationOf([0, 1]),
      configurationOf([1, 2], [2]),
    ].map((configuration) => decodeConfiguration(encodeConfiguration(configuration)));
    expect(refused).toEqual([undefined, undefined, undefined]);
  });

  test("the stack follows truncation and compaction", () => {
    const at = (firstIndex: number, voters: number[]) =>
      sealConfiguration({ firstIndex, term: 1, prevCrc: seedCrc }, configurationOf(voters));
    const stack = new ConfigurationStack(0, configurationOf([1]));
    stack.push(at(5, [1, 2]));
    stack.push(at(9, [1, 2, 3]));
    expect(stack.current.voters).toEqual([1, 2, 3]);
    expect(stack.at(8).voters).toEqual([1, 2]);
    expect(stack.at(4).voters).toEqual([1]);
    expect(stack.truncateFrom(10)).toBe(false);
    expect(stack.truncateFrom(9)).toBe(true);
    expect(stack.current.voters).toEqual([1, 2]);
    stack.compactTo(5);
    expect(stack.truncateFrom(6)).toBe(false);
    expect(stack.current.voters).toEqual([1, 2]);
    expect(stack.currentIndex).toBe(5);
  });
});

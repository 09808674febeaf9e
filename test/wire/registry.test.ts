/** What the registry keeps under its keys: it reads back as it was written, and bytes that are none are refused. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { packControl } from "../../src/wire/control-codec.ts";
import {
  decodeEntry,
  decodeIds,
  decodeSystemSeed,
  encodeEntry,
  encodeIds,
  encodeSystemSeed,
  groupIdMax,
  groupKey,
  type IdRun,
  nextId,
  type RegistryEntry,
  wasGiven,
  withId,
} from "../../src/wire/registry.ts";
import { holds } from "./property.ts";

const nodeId = fc.integer({ min: 1, max: 0xffff_fffe });
const incarnation = fc.string({ minLength: 1, maxLength: 40 });
const member = fc.record(
  { id: nodeId, incarnation, since: fc.nat(), aboveTerm: fc.nat() },
  { requiredKeys: ["id", "incarnation", "since"] },
);
const entry: fc.Arbitrary<RegistryEntry> = fc.record(
  {
    id: fc.integer({ min: 1, max: groupIdMax }),
    name: fc.constantFrom("a", "orders-2", "x.y_z"),
    machine: fc.constantFrom("kv", "null"),
    applyVersion: fc.integer({ min: 1, max: 9 }),
    logBytesMax: fc.nat(),
    replicas: fc.integer({ min: 1, max: 9 }),
    members: fc.array(member, { minLength: 1, maxLength: 9 }),
    leaving: fc.array(member, { maxLength: 9 }),
    founders: fc.array(fc.record({ id: nodeId, incarnation }), { minLength: 1, maxLength: 9 }),
    former: fc.array(fc.record({ id: nodeId, term: fc.nat() }), { minLength: 1, maxLength: 9 }),
    lingering: fc.array(fc.record({ id: nodeId, left: fc.nat() }), { minLength: 1, maxLength: 9 }),
    request: incarnation,
    version: fc.integer({ min: 1, max: 1e9 }),
  },
  {
    requiredKeys: [
      "id",
      "machine",
      "applyVersion",
      "replicas",
      "members",
      "leaving",
      "founders",
      "version",
    ],
  },
);

describe("an entry", () => {
  test("reads back as it was written", () => {
    holds(300, entry, (value) => {
      expect(decodeEntry(encodeEntry(value))).toEqual(value);
    });
  });

  test("is refused where it is none, and harms nobody", () => {
    holds(300, fc.tuple(entry, fc.nat(), fc.nat(255)), ([value, at, byte]) => {
      const bytes = encodeEntry(value);
      bytes[at % bytes.byteLength] = byte;
      decodeEntry(bytes);
      expect(decodeEntry(bytes.subarray(0, at % bytes.byteLength))).toBeUndefined();
    });
    holds(300, fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect(decodeEntry(bytes)).toBeUndefined();
    });
  });

  test("may have more in it, from a newer build", () => {
    const value = { ...fc.sample(entry, { seed: 1, numRuns: 1 })[0]!, colour: "blue" };
    expect(decodeEntry(packControl(value))).toBeDefined();
  });

  test("lies under a key that sorts as its id does", () => {
    const keys = [1, 9, 10, 99, 4_000, groupIdMax].map((id) => groupKey(id));
    expect(keys.toSorted(Buffer.compare)).toEqual(keys);
  });
});

describe("ids that were given", () => {
  test("are the same set as one by one, in the fewest runs", () => {
    const ids = fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 80 });
    holds(300, ids, (given) => {
      let runs: readonly IdRun[] = [];
      for (const id of given) runs = withId(runs, id);
      const set = new Set(given);
      for (let id = 1; id <= 61; id++) expect(wasGiven(runs, id)).toBe(set.has(id));
      expect(decodeIds(encodeIds(runs))).toEqual([...runs]);
    });
  });

  test("are followed by the next one above them all, and at the end by what was left out", () => {
    expect(nextId([])).toBe(1);
    expect(nextId([[1, 4]])).toBe(5);
    expect(nextId([[3, 3]])).toBe(4);
    expect(
      nextId([
        [1, 4],
        [9, groupIdMax],
      ]),
    ).toBe(5);
    expect(nextId([[2, groupIdMax]])).toBe(1);
    expect(nextId([[1, groupIdMax]])).toBeUndefined();
  });

  test.each([
    [[[2, 1]]],
    [[[0, 1]]],
    [
      [
        [1, 2],
        [2, 4],
      ],
    ],
    [
      [
        [1, 2],
        [3, 4],
      ],
    ],
    [
      [
        [5, 6],
        [1, 2],
      ],
    ],
    [[[1, 2 ** 32]]],
    [[[1]]],
    [["1"]],
  ])("are no runs: %j", (runs) => {
    expect(decodeIds(packControl({ runs }))).toBeUndefined();
  });
});

test("the seed of system reads back, and is bounded", () => {
  const seed = { clusterId: "0123456789abcdef0123456789abcdef", configuration: new Uint8Array(9) };
  expect(decodeSystemSeed(encodeSystemSeed(seed))).toEqual(seed);
  expect(decodeSystemSeed(new Uint8Array(0))).toBeUndefined();
  expect(decodeSystemSeed(new Uint8Array(100_000))).toBeUndefined();
});

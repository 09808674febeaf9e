/** Which group a key is in: the same everywhere, for good, and evenly. */
import { expect, test } from "bun:test";
import { groupOfKey } from "../../src/client/index.ts";

test("the group of a key never changes: other programs rely on it", () => {
  // zlib.crc32(b"user/1") in Python, hash/crc32 in Go: 0xcbf43926 is the check value of CRC-32.
  expect(groupOfKey("123456789", 2 ** 32)).toBe(0xcbf4_3926 + 1);
  expect(groupOfKey(new TextEncoder().encode("123456789"), 16)).toBe((0xcbf4_3926 % 16) + 1);
  expect(groupOfKey("123456789", [7, 9, 12])).toBe([7, 9, 12][0xcbf4_3926 % 3]!);
});

test("keys of any shape are spread evenly", () => {
  for (const groups of [2, 3, 16, 48, 1_000]) {
    for (const keyOf of [
      (i: number) => `user/${i}`,
      (i: number) => String(i).padStart(12, "0"),
      (i: number) => new Uint8Array([i >> 16, i >> 8, i]),
    ]) {
      const counts = new Float64Array(groups + 1);
      const keys = groups * 200;
      for (let i = 0; i < keys; i++) counts[groupOfKey(keyOf(i), groups)]!++;
      expect(counts[0]).toBe(0);
      const most = Math.max(...counts);
      expect({ groups, most: most < 200 * 1.6 }).toEqual({ groups, most: true });
    }
  }
});

test("no group is refused", () => {
  for (const none of [0, -1, 0.5, [] as number[]]) {
    expect(() => groupOfKey("key", none)).toThrow("groups must be");
  }
});

import { describe, expect, test } from "bun:test";
import { hashKey, Memtable } from "../../src/machine/memtable.ts";
import { Random } from "../sim/random.ts";

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function put(table: Memtable, key: Uint8Array, value: Uint8Array, revision: number): void {
  // At an odd offset within other bytes, as in a batch.
  const bytes = new Uint8Array(3 + key.byteLength + value.byteLength + 5).fill(0xaa);
  bytes.set(key, 3);
  bytes.set(value, 3 + key.byteLength);
  const valueAt = 3 + key.byteLength;
  table.put(bytes, view(bytes), 3, key.byteLength, valueAt, value.byteLength, revision);
}

function remove(table: Memtable, key: Uint8Array, revision: number): void {
  table.remove(key, view(key), 0, key.byteLength, revision);
}

function keyOf(table: Memtable, entry: number): Uint8Array {
  const at = table.keyOffset(entry);
  return table.keyBytes(entry).slice(at, at + table.keyLength(entry));
}

function valueOf(table: Memtable, entry: number): Uint8Array {
  const at = table.valueOffset(entry);
  return table.valueBytes(entry).slice(at, at + table.valueLength(entry));
}

type Model = Map<string, { revision: number; value: Buffer | undefined }>;

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function randomBytes(random: Random, length: number, alphabet: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.below(alphabet));
}

function check(table: Memtable, model: Model): void {
  expect(table.count).toBe(model.size);
  for (const [key, { revision, value }] of model) {
    const bytes = Buffer.from(key, "hex");
    const entry = table.find(view(bytes), 0, bytes.byteLength);
    if (entry === 0) throw new Error(`key ${key} is lost`);
    if (table.revision(entry) !== revision) throw new Error(`key ${key} has a wrong revision`);
    if (table.isDeleted(entry) !== (value === undefined)) throw new Error(`key ${key} deleted?`);
    if (!valueOf(table, entry).every((byte, i) => value?.[i] === byte)) {
      throw new Error(`key ${key} has a wrong value`);
    }
    if (table.valueLength(entry) !== (value?.byteLength ?? 0)) throw new Error(`length of ${key}`);
  }
}

function checkOrder(table: Memtable, model: Model, random: Random): void {
  const sorted = [...model.keys()].sort();
  const walked: string[] = [];
  for (const cursor = table.runs.cursor(); cursor.entry !== 0; cursor.advance()) {
    walked.push(hex(keyOf(table, cursor.entry)));
  }
  expect(walked).toEqual(sorted);
  for (let i = 0; i < 20; i++) {
    const from = i % 2 === 0 ? random.pick(sorted) : hex(randomBytes(random, 2, 256));
    const exclusive = random.chance(0.5);
    const cursor = table.runs.cursor(Buffer.from(from, "hex"), exclusive);
    const expected = sorted.find((key) => (exclusive ? key > from : key >= from));
    expect(cursor.entry === 0 ? undefined : hex(keyOf(table, cursor.entry))).toEqual(expected);
  }
}

describe("memtable", () => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    test(`agrees with a map through growth, overwrites and deletes (seed ${seed})`, () => {
      const random = new Random(seed);
      const table = new Memtable();
      // Few letters give long shared beginnings and keys that begin others.
      const alphabet = random.pick([2, 4, 256]);
      const prefix = randomBytes(random, random.pick([0, 3, 40]), 256);
      for (let generation = 0; generation < 3; generation++) {
        const model: Model = new Map();
        const operations = random.pick([50, 5_000, 30_000]);
        for (let i = 1; i <= operations; i++) {
          const rest = randomBytes(random, random.between(1, 14), alphabet);
          const key = Buffer.concat([prefix, rest]);
          if (random.chance(0.1)) {
            remove(table, key, i);
            model.set(hex(key), { revision: i, value: undefined });
          } else {
            const length = random.chance(0.02) ? random.below(3_000) : random.below(40);
            const value = Buffer.from(randomBytes(random, length, 256));
            put(table, key, value, i);
            model.set(hex(key), { revision: i, value });
          }
          if (random.chance(0.001)) table.runs.cursor();
          if (random.chance(0.01)) table.runs.sortSome();
        }
        check(table, model);
        checkOrder(table, model, random);
        const absent = Buffer.concat([prefix, randomBytes(random, 20, 256)]);
        expect(table.find(view(absent), 0, absent.byteLength)).toBe(0);
        table.clear(random.chance(0.5));
        expect(table.count).toBe(0);
        expect(table.runs.cursor().entry).toBe(0);
        expect(table.find(view(absent), 0, absent.byteLength)).toBe(0);
      }
    });
  }

  test("keys whose hashes are equal stay apart, while the table grows too", () => {
    // Murmur3's block step can be inverted, so that two words lead from one state to another: 2^k keys of k pairs, all of one hash.
    const table = new Memtable();
    const model: Model = new Map();
    const keys = collidingKeys(12);
    for (const [i, key] of keys.entries()) {
      put(table, key, Uint8Array.of(i & 255, i >>> 8), i + 1);
      model.set(hex(key), { revision: i + 1, value: Buffer.of(i & 255, i >>> 8) });
    }
    expect(model.size).toBe(4_096);
    expect(new Set(keys.map((key) => hashKey(view(key), 0, key.byteLength))).size).toBe(1);
    check(table, model);
  });

  test("a value of the largest size, and one that outgrows its room again and again", () => {
    const table = new Memtable();
    const key = Buffer.from("key");
    const other = Buffer.from("other");
    put(table, other, Buffer.from("o"), 1);
    for (let length = 1, i = 2; length <= 1 << 20; length *= 2, i++) {
      const value = Buffer.alloc(length, i);
      put(table, key, value, i);
      const entry = table.find(view(key), 0, key.byteLength);
      expect(Buffer.compare(valueOf(table, entry), value)).toBe(0);
      expect(table.revision(entry)).toBe(i);
    }
    expect(table.count).toBe(2);
    const before = table.bytes;
    put(table, key, Buffer.alloc(1 << 20, 7), 99);
    expect(table.bytes).toBe(before);
    check(
      table,
      new Map([
        [hex(other), { revision: 1, value: Buffer.from("o") }],
        [hex(key), { revision: 99, value: Buffer.alloc(1 << 20, 7) }],
      ]),
    );
  });

  test("an entry that no chunk can hold is refused, not mangled", () => {
    const bytes = Buffer.alloc(5_000_000);
    expect(() => put(new Memtable(), Buffer.from("k"), bytes, 1)).toThrow("entry of");
  });
});

/** 2^pairs keys with equal hashes: for each pair of words there are two that take the state to the same place. */
function collidingKeys(pairs: number): Uint8Array[] {
  let keys: number[][] = [[]];
  for (let pair = 0; pair < pairs; pair++) {
    keys = keys.flatMap((words) => {
      // Two different first words; the second word then makes up for the difference.
      const state = stateAfter(words, 8 * pairs);
      const reached = step(step(state, 1), 2);
      return [
        [...words, 1, 2],
        [...words, 3, wordBetween(step(state, 3), reached)],
      ];
    });
  }
  return keys.map((words) => new Uint8Array(Uint32Array.from(words).buffer));
}

function mixed(word: number): number {
  const first = Math.imul(word, 0xcc9e2d51);
  return Math.imul((first << 15) | (first >>> 17), 0x1b873593);
}

function step(state: number, word: number): number {
  const hash = state ^ mixed(word);
  return (Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64) | 0;
}

function stateAfter(words: readonly number[], length: number): number {
  return words.reduce(step, length);
}

/** The word that takes `from` to `to`. */
function wordBetween(from: number, to: number): number {
  const rotated = Math.imul((to - 0xe6546b64) | 0, inverse(5));
  const hash = (rotated >>> 13) | (rotated << 19);
  const second = Math.imul(hash ^ from, inverse(0x1b873593));
  return Math.imul((second >>> 15) | (second << 17), inverse(0xcc9e2d51)) >>> 0;
}

/** Of an odd number modulo 2^32, by Newton's method. */
function inverse(odd: number): number {
  let guess = odd;
  for (let i = 0; i < 5; i++) guess = Math.imul(guess, 2 - Math.imul(odd, guess));
  return guess;
}

/** Bytes come out of the ring as they went in, whatever the pieces, and its memory grows with what lies in it at once alone. */
import { expect, test } from "bun:test";
import { ByteRing } from "../../../src/machine/http/byte-ring.ts";
import { Random } from "../../sim/random.ts";

test("pieces of all sizes, in and out in turn", () => {
  const seed = Date.now() % 1_000_000;
  const random = new Random(seed);
  const ring = new ByteRing();
  let next = 0;
  let due = 0;
  for (let round = 0; round < 2_000; round++) {
    const piece = new Uint8Array(random.between(0, 5_000));
    for (let at = 0; at < piece.byteLength; at++) piece[at] = next++ % 251;
    ring.push(piece);
    const into = new Uint8Array(Math.min(ring.length, random.between(0, 5_200)));
    ring.take(into);
    const isRight = into.every((byte) => byte === due++ % 251);
    expect({ seed, round, isRight, length: ring.length }).toEqual({
      seed,
      round,
      isRight: true,
      length: next - due,
    });
  }
});

test("no more can be taken than there is, and nothing is left once it is cleared", () => {
  const ring = new ByteRing();
  ring.push(new Uint8Array([1, 2, 3]));
  expect(() => ring.take(new Uint8Array(4))).toThrow("not so much");
  ring.clear();
  expect(ring.length).toBe(0);
  ring.push(new Uint8Array([4]));
  const into = new Uint8Array(1);
  ring.take(into);
  expect(into).toEqual(new Uint8Array([4]));
});

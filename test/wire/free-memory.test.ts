/** Memory is given back where it is nobody else's, and only there. */
import { expect, test } from "bun:test";
import { freedBytesMin, freeMemory } from "../../src/wire/free-memory.ts";

test("what has memory of its own is gone at once; small, shared and partial memory is left alone", () => {
  const own = new Uint8Array(freedBytesMin);
  freeMemory(own);
  expect([own.byteLength, own.buffer.byteLength]).toEqual([0, 0]);
  // Again, or an empty one.
  freeMemory(own);
  freeMemory(new Uint8Array(0));

  const small = new Uint8Array(freedBytesMin - 1);
  freeMemory(small);
  expect(small.byteLength).toBe(freedBytesMin - 1);
  const whole = new Uint8Array(3 * freedBytesMin);
  freeMemory(whole.subarray(0, freedBytesMin));
  freeMemory(whole.subarray(1));
  expect(whole.byteLength).toBe(3 * freedBytesMin);
  const shared = new Uint8Array(new SharedArrayBuffer(freedBytesMin));
  freeMemory(shared);
  expect(shared.byteLength).toBe(freedBytesMin);
});

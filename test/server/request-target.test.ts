import { expect, test } from "bun:test";
import fc from "fast-check";
import { decodeEscapes, encodeEscapes, splitTarget } from "../../src/server/request-target.ts";

test("bytes survive escaping, all 256 of them", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const escaped = encodeEscapes(bytes);
      expect(escaped).toMatch(/^[A-Za-z0-9_~%-]*$/);
      for (const plusIsSpace of [false, true]) {
        expect(decodeEscapes(escaped, plusIsSpace)).toEqual(new Uint8Array(bytes));
      }
    }),
  );
});

test("broken escapes are refused, whatever they look like", () => {
  for (const text of ["%", "%4", "a%zz", "%f", "%%41", "%4%31"]) {
    expect(decodeEscapes(text, false)).toBeUndefined();
  }
});

test("a plus sign is a space in a query only", () => {
  expect(decodeEscapes("a+b", true)).toEqual(new TextEncoder().encode("a b"));
  expect(decodeEscapes("a+b", false)).toEqual(new TextEncoder().encode("a+b"));
});

test("a target splits into its escaped parts", () => {
  const target = splitTarget("http://127.0.0.1:9090/v1/kv/a%2Fb?x=1&y=&z&&w=a=b#end");
  expect(target?.path).toBe("/v1/kv/a%2Fb");
  expect(Object.fromEntries(target!.parameters)).toEqual({ x: "1", y: "", z: "", w: "a=b" });
  expect(splitTarget("http://h")?.path).toBe("/");
  expect(splitTarget("http://h/p?x=1&x=2")).toBeUndefined();
});

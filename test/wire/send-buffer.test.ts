/** The send buffer against a plain list of bytes, and its memory. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { crc32 } from "node:zlib";
import { frameHeaderBytes } from "../../src/wire/frame.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { concat, drain, framesOf } from "./messages.ts";
import { holds } from "./property.ts";

type Step =
  | {
      readonly kind: "frame";
      readonly fields: number;
      readonly parts: readonly Part[];
      readonly keep: boolean;
    }
  | { readonly kind: "take"; readonly most: number };
interface Part {
  readonly kind: "append" | "attach" | "reserve";
  readonly length: number;
}

const part: fc.Arbitrary<Part> = fc.record({
  kind: fc.constantFrom("append" as const, "attach" as const, "reserve" as const),
  length: fc.oneof(fc.nat(50), fc.nat(9_000)),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant("frame" as const),
    fields: fc.nat(40),
    parts: fc.array(part, { maxLength: 6 }),
    keep: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("take" as const), most: fc.oneof(fc.nat(40), fc.nat(20_000)) }),
);

test("what goes in comes out, in order, whatever is taken meanwhile", () => {
  let seed = 1;
  const fresh = (length: number): Uint8Array => {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++)
      bytes[i] = (seed = (seed * 1_103_515_245 + 12_345) >>> 0) >>> 16;
    return bytes;
  };
  holds(400, fc.array(step, { maxLength: 60 }), (steps) => {
    const out = new SendBuffer(1_000);
    const expected: Uint8Array[] = [];
    const taken: Uint8Array[] = [];
    let pending = 0;
    const take = (most: number): void => {
      const chunk = out.chunk();
      expect(chunk === undefined).toBe(pending === 0);
      if (chunk === undefined) return;
      expect(chunk.byteLength).toBeGreaterThan(0);
      const some = Math.min(most, chunk.byteLength);
      taken.push(chunk.slice(0, some));
      out.consume(some);
      pending -= some;
    };
    for (const one of steps) {
      if (one.kind === "take") {
        take(one.most);
      } else {
        const fields = fresh(one.fields);
        out.begin(7, one.fields);
        const body: Uint8Array[] = [];
        for (const { kind, length } of one.parts) {
          const bytes = fresh(length);
          body.push(bytes);
          if (kind === "append") out.append(bytes);
          else if (kind === "attach") out.attach(bytes);
          else {
            const at = out.reserve(length);
            new Uint8Array(out.view.buffer).set(bytes, at);
          }
          // The socket may take earlier frames while this one is being built.
          take(length);
        }
        out.setFields(0, fields);
        const whole = concat(body);
        expect(out.bodyBytes).toBe(whole.byteLength);
        expect(out.bodyCrc()).toBe(crc32(whole));
        if (one.keep) {
          out.end();
          expected.push(fields, whole);
          pending += frameHeaderBytes + one.fields + whole.byteLength;
        } else {
          out.abandon();
        }
      }
      expect(out.byteLength).toBe(pending);
    }
    taken.push(drain(out));
    const payloads = framesOf(concat(taken)).map((frame) => frame.payload);
    expect(concat(payloads)).toEqual(concat(expected));
  });
});

test("a long body goes out from where it lies", () => {
  const out = new SendBuffer();
  const body = new Uint8Array(100_000).fill(7);
  out.begin(7, 0);
  out.attach(body);
  out.end();
  out.consume(frameHeaderBytes);
  const chunk = out.chunk()!;
  expect(chunk.buffer).toBe(body.buffer);
  expect(chunk.byteLength).toBe(100_000);
  expect(out.capacity).toBeLessThan(10_000);
});

test("a long append is copied: its bytes may change at once", () => {
  const out = new SendBuffer();
  const body = new Uint8Array(100_000).fill(7);
  out.begin(7, 0);
  out.append(body);
  out.end();
  body.fill(8);
  expect(framesOf(drain(out))[0]!.payload.every((byte) => byte === 7)).toBe(true);
});

function frameOf(out: SendBuffer, bytes: number): void {
  out.begin(7, bytes);
  out.end();
}

test("a queue that never drains does not grow without end", () => {
  const out = new SendBuffer();
  for (let i = 0; i < 20_000; i++) {
    frameOf(out, 500);
    if (out.byteLength < 4_000) continue;
    out.consume(516);
  }
  expect(out.byteLength).toBeGreaterThan(0);
  expect(out.capacity).toBeLessThanOrEqual(32 * 1024);
});

test("after a burst the memory goes, but not at once", () => {
  const out = new SendBuffer();
  for (let i = 0; i < 1_000; i++) frameOf(out, 2_000);
  drain(out);
  const burst = out.capacity;
  expect(burst).toBeGreaterThan(2_000_000);
  for (let i = 0; i < 10; i++) {
    frameOf(out, 2_000);
    drain(out);
  }
  expect(out.capacity).toBe(burst);
  for (let i = 0; i < 500; i++) {
    frameOf(out, 2_000);
    drain(out);
  }
  expect(out.capacity).toBeLessThanOrEqual(64 * 1024);
});

test("misuse shows", () => {
  const out = new SendBuffer();
  expect(() => out.end()).toThrow("no frame");
  out.begin(7, 4);
  expect(() => out.begin(7, 4)).toThrow("already");
  expect(out.chunk()).toBeUndefined();
  out.end();
  expect(() => out.consume(1_000)).toThrow("more than there is");
});

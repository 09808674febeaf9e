import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  encodeKvCompareAndDelete,
  encodeKvCompareAndPut,
  encodeKvDelete,
  encodeKvGet,
  encodeKvPut,
  encodeKvRange,
  kvCommandBytes,
  KvCommandReader,
  KvOp,
  KvQuery,
  readKvEntry,
  readKvPage,
  readKvQuery,
  readKvRevision,
  writeKvCommand,
} from "../../src/wire/kv.ts";

const key = fc.uint8Array({ minLength: 1, maxLength: 40 });
const value = fc.uint8Array({ maxLength: 60 });
const revision = fc.maxSafeNat();
const op = fc.constantFrom(...Object.values(KvOp));

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

describe("kv commands", () => {
  test("are read as they were written, in the midst of other bytes", () => {
    fc.assert(
      fc.property(op, key, value, revision, fc.nat(9), (kind, k, v, prev, offset) => {
        const deletes = kind === KvOp.delete || kind === KvOp.compareAndDelete;
        const size = kvCommandBytes(kind, k.byteLength, deletes ? 0 : v.byteLength);
        const bytes = new Uint8Array(offset + size + 3);
        const end = writeKvCommand(
          bytes,
          view(bytes),
          offset,
          kind,
          k,
          deletes ? undefined : v,
          prev,
        );
        expect(end).toBe(offset + size);
        const reader = new KvCommandReader();
        expect(reader.read(view(bytes), offset, size)).toBe(true);
        expect(reader.op).toBe(kind);
        expect(bytes.slice(reader.keyAt, reader.keyAt + reader.keyLength)).toEqual(k);
        const read = bytes.slice(reader.valueAt, reader.valueAt + reader.valueLength);
        expect(read).toEqual(deletes ? new Uint8Array(0) : v);
        expect(reader.prevRevision).toBe(kind >= KvOp.compareAndPut ? prev : 0);
        expect(reader.read(view(bytes), offset, size - 1)).toBe(false);
        expect(reader.read(view(bytes), offset, size + 1)).toBe(false);
      }),
    );
  });

  test("have the bytes of the agreed layout", () => {
    const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
    const k = Uint8Array.of(0x61, 0x62);
    const v = Uint8Array.of(0x78);
    expect(hex(encodeKvPut(k, v))).toBe("01010200" + "01000000" + "6162" + "78");
    expect(hex(encodeKvDelete(k))).toBe("02010200" + "00000000" + "6162");
    expect(hex(encodeKvCompareAndPut(k, v, 2 ** 33 + 5))).toBe(
      "03010200" + "01000000" + "0500000002000000" + "6162" + "78",
    );
    expect(hex(encodeKvCompareAndDelete(k, 0))).toBe(
      "04010200" + "00000000" + "0000000000000000" + "6162",
    );
    expect(hex(encodeKvGet(k))).toBe("40010200" + "6162");
    expect(hex(encodeKvRange({ prefix: k, after: v, limit: 7, keysOnly: true }))).toBe(
      "41010300" + "07000000" + "0200" + "0000" + "0100" + "0000" + "6162" + "78",
    );
  });

  test("no bytes are more than a refusal", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const reader = new KvCommandReader();
        if (reader.read(view(bytes), 0, bytes.byteLength)) {
          expect(reader.valueAt + reader.valueLength).toBe(bytes.byteLength);
          expect(reader.keyLength).toBeGreaterThan(0);
        }
      }),
    );
    const unsafe = encodeKvCompareAndDelete(Uint8Array.of(1), 1);
    unsafe.fill(0xff, 8, 16);
    expect(new KvCommandReader().read(view(unsafe), 0, unsafe.byteLength)).toBe(false);
  });
});

describe("kv queries and answers", () => {
  test("are read as they were written", () => {
    fc.assert(
      fc.property(key, (k) => {
        expect(readKvQuery(encodeKvGet(k))).toEqual({ op: KvQuery.get, key: k });
      }),
    );
    const bound = fc.option(key, { nil: undefined });
    const range = fc.oneof(
      fc.record({ prefix: key, from: fc.constant(undefined), to: fc.constant(undefined) }),
      fc.record({ prefix: fc.constant(undefined), from: bound, to: bound }),
    );
    fc.assert(
      fc.property(range, bound, fc.nat(5_000), fc.boolean(), (by, after, limit, keysOnly) => {
        const query = { ...by, after, limit, keysOnly };
        expect(readKvQuery(encodeKvRange(query))).toEqual({ op: KvQuery.range, range: query });
      }),
    );
  });

  test("no bytes are more than a refusal, and a count that lies allots nothing", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        readKvQuery(bytes);
        readKvPage(bytes);
        readKvEntry(bytes);
        readKvRevision(bytes);
      }),
      { numRuns: 1_000 },
    );
    const page = new Uint8Array(16);
    view(page).setUint32(0, 0xffff_ffff, true);
    expect(readKvPage(page)).toBeUndefined();
    for (const [at, byte] of [
      [0, 66],
      [1, 2],
      [2, 4],
      [3, 1],
      [14, 1],
      [8, 9],
    ] as const) {
      const query = encodeKvRange({ from: Uint8Array.of(1), limit: 1 });
      query[at] = byte;
      expect(readKvQuery(query)).toBeUndefined();
    }
  });
});

/** Batches, sections and results: layouts as documented, crc over everything, bounds. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { crc32 } from "node:zlib";
import {
  batchHeaderBytes,
  batchIntact,
  BatchKind,
  bodyOf,
  lastIndexOf,
  readBatch,
  readSafe,
  sealBatch,
  writeSafe,
} from "../../src/wire/batch.ts";
import {
  plainSection,
  readSectionHeader,
  sealSection,
  sectionHeaderBytes,
  sectionIntact,
  SectionKind,
  wholeSection,
} from "../../src/wire/section.ts";
import { readSectionResults, SectionResults } from "../../src/wire/section-results.ts";
import { concat, safeInteger, u32 } from "./messages.ts";
import { holds } from "./property.ts";

const batchHeader = fc.record({
  group: u32,
  kind: fc.constant(BatchKind.commands),
  firstIndex: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 2 ** 52 })),
  count: fc.integer({ min: 1, max: 0xffff_ffff }),
  term: safeInteger,
  timeMs: safeInteger,
  prevCrc: u32,
});

test("u64 as safe integers: all of them, and nothing above", () => {
  const view = new DataView(new ArrayBuffer(8));
  holds(500, fc.maxSafeNat(), (value) => {
    writeSafe(view, 0, value);
    expect(view.getBigUint64(0, true)).toBe(BigInt(value));
    expect(readSafe(view, 0)).toBe(value);
  });
  view.setBigUint64(0, BigInt(Number.MAX_SAFE_INTEGER), true);
  expect(readSafe(view, 0)).toBe(Number.MAX_SAFE_INTEGER);
  for (const above of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n]) {
    view.setBigUint64(0, above, true);
    expect(readSafe(view, 0)).toBeNaN();
  }
});

test("a sealed batch reads back, at any offset, and is intact", () => {
  holds(300, fc.tuple(batchHeader, fc.uint8Array({ maxLength: 50 }), fc.nat(20)), (value) => {
    const [header, body, offset] = value;
    const batch = sealBatch(header, concat([new Uint8Array(batchHeaderBytes), body]));
    const bytes = concat([new Uint8Array(offset), batch.bytes, new Uint8Array(offset)]);
    const read = readBatch(bytes, offset)!;
    expect(read).toEqual(batch);
    expect(batchIntact(read)).toBe(true);
    expect(bodyOf(read)).toEqual(body);
    expect(lastIndexOf(read)).toBe(header.firstIndex + header.count - 1);
  });
});

test("the crc of a batch covers header and body as documented", () => {
  const header = {
    group: 1,
    kind: BatchKind.noop,
    firstIndex: 5,
    count: 1,
    term: 2,
    timeMs: 3,
    prevCrc: 4,
  };
  const { bytes, crc } = sealBatch(header, new Uint8Array(batchHeaderBytes + 7).fill(9));
  expect(crc).toBe(crc32(concat([bytes.subarray(0, 44), bytes.subarray(48)])));
  expect(new DataView(bytes.buffer).getUint32(44, true)).toBe(crc);
});

test("a batch that is not well formed is refused", () => {
  const header = {
    group: 1,
    kind: BatchKind.commands,
    firstIndex: 5,
    count: 3,
    term: 2,
    timeMs: 3,
    prevCrc: 4,
  };
  const { bytes } = sealBatch(header, new Uint8Array(batchHeaderBytes + 7));
  const readWith = (change: (view: DataView) => void) => {
    const copy = bytes.slice();
    change(new DataView(copy.buffer));
    return readBatch(copy, 0);
  };
  expect(readWith(() => {})).toBeDefined();
  const changes: ((view: DataView) => void)[] = [
    (view) => view.setUint8(0, 2),
    (view) => view.setUint8(1, 3),
    (view) => view.setUint8(1, BatchKind.noop),
    (view) => view.setUint8(1, BatchKind.configuration),
    (view) => view.setUint16(2, 1, true),
    (view) => writeSafe(view, 8, 0),
    (view) => view.setUint32(12, 0x20_0000, true),
    (view) => writeSafe(view, 8, Number.MAX_SAFE_INTEGER),
    (view) => view.setUint32(20, 0x20_0000, true),
    (view) => view.setUint32(28, 0x20_0000, true),
    (view) => view.setUint32(32, 0, true),
    (view) => view.setUint32(36, 8, true),
    (view) => view.setUint32(36, 0xffff_ffff, true),
  ];
  for (const change of changes) expect(readWith(change)).toBeUndefined();
  for (let end = 0; end < bytes.byteLength; end++) {
    expect(readBatch(bytes.subarray(0, end), 0)).toBeUndefined();
  }
  expect(readBatch(bytes, bytes.byteLength + 5)).toBeUndefined();
});

test("a section reads back, and every bit of it counts", () => {
  holds(200, fc.tuple(safeInteger, safeInteger, safeInteger, fc.nat(30)), (value) => {
    const [session, firstSeq, doneUpTo, offset] = value;
    const bytes = new Uint8Array(offset + sectionHeaderBytes + 12);
    const section = {
      kind: SectionKind.session,
      count: 3,
      bodyBytes: 12,
      session,
      firstSeq,
      doneUpTo,
    };
    sealSection(bytes, offset, section);
    const header = readSectionHeader(bytes, offset)!;
    expect(header).toEqual({ ...section, crc: header.crc });
    expect(sectionIntact(bytes, offset, header)).toBe(true);
  });
  const bytes = plainSection([new Uint8Array(3), new Uint8Array(4)]);
  expect(wholeSection(bytes)).toBe(true);
  for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
    const copy = bytes.slice();
    copy[bit >> 3]! ^= 1 << (bit & 7);
    expect(wholeSection(copy)).toBe(false);
  }
  expect(wholeSection(concat([bytes, new Uint8Array(1)]))).toBe(false);
});

test("a section cannot claim more commands than its bytes can hold", () => {
  const bytes = new Uint8Array(sectionHeaderBytes + 12);
  const claim = (count: number) => {
    const section = {
      kind: SectionKind.plain,
      count,
      bodyBytes: 12,
      session: 0,
      firstSeq: 0,
      doneUpTo: 0,
    };
    sealSection(bytes, 0, section);
    return wholeSection(bytes);
  };
  expect(claim(0)).toBe(false);
  expect(claim(3)).toBe(true);
  expect(claim(4)).toBe(false);
  expect(claim(0xffff_ffff)).toBe(false);
});

test("results come back; what is not well formed does not", () => {
  const results = new SectionResults();
  expect(readSectionResults(results.view(), 5)).toEqual([]);
  const many = Array.from({ length: 300 }, (_, i) => ({
    position: i * 3,
    code: i,
    bytes: new Uint8Array(i % 7).fill(i),
  }));
  for (const { position, code, bytes } of many) results.add(position, code, bytes);
  expect(readSectionResults(results.view(), 898)).toEqual(many);
  expect(readSectionResults(results.view(), 897)).toBeUndefined();
  expect(readSectionResults(results.view().subarray(0, -1), 898)).toBeUndefined();
  results.reset();
  results.add(1, 0, undefined);
  results.add(1, 0, undefined);
  expect(readSectionResults(results.view(), 5)).toBeUndefined();
  holds(500, fc.uint8Array({ maxLength: 80 }), (bytes) => void readSectionResults(bytes, 100));
});

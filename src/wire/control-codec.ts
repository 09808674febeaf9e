/**
 * Msgpack for what is rare and may grow: hello, status, administration. The bytes are walked before msgpackr sees them, so that none
 * can make it allot more than they carry, nest deeply, or reach its extension types. Pure.
 */
import { Packr } from "msgpackr";

const packr = new Packr({
  useRecords: false,
  encodeUndefinedAsNil: true,
  // Only what fits one exactly gets that far: a BigInt would pass where a number is expected, up to the first sum or JSON.
  int64AsType: "number",
});

/** Nested arrays and maps. */
const depthMax = 16;

export function packControl(value: unknown): Uint8Array {
  return packr.pack(value);
}

/** The value of `bytes`; undefined where they are not exactly one plain msgpack value. Its shape is for the caller to check. */
export function unpackControl(bytes: Uint8Array): unknown {
  if (skipValue(bytes, 0, 0) !== bytes.byteLength) return undefined;
  try {
    return packr.unpack(bytes);
  } catch {
    // Text that is not UTF-8, a map key that cannot be one.
    return undefined;
  }
}

/** A plain map, as msgpackr gives it. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype
  );
}

const malformed = -1;

/**
 * Walks one value of plain msgpack (nil, boolean, number, text, bytes, array, map with text keys); returns where it ends, or
 * `malformed`. Every element costs at least one byte, so the walk ends with the bytes, whatever a count claims.
 */
function skipValue(bytes: Uint8Array, start: number, depth: number): number {
  if (start >= bytes.byteLength) return malformed;
  const head = bytes[start]!;
  const at = start + 1;
  if (head < 0x80 || head >= 0xe0) return at;
  if (head < 0x90) return skipMap(bytes, at, head & 0x0f, depth);
  if (head < 0xa0) return skipArray(bytes, at, head & 0x0f, depth);
  if (head < 0xc0) return skipBytes(bytes, at, head & 0x1f);
  switch (head) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return at;
    case 0xcc: // u8
    case 0xd0: // i8
      return skipBytes(bytes, at, 1);
    case 0xcd: // u16
    case 0xd1: // i16
      return skipBytes(bytes, at, 2);
    case 0xca: // f32
    case 0xce: // u32
    case 0xd2: // i32
      return skipBytes(bytes, at, 4);
    case 0xcb: // f64
      return skipBytes(bytes, at, 8);
    case 0xcf: // u64
    case 0xd3: // i64
      return isSafeAt(bytes, at, head === 0xd3) ? at + 8 : malformed;
    case 0xc4: // bin 8, 16, 32
    case 0xd9: // str 8, 16, 32
      return skipBytes(bytes, at + 1, lengthAt(bytes, at, 1));
    case 0xc5:
    case 0xda:
      return skipBytes(bytes, at + 2, lengthAt(bytes, at, 2));
    case 0xc6:
    case 0xdb:
      return skipBytes(bytes, at + 4, lengthAt(bytes, at, 4));
    case 0xdc:
      return skipArray(bytes, at + 2, lengthAt(bytes, at, 2), depth);
    case 0xdd:
      return skipArray(bytes, at + 4, lengthAt(bytes, at, 4), depth);
    case 0xde:
      return skipMap(bytes, at + 2, lengthAt(bytes, at, 2), depth);
    case 0xdf:
      return skipMap(bytes, at + 4, lengthAt(bytes, at, 4), depth);
    default: // extensions
      return malformed;
  }
}

/** The big-endian length of `size` bytes; too large to pass where they are missing. */
function lengthAt(bytes: Uint8Array, at: number, size: number): number {
  if (at + size > bytes.byteLength) return Number.MAX_SAFE_INTEGER;
  let length = 0;
  for (let i = at; i < at + size; i++) length = length * 256 + bytes[i]!;
  return length;
}

/** Whether eight bytes are there, and are a safe integer. */
function isSafeAt(bytes: Uint8Array, at: number, signed: boolean): boolean {
  if (at + 8 > bytes.byteLength) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  const value = signed ? view.getBigInt64(0) : view.getBigUint64(0);
  return Number.isSafeInteger(Number(value));
}

function skipBytes(bytes: Uint8Array, at: number, length: number): number {
  return length <= bytes.byteLength - at ? at + length : malformed;
}

function skipArray(bytes: Uint8Array, start: number, count: number, depth: number): number {
  if (depth === depthMax) return malformed;
  let at = start;
  for (let i = 0; i < count && at !== malformed; i++) at = skipValue(bytes, at, depth + 1);
  return at;
}

function skipMap(bytes: Uint8Array, start: number, count: number, depth: number): number {
  if (depth === depthMax) return malformed;
  let at = start;
  for (let i = 0; i < count && at !== malformed; i++) {
    const key = bytes[at]!;
    const isText = (key >= 0xa0 && key < 0xc0) || (key >= 0xd9 && key <= 0xdb);
    at = isText ? skipValue(bytes, at, depth + 1) : malformed;
    if (at !== malformed) at = skipValue(bytes, at, depth + 1);
  }
  return at;
}

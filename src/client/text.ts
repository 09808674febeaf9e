/** Lays out keys and values, bytes or text, without an object per call. */

/** Room that is enough for `value` in UTF-8: a UTF-16 unit takes at most three bytes. */
export function roomFor(value: Uint8Array | string): number {
  return typeof value === "string" ? value.length * 3 : value.byteLength;
}

/** Below this a loop is quicker than the call into native code. */
const loopCharsMax = 64;

/** Puts `value` at `offset` and returns its length. There must be room. */
export function put(bytes: Buffer, offset: number, value: Uint8Array | string): number {
  if (typeof value !== "string") {
    bytes.set(value, offset);
    return value.byteLength;
  }
  const length = value.length;
  if (length > loopCharsMax) return bytes.write(value, offset, "utf8");
  for (let i = 0; i < length; i++) {
    const unit = value.charCodeAt(i);
    if (unit > 0x7f) return bytes.write(value, offset, "utf8");
    bytes[offset + i] = unit;
  }
  return length;
}

const encoder = new TextEncoder();

/** For what is rare. */
export function keyBytes(key: Uint8Array | string): Uint8Array {
  return typeof key === "string" ? encoder.encode(key) : key;
}

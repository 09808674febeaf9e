/**
 * The frame: what travels on every binary connection. A header of 16 bytes, then the payload: first the fields of the message,
 * then, for some, a body (batches, a section, answers). Pure.
 *
 *     0 magic u16 | 2 version u8 | 3 type u8 | 4 fieldsBytes u32 | 8 length u32 | 12 crc u32 | 16 payload
 *
 * Little-endian. `length` counts the payload. The crc covers header bytes 0..12 and the first `fieldsBytes` bytes of the payload;
 * a body has a crc of its own, in its batch or section header or among the fields, so that every byte is checked exactly once.
 */
import { crc32 } from "node:zlib";

export const frameMagic = 0xba36;
export const frameVersion = 1;
export const frameHeaderBytes = 16;
/** Header bytes that the crc covers: all before itself. */
const crcOffset = 12;

/** Why bytes are not a frame. After any of these a stream has no next frame: the connection is closed. */
export type FrameError = "bad magic" | "bad version" | "too long" | "bad fields" | "bad crc";

/** Writes the header at `offset`, whose fields already lie behind it. */
export function writeFrameHeader(
  bytes: Uint8Array,
  view: DataView,
  offset: number,
  type: number,
  fieldsBytes: number,
  length: number,
): void {
  view.setUint16(offset, frameMagic, true);
  view.setUint8(offset + 2, frameVersion);
  view.setUint8(offset + 3, type);
  view.setUint32(offset + 4, fieldsBytes, true);
  view.setUint32(offset + 8, length, true);
  const crc = frameCrc(bytes, offset, bytes, offset + frameHeaderBytes, fieldsBytes);
  view.setUint32(offset + crcOffset, crc, true);
}

/** Checks everything in the header at `offset` but its crc; undefined when the frame may be received. */
export function checkFrameHeader(
  view: DataView,
  offset: number,
  frameBytesMax: number,
): FrameError | undefined {
  if (view.getUint16(offset, true) !== frameMagic) return "bad magic";
  if (view.getUint8(offset + 2) !== frameVersion) return "bad version";
  const length = view.getUint32(offset + 8, true);
  if (length > frameBytesMax - frameHeaderBytes) return "too long";
  if (view.getUint32(offset + 4, true) > length) return "bad fields";
  return undefined;
}

/** Crc over the header at `offset` of `header` and `fieldsBytes` bytes at `fieldsOffset` of `fields`. */
export function frameCrc(
  header: Uint8Array,
  offset: number,
  fields: Uint8Array,
  fieldsOffset: number,
  fieldsBytes: number,
): number {
  const seed = crcOfFew(header, offset, offset + crcOffset);
  if (fieldsBytes === 0) return seed;
  return crc32(fields.subarray(fieldsOffset, fieldsOffset + fieldsBytes), seed);
}

const table = new Int32Array(256);
for (let n = 0; n < 256; n++) {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = (c & 1) === 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  table[n] = c;
}

/** The same crc32 for a few bytes: for these a call into zlib costs five times the work. */
function crcOfFew(bytes: Uint8Array, start: number, end: number): number {
  let c = -1;
  for (let i = start; i < end; i++) c = table[(c ^ bytes[i]!) & 0xff]! ^ (c >>> 8);
  return ~c >>> 0;
}

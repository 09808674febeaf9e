/**
 * Bytes that say themselves whether they are what was written: of what is saved as a whole, in one value of a database, whose pages have no checksums.
 *
 *     0 format u32 | 4 crc of what follows u32 | 8 …                  little-endian
 *
 * Pure.
 */
import { crc32 } from "node:zlib";

export const sealedFormat = 2;
export const sealBytes = 8;

/** Fills in the first bytes, which were left free. */
export function seal(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint32(0, sealedFormat, true);
  view.setUint32(4, crc32(bytes.subarray(sealBytes)), true);
}

/** Why they cannot be used. None at all is nothing that was saved. */
export function sealBroken(bytes: Uint8Array): string | undefined {
  if (bytes.byteLength === 0) return undefined;
  if (bytes.byteLength < sealBytes) return "they end too early";
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const format = view.getUint32(0, true);
  if (format !== sealedFormat) return `unknown format ${format}`;
  const isIntact = view.getUint32(4, true) === crc32(bytes.subarray(sealBytes));
  return isIntact ? undefined : "they fail their check";
}

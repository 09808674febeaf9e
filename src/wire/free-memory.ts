/**
 * Gives memory back at once instead of leaving it to the garbage collector. What a socket brings comes in memory of its own, up to 512 KiB each time: of a stream of
 * gigabytes tens of megabytes would lie about until the collector runs, and what it finds in use then stays until it looks through everything. Pure.
 */

/** For less it is not worth it. */
export const freedBytesMin = 4 * 1_024;

/** Nobody may look at the bytes any more: they are gone. What has other bytes beside it in its memory is left alone. */
export function freeMemory(bytes: Uint8Array): void {
  const { buffer, byteLength } = bytes;
  const isOwn = byteLength >= freedBytesMin && buffer.byteLength === byteLength;
  if (isOwn && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

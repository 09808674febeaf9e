/**
 * Results of the commands of a section that are not the plain ok [32]: repeated (position u32, code u32, length u32, bytes), by rising
 * position. An all-ok section has none: zero bytes. Pure.
 */

export interface CommandResult {
  /** Position of the command within its section. */
  readonly position: number;
  readonly code: number;
  readonly bytes: Uint8Array;
}

/** What one result takes besides its bytes. */
export const resultHeadBytes = 12;
const none = new Uint8Array(0);
const noneView = new DataView(none.buffer);
const bytesAtFirst = 256;

/** Grows as needed; reused from section to section with `reset`. */
export class SectionResults {
  #bytes = none;
  #view = noneView;
  #length = 0;

  get byteLength(): number {
    return this.#length;
  }

  reset(): void {
    this.#length = 0;
  }

  add(position: number, code: number, bytes: Uint8Array | undefined): void {
    const size = bytes === undefined ? 0 : bytes.byteLength;
    const end = this.#length + resultHeadBytes + size;
    if (end > this.#bytes.byteLength) this.#grow(end);
    this.#view.setUint32(this.#length, position, true);
    this.#view.setUint32(this.#length + 4, code, true);
    this.#view.setUint32(this.#length + 8, size, true);
    if (bytes !== undefined) this.#bytes.set(bytes, this.#length + resultHeadBytes);
    this.#length = end;
  }

  /** A view, valid until the next `reset` or `add`. */
  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #grow(needed: number): void {
    const bytes = new Uint8Array(Math.max(needed, this.#bytes.byteLength * 2, bytesAtFirst));
    bytes.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }
}

/** Reads results back; undefined where the bytes are not well formed. */
export function readSectionResults(bytes: Uint8Array, count: number): CommandResult[] | undefined {
  const results: CommandResult[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let next = 0;
  while (at < bytes.byteLength) {
    if (bytes.byteLength - at < resultHeadBytes) return undefined;
    const position = view.getUint32(at, true);
    const length = view.getUint32(at + 8, true);
    if (position < next || position >= count) return undefined;
    if (length > bytes.byteLength - at - resultHeadBytes) return undefined;
    const start = at + resultHeadBytes;
    results.push({
      position,
      code: view.getUint32(at + 4, true),
      bytes: length === 0 ? none : bytes.subarray(start, start + length),
    });
    next = position + 1;
    at = start + length;
  }
  return results;
}

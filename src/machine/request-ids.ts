/**
 * Request ids that were used lately, and what came of each: a write that is sent again under the same id is answered, not done again [12]. A function
 * of the log alone, like session-table.ts; an id is kept for a fixed time of the cluster's clock, so they leave in the order in which they came,
 * and all of it is one run of bytes, which is saved as it is.
 *
 *     0 id 3 × u64 | 24 crc u32 | 28 results length u32 | 32 firstIndex u64 | 40 timeMs u64 | 48 results (none where forgotten)
 */
import type { Limits } from "../limits.ts";
import { readSafe, writeSafe } from "../wire/batch.ts";
import type { SectionHeader } from "../wire/section.ts";
import { type BytesReader, type BytesWriter, SavedBytesError } from "./saved-bytes.ts";

export type RequestIdLimits = Pick<
  Limits,
  "requestIdsMax" | "requestIdTtlMs" | "requestIdBytesMax"
>;

/** What came of a request. `results` undefined: forgotten. */
export interface KnownRequest {
  readonly crc: number;
  readonly firstIndex: number;
  /** A view. */
  readonly results: Uint8Array | undefined;
}

type RequestId = Pick<SectionHeader, "session" | "firstSeq" | "doneUpTo">;

const headBytes = 48;
const nothing: Uint8Array = new Uint8Array(0);
const viewOfNothing = new DataView(nothing.buffer);
const forgotten = 0xffff_ffff;

export class RequestIds {
  readonly #limits: RequestIdLimits;
  #bytes = nothing;
  #view = viewOfNothing;
  #start = 0;
  #end = 0;
  /** Where each lies, counted from the first one that there ever was. */
  readonly #places = new Map<string, number>();
  #dropped = 0;
  readonly #resultsDiffer: boolean;

  /** `resultsDiffer`: from node to node, so that nothing may depend on them: they are forgotten rather than let an id be refused. */
  constructor(limits: RequestIdLimits, resultsDiffer = false) {
    this.#limits = limits;
    this.#resultsDiffer = resultsDiffer;
  }

  get count(): number {
    return this.#places.size;
  }

  get byteLength(): number {
    return this.#end - this.#start;
  }

  find(id: RequestId): KnownRequest | undefined {
    const place = this.#places.get(nameOf(id));
    if (place === undefined) return undefined;
    const at = this.#start + place - this.#dropped;
    const length = this.#view.getUint32(at + 28, true);
    return {
      crc: this.#view.getUint32(at + 24, true),
      firstIndex: readSafe(this.#view, at + 32),
      results:
        length === forgotten
          ? undefined
          : this.#bytes.subarray(at + headBytes, at + headBytes + length),
    };
  }

  /** No more of them fit. */
  get full(): boolean {
    const { requestIdBytesMax } = this.#limits;
    if (this.count >= this.#countMax) return true;
    return !this.#resultsDiffer && this.byteLength + headBytes > requestIdBytesMax;
  }

  get #countMax(): number {
    const { requestIdsMax, requestIdBytesMax } = this.#limits;
    return Math.min(requestIdsMax, Math.floor(requestIdBytesMax / headBytes));
  }

  #keeps(bytes: number): boolean {
    const idsToCome = this.#resultsDiffer ? this.#countMax - this.count - 1 : 0;
    const used = this.byteLength + (1 + idsToCome) * headBytes;
    return used + bytes <= this.#limits.requestIdBytesMax;
  }

  /** One that `find` does not know, and there is room. Its results are kept where they fit; undefined: they are not known. */
  add(
    id: RequestId,
    crc: number,
    firstIndex: number,
    timeMs: number,
    results: Uint8Array | undefined,
  ): void {
    const keeps = results !== undefined && this.#keeps(results.byteLength);
    const length = keeps ? results.byteLength : 0;
    this.#places.set(nameOf(id), this.#dropped + this.byteLength);
    this.#makeRoom(headBytes + length);
    const at = this.#end;
    writeSafe(this.#view, at, id.session);
    writeSafe(this.#view, at + 8, id.firstSeq);
    writeSafe(this.#view, at + 16, id.doneUpTo);
    this.#view.setUint32(at + 24, crc, true);
    this.#view.setUint32(at + 28, keeps ? length : forgotten, true);
    writeSafe(this.#view, at + 32, firstIndex);
    writeSafe(this.#view, at + 40, timeMs);
    if (keeps) this.#bytes.set(results, at + headBytes);
    this.#end = at + headBytes + length;
  }

  /** Drops what is too old. */
  sweep(timeMs: number): void {
    while (this.#start < this.#end) {
      const at = this.#start;
      if (timeMs - readSafe(this.#view, at + 40) <= this.#limits.requestIdTtlMs) return;
      this.#places.delete(nameOf(this.#idAt(at)));
      this.#start += this.#sizeAt(at);
      this.#dropped += this.#start - at;
    }
  }

  save(out: BytesWriter): void {
    out.u32(this.byteLength);
    out.bytes(this.#bytes.subarray(this.#start, this.#end));
  }

  load(saved: BytesReader): void {
    this.#hold(saved.bytes(saved.u32()));
    for (let at = 0; at < this.#end; at += this.#sizeAt(at)) {
      const isWhole = at + headBytes <= this.#end && at + this.#sizeAt(at) <= this.#end;
      if (!isWhole) throw new SavedBytesError("a request id is cut off");
      this.#places.set(nameOf(this.#idAt(at)), at);
    }
  }

  clear(): void {
    this.#hold(nothing);
  }

  #hold(bytes: Uint8Array): void {
    this.#places.clear();
    this.#bytes = bytes;
    const { buffer, byteOffset, byteLength } = bytes;
    this.#view = byteLength === 0 ? viewOfNothing : new DataView(buffer, byteOffset, byteLength);
    this.#start = 0;
    this.#end = byteLength;
    this.#dropped = 0;
  }

  #idAt(at: number): RequestId {
    const view = this.#view;
    return {
      session: readSafe(view, at),
      firstSeq: readSafe(view, at + 8),
      doneUpTo: readSafe(view, at + 16),
    };
  }

  #sizeAt(at: number): number {
    const length = this.#view.getUint32(at + 28, true);
    return headBytes + (length === forgotten ? 0 : length);
  }

  #makeRoom(size: number): void {
    const used = this.byteLength;
    if (this.#end + size <= this.#bytes.byteLength) return;
    // Where half of it is free already, what is left is moved to the front.
    const enough = 2 * (used + size) <= this.#bytes.byteLength;
    const bytes = enough ? this.#bytes : new Uint8Array(Math.max(4_096, 2 * (used + size)));
    bytes.set(this.#bytes.subarray(this.#start, this.#end));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#start = 0;
    this.#end = used;
  }
}

function nameOf({ session, firstSeq, doneUpTo }: RequestId): string {
  return `${session} ${firstSeq} ${doneUpTo}`;
}

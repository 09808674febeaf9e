/** Where the newest state of a key may be, in the order in which it is looked for: active memtable, frozen memtable, file [28]. */
import type { KvFile } from "./kv-file.ts";
import { Memtable } from "./memtable.ts";

export class KvLayers {
  readonly file: KvFile;
  #active = new Memtable();
  #frozen: Memtable | undefined;
  /** The other memtable, while nothing is frozen. */
  #spare: Memtable | undefined;

  constructor(file: KvFile) {
    this.file = file;
  }

  get active(): Memtable {
    return this.#active;
  }

  get frozen(): Memtable | undefined {
    return this.#frozen;
  }

  /** Nothing may be frozen already. */
  freeze(): Memtable {
    if (this.#frozen !== undefined) throw new Error("kv: a memtable is frozen already");
    this.#frozen = this.#active;
    this.#active = this.#spare ?? new Memtable();
    this.#spare = undefined;
    return this.#frozen;
  }

  /** The file holds all of the frozen memtable now. */
  dropFrozen(keepMemory: boolean): void {
    const frozen = this.#frozen;
    if (frozen === undefined) throw new Error("kv: nothing is frozen");
    frozen.clear(keepMemory);
    this.#spare = keepMemory ? frozen : undefined;
    this.#frozen = undefined;
  }

  /** Revision of the key at `offset`; 0 where it is absent. */
  revision(bytes: Uint8Array, view: DataView, offset: number, length: number): number {
    let entry = this.#active.find(view, offset, length);
    if (entry !== 0) return this.#active.isDeleted(entry) ? 0 : this.#active.revision(entry);
    if (this.#frozen !== undefined) {
      entry = this.#frozen.find(view, offset, length);
      if (entry !== 0) return this.#frozen.isDeleted(entry) ? 0 : this.#frozen.revision(entry);
    }
    return this.file.revision(bytes.subarray(offset, offset + length));
  }
}

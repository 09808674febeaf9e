/** Where the newest state of a key may be, in the order in which it is looked for: active memtable, frozen memtable, file [28]. */
import type { KvFile } from "./kv-file.ts";
import { Memtable } from "./memtable.ts";

/** Memory of the overlay that is kept for the next transaction. */
const overlayKeptBytesMax = 65_536;

export class KvLayers {
  readonly file: KvFile;
  #active = new Memtable();
  #frozen: Memtable | undefined;
  /** The other memtable, while nothing is frozen. */
  #spare: Memtable | undefined;
  /** Writes of the transaction that is being applied: above all others, seen by reads, not part of the state yet. */
  #overlay: Memtable | undefined;
  /** The other overlay, while there is none. */
  #spareOverlay: Memtable | undefined;
  #tables: readonly Memtable[] = [this.#active];

  constructor(file: KvFile) {
    this.file = file;
  }

  get active(): Memtable {
    return this.#active;
  }

  get frozen(): Memtable | undefined {
    return this.#frozen;
  }

  /** All memtables that reads look into, the newest first. */
  get tables(): readonly Memtable[] {
    return this.#tables;
  }

  /** An empty memtable on top of all others, until `dropOverlay`. */
  openOverlay(): Memtable {
    this.#overlay = this.#spareOverlay ?? new Memtable();
    this.#layersChanged();
    return this.#overlay;
  }

  dropOverlay(): void {
    const overlay = this.#overlay;
    if (overlay === undefined) throw new Error("kv: there is no overlay");
    overlay.clear(overlay.bytes <= overlayKeptBytesMax);
    this.#spareOverlay = overlay;
    this.#overlay = undefined;
    this.#layersChanged();
  }

  /** Nothing may be frozen already. */
  freeze(): Memtable {
    if (this.#frozen !== undefined) throw new Error("kv: a memtable is frozen already");
    this.#frozen = this.#active;
    this.#active = this.#spare ?? new Memtable();
    this.#spare = undefined;
    this.#layersChanged();
    return this.#frozen;
  }

  /** The file holds all of the frozen memtable now. */
  dropFrozen(keepMemory: boolean): void {
    const frozen = this.#frozen;
    if (frozen === undefined) throw new Error("kv: nothing is frozen");
    frozen.clear(keepMemory);
    this.#spare = keepMemory ? frozen : undefined;
    this.#frozen = undefined;
    this.#layersChanged();
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

  /** Value of the key at `offset`, a view for at once; undefined where it is absent. */
  value(bytes: Uint8Array, view: DataView, offset: number, length: number): Uint8Array | undefined {
    for (const table of this.#tables) {
      const entry = table.find(view, offset, length);
      if (entry === 0) continue;
      if (table.isDeleted(entry)) return undefined;
      const valueAt = table.valueOffset(entry);
      return table.valueBytes(entry).subarray(valueAt, valueAt + table.valueLength(entry));
    }
    return this.file.get(bytes.subarray(offset, offset + length))?.value;
  }

  #layersChanged(): void {
    const tables = [this.#overlay, this.#active, this.#frozen];
    this.#tables = tables.filter((table) => table !== undefined);
  }
}

/**
 * Finds the watches that a key concerns: by hash, for each length that a watched prefix has, with the hash carried on from byte to byte. So a
 * thousand watches cost a key about as much as one does, and nothing is made per key [39].
 */

export interface Prefixed {
  readonly prefix: Uint8Array;
  /** Only the key that is the prefix itself. */
  readonly exact: boolean;
}

/** Slots of the filter, a power of two. */
const filterSlots = 16_384;

/** FNV-1a. */
const hashSeed = 0x811c9dc5;
const hashPrime = 0x01000193;

export class PrefixIndex<T extends Prefixed> {
  readonly #byHash = new Map<number, T[]>();
  /** How many hashes fall on a slot: most keys concern nobody, and are done with after a look at it. Made with the first item. */
  #filter: Uint32Array | undefined;
  /** How many have a prefix of that length; the lengths in order. */
  readonly #countOf = new Map<number, number>();
  #lengths: number[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(item: T): void {
    const { length } = item.prefix;
    const hash = hashOf(item.prefix);
    const others = this.#byHash.get(hash);
    if (others === undefined) this.#byHash.set(hash, [item]);
    else others.push(item);
    this.#filter ??= new Uint32Array(filterSlots);
    this.#filter[slotOf(hash)]!++;
    const count = this.#countOf.get(length) ?? 0;
    this.#countOf.set(length, count + 1);
    if (count === 0) this.#sortLengths();
    this.#size++;
  }

  remove(item: T): void {
    const { length } = item.prefix;
    const hash = hashOf(item.prefix);
    const others = this.#byHash.get(hash);
    const at = others === undefined ? -1 : others.indexOf(item);
    if (at < 0) throw new Error("prefix index: it is not there");
    others![at] = others!.at(-1)!;
    others!.pop();
    if (others!.length === 0) this.#byHash.delete(hash);
    this.#filter![slotOf(hash)]!--;
    const count = this.#countOf.get(length)! - 1;
    if (count > 0) this.#countOf.set(length, count);
    else {
      this.#countOf.delete(length);
      this.#sortLengths();
    }
    this.#size--;
  }

  /** Calls `found.matched` for each whose prefix the key has. It must add and remove nothing meanwhile. */
  match(bytes: Uint8Array, keyAt: number, keyLength: number, found: Matched<T>): void {
    const filter = this.#filter;
    if (filter === undefined) return;
    let hash = hashSeed;
    let hashed = 0;
    for (const length of this.#lengths) {
      if (length > keyLength) return;
      for (; hashed < length; hashed++) hash = Math.imul(hash ^ bytes[keyAt + hashed]!, hashPrime);
      if (filter[slotOf(hash)] === 0) continue;
      const items = this.#byHash.get(hash);
      if (items === undefined) continue;
      for (const item of items) {
        if (item.exact && length !== keyLength) continue;
        if (item.prefix.length === length && begins(bytes, keyAt, item.prefix)) found.matched(item);
      }
    }
  }

  #sortLengths(): void {
    this.#lengths = [...this.#countOf.keys()].sort((a, b) => a - b);
  }
}

export interface Matched<T> {
  matched(item: T): void;
}

function slotOf(hash: number): number {
  return (hash ^ (hash >>> 16)) & (filterSlots - 1);
}

function hashOf(prefix: Uint8Array): number {
  let hash = hashSeed;
  for (const byte of prefix) hash = Math.imul(hash ^ byte, hashPrime);
  return hash;
}

function begins(bytes: Uint8Array, keyAt: number, prefix: Uint8Array): boolean {
  for (let i = 0; i < prefix.length; i++) if (bytes[keyAt + i] !== prefix[i]) return false;
  return true;
}

/**
 * Finds the watches that a key concerns: by hash, for each length that a watched prefix has, with the hash carried on from byte to byte. So a
 * thousand watches cost a key about as much as one does, and nothing is made per key [39].
 */

export interface Prefixed {
  readonly prefix: Uint8Array;
  /** Only the key that is the prefix itself. */
  readonly exact: boolean;
}

/** Chains by hash, a power of two: with a thousand watches most keys that concern nobody are done with after a look at an empty one. */
const slots = 16_384;
const none = -1;
const entriesAtFirst = 16;

/** FNV-1a. */
const hashSeed = 0x811c9dc5;
const hashPrime = 0x01000193;

export class PrefixIndex<T extends Prefixed> {
  /** The first entry of each chain; made with the first item. */
  #heads: Int32Array | undefined;
  /** By entry: the next one of its chain, or of the free ones; the hash; the item. */
  #next = new Int32Array(entriesAtFirst);
  #hashes = new Int32Array(entriesAtFirst);
  readonly #items: (T | undefined)[] = [];
  #free = none;
  /** How many have a prefix of that length; the lengths in order. */
  readonly #countOf = new Map<number, number>();
  #lengths: number[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(item: T): void {
    this.#heads ??= new Int32Array(slots).fill(none);
    const hash = hashOf(item.prefix);
    const slot = slotOf(hash);
    const entry = this.#newEntry();
    this.#items[entry] = item;
    this.#hashes[entry] = hash;
    this.#next[entry] = this.#heads[slot]!;
    this.#heads[slot] = entry;
    this.#countLength(item.prefix.length, 1);
    this.#size++;
  }

  remove(item: T): void {
    const slot = slotOf(hashOf(item.prefix));
    let before = none;
    let entry = this.#heads?.[slot] ?? none;
    while (entry !== none && this.#items[entry] !== item) {
      before = entry;
      entry = this.#next[entry]!;
    }
    if (entry === none) throw new Error("prefix index: it is not there");
    if (before === none) this.#heads![slot] = this.#next[entry]!;
    else this.#next[before] = this.#next[entry]!;
    this.#items[entry] = undefined;
    this.#next[entry] = this.#free;
    this.#free = entry;
    this.#countLength(item.prefix.length, -1);
    this.#size--;
  }

  #newEntry(): number {
    const entry = this.#free;
    if (entry !== none) {
      this.#free = this.#next[entry]!;
      return entry;
    }
    const { length } = this.#items;
    if (length === this.#next.length) {
      this.#next = grown(this.#next);
      this.#hashes = grown(this.#hashes);
    }
    this.#items.push(undefined);
    return length;
  }

  #countLength(length: number, change: 1 | -1): void {
    const count = (this.#countOf.get(length) ?? 0) + change;
    if (count === 0) this.#countOf.delete(length);
    else this.#countOf.set(length, count);
    if (count === 0 || (count === 1 && change === 1)) this.#sortLengths();
  }

  /** Calls `found.matched` for each whose prefix the key has. It must add and remove nothing meanwhile. */
  match(bytes: Uint8Array, keyAt: number, keyLength: number, found: Matched<T>): void {
    const heads = this.#heads;
    if (heads === undefined) return;
    let hash = hashSeed;
    let hashed = 0;
    for (let i = 0; i < this.#lengths.length; i++) {
      const length = this.#lengths[i]!;
      if (length > keyLength) return;
      for (; hashed < length; hashed++) hash = Math.imul(hash ^ bytes[keyAt + hashed]!, hashPrime);
      // As it is kept: signed, also where no byte was hashed.
      const wanted = hash | 0;
      for (let entry = heads[slotOf(hash)]!; entry !== none; entry = this.#next[entry]!) {
        if (this.#hashes[entry] !== wanted) continue;
        const item = this.#items[entry]!;
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
  return (hash ^ (hash >>> 16)) & (slots - 1);
}

function hashOf(prefix: Uint8Array): number {
  let hash = hashSeed;
  for (const byte of prefix) hash = Math.imul(hash ^ byte, hashPrime);
  return hash;
}

function grown(array: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2);
  larger.set(array);
  return larger;
}

function begins(bytes: Uint8Array, keyAt: number, prefix: Uint8Array): boolean {
  for (let i = 0; i < prefix.length; i++) if (bytes[keyAt + i] !== prefix[i]) return false;
  return true;
}

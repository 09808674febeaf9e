/**
 * Requests of one connection that await their answer, by request id. Ids rise by one and index a ring, so that finding and freeing
 * costs no map; an id whose place is still taken by a slow request is skipped. A late answer to a request that was given up
 * finds another id in its place, or none.
 */
import type { Outgoing } from "./outgoing.ts";

const startSlots = 64;

export class InFlight {
  readonly #slotsMax: number;
  #requests: (Outgoing | undefined)[] = emptySlots(startSlots);
  #ids = new Float64Array(startSlots);
  #next = 1;
  #count = 0;

  /** `slotsMax` is a power of two. */
  constructor(slotsMax = 16_384) {
    this.#slotsMax = slotsMax;
  }

  get count(): number {
    return this.#count;
  }

  /** Gives the request an id; 0 when there are too many. */
  add(outgoing: Outgoing): number {
    if (this.#count === this.#requests.length && !this.#grow()) return 0;
    const mask = this.#requests.length - 1;
    while (this.#requests[this.#next & mask] !== undefined) this.#next++;
    const id = this.#next++;
    this.#requests[id & mask] = outgoing;
    this.#ids[id & mask] = id;
    this.#count++;
    return id;
  }

  get(id: number): Outgoing | undefined {
    const slot = id & (this.#requests.length - 1);
    return this.#ids[slot] === id ? this.#requests[slot] : undefined;
  }

  remove(id: number): void {
    const slot = id & (this.#requests.length - 1);
    if (this.#ids[slot] !== id || this.#requests[slot] === undefined) return;
    this.#requests[slot] = undefined;
    this.#count--;
  }

  /** Visits all; the visitor returns true for those to be removed. */
  sweep(visit: (outgoing: Outgoing) => boolean): void {
    if (this.#count === 0) return;
    for (let slot = 0; slot < this.#requests.length; slot++) {
      const outgoing = this.#requests[slot];
      if (outgoing === undefined || !visit(outgoing)) continue;
      // The visitor may have removed it itself.
      if (this.#requests[slot] !== outgoing) continue;
      this.#requests[slot] = undefined;
      this.#count--;
    }
  }

  /** Empties it and returns what was there, in the order sent. */
  takeAll(): Outgoing[] {
    const taken: { id: number; outgoing: Outgoing }[] = [];
    for (let slot = 0; slot < this.#requests.length; slot++) {
      const outgoing = this.#requests[slot];
      if (outgoing !== undefined) taken.push({ id: this.#ids[slot]!, outgoing });
    }
    this.#requests.fill(undefined);
    this.#count = 0;
    taken.sort((a, b) => a.id - b.id);
    return taken.map(({ outgoing }) => outgoing);
  }

  #grow(): boolean {
    if (this.#requests.length === this.#slotsMax) return false;
    const size = this.#requests.length * 2;
    const requests = emptySlots(size);
    const ids = new Float64Array(size);
    // Ids that differ in the smaller ring differ in the larger one.
    for (let slot = 0; slot < this.#requests.length; slot++) {
      const id = this.#ids[slot]!;
      requests[id & (size - 1)] = this.#requests[slot];
      ids[id & (size - 1)] = id;
    }
    this.#requests = requests;
    this.#ids = ids;
    return true;
  }
}

function emptySlots(count: number): (Outgoing | undefined)[] {
  return Array.from({ length: count }, () => undefined);
}

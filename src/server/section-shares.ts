/**
 * Sections of clients that await their reply: how many bytes there are, and whose. While all together are over the bound, a connection with more than its
 * share is refused, but for groups that have less than theirs: so a group that gives no answers takes no room from the others, and in all there is at
 * most about twice the bound.
 */

/** What one connection has waiting. */
export interface SectionShare {
  sectionBytes: number;
  /** Groups that it has sections of. */
  readonly sectionBytesByGroup: Map<number, number>;
}

export class SectionShares {
  readonly #bytesMax: number;
  readonly #byGroup = new Map<number, number>();
  #bytes = 0;
  /** Connections with sections that wait. */
  #writers = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** One more section of so many bytes is to be refused. */
  isTooMuch(share: SectionShare, group: number, bytes: number): boolean {
    if (this.#bytes + bytes <= this.#bytesMax || share.sectionBytes === 0) return false;
    if (share.sectionBytes + bytes <= this.#writerShare) return false;
    const waiting = this.#byGroup.get(group) ?? 0;
    return waiting > 0 && waiting + bytes > this.#bytesMax / this.#byGroup.size;
  }

  /** All that it has waiting is of that one group: it need not be read until there is room. */
  isAllOf({ sectionBytesByGroup }: SectionShare, group: number): boolean {
    return sectionBytesByGroup.size === 1 && sectionBytesByGroup.has(group);
  }

  /** There is room again for whoever was refused, with some to spare. */
  hasRoomFor({ sectionBytes }: SectionShare): boolean {
    return this.#bytes * 2 <= this.#bytesMax || sectionBytes * 2 <= this.#writerShare;
  }

  add(share: SectionShare, group: number, bytes: number): void {
    this.#bytes += bytes;
    if (share.sectionBytes === 0) this.#writers++;
    share.sectionBytes += bytes;
    addTo(share.sectionBytesByGroup, group, bytes);
    addTo(this.#byGroup, group, bytes);
  }

  remove(share: SectionShare, group: number, bytes: number): void {
    this.#bytes -= bytes;
    share.sectionBytes -= bytes;
    if (share.sectionBytes === 0) this.#writers--;
    addTo(share.sectionBytesByGroup, group, -bytes);
    addTo(this.#byGroup, group, -bytes);
  }

  /** The connection is gone. */
  removeAll(share: SectionShare): void {
    for (const [group, bytes] of share.sectionBytesByGroup) this.remove(share, group, bytes);
  }

  get #writerShare(): number {
    return this.#bytesMax / Math.max(1, this.#writers);
  }
}

function addTo(counts: Map<number, number>, group: number, bytes: number): void {
  const count = (counts.get(group) ?? 0) + bytes;
  if (count === 0) counts.delete(group);
  else counts.set(group, count);
}

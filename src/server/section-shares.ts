/**
 * Sections of clients that await their reply: how many bytes there are, and whose. While all together are over the bound, a connection with more than its
 * share is refused, but for groups that have less than theirs: so a group that gives no answers takes no room from the others, and in all there is at
 * most about twice the bound. A connection that keeps to one group costs two additions for a section.
 */

/** What one connection has waiting. */
export interface SectionShare {
  sectionBytes: number;
  readonly groupShares: Map<number, GroupShare>;
  /** The group of its last section; the only one that is kept though it has nothing waiting. */
  lastGroup: GroupShare | undefined;
}

/** What one connection has waiting of one group. */
export interface GroupShare {
  readonly group: number;
  bytes: number;
  readonly all: GroupBytes;
}

/** What all connections have waiting of one group. */
interface GroupBytes {
  bytes: number;
  connections: number;
}

export class SectionShares {
  readonly #bytesMax: number;
  readonly #groups = new Map<number, GroupBytes>();
  #bytes = 0;
  /** Connections, and groups, with sections that wait. */
  #writers = 0;
  #waitingGroups = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** There is no room for so many bytes more: whose they are decides. */
  isFullFor(bytes: number): boolean {
    return this.#bytes + bytes > this.#bytesMax;
  }

  /** One more section of so many bytes is to be refused. */
  isTooMuch(share: SectionShare, group: number, bytes: number): boolean {
    if (!this.isFullFor(bytes) || share.sectionBytes === 0) return false;
    if (share.sectionBytes + bytes <= this.#writerShare) return false;
    const waiting = this.#groups.get(group)?.bytes ?? 0;
    return waiting > 0 && waiting + bytes > this.#bytesMax / this.#waitingGroups;
  }

  /** All that it has waiting is of that one group: it need not be read until there is room. */
  isAllOf(share: SectionShare, group: number): boolean {
    return share.groupShares.get(group)?.bytes === share.sectionBytes;
  }

  /** There is room again for whoever was refused, with some to spare. */
  hasRoomFor({ sectionBytes }: SectionShare): boolean {
    return this.#bytes * 2 <= this.#bytesMax || sectionBytes * 2 <= this.#writerShare;
  }

  /** Gives what `remove` takes. */
  add(share: SectionShare, group: number, bytes: number): GroupShare {
    const own = share.lastGroup?.group === group ? share.lastGroup : this.#shareOf(share, group);
    if (share.sectionBytes === 0) this.#writers++;
    if (own.all.bytes === 0) this.#waitingGroups++;
    this.#bytes += bytes;
    share.sectionBytes += bytes;
    own.bytes += bytes;
    own.all.bytes += bytes;
    return own;
  }

  remove(share: SectionShare, own: GroupShare, bytes: number): void {
    this.#bytes -= bytes;
    share.sectionBytes -= bytes;
    own.bytes -= bytes;
    own.all.bytes -= bytes;
    if (share.sectionBytes === 0) this.#writers--;
    if (own.all.bytes === 0) this.#waitingGroups--;
    if (own.bytes === 0 && own !== share.lastGroup) this.#forget(share, own);
  }

  /** The connection is gone. */
  removeAll(share: SectionShare): void {
    share.lastGroup = undefined;
    for (const own of share.groupShares.values()) {
      if (own.bytes > 0) this.remove(share, own, own.bytes);
      else this.#forget(share, own);
    }
  }

  #shareOf(share: SectionShare, group: number): GroupShare {
    const last = share.lastGroup;
    let own = share.groupShares.get(group);
    if (own === undefined) {
      let all = this.#groups.get(group);
      if (all === undefined) {
        all = { bytes: 0, connections: 0 };
        this.#groups.set(group, all);
      }
      all.connections++;
      own = { group, bytes: 0, all };
      share.groupShares.set(group, own);
    }
    share.lastGroup = own;
    if (last?.bytes === 0) this.#forget(share, last);
    return own;
  }

  #forget(share: SectionShare, { group, all }: GroupShare): void {
    share.groupShares.delete(group);
    if (--all.connections === 0) this.#groups.delete(group);
  }

  get #writerShare(): number {
    return this.#bytesMax / Math.max(1, this.#writers);
  }
}

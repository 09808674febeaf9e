/** Sections that wait on the leader to be sealed into a batch, in order of arrival, bounded in bytes by the group [7]. */
import type { WriteWaiter } from "../server/groups.ts";

/** From a local request (`waiter`), or passed on by a follower (`origin`, `request`). */
export interface InboxSection {
  readonly section: Uint8Array;
  readonly count: number;
  readonly deadlineMs: number;
  readonly waiter: WriteWaiter | undefined;
  /** Node that passed it on; 0 = none. */
  readonly origin: number;
  readonly request: number;
}

export class Inbox {
  #sections: InboxSection[] = [];
  #bytes = 0;

  get length(): number {
    return this.#sections.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  push(section: InboxSection): void {
    this.#sections.push(section);
    this.#bytes += section.section.byteLength;
  }

  /** Takes whole sections from the head: at most `bytesMax` of them, but at least one. */
  take(bytesMax: number): InboxSection[] {
    let bytes = 0;
    let count = 0;
    for (const { section } of this.#sections) {
      if (count > 0 && bytes + section.byteLength > bytesMax) break;
      bytes += section.byteLength;
      count++;
    }
    this.#bytes -= bytes;
    if (count === this.#sections.length) return this.takeAll();
    const taken = this.#sections.slice(0, count);
    this.#sections = this.#sections.slice(count);
    return taken;
  }

  takeAll(): InboxSection[] {
    const taken = this.#sections;
    this.#sections = [];
    this.#bytes = 0;
    return taken;
  }

  /** Takes out what is past its deadline. */
  takeLate(nowMs: number): InboxSection[] {
    const late = this.#sections.filter((item) => item.deadlineMs <= nowMs);
    if (late.length === 0) return late;
    this.#sections = this.#sections.filter((item) => item.deadlineMs > nowMs);
    for (const { section } of late) this.#bytes -= section.byteLength;
    return late;
  }
}

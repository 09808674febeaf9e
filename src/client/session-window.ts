/**
 * The sections of one session that have their place in it, oldest first: which numbers they carry, which of them may still be applied by some
 * copy, and which can be taken back because no copy of them is left anywhere. Pure bookkeeping; what is sent when is session.ts.
 */
import { SectionKind } from "../wire/section.ts";
import type { WriteSection } from "./write-section.ts";

const none: readonly WriteSection[] = [];

export class SessionWindow {
  /** Log index of the entry that opened the session. */
  readonly id: number;
  readonly ttlMs: number;
  readonly #sectionsMax: number;
  #sections: WriteSection[] = [];
  #nextSeq = 1;
  /** Everything up to here is resolved: said in each section, so that the nodes can forget the results. */
  #doneUpTo = 0;

  constructor(id: number, ttlMs: number, sectionsMax: number) {
    this.id = id;
    this.ttlMs = ttlMs;
    this.#sectionsMax = sectionsMax;
  }

  get sections(): readonly WriteSection[] {
    return this.#sections;
  }

  get isEmpty(): boolean {
    return this.#sections.length === 0;
  }

  get isFull(): boolean {
    return this.#sections.length >= this.#sectionsMax;
  }

  /** The oldest one was given up and never will be applied: nothing behind it can be, in this session. */
  get isBroken(): boolean {
    return this.#sections[0]?.fate === "void";
  }

  /** Gives the section the next numbers. From here on its bytes do not change. */
  place(section: WriteSection): void {
    section.fate = "open";
    section.maybeApplied = false;
    section.copies = 0;
    section.seal({
      kind: SectionKind.session,
      session: this.id,
      firstSeq: this.#nextSeq,
      doneUpTo: this.#doneUpTo,
    });
    this.#nextSeq += section.count;
    this.#sections.push(section);
  }

  /** Its fate is known. It is forgotten as soon as nothing older is open: true where that is now. */
  resolve(section: WriteSection): boolean {
    section.fate = "done";
    const isOldest = this.#sections[0] === section;
    let done = 0;
    for (const { fate, count } of this.#sections) {
      if (fate !== "done") break;
      this.#doneUpTo += count;
      done++;
    }
    if (done > 0) this.#sections.splice(0, done);
    return isOldest;
  }

  /**
   * Takes back, in their order, the newest sections of which no copy can be applied any more: their numbers are free again. One that may
   * be applied yet keeps its numbers, and so does everything before it.
   */
  takeBack(): readonly WriteSection[] {
    let from = this.#sections.length;
    while (from > 0 && isGone(this.#sections[from - 1]!)) from--;
    // As nearly always.
    if (from === this.#sections.length) return none;
    const taken = this.#sections.splice(from);
    for (const { count } of taken) this.#nextSeq -= count;
    return taken;
  }
}

function isGone({ fate, channel, maybeApplied }: WriteSection): boolean {
  return fate !== "done" && channel === undefined && !maybeApplied;
}

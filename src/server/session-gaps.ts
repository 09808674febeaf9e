/**
 * Sections of sessions that were refused on one connection. What the client had sent behind them before it heard of that is refused too: it would
 * only take a place in the log to be found out of order there [10]. It ends when the client sends again what was refused, be it the first of them
 * or, where that has arrived on another way, a later one. The log has the last word: this only spares it.
 */
import { groupOfWrite } from "../wire/client-messages.ts";
import { readSectionHeader, SectionKind } from "../wire/section.ts";

/** Of one connection; beyond it the oldest is forgotten. */
const gapsMax = 1_024;

export class SessionGaps {
  /** Number of the last command that was refused, by group and session. */
  readonly #refused = new Map<string, number>();

  /** Whether a section may enter the log. False: it follows one that was refused, and is refused with it. */
  lets(group: number, session: number, firstSeq: number): boolean {
    if (this.#refused.size === 0) return true;
    const name = nameOf(group, session);
    const refused = this.#refused.get(name);
    if (refused === undefined) return true;
    if (firstSeq > refused) return false;
    this.#refused.delete(name);
    return true;
  }

  /** It was not applied. */
  refused(group: number, session: number, firstSeq: number): void {
    const name = nameOf(group, session);
    const earlier = this.#refused.get(name) ?? 0;
    this.#refused.set(name, Math.max(firstSeq, earlier));
    if (this.#refused.size > gapsMax) this.#refused.delete(this.#refused.keys().next().value!);
  }

  /** The same for a `write` frame that was refused unread. */
  refusedFrame(payload: Uint8Array, fieldsBytes: number): void {
    const group = groupOfWrite(payload, fieldsBytes);
    const header = group === undefined ? undefined : readSectionHeader(payload, fieldsBytes);
    if (header?.kind === SectionKind.session) {
      this.refused(group!, header.session, header.firstSeq);
    }
  }
}

function nameOf(group: number, session: number): string {
  return `${group} ${session}`;
}

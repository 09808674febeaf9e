/**
 * What beats say is held against what is so: whoever claims to lead a group leads it, in that very term and at that moment, though only changes are sent;
 * and whoever answers a beat, and does not except a group, has that term durably.
 */
import type { BeatMessage } from "../../src/wire/beat-message.ts";

/** Term by group. */
type Claims = ReadonlyMap<number, number>;

interface Said {
  claims: Claims;
  /** By the number of the beat that said so. */
  readonly bySeq: Map<number, Claims>;
}

export interface BeatFacts {
  /** In its core, now. */
  readonly leads: (node: number, group: number, term: number) => boolean;
  readonly durableTerm: (node: number, group: number) => number;
}

const historyMax = 64;

export class BeatJudge {
  readonly #facts: BeatFacts;
  /** By `from>to`. */
  readonly #said = new Map<string, Said>();

  constructor(facts: BeatFacts) {
    this.#facts = facts;
  }

  /** A beat is about to leave; what is wrong with it. */
  sent(beat: BeatMessage): string | undefined {
    return this.#wrongClaim(beat) ?? this.#wrongAnswer(beat);
  }

  #wrongClaim({ from, to, seq, whole, claims }: BeatMessage): string | undefined {
    const key = `${from}>${to}`;
    const said = this.#said.get(key) ?? { claims: new Map(), bySeq: new Map() };
    const next = new Map(whole ? [] : said.claims);
    for (const { group, term } of claims) {
      if (term === 0) next.delete(group);
      else next.set(group, term);
    }
    said.claims = next;
    said.bySeq.set(seq, next);
    const [oldest] = said.bySeq.keys();
    if (said.bySeq.size > historyMax) said.bySeq.delete(oldest!);
    this.#said.set(key, said);
    for (const [group, term] of next) {
      if (this.#facts.leads(from, group, term)) continue;
      return `node ${from} says to ${to} that it leads group ${group} in term ${term}, and does not`;
    }
    return undefined;
  }

  #wrongAnswer({ from, to, answered, refused }: BeatMessage): string | undefined {
    const claims = this.#said.get(`${to}>${from}`)?.bySeq.get(answered);
    if (answered === 0 || claims === undefined) return undefined;
    for (const [group, term] of claims) {
      if (refused.includes(group) || this.#facts.durableTerm(from, group) >= term) continue;
      return `node ${from} confirms to ${to} that it leads group ${group} in term ${term}, which is not durable there`;
    }
    return undefined;
  }
}

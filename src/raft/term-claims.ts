/**
 * How far a higher term is believed. Raft raises a term at anybody's word, but terms rise by one an election: whoever claims one from far beyond is broken
 * or lies, and a few such words would take the group to where numbers end, and with them all elections. So a single word leads on by a
 * step at a time, and further only where a majority of the voters claims as much. Nobody is left behind by that: who was away while others were led on
 * comes to their term at once where a majority of them is there, else step by step, in about the time that the lie took.
 */
import { quorumValue } from "./quorum.ts";
import type { Configuration } from "./ready.ts";

/** In each of the shortest election time-outs: honest terms rise by a few in it, and numbers last for a hundred years of lies. */
const stepMax = 2 ** 20;

export interface TermClaim {
  readonly from: number;
  readonly term: number;
}

/** As of when the claim is heard. */
export interface TermClaimContext {
  readonly nodeId: number;
  readonly term: number;
  readonly nowTick: number;
  readonly configuration: Configuration;
}

export class TermClaims {
  readonly #windowTicks: number;
  #windowTick = -Infinity;
  /** The highest term that single words can lead to within this window. */
  #termMax = 0;
  /** Beyond that, by voter, within this window. */
  readonly #claims = new Map<number, number>();

  constructor(windowTicks: number) {
    this.#windowTicks = windowTicks;
  }

  /** The term to go over to, at most the one that is claimed, and possibly the one that this node has. */
  believed(claim: TermClaim, { nodeId, term, nowTick, configuration }: TermClaimContext): number {
    if (nowTick - this.#windowTick >= this.#windowTicks) {
      this.#windowTick = nowTick;
      this.#termMax = term + stepMax;
      this.#claims.clear();
    }
    if (claim.term <= this.#termMax) return claim.term;
    this.#claims.set(claim.from, claim.term);
    const claimOf = (id: number): number => (id === nodeId ? term : (this.#claims.get(id) ?? 0));
    const claimedByMajority = quorumValue(configuration, claimOf);
    return Math.min(claim.term, Math.max(term, this.#termMax, claimedByMajority));
  }
}

/**
 * A wounded node [22]: its disk has lost some of what it had acknowledged. Until a leader has matched its log again as far as it had been, the node
 * does not vote, nor campaign, nor count for a quorum; it follows, and fetches. Then nothing that it ever promised is missing:
 *
 * - What it acknowledged is in its log again, or was never committed: a leader whose log has a later term at that place says so.
 * - In the terms up to that of its last hard state it may have voted, so its vote in them counts as given.
 * - What its state machine has applied is committed, so any leader has it; the log must reach it, for the machine may be ahead meanwhile [23].
 */
import type { Wound } from "../wire/batch.ts";

export class Healing {
  readonly wound: Wound;
  /** The state machine has everything up to here. */
  readonly appliedIndex: number;

  constructor(wound: Wound, appliedIndex: number) {
    this.wound = wound;
    this.appliedIndex = appliedIndex;
  }

  /** A current leader's log and this node's disk agree up to (term, index): is that all that it had? */
  isOver(term: number, index: number): boolean {
    const { wound } = this;
    const isBelow = term < wound.term || (term === wound.term && index < wound.index);
    return !isBelow && index >= this.appliedIndex;
  }
}

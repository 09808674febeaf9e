/**
 * No group waits for ever because others have more to do: while one that leads, and has nothing under way itself, keeps requests in its inbox, others
 * may seal batches only so many turns in a row.
 */
import type { Group } from "../../src/node/group.ts";

interface Waiting {
  lastIndex: number;
  /** Turns in which others sealed something, and this one could have. */
  turns: number;
}

/** Turns in which it could not have sealed anything, though nobody sees that from outside; batches that no request makes. */
const spareTurns = 4;

export class Fairness {
  /** By group, in one life of a node. */
  readonly #waiting = new Map<number, Waiting>();

  /** After a turn of a node; what is wrong. While a sync runs only those that have much take part. */
  turned(groups: readonly Group[], wasSyncing: boolean): string | undefined {
    const leading = groups.filter(({ raft }) => raft.role === "leader");
    if (leading.length < 2) {
      this.#waiting.clear();
      return undefined;
    }
    const grown = new Set<number>();
    for (const { id, raft } of leading) {
      const known = this.#waiting.get(id);
      if (known === undefined) this.#waiting.set(id, { lastIndex: raft.lastIndex, turns: 0 });
      else if (raft.lastIndex > known.lastIndex) {
        grown.add(id);
        known.lastIndex = raft.lastIndex;
      }
    }
    const turnsMax = 2 * leading.length + spareTurns;
    for (const { id, raft, inboxBytes } of leading) {
      const waiting = this.#waiting.get(id)!;
      const isFree =
        inboxBytes > 0 &&
        raft.transferTarget === 0 &&
        raft.unsyncedBytes === 0 &&
        raft.unappliedBytes === 0;
      if (!isFree || grown.has(id)) waiting.turns = 0;
      else if (grown.size > 0 && !wasSyncing) waiting.turns++;
      if (waiting.turns > turnsMax) {
        return `group ${id} has waited for ${waiting.turns} turns in which other groups sealed batches`;
      }
    }
    return undefined;
  }
}

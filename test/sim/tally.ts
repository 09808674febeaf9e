/** How often the rarer things happened in a run: a fault that never strikes, or an answer that never comes, tests nothing. */

export const happenings = [
  /** Processes that ended between two events, between two effects of one turn, and because a sync had failed. */
  "crashes",
  "endsInside",
  "failedSyncs",
  /** Nodes that came back with rotten disks: refused at the start, ended while running, or started. */
  "refusedStarts",
  "rotMetRunning",
  "rottenStarts",
  /** Answers to clients. */
  "overloaded",
  "diskFull",
] as const;
export type Happening = (typeof happenings)[number];

export type Tally = Record<Happening, number>;

export function emptyTally(): Tally {
  const tally: Partial<Tally> = {};
  for (const happening of happenings) tally[happening] = 0;
  return tally as Tally;
}

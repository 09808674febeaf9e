/** How often the rarer things happened in a run: a fault that never strikes, or an answer that never comes, tests nothing. */

export const happenings = [
  /** Processes that ended between two events, between two effects of one turn, and because a sync had failed. */
  "crashes",
  "endsInside",
  "failedSyncs",
  /**
   * Nodes that came back with rotten disks: refused as the watermark was hit, ended while running as nobody could help, started as if nothing
   * were; wounded at the start or later, struck again before they were whole, and whole again.
   */
  "refusedStarts",
  "rotMetRunning",
  "rottenStarts",
  "wounds",
  "relapses",
  "heals",
  /** Segments of logs that were said to be damaged. */
  "evacuations",
  /** Groups that somebody was told are made, are gone, and are to be elsewhere; and requests for that which failed. */
  "groupsMade",
  "groupsRemoved",
  "groupsMoved",
  "groupsRefused",
  /** Members of groups that were to come back before they had heard that they had left. */
  "earlyReturns",
  /** Answers of groups beside one that always had more to do. */
  "servedBesideHot",
  /** Heartbeats of several groups in one. */
  "beats",
  /** Batches that were copied out of old segments. */
  "rewrites",
  /** Given up for the log, on a disk that ran full. */
  "ballasts",
  /** Taken over in place of the log. */
  "snapshots",
  /** Answers to who asked for other members: done, and not done or not known. */
  "membersChanged",
  "membersRefused",
  /** Answers to clients. */
  /** Leaders that were told to hand over, or to stop, and were followed by another. */
  "transfers",
  /** Local reads that were answered within their bound, and refused as too old. */
  "freshReads",
  "staleReads",
  /** Watches that were opened, changes that they were told, and past that a node did not know any more. */
  "watches",
  "watchedChanges",
  "watchesCompacted",
  /** Sections that came again and were answered as the first time; and such whose session was gone. */
  "repeated",
  "expired",
  /** Nodes whose data was beyond their build. */
  "tooOldBuilds",
  "overloaded",
  "diskFull",
  /** Of applications that are the state machine: calls that gave entries, and snapshots; failed or slow callbacks, and ends of it. */
  "appUpdates",
  "appRestores",
  "appFaults",
  "appCrashes",
  /** Answers to clients that a write was applied and its result is lost; and reads that an application did not answer. */
  "resultsLost",
  "readsFailed",
] as const;
export type Happening = (typeof happenings)[number];

export type Tally = Record<Happening, number>;

export function emptyTally(): Tally {
  const tally: Partial<Tally> = {};
  for (const happening of happenings) tally[happening] = 0;
  return tally as Tally;
}

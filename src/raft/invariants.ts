/**
 * What must hold in a Raft core at every moment, checked in production too: a few comparisons per turn. A broken one means that going on
 * could lose acknowledged data, so the core throws, its shell stops the group, and nothing of that turn leaves the node.
 */

/** The numbers of a core that the checks look at, and that an error reports. */
export interface CoreState {
  readonly group: number;
  readonly nodeId: number;
  readonly role: string;
  readonly term: number;
  readonly votedFor: number;
  readonly leader: number;
  readonly commit: number;
  readonly appliedIndex: number;
  readonly durableIndex: number;
  readonly verifiedIndex: number;
  readonly startIndex: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
}

/** A broken invariant of one group. Never thrown for what a peer or client sent in error: those messages are dropped. */
export class InvariantError extends Error {
  override readonly name: string = "InvariantError";
  readonly group: number;
  readonly reason: string;
  readonly state: CoreState;

  constructor(reason: string, state: CoreState) {
    super(`group ${state.group}: ${reason} (${JSON.stringify(state)})`);
    this.group = state.group;
    this.reason = reason;
    this.state = state;
  }
}

/** The first rule that the state breaks, or undefined. Allocates nothing when all hold. */
export function brokenRule(state: CoreState): string | undefined {
  if (!(state.startIndex <= state.commit)) return "the log's start is at or below commit";
  if (!(state.commit <= state.lastIndex)) return "commit is within the log";
  if (!(state.appliedIndex <= state.commit)) return "only committed batches are applied";
  if (!(state.durableIndex <= state.lastIndex)) return "durable index is within the log";
  if (!(state.verifiedIndex <= state.lastIndex)) return "verified index is within the log";
  if (!(state.lastTerm <= state.term)) return "no batch is from a term above the core's";
  if (state.role === "leader" && state.leader !== state.nodeId) return "a leader follows itself";
  if (state.role === "candidate" && state.votedFor !== state.nodeId)
    return "a candidate votes for itself";
  return undefined;
}

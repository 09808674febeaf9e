/**
 * The two questions that a majority answers: how far has a quorum got, and has a vote been won. Both take joint configurations, where a
 * majority of the incoming and one of the outgoing voters are needed. Pure; a brute-force twin checks it in the tests.
 */
import type { Configuration } from "./ready.ts";

export type VoteResult = "won" | "lost" | "pending";

/**
 * The highest value that a quorum has reached, where `valueOf` says how far each voter got. Quadratic in the number of voters,
 * which is below ten, and free of allocation. 0 where there is no voter.
 */
export function quorumValue(
  configuration: Configuration,
  valueOf: (nodeId: number) => number,
): number {
  const incoming = majorityValue(configuration.voters, valueOf);
  if (configuration.outgoing.length === 0) return incoming;
  return Math.min(incoming, majorityValue(configuration.outgoing, valueOf));
}

function majorityValue(voters: readonly number[], valueOf: (nodeId: number) => number): number {
  if (voters.length === 3) {
    const one = valueOf(voters[0]!);
    const two = valueOf(voters[1]!);
    return Math.max(0, Math.min(one, two), Math.min(Math.max(one, two), valueOf(voters[2]!)));
  }
  const majority = majorityOf(voters);
  let best = 0;
  for (const candidate of voters) {
    const value = valueOf(candidate);
    if (value <= best) continue;
    let reached = 0;
    for (const voter of voters) if (valueOf(voter) >= value) reached++;
    if (reached >= majority) best = value;
  }
  return best;
}

/** Outcome of an election so far; `voteOf` is undefined for a voter that has not answered. */
export function voteResult(
  configuration: Configuration,
  voteOf: (nodeId: number) => boolean | undefined,
): VoteResult {
  const incoming = majorityVote(configuration.voters, voteOf);
  if (configuration.outgoing.length === 0 || incoming === "lost") return incoming;
  const outgoing = majorityVote(configuration.outgoing, voteOf);
  if (outgoing === "lost") return "lost";
  return incoming === "won" && outgoing === "won" ? "won" : "pending";
}

function majorityVote(
  voters: readonly number[],
  voteOf: (nodeId: number) => boolean | undefined,
): VoteResult {
  const majority = majorityOf(voters);
  let granted = 0;
  let refused = 0;
  for (const voter of voters) {
    const vote = voteOf(voter);
    if (vote === true) granted++;
    else if (vote === false) refused++;
  }
  if (granted >= majority) return "won";
  return voters.length - refused < majority ? "lost" : "pending";
}

function majorityOf(voters: readonly number[]): number {
  return Math.floor(voters.length / 2) + 1;
}

/**
 * Runs with more groups than the default one: how many, on how many nodes, and how often they come, go and move. Drawn apart, so that seeds without them
 * do as before.
 */
import { checkLimits, type Limits } from "../../src/limits.ts";
import type { Random } from "./random.ts";
import { faults, type Swarm } from "./swarm.ts";

export interface GroupSwarm {
  /** Nodes have a registry of groups, and somebody asks it for changes as often as that; Infinity = they have none. */
  readonly changeEveryMs: number;
  /** That there are at once, at most. */
  readonly groupsMax: number;
  /** Each is on all nodes: a damaged disk may take all that is on it, and each group has to have a quorum left. */
  readonly everywhere: boolean;
  readonly moves: boolean;
  /** Clients of one group, at most. */
  readonly clientsMax: number;
  /** Some group gets far more requests than the others, as often as that; Infinity = none does. */
  readonly hotEveryMs: number;
  /** What the registry says is durable so many times later than other state. */
  readonly registrySlowness: number;
}

/** Of all runs. */
const share = 0.2;
/** Of runs with several groups: nearly as many as there may be. */
const manyShare = 0.2;

export function drawGroups(
  random: Random,
  swarm: Swarm,
  given: { readonly groups: boolean; readonly groupMoves: boolean; readonly wanted: boolean },
): GroupSwarm {
  const isOn = (random.chance(share) || given.wanted) && !given.groups;
  const electionMs = swarm.limits.electionTicksMax * swarm.limits.tickMs;
  const everyMs = electionMs * random.pick([0.1, 0.3, 1]);
  const rots = swarm.faultWeights[faults.indexOf("rot")]! > 0;
  return {
    changeEveryMs: isOn ? everyMs : Infinity,
    groupsMax: random.chance(manyShare) ? random.between(6, 15) : random.between(1, 4),
    everywhere: rots,
    moves: random.chance(0.7) && !rots && !given.groupMoves,
    clientsMax: random.between(1, 2),
    hotEveryMs: isOn ? electionMs * random.pick([0.3, Infinity, Infinity, Infinity]) : Infinity,
    registrySlowness: random.pick([1, 1, 100]),
  };
}

/** The registry must be able to write what is asked of it in one go: as many groups as there are in a run. */
const registryWriteBytes = 8 * 1024;

/** Bounds at which what many groups have in common is met with a few. */
export function groupLimits(random: Random, drawn: Limits, isHot: boolean): Limits {
  // Where one is hot there is room for one batch at a time.
  const tight = { batchBytesMax: 1, sealBytes: 1, unsyncedBytesMax: 1, shardUnsyncedBytesMax: 1 };
  const limits = { ...drawn, ...(isHot && random.chance(0.5) ? tight : {}) };
  return checkLimits({
    ...limits,
    shardUnsyncedBytesMax: Math.max(
      limits.unsyncedBytesMax,
      random.pick([limits.shardUnsyncedBytesMax, 1, 1_000]),
    ),
    inboxBytesMax: Math.max(limits.inboxBytesMax, registryWriteBytes),
    // Groups at rest are given their ticks a heartbeat's worth at a time: in twice that there is no time for an answer.
    checkQuorumTicks: Math.max(limits.checkQuorumTicks, 3 * limits.heartbeatTicks),
    everyTickGroups: random.pick([limits.everyTickGroups, 1, 3]),
    beatGroupsMin: random.pick([limits.beatGroupsMin, 1, 2]),
    beatGroupsMax: random.pick([limits.beatGroupsMax, limits.beatGroupsMax, 2]),
  });
}

export function hasGroups({ changeEveryMs }: GroupSwarm): boolean {
  return changeEveryMs < Infinity;
}

/** Ascending. */
export function pickSome(random: Random, from: readonly number[], count: number): number[] {
  const left = [...from];
  while (left.length > count) left.splice(random.below(left.length), 1);
  return left;
}

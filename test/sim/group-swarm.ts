/**
 * Runs with several groups: how many, of how many members, and how often they come, go and move. Drawn apart, so that seeds without them do as before.
 */
import type { Random } from "./random.ts";
import { faults, type Swarm } from "./swarm.ts";

export interface GroupSwarm {
  /** Groups besides the default one that are there from the start, with their first members. */
  readonly groups: readonly (readonly number[])[];
  /** Clients of each. */
  readonly clients: number;
}

/** Of all runs. */
const share = 0.2;
const groupsMax = 15;
/** Of runs with several groups: nearly as many as there may be. */
const manyShare = 0.2;

export const noGroups: GroupSwarm = { groups: [], clients: 0 };

export function drawGroups(random: Random, swarm: Swarm, without: boolean): GroupSwarm {
  const isOn = random.chance(share);
  const count = random.chance(manyShare) ? random.between(6, groupsMax) : random.between(1, 4);
  // A damaged disk may take all groups on it, and only so many that each has a quorum left.
  const rots = swarm.faultWeights[faults.indexOf("rot")]! > 0;
  const nodes = Array.from({ length: swarm.nodes }, (_, at) => at + 1);
  const groups = Array.from({ length: count }, () => {
    const size = rots ? swarm.nodes : Math.min(swarm.nodes, random.pick([1, 2, 3, 3, 3, 5]));
    return pickSome(random, nodes, size);
  });
  const clients = random.between(1, 2);
  return isOn && !without ? { groups, clients } : noGroups;
}

/** Ascending. */
export function pickSome(random: Random, from: readonly number[], count: number): number[] {
  const left = [...from];
  while (left.length > count) left.splice(random.below(left.length), 1);
  return left;
}

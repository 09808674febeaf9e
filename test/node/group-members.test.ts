/** From any members to any others: each step is one that a core takes, none leaves fewer voters than both have, and it ends with just those that are wanted. */
import { expect, test } from "bun:test";
import { changesToward, type WantedMembers } from "../../src/node/group-members.ts";
import { sameConfiguration } from "../../src/raft/configuration.ts";
import { leaveJoint, planChange, promoteLearners } from "../../src/raft/membership.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { Random } from "../sim/random.ts";

const seed = Number(process.env["BARGE_TEST_SEED"] ?? 3);

function some(random: Random, from: readonly number[]): number[] {
  const chosen = from.filter(() => random.chance(0.5)).slice(0, 9);
  return chosen.length > 0 ? chosen : [from[0]!];
}

function wantedOf(voters: readonly number[], learners: readonly number[]): WantedMembers {
  const member = (id: number) => ({ id, incarnation: `folder-${id}` });
  return { voters: voters.map(member), learners: learners.map(member) };
}

/** As a leader would go on by itself: out of what is joint, and with learners that have caught up. */
function settled(configuration: Configuration): Configuration {
  let current = configuration;
  for (;;) {
    const promoted = Object.keys(current.promotions ?? {}).map(Number);
    if (current.outgoing.length > 0) current = leaveJoint(current);
    else if (promoted.length > 0) current = promoteLearners(current, promoted);
    else return current;
  }
}

test("one step after the other", () => {
  const random = new Random(seed);
  const nodes = Array.from({ length: 14 }, (_, at) => at + 1);
  let current: Configuration = {
    voters: [1, 2, 3],
    outgoing: [],
    learners: [],
    addresses: { 1: "node-1", 2: "node-2", 3: "node-3" },
  };
  for (let round = 0; round < 500; round++) {
    const voters = some(random, nodes);
    const others = nodes.filter((id) => !voters.includes(id));
    const learners = random.chance(0.3) && others.length > 0 ? some(random, others) : [];
    const wanted = wantedOf(voters, learners);
    const before = current.voters;
    let steps = 0;
    for (;;) {
      const changes = changesToward(current, wanted);
      if (changes.length === 0) break;
      const plan = planChange(current, changes);
      if (!("next" in plan)) throw new Error(`seed ${seed}: ${JSON.stringify({ changes, plan })}`);
      // What is under way is left to come to its end.
      if (plan.next.promotions !== undefined) {
        const isWaiting = changesToward(plan.next, wanted).every(({ op }) => op !== "remove");
        expect({ seed, isWaiting }).toEqual({ seed, isWaiting: true });
      }
      current = settled(plan.next);
      // Where there is no room for all, one goes before one comes.
      const kept = Math.min(before.length, voters.length, 8);
      expect({ seed, enough: current.voters.length >= kept }).toEqual({ seed, enough: true });
      expect(++steps).toBeLessThan(24);
    }
    expect({ seed, voters: current.voters }).toEqual({ seed, voters });
    expect({ seed, learners: current.learners }).toEqual({ seed, learners });
    expect(sameConfiguration(current, settled(current))).toBe(true);
  }
});

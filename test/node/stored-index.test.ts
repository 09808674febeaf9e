/** An application that holds more than its node remembers to be committed. */
import { expect, test } from "bun:test";
import type { KvMachine } from "../../src/machine/kv.ts";
import type { StateMachine } from "../../src/machine/machine.ts";
import type { Group } from "../../src/node/group.ts";
import { ShardWorld } from "./shard-world.ts";

const id = 9;

/** Node 2 votes for it, and acknowledges nothing. */
function elect(world: ShardWorld, group: Group): void {
  const { raft } = group;
  for (let ticks = 0; raft.role !== "leader"; ticks++) {
    expect(ticks).toBeLessThan(10 * world.limits.electionTicksMax);
    world.run(1);
    const vote = { group: id, from: 2, to: 1, granted: true } as const;
    if (raft.role === "preCandidate")
      group.step({ ...vote, type: "preVoteReply", term: raft.term + 1 });
    else group.step({ ...vote, type: "voteReply", term: raft.term });
    world.turn();
  }
}

test("a leader believes its application that it holds what only committed batches have given it", () => {
  let storedIndex: number | undefined;
  const world = new ShardWorld(0);
  const wrap = (kv: KvMachine): StateMachine => {
    Object.defineProperty(kv, "storedIndex", { get: () => storedIndex });
    return kv;
  };
  const group = world.add(id, 1, wrap, world.limits, [2, 3]);
  const { commit } = group.raft;
  elect(world, group);
  const held = group.raft.lastIndex;
  expect(held).toBe(commit + 1);
  group.raft.stepDown("test");
  elect(world, group);
  expect(group.raft.lastIndex).toBe(held + 1);
  world.run(5);
  expect(group.machine.appliedIndex).toBe(commit);
  storedIndex = held;
  world.run(5);
  expect(group.raft.role).toBe("leader");
  expect(group.raft.commit).toBe(held);
  expect(group.machine.appliedIndex).toBe(held);
});

/** Who is to be a member of `system`, where nodes of the cluster come and go. */
import { expect, test } from "bun:test";
import type { RegistryView } from "../../src/node/registry-view.ts";
import { systemMembers } from "../../src/node/system-members.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import type { GoingNode, RegistryEntry } from "../../src/wire/registry.ts";

/** 4 comes for 3. */
class World {
  cluster: Configuration = {
    ...configurationOf([1, 2, 3]),
    learners: [4],
    addresses: { 1: "a:1", 2: "a:2", 3: "a:3", 4: "a:4" },
    promotions: { 4: 3 },
  };
  current = configurationOf([1, 2, 3]);
  readonly going: GoingNode[] = [];
  readonly groups = new Map<number, { readonly entry: RegistryEntry }>();
  readonly joined = new Set([1, 2, 3, 4]);

  note(id: number, forced?: true): void {
    this.going.push({ id, term: 1, word: 1, forced });
  }

  place(id: number, members: readonly number[], leaving: readonly number[] = []): void {
    const of = (node: number) => ({ id: node, incarnation: `folder-${node}`, since: 1 });
    const entry = { id, members: members.map(of), leaving: leaving.map(of) };
    this.groups.set(id, { entry: entry as unknown as RegistryEntry });
  }

  get wanted(): { voters: number[]; learners: number[] } {
    const { cluster, current, going, groups } = this;
    const isGoing = (id: number): boolean => going.some((node) => node.id === id);
    const view = { going: { nodes: going }, groups, isGoing } as unknown as RegistryView;
    const incarnationOf = (id: number): string | undefined =>
      this.joined.has(id) ? `folder-${id}` : undefined;
    const { voters, learners } = systemMembers({ cluster, current, view, incarnationOf });
    return { voters: voters.map(({ id }) => id), learners: learners.map(({ id }) => id) };
  }
}

function configurationOf(voters: readonly number[]): Configuration {
  return { voters: [...voters], outgoing: [], learners: [], addresses: {} };
}

test("who comes for another votes at once, and who is replaced goes once that is noted and no group needs it", () => {
  const world = new World();
  expect(world.wanted).toEqual({ voters: [1, 2, 3, 4], learners: [] });
  world.place(7, [1, 2], [3]);
  world.note(3);
  expect(world.wanted.voters).toEqual([1, 2, 3, 4]);
  world.place(7, [1, 2]);
  expect(world.wanted.voters).toEqual([1, 2, 4]);
  // Nobody has come for it yet.
  world.joined.delete(4);
  expect(world.wanted.voters).toEqual([1, 2, 3]);
});

test("who was let go stays out, but for one that a group has come to meanwhile: it could not follow where that is to be", () => {
  const world = new World();
  world.cluster = { ...world.cluster, learners: [], promotions: {} };
  world.note(3);
  world.current = configurationOf([1, 2]);
  // As its removal is under way.
  expect(world.wanted.voters).toEqual([1, 2]);
  // It stayed after all, so a group was moved to it; and now it is to go once more.
  world.place(7, [1, 2, 3], [4]);
  expect(world.wanted.voters).toEqual([1, 2, 3]);
  world.current = configurationOf([1, 2, 3]);
  expect(world.wanted.voters).toEqual([1, 2, 3]);
  world.place(7, [1, 2, 3]);
  world.current = configurationOf([1, 2]);
  expect(world.wanted.voters).toEqual([1, 2]);
});

test("of who goes by force no group is asked", () => {
  const world = new World();
  world.place(7, [3]);
  world.note(3, true);
  world.current = configurationOf([1, 2]);
  expect(world.wanted.voters).toEqual([1, 2, 4]);
});

test("who has not joined has no folder yet, and learners learn here too", () => {
  const world = new World();
  world.cluster = { ...world.cluster, learners: [4, 5], promotions: {} };
  expect(world.wanted).toEqual({ voters: [1, 2, 3], learners: [4] });
  world.joined.add(5);
  expect(world.wanted.learners).toEqual([4, 5]);
  world.joined.delete(3);
  // It is here already.
  expect(world.wanted.voters).toEqual([1, 2, 3]);
});

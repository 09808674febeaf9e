/** Changes of the registry as functions of what it says: what they write is applied to a real kv machine, and read from it again. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultLimits } from "../../src/limits.ts";
import { createMachine, KvFiles } from "../../src/machine/machines.ts";
import {
  creation,
  dropping,
  type Host,
  leavingProblem,
  move,
  type NewGroups,
  removal,
  replacing,
  settling,
} from "../../src/node/registry-changes.ts";
import { departureProblem, forgetting, forgettingLeft, noting } from "../../src/node/departures.ts";
import { RegistryView } from "../../src/node/registry-view.ts";
import type { RegistryWrite } from "../../src/node/registry-writer.ts";
import { encodeKvTxn, KvOperator, KvTarget } from "../../src/wire/kv-txn.ts";
import { encodeEntry, type RegistryEntry } from "../../src/wire/registry.ts";
import { Results, TestLog } from "../machine/log.ts";
import { Random } from "../sim/random.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-registry-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** `system`, as its leader has it. */
class World {
  readonly view: RegistryView;
  hosts: Host[] = [1, 2, 3, 4, 5].map((id) => ({ id, incarnation: `folder-${id}` }));
  /** Groups that the view said were other ones. */
  readonly told: number[] = [];
  writes = 0;
  readonly #log = new TestLog();
  readonly #machine = createMachine("kv", {
    directory: folder,
    files: new KvFiles({ limits: defaultLimits }),
    limits: defaultLimits,
    nowMs: () => 0,
  });

  constructor() {
    this.view = new RegistryView((id) => this.told.push(id));
  }

  /** To its end. */
  run(plan: (view: RegistryView) => RegistryWrite | undefined): void {
    for (let write = plan(this.view); write !== undefined; write = plan(this.view)) {
      this.#apply(write);
      write.written?.();
      if (++this.writes > 1_000) throw new Error("it does not end");
    }
  }

  #apply(write: RegistryWrite): void {
    // Nothing came in between, so all holds that was compared.
    expect(this.holds(write)).toBe(true);
  }

  /** False where something of what it compares is not so any more: then it does nothing. */
  holds({ compare, operations }: RegistryWrite): boolean {
    const command = encodeKvTxn({
      compare: compare.map(({ key, revision }) => {
        return { key, revision, target: KvTarget.revision, operator: KvOperator.equal };
      }),
      success: operations,
      failure: [],
    });
    const results = new Results();
    this.#machine.apply([this.#log.add([[command]])], results);
    this.view.refresh(this.#machine);
    return [...results.all.values()].every(({ code }) => code === 0);
  }

  /** Past all that plans it. */
  write(key: string, value: Uint8Array): void {
    const bytes = Buffer.from(key);
    this.#apply({ compare: [], operations: [{ op: "put", key: bytes, value }] });
  }

  create(wanted: Partial<NewGroups> = {}, groupsMax = 4_096): RegistryEntry[] {
    const made = new Map<number, RegistryEntry>();
    const all: NewGroups = {
      request: `request-${this.writes}`,
      count: 1,
      id: undefined,
      name: undefined,
      machine: "kv",
      applyVersion: 3,
      replicas: undefined,
      members: undefined,
      logBytesMax: undefined,
      ...wanted,
    };
    this.run(creation(all, () => this.hosts, groupsMax, made));
    return [...made.values()];
  }

  move(id: number, members: readonly number[]): boolean {
    let changed = false;
    const done = (): void => void (changed = true);
    this.run(
      move(
        id,
        () => members,
        () => this.hosts,
        done,
      ),
    );
    return changed;
  }

  remove(...ids: readonly number[]): number[] {
    const removed = new Set<number>();
    this.run(removal(ids, removed));
    return [...removed];
  }

  settle(id: number, term = 7): void {
    this.run(settling([{ id, version: this.entry(id).version, term }]));
  }

  /** The version of the entry with which that node left. */
  left(id: number, node: number): number {
    return this.entry(id).lingering!.find((each) => each.id === node)!.left;
  }

  drop(node: number, id: number, left = this.left(id, node)): void {
    this.run(dropping(node, [{ id, left }]));
  }

  /** As seen when that node has left the cluster. */
  leave(node: number): void {
    this.hosts = this.hosts.filter(({ id }) => id !== node);
    this.replace();
  }

  replace(): void {
    this.run(replacing(() => this.hosts, this.isNode));
  }

  readonly isNode = (id: number): boolean => this.hosts.some((host) => host.id === id);

  /** The leader of that term says, for the how manieth time, that they go. */
  note(term: number, word: number, ...nodes: readonly number[]): void {
    this.run(noting({ nodes, term, word }, false));
  }

  forget(term: number, word: number, ...nodes: readonly number[]): void {
    this.run(forgetting({ nodes, term, word }));
  }

  get going(): string {
    return this.view.going.nodes.map(({ id, term, word }) => `${id}@${term}.${word}`).join();
  }

  /** Why it cannot go yet; "" = it can. */
  waits(node: number): string {
    return departureProblem(this.view, node, this.isNode)?.code ?? "";
  }

  entry(id: number): RegistryEntry {
    return this.view.group(id)!.entry;
  }

  members(id: number): string {
    const { members, leaving } = this.entry(id);
    const ids = members.map((each) => each.id).join();
    return leaving.length === 0 ? ids : `${ids} but for ${leaving.map((each) => each.id).join()}`;
  }
}

describe("new groups", () => {
  test("get ids above all that were ever given, and are spread over the nodes", () => {
    const world = new World();
    const made = world.create({ count: 250 });
    expect(made.map(({ id }) => id)).toEqual(Array.from({ length: 250 }, (_, at) => at + 1));
    expect(world.writes).toBe(3);
    const loads = new Map<number, number>();
    for (const { members, founders, version } of made) {
      expect(members).toHaveLength(3);
      expect(members.map(({ id }) => id)).toEqual(founders.map(({ id }) => id));
      expect(version).toBe(1);
      for (const { id } of members) loads.set(id, (loads.get(id) ?? 0) + 1);
    }
    expect([...loads.values()]).toEqual([150, 150, 150, 150, 150]);
    expect(world.remove(250)).toEqual([250]);
    expect(world.create()[0]!.id).toBe(251);
    expect(world.create({ id: 300 })[0]!.id).toBe(300);
    expect(world.create()[0]!.id).toBe(301);
  });

  test("are not made twice where the answer was lost, nor in part where a part was made", () => {
    const world = new World();
    const once = world.create({ request: "the very same", count: 3 });
    const { writes } = world;
    expect(world.create({ request: "the very same", count: 3 })).toEqual(once);
    expect(world.writes).toBe(writes);
    expect(world.create({ request: "the very same", count: 5 })).toHaveLength(5);
    expect(world.view.groups.size).toBe(5);
  });

  test("are refused where id or name was given, where there is no such node, and beyond the bound", () => {
    const world = new World();
    world.create({ name: "orders" });
    world.create({ id: 7 });
    world.remove(7);
    const refused = (wanted: Partial<NewGroups>, max?: number) =>
      expect(() => world.create(wanted, max));
    refused({ id: 1 }).toThrow("Group 1 has the id 1 already");
    refused({ id: 7 }).toThrow("never used again");
    refused({ name: "orders" }).toThrow("Group 1 has the name orders");
    refused({ members: [1, 9] }).toThrow("Node 9 cannot host groups");
    refused({ replicas: 6 }).toThrow("there are 5");
    refused({ count: 3 }, 3).toThrow("at most 3");
    expect(world.view.groups.size).toBe(1);
    // A name is free again with its group.
    world.remove(1);
    expect(world.create({ name: "orders" })[0]!.id).toBe(8);
  });
});

describe("members", () => {
  test("that go are still there until the leader says that they are not; who comes back meanwhile has never left", () => {
    const world = new World();
    world.create({ members: [1, 2, 3] });
    expect(world.move(1, [1, 2, 4])).toBe(true);
    expect(world.members(1)).toBe("1,2,4 but for 3");
    expect(world.entry(1).members.map(({ since }) => since)).toEqual([1, 1, 2]);
    expect(world.move(1, [1, 2, 4])).toBe(false);
    expect(world.move(1, [1, 2, 3])).toBe(true);
    expect(world.members(1)).toBe("1,2,3 but for 4");
    expect(world.entry(1).members.map(({ since }) => since)).toEqual([1, 1, 1]);
    world.settle(1);
    expect(world.members(1)).toBe("1,2,3");
  });

  test("that left and come back are new, and only for a later term", () => {
    const world = new World();
    world.create({ members: [1, 2, 3] });
    world.move(1, [1, 2, 4]);
    world.settle(1, 9);
    expect(world.members(1)).toBe("1,2,4");
    world.drop(3, 1);
    world.move(1, [1, 2, 3]);
    const back = world.entry(1).members.find(({ id }) => id === 3)!;
    expect(back).toEqual({ id: 3, incarnation: "folder-3", since: 5, aboveTerm: 9 });
    // The very first log is not for it.
    expect(world.entry(1).founders.map(({ id }) => id)).toEqual([1, 2, 3]);
  });

  test("that left come back only once they have dropped what they had of that stay", () => {
    const world = new World();
    world.create({ members: [1, 2, 3] });
    world.move(1, [1, 2]);
    world.settle(1);
    const first = world.left(1, 3);
    const { writes } = world;
    expect(() => world.move(1, [1, 2, 3])).toThrow("Node 3 was a member of group 1");
    world.drop(2, 1, first);
    world.drop(3, 1, first + 1);
    expect(world.writes).toBe(writes);
    expect(world.move(1, [1, 2, 4])).toBe(true);
    world.drop(3, 1, first);
    expect(world.move(1, [1, 2, 3, 4])).toBe(true);
    world.move(1, [1, 2]);
    world.settle(1);
    // Said of the first stay, and come late.
    world.drop(3, 1, first);
    expect(() => world.move(1, [1, 2, 3])).toThrow("Node 3 was a member of group 1");
    world.drop(3, 1);
    world.drop(4, 1);
    expect(world.entry(1).lingering ?? []).toEqual([]);
    world.drop(3, 9, first);
  });

  test("nobody waits for what a node had that has left the cluster, and none takes a place where it lingers", () => {
    const world = new World();
    world.create({ members: [1, 2, 3] });
    world.move(1, [1, 2, 4]);
    world.settle(1);
    world.move(1, [1, 2, 5]);
    world.settle(1);
    expect(world.entry(1).lingering?.map(({ id }) => id)).toEqual([3, 4]);
    world.leave(4);
    expect(world.entry(1).lingering?.map(({ id }) => id)).toEqual([3]);
    world.leave(5);
    expect(world.members(1)).toBe("1,2 but for 5");
    world.settle(1);
    world.leave(5);
    expect(world.entry(1).lingering?.map(({ id }) => id)).toEqual([3]);
  });

  test("a word of an older version settles nothing", () => {
    const world = new World();
    world.create({ members: [1, 2, 3] });
    world.move(1, [1, 2, 4]);
    const { version } = world.entry(1);
    world.move(1, [1, 2, 5]);
    world.run(settling([{ id: 1, version, term: 3 }]));
    expect(world.members(1)).toBe("1,2,5 but for 3,4");
  });

  test("whose nodes left the cluster are replaced by those with the fewest groups; where there are none, there are fewer members", () => {
    const world = new World();
    world.create({ count: 2, members: [1, 2, 3] });
    world.create({ count: 1, members: [1, 2, 4] });
    world.leave(3);
    expect([1, 2, 3].map((id) => world.members(id))).toEqual([
      "1,2,5 but for 3",
      "1,2,4 but for 3",
      "1,2,4",
    ]);
    world.leave(5);
    world.leave(4);
    for (const id of [1, 2, 3]) expect(world.members(id)).toStartWith("1,2 but for");
    world.hosts.push({ id: 6, incarnation: "folder-6" });
    world.leave(2);
    for (const id of [1, 2, 3]) expect(world.members(id)).toStartWith("1,6 but for");
  });

  test("not without any, and not on nodes that there are not", () => {
    const world = new World();
    world.create();
    expect(() => world.move(1, [])).toThrow("no member left");
    expect(() => world.move(1, [1, 2, 77])).toThrow("Node 77 cannot host");
    expect(() => world.move(2, [1])).toThrow("There is no group 2");
    expect(() => world.remove(2)).toThrow("There is no group 2");
    world.remove(1);
    expect(world.remove(1)).toEqual([]);
  });
});

test("nodes may leave the cluster as long as each group keeps its majority", () => {
  const world = new World();
  world.create({ members: [1, 2, 3] });
  world.create({ members: [3, 4, 5] });
  world.create({ members: [4] });
  const down = new Set<number>();
  let isNew = false;
  const refused = (...going: readonly number[]): string | undefined => {
    const entries = [...world.view.groups.values()].map(({ entry }) => entry);
    const problem = leavingProblem(entries, new Set(going), (id) => !down.has(id), isNew);
    return problem && `${problem.code}: ${problem.message}`;
  };
  expect(refused(1)).toBeUndefined();
  expect(refused(3)).toBeUndefined();
  expect(refused(1, 5)).toBeUndefined();
  expect(refused(2, 3)).toStartWith("no_live_majority: Without node 2, 3 the groups 1 would");
  expect(refused(4)).toContain("the groups 3 would");
  // Of its members one is down: that one may go, another not. Groups of others do not matter.
  down.add(2);
  expect(refused(2)).toBeUndefined();
  expect(refused(1)).toStartWith("no_live_majority: Without node 1 the groups 1 would");
  expect(refused(5)).toBeUndefined();
  // A new leader may not have heard of it yet. What does not depend on that it says at once.
  isNew = true;
  expect(refused(1)).toBe(
    "change_in_progress: The leader has only begun, and has not heard yet who is alive; try again.",
  );
  expect(refused(2, 3)).toStartWith("no_live_majority");
  isNew = false;
  down.clear();
  world.move(1, [1, 2, 4]);
  expect(refused(1)).toStartWith("change_in_progress: The groups 1 are being moved");
  expect(refused(5)).toBeUndefined();
  world.settle(1);
  expect(refused(1)).toBeUndefined();
});

test("a group does not come to where it would be lost: members that leave the cluster count as gone", () => {
  const world = new World();
  world.create({ id: 1, members: [1] });
  world.create({ id: 3, members: [1, 3, 4] });
  // As the registry says, or as this node has only heard.
  const noted = (): void => world.note(3, 1, 2);
  const heard = (): void => {
    world.forget(3, 2, 2);
    world.hosts = world.hosts.map((host) => (host.id === 2 ? { ...host, goes: true } : host));
  };
  for (const begins of [noted, heard]) {
    begins();
    const words = "Node 2 is leaving the cluster";
    expect(() => world.move(1, [1, 2])).toThrow(`${words}, and group 1 would be lost`);
    expect(() => world.move(1, [2])).toThrow(words);
    expect(() => world.create({ members: [2] })).toThrow(words);
    expect(() => world.create({ members: [2, 5] })).toThrow(words);
    expect(world.view.group(1)!.entry).toMatchObject({ version: 1 });
    // Two of three stay.
    expect(world.move(3, [1, 2, 3])).toBe(true);
    world.settle(3);
    world.drop(4, 3);
    expect(world.create({ members: [2, 4, 5] })).toMatchObject([{ replicas: 3 }]);
    // It has no more to lose than before.
    expect(world.move(3, [1, 3, 4])).toBe(true);
    world.settle(3);
    world.drop(2, 3);
    // Where nobody says, others are taken as long as there are any.
    for (const { members } of world.create({ count: 8, replicas: 1 })) {
      expect(members[0]!.id).not.toBe(2);
    }
    expect(world.create({ replicas: 5 })[0]!.members.map(({ id }) => id)).toEqual([1, 2, 3, 4, 5]);
  }
  world.hosts = world.hosts.map(({ id, incarnation }) => ({ id, incarnation }));
  expect(world.move(1, [1, 2])).toBe(true);
});

test("nor where an old member has to go before a new one can come", () => {
  const world = new World();
  world.hosts = Array.from({ length: 12 }, (_, at) => ({
    id: at + 1,
    incarnation: `folder-${at + 1}`,
  }));
  world.create({ members: [1, 2, 3, 4, 5, 6, 7] });
  world.note(3, 1, 7);
  expect(() => world.move(1, [1, 2, 3, 9, 10, 11])).toThrow("no room for all its new members");
  expect(world.move(1, [1, 2, 3, 9, 10])).toBe(true);
});

describe("a node that leaves the cluster", () => {
  test("is noted before it goes, and what was thought out before that does not hold afterwards", () => {
    const world = new World();
    world.create({ id: 1, members: [3] });
    const ask = { request: "request-x", count: 1, machine: "kv", applyVersion: 3 };
    const none = { id: undefined, name: undefined, replicas: undefined, logBytesMax: undefined };
    const plans = [
      creation({ ...ask, ...none, members: [2] }, () => world.hosts, 9, new Map()),
      move(
        1,
        () => [2],
        () => world.hosts,
        () => {},
      ),
    ];
    const writes = plans.map((plan) => plan(world.view)!);
    world.note(3, 1, 2);
    expect(world.waits(2)).toBe("");
    expect(writes.map((write) => world.holds(write))).toEqual([false, false]);
    expect(world.view.groups.size).toBe(1);
    expect(world.members(1)).toBe("3");
    for (const plan of plans) expect(() => plan(world.view)).toThrow("Node 2 is leaving");
  });

  test("nor what was thought out to replace others", () => {
    const world = new World();
    world.hosts = world.hosts.filter(({ id }) => id !== 3 && id !== 4);
    world.hosts.push({ id: 9, incarnation: "folder-9" });
    world.create({ members: [9] });
    world.create({ members: [1, 9] });
    world.hosts.pop();
    const write = replacing(() => world.hosts, world.isNode)(world.view)!;
    world.note(3, 1, 2);
    expect(world.holds(write)).toBe(false);
    world.replace();
    expect(world.members(2)).toBe("1,5 but for 9");
  });

  test("waits while a group would be lost with it, which goes elsewhere by itself, and until it is there", () => {
    const world = new World();
    world.create({ id: 1, members: [1] });
    world.create({ id: 2, members: [1, 2] });
    world.create({ id: 3, members: [1, 2, 3] });
    world.note(3, 1, 1);
    expect([world.waits(1), world.waits(2)]).toEqual(["no_live_majority", "no_live_majority"]);
    world.replace();
    expect(world.members(1)).toBe("4 but for 1");
    expect(world.members(2)).toBe("2,5 but for 1");
    // It goes on without.
    expect(world.members(3)).toBe("1,2,3");
    expect(world.waits(1)).toBe("change_in_progress");
    world.settle(1);
    expect(world.waits(1)).toBe("change_in_progress");
    world.settle(2);
    expect(world.waits(1)).toBe("");
    const { writes } = world;
    world.replace();
    expect(world.writes).toBe(writes);
  });

  test("waits where there is nowhere else to go; somebody says where, or that it may be lost", () => {
    const world = new World();
    world.hosts = world.hosts.slice(0, 2);
    world.create({ id: 1, members: [1, 2] });
    world.note(3, 1, 1);
    world.replace();
    expect(world.members(1)).toBe("1,2");
    expect(world.waits(1)).toBe("no_live_majority");
    expect(world.move(1, [2])).toBe(true);
    world.settle(1);
    expect(world.waits(1)).toBe("");
    world.create({ id: 2, members: [2] });
    world.note(3, 2, 2);
    expect(world.waits(2)).toBe("no_live_majority");
    world.run(noting({ nodes: [2], term: 3, word: 2 }, true));
    expect(world.waits(2)).toBe("");
    // It stays so, whoever leads next.
    world.note(4, 1, 2);
    expect(world.waits(2)).toBe("");
  });

  test("is let go though another one is noted later: that one waits", () => {
    const world = new World();
    world.create({ members: [1, 2, 3] });
    world.note(3, 1, 2);
    expect(world.waits(2)).toBe("");
    world.note(3, 2, 1);
    expect([world.waits(2), world.waits(1)]).toEqual(["", "no_live_majority"]);
    // The next leader says so anew: they stay in their order.
    world.note(4, 1, 1);
    world.note(4, 2, 2);
    expect([world.waits(2), world.waits(1)]).toEqual(["", "no_live_majority"]);
    world.replace();
    expect(world.members(1)).toBe("3,4,5 but for 1,2");
    world.settle(1);
    expect([world.waits(2), world.waits(1)]).toEqual(["", ""]);
    // One that has left without a word counts as gone as well.
    world.create({ id: 2, members: [1, 3, 5] });
    world.forget(4, 3, 2);
    world.hosts = world.hosts.filter(({ id }) => id !== 5);
    expect(world.waits(1)).toBe("no_live_majority");
  });

  test("is known until it has left and no group names it", () => {
    const world = new World();
    world.create({ members: [1, 2, 3] });
    world.note(3, 1, 1, 5);
    const forget = (): void => world.run(forgettingLeft(world.isNode));
    forget();
    expect(world.going).toBe("1@3.1,5@3.1");
    world.hosts = world.hosts.filter(({ id }) => id !== 1 && id !== 5);
    forget();
    expect(world.going).toBe("1@3.1");
    world.replace();
    expect(world.members(1)).toBe("2,3,4 but for 1");
    forget();
    expect(world.going).toBe("1@3.1");
    world.settle(1);
    forget();
    expect(world.going).toBe("");
  });

  test("stays only by a later word of the same leader, or one of a later leader", () => {
    const world = new World();
    world.note(3, 5, 1, 2);
    expect(world.going).toBe("1@3.5,2@3.5");
    world.forget(3, 4, 1);
    world.forget(3, 5, 1);
    world.forget(2, 9, 1);
    expect(world.going).toBe("1@3.5,2@3.5");
    // Said earlier and come late, it renews nothing.
    world.note(3, 4, 1);
    world.note(2, 9, 1);
    expect(world.going).toBe("1@3.5,2@3.5");
    world.forget(3, 6, 1);
    expect(world.going).toBe("2@3.5");
    world.note(4, 1, 2);
    world.forget(3, 7, 2);
    expect(world.going).toBe("2@4.1");
    world.forget(5, 1, 2, 1);
    expect(world.going).toBe("");
    expect(world.view.going.revision).toBe(0);
  });
});

test("the view is the same, however it came about, and tells each group that changes", () => {
  const seed = Number(process.env["BARGE_TEST_SEED"] ?? 5);
  const random = new Random(seed);
  const world = new World();
  for (let step = 0; step < 300; step++) {
    const ids = [...world.view.groups.keys()];
    const id = ids[Math.floor(random.float() * ids.length)];
    const before = new Map(world.view.groups);
    world.told.length = 0;
    if (id === undefined || random.chance(0.4)) world.create({ count: 1 + (step % 3) });
    else if (random.chance(0.3)) world.remove(id);
    else if (random.chance(0.5)) world.settle(id);
    else {
      for (const { id: node } of world.entry(id).lingering ?? []) world.drop(node, id);
      world.move(id, [1, 2, 3, 4, 5].filter(() => random.chance(0.6)).concat(3));
    }
    const changed = [...new Set([...before.keys(), ...world.view.groups.keys()])].filter(
      (each) => before.get(each) !== world.view.group(each),
    );
    expect({ seed, told: [...new Set(world.told)].toSorted() }).toEqual({
      seed,
      told: changed.toSorted(),
    });
  }
  expect(world.view.groups.size).toBeGreaterThan(3);
});

test("whatever is written there in place of what is understood harms no other group, and nothing is made upon it", () => {
  const seed = Number(process.env["BARGE_TEST_SEED"] ?? 9);
  const random = new Random(seed);
  const bytes = (): Uint8Array =>
    Uint8Array.from({ length: random.below(40) }, () => random.below(256));
  const world = new World();
  const [kept, stray] = [world.create()[0]!, world.create()[0]!];
  const keys = [
    "group/",
    "group/x",
    "group/0000000077",
    `group/${"9".repeat(30)}`,
    "name/a",
    "going",
    "other",
  ];
  for (let step = 0; step < 200; step++) world.write(random.pick(keys), bytes());
  // A sound entry, under the key of another group.
  world.write("group/0000000078", encodeEntry(world.view.group(stray.id)!.entry));
  const { view } = world;
  expect({ seed, ids: [...view.groups.keys()] }).toEqual({ seed, ids: [kept.id, stray.id] });
  expect([77, 78, kept.id].map((id) => view.isUnreadable(id))).toEqual([true, true, false]);
  for (let step = 0; step < 50; step++) {
    world.write("ids", bytes());
    expect(() => world.create()).toThrow("All ids of groups were given");
  }
  expect(view.groups.size).toBe(2);
});

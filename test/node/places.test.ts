/** What the leader of group 0 asks the registry before it lets nodes go, and what it makes of the answers. */
import { expect, test } from "bun:test";
import type { Group } from "../../src/node/group.ts";
import { Places } from "../../src/node/places.ts";
import type { RegistryView } from "../../src/node/registry-view.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import type { AdminWaiter } from "../../src/server/groups.ts";
import type { ReleasedAnswer } from "../../src/wire/admin.ts";
import { BargeError } from "../../src/errors.ts";
import { defaultGroup, systemGroup } from "../../src/wire/registry.ts";

interface Asked {
  /** 0 = whom it takes for the leader. */
  readonly to: number;
  readonly operation: string;
  readonly body: object;
  readonly waiter: AdminWaiter;
}

const plain: Configuration = { voters: [1, 2, 3], outgoing: [], learners: [], addresses: {} };

/** Node 1 leads group 0; 4 comes for 3, and 5 for nobody. */
class World {
  readonly cluster = {
    role: "leader",
    term: 7,
    configuration: { ...plain, learners: [4, 5], promotions: { 4: 3, 5: 0 } } as Configuration,
    configurationCommitted: true,
    keptPlaces: new Map<number, string>(),
  };
  readonly system = {
    raft: { configuration: plain },
    leader: 2,
    stopped: undefined as string | undefined,
  };
  readonly groups = new Map<number, object>();
  readonly asked: Asked[] = [];
  readonly noted = new Set<number>();
  readonly places: Places;
  #nowMs = 0;

  constructor() {
    this.groups.set(defaultGroup, {
      nodeId: 1,
      raft: this.cluster,
      mayHaveRegistry: true,
    });
    this.groups.set(systemGroup, this.system);
    const view = { isGoing: (id: number) => this.noted.has(id) };
    this.places = new Places({
      view: view as unknown as RegistryView,
      group: (id) => this.groups.get(id) as unknown as Group,
      askLeader: (operation, body, waiter) =>
        void this.asked.push({ to: 0, operation, body, waiter }),
      askAt: (to, operation, body, waiter) => void this.asked.push({ to, operation, body, waiter }),
    });
  }

  /** A second goes by. What is asked meanwhile. */
  step(): Asked[] {
    this.places.keep();
    this.places.step((this.#nowMs += 1_000));
    return this.asked.splice(0);
  }

  get kept(): [number, string][] {
    this.places.keep();
    return [...this.cluster.keptPlaces];
  }
}

function answer({ waiter }: Asked, answered: ReleasedAnswer): void {
  waiter.answered(answered);
}

test("a place that another one takes is kept until the registry has said in this term that its holder can go", () => {
  const world = new World();
  const { cluster } = world;
  expect(world.kept).toEqual([[3, "system"]]);
  const [first, ...others] = world.step();
  expect(others).toEqual([]);
  expect(first).toMatchObject({
    to: 0,
    operation: "releaseNodes",
    body: { nodes: [3], term: 7, word: 1, replaced: true },
  });
  // One question at a time.
  expect(world.step()).toEqual([]);
  answer(first!, { waitsFor: "groups" });
  expect(world.kept).toEqual([[3, "groups"]]);
  const [again] = world.step();
  expect(again!.body).toEqual(first!.body);
  answer(again!, {});
  expect(world.kept).toEqual([]);
  expect(world.step()).toEqual([]);
  // A later leader, be it the same node, knows nothing of what was taken back meanwhile.
  cluster.term = 9;
  expect(world.kept).toEqual([[3, "groups"]]);
  expect(world.step()).toMatchObject([{ body: { nodes: [3], term: 9, word: 2 } }]);
  cluster.role = "follower";
  expect(world.step()).toEqual([]);
});

test("what was said of one replacement is not for the next one", () => {
  const world = new World();
  const { cluster } = world;
  const { configuration } = cluster;
  const [first] = world.step();
  cluster.configuration = { ...configuration, promotions: { 5: 0 } };
  expect(world.kept).toEqual([]);
  cluster.configuration = configuration;
  expect(world.kept).toEqual([[3, "system"]]);
  answer(first!, {});
  expect(world.kept).toEqual([[3, "system"]]);
  expect(world.step()).toMatchObject([{ body: { nodes: [3], word: 2 } }]);
});

test("no place is kept where there is no registry, nor one about to begin, or none here that goes on", () => {
  const world = new World();
  world.groups.delete(systemGroup);
  expect(world.kept).toEqual([[3, "system"]]);
  world.groups.set(defaultGroup, { nodeId: 1, raft: world.cluster, mayHaveRegistry: false });
  expect(world.kept).toEqual([]);
  world.groups.set(systemGroup, world.system);
  expect(world.kept).toEqual([[3, "system"]]);
  world.system.stopped = "an invariant is broken";
  expect(world.kept).toEqual([]);
  expect(world.step()).toEqual([]);
});

test("who hears of no leader asks one after the other", () => {
  const world = new World();
  const to: number[] = [];
  const failure = new BargeError("no_leader", "none");
  for (let round = 0; round < 6; round++) {
    const [asked] = world.step();
    to.push(asked!.to);
    asked!.waiter.failed(failure);
  }
  expect(to).toEqual([0, 2, 3, 4, 5, 0]);
  answer(world.step()[0]!, {});
  expect(world.kept).toEqual([]);
});

test("what is noted of nodes that stay is taken back, but for those that a request still has go", () => {
  const world = new World();
  const { cluster } = world;
  const ask = (): object | undefined =>
    world.step().find(({ operation }) => operation === "keepNodes");
  // Who is replaced goes.
  world.noted.add(3);
  expect(ask()).toBeUndefined();
  world.noted.add(2);
  const letGo = world.places.hold([2, 2]);
  expect(ask()).toBeUndefined();
  letGo();
  cluster.configurationCommitted = false;
  expect(ask()).toBeUndefined();
  cluster.configurationCommitted = true;
  const asked = ask() as Asked;
  expect(asked.body).toEqual({ nodes: [2], term: 7, word: 2 });
  expect(ask()).toBeUndefined();
  answer(asked, {});
  // Who is out of `system` itself says it of all.
  world.noted.clear();
  world.system.raft.configuration = { ...plain, voters: [2, 3] };
  expect(ask()).toMatchObject({ body: { nodes: [1, 2, 4, 5] } });
});

/** Beats between nodes with many groups (decision 34): what travels, what is noticed, and that nothing is believed that is not so. */
import { describe, expect, test } from "bun:test";
import type { BeatMessage } from "../../src/wire/beat-message.ts";
import { lookTicks, type Replica, World } from "./beats-world.ts";

const electionTypes = ["preVote", "vote"] as const;

describe("what travels", () => {
  test("one beat per pair, direction and interval, however many groups, and nothing else", () => {
    const world = new World({ groups: 40 }).ready();
    const { heartbeatTicks } = world.limits;
    const intervals = 50;
    world.tick(intervals * heartbeatTicks);
    for (const from of [1, 2, 3]) {
      for (const to of [1, 2, 3]) {
        if (from !== to) expect(world.beats(from, to).length).toBeLessThanOrEqual(intervals + 1);
      }
    }
    expect(world.sent.every(({ type }) => type === "beat")).toBe(true);
    expect(world.beats().every(({ claims }) => claims.length === 0)).toBe(true);
    expect(
      world.beats().every(({ refused, asksWhole }) => refused.length === 0 && !asksWhole),
    ).toBe(true);
    for (let group = 0; group < 40; group++) {
      const leader = world.leaderOf(group)!;
      expect(leader.raft.ledAgeTicks).toBeLessThan(3 * heartbeatTicks);
      for (const { groups } of world.nodes.values()) {
        const stale = groups.get(group)!.raft.stalenessTicks;
        expect(stale).toBeLessThanOrEqual(4 * heartbeatTicks);
      }
    }
  });

  test("a group that has moved on is claimed anew, and only that", () => {
    const world = new World({ groups: 12 }).leadAll(1);
    world.leaderOf(5)!.propose();
    world.tick(4 * world.limits.heartbeatTicks);
    const claims = world.beats(1, 2).flatMap((beat) => beat.claims);
    expect(new Set(claims.map(({ group }) => group))).toEqual(new Set([5]));
    expect(claims.at(-1)!.commit).toBe(world.leaderOf(5)!.raft.commit);
    expect(claims.at(-1)!.minMatch).toBe(world.leaderOf(5)!.raft.commit);
    expect(world.count("heartbeat")).toBe(0);
    expect(world.node(2).groups.get(5)!.raft.minMatch()).toBe(world.leaderOf(5)!.raft.commit);
  });

  test("of few groups each goes by its own heartbeats, as if there were no beats", () => {
    const world = new World({ groups: 2 }).leadAll(1);
    world.tick(10 * world.limits.heartbeatTicks);
    expect(world.count("beat")).toBe(0);
    expect(world.count("heartbeat")).toBe(10 * 2 * 2);
  });

  test("to a node of an older build go heartbeats", () => {
    const world = new World({ groups: 6, old: [3] }).leadAll(1);
    world.tick(10 * world.limits.heartbeatTicks);
    expect(world.beats().filter(({ from, to }) => from === 3 || to === 3)).toEqual([]);
    const heartbeats = world.sent.filter(({ type }) => type === "heartbeat");
    expect(heartbeats.every(({ to }) => to === 3)).toBe(true);
    expect(heartbeats.length).toBe(10 * 6);
    // Where it has no answers by beats it has them by rounds.
    for (let group = 0; group < 6; group++)
      expect(world.leaderOf(group)!.raft.ledAgeTicks).toBeLessThanOrEqual(
        2 * world.limits.heartbeatTicks,
      );
  });

  test("groups with other members are claimed where they are", () => {
    const world = new World({
      nodes: 5,
      groups: 20,
      membersOf: (group) => [0, 1, 2].map((at) => ((group + at) % 5) + 1).toSorted(),
    }).ready();
    world.tick(8 * world.limits.heartbeatTicks);
    expect(world.count("heartbeat", ...electionTypes)).toBe(0);
    for (const { id, beats } of world.nodes.values()) {
      for (const other of world.nodes.values()) {
        let shared = 0;
        for (let group = 0; group < 20; group++) {
          if (world.leaderOf(group)!.nodeId === id && other.groups.has(group)) shared++;
        }
        if (other.id !== id && shared >= 3) expect(beats.groupsTo(other.id)).toBe(shared);
      }
    }
  });

  test("each node knows how many groups the others lead", () => {
    const world = new World({ groups: 9 }).leadAll(2);
    expect(world.node(1).beats.loadOf(2)).toEqual({ leads: 9, preferred: false, reluctant: false });
    expect(world.node(2).beats.loadOf(1)).toEqual({ leads: 0, preferred: false, reluctant: false });
    world.node(3).beats.isReluctant = true;
    world.tick(2 * world.limits.heartbeatTicks);
    expect(world.node(2).beats.loadOf(3)!.reluctant).toBe(true);
    // They have nothing to say to each other.
    expect(world.node(1).beats.loadOf(3)).toBeUndefined();
  });
});

test("a group at rest has no part in a beat without news; it is told of the newest before anything else", () => {
  const world = new World({ groups: 8, rests: true }).leadAll(1);
  const { electionTicksMin, electionTicksMax, heartbeatTicks } = world.limits;
  const node = world.node(2);
  const replica = node.groups.get(5)!;
  const had = new Set<number>();
  for (let i = 0; i < 10 * electionTicksMax; i++) {
    world.tick();
    had.add(replica.tickedTo);
  }
  // No oftener than its time-outs end, which are twenty-four ticks long on average.
  expect(had.size).toBeWithin(8, (10 * electionTicksMax) / (electionTicksMin - lookTicks) + 2);
  expect(world.count(...electionTypes)).toBe(0);
  node.beats.catchUp(replica);
  expect(replica.raft.stalenessTicks).toBeLessThan(3 * heartbeatTicks);
});

describe("how old local state may be", () => {
  test("a leader that no majority answers makes nobody's state fresh, though one member answers", () => {
    const world = new World({ nodes: 5, groups: 4 }).leadAll(1);
    world.delivers = ({ from, to }) => to !== 1 || from === 2;
    const { heartbeatTicks, electionTicksMin } = world.limits;
    const two = world.node(2).groups.get(1)!.raft;
    const before = two.stalenessTicks;
    world.tick(electionTicksMin);
    expect(world.beats(2, 1).length).toBeGreaterThan(2);
    expect(world.leaderOf(1)!.nodeId).toBe(1);
    expect(two.stalenessTicks).toBeGreaterThanOrEqual(
      electionTicksMin + Math.min(before, heartbeatTicks) - 3 * heartbeatTicks,
    );
    world.tick(electionTicksMin / 2);
    expect(two.stalenessTicks).toBeGreaterThanOrEqual(electionTicksMin);
    expect(world.leaderOf(1)!.raft.stalenessTicks).toBeGreaterThanOrEqual(electionTicksMin);
  });

  test("a member that lags is not fresh, whatever it hears; once it has all, it is", () => {
    const world = new World({ groups: 4 }).leadAll(1);
    world.delivers = (message) => message.type !== "append" || message.to !== 2;
    const two = world.node(2).groups.get(1)!.raft;
    world.leaderOf(1)!.propose();
    // Its own ticks go on, and beats come all the time: nothing was lost but what makes it current.
    const ticks = 3 * world.limits.electionTicksMin;
    world.tick(ticks);
    expect(world.node(3).groups.get(1)!.raft.stalenessTicks).toBeLessThan(ticks / 2);
    expect(two.stalenessTicks).toBeGreaterThanOrEqual(ticks);
    world.delivers = () => true;
    world.tick(2 * world.limits.electionTicksMin);
    expect(two.stalenessTicks).toBeLessThan(world.limits.electionTicksMin);
  });

  test("what every member has is told, also where nothing else has changed", () => {
    const world = new World({ groups: 4 }).leadAll(1);
    world.delivers = (message) => message.type !== "append" || message.to !== 3;
    world.leaderOf(1)!.propose();
    world.tick(2 * world.limits.electionTicksMin);
    const { commit } = world.leaderOf(1)!.raft;
    const two = world.node(2).groups.get(1)!.raft;
    expect([two.commit, two.minMatch() < commit]).toEqual([commit, true]);
    world.delivers = () => true;
    world.tick(2 * world.limits.electionTicksMin);
    expect(two.minMatch()).toBe(commit);
  });
});

describe.each([false, true])("what is noticed, groups at rest: %p", (rests) => {
  test("a beat that is lost with its claims: the whole set is asked for and sent, and nobody campaigns", () => {
    const world = new World({ rests, groups: 8 }).leadAll(1);
    let lost: BeatMessage | undefined;
    world.delivers = (message) => {
      if (message.type !== "beat" || message.to !== 2 || message.claims.length === 0) return true;
      if (lost !== undefined) return true;
      lost = message;
      return false;
    };
    world.leaderOf(3)!.propose();
    world.tick(3 * world.limits.heartbeatTicks);
    expect(lost).toBeDefined();
    expect(world.beats(2, 1).filter(({ asksWhole }) => asksWhole).length).toBe(1);
    const whole = world.beats(1, 2).filter((beat) => beat.whole);
    expect(whole.map(({ claims }) => claims.length)).toEqual([8]);
    expect(world.count(...electionTypes)).toBe(0);
  });

  test("a beat that is lost without claims: nothing is missing", () => {
    const world = new World({ rests, groups: 8 }).leadAll(1);
    let lost = 0;
    world.delivers = (message) => message.type !== "beat" || message.to !== 2 || lost++ > 0;
    world.tick(6 * world.limits.heartbeatTicks);
    expect(world.beats().some(({ whole, asksWhole }) => whole || asksWhole)).toBe(false);
  });

  test("a set that differs though no beat was lost: nothing of it is believed", () => {
    const world = new World({ rests, groups: 8 }).leadAll(1);
    // As if a claim had been kept over a change: by digest alone it can be seen.
    const [real] = (world.tick(world.limits.heartbeatTicks), world.beats(1, 2));
    const replica = world.node(2).groups.get(3)!;
    const { raft } = replica;
    world.node(2).beats.catchUp(replica);
    const heardBefore = raft.stalenessTicks;
    world.tickAll();
    world.node(2).beats.catchUp(replica);
    world.node(2).beats.received({ ...real!, seq: real!.seq + 1, digest: real!.digest ^ 1 });
    expect(raft.stalenessTicks).toBe(heardBefore + 1);
    world.sent = [];
    world.settle();
    expect(world.beats(2, 1).map(({ asksWhole, answered }) => [asksWhole, answered])).toEqual([
      [true, 0],
    ]);
  });

  test("a group that does not stand by it goes by its own heartbeats, alone; by beats again when it answers", () => {
    const world = new World({ rests, groups: 8 }).leadAll(1);
    world.node(2).groups.get(6)!.stopped = "for the test";
    world.tick(6 * world.limits.heartbeatTicks);
    const own = world.sent.filter((message) => message.type === "heartbeat");
    expect(own.length).toBeGreaterThan(3);
    expect(
      own.every((message) => message.to === 2 && "group" in message && message.group === 6),
    ).toBe(true);
    expect(world.node(1).beats.groupsTo(2)).toBe(7);
    expect(world.node(1).beats.groupsTo(3)).toBe(8);
    world.node(2).groups.get(6)!.stopped = undefined;
    world.tick(3 * world.limits.heartbeatTicks);
    expect(world.node(1).beats.groupsTo(2)).toBe(8);
  });

  test("a group that is not there, or is gone, is refused and creates nothing", () => {
    const world = new World({ rests, groups: 8 }).leadAll(1);
    world.node(2).groups.delete(4);
    world.tick(4 * world.limits.heartbeatTicks);
    expect(world.beats(2, 1).flatMap(({ refused }) => refused)).toContain(4);
    expect(world.node(2).groups.has(4)).toBe(false);
    expect(world.node(1).beats.groupsTo(2)).toBe(7);
    expect(world.count(...electionTypes)).toBe(0);
  });

  test("a new leader elsewhere: the claim of the old one is refused, and it steps down", () => {
    const world = new World({ rests, groups: 8 }).leadAll(1);
    const old = world.node(1).groups.get(2)!.raft;
    // Nodes 2 and 3 elect another for one group, of which node 1 hears nothing.
    world.delivers = (message) => message.type !== "beat" && message.from !== 1 && message.to !== 1;
    const others = [2, 3].map((id) => world.node(id).groups.get(2)!.raft);
    for (let i = 0; i < 3 * world.limits.electionTicksMax && world.leaderOf(2)!.nodeId === 1; i++) {
      for (const raft of others) raft.tick();
      world.settle();
    }
    const challenger = world.leaderOf(2)!;
    expect([2, 3]).toContain(challenger.nodeId);
    expect(old.role).toBe("leader");
    world.delivers = (message) => message.from === 1 || message.type === "beat";
    world.sent = [];
    world.tick(2 * world.limits.heartbeatTicks);
    for (const id of [2, 3])
      expect(world.beats(id, 1).flatMap(({ refused }) => refused)).toContain(2);
    world.delivers = () => true;
    world.tick(2 * world.limits.heartbeatTicks);
    expect(old.role).toBe("follower");
    expect(world.leaderOf(2)!).toBe(challenger);
  });
});

describe.each([false, true])("connections and lives, groups at rest: %p", (rests) => {
  test("a node that starts again is told everything anew; what its earlier life sent does not count", () => {
    const world = new World({ rests, groups: 8 }).leadAll(1);
    world.tickAll();
    for (let i = 0; i < world.limits.heartbeatTicks; i++) world.tickAll();
    world.turn(world.node(1));
    const early = [...world.wire];
    expect(early.some(({ message }) => message.type === "beat")).toBe(true);
    world.restart(2);
    world.settle();
    world.tick(4 * world.limits.heartbeatTicks);
    expect(world.node(1).beats.groupsTo(2)).toBe(8);
    expect(world.node(2).groups.get(0)!.raft.leader).toBe(1);
    expect(world.count(...electionTypes)).toBe(0);
    // Not even where it arrives over the new connection.
    const before = world.node(2).groups.get(0)!.raft.stalenessTicks;
    for (const { message } of early) {
      if (message.type === "beat" && message.to === 2) world.node(2).beats.received(message);
    }
    expect(world.node(2).groups.get(0)!.raft.stalenessTicks).toBe(before);
    world.settle();
    world.tick(2 * world.limits.heartbeatTicks);
    expect(world.node(1).beats.groupsTo(2)).toBe(8);
    expect(world.count(...electionTypes)).toBe(0);
  });

  test("a new connection while nothing else happens", () => {
    const world = new World({ rests, groups: 8 }).leadAll(1);
    world.connect(3);
    world.tick(6 * world.limits.heartbeatTicks);
    expect(world.node(1).beats.groupsTo(3)).toBe(8);
    expect(world.count(...electionTypes)).toBe(0);
  });

  test("a node that dies: its groups have other leaders soon, and the others keep theirs", () => {
    const world = new World({ rests, groups: 60, seed: 3 }).ready();
    const dead = world.node(1);
    const orphans: number[] = [];
    const terms = new Map<number, number>();
    for (let group = 0; group < 60; group++) {
      const leader = world.leaderOf(group)!;
      if (leader.nodeId === 1) orphans.push(group);
      else terms.set(group, leader.raft.term);
    }
    expect(orphans.length).toBeGreaterThan(5);
    world.delivers = ({ from, to }) => from !== 1 && to !== 1;
    const seen: number[] = [];
    for (let i = 0; i < 2 * world.limits.electionTicksMax; i++) {
      for (const { raft } of dead.groups.values()) raft.stepDown("dead");
      const before = world.count("vote");
      world.tick();
      seen.push(world.count("vote") - before);
    }
    for (const group of orphans) expect([2, 3]).toContain(world.leaderOf(group)!.nodeId);
    for (const [group, term] of terms) expect(world.leaderOf(group)!.raft.term).toBe(term);
    // Spread over the time-outs, not all at once: of a vote goes one message to each of two.
    expect(Math.max(...seen)).toBeLessThan(orphans.length);
  });
});

describe("a peer that lies", () => {
  const lies: readonly Partial<BeatMessage>[] = [
    { claims: [{ group: 99, term: 5, commit: 1, minMatch: 1 }], count: 1, whole: true },
    { count: 0xffff_ffff },
    { answered: 1, refused: [0, 1, 2, 77] },
    { freshStamp: Number.MAX_SAFE_INTEGER },
    { stamp: Number.MAX_SAFE_INTEGER, seq: Number.MAX_SAFE_INTEGER },
    {
      whole: true,
      claims: [
        {
          group: 1,
          term: Number.MAX_SAFE_INTEGER,
          commit: Number.MAX_SAFE_INTEGER,
          minMatch: Number.MAX_SAFE_INTEGER,
        },
      ],
      count: 1,
    },
    { leads: 0xffff_ffff, asksWhole: true },
  ];

  test("is believed no more than by heartbeats, and harms no group but those that it leads", () => {
    const world = new World({ groups: 8 }).leadAll(1);
    const [sample] = (world.tick(world.limits.heartbeatTicks), world.beats(1, 2));
    const terms = [...world.node(2).groups.values()].map(({ raft }) => raft.term);
    for (const lie of lies) {
      world.node(2).beats.received({ ...sample!, from: 3, to: 2, ...lie });
      world.settle();
    }
    world.tick(6 * world.limits.heartbeatTicks);
    expect([...world.node(2).groups.values()].map(({ raft }) => raft.term)).toEqual(terms);
    for (let group = 0; group < 8; group++) {
      expect(world.leaderOf(group)!.nodeId).toBe(1);
      expect(world.node(2).groups.get(group)!.raft.leader).toBe(1);
    }
    expect(world.count(...electionTypes)).toBe(0);
  });

  test("does not make a node remember more than it has bounds for", () => {
    const world = new World({ groups: 4, limits: { beatGroupsMax: 10 } }).leadAll(1);
    const [sample] = (world.tick(world.limits.heartbeatTicks), world.beats(1, 2));
    const claims = Array.from({ length: 1_000 }, (_, group) => ({
      group,
      term: 1,
      commit: 1,
      minMatch: 1,
    }));
    world.sent = [];
    world.node(2).beats.received({ ...sample!, from: 3, whole: true, claims, count: 1_000 });
    world.settle();
    expect(world.beats(2, 3).map(({ asksWhole, refused }) => [asksWhole, refused])).toEqual([
      [true, []],
    ]);
  });
});

/* ------------------------------------------------------------------ anything may happen */

/** What was committed when, over all nodes: what reads and local state are measured by. */
class Truth {
  readonly #committed = new Map<number, number[]>();
  readonly #leaders = new Map<string, number>();

  look(world: World): void {
    for (const { groups } of world.nodes.values())
      for (const replica of groups.values()) this.#see(world, replica);
  }

  #see({ nowTick }: World, { id, nodeId, raft }: Replica): void {
    const known = this.#committed.get(id) ?? [0];
    while (known.length <= nowTick) known.push(known.at(-1)!);
    known[nowTick] = Math.max(known[nowTick]!, raft.commit);
    this.#committed.set(id, known);
    if (raft.role !== "leader") return;
    const term = `${id}/${raft.term}`;
    const leader = this.#leaders.get(term) ?? nodeId;
    if (leader !== nodeId) throw new Error(`group ${term}: nodes ${leader} and ${nodeId} lead`);
    this.#leaders.set(term, leader);
  }

  committed(group: number, tick: number): number {
    return this.#committed.get(group)?.[Math.max(0, tick)] ?? 0;
  }
}

function anything(seed: number): void {
  const world = new World({
    groups: 6,
    seed,
    rests: seed % 3 > 0,
    limits: {
      heartbeatTicks: 2,
      electionTicksMin: 8,
      electionTicksMax: 16,
      checkQuorumTicks: 12,
      beatGroupsMin: 1 + (seed % 3),
    },
  });
  const { random } = world;
  const truth = new Truth();
  const asked = new Map<number, { readonly replica: Replica; readonly least: number }>();
  let context = 0;
  let away = 0;
  for (let step = 0; step < 500; step++) {
    if (random() < 0.02) away = Math.floor(random() * 4);
    const fault = random();
    if (fault < 0.01) world.restart(1 + Math.floor(random() * 3));
    else if (fault < 0.02) world.connect(1 + Math.floor(random() * 3));
    const ids = [...world.nodes.keys()].filter(() => random() < 0.95);
    world.nowTick++;
    for (const id of ids) world.tickNode(world.node(id));
    for (let round = 0; round < 6; round++) {
      for (const node of world.nodes.values()) {
        world.turn(node);
        truth.look(world);
      }
      const kept: typeof world.wire = [];
      for (const sent of world.wire.splice(0)) {
        const { from, to } = sent.message;
        if (from === away || to === away ? random() < 0.95 : random() < 0.02) continue;
        if (random() < 0.3) kept.push(sent);
        else world.deliver(sent);
        if (random() < 0.02) kept.push(sent);
      }
      world.wire.push(...kept);
      for (const { groups } of world.nodes.values()) {
        for (const replica of groups.values()) {
          for (const { context: read, index, ok } of replica.reads.splice(0)) {
            const question = asked.get(read);
            asked.delete(read);
            if (ok && question !== undefined && index < question.least)
              throw new Error(`group ${replica.id}: read at ${index}, committed ${question.least}`);
          }
        }
      }
    }
    for (const node of world.nodes.values()) {
      for (const replica of node.groups.values()) {
        if (random() < 0.7) continue;
        node.beats.catchUp(replica);
        if (random() < 0.3) replica.propose();
        if (random() < 0.15) {
          asked.set(++context, { replica, least: truth.committed(replica.id, world.nowTick) });
          replica.raft.readIndex(context);
        }
        // Clocks that lost ticks are slow: to them it seems less long ago than it is, by as many as they lost at most.
        const { stalenessTicks, appliedIndex } = replica.raft;
        if (stalenessTicks === Infinity) continue;
        const least = truth.committed(replica.id, world.nowTick - 2 * stalenessTicks - 8);
        if (appliedIndex < least)
          throw new Error(`group ${replica.id} on ${replica.nodeId}: older than it says`);
      }
    }
  }
  // In peace everything comes together.
  world.wire = [];
  for (const id of world.nodes.keys()) world.connect(id);
  world.tick(8 * world.limits.electionTicksMax);
  for (let group = 0; group < 6; group++) {
    const leader = world.leaderOf(group);
    if (leader === undefined) throw new Error(`group ${group} has no leader`);
    for (const { groups } of world.nodes.values()) {
      const { raft } = groups.get(group)!;
      if (raft.commit !== leader.raft.commit) throw new Error(`group ${group} is not told of all`);
    }
  }
}

test("whatever is lost, late, doubled or restarted: one leader a term, no old read, and peace in the end", () => {
  for (let seed = 1; seed <= 20; seed++) {
    try {
      anything(seed);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
}, 30_000);

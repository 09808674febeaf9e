/** What goes wrong in a run, and when: faults at random times, and new leaders that fall. All of it ends with peace. */
import { Violation } from "./invariants.ts";
import type { EndPoint } from "./process-end.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimGroup, SimGroups } from "./sim-group.ts";
import type { Ending, SimNode } from "./sim-node.ts";
import type { SimNetwork } from "./sim-network.ts";
import type { Storage } from "./storage.ts";
import { crashModes, faults, type Fault, type Swarm } from "./swarm.ts";
import type { Tally } from "./tally.ts";
import type { Watchers } from "./watchers.ts";

/** A node with what surrounds it. */
export interface Victim {
  readonly node: SimNode;
  readonly storage: Storage;
  readonly endPoint: EndPoint;
}

export interface NemesisOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly swarm: Swarm;
  readonly victims: readonly Victim[];
  readonly network: SimNetwork;
  readonly groups: SimGroups;
  /** Chooses among several groups. */
  readonly groupRandom: Random;
  readonly watchers: Watchers;
  readonly tally: Tally;
  readonly struck: (fault: number) => void;
}

/** From one node to another. */
type Direction = readonly [number, number];

/** A disk that fails a sync may have kept any part of what it was given. */
const failedSyncWeights = [1, 1, 1];

export class Nemesis {
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #swarm: Swarm;
  readonly #victims: readonly Victim[];
  readonly #network: SimNetwork;
  readonly #groups: SimGroups;
  readonly #groupRandom: Random;
  readonly #watchers: Watchers;
  readonly #tally: Tally;
  readonly #struck: (fault: number) => void;
  #peace = false;

  constructor(options: NemesisOptions) {
    this.#scheduler = options.scheduler;
    this.#random = options.random;
    this.#swarm = options.swarm;
    this.#victims = options.victims;
    this.#network = options.network;
    this.#groups = options.groups;
    this.#groupRandom = options.groupRandom;
    this.#watchers = options.watchers;
    this.#tally = options.tally;
    this.#struck = options.struck;
  }

  start(): void {
    this.#transferLater();
    this.#strikeLater();
  }

  #strikeLater(): void {
    const { faultWeights, faultEveryMs } = this.#swarm;
    if (faultWeights.every((weight) => weight === 0)) return;
    this.#scheduler.after(-Math.log(1 - this.#random.float()) * faultEveryMs, () => {
      if (this.#peace) return;
      const fault = this.#random.weighted(faultWeights);
      this.#struck(fault);
      this.#strike(faults[fault]!);
      this.#strikeLater();
    });
  }

  /** Somebody leads a new term. */
  led(): void {
    const { fellBy, fellChance, fellWithinMs } = this.#swarm;
    if (this.#peace || !this.#random.chance(fellChance)) return;
    this.#scheduler.after(this.#random.float() * fellWithinMs, () => {
      if (!this.#peace) this.#strike(fellBy);
    });
  }

  /** A process ends by itself. */
  ended(node: SimNode, why: Ending): void {
    if (why !== "noSpace") this.#tally[why]++;
    this.#end(node, why === "failedSyncs" ? failedSyncWeights : this.#swarm.crashWeights);
  }

  /** Everything is healed, and stays so. */
  end(): void {
    this.#peace = true;
    this.#network.calm();
    const slowness = Math.min(1, 0.3 / this.#swarm.syncMs);
    for (const { storage, endPoint } of this.#victims) {
      endPoint.disarm();
      storage.calm(slowness);
    }
    for (const { node } of this.#victims) {
      node.resume();
      node.start();
    }
  }

  #strike(fault: Fault): void {
    const random = this.#random;
    const victim = random.pick(this.#victims);
    const group = this.#someGroup();
    const leader = this.#leaderOf(group) ?? victim;
    switch (fault) {
      case "crash":
        return this.#crash(victim.node);
      case "crashLeader":
        return this.#crash(leader.node);
      case "crashAll":
        for (const { node } of this.#victims) this.#crash(node);
        return;
      case "endInside":
        return victim.endPoint.arm(random.between(1, this.#swarm.effectsMax));
      case "endLeaderInside":
        return leader.endPoint.arm(random.between(1, this.#swarm.effectsMax));
      case "failSync":
        return victim.storage.failSync();
      case "rot":
        return this.#rot(victim.node);
      case "pause":
        return this.#pause(victim.node);
      case "pauseLeader":
        return this.#pause(leader.node);
      case "isolate":
        return this.#isolate([victim]);
      case "isolateLeader":
        return this.#isolate([leader]);
      case "split":
        return this.#isolate(this.#victims.filter(() => random.chance(0.5)));
      case "cutOneWay": {
        if (this.#network.pairs.length === 0) return;
        const [a, b] = random.pick(this.#network.pairs);
        return this.#cut([random.chance(0.5) ? [a, b] : [b, a]]);
      }
      case "holdReplies":
        return this.#holdReplies(group, leader);
      case "heal":
        return this.#network.heal();
      case "reset": {
        if (this.#network.pairs.length === 0) return;
        const [a, b] = random.pick(this.#network.pairs);
        return this.#network.reset(a, b);
      }
      case "slowLink": {
        if (this.#network.pairs.length === 0) return;
        const [a, b] = random.pick(this.#network.pairs);
        this.#network.slow(a, b);
        return this.#later(this.#swarm.outageMs, () => this.#network.hasten(a, b));
      }
      case "fullDisk": {
        const { storage } = victim;
        storage.room = random.below(500);
        return this.#later(this.#swarm.outageMs, () => (storage.room = Infinity));
      }
      case "slowDisk": {
        const { storage } = victim;
        storage.slowness = this.#swarm.slowness;
        return this.#later(this.#swarm.outageMs, () => {
          if (!this.#peace) storage.slowness = 1;
        });
      }
      case "overload": {
        const struck = random.chance(0.5) ? [leader] : this.#victims;
        const withinMs = this.#swarm.limits.tickMs * random.pick([0.1, 4]);
        for (const { node } of struck) group.clients?.burst(node, this.#swarm.burst, withinMs);
        return;
      }
      case "transfer":
        return this.#transfer(group, victim.node, random.below(this.#victims.length + 1));
      case "stopLeader":
        return this.#stop(leader.node);
      case "transferIntoCut":
        return this.#transferIntoCut(group, leader);
    }
  }

  /** One group gets more requests, at its leader, than it can seal in many turns. */
  heat(): void {
    const group = this.#someGroup();
    const leader = this.#leaderOf(group);
    if (leader === undefined) return;
    const { burst, limits } = this.#swarm;
    group.clients?.burst(leader.node, burst, limits.tickMs);
  }

  /** The default one, where there is no other. */
  #someGroup(): SimGroup {
    const all = [...this.#groups.all()].filter(({ isRemoved }) => !isRemoved);
    return all.length === 1 ? all[0]! : this.#groupRandom.pick(all);
  }

  #leaderOf({ id }: SimGroup): Victim | undefined {
    return this.#victims.find(({ node }) => node.replica(id)?.raft.role === "leader");
  }

  /** `target` 0: whoever fits best. The same request a second time changes nothing. */
  #transfer({ id: group }: SimGroup, asked: SimNode, target: number): void {
    for (let times = this.#random.between(1, 2); times > 0; times--) {
      asked.transfer(group, target, (leader) => {
        if (target !== 0 && leader !== target)
          throw new Violation(`leadership was to go to ${target} and went to ${leader}`);
        this.#tally.transfers++;
      });
    }
  }

  #transferIntoCut(group: SimGroup, leader: Victim): void {
    const others = this.#victims.filter((victim) => victim !== leader);
    if (others.length === 0) return;
    const target = this.#random.pick(others);
    const { electionTicksMax, tickMs } = this.#swarm.limits;
    const electionMs = electionTicksMax * tickMs;
    this.#cutFor(electionMs * (0.5 + 2 * this.#random.float()), [[leader.node.id, target.node.id]]);
    this.#transfer(group, leader.node, target.node.id);
  }

  #transferLater(): void {
    const { transferEveryMs } = this.#swarm;
    if (transferEveryMs === 0) return;
    this.#scheduler.after(-Math.log(1 - this.#random.float()) * transferEveryMs, () => {
      if (this.#peace) return;
      const group = this.#someGroup();
      const leader = this.#leaderOf(group);
      if (leader !== undefined)
        this.#transfer(group, leader.node, this.#random.below(this.#victims.length + 1));
      this.#transferLater();
    });
  }

  #stop(node: SimNode): void {
    const { life } = node;
    node.leave();
    this.#later(this.#swarm.outageMs / 4, () => {
      if (node.life === life && !this.#peace) this.#crash(node);
    });
  }

  /** Somebody stops the process, and starts another in its place. */
  restart(node: SimNode): void {
    this.#crash(node);
  }

  /** It ends, and never starts again. */
  retire(node: SimNode): void {
    node.left = true;
    node.crash("all");
    this.#groups.crashed(node);
    this.#watchers.crashed(node);
  }

  #crash(node: SimNode): void {
    if (!node.alive) return;
    this.#tally.crashes++;
    this.#end(node, this.#swarm.crashWeights);
  }

  #end(node: SimNode, weights: readonly number[]): void {
    node.crash(crashModes[this.#random.weighted(weights)]!);
    this.#groups.crashed(node);
    this.#watchers.crashed(node);
    this.#later(this.#swarm.outageMs, () => node.start());
  }

  /** The disk of a node that is wounded is struck where it says so. */
  relapse(node: SimNode): void {
    this.#crash(node);
    if (node.rot("newest")) this.#tally.relapses++;
  }

  leaderFalls(): void {
    this.#strike("crashLeader");
  }

  /** Only so many that the others, which are whole, are a quorum. */
  #rot(node: SimNode): void {
    const rotten = this.#victims.filter((victim) => victim.node.rotten).length;
    if (!node.rotten && rotten + 1 > (this.#victims.length - 1) / 2) return;
    this.#crash(node);
    node.rot();
  }

  #pause(node: SimNode): void {
    const { life } = node;
    node.pause();
    this.#later(this.#swarm.pauseMs, () => {
      if (node.life === life) node.resume();
    });
  }

  /** Nothing passes between these nodes and the others. */
  #isolate(inside: readonly Victim[]): void {
    const outside = this.#victims.filter((victim) => !inside.includes(victim));
    this.#cut(between(inside, outside));
  }

  /**
   * A leader and one follower are alone, and what the follower says is held back; then it is alone, while the others go on and lose their
   * leader, until its replies come: perhaps to the same leader, in a later term.
   */
  #holdReplies(group: SimGroup, leader: Victim): void {
    const random = this.#random;
    const { electionTicksMax, tickMs } = this.#swarm.limits;
    const electionMs = electionTicksMax * tickMs;
    const others = this.#victims.filter((victim) => victim !== leader);
    if (others.length === 0) return;
    const follower = random.pick(others);
    const rest = this.#victims.filter((victim) => victim !== leader && victim !== follower);
    const [a, b] = [leader.node.id, follower.node.id];
    const aloneMs = electionMs * (1 + random.float());
    const heldMs = aloneMs + electionMs * (1 + 2 * random.float());
    this.#cutFor(aloneMs, between([leader], rest));
    this.#cutFor(heldMs, [[b, a], ...between([follower], rest)]);
    this.#scheduler.after(aloneMs, () => {
      if (!this.#peace) this.#cutFor(heldMs - aloneMs, [[a, b]]);
    });
    this.#scheduler.after(aloneMs + random.float() * (heldMs - aloneMs) * 0.5, () => {
      const other = rest.find(({ node }) => node.replica(group.id)?.raft.role === "leader");
      if (!this.#peace && other !== undefined) this.#crash(other.node);
    });
  }

  /** Mended for itself, so that what one cut holds back may arrive long after others have come and gone. */
  #cut(directions: readonly Direction[]): void {
    this.#cutFor(this.#random.float() * this.#swarm.outageMs, directions);
  }

  #cutFor(ms: number, directions: readonly Direction[]): void {
    for (const [from, to] of directions) this.#network.cut(from, to);
    this.#scheduler.after(ms, () => {
      for (const [from, to] of directions) this.#network.mend(from, to);
    });
  }

  #later(withinMs: number, run: () => void): void {
    this.#scheduler.after(this.#random.float() * withinMs, run);
  }
}

/** All ways from one side to the other and back. */
function between(one: readonly Victim[], other: readonly Victim[]): Direction[] {
  return one.flatMap(({ node: a }) =>
    other.flatMap(({ node: b }): Direction[] => [
      [a.id, b.id],
      [b.id, a.id],
    ]),
  );
}

/**
 * Two bad moments in the life of groups, sought on purpose as chance meets them too seldom. A node that has lost a group ends when the segment that says so has
 * gone, and the registry's own state is not durable that far: whatever it reads then, the group must not come back. And a node comes back to a group while, unheard
 * by the others, the leader of before still takes it for the member that it was.
 */
import type { RegistryEntry } from "../../src/wire/registry.ts";
import { checkLimits } from "../../src/limits.ts";
import { type GroupSwarm, hasGroups, pickSome } from "./group-swarm.ts";
import type { Random } from "./random.ts";
import type { RegistryJudge } from "./registry-judge.ts";
import { Agenda, type Scheduler } from "./scheduler.ts";
import type { SimNetwork } from "./sim-network.ts";
import type { SimNode } from "./sim-node.ts";
import type { Swarm } from "./swarm.ts";

/** Of runs with groups. */
const share = 0.3;

export interface GraveSwarm {
  readonly isOn: boolean;
  /** What the registry says is durable so many times later than other state. */
  readonly registrySlowness: number;
  /** In one segment: few, so that each goes soon, and more than what each repeats of all groups. */
  readonly segmentRecordsMax: number;
}

export function drawGraves(
  random: Random,
  { syncMs, limits }: Swarm,
  groups: GroupSwarm,
  without: boolean,
): GraveSwarm {
  const drawn = random.float();
  const isOn = drawn < share && hasGroups(groups) && !without;
  const electionMs = limits.electionTicksMax * limits.tickMs;
  return {
    isOn,
    registrySlowness: Math.max(1, (electionMs / syncMs) * random.pick([1, 3, 8])),
    segmentRecordsMax: random.pick([30, 60, 120]),
  };
}

/** Segments go soon. */
export function withGraves({ segmentRecordsMax }: GraveSwarm, swarm: Swarm): Swarm {
  return {
    ...swarm,
    limits: checkLimits({ ...swarm.limits, segmentRecordsMax }),
    compaction: { entries: 1, bytes: 500, tailBytes: 0 },
  };
}

export interface GravesOptions extends GraveSwarm {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly swarm: Swarm;
  readonly moves: boolean;
  readonly nodes: readonly SimNode[];
  readonly network: SimNetwork;
  readonly judge: RegistryJudge;
  readonly crash: (node: SimNode) => void;
  /** Asks that node to remove a group. */
  readonly remove: (node: SimNode, group: number) => void;
  /** Asks that node for other members of a group. */
  readonly move: (node: SimNode, group: number, members: readonly number[]) => void;
}

/** The leader of before, who stays, and who goes and comes back. */
interface Roles {
  readonly group: number;
  readonly old: SimNode;
  readonly oldLife: number;
  readonly stays: SimNode;
  readonly returns: SimNode;
}

/** Between two removals, in the longest election time-outs. */
const removeElections = 2;
/** Of nodes that had a group which is removed. */
const endsShare = 0.7;
const evacuationsMax = 3;
/** Place of a segment among all, below 1: with it go those before it. */
const newest = 0.999;
/** Between two returns, and until one is given up; in the longest election time-outs. */
const returnElections = 1;
const patienceElections = 60;
/** Of a group in which somebody returns. */
const membersMin = 3;

export class Graves {
  readonly #options: GravesOptions;
  readonly #electionMs: number;
  readonly #agenda: Agenda;
  /** The group in which somebody is to return; 0 = none. */
  #taken = 0;

  constructor(options: GravesOptions) {
    this.#options = options;
    this.#agenda = new Agenda(options.scheduler);
    const { electionTicksMax, tickMs } = options.swarm.limits;
    this.#electionMs = electionTicksMax * tickMs;
  }

  start(): void {
    if (!this.#options.isOn) return;
    this.#removeLater();
    if (this.#options.moves) this.#returnLater();
  }

  end(): void {
    this.#agenda.end();
  }

  /** Nobody else is to ask for changes of that group. */
  isTaken(group: number): boolean {
    return group === this.#taken;
  }

  /** The registry has taken a group away, which these nodes had. */
  removed(hosts: readonly SimNode[]): void {
    const { isOn, random, crash } = this.#options;
    if (!isOn) return;
    for (const node of hosts) {
      if (!random.chance(endsShare)) continue;
      const withinMs = this.#electionMs * random.pick([0.3, 1, 3]);
      for (let left = random.between(1, evacuationsMax); left > 0; left--)
        this.#agenda.after(0.5 * random.float() * withinMs, () => node.evacuate(newest));
      this.#agenda.after((0.5 + random.float()) * withinMs, () => crash(node));
    }
  }

  #removeLater(): void {
    const { random, judge, nodes, remove } = this.#options;
    this.#agenda.after(-Math.log(1 - random.float()) * removeElections * this.#electionMs, () => {
      const groups = judge.entries.filter(({ id }) => !this.isTaken(id));
      if (groups.length > 0) remove(random.pick(nodes), random.pick(groups).id);
      this.#removeLater();
    });
  }

  /* ---------------------------------------------------------------- a former member returns */

  #returnLater(): void {
    const { random } = this.#options;
    this.#agenda.after(-Math.log(1 - random.float()) * returnElections * this.#electionMs, () => {
      const roles = this.#roles();
      if (roles === undefined) return this.#prepare();
      this.#taken = roles.group;
      this.#alone(roles);
      this.#without(roles);
    });
  }

  /** Some group gets three members, if it is not just about to. */
  #prepare(): void {
    const { random, judge, nodes, move } = this.#options;
    const small = judge.entries.filter(({ members }) => members.length < membersMin);
    if (small.length > 0 && nodes.length >= membersMin) {
      const ids = nodes.map(({ id }) => id);
      move(random.pick(nodes), random.pick(small).id, pickSome(random, ids, membersMin));
    }
    this.#returnLater();
  }

  #roles(): Roles | undefined {
    const { random, judge, nodes } = this.#options;
    const leaderOf = ({ id }: RegistryEntry): SimNode | undefined =>
      nodes.find((node) => node.replica(id)?.raft.role === "leader" && !node.paused);
    const fits = judge.entries.filter(
      (entry) => entry.members.length >= membersMin && leaderOf(entry) !== undefined,
    );
    if (fits.length === 0) return undefined;
    const entry = random.pick(fits);
    const { id: group } = entry;
    const old = leaderOf(entry)!;
    const isOther = (node: SimNode): boolean =>
      node !== old && entry.members.some(({ id }) => id === node.id);
    const [stays, returns] = nodes.filter(isOther);
    if (stays === undefined || returns === undefined) return undefined;
    const roles = { group, old, oldLife: old.life };
    return random.chance(0.5)
      ? { ...roles, stays, returns }
      : { ...roles, stays: returns, returns: stays };
  }

  /** The leader stands still, and the one that returns is all that it will reach. */
  #alone({ old, returns }: Roles): void {
    old.pause();
    this.#others([old, returns], (id) => this.#options.network.cut(id, old.id));
    this.#others([old, returns], (id) => this.#options.network.cut(old.id, id));
  }

  #others(but: readonly SimNode[], run: (id: number) => void): void {
    for (const node of this.#options.nodes) if (!but.includes(node)) run(node.id);
  }

  #without(roles: Roles): void {
    const isWithout = ({ members, leaving }: RegistryEntry): boolean =>
      members.length === 1 && leaving.length === 0;
    this.#ask(roles, [roles.stays.id], isWithout, () => this.#again(roles));
  }

  #again(roles: Roles): void {
    const { group, stays, returns } = roles;
    const isBack = ({ members }: RegistryEntry): boolean =>
      members.some(({ id }) => id === returns.id) && returns.replica(group) !== undefined;
    this.#ask(roles, [stays.id, returns.id], isBack, () => this.#meet(roles));
  }

  /** Who is back hears the leader of before first, and for a while nobody else. */
  #meet(roles: Roles): void {
    const { network, random } = this.#options;
    const { old, returns } = roles;
    this.#others([old, returns], (id) => network.cut(id, returns.id));
    network.mend(old.id, returns.id);
    network.mend(returns.id, old.id);
    this.#resume(roles);
    this.#agenda.after(this.#electionMs * (0.5 + random.float()), () =>
      this.#others([old, returns], (id) => network.mend(id, returns.id)),
    );
  }

  /** Until the registry has it so, and then goes on. */
  #ask(
    roles: Roles,
    members: readonly number[],
    isSo: (entry: RegistryEntry) => boolean,
    done: () => void,
  ): void {
    const { random, scheduler, nodes, judge, swarm, move } = this.#options;
    const { group, old, oldLife } = roles;
    const untilMs = scheduler.nowMs + patienceElections * this.#electionMs;
    let askAtMs = 0;
    const look = (): void => {
      const entry = judge.entry(group);
      const isLost = entry === undefined || old.life !== oldLife || !old.paused;
      if (isLost || scheduler.nowMs >= untilMs) return this.#resume(roles);
      if (isSo(entry)) return done();
      if (scheduler.nowMs >= askAtMs) {
        askAtMs = scheduler.nowMs + this.#electionMs;
        move(random.pick(nodes.filter((node) => node !== old)), group, members);
      }
      this.#agenda.after(swarm.limits.tickMs, look);
    };
    look();
  }

  #resume({ old, oldLife, returns }: Roles): void {
    const { network } = this.#options;
    this.#taken = 0;
    if (old.life === oldLife) old.resume();
    this.#agenda.after(this.#electionMs, () => {
      this.#others([old, returns], (id) => network.mend(id, old.id));
      this.#others([old, returns], (id) => network.mend(old.id, id));
    });
    this.#returnLater();
  }
}

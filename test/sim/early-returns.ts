/**
 * A node is to come back to a group before it has heard that it had left, sought on purpose: it has the registry's words in its log, and is not told that they are
 * committed, while the group's leader reaches it as ever. Where it is taken back at once, it answers for the replica of its last stay, and forgets that later.
 */
import type { PeerMessage } from "../../src/wire/messages.ts";
import { type RegistryEntry, systemGroup } from "../../src/wire/registry.ts";
import { type GroupSwarm, pickSome } from "./group-swarm.ts";
import { calmKinds } from "./hot-groups.ts";
import type { Random } from "./random.ts";
import { names, type RegistryJudge } from "./registry-judge.ts";
import { Agenda, type Scheduler } from "./scheduler.ts";
import type { SimGroups } from "./sim-group.ts";
import type { SimNetwork } from "./sim-network.ts";
import type { SimNode } from "./sim-node.ts";
import type { Kind, Swarm } from "./swarm.ts";
import type { Tally } from "./tally.ts";

/** Of all runs. */
const share = 0.03;

/** What is left out of these runs: nothing else goes wrong, as it takes its time. */
export const earlyCalmKinds: readonly Kind[] = calmKinds.filter((kind) => kind !== "groupMoves");

export function drawEarlyReturns(
  random: Random,
  without: readonly Kind[],
  wanted: boolean,
): boolean {
  const isOn = random.chance(share) || wanted;
  const kinds: readonly Kind[] = ["earlyReturns", "groups", "groupMoves"];
  return isOn && !kinds.some((kind) => without.includes(kind));
}

/** A few that are moved, and soon there. */
export function earlyGroupSwarm({ limits }: Swarm): Partial<GroupSwarm> {
  const changeEveryMs = 0.3 * limits.electionTicksMax * limits.tickMs;
  return { changeEveryMs, groupsMax: 3, moves: true, everywhere: false, hotEveryMs: Infinity };
}

export interface EarlyReturnsOptions {
  readonly isOn: boolean;
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly swarm: Swarm;
  readonly nodes: readonly SimNode[];
  readonly network: SimNetwork;
  readonly groups: SimGroups;
  readonly judge: RegistryJudge;
  readonly tally: Tally;
  /** Asks that node for other members of a group. */
  readonly move: (node: SimNode, group: number, members: readonly number[]) => void;
  /** Somebody else changes that group just now. */
  readonly isTaken: (group: number) => boolean;
}

/** Who goes and comes back, and the others. */
interface Roles {
  readonly group: number;
  readonly returns: SimNode;
  readonly life: number;
  readonly others: readonly number[];
}

/** Between two returns; until one is given up; and how long it is asked for while the node has not heard. In the longest election time-outs. */
const returnElections = 0.5;
const patienceElections = 20;
const earlyElections = 6;
/** Of a group in which somebody returns: few, so that its word counts. */
const membersMax = 2;

export class EarlyReturns {
  readonly #options: EarlyReturnsOptions;
  readonly #electionMs: number;
  readonly #agenda: Agenda;
  #taken = 0;

  constructor(options: EarlyReturnsOptions) {
    this.#options = options;
    this.#agenda = new Agenda(options.scheduler);
    const { electionTicksMax, tickMs } = options.swarm.limits;
    this.#electionMs = electionTicksMax * tickMs;
  }

  start(): void {
    if (this.#options.isOn) this.#later();
  }

  end(): void {
    this.#agenda.end();
    this.#release();
  }

  /** Nobody else is to ask for changes of that group. */
  isTaken(group: number): boolean {
    return group === this.#taken;
  }

  #later(): void {
    const { random } = this.#options;
    this.#agenda.after(-Math.log(1 - random.float()) * returnElections * this.#electionMs, () => {
      const roles = this.#roles();
      if (roles === undefined) return this.#prepare();
      this.#taken = roles.group;
      this.#goes(roles);
    });
  }

  /** Some group gets two members. */
  #prepare(): void {
    const { random, judge, nodes, move, isTaken } = this.#options;
    const entries = judge.entries.filter(({ id }) => !isTaken(id));
    if (entries.length > 0 && nodes.length >= membersMax) {
      const ids = nodes.map(({ id }) => id);
      move(random.pick(nodes), random.pick(entries).id, pickSome(random, ids, membersMax));
    }
    this.#later();
  }

  #roles(): Roles | undefined {
    const { random, judge, isTaken } = this.#options;
    const fits = judge.entries.filter(
      ({ id, members, leaving }) =>
        members.length === membersMax && leaving.length === 0 && !isTaken(id),
    );
    if (fits.length === 0) return undefined;
    const { id: group, members } = random.pick(fits);
    const returning = members.flatMap(({ id }) => this.#follower(id, group) ?? []);
    if (returning.length === 0) return undefined;
    const returns = random.pick(returning);
    const others = members.map(({ id }) => id).filter((id) => id !== returns.id);
    return { group, returns, life: returns.life, others };
  }

  /** It leads neither that group nor the registry's. */
  #follower(id: number, group: number): SimNode | undefined {
    const node = this.#options.nodes.find((each) => each.id === id);
    const runs = node?.paused === false && node.replica(group) !== undefined;
    const leads = [group, systemGroup].some((each) => node?.replica(each)?.raft.role === "leader");
    return runs && !leads ? node : undefined;
  }

  #goes(roles: Roles): void {
    const { judge, network } = this.#options;
    const { group, returns, others } = roles;
    let goneAt = Infinity;
    network.loses = (message) => {
      if (message.to !== returns.id) return false;
      if (goneAt === Infinity && !names(judge.entry(group), returns.id)) {
        goneAt = judge.indexOf(group);
      }
      return tellsOf(message, goneAt);
    };
    const isGone = (entry: RegistryEntry): boolean => !names(entry, returns.id);
    this.#ask(roles, others, patienceElections, isGone, () => this.#comesBack(roles));
  }

  /** Refused for as long as it has not heard. */
  #comesBack(roles: Roles): void {
    const { returns, others } = roles;
    const members = [...others, returns.id].toSorted((a, b) => a - b);
    const isBack = (entry: RegistryEntry): boolean => names(entry, returns.id);
    const hears = (): void => {
      this.#release();
      this.#ask(roles, members, patienceElections, isBack, () => this.#done());
    };
    this.#options.tally.earlyReturns++;
    this.#ask(roles, members, earlyElections, isBack, () => this.#counts(roles), hears);
  }

  /** It is back all the same: until its word counts. */
  #counts(roles: Roles): void {
    const { groups, random } = this.#options;
    const { group, returns } = roles;
    const votes = (): boolean =>
      groups.of(group).invariants.oracle.configuration?.voters.includes(returns.id) === true;
    this.#ask(roles, [], patienceElections, votes, () =>
      this.#agenda.after(this.#electionMs * random.float(), () => this.#done()),
    );
  }

  #done(): void {
    this.#release();
    this.#later();
  }

  #release(): void {
    this.#taken = 0;
    this.#options.network.loses = undefined;
  }

  /** Until the registry has it so, and then goes on; without members, nobody is asked. */
  #ask(
    { group, returns, life }: Roles,
    members: readonly number[],
    elections: number,
    isSo: (entry: RegistryEntry) => boolean,
    done: () => void,
    late: () => void = () => this.#done(),
  ): void {
    const { random, scheduler, nodes, judge, swarm, move } = this.#options;
    const untilMs = scheduler.nowMs + elections * this.#electionMs;
    let askAtMs = 0;
    const look = (): void => {
      const entry = judge.entry(group);
      if (entry === undefined || returns.life !== life) return this.#done();
      if (isSo(entry)) return done();
      if (scheduler.nowMs >= untilMs) return late();
      if (scheduler.nowMs >= askAtMs && members.length > 0) {
        askAtMs = scheduler.nowMs + 0.3 * this.#electionMs;
        move(random.pick(nodes.filter((node) => node !== returns)), group, members);
      }
      this.#agenda.after(swarm.limits.tickMs, look);
    };
    look();
  }
}

/** Whoever gets it knows that the registry's log is committed up to there. */
function tellsOf(message: PeerMessage, index: number): boolean {
  switch (message.type) {
    case "append":
    case "heartbeat":
      return message.group === systemGroup && message.commit >= index;
    case "snapshotOffer":
    case "snapshotChunk":
      return message.group === systemGroup;
    case "beat":
      return message.claims.some(({ group, commit }) => group === systemGroup && commit >= index);
    default:
      return false;
  }
}

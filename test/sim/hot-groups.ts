/**
 * One group of each node is hot: what waits in it is always more than there is room for until the next sync. What others that are led there are asked now and then
 * must be answered in its turn all the same. Sought on purpose, as chance seldom keeps a group hot for long beside others; and nothing else goes wrong in these
 * runs, so that what is late is late for that alone.
 */
import { checkLimits, type Limits } from "../../src/limits.ts";
import { systemGroup } from "../../src/wire/registry.ts";
import type { GroupSwarm } from "./group-swarm.ts";
import { Violation } from "./invariants.ts";
import type { Random } from "./random.ts";
import { Agenda, type Scheduler } from "./scheduler.ts";
import type { SimGroup, SimGroups } from "./sim-group.ts";
import type { SimNode } from "./sim-node.ts";
import { faults, type Kind, type Swarm } from "./swarm.ts";
import type { Tally } from "./tally.ts";

export interface HotSwarm {
  readonly isOn: boolean;
  readonly nodeCount: number;
  readonly groupsMax: number;
  /** Until the next sync, of all groups together; and what a batch may have, and what is sealed while a sync runs. */
  readonly roomBytes: number;
  readonly batchBytesMax: number;
  readonly sealBytes: number;
  /** Another group is asked as often as that, in the longest election time-outs. */
  readonly askElections: number;
}

/** Of all runs. */
const share = 0.03;

/** What is left out of these runs. */
export const calmKinds: readonly Kind[] = [
  ...faults,
  "fellLeaders",
  "slowMessages",
  "corruptFrames",
  "strangeBounds",
  "preferredLeaders",
  "restlessLeaders",
  "memberChanges",
  "versions",
  "evacuations",
  "ballasts",
  "relapses",
  "groupMoves",
  "groupGraves",
  "applications",
];

export function drawHot(random: Random, without: readonly Kind[], wanted: boolean): HotSwarm {
  const isOn = random.chance(share) || wanted;
  return {
    isOn: isOn && !without.includes("hotGroups") && !without.includes("groups"),
    nodeCount: random.pick([1, 1, 3]),
    groupsMax: random.between(3, 7),
    roomBytes: random.pick([1, 200, 1_000]),
    batchBytesMax: random.pick([1, 200]),
    sealBytes: random.pick([1, 300]),
    askElections: random.pick([0.02, 0.1]),
  };
}

/** There soon are as many as may be, and they stay where they are. */
export function hotGroupSwarm({ groupsMax }: HotSwarm, { limits }: Swarm): Partial<GroupSwarm> {
  const changeEveryMs = 0.1 * limits.electionTicksMax * limits.tickMs;
  return { changeEveryMs, groupsMax, moves: false, hotEveryMs: Infinity };
}

export function withHot(hot: HotSwarm, swarm: Swarm): Swarm {
  const { roomBytes, batchBytesMax, sealBytes } = hot;
  const limits: Limits = checkLimits({
    ...swarm.limits,
    unsyncedBytesMax: roomBytes,
    shardUnsyncedBytesMax: roomBytes,
    batchBytesMax,
    sealBytes,
  });
  return { ...swarm, nodes: hot.nodeCount, limits };
}

export interface HotGroupsOptions extends HotSwarm {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly swarm: Swarm;
  readonly nodes: readonly SimNode[];
  readonly groups: SimGroups;
  /** Of each node's log, in the order of `nodes`. */
  readonly syncs: () => readonly number[];
  readonly tally: Tally;
}

/** What a group was asked, in the term in which it was asked. */
interface Asked {
  readonly node: SimNode;
  readonly group: SimGroup;
  readonly term: number;
  readonly atMs: number;
  /** That had ended by then. */
  readonly syncs: readonly number[];
}

/** Looks at the hot groups in a time-out of an election. */
const looksPerElection = 100;
/** That wait in a hot group at least, of the room that there is. */
const roomsWaiting = 4;
const commandsWaiting = 60;
/** Of one command, about. */
const commandBytes = 40;
/** The default group, and the registry's. */
const ownGroups = 2;
/** The sync under way, and its own at the leader; a follower's under way, and its own. */
const ownSyncs = 4;
/** There and back, far beyond the mean. */
const messageDelays = 50;
const turnTicks = 2;

export class HotGroups {
  readonly #options: HotGroupsOptions;
  readonly #electionMs: number;
  /** By node. */
  readonly #hot = new Map<SimNode, SimGroup>();
  /** Not answered yet: one at a time of each group. */
  readonly #asked = new Map<SimGroup, Asked>();
  readonly #agenda: Agenda;

  constructor(options: HotGroupsOptions) {
    this.#options = options;
    this.#agenda = new Agenda(options.scheduler);
    const { electionTicksMax, tickMs } = options.swarm.limits;
    this.#electionMs = electionTicksMax * tickMs;
  }

  start(): void {
    if (!this.#options.isOn) return;
    this.#lookLater();
    this.#askLater();
  }

  end(): void {
    this.#agenda.end();
  }

  #lookLater(): void {
    this.#agenda.after(this.#electionMs / looksPerElection, () => {
      for (const node of this.#options.nodes) this.#heat(node);
      for (const [group, asked] of this.#asked) {
        if (!this.#waits(asked)) this.#asked.delete(group);
        else this.#judge(asked);
      }
      this.#lookLater();
    });
  }

  /** Keeps more waiting than there is room for. */
  #heat(node: SimNode): void {
    const { random, roomBytes } = this.#options;
    const led = this.#ledBy(node);
    let hot = this.#hot.get(node);
    if (hot === undefined || !led.includes(hot)) {
      this.#hot.delete(node);
      if (led.length < 2) return;
      hot = random.pick(led);
      this.#hot.set(node, hot);
    }
    const enough = Math.max(commandsWaiting * commandBytes, roomsWaiting * roomBytes);
    const missing = enough - node.replica(hot.id)!.inboxBytes;
    if (missing > 0) hot.clients!.burst(node, Math.ceil(missing / commandBytes), 0);
  }

  #ledBy(node: SimNode): SimGroup[] {
    if (node.door === undefined) return [];
    const leads = ({ id, isRemoved, clients }: SimGroup): boolean =>
      id !== systemGroup &&
      !isRemoved &&
      clients !== undefined &&
      node.replica(id)?.raft.role === "leader";
    return [...this.#options.groups.all()].filter(leads);
  }

  #askLater(): void {
    const { random, askElections } = this.#options;
    this.#agenda.after(-Math.log(1 - random.float()) * askElections * this.#electionMs, () => {
      this.#ask();
      this.#askLater();
    });
  }

  #ask(): void {
    const { random, nodes } = this.#options;
    const node = random.pick(nodes);
    const hot = this.#hot.get(node);
    if (hot === undefined) return;
    const others = this.#ledBy(node).filter((each) => each !== hot && !this.#asked.has(each));
    if (others.length === 0) return;
    const group = random.pick(others);
    const { raft, inboxBytes } = node.replica(group.id)!;
    const { term, commit, lastIndex, lastTerm } = raft;
    // It has nothing else to do, and all that it needs to answer.
    if (inboxBytes > 0 || commit < lastIndex || lastTerm < term) return;
    const atMs = this.#options.scheduler.nowMs;
    const asked: Asked = { node, group, term, atMs, syncs: this.#options.syncs() };
    this.#asked.set(group, asked);
    group.clients!.probe(node, "put", () => this.#answered(asked));
  }

  /**
   * Each of the others may be before it, with what came while a sync ran and once more; those that seal without being asked as well. Looked at by time too: syncs
   * that are shorter than usual go by while its messages are on their way, and longer ones are nobody's fault.
   */
  #judge({ node, group, atMs, syncs }: Asked): void {
    const { scheduler, swarm, groupsMax } = this.#options;
    const { syncMs, delayMs, limits } = swarm;
    const waitedMs = scheduler.nowMs - atMs;
    const syncsMax = 2 * (groupsMax + ownGroups) + ownSyncs;
    const besideMs = messageDelays * delayMs + turnTicks * limits.tickMs;
    if (waitedMs <= syncsMax * syncMs + besideMs) return;
    // What a quorum has done meanwhile.
    const since = this.#options.syncs().map((count, at) => count - syncs[at]!);
    const done = since.toSorted((a, b) => b - a)[Math.floor(since.length / 2)]!;
    if (done <= syncsMax) return;
    throw new Violation(
      `group ${group.id} has waited for ${done} syncs, ${Math.round(waitedMs)} ms, on node ${node.id} beside group ${this.#hot.get(node)?.id}, which always has more to do`,
    );
  }

  #answered(asked: Asked): void {
    if (!this.#waits(asked)) return;
    this.#asked.delete(asked.group);
    this.#options.tally.servedBesideHot++;
  }

  /** And nothing else than other groups keeps it from being answered. */
  #waits(asked: Asked): boolean {
    const { node, group, term } = asked;
    const raft = node.replica(group.id)?.raft;
    const isLed = raft?.role === "leader" && raft.term === term && raft.transferTarget === 0;
    return this.#asked.get(group) === asked && isLed && !group.isRemoved;
  }
}

/**
 * Swarm testing: each seed draws its own cluster, its own strange bounds and its own mix of faults, most of them with weight zero. A mix of
 * everything finds less than many mixes of a few things.
 */
import { type CompactionPolicy, defaultCompaction } from "../../src/node/compaction.ts";
import { checkLimits, defaultLimits, type Limits } from "../../src/limits.ts";
import type { Random } from "./random.ts";

export const faults = [
  "crash",
  "crashLeader",
  "crashAll",
  "pause",
  "pauseLeader",
  "isolate",
  "isolateLeader",
  "split",
  "cutOneWay",
  /** What a follower says to its leader arrives when others have led meanwhile. */
  "holdReplies",
  "heal",
  "reset",
  "slowLink",
  "slowDisk",
  "fullDisk",
  /** The process ends between two effects of a turn, or of its boot. */
  "endInside",
  "endLeaderInside",
  "failSync",
  /** Crash, and bits rot on the disk before it starts again; of a minority of nodes. */
  "rot",
  "overload",
  /** Somebody asks for a transfer of leadership, of any node, to any node or to none in particular. */
  "transfer",
  /** The leader is told to stop: it hands over, and is gone a moment later. */
  "stopLeader",
  /** Leadership is to go to a node that the leader cannot reach from that moment on: what it is told arrives when others have gone on. */
  "transferIntoCut",
] as const;
export type Fault = (typeof faults)[number];

/** What else can be left out of a run, to find out what a failure needs. */
export const traits = [
  "fellLeaders",
  "powerCuts",
  "slowSyncs",
  "slowMessages",
  "splitFrames",
  "corruptFrames",
  "drift",
  "strangeBounds",
  "largeValues",
  "preferredLeaders",
  /** Leadership goes from node to node all the time. */
  "restlessLeaders",
  /** Members come and go. */
  "memberChanges",
  /** Keys are watched. */
  "watches",
  /** Nodes are of different builds, and change them. */
  "versions",
  /** Segments of logs turn out to be damaged. */
  "evacuations",
  /** Nodes know how much space their disks have, and give up a ballast. */
  "ballasts",
  /** Clients have sessions, or put ids on their requests. */
  "sessions",
  /** A wounded node's disk rots again before it is whole. */
  "relapses",
  /** There are other groups than the default one. */
  "groups",
  /** They change their nodes. */
  "groupMoves",
  /** They go, and members of them come back, at bad moments. */
  "groupGraves",
  /** Nodes join and leave the cluster while there are groups on them. */
  "hostChanges",
  /** Members of groups are to come back before they have heard that they had left. */
  "earlyReturns",
  /** The state machine is an application, which fails as well. */
  "applications",
  /** One group of each node always has more to do than there is room for. */
  "hotGroups",
] as const;
export type Trait = (typeof traits)[number];
export type Kind = Fault | Trait;
export const kinds: readonly Kind[] = [...faults, ...traits];

export function isKind(name: string): name is Kind {
  return kinds.some((kind) => kind === name);
}

/** The process dies alone; power is cut and nothing, or of each file some prefix, is kept of what was not synced. */
export const crashModes = ["all", "none", "prefix"] as const;

export interface Swarm {
  /** When nodes cut their logs, and so how often a snapshot is needed. */
  readonly compaction: CompactionPolicy;
  /** The first members. */
  readonly nodes: number;
  /** Further nodes, with empty disks, that may become members. */
  readonly spares: number;
  /** Somebody asks for other members as often as that; 0 = never. */
  readonly changeEveryMs: number;
  readonly limits: Limits;
  /** In the order of `faults`; all zero in some seeds. */
  readonly faultWeights: readonly number[];
  readonly faultEveryMs: number;
  /** A new leader is struck by this, at this chance, within that time: the moment at which logs differ most. */
  readonly fellBy: Fault;
  readonly fellChance: number;
  readonly fellWithinMs: number;
  /** How long a crashed node stays down, a paused one paused, a cut cut; at most. */
  readonly outageMs: number;
  readonly pauseMs: number;
  /** What crashes leave of what was not synced, in the order of `crashModes`. */
  readonly crashWeights: readonly number[];
  /** Time of a sync, at most; most are much shorter. */
  readonly syncMs: number;
  /** Factor on the time of syncs while a disk is slow. */
  readonly slowness: number;
  /** A process that ends inside does so after this many effects, at most. */
  readonly effectsMax: number;
  /** Requests of an overload, per node. */
  readonly burst: number;
  /** Nodes up to this id should lead rather than others. */
  readonly preferredUpTo: number;
  /** Time between two transfers of leadership, besides those by faults; 0 = none. */
  readonly transferEveryMs: number;
  /** Clocks run between 1 / drift and drift. */
  readonly drift: number;
  readonly delayMs: number;
  readonly slowChance: number;
  readonly slowMs: number;
  readonly splitChance: number;
  readonly corruptChance: number;
  readonly clients: number;
  readonly thinkMs: number;
  readonly timeoutMs: number;
  readonly keys: number;
  readonly keyLife: number;
  readonly sectionCommandsMax: number;
  readonly readShare: number;
  readonly localShare: number;
  /** Bounds on the age of local reads, where they have one; at most. */
  readonly staleMsMax: number;
  /** Time between two local reads with a bound, of which only the age is looked at; 0 = none. */
  readonly peekEveryMs: number;
  readonly valueBytes: number;
  /** A wounded node is struck again as often as that; 0 = never. */
  readonly relapseEveryMs: number;
}

const KiB = 1024;

export function drawSwarm(random: Random, without: readonly Kind[] = []): Swarm {
  const swarm = drawAll(random);
  return without.reduce(withoutKind, drawMembers(random, swarm));
}

/** In half of the seeds the members change. */
function drawMembers(random: Random, swarm: Swarm): Swarm {
  if (random.chance(0.5)) return swarm;
  const { limits } = swarm;
  const electionMs = limits.electionTicksMax * limits.tickMs;
  return {
    ...swarm,
    nodes: random.pick([1, 2, 3, 3, 3, 4, 5]),
    spares: random.between(1, 5),
    changeEveryMs: electionMs * random.pick([0.1, 0.3, 1]),
    // The quorum that a damaged disk may take a node from changes too.
    faultWeights: swarm.faultWeights.map((weight, at) => (faults[at] === "rot" ? 0 : weight)),
  };
}

function withoutKind(swarm: Swarm, kind: Kind): Swarm {
  switch (kind) {
    case "fellLeaders":
      return { ...swarm, fellChance: 0 };
    case "powerCuts":
      return { ...swarm, crashWeights: [1, 0, 0] };
    case "slowSyncs":
      return { ...swarm, syncMs: 0.3 };
    case "slowMessages":
      return { ...swarm, slowChance: 0 };
    case "splitFrames":
      return { ...swarm, splitChance: 0 };
    case "corruptFrames":
      return { ...swarm, corruptChance: 0 };
    case "drift":
      return { ...swarm, drift: 1 };
    case "strangeBounds":
      return { ...swarm, limits: plainLimits(swarm.limits) };
    case "largeValues":
      return { ...swarm, valueBytes: 0 };
    case "memberChanges":
      return { ...swarm, spares: 0, changeEveryMs: 0 };
    case "preferredLeaders":
      return { ...swarm, preferredUpTo: 0 };
    case "restlessLeaders":
      return { ...swarm, transferEveryMs: 0 };
    case "watches":
    case "versions":
    case "evacuations":
    case "ballasts":
    case "sessions":
    case "relapses":
    case "groups":
    case "groupMoves":
    case "groupGraves":
    case "hostChanges":
    case "earlyReturns":
    case "applications":
    case "hotGroups":
      // Drawn apart: see watchers.ts, upgrades.ts, relapses.ts, evacuations.ts, session-clients.ts, group-swarm.ts, early-returns.ts, member-changes.ts, app-swarm.ts, hot-groups.ts and simulation.ts.
      return swarm;
    default: {
      const without = faults.indexOf(kind);
      const faultWeights = swarm.faultWeights.map((weight, at) => (at === without ? 0 : weight));
      return { ...swarm, faultWeights };
    }
  }
}

function drawAll(random: Random): Swarm {
  const limits = drawLimits(random);
  const electionMs = limits.electionTicksMax * limits.tickMs;
  const usual: Swarm = {
    compaction: drawCompaction(random.fork(9)),
    nodes: random.chance(0.65) ? 3 : 5,
    spares: 0,
    changeEveryMs: 0,
    limits,
    faultWeights: drawFaults(random),
    faultEveryMs: electionMs * random.pick([0.15, 0.4, 1]),
    fellBy: random.pick(["crashLeader", "crashLeader", "isolateLeader", "pauseLeader"]),
    fellChance: random.pick([0, 0, 0.3]),
    fellWithinMs: electionMs * random.pick([0.1, 0.5]),
    outageMs: electionMs * random.pick([0.5, 2, 4]),
    pauseMs: electionMs * random.pick([0.5, 2, 10]),
    crashWeights: random.pick([
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [1, 1, 2],
    ]),
    syncMs: random.pick([0.3, 2, 20]),
    slowness: random.pick([10, 100]),
    effectsMax: random.pick([3, 20]),
    burst: random.pick([30, 150]),
    preferredUpTo: random.pick([0, 0, 0, 1, 2]),
    transferEveryMs: electionMs * random.pick([0, 0, 0.3, 1]),
    drift: random.pick([1, 1, 1.2, 2]),
    delayMs: random.pick([0.1, 0.5, 2]),
    slowChance: random.pick([0, 0.01, 0.1, 0.3]),
    slowMs: electionMs * random.pick([0.05, 0.3, 1.5]),
    splitChance: random.pick([0, 0.1]),
    corruptChance: random.pick([0, 0, 0, 0.002]),
    clients: random.between(2, 6),
    thinkMs: electionMs * random.pick([0.05, 0.2, 0.6]),
    timeoutMs: electionMs * random.pick([0.7, 2, 4]),
    keys: random.between(1, 4),
    keyLife: random.pick([60, 120]),
    sectionCommandsMax: random.between(1, 4),
    readShare: random.pick([0.1, 0.3, 0.6]),
    localShare: random.pick([0, 0.1]),
    staleMsMax: electionMs * random.pick([0.3, 1, 3]),
    peekEveryMs: limits.tickMs * random.pick([0, 0.3, 1]),
    valueBytes: random.pick([0, 0, 200]),
    relapseEveryMs: 0,
  };
  return random.chance(0.25) ? churn(random, usual) : usual;
}

/** Few kinds of faults per seed, each with a weight of its own; one seed in twenty has none. */
function drawFaults(random: Random): number[] {
  if (random.chance(0.05)) return faults.map(() => 0);
  const share = random.pick([0.15, 0.3, 0.5]);
  const weights = faults.map(() => (random.chance(share) ? 1 + random.below(8) : 0));
  return weights.some((weight) => weight > 0) ? weights : faults.map(() => 1);
}

/**
 * Leaders that fall one after the other while their logs travel batch by batch over slow links: what an old leader left and what a new
 * one adds meet half-replicated (figure 8 of the paper).
 */
function churn(random: Random, usual: Swarm): Swarm {
  const { limits } = usual;
  const electionMs = limits.electionTicksMax * limits.tickMs;
  return {
    ...usual,
    nodes: random.chance(0.9) ? 3 : 5,
    limits: checkLimits({
      ...limits,
      batchBytesMax: 1,
      appendBytesMax: 1,
      inflightFramesMax: random.between(1, 2),
    }),
    faultEveryMs: electionMs * random.pick([0.3, 1]),
    fellChance: 0.9,
    fellWithinMs: limits.tickMs * random.pick([1, 2]),
    outageMs: electionMs * random.pick([0.3, 1]),
    pauseMs: electionMs * random.pick([1, 2]),
    delayMs: limits.tickMs * random.pick([0.1, 0.3, 0.6]),
    syncMs: random.pick([0.3, limits.tickMs]),
    thinkMs: electionMs * random.pick([0.2, 0.5]),
  };
}

/** Half of the seeds cut their logs so early that whoever was away for a moment needs a snapshot. */
function drawCompaction(random: Random): CompactionPolicy {
  if (random.chance(0.5)) return defaultCompaction;
  return {
    entries: random.pick([0, 1, 5, 20]),
    bytes: random.pick([500, 2_000]),
    tailBytes: random.pick([0, 0, 400]),
  };
}

/** The usual bounds at the same clock. */
function plainLimits(limits: Limits): Limits {
  const { tickMs, heartbeatTicks, electionTicksMin, electionTicksMax, checkQuorumTicks } = limits;
  return checkLimits({
    ...defaultLimits,
    tickMs,
    heartbeatTicks,
    electionTicksMin,
    electionTicksMax,
    checkQuorumTicks,
  });
}

/** Bounds at which rare paths become common: one section a batch, a window of one, segments of a few records, no cache, a tiny memtable. */
function drawLimits(random: Random): Limits {
  const heartbeatTicks = random.between(1, 3);
  const electionTicksMin = heartbeatTicks * random.between(2, 4);
  const electionTicksMax = electionTicksMin + random.between(2, electionTicksMin + 2);
  const strange = (value: number, odd: readonly number[]): number =>
    random.chance(0.35) ? random.pick(odd) : value;
  const segmentBytes = strange(defaultLimits.segmentBytes, [2 * KiB, 16 * KiB]);
  const limits = checkLimits({
    ...defaultLimits,
    tickMs: random.pick([10, 25]),
    heartbeatTicks,
    electionTicksMin,
    electionTicksMax,
    checkQuorumTicks: electionTicksMin + random.below(electionTicksMin + 1),
    syncStallMs: strange(defaultLimits.syncStallMs, [5, 50]),
    loopStallMs: strange(defaultLimits.loopStallMs, [50, 100]),
    loopStallsMax: strange(defaultLimits.loopStallsMax, [1]),
    stallWindowMs: strange(defaultLimits.stallWindowMs, [100, 1_000]),
    preferredDelayMs: strange(defaultLimits.preferredDelayMs, [50, 500]),
    batchBytesMax: strange(defaultLimits.batchBytesMax, [1, 200, 1_000]),
    sealBytes: strange(defaultLimits.sealBytes, [1, 300]),
    appendBytesMax: strange(defaultLimits.appendBytesMax, [1, 500, 2_000]),
    inflightBytesMax: strange(defaultLimits.inflightBytesMax, [1, 1_000]),
    inflightFramesMax: strange(defaultLimits.inflightFramesMax, [1, 2]),
    unsyncedBytesMax: strange(defaultLimits.unsyncedBytesMax, [1, 1_000]),
    unappliedBytesMax: strange(defaultLimits.unappliedBytesMax, [1, 2_000]),
    applyBytesPerTurn: strange(defaultLimits.applyBytesPerTurn, [1, 500]),
    inboxBytesMax: strange(defaultLimits.inboxBytesMax, [400, 2_000]),
    tailCacheBytes: strange(defaultLimits.tailCacheBytes, [1, 1_000]),
    waitersMax: strange(defaultLimits.waitersMax, [2, 20]),
    readWaitersMax: strange(defaultLimits.readWaitersMax, [1, 10]),
    forwardsMax: strange(defaultLimits.forwardsMax, [1, 10]),
    segmentBytes,
    segmentRecordsMax: strange(defaultLimits.segmentRecordsMax, [3, 10, 40]),
    memtableBytes: strange(defaultLimits.memtableBytes, [512, 4 * KiB]),
    snapshotChunkBytes: strange(defaultLimits.snapshotChunkBytes, [40, 200]),
    snapshotWindowBytes: strange(defaultLimits.snapshotWindowBytes, [1, 500]),
    snapshotStallMs: strange(2_000, [300]),
    kvWalBytesMax: strange(defaultLimits.kvWalBytesMax, [300, 3_000]),
    memtableFlushMs: strange(defaultLimits.memtableFlushMs, [50, 500]),
    flushLogBytesMin: 1,
    everyTickGroups: 1,
    // On the scale of the elections, which are quicker here.
    diskFullRetryMs: electionTicksMax * 10,
  });
  // Where checkpoints are frequent, a snapshot that is in their way is given up soon.
  return limits.kvWalBytesMax < 10_000 ? { ...limits, snapshotWalBytesMax: 4_000 } : limits;
}

/**
 * One run from one seed: a cluster under a swarm of faults and clients, then peace, recovery and the last checks. Whatever breaks is thrown,
 * out of the event that broke it.
 */
import { clusterIdOf, seedCrcOf } from "../../src/node/bootstrap.ts";
import { Clients } from "./clients.ts";
import { Violation } from "./invariants.ts";
import { checkHistory, checkStates } from "./last-checks.ts";
import { MemberChanges } from "./member-changes.ts";
import { Nemesis, type Victim } from "./nemesis.ts";
import { drawGroups } from "./group-swarm.ts";
import { EndPoint } from "./process-end.ts";
import { Random } from "./random.ts";
import { Recovery } from "./recovery.ts";
import { drawRelapses, Relapses } from "./relapses.ts";
import { Scheduler } from "./scheduler.ts";
import { drawSessions, sessionLimits } from "./session-clients.ts";
import { defaultGroup, SimGroup, SimGroups } from "./sim-group.ts";
import { SimNetwork } from "./sim-network.ts";
import { SimNode } from "./sim-node.ts";
import { Storage } from "./storage.ts";
import { Evacuations } from "./evacuations.ts";
import { Upgrades } from "./upgrades.ts";
import { drawSwarm, type Kind, type Swarm } from "./swarm.ts";
import { emptyTally, type Tally } from "./tally.ts";
import { Trace } from "./trace.ts";
import { drawWatches, watchLimits, Watchers } from "./watchers.ts";

export interface RunOptions {
  readonly seed: number;
  /** Events before the faults end. */
  readonly events: number;
  /** What the seed draws and this run leaves out. */
  readonly without?: readonly Kind[];
  /** Judges by what is applied and what clients see alone. */
  readonly blackBox?: boolean;
}

export interface RunResult {
  readonly seed: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly leaders: number;
  readonly committed: number;
  readonly operations: number;
  readonly tally: Tally;
  readonly hash: string;
  readonly failure: unknown;
}

/** Runs a seed to its end; a failure is part of the result. */
export function simulate(options: RunOptions): RunResult {
  const simulation = new Simulation(options);
  let failure: unknown;
  try {
    simulation.run();
  } catch (error) {
    failure = error ?? new Error("nothing was thrown");
  }
  return { ...simulation.result, failure };
}

/** Streams of chance of a seed that are drawn apart. */
const watchStream = 1_001;
const limitStream = 1_002;
const sessionStream = 1_003;
const versionStream = 1_005;
const sessionLimitStream = 1_004;
const relapseStream = 1_006;
const relapseMomentStream = 1_007;
/** No seed that is recorded as finding a planted bug has them by it. */
const evacuationStream = 1_009;
const ballastStream = 1_011;
/** And what other groups draw from, each by its id. */
const groupStream = 20_000;
/** Share of runs whose nodes have a ballast, where their disks run full. */
const ballastShare = 0.3;
/** Events of the recovery that no cluster needs: it would go on for ever. */
const recoveryEventsMax = 200_000;
/** Share of runs that go on in peace, to see that the leader stays. */
const stableShare = 0.2;
/** And in which leadership is handed over once more. */
const transferShare = 0.3;

class Simulation {
  readonly #seed: number;
  readonly #eventsMax: number;
  readonly #random: Random;
  readonly #swarm: Swarm;
  readonly #scheduler = new Scheduler();
  readonly #trace = new Trace();
  readonly #tally = emptyTally();
  readonly #groups = new SimGroups();
  readonly #nodes: readonly SimNode[];
  readonly #network: SimNetwork;
  /** Chooses among groups, and what happens to them. */
  readonly #groupRandom: Random;
  readonly #watchers: Watchers;
  readonly #nemesis: Nemesis;
  readonly #memberChanges: MemberChanges;
  readonly #upgrades: Upgrades;
  readonly #relapses: Relapses;
  readonly #evacuations: Evacuations;
  #events = 0;
  /** Elections that were won so far. */
  #leaders = 0;

  constructor({ seed, events, without = [], blackBox = false }: RunOptions) {
    this.#seed = seed;
    this.#eventsMax = events;
    const random = (this.#random = new Random(seed));
    const swarm = (this.#swarm = this.#draw(random.fork(1), without));
    const scheduler = this.#scheduler;
    const tally = this.#tally;
    const members = new Map<number, string>();
    for (let id = 1; id <= swarm.nodes; id++) members.set(id, `sim:${id}`);
    const ids = Array.from({ length: swarm.nodes + swarm.spares }, (_, at) => at + 1);

    const groups = this.#groups;
    const { limits } = swarm;
    const nowMs = (): number => scheduler.nowMs;
    groups.add(new SimGroup({ id: defaultGroup, nodeIds: ids, members, limits, blackBox, nowMs }));
    const { invariants } = groups.default;
    this.#groupRandom = new Random(seed, groupStream);
    const groupSwarm = drawGroups(this.#groupRandom, swarm, without.includes("groups"));
    for (const [at, first] of groupSwarm.groups.entries()) {
      const id = at + 1;
      const theirs = new Map(first.map((node) => [node, `sim:${node}`]));
      groups.add(new SimGroup({ id, nodeIds: ids, members: theirs, limits, blackBox, nowMs }));
    }
    const seedCrc = seedCrcOf(clusterIdOf(`sim ${seed}`, members));
    const ballastRandom = new Random(seed, ballastStream);
    const ballastBytes = ballastRandom.chance(ballastShare) ? ballastRandom.between(500, 5_000) : 0;
    const victims = ids.map((id): Victim => {
      const endPoint = new EndPoint();
      const storage = new Storage({
        scheduler,
        random: random.fork(100 + id),
        folderRandom: new Random(seed, groupStream + 100 + id),
        syncMsMax: swarm.syncMs,
        ballastBytes: without.includes("ballasts") ? 0 : ballastBytes,
        ballastReleased: () => tally.ballasts++,
        syncFailed: () => node.syncFailed(),
      });
      const node = new SimNode({
        id,
        groups,
        seedCrc,
        limits: swarm.limits,
        compaction: swarm.compaction,
        scheduler,
        clockRate: swarm.drift ** (2 * random.float() - 1),
        preferred: id <= swarm.preferredUpTo,
        random: random.fork(200 + id),
        storage,
        groupRandom: new Random(seed, groupStream + 200 + id),
        network: () => this.#network,
        endPoint,
        tally,
        ended: (ending, why) => this.#nemesis.ended(ending, why),
        healed: (whole) => this.#relapses.healed(whole),
      });
      return { node, storage, endPoint };
    });
    this.#nodes = victims.map(({ node }) => node);
    this.#network = new SimNetwork({
      ...swarm,
      scheduler,
      random: random.fork(2),
      nodes: this.#nodes,
      frameBytesMax: swarm.limits.frameBytesMax,
      frameTimeoutMs: swarm.outageMs,
      onSend: (life, message) => groups.sent(life, message),
      onBytes: (from, to, crc) => this.#trace.add(scheduler.nowMs, from * 16 + to, crc),
    });
    for (const group of groups.all()) {
      const { id } = group;
      const { oracle } = group.invariants;
      const isDefault = id === defaultGroup;
      const sessionRandom = new Random(seed, isDefault ? sessionStream : groupStream + 2_000 + id);
      group.clients = new Clients({
        ...swarm,
        clients: isDefault ? swarm.clients : groupSwarm.clients,
        group: id,
        scheduler,
        random: isDefault ? random.fork(3) : new Random(seed, groupStream + 1_000 + id),
        nodes: this.#nodes.filter((node) => isDefault || group.members.has(node.id)),
        oracle,
        answeredLocally: (node, appliedIndex, boundMs) =>
          group.invariants.answeredLocally(node, appliedIndex, boundMs),
        tally,
        sessions: drawSessions(sessionRandom, swarm, without.includes("sessions")),
      });
    }
    const watchRandom = new Random(seed, watchStream);
    const watchSwarm = drawWatches(watchRandom, swarm);
    this.#watchers = new Watchers({
      ...watchSwarm,
      watchers: without.includes("watches") ? 0 : watchSwarm.watchers,
      scheduler,
      random: watchRandom,
      nodes: this.#nodes,
      oracle: invariants.oracle,
      tally,
    });
    this.#nemesis = new Nemesis({
      scheduler,
      random: random.fork(4),
      swarm,
      victims,
      network: this.#network,
      groups,
      groupRandom: this.#groupRandom,
      watchers: this.#watchers,
      tally,
      struck: (fault) => this.#trace.add(scheduler.nowMs, 1, fault),
    });
    this.#upgrades = new Upgrades({
      random: new Random(seed, versionStream),
      scheduler,
      nodes: this.#nodes,
      without: without.includes("versions"),
      restart: (node) => this.#nemesis.restart(node),
    });
    this.#relapses = new Relapses({
      random: new Random(seed, relapseMomentStream),
      scheduler,
      swarm,
      nodes: this.#nodes,
      strike: (node) => this.#nemesis.relapse(node),
      leaderFalls: () => this.#nemesis.leaderFalls(),
    });
    this.#evacuations = new Evacuations({
      random: new Random(seed, evacuationStream),
      scheduler,
      nodes: this.#nodes,
      without: without.includes("evacuations"),
      tally,
    });
    this.#memberChanges = new MemberChanges({
      scheduler,
      random: random.fork(5),
      swarm,
      nodes: this.#nodes,
      tally,
    });
  }

  /** What was added later draws from streams of its own, so that what old seeds do changes as little as possible. */
  #draw(random: Random, without: readonly Kind[]): Swarm {
    const drawn = drawSwarm(random, without);
    const relapseRandom = new Random(this.#seed, relapseStream);
    const swarm = without.includes("relapses") ? drawn : drawRelapses(relapseRandom, drawn);
    if (without.includes("strangeBounds")) return swarm;
    const limits = watchLimits(new Random(this.#seed, limitStream), swarm.limits);
    return { ...swarm, limits: sessionLimits(new Random(this.#seed, sessionLimitStream), limits) };
  }

  get result(): Omit<RunResult, "failure"> {
    return {
      seed: this.#seed,
      events: this.#events,
      virtualMs: this.#scheduler.nowMs,
      leaders: this.#groups.leaders,
      committed: [...this.#groups.all()].reduce(
        (sum, { invariants }) => sum + invariants.oracle.lastIndex,
        0,
      ),
      operations: [...this.#groups.all()].reduce(
        (sum, { clients }) => sum + clients.history.length,
        0,
      ),
      tally: this.#tally,
      hash: this.#trace.hash,
    };
  }

  run(): void {
    for (const node of this.#nodes) if (node.id <= this.#swarm.nodes) node.start();
    this.#network.start();
    this.#nemesis.start();
    this.#memberChanges.start();
    this.#upgrades.start();
    this.#relapses.start();
    this.#evacuations.start();
    while (this.#events < this.#eventsMax) this.#step();

    this.#groups.stopClients();
    this.#watchers.stop();
    this.#memberChanges.stop();
    this.#upgrades.end();
    this.#relapses.end();
    this.#evacuations.end();
    this.#nemesis.end();
    this.#recoverDefault();
    for (const group of this.#groups.all()) {
      if (group.id !== defaultGroup) this.#recover(group);
    }
  }

  #recovery({ id, clients, invariants }: SimGroup): Recovery {
    return new Recovery({
      scheduler: this.#scheduler,
      swarm: this.#swarm,
      nodes: this.#nodes,
      group: id,
      clients,
      oracle: invariants.oracle,
      memberChanges: this.#memberChanges,
      step: () => this.#step(),
    });
  }

  /** Another group than the default one. */
  #recover(group: SimGroup): void {
    const { id, clients, invariants } = group;
    const recovery = this.#recovery(group);
    recovery.run();
    if (this.#groupRandom.chance(transferShare)) recovery.handsOver(this.#groupRandom);
    recovery.settles();
    checkStates(recovery.up, id, clients, invariants.oracle);
    checkHistory(clients, invariants.oracle);
  }

  #recoverDefault(): void {
    const { clients, invariants } = this.#groups.default;
    const recovery = this.#recovery(this.#groups.default);
    recovery.run();
    if (this.#random.chance(stableShare)) recovery.staysLed();
    if (this.#random.chance(transferShare)) recovery.handsOver(this.#random);
    for (const { call, return: end, index } of clients.history) {
      this.#trace.add(call, end === Infinity ? -1 : end, index);
    }
    recovery.until("the newest apply version", () => this.#upgrades.raised(recovery.up));
    recovery.settles();
    recovery.untilLed("watchers to be told everything", () => this.#watchers.upToDate);
    checkStates(recovery.up, defaultGroup, clients, invariants.oracle);
    checkHistory(clients, invariants.oracle);
  }

  #step(): void {
    this.#events++;
    if (this.#events > this.#eventsMax + recoveryEventsMax) {
      throw new Violation("the recovery does not come to an end");
    }
    if (!this.#scheduler.step()) throw new Violation("nothing is left to happen");
    const { leaders } = this.#groups;
    if (leaders > this.#leaders) {
      this.#leaders = leaders;
      this.#nemesis.led();
    }
  }
}

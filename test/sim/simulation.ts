/**
 * One run from one seed: a cluster under a swarm of faults and clients, then peace, recovery and the last checks. Whatever breaks is thrown,
 * out of the event that broke it.
 */
import { clusterIdOf } from "../../src/node/bootstrap.ts";
import { membersOf } from "../../src/raft/configuration.ts";
import { defaultGroup, type RegistryEntry, systemGroup } from "../../src/wire/registry.ts";
import { registryVersion } from "../../src/wire/versions.ts";
import { type BeatFacts, BeatJudge } from "./beat-judge.ts";
import { Clients } from "./clients.ts";
import { Violation } from "./invariants.ts";
import { checkHistory, checkStates } from "./last-checks.ts";
import { drawHosts, MemberChanges } from "./member-changes.ts";
import { Nemesis, type Victim } from "./nemesis.ts";
import { GroupChanges } from "./group-changes.ts";
import { drawGraves, Graves, withGraves } from "./group-graves.ts";
import {
  drawEarlyReturns,
  earlyCalmKinds,
  earlyGroupSwarm,
  EarlyReturns,
} from "./early-returns.ts";
import { drawGroups, groupLimits, type GroupSwarm, hasGroups } from "./group-swarm.ts";
import { calmKinds, drawHot, HotGroups, hotGroupSwarm, withHot } from "./hot-groups.ts";
import { EndPoint } from "./process-end.ts";
import { Random } from "./random.ts";
import { Recovery } from "./recovery.ts";
import { names, RegistryJudge } from "./registry-judge.ts";
import { drawRelapses, Relapses } from "./relapses.ts";
import { Scheduler } from "./scheduler.ts";
import { drawSessions, sessionLimits } from "./session-clients.ts";
import { AppCrashes } from "./app-crashes.ts";
import { appLimits, appPatienceMs, drawApps } from "./app-swarm.ts";
import { SimApp } from "./sim-app.ts";
import { SimApps } from "./sim-apps.ts";
import { SimGroup, SimGroups } from "./sim-group.ts";
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
  /** What this run has though the seed does not draw it, as far as that goes with the rest: applications, groups, and kinds of runs with groups. */
  readonly wanted?: readonly Kind[];
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
const appStream = 1_013;
/** As above, and what else groups draw from follows on it. */
const groupStream = 101_127;
const graveStream = 303_001;
const hotStream = 404_001;
const earlyStream = 505_001;
const hostStream = 606_001;
/** In runs with several groups there are so many times the events that are asked for. */
const groupEvents = 3;
/** And so many where members of groups go and come back, or one is hot. */
const graveEvents = 5;
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
  #eventsMax: number;
  readonly #random: Random;
  readonly #swarm: Swarm;
  readonly #scheduler = new Scheduler();
  readonly #trace = new Trace();
  readonly #tally = emptyTally();
  readonly #groups = new SimGroups();
  readonly #groupSwarm: GroupSwarm;
  readonly #groupChanges: GroupChanges;
  readonly #graves: Graves;
  readonly #earlyReturns: EarlyReturns;
  readonly #hotGroups: HotGroups;
  readonly #appCrashes: AppCrashes;
  readonly #judge = new RegistryJudge({
    created: (entry) => this.#groupCreated(entry),
    changed: (entry) => this.#hostsChanged(entry),
    removed: (id) => this.#groupRemoved(id),
  });
  readonly #blackBox: boolean;
  readonly #withoutSessions: boolean;
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
  /** Faults are over. */
  #isOver = false;
  /** Elections that were won so far. */
  #leaders = 0;
  readonly #appPatienceMs: number;

  constructor({ seed, events, without: asked = [], wanted = [], blackBox = false }: RunOptions) {
    this.#seed = seed;
    this.#eventsMax = events;
    const random = (this.#random = new Random(seed));
    const hotRandom = new Random(seed, hotStream);
    const hot = drawHot(hotRandom, asked, wanted.includes("hotGroups"));
    const earlyRandom = new Random(seed, earlyStream);
    const isEarly =
      !hot.isOn && drawEarlyReturns(earlyRandom, asked, wanted.includes("earlyReturns"));
    const calm = hot.isOn ? calmKinds : isEarly ? earlyCalmKinds : [];
    const without = [...asked, ...calm];
    const drawn = this.#draw(random.fork(1), without);
    this.#groupRandom = new Random(seed, groupStream);
    this.#groupSwarm = {
      ...drawGroups(this.#groupRandom, drawn, {
        groups: without.includes("groups"),
        groupMoves: without.includes("groupMoves"),
        wanted: wanted.some((kind) => kind !== "applications"),
      }),
      ...(hot.isOn ? hotGroupSwarm(hot, drawn) : {}),
      ...(isEarly ? earlyGroupSwarm(drawn) : {}),
    };
    const groupsOn = hasGroups(this.#groupSwarm);
    const hostRandom = new Random(seed, hostStream);
    const withoutHosts = hot.isOn || without.includes("hostChanges");
    const hosting = groupsOn
      ? drawHosts(hostRandom, drawn, withoutHosts, wanted.includes("hostChanges"))
      : drawn;
    const hosts = groupsOn && hosting.changeEveryMs > 0;
    const withGroups = groupsOn
      ? {
          ...hosting,
          limits: without.includes("strangeBounds")
            ? drawn.limits
            : groupLimits(this.#groupRandom, drawn.limits, this.#groupSwarm.hotEveryMs < Infinity),
        }
      : drawn;
    const appRandom = new Random(seed, appStream);
    const appSwarm = drawApps(appRandom, withGroups, {
      without: without.includes("applications"),
      wanted: wanted.includes("applications"),
    });
    const withApps = appSwarm.isOn
      ? { ...withGroups, limits: appLimits(appRandom, withGroups.limits) }
      : withGroups;
    const graveRandom = new Random(seed, graveStream);
    const graves = drawGraves(
      graveRandom,
      withApps,
      this.#groupSwarm,
      hosts || without.includes("groupGraves"),
    );
    const withAll =
      graves.isOn && !without.includes("strangeBounds") ? withGraves(graves, withApps) : withApps;
    const swarm = (this.#swarm = hot.isOn ? withHot(hot, withAll) : withAll);
    const takesLonger = graves.isOn || hot.isOn || isEarly || hosts;
    // It takes its time until there is a registry.
    if (groupsOn) this.#eventsMax = (takesLonger ? graveEvents : groupEvents) * events;
    this.#blackBox = blackBox;
    this.#withoutSessions = without.includes("sessions");
    const scheduler = this.#scheduler;
    const tally = this.#tally;
    const members = new Map<number, string>();
    for (let id = 1; id <= swarm.nodes; id++) members.set(id, `sim:${id}`);
    const ids = Array.from({ length: swarm.nodes + swarm.spares }, (_, at) => at + 1);

    const groups = this.#groups;
    this.#addGroup(defaultGroup, ids);
    const { invariants } = groups.default;
    invariants.oracle.isOfApplication = appSwarm.isOn;
    this.#appPatienceMs = appPatienceMs(appSwarm);
    if (groupsOn) {
      const system = this.#addGroup(systemGroup, ids);
      system.invariants.oracle.onWritten = (...written) => this.#judge.written(...written);
    }
    const clusterId = clusterIdOf(`sim ${seed}`, members);
    const ballastRandom = new Random(seed, ballastStream);
    const ballastBytes = ballastRandom.chance(ballastShare) ? ballastRandom.between(500, 5_000) : 0;
    const victims = ids.map((id): Victim => {
      const endPoint = new EndPoint();
      const storage = new Storage({
        scheduler,
        random: random.fork(100 + id),
        registrySlowness: (graves.isOn ? graves : this.#groupSwarm).registrySlowness,
        folderRandom: new Random(seed, groupStream + 100 + id),
        syncMsMax: swarm.syncMs,
        ballastBytes: without.includes("ballasts") ? 0 : ballastBytes,
        ballastReleased: () => tally.ballasts++,
        syncFailed: () => node.syncFailed(),
      });
      const makeApp = (group: number): SimApp => {
        const { invariants: judges } = groups.of(group);
        return new SimApp({
          node: id,
          swarm: appSwarm,
          random: new Random(seed, appStream + 1_000 * id + 100_000 * group),
          scheduler,
          oracle: judges.oracle,
          tally,
          given: (index) => judges.allowedDurable(id, index),
          deliver: (life, event) => {
            if (node.life === life) node.deliver(event);
          },
        });
      };
      const node = new SimNode({
        id,
        apps: appSwarm.isOn ? new SimApps(makeApp) : undefined,
        appSync: appSwarm.sync,
        members,
        groups,
        hasRegistry: groupsOn,
        clusterId,
        limits: swarm.limits,
        compaction: swarm.compaction,
        scheduler,
        clockRate: swarm.drift ** (2 * random.float() - 1),
        preferred: id <= swarm.preferredUpTo,
        random: random.fork(200 + id),
        storage,
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
      onSend: (life, message) => {
        if (message.type === "beat") tally.beats++;
        groups.sent(life, message);
      },
      onBytes: (from, to, crc) => this.#trace.add(scheduler.nowMs, from * 16 + to, crc),
    });
    groups.default.hosts.push(...this.#nodes);
    if (!blackBox) groups.beats = new BeatJudge(this.#beatFacts());
    groups.default.clients = this.#makeClients(groups.default, {
      clients: swarm.clients,
      random: random.fork(3),
      sessionRandom: new Random(seed, sessionStream),
    });
    const watchRandom = new Random(seed, watchStream);
    const watchSwarm = drawWatches(watchRandom, swarm);
    this.#watchers = new Watchers({
      ...watchSwarm,
      // Of what an application holds nobody is told.
      watchers: without.includes("watches") || appSwarm.isOn ? 0 : watchSwarm.watchers,
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
    this.#appCrashes = new AppCrashes({
      scheduler,
      random: appRandom,
      swarm: appSwarm,
      nodes: this.#nodes,
    });
    this.#groupChanges = new GroupChanges({
      scheduler,
      random: this.#groupRandom,
      swarm,
      groups: this.#groupSwarm,
      nodes: this.#nodes,
      judge: this.#judge,
      oracle: invariants.oracle,
      tally,
      applications: appSwarm.isOn ? appRandom : undefined,
      heat: () => this.#nemesis.heat(),
      isTaken: (group) => this.#graves.isTaken(group) || this.#earlyReturns.isTaken(group),
    });
    this.#graves = new Graves({
      ...graves,
      random: graveRandom,
      scheduler,
      swarm,
      moves: this.#groupSwarm.moves,
      nodes: this.#nodes,
      network: this.#network,
      judge: this.#judge,
      crash: (node) => this.#nemesis.restart(node),
      remove: (...wanted) => this.#groupChanges.askRemove(...wanted),
      move: (...wanted) => this.#groupChanges.askMove(...wanted),
    });
    this.#earlyReturns = new EarlyReturns({
      isOn: isEarly,
      random: earlyRandom,
      scheduler,
      swarm,
      nodes: this.#nodes,
      network: this.#network,
      groups,
      judge: this.#judge,
      tally,
      move: (...wanted) => this.#groupChanges.askMove(...wanted),
      isTaken: (group) => this.#graves.isTaken(group),
    });
    this.#hotGroups = new HotGroups({
      ...hot,
      random: hotRandom,
      scheduler,
      swarm,
      nodes: this.#nodes,
      groups,
      syncs: () => victims.map(({ storage }) => storage.syncs),
      tally,
    });
    const memberRandom = random.fork(5);
    this.#memberChanges = new MemberChanges({
      hosts,
      retire: (node) => this.#nemesis.retire(node),
      oracle: invariants.oracle,
      scheduler,
      random: hosts ? hostRandom : memberRandom,
      swarm,
      nodes: this.#nodes,
      tally,
    });
  }

  /* ---------------------------------------------------------------- groups */

  #addGroup(id: number, nodeIds: readonly number[]): SimGroup {
    const group = new SimGroup({
      id,
      nodeIds,
      limits: this.#swarm.limits,
      blackBox: this.#blackBox,
      nowMs: () => this.#scheduler.nowMs,
      replicaChanged: (node, replica) => this.#judge.replica(node, id, replica),
    });
    this.#groups.add(group);
    return group;
  }

  #makeClients(
    group: SimGroup,
    drawn: {
      readonly clients: number;
      readonly random: Random;
      readonly sessionRandom: Random;
    },
  ): Clients {
    const { clients, random, sessionRandom } = drawn;
    const { invariants } = group;
    return new Clients({
      ...this.#swarm,
      clients,
      group: group.id,
      scheduler: this.#scheduler,
      random,
      nodes: group.hosts,
      oracle: invariants.oracle,
      answeredLocally: (node, appliedIndex, boundMs) =>
        invariants.answeredLocally(node, appliedIndex, boundMs),
      tally: this.#tally,
      sessions: drawSessions(sessionRandom, this.#swarm, this.#withoutSessions),
    });
  }

  #beatFacts(): BeatFacts {
    const nodes = new Map(this.#nodes.map((node) => [node.id, node]));
    return {
      leads: (node, group, term) => {
        const raft = nodes.get(node)?.replica(group)?.raft;
        return raft?.role === "leader" && raft.term === term;
      },
      durableTerm: (node, group) => {
        const { isRemoved } = this.#groups.of(group);
        const { durable, visible } = this.#groups.of(group).ledger(node);
        // What was said while it was there still leaves.
        return isRemoved || visible.isGone ? Infinity : durable.term;
      },
    };
  }

  /** The registry has a new one: its clients begin at once. */
  #groupCreated(entry: RegistryEntry): void {
    const { id } = entry;
    const group = this.#addGroup(
      id,
      this.#nodes.map((node) => node.id),
    );
    group.invariants.oracle.isOfApplication = entry.machine === "http";
    for (const node of this.#nodes) group.invariants.lives(node.id, node.life);
    this.#hostsChanged(entry);
    const random = new Random(this.#seed, groupStream + 2 * id);
    const sessionRandom = new Random(this.#seed, groupStream + 2 * id + 1);
    const clients = random.between(0, this.#groupSwarm.clientsMax);
    group.clients = this.#makeClients(group, { clients, random, sessionRandom });
    if (this.#isOver) group.clients.stop();
  }

  #hostsChanged(entry: RegistryEntry): void {
    const { hosts } = this.#groups.of(entry.id);
    hosts.length = 0;
    for (const node of this.#nodes) if (names(entry, node.id)) hosts.push(node);
  }

  #groupRemoved(id: number): void {
    const group = this.#groups.of(id);
    group.isRemoved = true;
    group.invariants.isOver = true;
    group.clients?.abandon();
    this.#graves.removed([...group.hosts]);
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
        (sum, { clients }) => sum + (clients?.history.length ?? 0),
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
    this.#appCrashes.start();
    this.#groupChanges.start();
    this.#graves.start();
    this.#earlyReturns.start();
    this.#hotGroups.start();
    while (this.#events < this.#eventsMax) this.#step();

    this.#isOver = true;
    this.#groups.stopClients();
    this.#groupChanges.stop();
    this.#graves.end();
    this.#earlyReturns.end();
    this.#hotGroups.end();
    this.#watchers.stop();
    this.#memberChanges.stop();
    this.#upgrades.end();
    this.#relapses.end();
    this.#evacuations.end();
    this.#appCrashes.end();
    this.#nemesis.end();
    this.#recoverDefault();
    if (hasGroups(this.#groupSwarm)) this.#recoverGroups();
  }

  /** Where a member stays down, there may never be a registry. */
  #recoverGroups(): void {
    const system = this.#groups.of(systemGroup);
    const recovery = this.#recovery(this.#groups.default);
    recovery.until("changes of groups to be answered", () => this.#groupChanges.unanswered === 0);
    if (recovery.up.some(({ applyVersion }) => applyVersion < registryVersion)) return;
    const registry = this.#recovery(system);
    recovery.until("all to have the registry", () =>
      recovery.up.every((node) => node.replica(systemGroup) !== undefined),
    );
    registry.settles();
    this.#untilInPlace(recovery);
    registry.settles();
    for (const group of this.#groups.all()) {
      const isOwn = group.id === defaultGroup || group.id === systemGroup;
      if (!isOwn && !group.isRemoved) this.#recover(group);
      else if (!isOwn) checkHistory(group.clients!, group.invariants.oracle);
    }
    this.#untilInPlace(recovery);
    recovery.until("tombstones to be forgotten", () =>
      recovery.up.every(({ tombstones }) => tombstones === 0),
    );
  }

  #untilInPlace(recovery: Recovery): void {
    try {
      recovery.untilLed("groups to be where they are to be", () =>
        this.#areGroupsInPlace(recovery.up),
      );
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      throw new Violation(`${error.message}; ${this.#places}`, { cause: error });
    }
  }

  /** For people: the members of the cluster, and of each group, and those that the registry wants. */
  get #places(): string {
    const shown = (id: number): string => {
      const { voters = [], learners = [] } =
        this.#groups.of(id).invariants.oracle.configuration ?? {};
      return `${voters.join(" ")}|${learners.join(" ")}`;
    };
    const groups = this.#judge.entries.map(({ id, members, leaving, lingering = [] }) => {
      const ids = (all: readonly { readonly id: number }[]): string =>
        all.map((each) => each.id).join(" ");
      return `group ${id} ${shown(id)} wants ${ids(members)}|${ids(leaving)}|${ids(lingering)}`;
    });
    const here = this.#nodes.map(
      ({ id, groupsHere, left }) => `${id}${left ? " left" : ""}: ${groupsHere.join(" ")}`,
    );
    return [
      `cluster ${shown(defaultGroup)}`,
      `system ${shown(systemGroup)}`,
      ...groups,
      ...here,
    ].join("; ");
  }

  /** Each node has what names it, and nothing else; the members of each group are those that the registry names, and nobody is on the way. */
  #areGroupsInPlace(up: readonly SimNode[]): boolean {
    const { entries } = this.#judge;
    if (!this.#isOnMembers(entries)) return false;
    const isInPlace = up.every((node) => {
      const wanted = entries.filter((entry) => names(entry, node.id)).map(({ id }) => id);
      const all = [defaultGroup, systemGroup, ...wanted];
      const { groupsHere, filesHere } = node;
      return (
        groupsHere.length === all.length &&
        all.every((id) => node.replica(id) !== undefined) &&
        filesHere.every((id) => all.includes(id))
      );
    });
    return (
      isInPlace &&
      entries.every(({ id, members, leaving }) => {
        const { configuration } = this.#groups.of(id).invariants.oracle;
        return (
          leaving.length === 0 &&
          configuration !== undefined &&
          membersOf(configuration).join() === members.map((member) => member.id).join() &&
          configuration.voters.length === members.length
        );
      })
    );
  }

  /** The registry's own group has the members of the cluster, and no group a node that is none of them. */
  #isOnMembers(entries: readonly RegistryEntry[]): boolean {
    const cluster = this.#groups.default.invariants.oracle.configuration;
    const system = this.#groups.of(systemGroup).invariants.oracle.configuration;
    if (cluster === undefined || system === undefined) return false;
    const nodes = membersOf(cluster);
    const ids = (all: readonly number[]): string => all.toSorted((a, b) => a - b).join();
    const isSame = ids(membersOf(system)) === ids(nodes);
    const isVoting = ids(system.voters) === ids(cluster.voters);
    return (
      isSame &&
      isVoting &&
      entries.every(({ members }) => members.every(({ id }) => nodes.includes(id)))
    );
  }

  #recovery(group: SimGroup): Recovery {
    const { id, clients, invariants } = group;
    return new Recovery({
      scheduler: this.#scheduler,
      swarm: this.#swarm,
      nodes: this.#nodes,
      group: id,
      appPatienceMs: this.#appPatienceMs,
      clients: clients ?? this.#groups.default.clients!,
      oracle: invariants.oracle,
      memberChanges: this.#memberChanges,
      step: () => this.#step(),
      isGone: () => group.isRemoved,
    });
  }

  /** Another group than the default one. */
  #recover(group: SimGroup): void {
    const { id, invariants } = group;
    const clients = group.clients!;
    const recovery = this.#recovery(group);
    recovery.run();
    if (this.#groupRandom.chance(transferShare)) recovery.handsOver(this.#groupRandom);
    recovery.settles();
    if (!group.isRemoved) checkStates(recovery.up, id, clients, invariants.oracle);
    checkHistory(clients, invariants.oracle);
  }

  #recoverDefault(): void {
    const { invariants } = this.#groups.default;
    const clients = this.#groups.default.clients!;
    const recovery = this.#recovery(this.#groups.default);
    recovery.run();
    if (this.#random.chance(stableShare)) recovery.staysLed();
    if (this.#random.chance(transferShare)) recovery.handsOver(this.#random);
    for (const { call, return: end, index } of clients.history) {
      this.#trace.add(call, end === Infinity ? -1 : end, index);
    }
    recovery.until("the newest apply version", () => this.#upgrades.raised(recovery.up));
    recovery.untilLed("watchers to be told everything", () => this.#watchers.upToDate);
    recovery.settles();
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

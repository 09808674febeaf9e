/**
 * One simulated node: real shard, group, core, log-store and key-value machine over simulated disks, network and time. It is the part of node.ts that
 * a simulation has to replace: boot in the order of recovery, the loop, and the ways in which a process ends.
 */
import type { BargeError } from "../../src/errors.ts";
import { FatalError } from "../../src/fatal.ts";
import type { Limits } from "../../src/limits.ts";
import { AppTraffic } from "../../src/machine/http/app-traffic.ts";
import { HttpMachine } from "../../src/machine/http/http-machine.ts";
import { CommonFlushes } from "../../src/machine/common-flushes.ts";
import { KvMachine } from "../../src/machine/kv.ts";
import type { StateMachine } from "../../src/machine/machine.ts";
import type { Transport, TransportEvents } from "../../src/net/transport.ts";
import { bootstrapGroup, initialConfiguration, seedCrcOf } from "../../src/node/bootstrap.ts";
import type { CompactionPolicy } from "../../src/node/compaction.ts";
import type { Group } from "../../src/node/group.ts";
import type { ChangeWaiter } from "../../src/node/member-changes.ts";
import { Registry, systemSeedOf } from "../../src/node/registry.ts";
import { Replicas } from "../../src/node/replicas.ts";
import { Shard } from "../../src/node/shard.ts";
import type { MemberChange } from "../../src/raft/membership.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { DiskFullError } from "../../src/storage/disk.ts";
import { CorruptBatchError, LogStore, type RecoveredGroup } from "../../src/storage/log-store.ts";
import type { LeaderAnswer } from "../../src/wire/admin.ts";
import { batchIntact } from "../../src/wire/batch.ts";
import { defaultGroup, systemGroup } from "../../src/wire/registry.ts";
import { applyVersionFirst, applyVersionMax } from "../../src/wire/versions.ts";
import type { ClientNode } from "./clients.ts";
import { DiskWatch } from "./disk-watch.ts";
import { Fairness } from "./fairness.ts";
import { Violation } from "./invariants.ts";
import { ObservedApplication, ObservedMachine } from "./observed-machine.ts";
import { ProcessEnd, type EndPoint } from "./process-end.ts";
import { brokenCap } from "./queue-caps.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimApps } from "./sim-apps.ts";
import type { SimGroups } from "./sim-group.ts";
import type { NetworkNode, SimNetwork } from "./sim-network.ts";
import type { CrashMode } from "./sim-disk.ts";
import type { RotPlace, Storage } from "./storage.ts";
import type { Happening, Tally } from "./tally.ts";

export interface SimNodeOptions {
  readonly id: number;
  /** The first members of the cluster. */
  readonly members: ReadonlyMap<number, string>;
  readonly groups: SimGroups;
  /** It has a registry, and so more groups than the first. */
  readonly hasRegistry: boolean;
  readonly clusterId: string;
  readonly limits: Limits;
  readonly compaction: CompactionPolicy;
  readonly scheduler: Scheduler;
  /** Its clock runs so much faster than the simulation's. */
  readonly clockRate: number;
  /** It should lead rather than one that does not say so. */
  readonly preferred: boolean;
  readonly random: Random;
  readonly storage: Storage;
  /** What keeps the data of the default group, and of others; undefined: the node itself does. */
  readonly apps: SimApps | undefined;
  readonly appSync: boolean;
  readonly network: () => SimNetwork;
  readonly endPoint: EndPoint;
  readonly tally: Tally;
  /** The process has to end now, by itself: the simulation decides what its disk keeps and when it comes back. */
  readonly ended: (node: SimNode, why: Ending) => void;
  /** It is not wounded any more. */
  readonly healed: (node: SimNode) => void;
}

/** Ways in which a process ends by itself. */
export type Ending =
  Extract<Happening, "endsInside" | "failedSyncs" | "rotMetRunning" | "tooOldBuilds"> | "noSpace";

/** Its data is beyond what this build can apply. */
class BuildTooOld extends FatalError {
  constructor() {
    super("build_too_old", "");
  }
}

/** Of one transaction of the registry, with as many groups as there are in a run. */
const registryWriteBytesMax = 64 * 1024;
const noLogger = { info: (): void => {}, warn: (): void => {}, error: (): void => {} };
/** From the wish for a turn to the turn. */
const loopDelayMs = 0.02;
/** Until the loop hears from its Worker that a sync has failed, at most. */
const failureNoticeMs = 1;

export class SimNode implements NetworkNode, ClientNode {
  readonly id: number;
  /** Counts the boots: what belongs to an earlier one is void. */
  life = 0;
  paused = false;
  /** Its disk has rotted, and it found out: it stays down. */
  refused = false;
  /** It was removed from the cluster, and stays down. */
  left = false;
  /** That of the build that runs, or that the next start brings. */
  applyVersionMax: number = applyVersionMax;
  events: TransportEvents | undefined;
  door: Shard | undefined;
  readonly #options: SimNodeOptions;
  readonly #watch: DiskWatch;
  /** Of its machines in this life. */
  #flushes = new CommonFlushes();
  /** While it runs. */
  #replicas: Replicas | undefined;
  #store: LogStore | undefined;
  /** Its log is read, and the sync that makes it count is under way. */
  #booting = false;
  #turnDue = false;
  #isTooOld = false;
  #fairness = new Fairness();
  /** How often its disk has rotted. */
  #damages = 0;
  /** Groups that are. */
  readonly #wounded = new Set<number>();
  /** What came while the process was paused: requests and finished syncs. */
  #backlog: (() => void)[] = [];

  constructor(options: SimNodeOptions) {
    this.id = options.id;
    this.#options = options;
    const rewritten = (): void => void options.tally.rewrites++;
    this.#watch = new DiskWatch(options.groups.ledgersOf(options.id), rewritten);
  }

  get applyVersion(): number {
    return this.group?.machine.applyVersion ?? applyVersionFirst;
  }

  get alive(): boolean {
    return this.#runs || this.#booting;
  }

  /** Monotonic, as this node sees it. */
  get #nowMs(): number {
    return this.#options.scheduler.nowMs * this.#options.clockRate;
  }

  get #runs(): boolean {
    return this.#replicas !== undefined;
  }

  /** Of the default group. */
  get group(): Group | undefined {
    return this.replica(defaultGroup);
  }

  /** Groups of which it has a replica; and of what it keeps files, but for the default one. */
  get groupsHere(): readonly number[] {
    return this.#replicas?.ids ?? [];
  }

  get filesHere(): readonly number[] {
    return this.#options.storage.folders;
  }

  get tombstones(): number {
    return this.#store?.tombstones.size ?? 0;
  }

  /** Undefined where it keeps all data itself. */
  get apps(): SimApps | undefined {
    return this.#options.apps;
  }

  replica(group: number): Group | undefined {
    return this.door?.group(group);
  }

  /** One of the segments of its log is damaged; false where it does not run. */
  evacuate(which: number): boolean {
    if (!this.#runs || this.paused) return false;
    const { segments } = this.#options.storage.disk;
    const segment = segments[Math.floor(which * segments.length)];
    return segment !== undefined && this.#store!.evacuate(segment.number);
  }

  get clockRate(): number {
    return this.#options.clockRate;
  }

  /** Its disk may hold damage that has not come to light, or say that it is wounded. */
  get rotten(): boolean {
    let heals = 0;
    for (const group of this.#options.groups.all()) {
      const ledger = group.ledger(this.id);
      if (ledger.wounded) return true;
      heals = Math.max(heals, ledger.heals);
    }
    return this.#damages > heals;
  }

  get wounded(): boolean {
    return this.#wounded.size > 0;
  }

  /* ---------------------------------------------------------------- boot */

  start(): void {
    if (this.alive || this.refused || this.left) return;
    this.#nextLife();
    this.#booting = true;
    this.paused = false;
    this.#run(() => this.#boot());
  }

  #boot(): void {
    const { life } = this;
    const store = this.#openStore();
    let recovered: Map<number, RecoveredGroup>;
    try {
      recovered = store.recover();
      if (!recovered.has(defaultGroup)) recovered.set(defaultGroup, this.#firstLog(store));
    } catch (error) {
      if (error instanceof DiskFullError) return this.#options.ended(this, "noSpace");
      if (error instanceof FatalError && this.rotten) return this.#refuseStart();
      throw error;
    }
    const isWounded = [...recovered.values()].some(({ wound }) => wound !== undefined);
    if (this.rotten && !isWounded) this.#options.tally.rottenStarts++;
    // What was read counts, and the first batch too, only once one sync has covered it; nothing runs before.
    store.sync(() => {
      if (this.life !== life) return;
      this.#begin(store, recovered);
      this.#booting = false;
    });
  }

  /** A node that is none of the first members has nothing, and waits for a leader. */
  #firstLog(store: LogStore): RecoveredGroup {
    const { id, members } = this.#options;
    const seedCrc = this.#seedCrc;
    if (members.has(id)) {
      return bootstrapGroup(store, defaultGroup, initialConfiguration(members), seedCrc);
    }
    return {
      hardState: { term: 0, votedFor: 0, commit: 0 },
      start: { index: 0, term: 0, crc: seedCrc, timeMs: 0 },
      startConfiguration: new Uint8Array(0),
      machineGeneration: 0,
      registryIndex: 0,
      batches: [],
      configurations: [],
      wound: undefined,
    };
  }

  #openStore(): LogStore {
    const { storage, members, limits, random, endPoint } = this.#options;
    const seedCrc = this.#seedCrc;
    const disk = this.#watch.watch(storage.disk, {
      deliver: (event) => this.deliver(event),
      effect: endPoint.effect,
    });
    const canHeal = members.size > 1;
    return new LogStore(disk, { limits, seedCrc, bootId: random.u32(), canHeal });
  }

  /** It stays down, and would be refused again: a refused start has changed nothing. */
  #refuseStart(): void {
    this.#options.tally.refusedStarts++;
    this.refused = true;
    this.#booting = false;
    try {
      this.#openStore().recover();
    } catch (error) {
      if (error instanceof FatalError) return;
      throw error;
    }
    throw new Violation(`node ${this.id} is refused once and then starts`);
  }

  #begin(store: LogStore, recovered: ReadonlyMap<number, RecoveredGroup>): void {
    const { id, life } = this;
    const { limits, random } = this.#options;
    const network = this.#options.network();
    const coreRandom = lazy(() => random.fork(life));
    const transport = network.transportOf(id, life, this.#options.endPoint.effect);
    const replicas = this.#makeReplicas(store, transport, recovered, coreRandom);
    const machine = this.#options.apps === undefined ? "kv" : "http";
    const group = replicas.open({ id: defaultGroup, machine });
    this.#store = store;
    this.#replicas = replicas;
    const shard = new Shard(
      {
        limits,
        store,
        transport,
        groups: [group],
        firstRequest: coreRandom().u32(),
        wake: () => this.#wake(),
        space: this.#options.storage.space,
      },
      this.#nowMs,
    );
    replicas.attach(shard);
    if (this.#options.hasRegistry) shard.follow(this.#makeRegistry(store, shard, replicas));
    this.door = shard;
    this.events = {
      message: (message) => {
        if (message.type === "append") {
          for (const batch of message.batches) {
            if (!batchIntact(batch)) throw new Violation(`node ${id} is given a damaged batch`);
          }
        }
        shard.deliver(message);
      },
      peerUp: (peer) => shard.peerUp(peer),
      peerDown: (peer) => shard.peerDown(peer),
    };
    network.awake(id);
    this.#tick(life);
  }

  #makeRegistry(store: LogStore, shard: Shard, replicas: Replicas): Registry {
    const { limits, clusterId, storage } = this.#options;
    // Left over by a life that ended before it had deleted them.
    for (const group of storage.folders) if (!replicas.has(group)) this.#removeFolder(group);
    return new Registry({
      nodeId: this.id,
      incarnation: incarnationOf(this.id),
      clusterId,
      seedCrc: this.#seedCrc,
      limits,
      store,
      shard,
      replicas,
      logger: noLogger,
      incarnationOf,
    });
  }

  get #seedCrc(): number {
    return seedCrcOf(this.#options.clusterId);
  }

  #makeReplicas(
    store: LogStore,
    transport: Transport,
    recovered: ReadonlyMap<number, RecoveredGroup>,
    random: () => Random,
  ): Replicas {
    const { life } = this;
    const { limits, members, hasRegistry, clusterId } = this.#options;
    const configuration = (): Configuration => this.group!.raft.configuration;
    const seed = systemSeedOf(clusterId, configuration, incarnationOf);
    return new Replicas(
      {
        nodeId: this.id,
        limits,
        store,
        transport,
        logger: noLogger,
        random: () => random().float(),
        firstRequest: () => random().u32(),
        createMachine: ({ id, machine }, found) =>
          machine === "http"
            ? this.#createApplication(id, found)
            : this.#createMachine(id, found.machineGeneration),
        machinePath: (id) => `sim/${id}`,
        deleteFiles: (id) => this.#removeFolder(id),
        canHeal: () => members.size > 1,
        ...(hasRegistry ? { seed } : {}),
        wake: () => {
          if (this.life === life) this.#wake();
        },
        preferred: this.#options.preferred,
        compaction: this.#options.compaction,
        applyVersionMax: this.applyVersionMax,
        unsupported: () => {
          throw new BuildTooOld();
        },
      },
      recovered,
    );
  }

  /** What the log says of its file could have been lost together with that until the log was synced. */
  #createMachine(group: number, generation: number): ObservedMachine {
    const { limits, storage, tally, groups } = this.#options;
    let works = 0;
    const folder = storage.folder(group);
    folder.keepOnly(generation);
    const kv = new KvMachine({
      file: folder.file(generation),
      folder,
      generation,
      limits,
      flushes: this.#flushes,
      nowMs: () => this.#nowMs + (works++ % 64) * 0.05,
    });
    return new ObservedMachine(kv, this.id, groups.of(group).invariants, tally, () =>
      this.#checkBuild(kv),
    );
  }

  /** As node.ts makes one. */
  #createApplication(group: number, recovered: RecoveredGroup): ObservedMachine {
    const { life, id: nodeId } = this;
    const { limits, storage, tally, groups, appSync: sync } = this.#options;
    const { batches, start, wound, machineGeneration: generation } = recovered;
    const app = this.#options.apps!.of(group);
    const last = batches.at(-1);
    const http = new HttpMachine({
      group,
      nodeId,
      generation,
      limits,
      sync,
      calls: app.calls(life),
      traffic: new AppTraffic(limits),
      folder: storage.appFolder(group, limits),
      logger: noLogger,
      wake: () => {
        if (this.life === life) this.replica(group)?.touch();
      },
      logStart: () => this.replica(group)?.raft.startIndex ?? Infinity,
      logIndex: last === undefined ? start.index : last.firstIndex + last.count - 1,
      isWounded: wound !== undefined,
    });
    return new ObservedApplication(http, nodeId, groups.of(group).invariants, tally, {
      opened: () => this.#checkBuild(http),
      worked: () => app.keeps(http),
    });
  }

  /** And the data of its application, which somebody clears away. */
  #removeFolder(group: number): void {
    this.#options.storage.removeFolder(group);
    this.#options.apps?.drop(group);
  }

  #checkBuild({ applyVersion }: StateMachine): void {
    if (applyVersion <= this.applyVersionMax) return;
    this.#isTooOld = true;
    throw new BuildTooOld();
  }

  /* ---------------------------------------------------------------- the loop */

  /** Runs now, or once the node runs again, or never when it ends before. */
  deliver(event: () => void): void {
    if (this.paused) this.#backlog.push(event);
    else if (this.alive) this.#run(event);
  }

  /** Runs the node's own code, in which the process may end. */
  #run(code: () => void): void {
    try {
      code();
    } catch (error) {
      if (error instanceof ProcessEnd) return this.#options.ended(this, "endsInside");
      if (error instanceof BuildTooOld) {
        // The operator reads what it says.
        this.applyVersionMax = applyVersionMax;
        return this.#options.ended(this, "tooOldBuilds");
      }
      if (!(error instanceof CorruptBatchError && this.rotten)) throw error;
      this.refused = true;
      this.#options.ended(this, "rotMetRunning");
    }
  }

  #tick(life: number): void {
    if (this.life !== life || !this.#runs) return;
    const { scheduler, limits, clockRate } = this.#options;
    if (!this.paused) this.#run(() => this.#turn());
    scheduler.after(limits.tickMs / clockRate, () => this.#tick(life));
  }

  #wake(): void {
    if (this.#turnDue) return;
    this.#turnDue = true;
    const { life } = this;
    this.#options.scheduler.after(loopDelayMs, () => {
      if (this.life !== life || !this.#turnDue) return;
      if (!this.paused) this.#run(() => this.#turn());
    });
  }

  #turn(): void {
    const { groups, limits } = this.#options;
    this.#turnDue = false;
    const wasSyncing = this.#store!.syncing;
    const more = this.door!.turn(this.#nowMs);
    // Of a group that was opened in this turn.
    if (this.#isTooOld) throw new BuildTooOld();
    const open: Group[] = [];
    for (const id of this.#replicas!.ids) {
      const group = this.door!.group(id);
      if (group === undefined) continue;
      open.push(group);
      if (group.machine.applyVersion > this.applyVersionMax)
        throw new Violation(`node ${this.id} applies what its build cannot`);
      if (group.stopped !== undefined)
        throw new Violation(`node ${this.id} stopped group ${group.id}: ${group.stopped}`);
      // While the disk is full the core is ahead of the log, and the node silent.
      if (!this.door!.diskFull) {
        const { invariants } = groups.of(group.id);
        invariants.turned(this.id, this.life, group.raft, group.machine, this.#nowMs);
      }
      this.#noteWound(group);
      const commandBytesMax = id === systemGroup ? registryWriteBytesMax : 0;
      const broken = brokenCap(group.queues(), limits, commandBytesMax);
      if (broken !== undefined) throw new Violation(`node ${this.id}: ${broken}`);
    }
    const unfair = this.door!.diskFull ? undefined : this.#fairness.turned(open, wasSyncing);
    if (unfair !== undefined) throw new Violation(`node ${this.id}: ${unfair}`);
    if (more) this.#wake();
  }

  #noteWound({ id, raft }: Group): void {
    const isWounded = raft.wound !== undefined;
    if (isWounded === this.#wounded.has(id)) return;
    const { tally, healed } = this.#options;
    if (isWounded) {
      this.#wounded.add(id);
      tally.wounds++;
    } else {
      this.#wounded.delete(id);
      tally.heals++;
      if (!this.wounded) healed(this);
    }
  }

  #nextLife(): number {
    this.#isTooOld = false;
    this.#fairness = new Fairness();
    this.#options.groups.lives(this.id, ++this.life);
    this.#flushes = new CommonFlushes();
    return this.life;
  }

  /** Asks this node, should it lead, for other members. */
  changeMembers(
    changes: readonly MemberChange[],
    force: boolean,
    timeoutMs: number,
    waiter: ChangeWaiter,
  ): void {
    this.deliver(() => {
      const group = this.group;
      if (group === undefined) return;
      const deadlineMs = this.#nowMs + timeoutMs;
      group.changeMembers({ changes, force, deadlineMs, waiter });
      this.#wake();
    });
  }

  /* ---------------------------------------------------------------- leadership */

  /** Asks this node that `target` leads (0 = whoever fits); `done` with who does, or `refused` with why not, unless the node ends before. */
  transfer(
    group: number,
    target: number,
    done: (leader: number) => void,
    refused: (error: BargeError) => void = () => {},
  ): void {
    const { life } = this;
    let answers = 0;
    const once = (answer: () => void): void => {
      if (++answers > 1) throw new Violation(`node ${this.id} answers a transfer twice`);
      if (this.life === life) answer();
    };
    const body = target === 0 ? { group } : { group, to: target };
    this.deliver(() =>
      this.door?.admin("transferLeader", body, {
        answered: (answer) => once(() => done((answer as LeaderAnswer).leader)),
        failed: (error) => once(() => refused(error)),
      }),
    );
  }

  /** The first thing that a node does that is told to stop. */
  leave(): void {
    this.deliver(() => void this.door?.leave());
  }

  /* ---------------------------------------------------------------- ways to end */

  pause(): void {
    if (this.#runs) this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    const backlog = this.#backlog;
    this.#backlog = [];
    for (const event of backlog) this.deliver(event);
    this.#options.network().awake(this.id);
    if (this.#runs) this.#run(() => this.#turn());
  }

  /** A sync has failed. The Worker knows; the loop goes on until it hears, reads what was written, and then ends. */
  syncFailed(): void {
    const { life } = this;
    const { scheduler, random, ended } = this.#options;
    scheduler.after(random.float() * failureNoticeMs, () => {
      if (this.life === life) this.deliver(() => ended(this, "failedSyncs"));
    });
  }

  /** Bit rot at rest, while it is down. False when there is nothing to strike. */
  rot(where: RotPlace = "anywhere"): boolean {
    if (this.alive) return false;
    const knownSeq = this.#options.storage.rot(where);
    if (knownSeq === undefined) return false;
    for (const group of this.#options.groups.all()) group.ledger(this.id).damage(knownSeq);
    this.#damages++;
    return true;
  }

  /** kill -9, or a power cut. */
  crash(mode: CrashMode): void {
    if (!this.alive) return;
    this.#nextLife();
    this.#replicas = undefined;
    this.#booting = false;
    this.door = undefined;
    this.events = undefined;
    this.paused = false;
    this.#turnDue = false;
    this.#backlog = [];
    this.#options.endPoint.disarm();
    this.#options.storage.crash(mode);
    // Power is cut for both.
    if (mode !== "all") this.#options.apps?.crash();
    this.#options.network().crashed(this.id);
  }
}

/** Folders of simulated nodes are never lost. */
function incarnationOf(node: number): string {
  return `folder ${node}`;
}

/** Made when it is first asked for. */
function lazy<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => (made ??= make());
}

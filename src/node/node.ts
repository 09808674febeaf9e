/**
 * One daemon: starts in the order of recovery, runs the loop, stops in the reverse order [26]. The only place where the shard meets clock,
 * timers, sockets and files.
 */
import { randomBytes, randomInt } from "node:crypto";
import { basename } from "node:path";
import { BargeError } from "../errors.ts";
import { fatal, FatalError, onFatalNote } from "../fatal.ts";
import { checkLimits, defaultLimits, type Limits } from "../limits.ts";
import {
  type AppMachineOptions,
  type AppOptions,
  createMachine,
  AppTraffic,
  HttpConnections,
  KvFiles,
  isMachineKind,
  staggered,
  type MachineKind,
} from "../machine/machines.ts";
import type { StateMachine } from "../machine/machine.ts";
import type { Connection } from "../net/connection.ts";
import { checkBindable, listen, ListenError, type Listener } from "../net/listener.ts";
import { TcpTransport } from "../net/tcp-transport.ts";
import { ClientServer } from "../server/client-server.ts";
import type {
  AdminWaiter,
  Groups,
  NodeStatus,
  ReadWaiter,
  StatusRequest,
  WatchHandle,
  WatchRequest,
  Watcher,
  WriteWaiter,
} from "../server/groups.ts";
import type { KnownGroups } from "../server/group-followers.ts";
import { startHttpServer, type HttpAddress, type HttpServer } from "../server/http-server.ts";
import {
  type DataDir,
  type DataDirOwner,
  openDataDir,
  storedIdentity,
} from "../storage/data-dir.ts";
import { DiskFullError } from "../storage/disk.ts";
import { DiskSpace, type SpaceLevel } from "../storage/disk-space.ts";
import { FailureNote } from "../storage/failure-note.ts";
import { CorruptBatchError, LogStore, type RecoveredGroup } from "../storage/log-store.ts";
import { openSqliteDisk, type SqliteDisk } from "../storage/sqlite-disk.ts";
import { createLogger, type Logger } from "../telemetry/logger.ts";
import { LoopGapCounts } from "../telemetry/loop-gaps.ts";
import { Metrics, type NodeFigures } from "../telemetry/metrics.ts";
import type { Consistency, Hello, HelloReply } from "../wire/messages.ts";
import { defaultGroup, systemGroup } from "../wire/registry.ts";
import { applyVersionMax, versionsSpoken } from "../wire/versions.ts";
import { version } from "../version.ts";
import type { SectionHeader } from "../wire/section.ts";
import {
  bootstrapGroup,
  clusterIdOf,
  initialConfiguration,
  joiningGroup,
  machineAdvice,
  seedCrcOf,
  tokenHashOf,
} from "./bootstrap.ts";
import { type CompactionPolicy, defaultCompaction } from "./compaction.ts";
import { examiner } from "./examine.ts";
import { Expulsion, type ExpulsionCode } from "./expulsion.ts";
import { joinCluster, type JoinedCluster, type JoinTarget } from "./join.ts";
import { checkMachineKind } from "./machine-kind.ts";
import { peakRssBytes } from "./peak-memory.ts";
import { hasOtherVoters, Peers, removed } from "./peers.ts";
import type { Group } from "./group.ts";
import { HttpDoors } from "./http-doors.ts";
import { Overview } from "./overview.ts";
import { PacedFigure } from "./paced-figure.ts";
import { Readiness } from "./readiness.ts";
import { Registry, systemSeedOf } from "./registry.ts";
import { Replicas } from "./replicas.ts";
import { type ScrubPart, Scrubber } from "./scrubber.ts";
import { Shard } from "./shard.ts";
import { type Incompatibility, tooOld, Versions } from "./versions.ts";

/** Far from where numbers end, and in so wide a range that no two lives of a node meet. */
const requestsBeginBelow = 2 ** 48 - 1;

export interface NodeOptions {
  readonly nodeId: number;
  readonly dataDir: string;
  /** The binary port, for peers and clients. */
  readonly listen: HttpAddress;
  /** `host:port` under which others reach this node. */
  readonly advertise: string;
  readonly httpListen: HttpAddress;
  readonly metricsListen: HttpAddress | undefined;
  /** `host:port` by node id, this node among them: for the first boot alone, from then on the log says who is a member. */
  readonly initialMembers: ReadonlyMap<number, string>;
  /** A new node that is to be added to a running cluster, in place of initial members. */
  readonly join?: JoinTarget | undefined;
  readonly machine: MachineKind;
  /** Of groups whose machine is http; where a bound is undefined, the usual one. */
  readonly app?: NodeAppOptions | undefined;
  /** Undefined: a cluster of this node alone, with a token drawn at random and kept in the folder. */
  readonly clusterToken: string | undefined;
  /** This node should lead rather than one without it. */
  readonly preferredLeader?: boolean;
  /** The highest apply version to take part in, where that is to be lower than what the build can [16]. */
  readonly applyVersionMax?: number | undefined;
  /** When the log is cut; where a bound is undefined, the usual one. */
  readonly compaction?: { readonly [Bound in keyof CompactionPolicy]: number | undefined };
  /** Less free space than this is little; 0 = never. */
  readonly minFreeBytes?: number | undefined;
  /** A group with more state than this is larger than it should be; 0 = none is. */
  readonly groupWarnBytes?: number | undefined;
  /** The pace at which the disk is read through; 0 = not at all, undefined = the usual one. */
  readonly scrubBytesPerSecond?: number | undefined;
  readonly logLevel: string;
  readonly limits?: Limits;
}

export interface NodeAppOptions extends AppOptions {
  readonly timeoutMs?: number | undefined;
  readonly snapshotStallMs?: number | undefined;
  readonly retryMsMax?: number | undefined;
  /** The process ends once an application that was there has been out for so long; undefined = never. */
  readonly exitMs?: number | undefined;
}

export interface RunningNode {
  readonly binaryPort: number;
  readonly httpPort: number;
  /** Resolves, with words for people, once this node is no member any more: it is of no use and should be stopped. */
  readonly removed: Promise<string>;
  status(): NodeStatus;
  /** Stops intake, finishes what is in flight, leaves the files. Within 3 s. */
  stop(): Promise<void>;
}

/** How a peer that cannot be dialled is up. */
const overItsOwn = "over its own connections, as this node could not dial it";

/** Ticks between two rounds of connection time-outs. */
const connectionTicks = 4;
/** Members dial a new one at once, and again every second. */
const unheardEveryMs = 5_000;
const lookForLargeMs = 5_000;
/** The rest is in the log. */
const unopenedToldMax = 10;
const drainMsMax = 1_000;
/** What is being written of a state machine is waited for. */
const writtenMsMax = 500;
/** Two tries at handing over leadership before this node stops. */
const handOverMsMax = 800;
/** Throws FatalError, having touched nothing that is not its own, when the node cannot start. */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  try {
    const { join, limits = defaultLimits, nodeId, logLevel } = options;
    checkAddress(options);
    const logger = createLogger({ nodeId, level: logLevel });
    const node = new Node(options, await joinCluster({ ...options, join, limits, logger }));
    await node.start();
    return node;
  } catch (error) {
    if (!(error instanceof DiskFullError)) throw error;
    throw new FatalError("data_dir_not_writable", `${error.message}; free some and start again`);
  }
}

/** The first members meet each other at the addresses that name the cluster; only later may one of them move. */
function checkAddress({ nodeId, dataDir, initialMembers, advertise }: NodeOptions): void {
  const first = initialMembers.get(nodeId);
  if (first === undefined || first === advertise || storedIdentity(dataDir) !== undefined) return;
  throw new FatalError(
    "wrong_data_dir",
    `--advertise ${advertise} differs from this node's address in --initial-members, ${first}. At the first start, with a new --data-dir, they must be the same`,
  );
}

class Node implements RunningNode, Groups {
  readonly #options: NodeOptions;
  readonly #limits: Limits;
  readonly #logger: Logger;
  readonly #metrics: Metrics;
  readonly #clusterId: string;
  readonly #dataDir: DataDir;
  readonly #failureNote: FailureNote;
  readonly #space: DiskSpace;
  readonly #minFreeBytes: number;
  #toldSpace: SpaceLevel = "plenty";
  #spaceLookMs = performance.now();
  readonly #disk: SqliteDisk;
  readonly #store: LogStore;
  /** Of group 0. */
  #machine!: StateMachine;
  #replicas!: Replicas;
  #registry!: Registry;
  readonly #files: KvFiles;
  readonly #appConnections = new HttpConnections();
  readonly #appTraffic: AppTraffic;
  #transport!: TcpTransport;
  #shard!: Shard;
  #listener!: Listener;
  #clients!: ClientServer;
  #overview!: Overview;
  #readiness!: Readiness;
  readonly #diskBytes: PacedFigure;
  readonly #largeBytes: number;
  #http!: HttpServer;

  #scrubber!: Scrubber;

  readonly #loopGaps = new LoopGapCounts();
  #timer: Timer | undefined;
  #turnDue = false;
  #tickedMs = 0;
  #ticks = 0;
  /** While the folder's mark of its apply version is being written. */
  #marking: Promise<void> | undefined;
  #tellLargeMs = -Infinity;
  #tellUnheardMs = performance.now() + unheardEveryMs;
  #stopping = false;
  #stopped: Promise<void> | undefined;
  readonly #startedMs = performance.now();
  #isRemoved = false;
  /** What clients were told last. */
  #toldLeader = 0;
  #toldConfigurationIndex = 0;
  readonly #removal = Promise.withResolvers<string>();
  /** Empty where this node joined a cluster. */
  readonly #initialMembers: ReadonlyMap<number, string>;
  /** Where members were when this node became one. */
  readonly #contacts: ReadonlyMap<number, string>;
  /** In this life the cluster formed: every first member was heard. */
  #hasFormed = false;
  readonly #tokenHash: string;
  #peers!: Peers;
  #expulsion!: Expulsion;
  readonly #versions: Versions;
  readonly #doors: HttpDoors;
  readonly #applyVersionMax: number;

  constructor(options: NodeOptions, joined: JoinedCluster | undefined) {
    this.#options = options;
    this.#limits = withApplication(options.limits ?? defaultLimits, options.app);
    this.#appTraffic = new AppTraffic(this.#limits);
    this.#metrics = new Metrics(this.#limits.metricsGroupsMax);
    this.#applyVersionMax = Math.min(options.applyVersionMax ?? applyVersionMax, applyVersionMax);
    this.#doors = new HttpDoors(options.httpListen, options.advertise);
    this.#versions = new Versions({
      nodeId: options.nodeId,
      software: version,
      applyVersionMax: this.#applyVersionMax,
      applyVersion: () => this.#machine.applyVersion,
      tell: (peer, message) => this.#logger.warn({ peer }, message),
    });
    this.#logger = createLogger({ nodeId: options.nodeId, level: options.logLevel });
    const { nodeId, dataDir, initialMembers, clusterToken } = options;
    let owner: DataDirOwner;
    if (joined === undefined) {
      // A cluster of one is known by its token alone, so that its address may change.
      const drawn = clusterToken === undefined;
      const stored = storedIdentity(dataDir)?.token;
      const token = clusterToken ?? stored ?? randomBytes(16).toString("hex");
      this.#initialMembers = initialMembers;
      this.#contacts = initialMembers;
      this.#tokenHash = tokenHashOf(clusterToken ?? "");
      const clusterId = clusterIdOf(token, drawn ? new Map([[nodeId, ""]]) : initialMembers);
      owner = { clusterId, nodeId, ...(drawn ? { token } : {}) };
    } else {
      const { clusterId, tokenHash, contacts } = joined;
      this.#initialMembers = new Map();
      this.#contacts = new Map(Object.entries(contacts).map(([id, at]) => [Number(id), at]));
      this.#tokenHash = tokenHash;
      owner = { clusterId, nodeId, tokenHash, contacts };
    }
    this.#clusterId = owner.clusterId;
    const free = (): void => checkPorts(options);
    this.#dataDir = openDataDir(dataDir, owner, free, joined?.incarnation);
    this.#diskBytes = new PacedFigure(() => this.#dataDir.bytes());
    this.#largeBytes = options.groupWarnBytes ?? this.#limits.groupWarnBytes;
    try {
      this.#checkApplyVersion(this.#dataDir.applyVersion);
      const { ballastBytes } = this.#limits;
      const minFreeBytes = options.minFreeBytes ?? this.#limits.minFreeBytes;
      this.#minFreeBytes = minFreeBytes;
      this.#failureNote = new FailureNote(this.#dataDir.path);
      this.#space = new DiskSpace({ folder: this.#dataDir.path, minFreeBytes, ballastBytes });
      this.#disk = openSqliteDisk({
        segmentsPath: this.#dataDir.segmentsPath,
        watermarkPath: this.#dataDir.watermarkPath,
        segmentBytes: this.#limits.segmentBytes,
        synced: (seconds) => this.#metrics.syncTook(seconds),
        hasRoomFor: (bytes) => this.#space.hasRoomFor(bytes + minFreeBytes),
      });
      this.#store = new LogStore(this.#disk, {
        limits: this.#limits,
        bootId: randomInt(2 ** 32),
        seedCrc: seedCrcOf(this.#clusterId),
        canHeal: this.#hasOtherVoters,
        onCorrupt: (what) => this.#logger.error(what),
      });
      this.#files = new KvFiles({
        limits: this.#limits,
        hasRoomFor: (bytes) => this.#space.hasRoomFor(bytes),
      });
    } catch (error) {
      this.#dataDir.close();
      throw error;
    }
  }

  /* ---------------------------------------------------------------- start */

  async start(): Promise<void> {
    this.#tellFailure();
    // A start that is refused changes nothing, and says why itself.
    onFatalNote((reason, message) => {
      const isRefusal = this.#timer === undefined && reason !== "sync_failed";
      if (!isRefusal) this.#failureNote.write(reason, message);
    });
    const { nodeId, advertise } = this.#options;
    const initialMembers = this.#initialMembers;
    const recovered = this.#store.recover();
    if (!recovered.has(defaultGroup)) recovered.set(defaultGroup, this.#firstReplica());
    // What was read, and the first batch, count from here on.
    await new Promise<void>((resolve) => this.#store.sync(() => resolve()));

    this.#transport = new TcpTransport({
      nodeId,
      clusterId: this.#clusterId,
      incarnation: this.#dataDir.incarnation,
      software: version,
      members: new Map(),
      introduction: () => ({
        address: advertise,
        configurationIndex: this.#shard.group(defaultGroup)!.raft.configurationIndex,
        ...this.#doors.own,
        ...this.#versions.own,
      }),
      limits: this.#limits,
      random: Math.random,
      events: {
        message: (message) => this.#shard.deliver(message),
        peerUp: (id) => {
          this.#versions.met(id);
          this.#expulsion.withdrawn(id);
          const dialsIn = this.#transport.dialsIn(id);
          this.#logger.info({ peer: id }, dialsIn ? `peer up, ${overItsOwn}` : "peer up");
          this.#shard.peerUp(id);
        },
        peerDown: (id) => {
          this.#logger.info({ peer: id }, "peer down");
          this.#shard.peerDown(id);
        },
      },
      onProblem: (id, problem) => this.#logger.warn({ peer: id }, problem),
      onRefused: (id, code, message) => this.#refused(id, code, message),
      onMismatch: (id, message) => this.#versions.note(id, message),
      refusePeer: (peer) => {
        this.#doors.heard(peer);
        return this.#peers.meet(peer.nodeId, peer.incarnation) ?? this.#versions.refuse(peer);
      },
    });
    // Not before the sync: what the log says of a machine's file could be lost yet, and that file is all that is kept.
    this.#replicas = this.#makeReplicas(recovered);
    const group = this.#replicas.open({ id: defaultGroup, machine: this.#options.machine });
    this.#machine = group.machine;
    this.#checkApplyVersion(this.#machine.applyVersion);
    group.mayElect = this.#dataDir.peers.formed || initialMembers.size <= 1;
    this.#expulsion = new Expulsion({
      nodeId,
      configuration: () => group.raft.configuration,
      contacts: [...this.#contacts.keys()].filter((id) => id !== nodeId),
      tell: (message) => this.#logger.warn(message),
    });
    this.#peers = new Peers({
      nodeId,
      incarnation: this.#dataDir.incarnation,
      limits: this.#limits,
      raft: group.raft,
      ledger: this.#dataDir.peers,
      initialMembers,
      contacts: this.#contacts,
      isLost: () => group.leader === 0 || !this.#transport.connected(group.leader),
      setMembers: (addresses) => this.#transport.setMembers(addresses),
      formed: () => {
        group.mayElect = true;
        this.#hasFormed = true;
        this.#logger.info("all initial members are there: the cluster forms");
      },
      elsewhere: (id, message) => this.#logger.warn({ peer: id }, message),
    });
    const nowMs = performance.now();
    this.#tickedMs = nowMs;
    this.#scrubber = this.#makeScrubber(nowMs);
    this.#shard = new Shard(
      {
        limits: this.#limits,
        store: this.#store,
        transport: this.#transport,
        groups: [group],
        firstRequest: randomInt(requestsBeginBelow),
        identity: {
          clusterId: this.#clusterId,
          tokenHash: this.#tokenHash,
          incarnationOf: (id) => this.#peers.incarnationOf(id),
          examine: examiner(this.#clusterId, this.#limits),
        },
        scrubber: {
          set: (policy) => this.#scrubber.set(policy),
          status: () => this.#scrubber.status(performance.now()),
        },
        wake: () => this.#wake(),
        space: this.#space,
      },
      nowMs,
    );
    this.#replicas.attach(this.#shard);
    this.#registry = new Registry({
      nodeId,
      incarnation: this.#dataDir.incarnation,
      clusterId: this.#clusterId,
      seedCrc: seedCrcOf(this.#clusterId),
      limits: this.#limits,
      store: this.#store,
      shard: this.#shard,
      replicas: this.#replicas,
      logger: this.#logger,
      incarnationOf: (id) => this.#peers.incarnationOf(id),
      changed: (id) => this.#clients.groupChanged(id),
    });
    this.#shard.follow(this.#registry);
    this.#overview = new Overview({
      groups: this.#shard.groups,
      registry: () => this.#registry.view,
      largeBytes: this.#largeBytes,
    });
    this.#readiness = new Readiness(
      {
        nodeId,
        groups: this.#shard.groups,
        connected: (id) => this.#transport.connected(id),
        unopened: () => this.#replicas.unopened,
        woundText,
      },
      nowMs,
    );
    this.#clients = new ClientServer({
      groups: this,
      limits: this.#limits,
      tallies: this.#metrics.tallies,
      wake: () => this.#wake(),
    });
    this.#metrics.observe(() => this.#figures());
    this.#checkMembers(nowMs);
    await this.#open();
    this.#failureNote.clear();
    for (const path of this.#dataDir.aside) this.#files.snapshots.removeFolder(path);
    this.#timer = setInterval(() => this.#tick(), this.#limits.tickMs);
    this.#wake();
  }

  #makeReplicas(recovered: ReadonlyMap<number, RecoveredGroup>): Replicas {
    const { nodeId, preferredLeader = false, compaction } = this.#options;
    const limits = this.#limits;
    const machineLimits = staggered(limits, nodeId);
    return new Replicas(
      {
        nodeId,
        limits,
        store: this.#store,
        transport: this.#transport,
        logger: this.#logger,
        random: Math.random,
        firstRequest: () => randomInt(requestsBeginBelow),
        createMachine: ({ id, machine }, found) => {
          if (!isMachineKind(machine))
            throw new FatalError("build_too_old", unknownMachine(id, machine));
          const directory = this.#dataDir.machinePath(id);
          checkMachineKind(directory, machine, id);
          return createMachine(machine, {
            directory,
            generation: found.machineGeneration,
            app: machine === "http" ? this.#application(id, found) : undefined,
            files: this.#files,
            limits: machineLimits,
            nowMs: () => performance.now(),
          });
        },
        machinePath: (id) => this.#dataDir.machinePath(id),
        isWriting: (id) => this.#files.isWriting(this.#dataDir.machinePath(id)),
        deleteFiles: (id) => this.#deleteMachine(id),
        storedIds: () => this.#dataDir.machineIds(),
        canHeal: () => this.#hasOtherVoters,
        wake: () => this.#wake(),
        leaderChanged: (id) => this.#clients?.groupChanged(id),
        preferred: preferredLeader,
        compaction: compactionOf(compaction),
        applyVersionMax: this.#applyVersionMax,
        founderMax: (id) => (this.#hasFormed ? this.#versions.saidMax(id) : 0),
        addressOf: (id) => this.members().addresses[id],
        seed: systemSeedOf(
          this.#clusterId,
          () => this.#shard.group(defaultGroup)!.raft.configuration,
          (id) => this.#peers.incarnationOf(id),
        ),
        unsupported: (needed) => fatal("build_too_old", this.#tooOld(needed)),
      },
      recovered,
    );
  }

  #deleteMachine(id: number): void {
    const aside = this.#dataDir.setMachineAside(id);
    if (aside !== undefined) this.#files.snapshots.removeFolder(aside);
  }

  /** The application that is the machine of a group. */
  #application(id: number, { batches, start, wound }: RecoveredGroup): AppMachineOptions {
    const { app, nodeId } = this.#options;
    if (app === undefined) throw new FatalError("wrong_data_dir", withoutApplication(id));
    const last = batches.at(-1);
    return {
      ...app,
      group: id,
      nodeId,
      logger: this.#logger,
      connections: this.#appConnections,
      traffic: this.#appTraffic,
      wake: () => this.#shard.group(id)?.touch(),
      logStart: () => this.#shard.group(id)?.raft.startIndex ?? Infinity,
      logIndex: last === undefined ? start.index : last.firstIndex + last.count - 1,
      isWounded: wound !== undefined,
    };
  }

  /** Members that may have what this node has lost. */
  get #hasOtherVoters(): boolean {
    return hasOtherVoters(this.#dataDir.peers, this.#initialMembers);
  }

  #makeScrubber(nowMs: number): Scrubber {
    const { scrubBytesPerSecond = this.#limits.scrubBytesPerSecond } = this.#options;
    return new Scrubber(
      {
        limits: this.#limits,
        bytesPerSecond: scrubBytesPerSecond,
        next: (after) => {
          const found = this.#disk.segmentAfter(after);
          if (found === undefined) return undefined;
          const { number, path, frames } = found;
          const target = { kind: "log", path, frames } as const;
          return { name: basename(path), segment: number, target, release: () => {} };
        },
        machine: (after) => this.#machineFileAfter(after),
        damaged: ({ segment, group = defaultGroup }) => {
          if (segment === undefined) {
            // The group has left this node, and its file with it.
            if (this.#replicas.machine(group) === undefined) return "";
            return machineAdvice(this.#dataDir.machinePath(group));
          }
          return this.#store.evacuate(segment)
            ? "what is live in it is copied out of it; what cannot be read there comes from the leader again, where there is one"
            : "";
        },
        logger: this.#logger,
        random: Math.random,
      },
      nowMs,
    );
  }

  /** Of the next group above that one whose state machine has a file: most have none, as hardly anything was written to them. */
  #machineFileAfter(after: number): ScrubPart | undefined {
    const ids = this.#replicas.ids.filter((id) => id > after).toSorted((a, b) => a - b);
    for (const group of ids) {
      const held = this.#replicas.machine(group)?.holdFile?.();
      if (held === undefined) continue;
      const { path, query, sealedQuery, release } = held;
      const target = { kind: "table", path, query, sealedQuery } as const;
      const file = basename(path);
      const name = group === defaultGroup ? file : `group ${group}, ${file}`;
      return { name, segment: undefined, group, target, release };
    }
    return undefined;
  }

  #firstReplica(): RecoveredGroup {
    const seedCrc = seedCrcOf(this.#clusterId);
    if (this.#initialMembers.size === 0) return joiningGroup(this.#store, defaultGroup, seedCrc);
    const configuration = initialConfiguration(this.#initialMembers);
    return bootstrapGroup(this.#store, defaultGroup, configuration, seedCrc);
  }

  /** Clients hear at once of a new leader and of new members. */
  #tellClients(): void {
    const { leader, raft } = this.#shard.group(defaultGroup)!;
    const { configurationIndex } = raft;
    if (leader === 0) return;
    if (leader === this.#toldLeader && configurationIndex === this.#toldConfigurationIndex) return;
    this.#toldLeader = leader;
    this.#toldConfigurationIndex = configurationIndex;
    const { term } = raft;
    const { addresses: members } = this.members();
    const type = "notice";
    this.#clients.tell({ type, group: defaultGroup, term, leader, configurationIndex, members });
  }

  /** A peer does not take this node for the one that it should be. */
  #refused(id: number, code: string, message: string): void {
    if (code === "version_mismatch") this.#versions.note(id, message);
    const isExpelled = (said: ExpulsionCode): boolean =>
      code === said && this.#expulsion.said(id, said, performance.now());
    if (isExpelled("member_removed")) this.#leaveCluster();
    // Once the cluster has formed with this folder, whoever knows another one is mistaken.
    if (!this.#dataDir.peers.formed && isExpelled("wrong_incarnation")) {
      fatal("replaced_data_dir", message);
    }
  }

  /** Members may have come or gone, this one among them. */
  #checkMembers(nowMs: number): void {
    const isChanged = this.#peers.refresh(nowMs);
    if (isChanged && this.#shard.group(defaultGroup)!.raft.removed) this.#leaveCluster();
  }

  #checkApplyVersion(needed: number): void {
    if (needed > this.#applyVersionMax) throw new FatalError("build_too_old", this.#tooOld(needed));
  }

  /** Once in the life of a folder for each version: so builds that are too old know it before they look at anything else. */
  #markApplyVersion(): void {
    const { applyVersion } = this.#machine;
    if (applyVersion <= this.#dataDir.applyVersion || this.#marking !== undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#marking = promise;
    this.#dataDir.raiseApplyVersion(applyVersion, (path, text, done) =>
      this.#files.snapshots.replace(path, text, (ok) => {
        done(ok);
        this.#marking = undefined;
        resolve();
        // Else once there is space again.
        if (ok)
          this.#logger.info({ group: defaultGroup, applyVersion }, "the apply version is raised");
      }),
    );
  }

  #tooOld(needed: number): string {
    return tooOld(this.#options.nodeId, version, this.#applyVersionMax, needed);
  }

  #leaveCluster(): void {
    this.#isRemoved = true;
    this.#removal.resolve(removed(this.#options.nodeId).message);
  }

  get removed(): Promise<string> {
    return this.#removal.promise;
  }

  /** The doors, last [26]. */
  async #open(): Promise<void> {
    const { listen: binary, httpListen, metricsListen } = this.#options;
    try {
      this.#listener = listen({
        ...binary,
        limits: this.#limits,
        decideHello: (hello) => this.#decideHello(hello),
        onConnection: (connection, hello) => this.#accept(connection, hello),
        onMismatch: ({ role, nodeId: peer = 0 }, message) => {
          if (role !== "client" && this.#isMember(peer)) this.#versions.note(peer, message);
        },
      });
      this.#http = startHttpServer({
        groups: this,
        listen: httpListen,
        metricsListen,
        metricsText: () => this.#metrics.text(),
        limits: this.#limits,
        tallies: this.#metrics.tallies,
      });
    } catch (error) {
      await this.#leave();
      throw portInUse(error);
    }
  }

  #decideHello(hello: Hello): HelloReply {
    const { nodeId } = this.#options;
    const { addresses, leader } = this.members();
    const reply: HelloReply = {
      version: versionsSpoken.versionMax,
      features: 0,
      software: version,
      clusterId: this.#clusterId,
      nodeId,
      incarnation: this.#dataDir.incarnation,
      frameBytesMax: this.#limits.frameBytesMax,
      sectionBytesMax: this.#limits.sectionBytesMax,
      members: addresses,
      leader,
      ...this.#doors.own,
      ...this.#versions.own,
    };
    const refusal = this.#refuseHello(hello);
    return refusal === undefined ? reply : { ...reply, error: refusal };
  }

  #refuseHello(hello: Hello): { code: string; message: string } | undefined {
    if (this.#stopping) return { code: "shutting_down", message: "This node is stopping." };
    if (hello.role === "client") return undefined;
    const { nodeId } = this.#options;
    if (hello.clusterId !== this.#clusterId) {
      return {
        code: "unauthorised",
        message:
          `This node belongs to cluster ${this.#clusterId}, not ${hello.clusterId}: ` +
          "compare --initial-members and --cluster-token of the two.",
      };
    }
    if (hello.expectNodeId !== nodeId) {
      return {
        code: "unauthorised",
        message: `This is node ${nodeId}, not ${hello.expectNodeId}: compare --initial-members.`,
      };
    }
    const refusal = this.#peers.refuse(hello, performance.now());
    if (refusal !== undefined) return refusal;
    const message = this.#versions.refuse(hello);
    if (message !== undefined) return { code: "version_mismatch", message };
    this.#doors.heard(hello);
    return undefined;
  }

  #accept(connection: Connection, hello: Hello): void {
    if (hello.role === "client") this.#clients.accept(connection);
    else this.#transport.accept(connection, hello);
  }

  /* ---------------------------------------------------------------- the loop */

  #wake(): void {
    if (this.#turnDue) return;
    this.#turnDue = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#turnDue = false;
    if (this.#timer === undefined) return;
    try {
      const nowMs = performance.now();
      if (this.#shard.turn(nowMs)) this.#wake();
      this.#checkMembers(nowMs);
      this.#tellClients();
      this.#clients.flush();
      this.#loopGaps.turnTook(performance.now() - nowMs);
    } catch (error) {
      if (error instanceof CorruptBatchError) fatal("corrupt_data", error.message);
      // Nothing else in a turn throws but a broken invariant of the shell or of storage.
      fatal("invariant", error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
  }

  #tick(): void {
    const nowMs = performance.now();
    const lateMs = nowMs - this.#tickedMs - this.#limits.tickMs;
    this.#tickedMs = nowMs;
    this.#loopGaps.ticked(lateMs);
    if (++this.#ticks % connectionTicks === 0) {
      this.#markApplyVersion();
      this.#scrubber.tick(nowMs);
      this.#transport.checkTimeouts(nowMs);
      this.#listener.checkTimeouts(nowMs);
      this.#lookAtSpace(nowMs);
      this.#checkApplication();
      this.#tellUnheard(nowMs);
      this.#tellLarge(nowMs);
    }
    this.#wake();
  }

  /** Why the life before this one ended, for whoever did not see it. */
  #tellFailure(): void {
    const { previous } = this.#failureNote;
    if (previous === undefined) return;
    const { at, reason, message } = previous;
    this.#logger.warn({ at, reason }, `the last run ended by itself: ${message}`);
  }

  /** Parks by default: the process ends for its application only where that was asked for [30]. */
  #checkApplication(): void {
    const { exitMs } = this.#options.app ?? {};
    if (exitMs === undefined) return;
    for (const [group, { machine }] of this.#shard.groups) {
      const { reason = "", forMs = 0 } = machine.absence ?? {};
      // Infinity: it was never there, and may be starting.
      if (forMs < exitMs || forMs === Infinity) continue;
      const seconds = Math.round(forMs / 1_000);
      fatal(
        "application_lost",
        `the application of group ${group} is out for ${seconds} s: ${reason}`,
      );
    }
  }

  #lookAtSpace(nowMs: number): void {
    if (nowMs - this.#spaceLookMs >= this.#limits.freeSpaceLookMs) {
      this.#spaceLookMs = nowMs;
      this.#space.look();
    }
    const { level, freeBytes } = this.#space;
    if (level === this.#toldSpace) return;
    this.#toldSpace = level;
    if (level === "plenty") this.#logger.info({ freeBytes }, "there is space on the disk again");
    else this.#logger.error({ freeBytes }, this.#spaceText(level));
  }

  #spaceText(level: Exclude<SpaceLevel, "plenty">): string {
    return level === "low"
      ? `the disk has less than ${this.#minFreeBytes} bytes free: this node takes no writes as the leader, and hands over; free some space, or set --min-free-bytes`
      : "the disk is full: this node takes no writes from anybody, but votes; free some space";
  }

  #tellLarge(nowMs: number): void {
    if (nowMs < this.#tellLargeMs) return;
    this.#tellLargeMs = nowMs + lookForLargeMs;
    for (const { id: group, stateBytes } of this.#overview.newlyLarge()) {
      this.#logger.warn(
        { group, stateBytes },
        "the state of this group is larger than --group-warn-bytes: it is sent whole to who needs it; several smaller groups serve better",
      );
    }
  }

  #tellUnheard(nowMs: number): void {
    if (nowMs < this.#tellUnheardMs) return;
    this.#tellUnheardMs = this.#isUnheard ? nowMs + unheardEveryMs : Infinity;
    if (this.#isUnheard) this.#logger.warn(this.#unheardText());
  }

  /* ---------------------------------------------------------------- Groups, for the doors */

  write(
    group: number,
    section: Uint8Array,
    header: SectionHeader,
    timeoutMs: number,
    waiter: WriteWaiter,
  ): void {
    if (group === systemGroup) return waiter.failed(systemIsKept());
    this.#shard.write(group, section, header, timeoutMs, waiter);
  }

  read(
    group: number,
    consistency: Consistency,
    maxStalenessMs: number,
    timeoutMs: number,
    waiter: ReadWaiter,
  ): void {
    this.#shard.read(group, consistency, maxStalenessMs, timeoutMs, waiter);
  }

  watch(group: number, request: WatchRequest, watcher: Watcher): WatchHandle {
    return this.#shard.watch(group, request, watcher);
  }

  machineKind(group: number): string | undefined {
    return this.#shard.group(group)?.machineKind;
  }

  admin(operation: string, body: unknown, waiter: AdminWaiter): void {
    this.#shard.admin(operation, body, waiter);
  }

  get known(): KnownGroups {
    return this.#overview;
  }

  status(request: StatusRequest = {}): NodeStatus {
    const overview = this.#overview.status(request);
    const incompatible = this.#incompatible();
    const unopened = this.#unopened();
    const { user, system } = process.cpuUsage();
    return {
      nodeId: this.#options.nodeId,
      clusterId: this.#clusterId,
      version,
      protocolVersions: versionsSpoken,
      applyVersionMax: this.#applyVersionMax,
      ...(incompatible.length === 0 ? {} : { incompatible }),
      ...(unopened.length === 0 ? {} : { unopened }),
      uptimeSeconds: (performance.now() - this.#startedMs) / 1_000,
      diskBytes: this.#diskBytes.value(performance.now()),
      freeBytes: this.#space.freeBytes,
      health: this.#health(overview.summary.wounded > 0),
      ...overview,
      groupWarnBytes: this.#largeBytes,
      scrub: this.#scrubber.status(performance.now()),
      syncs: this.#disk.syncDurations(),
      loopGaps: this.#loopGaps.reading(),
      cpuSeconds: (user + system) / 1e6,
      peakRssBytes: peakRssBytes(),
    };
  }

  /** Members that this node does not understand. */
  #incompatible(): Incompatibility[] {
    return this.#versions.incompatible.filter(({ nodeId }) => this.#isMember(nodeId));
  }

  #unopened(): { group: number; message: string }[] {
    const found: { group: number; message: string }[] = [];
    for (const [group, message] of this.#replicas.failures) {
      if (found.length === unopenedToldMax) break;
      found.push({ group, message });
    }
    return found;
  }

  #isMember(nodeId: number): boolean {
    return this.members().addresses[nodeId] !== undefined;
  }

  /** For metrics: the status, and what can grow. */
  #figures(): NodeFigures {
    const status = this.status({ groups: [] });
    return {
      ...status,
      scrub: this.#scrubber.status(performance.now()),
      connections: this.#listener.counts.all,
      clientBytes: this.#listener.clientBytes,
      kvOpenFiles: this.#files.openFiles,
      shared: { ...this.#shard.sharedFigures(), memtableBytes: this.#files.memtables.used },
      summary: this.#overview.summary(),
      groups: this.#overview.ids.map((id) => ({
        name: id === systemGroup ? "system" : String(id),
        always: id === systemGroup,
        figures: () => this.#shard.group(id)!.figures(),
      })),
      peers: this.#transport.peerIds.map((id) => ({
        id,
        ...this.#transport.figures(id)!,
        beatGroups: this.#shard.beatGroupsTo(id),
      })),
    };
  }

  /** What other groups than the cluster's own are like is theirs: see the summary. */
  #health(isWounded: boolean): NodeStatus["health"] {
    if (this.#stopping) return "stopping";
    if (this.#isRemoved) return "removed";
    if (this.#shard.diskFull || this.#space.level === "out") return "read_only";
    if (isWounded) return "wounded";
    if (this.#shard.group(defaultGroup)!.leader === 0) return "no_leader";
    return this.#space.level === "low" ? "low_space" : "ok";
  }

  /** It has joined, and no member has told it anything yet. */
  get #isUnheard(): boolean {
    const { configuration, wound } = this.#shard.group(defaultGroup)!.raft;
    return configuration.voters.length === 0 && wound === undefined;
  }

  #unheardText(): string {
    const contacts = [...this.#contacts].map(([id, address]) => `${id}=${address}`).join(", ");
    return `this node was added, but no member has reached it at ${this.#options.advertise}, nor has it reached one of them (${contacts}): one side must be able to dial. Give the right --advertise, and tell the members by barge member move`;
  }

  get isLeaving(): boolean {
    return this.#stopping || this.#isRemoved;
  }

  notReady(only?: number): string[] {
    if (this.#stopping) return ["stopping"];
    if (this.#shard.diskFull || this.#space.level === "out") return [this.#spaceText("out")];
    const missing: string[] = [];
    if (this.#isRemoved) return ["removed from the cluster"];
    if (!this.#dataDir.peers.formed && this.#initialMembers.size > 1) {
      const { absent } = this.#peers;
      missing.push(`first start: waiting for the initial members ${absent.join(", ")}`);
    }
    if (this.#isUnheard) missing.push(this.#unheardText());
    else missing.push(...this.#readiness.missing(performance.now(), only));
    if (missing.length === 0 && only === undefined) this.#readiness.ready();
    // Why, it may be; by itself, that others are strange is their trouble.
    else {
      for (const { message } of this.#incompatible()) missing.push(message);
      const { doubt } = this.#expulsion;
      if (doubt !== undefined) missing.push(doubt);
    }
    return missing;
  }

  members(): { readonly addresses: Record<string, string>; readonly leader: number } {
    const group = this.#shard.group(defaultGroup);
    const { nodeId, advertise } = this.#options;
    const { addresses = {}, voters = [] } = group?.raft.configuration ?? {};
    // Whoever is not a member, or not yet, is to be found all the same by those who ask it.
    const isOwn = nodeId in addresses || voters.length === 0;
    return {
      addresses: isOwn ? { ...addresses, [nodeId]: advertise } : { ...addresses },
      leader: group?.leader ?? 0,
    };
  }

  /** `host:port` of the HTTP door of the node whose binary port that is; undefined where it is not known. */
  httpOf(address: string): string | undefined {
    const { addresses } = this.members();
    const id = Object.keys(addresses).find((each) => addresses[each] === address);
    return id === undefined ? undefined : this.#doors.of(Number(id));
  }

  get binaryPort(): number {
    return this.#listener.port;
  }

  get httpPort(): number {
    return this.#http.port;
  }

  /* ---------------------------------------------------------------- stop */

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#stopping = true;
    await this.#handOver();
    this.#clients.stop();
    this.#listener.stop();
    this.#shard.drain();
    // What is on its way here, from clients or from who has not heard yet of the new leader, is refused in words and not by a closed socket.
    const { heartbeatTicks, tickMs } = this.#limits;
    if (this.#listener.counts.all > 0) await Bun.sleep(heartbeatTicks * tickMs);
    const untilMs = performance.now() + drainMsMax;
    while (!this.#shard.idle && performance.now() < untilMs) await Bun.sleep(this.#limits.tickMs);
    this.#shard.stop();
    this.#turn();
    await this.#leave();
  }

  /** Others lead before this node refuses anything, so that nobody has to wait for an election. */
  async #handOver(): Promise<void> {
    const untilMs = performance.now() + handOverMsMax;
    while (this.#shard.leave() && performance.now() < untilMs) {
      await Bun.sleep(this.#limits.tickMs);
    }
  }

  async #leave(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#http?.stop(500);
    this.#clients.close();
    this.#listener?.close();
    this.#transport.close();
    this.#scrubber.close();
    this.#replicas?.close();
    this.#appConnections.close();
    this.#files.close();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, writtenMsMax);
      this.#files.whenIdle(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    await this.#marking;
    this.#store.close();
    onFatalNote(undefined);
    this.#failureNote.close();
    this.#dataDir.close();
  }
}

function woundText({ id, leader, raft }: Group): string {
  const lost =
    `group ${id} is wounded: this disk lost a part of its log, or the state below it; the log ends at ${raft.lastIndex} and went to ${raft.wound!.index}; ` +
    "it does not vote until that has come back";
  return leader > 0
    ? `${lost} from the leader, node ${leader}`
    : `${lost} from a leader, and there is none: start the members that are whole. Should a majority be wounded, none can be elected: barge recover`;
}

function systemIsKept(): BargeError {
  return new BargeError(
    "bad_request",
    "The group system is written by the cluster alone: see `barge group`.",
  );
}

function unknownMachine(group: number, machine: string): string {
  return `Group ${group} has a state machine that this build does not know, ${machine}: start a newer one.`;
}

function withoutApplication(group: number): string {
  return `The state machine of group ${group} is an application, and this node was started without one: give --app-url.`;
}

function withApplication(limits: Limits, app: NodeAppOptions | undefined): Limits {
  if (app === undefined) return limits;
  return checkLimits({
    ...limits,
    appTimeoutMs: app.timeoutMs ?? limits.appTimeoutMs,
    appSnapshotStallMs: app.snapshotStallMs ?? limits.appSnapshotStallMs,
    appRetryMsMax: app.retryMsMax ?? limits.appRetryMsMax,
  });
}

function compactionOf(given: NodeOptions["compaction"]): CompactionPolicy {
  const policy = {
    entries: given?.entries ?? defaultCompaction.entries,
    bytes: given?.bytes ?? defaultCompaction.bytes,
    tailBytes: given?.tailBytes ?? defaultCompaction.tailBytes,
  };
  // With only the bytes given, the tail follows them.
  if (given?.tailBytes === undefined && policy.bytes > 0) {
    policy.tailBytes = Math.min(policy.tailBytes, Math.floor(policy.bytes / 4));
  }
  return policy;
}

/** Before the folder is bound to a cluster whose member list may name the wrong port. The doors themselves open last. */
function checkPorts({ listen: binary, httpListen, metricsListen }: NodeOptions): void {
  try {
    checkBindable([binary, httpListen, ...(metricsListen === undefined ? [] : [metricsListen])]);
  } catch (error) {
    throw portInUse(error);
  }
}

function portInUse(error: unknown): unknown {
  if (!(error instanceof ListenError)) return error;
  return new FatalError(
    "port_in_use",
    `${error.message}; stop what uses it, or choose another with --listen and --http-listen`,
    { cause: error },
  );
}

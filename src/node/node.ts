/**
 * One daemon: starts in the order of recovery, runs the loop, stops in the reverse order [26]. The only place where the shard meets clock,
 * timers, sockets and files.
 */
import { randomBytes, randomInt } from "node:crypto";
import { fatal, FatalError } from "../fatal.ts";
import { defaultLimits, type Limits } from "../limits.ts";
import { createMachine, KvFiles, staggered, type MachineKind } from "../machine/machines.ts";
import type { StateMachine } from "../machine/machine.ts";
import type { Connection } from "../net/connection.ts";
import { checkBindable, listen, ListenError, type Listener } from "../net/listener.ts";
import { TcpTransport } from "../net/tcp-transport.ts";
import { InvariantError } from "../raft/invariants.ts";
import { ClientServer } from "../server/client-server.ts";
import type { Groups, NodeStatus, ReadWaiter, WriteWaiter } from "../server/groups.ts";
import { startHttpServer, type HttpAddress, type HttpServer } from "../server/http-server.ts";
import { openDataDir, storedToken, type DataDir } from "../storage/data-dir.ts";
import { DiskFullError } from "../storage/disk.ts";
import { CorruptBatchError, LogStore } from "../storage/log-store.ts";
import { openSqliteDisk, type SqliteDisk } from "../storage/sqlite-disk.ts";
import { createLogger, type Logger } from "../telemetry/logger.ts";
import { LoopGapCounts } from "../telemetry/loop-gaps.ts";
import { Metrics, type NodeFigures } from "../telemetry/metrics.ts";
import type { Consistency, Hello, HelloReply } from "../wire/messages.ts";
import { frameVersion } from "../wire/frame.ts";
import { version } from "../version.ts";
import type { SectionHeader } from "../wire/section.ts";
import {
  bootstrapGroup,
  clusterIdOf,
  createCore,
  initialConfiguration,
  seedCrcOf,
} from "./bootstrap.ts";
import { Group } from "./group.ts";
import { Shard } from "./shard.ts";

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
  /** `host:port` by node id, this node among them. */
  readonly initialMembers: ReadonlyMap<number, string>;
  readonly machine: MachineKind;
  /** Undefined: a cluster of this node alone, with a token drawn at random and kept in the folder. */
  readonly clusterToken: string | undefined;
  readonly logLevel: string;
  readonly limits?: Limits;
}

export interface RunningNode {
  readonly binaryPort: number;
  readonly httpPort: number;
  status(): NodeStatus;
  /** Stops intake, finishes what is in flight, leaves the files. Within 3 s. */
  stop(): Promise<void>;
}

/** The one group there is. */
const defaultGroup = 0;
/** Ticks between two rounds of connection time-outs. */
const connectionTicks = 4;
const drainMsMax = 1_500;
/** Code of a refused hello: the member was known with another data folder. */
const wrongIncarnation = "wrong_incarnation";

/** Throws FatalError, having touched nothing that is not its own, when the node cannot start. */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  try {
    const node = new Node(options);
    await node.start();
    return node;
  } catch (error) {
    if (!(error instanceof DiskFullError)) throw error;
    throw new FatalError("data_dir_not_writable", `${error.message}; free some and start again`);
  }
}

class Node implements RunningNode, Groups {
  readonly #options: NodeOptions;
  readonly #limits: Limits;
  readonly #logger: Logger;
  readonly #metrics = new Metrics();
  readonly #clusterId: string;
  readonly #dataDir: DataDir;
  readonly #disk: SqliteDisk;
  readonly #store: LogStore;
  readonly #machine: StateMachine;
  readonly #files: KvFiles;
  #transport!: TcpTransport;
  #shard!: Shard;
  #listener!: Listener;
  #clients!: ClientServer;
  #http!: HttpServer;

  readonly #loopGaps = new LoopGapCounts();
  #timer: Timer | undefined;
  #turnDue = false;
  #tickedMs = 0;
  #ticks = 0;
  #stopping = false;
  #stopped: Promise<void> | undefined;
  readonly #startedMs = performance.now();
  /** All that was committed when this node came up is applied. */
  #caughtUp = false;
  /** Members that have accepted this node's folder, while the cluster forms. */
  readonly #met = new Set<number>();

  constructor(options: NodeOptions) {
    this.#options = options;
    this.#limits = options.limits ?? defaultLimits;
    this.#logger = createLogger({ nodeId: options.nodeId, level: options.logLevel });
    const { nodeId, dataDir, initialMembers, clusterToken } = options;

    // A cluster of one is known by its token alone, so that its address may change.
    const drawn = clusterToken === undefined;
    const token = clusterToken ?? storedToken(dataDir) ?? randomBytes(16).toString("hex");
    this.#clusterId = clusterIdOf(token, drawn ? new Map([[nodeId, ""]]) : initialMembers);
    const owner = { clusterId: this.#clusterId, nodeId };
    this.#dataDir = openDataDir(dataDir, drawn ? { ...owner, token } : owner, () =>
      checkPorts(options),
    );
    try {
      this.#disk = openSqliteDisk({
        segmentsPath: this.#dataDir.segmentsPath,
        watermarkPath: this.#dataDir.watermarkPath,
        segmentBytes: this.#limits.segmentBytes,
        synced: (seconds) => this.#metrics.syncTook(seconds),
      });
      this.#store = new LogStore(this.#disk, {
        limits: this.#limits,
        bootId: randomInt(2 ** 32),
        seedCrc: seedCrcOf(this.#clusterId),
        onCorrupt: (what) => this.#logger.error(what),
      });
      this.#files = new KvFiles({ limits: this.#limits });
      this.#machine = createMachine(options.machine, {
        directory: this.#dataDir.machinePath(defaultGroup),
        files: this.#files,
        limits: staggered(this.#limits, nodeId),
        nowMs: () => performance.now(),
      });
    } catch (error) {
      this.#dataDir.close();
      throw error;
    }
  }

  /* ---------------------------------------------------------------- start */

  async start(): Promise<void> {
    const { nodeId, initialMembers } = this.#options;
    const recovered = this.#store.recover();
    const replica =
      recovered.get(defaultGroup) ??
      bootstrapGroup(
        this.#store,
        defaultGroup,
        initialConfiguration(initialMembers),
        seedCrcOf(this.#clusterId),
      );
    const appliedIndex = this.#machine.open();
    // What was read, and the first batch, count from here on.
    await new Promise<void>((resolve) => this.#store.sync(() => resolve()));

    this.#transport = new TcpTransport({
      nodeId,
      clusterId: this.#clusterId,
      incarnation: this.#dataDir.incarnation,
      software: version,
      members: initialMembers,
      limits: this.#limits,
      random: Math.random,
      events: {
        message: (message) => this.#shard.deliver(message),
        peerUp: (id) => {
          this.#logger.info({ peer: id }, "peer up");
          this.#shard.peerUp(id);
        },
        peerDown: (id) => {
          this.#logger.info({ peer: id }, "peer down");
          this.#shard.peerDown(id);
        },
      },
      onProblem: (id, problem) => this.#logger.warn({ peer: id }, problem),
      onRefused: (_, code, message) => {
        if (code === wrongIncarnation && !this.#dataDir.peers.formed) {
          fatal("replaced_data_dir", message);
        }
      },
      refusePeer: (reply) => this.#meet(reply.nodeId, reply.incarnation),
    });
    const group = new Group({
      id: defaultGroup,
      nodeId,
      limits: this.#limits,
      raft: this.#core(replica, appliedIndex),
      store: this.#store,
      transport: this.#transport,
      machine: this.#machine,
      logger: this.#logger,
      firstRequest: randomInt(requestsBeginBelow),
    });
    group.mayElect = this.#dataDir.peers.formed || initialMembers.size === 1;
    const nowMs = performance.now();
    this.#tickedMs = nowMs;
    this.#shard = new Shard(
      {
        limits: this.#limits,
        store: this.#store,
        transport: this.#transport,
        groups: [group],
        wake: () => this.#wake(),
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
    await this.#open();
    this.#timer = setInterval(() => this.#tick(), this.#limits.tickMs);
    this.#wake();
  }

  #core(
    replica: Parameters<typeof createCore>[0]["recovered"],
    appliedIndex: number,
  ): ReturnType<typeof createCore> {
    try {
      return createCore({
        group: defaultGroup,
        nodeId: this.#options.nodeId,
        limits: this.#limits,
        random: Math.random,
        recovered: replica,
        appliedIndex,
      });
    } catch (error) {
      if (!(error instanceof InvariantError)) throw error;
      throw new FatalError("corrupt_data", error.message, { cause: error });
    }
  }

  /** A member answered as this folder's peer: why not to speak to it, or undefined. Once all have, this node takes part in elections. */
  #meet(id: number, incarnation: string): string | undefined {
    const { peers } = this.#dataDir;
    const refusal = peers.refusal(id, incarnation);
    if (refusal !== undefined || peers.formed) return refusal;
    this.#met.add(id);
    if (this.#met.size < this.#options.initialMembers.size - 1) return undefined;
    peers.form();
    this.#shard.group(defaultGroup)!.mayElect = true;
    this.#logger.info("all initial members are there: the cluster forms");
    return undefined;
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
      version: frameVersion,
      features: 0,
      software: version,
      clusterId: this.#clusterId,
      nodeId,
      incarnation: this.#dataDir.incarnation,
      frameBytesMax: this.#limits.frameBytesMax,
      sectionBytesMax: this.#limits.sectionBytesMax,
      members: addresses,
      leader,
    };
    const refusal = this.#refuseHello(hello);
    return refusal === undefined ? reply : { ...reply, error: refusal };
  }

  #refuseHello(hello: Hello): { code: string; message: string } | undefined {
    if (this.#stopping) return { code: "shutting_down", message: "This node is stopping." };
    if (hello.role === "client") return undefined;
    const { nodeId, initialMembers } = this.#options;
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
    if (
      hello.nodeId === undefined ||
      hello.nodeId === nodeId ||
      !initialMembers.has(hello.nodeId)
    ) {
      return {
        code: "unauthorised",
        message: `Node ${hello.nodeId} is not another member of this cluster.`,
      };
    }
    const message = this.#dataDir.peers.refusal(hello.nodeId, hello.incarnation ?? "");
    return message === undefined ? undefined : { code: wrongIncarnation, message };
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
      const beganMs = performance.now();
      if (this.#shard.turn(beganMs)) this.#wake();
      this.#clients.flush();
      this.#loopGaps.turnTook(performance.now() - beganMs);
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
    this.#metrics.loopGap(this.#loopGaps.ticked(lateMs) / 1_000);
    if (++this.#ticks % connectionTicks === 0) {
      this.#transport.checkTimeouts(nowMs);
      this.#listener.checkTimeouts(nowMs);
    }
    this.#wake();
  }

  /* ---------------------------------------------------------------- Groups, for the doors */

  write(
    group: number,
    section: Uint8Array,
    header: SectionHeader,
    timeoutMs: number,
    waiter: WriteWaiter,
  ): void {
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

  status(): NodeStatus {
    const groups = this.#shard.status();
    const { user, system } = process.cpuUsage();
    const leaderless = groups.some((group) => group.leader === 0);
    return {
      nodeId: this.#options.nodeId,
      clusterId: this.#clusterId,
      version,
      uptimeSeconds: (performance.now() - this.#startedMs) / 1_000,
      diskBytes: this.#dataDir.bytes(),
      health: this.#health(leaderless),
      groups,
      syncs: this.#disk.syncDurations(),
      loopGaps: this.#loopGaps.reading(),
      cpuSeconds: (user + system) / 1e6,
      peakRssBytes: process.resourceUsage().maxRSS * 1_024,
    };
  }

  /** For metrics: the status, and what can grow. */
  #figures(): NodeFigures {
    const status = this.status();
    const others = [...this.#options.initialMembers.keys()].filter(
      (id) => id !== this.#options.nodeId,
    );
    return {
      ...status,
      connections: this.#listener.counts.all,
      clientBytes: this.#listener.clientBytes,
      kvOpenFiles: this.#files.openFiles,
      groups: status.groups.map((group) => ({
        ...group,
        queues: this.#shard.group(group.id)!.queues(),
      })),
      peers: others.map((id) => ({ id, ...this.#transport.figures(id)! })),
    };
  }

  #health(leaderless: boolean): NodeStatus["health"] {
    if (this.#stopping) return "stopping";
    if (this.#shard.diskFull) return "read_only";
    return leaderless ? "no_leader" : "ok";
  }

  notReady(): string[] {
    if (this.#stopping) return ["stopping"];
    if (this.#shard.diskFull) return ["the disk is full: free some space"];
    const missing: string[] = [];
    const { initialMembers } = this.#options;
    if (!this.#dataDir.peers.formed && initialMembers.size > 1) {
      const others = [...initialMembers.keys()].filter((id) => id !== this.#options.nodeId);
      const absent = others.filter((id) => !this.#met.has(id));
      missing.push(`first start: waiting for the initial members ${absent.join(", ")}`);
    }
    for (const group of this.#shard.status()) {
      if (group.role === "stopped") missing.push(`group ${group.id} stopped`);
      else if (group.leader === 0) missing.push(`group ${group.id} has no leader`);
      else if (!group.members.some(({ id, connected }) => id === group.leader && connected)) {
        missing.push(`group ${group.id}: no connection to its leader, node ${group.leader}`);
      } else if (!this.#caughtUp && group.appliedIndex < group.commitIndex) {
        const behind = group.commitIndex - group.appliedIndex;
        missing.push(`group ${group.id} has ${behind} committed commands to apply`);
      }
    }
    // From then on it lags only as far as the load makes it.
    if (missing.length === 0) this.#caughtUp = true;
    return missing;
  }

  members(): { readonly addresses: Record<string, string>; readonly leader: number } {
    const group = this.#shard.group(defaultGroup);
    const { nodeId, advertise } = this.#options;
    return {
      addresses: { ...group?.raft.configuration.addresses, [nodeId]: advertise },
      leader: group?.leader ?? 0,
    };
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
    this.#clients.stop();
    this.#listener.stop();
    this.#shard.drain();
    const untilMs = performance.now() + drainMsMax;
    while (!this.#shard.idle && performance.now() < untilMs) await Bun.sleep(this.#limits.tickMs);
    this.#shard.stop();
    this.#turn();
    await this.#leave();
  }

  async #leave(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#http?.stop(500);
    this.#clients.close();
    this.#listener?.close();
    this.#transport.close();
    this.#machine.close();
    this.#files.close();
    this.#store.close();
    this.#dataDir.close();
  }
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

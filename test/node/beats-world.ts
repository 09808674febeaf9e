/**
 * Nodes with many groups each, of which there is nothing but the cores, and beats between them: messages wait in one queue, as bytes, and the test
 * decides what becomes of them. All clocks tick together. Disks are instant.
 */
import { defaultLimits, type Limits } from "../../src/limits.ts";
import type { Transport } from "../../src/net/transport.ts";
import { Balance } from "../../src/node/balance.ts";
import { Beats, type PeerLoad } from "../../src/node/beats.ts";
import { Raft } from "../../src/raft/raft.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { type Batch, type HardState, lastIndexOf } from "../../src/wire/batch.ts";
import type { BeatMessage } from "../../src/wire/beat-message.ts";
import type { PeerMessage, RaftMessage } from "../../src/wire/messages.ts";
import { sealBatch, BatchKind, batchHeaderBytes } from "../../src/wire/batch.ts";
import { configurationOf, infoOf, randomFrom } from "../raft/harness.ts";
import { bytesOf, decodeAny, framesOf } from "../wire/messages.ts";

const start = { index: 0, term: 0, crc: 0xba26e, timeMs: 0 };

/** One group's core on one node, with its disk. */
export class Replica {
  readonly id: number;
  readonly nodeId: number;
  readonly #limits: Limits;
  readonly #random: () => number;
  readonly #configuration: Configuration;
  #hardState: HardState = { term: 0, votedFor: 0, commit: 0 };
  #batches: Batch[] = [];
  raft: Raft;
  stopped: string | undefined;
  /** Of its node's ticks, those that it has had. */
  tickedTo = 0;
  isActive = false;
  /** It does not take over when it is told to. */
  declines = false;
  readonly #preferred: boolean;
  #ledSinceMs = Infinity;
  #balancedMs = -Infinity;
  readonly reads: { readonly context: number; readonly index: number; readonly ok: boolean }[] = [];

  constructor(
    id: number,
    nodeId: number,
    limits: Limits,
    random: () => number,
    configuration: Configuration,
    preferred: boolean,
  ) {
    this.#preferred = preferred;
    this.id = id;
    this.nodeId = nodeId;
    this.#limits = limits;
    this.#random = random;
    this.#configuration = configuration;
    this.raft = this.boot();
  }

  boot(): Raft {
    this.tickedTo = 0;
    this.raft = new Raft({
      group: this.id,
      nodeId: this.nodeId,
      limits: this.#limits,
      random: this.#random,
      hardState: this.#hardState,
      start,
      startConfiguration: this.#configuration,
      batches: this.#batches.map(infoOf),
      configurations: [],
      appliedIndex: 0,
      preferred: this.#preferred,
    });
    return this.raft;
  }

  tickTo(tick: number): void {
    const ticks = tick - this.tickedTo;
    this.tickedTo = Math.max(this.tickedTo, tick);
    if (ticks > 0 && this.stopped === undefined) this.raft.tick(ticks);
  }

  looked(nowMs: number): void {
    if (this.raft.role !== "leader") this.#ledSinceMs = Infinity;
    else this.#ledSinceMs = Math.min(this.#ledSinceMs, nowMs);
  }

  ledForMs(nowMs: number): number {
    return nowMs - Math.max(this.#ledSinceMs, this.#balancedMs);
  }

  balanceTo(target: number, nowMs: number): boolean {
    this.#balancedMs = nowMs;
    return this.raft.transferLeadership(target).refusal === undefined;
  }

  /** Everything that the core wants, done; returns its messages. */
  run(): RaftMessage[] {
    const messages: RaftMessage[] = [];
    while (this.raft.hasReady()) {
      const ready = this.raft.ready();
      if (ready.hardState !== undefined) this.#hardState = ready.hardState;
      const first = ready.append[0]?.firstIndex ?? Infinity;
      while ((this.#batches.at(-1)?.firstIndex ?? 0) >= first) this.#batches.pop();
      this.#batches.push(...ready.append);
      if (ready.token !== undefined) this.raft.synced(ready.token);
      this.raft.applied(ready.commit);
      this.reads.push(...ready.reads);
      for (const message of ready.messages) {
        const { type } = message;
        messages.push(type === "append" ? { ...message, batches: this.#of(message) } : message);
      }
    }
    return messages;
  }

  #of({ fromIndex, toIndex }: { readonly fromIndex: number; readonly toIndex: number }): Batch[] {
    return this.#batches.filter(
      (batch) => batch.firstIndex >= fromIndex && lastIndexOf(batch) <= toIndex,
    );
  }

  /** One command; false where this is not the leader. */
  propose(): boolean {
    const seal = this.raft.nextSeal();
    if (seal === undefined) return false;
    const { firstIndex, term, prevCrc, prevTimeMs: timeMs } = seal;
    const header = { kind: BatchKind.commands, firstIndex, count: 1, term, timeMs, prevCrc };
    this.raft.propose(
      sealBatch({ group: this.id, ...header }, new Uint8Array(batchHeaderBytes + 4)),
    );
    return true;
  }
}

export interface WorldNode {
  readonly id: number;
  readonly groups: Map<number, Replica>;
  beats: Beats<Replica>;
  balance: Balance<Replica>;
  life: number;
  /** Of this life. */
  ticks: number;
}

interface Sent {
  readonly message: PeerMessage;
  /** Over a connection of these lives of both ends. */
  readonly connection: string;
}

export interface WorldOptions {
  readonly nodes?: number;
  readonly groups: number;
  /** Nodes of each group, by its number; all, if nothing is said. */
  readonly membersOf?: (group: number) => readonly number[];
  readonly seed?: number;
  readonly limits?: Partial<Limits>;
  /** Nodes that know nothing of beats. */
  readonly old?: readonly number[];
  readonly preferred?: readonly number[];
  /** Leaders spread over the nodes by themselves. */
  readonly balances?: boolean;
  /** Groups have their ticks, and hear of beats, only when something comes for them or time asks something of them, as a shard's that rest do. */
  readonly rests?: boolean;
}

/** Ticks from one look at a group that rests to the next. */
export const lookTicks = 4;

export class World {
  readonly nodes = new Map<number, WorldNode>();
  readonly limits: Limits;
  readonly random: () => number;
  readonly #old: readonly number[];
  readonly #balances: boolean;
  readonly #rests: boolean;
  /** On the way, in order of sending. */
  wire: Sent[] = [];
  /** All that was sent, since the test cleared it. */
  sent: PeerMessage[] = [];
  /** False = lost. */
  delivers: (message: PeerMessage) => boolean = () => true;
  nowTick = 0;

  constructor(options: WorldOptions) {
    const { nodes = 3, groups, membersOf, seed = 1, limits, old = [], preferred = [] } = options;
    this.#balances = options.balances ?? false;
    this.#rests = options.rests ?? false;
    this.limits = { ...defaultLimits, ...limits };
    this.random = randomFrom(seed);
    this.#old = old;
    const ids = Array.from({ length: nodes }, (_, at) => at + 1);
    for (const id of ids) {
      const replicas = new Map<number, Replica>();
      for (let group = 0; group < groups; group++) {
        const members = membersOf?.(group) ?? ids;
        if (!members.includes(id)) continue;
        const configuration = configurationOf(members);
        const isPreferred = preferred.includes(id);
        const given = [this.limits, this.random, configuration, isPreferred] as const;
        replicas.set(group, new Replica(group, id, ...given));
      }
      this.nodes.set(id, {
        id,
        groups: replicas,
        life: 0,
        ticks: 0,
        ...this.#shellOf(id, replicas),
      });
    }
    for (const { id } of this.nodes.values()) this.connect(id);
  }

  get nowMs(): number {
    return this.nowTick * this.limits.tickMs;
  }

  /** By node, how many groups it leads. */
  led(): number[] {
    const led = new Map([...this.nodes.keys()].map((id) => [id, 0]));
    for (const { groups } of this.nodes.values()) {
      for (const group of groups.values()) {
        if (group.raft.role === "leader") led.set(group.nodeId, led.get(group.nodeId)! + 1);
      }
    }
    return [...led.values()];
  }

  node(id: number): WorldNode {
    return this.nodes.get(id)!;
  }

  #shellOf(id: number, groups: ReadonlyMap<number, Replica>): Pick<WorldNode, "beats" | "balance"> {
    const transport: Transport = {
      send: (message) => this.#send(message),
      connected: () => true,
      dialsIn: () => false,
      takesBeats: (peer) => !this.#old.includes(id) && !this.#old.includes(peer),
      applyVersionMax: () => 3,
      flush: () => {},
    };
    const first = Math.floor(this.random() * 2 ** 48);
    const { limits } = this;
    const activate = (): void => {};
    const tickTo = (replica: Replica, tick: number): void => replica.tickTo(tick);
    const beats = new Beats({ limits, transport, groups, first, tickTo, activate });
    const loadOf = (nodeId: number): PeerLoad | undefined => beats.loadOf(nodeId);
    return {
      beats,
      balance: new Balance({ limits, groups, loadOf, nodes: () => beats.nodes, activate }),
    };
  }

  #connection(from: number, to: number): string {
    return `${from}.${this.node(from).life}>${to}.${this.node(to).life}`;
  }

  /** All its connections are new. */
  connect(id: number): void {
    for (const other of this.nodes.values()) {
      if (other.id === id) continue;
      for (const [one, two] of [
        [this.node(id), other],
        [other, this.node(id)],
      ] as const) {
        one.beats.peerDown(two.id);
        one.beats.peerUp(two.id);
        for (const { raft } of one.groups.values()) raft.peerReset(two.id);
      }
    }
  }

  restart(id: number): void {
    const node = this.node(id);
    node.life++;
    node.ticks = 0;
    Object.assign(node, this.#shellOf(id, node.groups));
    for (const replica of node.groups.values()) replica.boot();
    this.connect(id);
  }

  #send(message: PeerMessage): void {
    this.sent.push(message);
    this.wire.push({ message, connection: this.#connection(message.from, message.to) });
  }

  /** What a node has to say, and the beats that are due. */
  turn({ groups, beats }: WorldNode): void {
    for (const replica of groups.values()) {
      if (replica.stopped !== undefined) continue;
      for (const message of replica.run()) this.#send(message);
    }
    beats.send();
  }

  deliver({ message, connection }: Sent): void {
    if (connection !== this.#connection(message.from, message.to)) return;
    const [frame] = framesOf(bytesOf(message));
    const arrived = decodeAny(frame!) as PeerMessage;
    const node = this.node(arrived.to);
    if (arrived.type === "beat") return node.beats.received(arrived);
    const replica = "group" in arrived ? node.groups.get(arrived.group) : undefined;
    if (replica === undefined || replica.stopped !== undefined) return;
    node.beats.catchUp(replica);
    replica.raft.step(arrived as RaftMessage);
  }

  /** Delivers until nothing moves. */
  settle(): void {
    for (let rounds = 0; rounds < 100_000; rounds++) {
      for (const node of this.nodes.values()) this.turn(node);
      if (this.wire.length === 0) return;
      for (const sent of this.wire.splice(0)) if (this.delivers(sent.message)) this.deliver(sent);
    }
    throw new Error("the world does not settle");
  }

  tickAll(): void {
    this.nowTick++;
    for (const node of this.nodes.values()) this.tickNode(node);
  }

  tickNode(node: WorldNode): void {
    const tick = ++node.ticks;
    node.beats.tick();
    for (const replica of node.groups.values()) {
      if (replica.stopped !== undefined) continue;
      replica.raft.isReluctant = replica.declines;
      if (this.#isDue(tick, replica)) node.beats.catchUp(replica);
      replica.looked(this.nowMs);
    }
    if (this.#balances) node.balance.step(this.nowMs);
  }

  /** Time asks something of it now, or where it leads before the next look at it. */
  #isDue(tick: number, { id, raft, tickedTo }: Replica): boolean {
    if (!this.#rests) return true;
    if (raft.role !== "leader") return tick - tickedTo > raft.idleTicks;
    return (tick + id) % lookTicks === 0 && tick + lookTicks - tickedTo > raft.idleTicks;
  }

  tick(ticks = 1): void {
    for (let i = 0; i < ticks; i++) {
      this.tickAll();
      this.settle();
    }
  }

  /** Until every group has a leader, and all heartbeats that can go by beats do. */
  ready(): this {
    this.tick(4 * this.limits.electionTicksMax);
    this.sent = [];
    return this;
  }

  leaderOf(group: number): Replica | undefined {
    let leader: Replica | undefined;
    for (const { groups } of this.nodes.values()) {
      const replica = groups.get(group);
      if (replica?.raft.role !== "leader") continue;
      if (leader === undefined || leader.raft.term < replica.raft.term) leader = replica;
    }
    return leader;
  }

  /** This node leads all groups that it has. */
  leadAll(id: number): this {
    this.tick(4 * this.limits.electionTicksMax);
    for (const group of this.node(id).groups.keys()) {
      if (this.leaderOf(group)?.nodeId === id) continue;
      this.leaderOf(group)?.raft.transferLeadership(id);
      this.settle();
    }
    return this.ready();
  }

  beats(from?: number, to?: number): BeatMessage[] {
    return this.sent.filter(
      (message): message is BeatMessage =>
        message.type === "beat" &&
        (from ?? message.from) === message.from &&
        (to ?? message.to) === message.to,
    );
  }

  count(...types: PeerMessage["type"][]): number {
    return this.sent.filter(({ type }) => types.includes(type)).length;
  }
}

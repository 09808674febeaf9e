/**
 * One event loop's worth of groups: one log, one sync in flight, one turn [43, 44]. `turn` is a plain function of queues and time, so that
 * the simulator drives whole shards; nothing in here awaits, reads a clock or touches a socket.
 *
 * A turn, in this order: what has arrived (messages, finished syncs), ticks, new requests into batches, effects of all groups in one
 * transaction, then messages, then apply, then the next sync.
 */
import { BargeError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { Transport } from "../net/transport.ts";
import type { Ready } from "../raft/ready.ts";
import type {
  AdminWaiter,
  GroupStatus,
  ReadWaiter,
  WatchHandle,
  WatchRequest,
  Watcher,
  WriteWaiter,
} from "../server/groups.ts";
import { DiskFullError } from "../storage/disk.ts";
import type { SpaceLevel } from "../storage/disk-space.ts";
import { CorruptBatchError, type GroupWrite, type LogStore } from "../storage/log-store.ts";
import type { Consistency, PeerMessage } from "../wire/messages.ts";
import { readSectionHeader, type SectionHeader } from "../wire/section.ts";
import { Admin, type ClusterIdentity, type ScrubControl } from "./admin.ts";
import type { Group } from "./group.ts";
import type { Refill } from "./refill.ts";

export interface ShardOptions {
  readonly limits: Limits;
  readonly store: LogStore;
  readonly transport: Transport;
  readonly groups: readonly Group[];
  /** Random, below 2^48: where this life's requests to other nodes begin to be numbered. */
  readonly firstRequest: number;
  /** What the disk has left; where nothing is said, always enough. */
  readonly space?: Space;
  /** Whom this node takes for members of its cluster; without it no node can join. */
  readonly identity?: ClusterIdentity;
  /** Without it there is no disk to read through. */
  readonly scrubber?: ScrubControl;
  /** Asks for a turn soon; may be called any number of times. */
  readonly wake: () => void;
}

/** storage/disk-space.ts; a simulated one in test/sim. */
export interface Space {
  readonly level: SpaceLevel;
  /** The log met the end of the disk. True where that freed some space. */
  release(): boolean;
}

interface Effect {
  readonly group: Group;
  readonly ready: Ready;
}

interface Blocked {
  readonly writes: readonly GroupWrite[];
  readonly effects: readonly Effect[];
}

/** Effects cause effects (an answer to a read, an own acknowledgement); they settle within a few rounds. */
const roundsPerTurnMax = 4;
/** A shard that had effects a moment ago is likely to have more. */
const busyMs = 5;
/** Ticks between two rounds of time-outs and log retirement. */
const housekeepTicks = 4;

export class Shard {
  readonly #limits: Limits;
  readonly #store: LogStore;
  readonly #transport: Transport;
  readonly #groups: ReadonlyMap<number, Group>;
  readonly #wake: () => void;
  readonly #admin: Admin;
  readonly #space: Space | undefined;
  /** Of groups whose state another member can give anew; by group. */
  readonly #refills = new Map<number, Refill>();

  #arrived: PeerMessage[] = [];
  /** Effects whose transaction found no space: nothing of them, and nothing after them, leaves until it succeeds [20]. */
  #blocked: Blocked | undefined;
  #retryDue = false;
  #syncedSeq = 0;
  #syncEnded = false;
  /** When the sync under way began. */
  #syncSinceMs = 0;
  #nowMs: number;
  /** The last turn that had effects. */
  #workedMs = -Infinity;
  #tickedMs: number;
  #ticks = 0;

  constructor(options: ShardOptions, nowMs: number) {
    this.#limits = options.limits;
    this.#store = options.store;
    this.#transport = options.transport;
    this.#groups = new Map(options.groups.map((group) => [group.id, group]));
    this.#wake = options.wake;
    this.#space = options.space;
    this.#nowMs = nowMs;
    this.#tickedMs = nowMs;
    this.#lookAtSpace();
    this.#admin = new Admin({
      identity: options.identity,
      scrubber: options.scrubber,
      firstRequest: options.firstRequest,
      limits: options.limits,
      transport: options.transport,
      groups: this.#groups,
      deadlineMs: (timeoutMs) => this.#deadline(timeoutMs),
    });
  }

  /* ---------------------------------------------------------------- what comes in */

  deliver(message: PeerMessage): void {
    this.#arrived.push(message);
    this.#wake();
  }

  peerUp(nodeId: number): void {
    for (const group of this.#groups.values()) group.peerUp(nodeId);
    this.#wake();
  }

  peerDown(nodeId: number): void {
    for (const group of this.#groups.values()) group.peerDown(nodeId);
    this.#admin.peerDown(nodeId);
  }

  write(
    groupId: number,
    section: Uint8Array,
    header: SectionHeader,
    timeoutMs: number,
    waiter: WriteWaiter,
  ): void {
    const group = this.#groups.get(groupId);
    if (group === undefined) return waiter.failed(unknownGroup(groupId));
    group.write(section, header, this.#deadline(timeoutMs), waiter);
    this.#wake();
  }

  read(
    groupId: number,
    consistency: Consistency,
    maxStalenessMs: number,
    timeoutMs: number,
    waiter: ReadWaiter,
  ): void {
    const group = this.#groups.get(groupId);
    if (group === undefined) return waiter.failed(unknownGroup(groupId));
    group.read(consistency, maxStalenessMs, this.#deadline(timeoutMs), waiter);
    this.#wake();
  }

  /** Throws a BargeError where there can be no such watch. */
  watch(groupId: number, request: WatchRequest, watcher: Watcher): WatchHandle {
    const group = this.#groups.get(groupId);
    if (group === undefined) throw unknownGroup(groupId);
    return group.watch(request, watcher);
  }

  admin(operation: string, body: unknown, waiter: AdminWaiter): void {
    this.#admin.ask(operation, body, waiter);
    this.#wake();
  }

  /** Time of the last turn is near enough for a deadline, and costs no clock. */
  #deadline(timeoutMs: number): number {
    const bounded = timeoutMs > 0 ? timeoutMs : this.#limits.requestTimeoutMs;
    return this.#nowMs + Math.min(bounded, this.#limits.requestTimeoutMsMax);
  }

  /* ---------------------------------------------------------------- the turn */

  /** `nowMs` is monotonic. Returns true when there is more to do at once. */
  turn(nowMs: number): boolean {
    const sinceMs = nowMs - this.#nowMs;
    this.#nowMs = nowMs;
    // There is a turn each tick, so a longer time between two is a stall.
    if (sinceMs >= this.#limits.loopStallMs) {
      for (const group of this.#groups.values()) group.loopStalled(sinceMs, nowMs);
    }
    this.#receive(nowMs);
    if (this.#syncEnded) {
      this.#syncEnded = false;
      for (const group of this.#groups.values()) group.synced(this.#syncedSeq);
    }
    this.#tick(nowMs);

    let more = false;
    for (let round = 0; round < roundsPerTurnMax; round++) {
      for (const group of this.#groups.values()) {
        if (!this.diskFull) group.propose(nowMs, this.#store.syncing);
      }
      const performed = this.#perform(nowMs);
      more = this.#apply();
      if (!performed) break;
      this.#workedMs = nowMs;
    }
    const busy = nowMs - this.#workedMs < busyMs;
    for (const group of this.#groups.values()) {
      group.answerReads();
      if (group.tellWatches(nowMs, busy)) more = true;
      if (group.work(nowMs)) more = true;
      if (!this.diskFull && group.stopped === undefined && group.raft.hasReady()) more = true;
    }

    this.#startSync();
    this.#transport.flush();
    return more;
  }

  #receive(nowMs: number): void {
    const arrived = this.#arrived;
    if (arrived.length === 0) return;
    this.#arrived = [];
    for (const message of arrived) {
      const group = this.#groups.get(message.group);
      // A message for a group that is not here never creates state.
      if (group === undefined) continue;
      if (message.type === "forward") {
        const header = readSectionHeader(message.section, 0);
        if (header !== undefined) group.forwarded(message, header, nowMs);
      } else if (message.type === "forwardReply") group.forwardReplied(message);
      else if (message.type === "adminRequest") this.#admin.requested(message);
      else if (message.type === "adminReply") this.#admin.replied(message);
      else if (
        message.type === "snapshotOffer" ||
        message.type === "snapshotChunk" ||
        message.type === "snapshotReply"
      ) {
        group.snapshotStep(message);
      } else group.step(message);
    }
  }

  /**
   * Ticks that are due, but never more than a heartbeat's worth: after a pause of the process the input is drained first, and timers that
   * ran out meanwhile must not all fire at once [E6].
   */
  #tick(nowMs: number): void {
    const { tickMs, heartbeatTicks } = this.#limits;
    let due = Math.floor((nowMs - this.#tickedMs) / tickMs);
    if (due <= 0) return;
    this.#tickedMs += due * tickMs;
    this.#lookAtSpace();
    if (this.#store.syncing) {
      const forMs = nowMs - this.#syncSinceMs;
      for (const group of this.#groups.values()) group.slowSync(forMs, nowMs);
    }
    if (due > heartbeatTicks) {
      for (const group of this.#groups.values()) group.skipTicks(due - heartbeatTicks);
      due = heartbeatTicks;
    }
    for (let i = 0; i < due; i++) {
      for (const group of this.#groups.values()) group.tick();
      if (++this.#ticks % housekeepTicks === 0) {
        for (const group of this.#groups.values()) {
          group.housekeep(nowMs);
          if (group.machine.refill !== undefined) this.#refillOf(group).work(nowMs);
        }
        this.#admin.expire(nowMs);
      }
    }
    this.#tickStore(nowMs);
    this.#retryDue = true;
  }

  #refillOf(group: Group): Refill {
    let refill = this.#refills.get(group.id);
    if (refill === undefined) {
      refill = group.refill((to, operation, body, waiter) =>
        this.#admin.askAt(to, operation, body, waiter),
      );
      this.#refills.set(group.id, refill);
    }
    return refill;
  }

  #lookAtSpace(): void {
    if (this.#space === undefined) return;
    for (const group of this.#groups.values()) group.space = this.#space.level;
  }

  #tickStore(nowMs: number): void {
    try {
      this.#store.tick(nowMs);
    } catch (error) {
      const group = error instanceof CorruptBatchError ? this.#groups.get(error.group) : undefined;
      if (group === undefined) throw error;
      group.wounded(error as CorruptBatchError);
    }
  }

  /** One transaction for all groups, then their messages. False when no group had effects. */
  #perform(nowMs: number): boolean {
    const writes: GroupWrite[] = [];
    const effects: Effect[] = [];
    if (this.#blocked === undefined) {
      for (const group of this.#groups.values()) {
        const ready = group.collect(nowMs, writes);
        if (ready !== undefined) effects.push({ group, ready });
      }
    } else if (this.#retryDue) {
      writes.push(...this.#blocked.writes);
      effects.push(...this.#blocked.effects);
    }
    this.#retryDue = false;
    if (effects.length === 0) return false;
    const appendSeq = this.#append(writes, effects);
    if (appendSeq === undefined) return false;
    for (const { group, ready } of effects) group.perform(ready, appendSeq);
    return true;
  }

  /**
   * Undefined when the disk is full, and without a ballast: the store is unchanged, and the very same transaction is tried again at the next tick.
   * Until then this node is silent, so that its groups get other leaders, and answers local reads only.
   */
  #append(writes: readonly GroupWrite[], effects: readonly Effect[]): number | undefined {
    const appendSeq = this.#tryAppend(writes) ?? this.#appendAsBallast(writes);
    if (appendSeq === undefined) {
      if (this.#blocked === undefined) this.#setBlocked({ writes, effects });
    } else if (this.#blocked !== undefined) this.#setBlocked(undefined);
    return appendSeq;
  }

  /** Undefined where there is no space. */
  #tryAppend(writes: readonly GroupWrite[]): number | undefined {
    if (writes.length === 0) return 0;
    try {
      return this.#store.append(writes);
    } catch (error) {
      if (!(error instanceof DiskFullError)) throw error;
      return undefined;
    }
  }

  /** In the place of the ballast: what was taken is kept, votes can still be given, and no more is taken. */
  #appendAsBallast(writes: readonly GroupWrite[]): number | undefined {
    if (this.#space?.release() !== true) return undefined;
    this.#lookAtSpace();
    return this.#tryAppend(writes);
  }

  #setBlocked(blocked: Blocked | undefined): void {
    this.#blocked = blocked;
    for (const group of this.#groups.values()) group.diskFull = blocked !== undefined;
  }

  /** The disk is full: writes are refused until there is space again. */
  get diskFull(): boolean {
    return this.#blocked !== undefined;
  }

  #apply(): boolean {
    let more = false;
    for (const group of this.#groups.values()) {
      if (group.apply()) more = true;
    }
    return more;
  }

  #startSync(): void {
    if (this.#store.syncing) return;
    this.#syncSinceMs = this.#nowMs;
    this.#store.sync((syncedSeq) => {
      this.#syncedSeq = syncedSeq;
      this.#syncEnded = true;
      this.#wake();
    });
  }

  /* ---------------------------------------------------------------- the end */

  /** The node is about to stop: its groups go to other leaders. False once none of them is on its way any more. */
  leave(): boolean {
    let leaving = false;
    for (const group of this.#groups.values()) if (group.leave()) leaving = true;
    this.#wake();
    return leaving;
  }

  /** Stops intake in all groups; what is in flight goes on. */
  drain(): void {
    for (const group of this.#groups.values()) group.drain();
    this.#admin.drain();
  }

  get idle(): boolean {
    for (const group of this.#groups.values()) if (!group.idle) return false;
    return this.#admin.idle;
  }

  /** Tells everybody who still waits that the node stops. */
  stop(): void {
    for (const group of this.#groups.values()) group.failAll("shutting_down");
    this.#admin.failAll();
  }

  group(id: number): Group | undefined {
    return this.#groups.get(id);
  }

  status(): GroupStatus[] {
    return [...this.#groups.values()].map((group) => group.status());
  }
}

function unknownGroup(id: number): BargeError {
  return new BargeError("unknown_group", `This node has no group ${id}.`);
}

/**
 * One event loop's worth of groups: one log, one sync in flight, one turn [43, 44]. `turn` is a plain function of queues and time, so that
 * the simulator drives whole shards; nothing in here awaits, reads a clock or touches a socket.
 *
 * A turn, in this order: what has arrived (messages, finished syncs), ticks, new requests into batches, effects of all groups in one
 * transaction, then messages, then apply, then the next sync. Only groups that may have something to do take part in it, so that the others, however
 * many there are, cost a tick each and nothing else.
 */
import { BargeError, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import { CommonBytes } from "../machine/common-bytes.ts";
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
import type { SharedFigures } from "../telemetry/metrics.ts";
import { CorruptBatchError, type GroupWrite, type LogStore } from "../storage/log-store.ts";
import type { AdminOperation } from "../wire/admin.ts";
import { Consistency, type PeerMessage } from "../wire/messages.ts";
import { readSectionHeader, type SectionHeader } from "../wire/section.ts";
import { Admin, type ClusterIdentity, type ScrubControl } from "./admin.ts";
import { Balance } from "./balance.ts";
import { Beats } from "./beats.ts";
import type { Group } from "./group.ts";
import type { Refill } from "./refill.ts";
import type { Registry } from "./registry.ts";
import { unknownGroup } from "./registry-changes.ts";

export interface ShardOptions {
  readonly limits: Limits;
  readonly store: LogStore;
  readonly transport: Transport;
  /** The groups to begin with. */
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
/** Where there are many groups, house is kept for those that nobody waits for in one of so many rounds. */
const restRounds = 8;
/** Groups that are handed over at once where this node is too slow to lead: a thousand at a time would make all of them slow. */
const fleeingMax = 8;
/** Ticks between two rounds of time-outs and log retirement, and the most between two looks at a group that rests. */
const housekeepTicks = 4;

/** From it on, each so many-th place has its turn at that tick. */
function firstPlace(tick: number, stride: number): number {
  return (stride - (tick % stride)) % stride;
}

function isAboutToAct({ raft, stopped }: Group, ticks: number): boolean {
  return stopped === undefined && raft.role !== "leader" && raft.idleTicks < ticks;
}

export class Shard {
  readonly #limits: Limits;
  readonly #store: LogStore;
  readonly #transport: Transport;
  readonly #groups = new Map<number, Group>();
  /** The same, each in its place in the round of those that time is given to. */
  #places: Group[] = [];
  /** Those that may have something to do, each once; it begins with whose turn it is to apply. */
  #active: Group[] = [];
  /** Those that found no room for what waits in them, longest ago first. */
  #passedOver: Group[] = [];
  /** Those at rest whose time-out ends before the next look at them. */
  readonly #soon = new Set<Group>();
  /** Those that a sync has to be told to. */
  #unsynced: Group[] = [];
  /** Those with requests that wait for the end of the sync [7]. */
  #held: Group[] = [];
  #heldBytes = 0;
  /** A group with so much log or more cuts what it can. */
  #logShareBytes = Infinity;
  /** Of the log, in memory. */
  readonly #tails: CommonBytes;
  /** Of what was taken from inboxes and no sync has covered yet, and of that which the one under way covers. */
  #unsyncedBytes = 0;
  #syncingBytes = 0;
  readonly #wake: () => void;
  readonly #admin: Admin;
  readonly #beats: Beats<Group>;
  readonly #balance: Balance<Group>;
  /** Until then no node should hand leadership over to this one. */
  #reluctantUntilMs = -Infinity;
  #registry: Registry | undefined;
  readonly #space: Space | undefined;
  /** As the groups know it. */
  #spaceLevel: SpaceLevel = "plenty";
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
    this.#wake = options.wake;
    this.#space = options.space;
    this.#spaceLevel = options.space?.level ?? "plenty";
    this.#nowMs = nowMs;
    this.#tickedMs = nowMs;
    this.#tails = new CommonBytes(options.limits.shardTailCacheBytes);
    this.#beats = new Beats({
      limits: options.limits,
      transport: options.transport,
      groups: this.#groups,
      first: options.firstRequest,
      tickTo: (group, tick) => this.#tickTo(group, tick),
      activate: (group) => this.#activate(group),
    });
    this.#balance = new Balance({
      limits: options.limits,
      groups: this.#groups,
      loadOf: (nodeId) => this.#beats.loadOf(nodeId),
      nodes: () => this.#beats.nodes,
      activate: (group) => this.#activate(group),
    });
    this.#admin = new Admin({
      identity: options.identity,
      scrubber: options.scrubber,
      firstRequest: options.firstRequest,
      limits: options.limits,
      transport: options.transport,
      groups: this.#groups,
      unknownGroup: (id) => this.#absentSoFar(id),
      registry: () => this.#registry,
      deadlineMs: (timeoutMs) => this.#deadline(timeoutMs),
    });
    for (const group of options.groups) this.#adopt(group);
  }

  /* ---------------------------------------------------------------- groups come and go */

  /** From now on groups come and go as it says, at the ends of turns. */
  follow(registry: Registry): void {
    this.#registry = registry;
  }

  /** Refuses what is asked of a group that is not here: the registry may know where it is. */
  #absent(id: number, timeoutMs: number, waiter: Pick<ReadWaiter, "failed">): void {
    if (this.#registry === undefined) return waiter.failed(unknownGroup(id));
    this.#registry.absent(id, this.#deadline(timeoutMs), (error) => waiter.failed(error));
  }

  /** The same for whoever cannot wait for others. */
  #absentSoFar(id: number): BargeError {
    return this.#registry?.absentSoFar(id) ?? unknownGroup(id);
  }

  /** A replica that this node has from now on. */
  add(group: Group): void {
    this.#adopt(group);
    this.#wake();
  }

  #adopt(group: Group): void {
    if (this.#groups.has(group.id)) throw new Error(`shard: group ${group.id} is there already`);
    this.#groups.set(group.id, group);
    this.#places.push(group);
    // All have the same, so that the next look at it tells all.
    group.space = this.#spaceLevel;
    group.diskFull = this.diskFull;
    group.tickedTo = this.#ticks;
    group.attach(() => this.#activate(group), this.#tails);
    this.#activate(group);
  }

  /**
   * The group leaves this node, as the registry says at that index of its log: nothing of it is in the log any more, and everybody who waits is told.
   * What is left, its machine with its files, is for the caller to close. Undefined where there is no such group. Not within `turn` but from what a group
   * applies.
   */
  remove(id: number, registryIndex: number): Group | undefined {
    const group = this.#groups.get(id);
    if (group === undefined) return undefined;
    this.#groups.delete(id);
    this.#places = this.#places.filter((other) => other !== group);
    this.#active = this.#active.filter((other) => other !== group);
    this.#unsynced = this.#unsynced.filter((other) => other !== group);
    this.#held = this.#held.filter((other) => other !== group);
    this.#passedOver = this.#passedOver.filter((other) => other !== group);
    this.#soon.delete(group);
    this.#refills.get(id)?.stop();
    this.#refills.delete(id);
    this.#heldBytes -= group.heldBytes;
    this.#store.remove(id, registryIndex);
    if (this.#blocked !== undefined) {
      const writes = this.#blocked.writes.filter((write) => write.group !== id);
      const effects = this.#blocked.effects.filter((effect) => effect.group !== group);
      this.#blocked = { writes, effects };
    }
    group.close(this.#registry?.elsewhere(id) === undefined ? "unknown_group" : "group_elsewhere");
    this.#wake();
    return group;
  }

  #activate(group: Group): void {
    if (group.isActive) return;
    this.#heldBytes -= group.heldBytes;
    group.heldBytes = 0;
    group.isActive = true;
    group.rests = false;
    this.#active.push(group);
    this.#catchUp(group);
  }

  /** What it was not given or told yet, as it was at rest. */
  #catchUp(group: Group): void {
    this.#beats.catchUp(group);
  }

  #tickTo(group: Group, tick: number): void {
    const ticks = tick - group.tickedTo;
    if (ticks <= 0) return;
    group.tickedTo = tick;
    if (group.tick(ticks) && !group.isActive && group.hasReady) this.#activate(group);
  }

  #activateAll(): void {
    for (const group of this.#groups.values()) this.#activate(group);
  }

  /* ---------------------------------------------------------------- what comes in */

  deliver(message: PeerMessage): void {
    this.#arrived.push(message);
    this.#wake();
  }

  peerUp(nodeId: number): void {
    this.#beats.peerUp(nodeId);
    this.#activateAll();
    for (const group of this.#groups.values()) group.peerUp(nodeId);
    this.#wake();
  }

  peerDown(nodeId: number): void {
    this.#beats.peerDown(nodeId);
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
    if (group === undefined) return this.#absent(groupId, timeoutMs, waiter);
    group.write(section, header, this.#deadline(timeoutMs), waiter);
    this.#activate(group);
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
    if (group === undefined) return this.#absent(groupId, timeoutMs, waiter);
    group.read(consistency, maxStalenessMs, this.#deadline(timeoutMs), waiter);
    this.#activate(group);
    this.#wake();
  }

  /** Throws a BargeError where there can be no such watch. */
  watch(groupId: number, request: WatchRequest, watcher: Watcher): WatchHandle {
    const group = this.#groups.get(groupId);
    if (group === undefined) throw this.#absentSoFar(groupId);
    this.#catchUp(group);
    return group.watch(request, watcher);
  }

  admin(operation: string, body: unknown, waiter: AdminWaiter): void {
    this.#admin.ask(operation, body, waiter);
    this.#wake();
  }

  /** Asks that node itself, whoever leads. */
  adminAt(to: number, operation: AdminOperation, body: unknown, waiter: AdminWaiter): void {
    this.#admin.askAt(to, operation, body, waiter);
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
      this.#activateAll();
      this.#reluctantUntilMs = nowMs + this.#limits.stallWindowMs;
      let left = fleeingMax;
      for (const group of this.#groups.values())
        if (group.loopStalled(sinceMs, nowMs, left > 0)) left--;
    }
    this.#receive(nowMs);
    if (this.#syncEnded) this.#endSync();
    this.#tick(nowMs);

    let more = false;
    for (let round = 0; round < roundsPerTurnMax; round++) {
      if (!this.diskFull) this.#propose(nowMs);
      const performed = this.#perform(nowMs);
      more = this.#apply();
      if (!performed) break;
      this.#workedMs = nowMs;
    }
    const busy = nowMs - this.#workedMs < busyMs;
    for (const group of this.#active) {
      group.answerReads();
      if (group.tellWatches(nowMs, busy)) more = true;
      if (group.work(nowMs)) more = true;
      if (!this.diskFull && group.hasReady) more = true;
    }

    this.#startSync();
    this.#rest();
    if (this.#registry?.step(nowMs) === true) more = true;
    if (!this.diskFull) this.#beats.send();
    this.#transport.flush();
    return more;
  }

  /** Those that have nothing to do leave the turns, until something comes for them. */
  #rest(): void {
    let kept = 0;
    const { syncing } = this.#store;
    for (const group of this.#active) {
      const hasInbox = group.inboxBytes > 0;
      const isHeld = hasInbox && syncing && group.sealsAfterSync;
      if (!group.isQuiet || (hasInbox && !isHeld)) {
        this.#active[kept++] = group;
        continue;
      }
      group.isActive = false;
      if (!isHeld) continue;
      group.heldBytes = group.inboxBytes;
      this.#heldBytes += group.heldBytes;
      if (group.isHeld) continue;
      group.isHeld = true;
      this.#held.push(group);
    }
    this.#active.length = kept;
  }

  /**
   * What waits is sealed once no sync runs, or once it is enough, of all groups together: they share the transaction and the sync [7]. Where it is more than there
   * is room for until the next sync, each group has its share, in turn.
   */
  #propose(nowMs: number): void {
    let groups = 0;
    let bytes = this.#heldBytes;
    for (const group of this.#active) {
      if (group.inboxBytes === 0) continue;
      groups++;
      bytes += group.inboxBytes;
    }
    const isEnough = bytes >= this.#limits.sealBytes;
    const syncing = this.#store.syncing && !isEnough;
    if (isEnough && this.#heldBytes > 0) groups += this.#endHold();
    const room = this.#limits.shardUnsyncedBytesMax - this.#unsyncedBytes;
    if (groups <= 1 || bytes <= room) {
      for (const group of this.#active) {
        this.#unsyncedBytes += group.propose(nowMs, syncing, Infinity);
      }
      if (this.#passedOver.length > 0) this.#forgetServed();
      return;
    }
    this.#proposeInTurn(nowMs, syncing, room, Math.max(room / groups, this.#limits.sealBytes));
  }

  /** Who was passed over is first: those that have just been served become active before those that were held, and would be first each time. */
  #proposeInTurn(nowMs: number, syncing: boolean, room: number, share: number): void {
    const order = this.#passedOver;
    for (const group of this.#active) if (!group.isPassedOver) order.push(group);
    this.#passedOver = [];
    let left = room;
    for (const group of order) {
      const hadRoom = left > 0;
      let taken = 0;
      if (group.isActive) taken = group.propose(nowMs, syncing, hadRoom ? share : 0);
      this.#unsyncedBytes += taken;
      left -= taken;
      // Where what waited is past its deadline, the place is kept for what comes next.
      const waits = group.inboxBytes > 0 || (group.isPassedOver && !hadRoom);
      group.isPassedOver = taken === 0 && waits;
      if (group.isPassedOver) this.#passedOver.push(group);
    }
  }

  /** There was room for all. */
  #forgetServed(): void {
    for (const group of this.#passedOver) group.isPassedOver = group.inboxBytes > 0;
    this.#passedOver = this.#passedOver.filter(({ isPassedOver }) => isPassedOver);
  }

  /** Returns how many there were. */
  #endHold(): number {
    const held = this.#held;
    this.#held = [];
    for (const group of held) {
      group.isHeld = false;
      this.#activate(group);
    }
    return held.length;
  }

  /** From there on they are first the next time. */
  #rotate(at: number): void {
    if (at > 0) this.#active = [...this.#active.slice(at), ...this.#active.slice(0, at)];
  }

  #endSync(): void {
    this.#syncEnded = false;
    const unsynced = this.#unsynced;
    this.#unsynced = [];
    for (const group of unsynced) {
      group.synced(this.#syncedSeq);
      group.awaitsSync = group.hasUnsynced;
      if (group.awaitsSync) this.#unsynced.push(group);
      this.#activate(group);
    }
    this.#endHold();
    this.#unsyncedBytes -= this.#syncingBytes;
  }

  #receive(nowMs: number): void {
    const arrived = this.#arrived;
    if (arrived.length === 0) return;
    this.#arrived = [];
    for (const message of arrived) {
      if (message.type === "beat") {
        this.#beats.received(message);
        continue;
      }
      const group = this.#groups.get(message.group);
      // A message for a group that is not here never creates state.
      if (group === undefined) continue;
      this.#activate(group);
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
    const syncForMs = this.#store.syncing ? nowMs - this.#syncSinceMs : 0;
    if (syncForMs >= this.#limits.syncStallMs) {
      this.#reluctantUntilMs = nowMs + this.#limits.stallWindowMs;
      this.#activateAll();
      let left = fleeingMax;
      for (const group of this.#groups.values())
        if (left > 0 && group.slowSync(syncForMs, nowMs)) left--;
    }
    if (due > heartbeatTicks) {
      this.#activateAll();
      for (const group of this.#groups.values()) group.skipTicks(due - heartbeatTicks);
      due = heartbeatTicks;
    }
    this.#beats.isReluctant = this.#spaceLevel !== "plenty" || nowMs < this.#reluctantUntilMs;
    for (let i = 0; i < due; i++) this.#tickOnce(nowMs);
    this.#balance.step(nowMs);
    this.#tickStore(nowMs);
    this.#retryDue = true;
  }

  /**
   * What is done by time is done for a part of the groups at each tick, so that a thousand of them make no pause; and where there are many, those that rest are
   * given their ticks then, so that each is looked at no oftener. Whatever comes for a group meanwhile, it is given them first.
   */
  #tickOnce(nowMs: number): void {
    const tick = ++this.#ticks;
    const everyTick = this.#groups.size <= this.#limits.everyTickGroups;
    this.#beats.tick();
    for (const group of everyTick ? this.#groups.values() : this.#active) this.#catchUp(group);
    if (tick % housekeepTicks === 0) this.#lookAtLog();
    if (!everyTick) this.#catchUpDue(tick);
    const places = this.#places;
    for (let at = firstPlace(tick, housekeepTicks); at < places.length; at += housekeepTicks) {
      const group = places[at]!;
      const isTurn = everyTick || (tick + at) % (housekeepTicks * restRounds) === 0;
      if (!isTurn && group.rests) continue;
      group.rests = !group.isActive && group.isAtRest;
      if (isTurn || !group.rests) this.#housekeep(group, nowMs);
    }
    if (tick % housekeepTicks === 0) this.#admin.expire(nowMs);
  }

  /** Of those that rest, the ones that time asks something of before the next look at them. */
  #catchUpDue(tick: number): void {
    const places = this.#places;
    const stride = Math.min(this.#limits.heartbeatTicks, housekeepTicks);
    this.#catchUpSoon(stride);
    for (let at = firstPlace(tick, stride); at < places.length; at += stride) {
      const group = places[at]!;
      const sinceTicks = tick - group.tickedTo;
      // Beats have just seen to it.
      const isSeen = sinceTicks < stride && group.raft.isSureFor(2 * stride);
      if (isSeen || sinceTicks + stride <= group.raft.idleTicks) continue;
      this.#catchUp(group);
      if (isAboutToAct(group, stride)) this.#soon.add(group);
    }
  }

  /** Time-outs end at their ticks, and not when all are looked at: else those of one group would end together, and split the vote. */
  #catchUpSoon(stride: number): void {
    for (const group of this.#soon) {
      this.#catchUp(group);
      if (!isAboutToAct(group, stride)) this.#soon.delete(group);
    }
  }

  #lookAtLog(): void {
    const bytes = this.#store.liveBytes;
    const isLarge = bytes > this.#limits.shardLogBytesMax;
    this.#logShareBytes = isLarge ? bytes / this.#groups.size : Infinity;
  }

  #housekeep(group: Group, nowMs: number): void {
    this.#catchUp(group);
    group.housekeep(nowMs);
    if (group.machine.refill !== undefined) this.#refillOf(group).work(nowMs);
    if (group.raft.logBytes >= this.#logShareBytes) group.relieveLog(this.#logShareBytes);
    if (group.isActive) return;
    // What came by time, without anything having arrived.
    const more = group.tellWatches(nowMs, false);
    if (group.work(nowMs) || more || !group.isQuiet) this.#activate(group);
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
    const level = this.#space?.level;
    if (level === undefined || level === this.#spaceLevel) return;
    this.#spaceLevel = level;
    for (const group of this.#groups.values()) group.space = level;
    this.#activateAll();
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
      for (const group of this.#active) {
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
    for (const { group, ready } of effects) {
      group.perform(ready, appendSeq);
      if (group.awaitsSync || !group.hasUnsynced) continue;
      group.awaitsSync = true;
      this.#unsynced.push(group);
    }
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
    this.#activateAll();
  }

  /** The disk is full: writes are refused until there is space again. */
  get diskFull(): boolean {
    return this.#blocked !== undefined;
  }

  #apply(): boolean {
    let more = false;
    let groups = 0;
    for (const group of this.#active) if (group.hasBacklog) groups++;
    const share = this.#limits.applyBytesPerTurn / Math.max(1, groups);
    let left = this.#limits.applyBytesPerTurn;
    let next = 0;
    for (let at = 0; at < this.#active.length; at++) {
      const group = this.#active[at]!;
      if (left <= 0 && group.hasBacklog) {
        if (next === 0) next = at;
        more = true;
        continue;
      }
      const before = group.appliedBytes;
      if (group.apply(share)) more = true;
      left -= group.appliedBytes - before;
    }
    this.#rotate(next);
    return more;
  }

  #startSync(): void {
    if (this.#store.syncing) return;
    this.#syncSinceMs = this.#nowMs;
    this.#syncingBytes = this.#unsyncedBytes;
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
    this.#reluctantUntilMs = Infinity;
    this.#activateAll();
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
    this.#registry?.failAll(new BargeError("shutting_down", errorTable.shutting_down.help));
    this.#admin.failAll();
  }

  /** Groups led here whose heartbeats to that node go together. */
  beatGroupsTo(nodeId: number): number {
    return this.#beats.groupsTo(nodeId);
  }

  get groups(): ReadonlyMap<number, Group> {
    return this.#groups;
  }

  group(id: number): Group | undefined {
    return this.#groups.get(id);
  }

  /** What its groups share, for metrics. */
  sharedFigures(): Omit<SharedFigures, "memtableBytes"> {
    return {
      activeGroups: this.#active.length,
      tailCacheBytes: this.#tails.used,
      logBytes: this.#store.liveBytes,
      tombstones: this.#store.tombstones.size,
    };
  }

  status(): GroupStatus[] {
    return [...this.#groups.values()].map((group) => group.status());
  }
}

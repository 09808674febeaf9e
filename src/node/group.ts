/**
 * One replica in its shell: seals the inbox into batches, turns the core's effects into work for store, transport and machine, and brings
 * requests and results together. Synchronous throughout; the shard decides when each step runs [44].
 */
import { BargeError, errorCodeOf, errorTable, type ErrorCode } from "../errors.ts";
import { frameOverheadBytes, type Limits } from "../limits.ts";
import type { CommonBytes } from "../machine/common-bytes.ts";
import type { StateMachine } from "../machine/machine.ts";
import { sessionsVersion } from "../machine/sessions.ts";
import type { Transport } from "../net/transport.ts";
import { encodeConfiguration, isJoint, membersOf } from "../raft/configuration.ts";
import { InvariantError } from "../raft/invariants.ts";
import type { ChangePlan, MemberChange } from "../raft/membership.ts";
import type { Raft, Seal } from "../raft/raft.ts";
import type { Configuration, Ready } from "../raft/ready.ts";
import type {
  GroupBrief,
  GroupStatus,
  ReadWaiter,
  WatchHandle,
  WatchRequest,
  Watcher,
  WriteWaiter,
} from "../server/groups.ts";
import type { SpaceLevel } from "../storage/disk-space.ts";
import { CorruptBatchError, type GroupWrite, type LogStore } from "../storage/log-store.ts";
import type {
  ApplicationFigures,
  GroupFigures,
  GroupQueues,
  SessionFigures,
  SnapshotFigures,
  WatchFigures,
} from "../telemetry/group-metrics.ts";
import {
  applyVersionBytes,
  type Batch,
  BatchKind,
  batchHeaderBytes,
  type LogStart,
  sealBatch,
  type Wound,
} from "../wire/batch.ts";
import type { MemberEntry, MembersAnswer } from "../wire/admin.ts";
import {
  Consistency,
  type ForwardMessage,
  type ForwardReplyMessage,
  type RaftMessage,
  type SnapshotChunkMessage,
  type SnapshotOfferMessage,
  type SnapshotReplyMessage,
} from "../wire/messages.ts";
import { readSectionHeader, type SectionHeader, SectionKind } from "../wire/section.ts";
import { applyVersionMax } from "../wire/versions.ts";
import { Applier } from "./applier.ts";
import { GroupApplyVersion, type SeedSource } from "./apply-version.ts";
import { Backups, type BackupWaiter } from "./backups.ts";
import { Compaction, type CompactionPolicy, defaultCompaction } from "./compaction.ts";
import { Forwards } from "./forwards.ts";
import { HandOver, type HandOverWaiter } from "./hand-over.ts";
import { Inbox, type InboxSection } from "./inbox.ts";
import { type ChangeRequest, MemberChanges } from "./member-changes.ts";
import { Pending } from "./pending.ts";
import { ReadQueue } from "./read-queue.ts";
import { Refill, type RefillOptions } from "./refill.ts";
import { sessionsProblem, unservedCode } from "./session-calls.ts";
import { Snapshots } from "./snapshots.ts";
import { TailCache } from "./tail-cache.ts";
import { Watches } from "./watches.ts";

export interface GroupLogger {
  info(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

export interface GroupOptions {
  readonly id: number;
  readonly nodeId: number;
  readonly limits: Limits;
  readonly raft: Raft;
  readonly store: LogStore;
  readonly transport: Transport;
  readonly machine: StateMachine;
  readonly logger: GroupLogger;
  /** For who has to tell one state from another; "kv" if nothing is said. */
  readonly machineKind?: string;
  /** Another leads it, as far as this node knows, or its members are others. */
  readonly leaderChanged?: ((id: number) => void) | undefined;
  /** Random, below 2^48: where this life's requests to other nodes begin to be numbered. */
  readonly firstRequest: number;
  /** Asks for a turn soon: a thread of the machine has done something. */
  readonly wake: () => void;
  readonly compaction?: CompactionPolicy;
  /** The highest apply version that this node takes part in; what the build can, if nothing is said [16]. */
  readonly applyVersionMax?: number;
  /** No further than this by now. */
  readonly applyVersionUpTo?: (() => number) | undefined;
  /** What a member could when this node formed the cluster with it, in this very life; 0 where it did not. */
  readonly founderMax?: (id: number) => number;
  /** Who the first members of `system` are, where this group says it. */
  readonly seed?: SeedSource | undefined;
  /** Where a member is reached; as the configuration says, if nothing is said. */
  readonly addressOf?: ((nodeId: number) => string | undefined) | undefined;
  /** This very node's log goes beyond that: a newer build has used it. Does not return. */
  readonly unsupported?: (applyVersion: number) => never;
}

/** Somebody wants the log cut up to where the machine stood then. */
interface LogCut {
  readonly index: number;
  readonly tailBytes: number;
  readonly deadlineMs: number;
  readonly waiter: CutWaiter;
}

/** Exactly one of the two is called, once. */
interface CutWaiter {
  done(): void;
  failed(error: BargeError): void;
}

/** Beyond that they are refused like any write that there is no room for. */
const earlySectionsMax = 1_024;
/** Requests for that at once. */
const logCutsMax = 64;
/** Rounds of housekeeping without a write after which the log's tail leaves the memory; some seconds at the most. */
const restRoundsMax = 10;

const noWatches: WatchFigures = {
  watches: 0,
  behind: 0,
  waiting: 0,
  changes: 0,
  bytes: 0,
  compacted: 0,
  outcomeBytes: 0,
};

interface BoundedRead {
  readonly waiter: ReadWaiter;
  readonly maxStalenessMs: number;
}

export class Group {
  readonly id: number;
  readonly raft: Raft;
  readonly machine: StateMachine;
  readonly machineKind: string;
  readonly backups: Backups;
  readonly #nodeId: number;
  readonly #limits: Limits;
  readonly #store: LogStore;
  readonly #transport: Transport;
  readonly #logger: GroupLogger;
  readonly #addressOf: (nodeId: number) => string | undefined;

  readonly #tail: TailCache;
  readonly #pending = new Pending();
  readonly #reads = new ReadQueue();
  readonly #applier: Applier;
  readonly #memberChanges: MemberChanges;
  readonly #snapshots: Snapshots;
  readonly #applyVersion: GroupApplyVersion;
  readonly #unsupported: GroupOptions["unsupported"];
  /** Made with the first one; undefined too where the machine holds no keys. */
  #watches: Watches | undefined;

  readonly #inbox = new Inbox();
  /** Sections of sessions that came a moment before the group could have any. */
  readonly #early = new Inbox();
  readonly #forwards: Forwards;
  readonly #handOver: HandOver;
  /** Leadership was handed over, and until then the inbox waits for whoever leads next; Infinity = it was not. */
  #heldUntilMs = Infinity;
  /** Local reads with a bound on their age: answered once the turn has counted the time that passed. */
  #boundedReads: BoundedRead[] = [];
  /** Answers to forwards that may leave only after the append of this turn. */
  #forwardReplies: ForwardReplyMessage[] = [];

  /** (appendSeq, token) of writes that no sync has covered yet, in order [21]. */
  #unsynced: { readonly appendSeq: number; readonly token: number }[] = [];
  #commit = 0;
  #leader = 0;
  #wasLeader = false;
  /** Cluster time at the moment when this node began to lead, and the monotonic time then [5]. */
  #leaderTimeBaseMs = 0;
  #leaderSinceMs = 0;
  /** When it was last to be handed over for the sake of balance. */
  #balancedMs = -Infinity;
  /** Ticks that the core was given; then how many it was not, after a pause, and at which tick that was. */
  #ticks = 0;
  #skippedTicks = 0;
  #skippedAtTick = -1;
  #stopped: string | undefined;
  #draining = false;
  /** Set by the shard while the disk has no space for the log. */
  diskFull = false;
  /** The shard's own notes: the group takes part in its turns; it is told when the next sync ends; its requests wait for that; they found no room. */
  isActive = false;
  /** Kept by the shard: it was at rest when it was looked at, and nothing has come for it since. */
  rests = false;
  awaitsSync = false;
  isHeld = false;
  heldBytes = 0;
  isPassedOver = false;
  /** The tick up to which it has had all of them. */
  tickedTo = 0;
  /** Of the log, in this life. */
  appliedBytes = 0;
  /** Set by the shard: see `touch`. */
  #activate: () => void = () => {};
  readonly #wakeShard: () => void;
  readonly #leaderChanged: ((id: number) => void) | undefined;
  /** Set by the shard: what the disk has left. */
  #space: SpaceLevel = "plenty";
  readonly #compaction: Compaction;
  #logCuts: LogCut[] = [];
  /** Where the log ended when it was last looked at, and how often it was found so. */
  #restIndex = 0;
  #restRounds = 0;
  readonly #applyVersionMax: number;
  readonly #wake: () => void;
  /** Id of the backup that this node asked of another one last. */
  #lastBackup: number;
  /** False on a first boot until all initial members have accepted this node: no vote, no candidacy [36]. */
  mayElect = true;

  constructor(options: GroupOptions) {
    this.id = options.id;
    this.raft = options.raft;
    this.machine = options.machine;
    this.machineKind = options.machineKind ?? "kv";
    this.#wakeShard = options.wake;
    this.#leaderChanged = options.leaderChanged;
    const wake = (): void => this.touch();
    this.backups = new Backups(options.limits, options.machine, wake);
    this.#nodeId = options.nodeId;
    this.#limits = options.limits;
    this.#store = options.store;
    this.#transport = options.transport;
    this.#logger = options.logger;
    this.#addressOf = options.addressOf ?? ((id) => this.raft.configuration.addresses[id]);
    this.#forwards = new Forwards(options.firstRequest);
    this.#tail = new TailCache(options.limits.tailCacheBytes);
    this.#applier = new Applier(options.machine, this.#pending, options.limits);
    this.#memberChanges = new MemberChanges(this.raft, ({ changes, force }, nowMs) =>
      this.proposeChanges(changes, force, nowMs),
    );
    this.#commit = this.raft.commit;
    this.#compaction = new Compaction(
      this.raft,
      options.compaction ?? defaultCompaction,
      options.machine.durableIndex,
    );
    const { id: group, nodeId, limits, raft, machine, transport, logger } = options;
    const max = options.applyVersionMax ?? applyVersionMax;
    const given = { group, nodeId, limits, raft, machine, transport, logger, wake };
    this.#snapshots = new Snapshots({ ...given, applyVersionMax: max });
    this.#applyVersionMax = max;
    this.#wake = wake;
    this.#lastBackup = options.firstRequest;
    this.#unsupported = options.unsupported;
    this.#applyVersion = new GroupApplyVersion({
      nodeId,
      raft,
      machine,
      transport,
      max,
      founderMax: options.founderMax ?? (() => 0),
      seed: options.seed,
      upTo: options.applyVersionUpTo,
      refused: (version, leader) =>
        this.#logger.error(
          { group, leader },
          `the leader raises the apply version to ${version}, which this build cannot apply: start a newer one`,
        ),
    });
    this.#handOver = new HandOver({
      nodeId: options.nodeId,
      limits: options.limits,
      raft: options.raft,
      begun: (target, reason) => {
        const { term } = this.raft;
        this.#logger.info({ group: this.id, term, target, reason }, "handing leadership over");
      },
    });
  }

  /** Belongs to a shard from now on, which takes it into its next turn when told to. */
  attach(activate: () => void, tails: CommonBytes): void {
    this.#activate = activate;
    this.#tail.share(tails);
  }

  /** Something about it has changed, and not by one of the calls of the turn: it takes part in the next one. A group that is not touched costs nothing. */
  touch(): void {
    this.#activate();
    this.#wakeShard();
  }

  /**
   * It needs no turn until it is touched, or a sync that it awaits ends; but for its inbox. What is done by time is done by `tick`, `housekeep` and
   * now and then `work`.
   */
  get isQuiet(): boolean {
    if (this.#stopped !== undefined) return true;
    return (
      this.#early.length === 0 &&
      !this.#reads.hasFresh &&
      this.#boundedReads.length === 0 &&
      this.#memberChanges.idle &&
      this.#snapshots.idle &&
      !this.hasBacklog &&
      this.machine.resting &&
      (this.#watches === undefined || this.#watches.size === 0 || this.#watches.resting) &&
      !this.raft.hasReady()
    );
  }

  /** Of the sections that wait to be sealed. */
  get inboxBytes(): number {
    return this.#inbox.bytes;
  }

  /** What waits in the inbox is sealed once the sync under way has ended, unless more comes [7]. */
  get sealsAfterSync(): boolean {
    const { sealBytes, unsyncedBytesMax } = this.#limits;
    return this.#inbox.bytes < sealBytes || this.raft.unsyncedBytes >= unsyncedBytesMax;
  }

  /** Something is committed and not applied yet, and could be. */
  get hasBacklog(): boolean {
    const { appliedIndex, takesBatches } = this.machine;
    return this.#stopped === undefined && appliedIndex < this.#commit && takesBatches !== false;
  }

  /** The core's effects wait to be performed. */
  get hasReady(): boolean {
    return this.#stopped === undefined && this.raft.hasReady();
  }

  /** A sync is to be told of. */
  get hasUnsynced(): boolean {
    return this.#unsynced.length > 0;
  }

  /** Why this group stopped after a broken invariant; undefined while it runs. */
  get stopped(): string | undefined {
    return this.#stopped;
  }

  get nodeId(): number {
    return this.#nodeId;
  }

  get leader(): number {
    return this.#leader;
  }

  get idle(): boolean {
    return (
      this.#inbox.length === 0 &&
      this.#early.length === 0 &&
      this.#pending.size === 0 &&
      this.#forwards.size === 0 &&
      this.#reads.size === 0 &&
      this.#boundedReads.length === 0 &&
      this.#handOver.idle &&
      this.#memberChanges.idle
    );
  }

  /** Nobody waits for anything of it: to keep house for it now and then is enough. */
  get isAtRest(): boolean {
    const watches = this.#watches?.size ?? 0;
    return this.idle && watches === 0 && this.#logCuts.length === 0 && this.backups.size === 0;
  }

  /* ---------------------------------------------------------------- requests */

  write(section: Uint8Array, header: SectionHeader, deadlineMs: number, waiter: WriteWaiter): void {
    this.#activate();
    const refusal = this.#writeRefusal(section.byteLength, header.count);
    if (refusal !== undefined) return waiter.failed(this.#error(refusal));
    const { kind, count } = header;
    if (this.raft.role === "leader") {
      return this.#take({ section, count, deadlineMs, waiter, origin: 0, request: 0 }, kind);
    }
    if (kind !== SectionKind.plain && !this.#leaderHasSessions) {
      return waiter.failed(this.#error(unservedCode(kind)));
    }
    this.#passOn(section, count, deadlineMs, waiter);
  }

  /** A build that knows nothing of sessions would take their sections for plain ones; none such leads a group that has them. */
  get #leaderHasSessions(): boolean {
    if (this.machine.applyVersion >= sessionsVersion || !this.#hasLeader) return true;
    return this.#transport.applyVersionMax(this.#leader) >= sessionsVersion;
  }

  get #hasLeader(): boolean {
    return this.#leader !== 0 && this.#transport.connected(this.#leader);
  }

  /** On the leader: a section of a session has its place behind the entry that makes it one [16]. */
  #take(item: InboxSection, kind: SectionKind): void {
    if (kind === SectionKind.plain || this.machine.applyVersion >= sessionsVersion) {
      return this.#enqueue(item);
    }
    if (!this.#applyVersion.mayRiseSoon) return this.#refuse(item, unservedCode(kind));
    if (this.#early.length >= earlySectionsMax || this.#isCrowded)
      return this.#refuse(item, "overloaded");
    this.#early.push(item);
  }

  /** Until the apply version is raised, or will not be, or this node does not lead any more. */
  #endEarly(): void {
    const leads = this.raft.role === "leader";
    const hasSessions = this.machine.applyVersion >= sessionsVersion;
    if (leads && !hasSessions && this.#applyVersion.mayRiseSoon) return;
    for (const item of this.#early.takeAll()) {
      if (!leads) this.#refuse(item, "not_leader");
      else if (hasSessions) this.#enqueue(item);
      else this.#refuse(item, unservedCode(readSectionHeader(item.section, 0)!.kind));
    }
  }

  /** To the leader, which gives it a place in the log. */
  #passOn(section: Uint8Array, count: number, deadlineMs: number, waiter: WriteWaiter): void {
    if (!this.#hasLeader) {
      return waiter.failed(this.#error(this.raft.wound === undefined ? "no_leader" : "wounded"));
    }
    if (this.#forwards.size >= this.#limits.forwardsMax || this.#isCrowded) {
      return waiter.failed(this.#error("overloaded"));
    }
    const request = this.#forwards.add({ waiter, to: this.#leader, count, deadlineMs });
    this.#transport.send({
      type: "forward",
      group: this.id,
      from: this.#nodeId,
      to: this.#leader,
      request,
      section,
    });
  }

  read(
    consistency: Consistency,
    maxStalenessMs: number,
    deadlineMs: number,
    waiter: ReadWaiter,
  ): void {
    if (this.#stopped !== undefined) return waiter.failed(this.#error("internal"));
    if (consistency === Consistency.local && maxStalenessMs === 0) {
      return waiter.ready(this.machine, this.machine.appliedIndex);
    }
    this.#activate();
    if (consistency === Consistency.local) {
      if (this.#boundedReads.length >= this.#limits.readWaitersMax)
        return waiter.failed(this.#error("overloaded"));
      this.#boundedReads.push({ waiter, maxStalenessMs });
      return;
    }
    if (this.#draining) return waiter.failed(this.#error("shutting_down"));
    if (consistency === Consistency.lease) {
      return waiter.failed(
        new BargeError("bad_request", "Lease reads are switched off; use linearizable or local."),
      );
    }
    if (this.#reads.size >= this.#limits.readWaitersMax) {
      return waiter.failed(this.#error("overloaded"));
    }
    this.#reads.add(waiter, deadlineMs);
  }

  /** Throws a BargeError where there can be no such watch. */
  watch(request: WatchRequest, watcher: Watcher): WatchHandle {
    if (this.#stopped !== undefined) throw this.#error("internal");
    if (this.#draining) throw this.#error("shutting_down");
    const { history } = this.machine;
    if (history === undefined) {
      throw new BargeError("bad_request", "The state machine of this group has no keys to watch.");
    }
    if (this.#isStale) throw this.#error("no_leader");
    this.#watches ??= new Watches({
      limits: this.#limits,
      history,
      read: (from, to, bytesMax) => this.#batches(from, to, bytesMax),
      logStart: () => this.raft.startIndex,
      appliedIndex: () => this.machine.appliedIndex,
      wake: () => this.touch(),
    });
    return this.#watches.open(request, watcher);
  }

  /** Cut off, or no member any more: whoever watches here would wait in vain and not know it. */
  get #isStale(): boolean {
    // After a start it is given the time to hear of a leader.
    const ticks = Math.min(this.#stalenessTicks(), this.#ticks);
    return (ticks + 1) * this.#limits.tickMs > this.#limits.watchStaleMs;
  }

  /** On the leader. Answered once the new members are committed; where several ask, one after the other. */
  changeMembers(request: ChangeRequest): void {
    const refusal = this.#refusal(0, 0);
    if (refusal !== undefined) return request.waiter.failed(this.#error(refusal));
    this.#memberChanges.ask(request);
    this.touch();
  }

  /** Stops intake; what is in flight goes on. */
  drain(): void {
    this.#draining = true;
    this.#watches?.endAll("shutting_down");
  }

  #refusal(bytes: number, count: number): ErrorCode | undefined {
    if (this.#stopped !== undefined) return "internal";
    if (this.#draining) return "shutting_down";
    if (this.diskFull) return "disk_full";
    if (count > this.#limits.sectionCommandsMax) return "too_large";
    // It must fit an append frame as a batch of its own, or it could never be replicated.
    if (bytes + frameOverheadBytes > this.#limits.frameBytesMax) return "too_large";
    return undefined;
  }

  /** A leader takes no more once it has little space; a follower passes writes on as long as it can follow. */
  #writeRefusal(bytes: number, count: number): ErrorCode | undefined {
    const lacksSpace =
      this.#space === "out" || (this.#space === "low" && this.raft.role === "leader");
    if (this.machine.absence?.isLong) {
      return this.#refusal(bytes, count) ?? "application_unavailable";
    }
    return this.#refusal(bytes, count) ?? (lacksSpace ? "disk_full" : undefined);
  }

  #enqueue(section: InboxSection): void {
    const bytes = section.section.byteLength;
    let refusal: ErrorCode | undefined;
    if (this.#store.logBytes(this.id) > this.#limits.groupLogBytesMax) refusal = "group_log_full";
    else if (this.#inbox.bytes + bytes > this.#limits.inboxBytesMax || this.#isCrowded) {
      refusal = "overloaded";
    }
    if (refusal !== undefined) return this.#refuse(section, refusal);
    this.#inbox.push(section);
  }

  /** Also counts what was passed on, as it will wait for its index here once the leader has given it a place. */
  get #isCrowded(): boolean {
    const waiters =
      this.#inbox.length + this.#early.length + this.#pending.size + this.#forwards.size;
    return waiters >= this.#limits.waitersMax;
  }

  #refuse(section: InboxSection, code: ErrorCode): void {
    if (section.waiter !== undefined) section.waiter.failed(this.#error(code));
    else this.#transport.send(this.#forwardReply(section.origin, section.request, code, 0, 0));
  }

  #error(code: ErrorCode): BargeError {
    if (code === "version_mismatch") return sessionsProblem(this.machine.applyVersion);
    if (code === "application_unavailable") {
      const why = this.machine.absence?.reason ?? errorTable[code].help;
      return new BargeError(
        code,
        `Group ${this.id} of this node waits for its application: ${why}.`,
      );
    }
    if (code === "internal" && this.#stopped !== undefined) {
      return new BargeError(code, `Group ${this.id} stopped: ${this.#stopped}`, {
        outcome: "not-applied",
      });
    }
    const hint = this.#addressOf(this.#leader);
    return new BargeError(
      code,
      errorTable[code].help,
      hint === undefined ? {} : { leaderHint: hint },
    );
  }

  /* ---------------------------------------------------------------- messages */

  step(message: RaftMessage): void {
    if (!this.mayElect && (message.type === "vote" || message.type === "preVote")) return;
    if (message.type === "append" && !this.#applyVersion.accepts(message)) return;
    if (this.#stopped !== undefined) return;
    try {
      this.raft.step(message);
    } catch (error) {
      this.#broken(error);
    }
  }

  set space(level: SpaceLevel) {
    if (level === this.#space) return;
    this.#space = level;
    // What has no place in the log yet gets none: the ballast is for what was taken.
    if (level === "out") this.#refuseInbox("disk_full");
    this.#weighLeading();
    this.raft.takesCommands = level !== "out";
  }

  /** Without space, or without its application, this node should not lead. */
  #weighLeading(): void {
    this.raft.isReluctant = this.#space !== "plenty" || this.machine.absence?.isLong === true;
  }

  forwarded(message: ForwardMessage, header: SectionHeader, nowMs: number): void {
    const item: InboxSection = {
      section: message.section,
      count: header.count,
      deadlineMs: nowMs + this.#limits.requestTimeoutMs,
      waiter: undefined,
      origin: message.from,
      request: message.request,
    };
    const refusal = this.#writeRefusal(message.section.byteLength, header.count);
    if (refusal !== undefined) this.#refuse(item, refusal);
    else if (this.raft.role !== "leader") this.#refuse(item, "not_leader");
    else this.#take(item, header.kind);
  }

  forwardReplied(message: ForwardReplyMessage): void {
    const forward = this.#forwards.take(message.request, message.from);
    if (forward === undefined) return;
    if (message.error !== 0) {
      return forward.waiter.failed(this.#error(errorCodeOf(message.error)));
    }
    if (message.firstIndex <= this.machine.appliedIndex) {
      // Applied here before its place was known: the result is gone, so its outcome cannot be told.
      return forward.waiter.failed(this.#error("outcome_unknown"));
    }
    this.#pending.add(
      message.firstIndex,
      forward.count,
      message.term,
      forward.deadlineMs,
      forward.waiter,
    );
  }

  snapshotStep(message: SnapshotOfferMessage | SnapshotChunkMessage | SnapshotReplyMessage): void {
    if (this.#stopped === undefined) this.#guard(() => this.#snapshots.step(message));
  }

  peerUp(nodeId: number): void {
    if (this.#stopped === undefined) this.#guard(() => this.raft.peerReset(nodeId));
  }

  /** Forwards on their way to that node may or may not have arrived. */
  peerDown(nodeId: number): void {
    for (const waiter of this.#forwards.takeWhere(({ to }) => to === nodeId)) {
      waiter.failed(this.#error("outcome_unknown"));
    }
  }

  #forwardReply(
    to: number,
    request: number,
    code: ErrorCode | undefined,
    firstIndex: number,
    term: number,
  ): ForwardReplyMessage {
    const error = code === undefined ? 0 : errorTable[code].number;
    return {
      type: "forwardReply",
      group: this.id,
      from: this.#nodeId,
      to,
      request,
      error,
      firstIndex,
      term,
    };
  }

  /* ---------------------------------------------------------------- the turn, in the order of its steps */

  /** True where there may be something to do since. */
  tick(count = 1): boolean {
    if (!this.mayElect) return false;
    this.#ticks += count;
    if (this.#stopped !== undefined) return false;
    try {
      return this.raft.tick(count);
    } catch (error) {
      this.#broken(error);
      return true;
    }
  }

  /** The process was paused: so many ticks went by without the core [E6]. They still make a local read older [35]. */
  skipTicks(count: number): void {
    this.#skippedTicks = this.#freshSinceSkip() ? count : this.#skippedTicks + count;
    this.#skippedAtTick = this.#ticks;
  }

  #freshSinceSkip(): boolean {
    return this.#ticks - this.raft.stalenessTicks > this.#skippedAtTick;
  }

  #stalenessTicks(): number {
    return this.raft.stalenessTicks + (this.#freshSinceSkip() ? 0 : this.#skippedTicks);
  }

  /** A sync that covers everything up to `syncedSeq` has ended. */
  synced(syncedSeq: number): void {
    this.#snapshots.synced(syncedSeq);
    let token: number | undefined;
    let covered = 0;
    for (const entry of this.#unsynced) {
      if (entry.appendSeq > syncedSeq) break;
      token = entry.token;
      covered++;
    }
    if (token === undefined) return;
    this.#unsynced.splice(0, covered);
    if (this.#stopped !== undefined) return;
    try {
      this.raft.synced(token);
    } catch (error) {
      this.#broken(error);
    }
  }

  /** Hands what has arrived to the core: new reads as one round, and the inbox as batches [7], of about so many bytes. Returns the bytes that it took. */
  propose(nowMs: number, syncing: boolean, bytesMax: number): number {
    if (this.#stopped !== undefined) return 0;
    const { bytes } = this.#inbox;
    const inboxBytesLeft = bytes - bytesMax;
    try {
      if (!this.#snapshots.idle) this.#snapshots.work(nowMs);
      if (!this.#memberChanges.idle) this.#memberChanges.step(nowMs);
      const context = this.#reads.begin();
      if (context !== 0) this.raft.readIndex(context);
      if (this.#early.length > 0) this.#endEarly();
      while (
        this.#inbox.length > 0 &&
        this.#inbox.bytes > inboxBytesLeft &&
        (!syncing || this.#inbox.bytes >= this.#limits.sealBytes) &&
        this.raft.unsyncedBytes < this.#limits.unsyncedBytesMax &&
        this.raft.unappliedBytes < this.#limits.unappliedBytesMax &&
        this.#seal(nowMs)
      );
    } catch (error) {
      this.#broken(error);
    }
    return bytes - this.#inbox.bytes;
  }

  /** Seals one batch from the head of the inbox. The one copy of a body on the leader [40]. */
  #seal(nowMs: number): boolean {
    const place = this.raft.nextSeal();
    if (place === undefined) return false;
    const sections = this.#inbox.take(this.#limits.batchBytesMax);
    let bodyBytes = 0;
    for (const { section } of sections) bodyBytes += section.byteLength;
    const bytes = new Uint8Array(batchHeaderBytes + bodyBytes);
    let at = batchHeaderBytes;
    let index = place.firstIndex;
    for (const { section, count, deadlineMs, waiter, origin, request } of sections) {
      bytes.set(section, at);
      at += section.byteLength;
      if (waiter === undefined) {
        this.#forwardReplies.push(
          this.#forwardReply(origin, request, undefined, index, place.term),
        );
      } else {
        this.#pending.add(index, count, place.term, deadlineMs, waiter);
      }
      index += count;
    }
    this.raft.propose(
      sealBatch(
        {
          group: this.id,
          kind: BatchKind.commands,
          firstIndex: place.firstIndex,
          count: index - place.firstIndex,
          term: place.term,
          timeMs: this.#clusterTimeMs(place, nowMs),
          prevCrc: place.prevCrc,
        },
        bytes,
      ),
    );
    return true;
  }

  #clusterTimeMs(place: Seal, nowMs: number): number {
    const elapsedMs = Math.max(0, Math.floor(nowMs - this.#leaderSinceMs));
    const timeMs = Math.max(place.prevTimeMs, this.#leaderTimeBaseMs + elapsedMs);
    // Where an earlier leader has led it to the end of numbers it stands still, and writes go on.
    return Math.min(timeMs, Number.MAX_SAFE_INTEGER);
  }

  /** What the changes come to; a new configuration is proposed at once, and in force. */
  proposeChanges(changes: readonly MemberChange[], force: boolean, nowMs: number): ChangePlan {
    const isConnected = (id: number): boolean => this.#transport.connected(id);
    const plan = this.raft.planChange(changes, force, isConnected);
    if ("next" in plan) this.#proposeConfiguration(plan.next, nowMs);
    return plan;
  }

  /** Another term is needed: another voter leads in it where there is one that can. */
  giveUpTerm(reason: string): void {
    if (this.#stopped !== undefined || this.raft.role !== "leader") return;
    if (this.#handOver.begin(0, reason).refusal === undefined) return;
    this.#guard(() => this.raft.stepDown(reason));
  }

  /** A configuration is a batch of its own [3]. */
  #proposeConfiguration(configuration: Configuration, nowMs: number): void {
    const place = this.raft.nextSeal();
    if (place === undefined) return;
    const body = encodeConfiguration(configuration);
    const bytes = new Uint8Array(batchHeaderBytes + body.byteLength);
    bytes.set(body, batchHeaderBytes);
    this.#proposeAlone(BatchKind.configuration, bytes, place, nowMs);
  }

  #raiseApplyVersion(nowMs: number): void {
    const due = this.#applyVersion.due();
    const place = due === undefined ? undefined : this.raft.nextSeal();
    if (due === undefined || place === undefined) return;
    this.#applyVersion.raisedAt(place.firstIndex);
    const { version, seed } = due;
    this.#proposeAlone(BatchKind.applyVersion, applyVersionBytes(version, seed), place, nowMs);
    const fields = { group: this.id, term: place.term, index: place.firstIndex };
    this.#logger.info(fields, `all members can: raising the apply version to ${version}`);
  }

  /** A batch that is one index; `bytes` has room for the header before the body. */
  #proposeAlone(kind: BatchKind, bytes: Uint8Array, place: Seal, nowMs: number): void {
    const header = {
      group: this.id,
      kind,
      firstIndex: place.firstIndex,
      count: 1,
      term: place.term,
      timeMs: this.#clusterTimeMs(place, nowMs),
      prevCrc: place.prevCrc,
    };
    this.raft.propose(sealBatch(header, bytes));
  }

  /** The core's effects, if there are any. What has to be written goes into `writes`. */
  collect(nowMs: number, writes: GroupWrite[]): Ready | undefined {
    if (this.#stopped !== undefined || !this.raft.hasReady()) return undefined;
    let ready: Ready;
    try {
      ready = this.raft.ready();
    } catch (error) {
      this.#broken(error);
      return undefined;
    }
    if (ready.softState !== undefined) this.#roleChanged(ready, nowMs);
    if (ready.healed) this.#healed();
    const { configurationDue } = ready;
    if (configurationDue !== undefined)
      this.#guard(() => this.#proposeConfiguration(configurationDue, nowMs));
    if (ready.token !== undefined) {
      const { hardState, append } = ready;
      const restore = ready.restore && this.#snapshots.write(ready.restore);
      writes.push({ group: this.id, hardState, restore, append });
      if (restore !== undefined) this.#tail.clear();
      this.#tail.append(append);
    }
    return ready;
  }

  /** The turn's transaction has been committed as `appendSeq`: now messages may leave [20]. */
  perform(ready: Ready, appendSeq: number): void {
    if (ready.token !== undefined) this.#unsynced.push({ appendSeq, token: ready.token });
    if (ready.restore !== undefined) {
      this.#snapshots.written(ready.restore, appendSeq);
      this.#applier.restored(ready.restore.start.index);
    }
    for (const request of ready.snapshots) this.#snapshots.sender.request(request);
    for (const reply of this.#forwardReplies) this.#transport.send(reply);
    this.#forwardReplies.length = 0;
    for (const { context, index, ok } of ready.reads) this.#reads.resolve(context, index, ok);
    this.#commit = Math.max(this.#commit, ready.commit);
    try {
      for (const message of ready.messages) this.#send(message);
    } catch (error) {
      this.#damaged(error);
    }
  }

  #healed(): void {
    this.#store.heal(this.id);
    const fields = { group: this.id, term: this.raft.term, lastIndex: this.raft.lastIndex };
    this.#logger.info(fields, "this node is whole again: it votes");
  }

  /** False where a batch was met that is not what was written: from there on the log counts as lost, and what follows must not be done. */
  #healable(action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      this.#damaged(error);
      return false;
    }
  }

  #damaged(error: unknown): void {
    if (!(error instanceof CorruptBatchError)) throw error;
    this.wounded(error);
  }

  /** The log ends before that batch from now on, and is fetched from the leader again [22]. Thrown on where there is nobody to fetch it from. */
  wounded(error: CorruptBatchError): void {
    const { voters, outgoing } = this.raft.configuration;
    if (![...voters, ...outgoing].some((id) => id !== this.#nodeId)) throw error;
    // What waits for space is to follow the log as it is: the damage will be met again.
    if (this.diskFull) return;
    const { firstIndex } = error;
    const wound = this.#store.wound(this.id, firstIndex);
    this.#tail.truncate(firstIndex);
    this.#guard(() => this.raft.wounded(firstIndex, wound));
    this.#commit = this.raft.commit;
    const lost = this.#woundText(wound);
    this.#logger.error({ group: this.id, term: this.raft.term }, `${error.message}; ${lost}`);
  }

  #woundText({ term, index }: Wound): string {
    return `this node is wounded: it does not vote until a leader has brought its log, which ends at ${this.raft.lastIndex}, to index ${index} of term ${term} again`;
  }

  #send(message: RaftMessage): void {
    if (message.type !== "append" || message.fromIndex > message.toIndex) {
      this.#transport.send(message);
      return;
    }
    const batches = this.#batches(message.fromIndex, message.toIndex, this.#limits.frameBytesMax);
    // Compacted meanwhile: the core finds out by the log's start and never asks again.
    if (batches.length > 0) this.#transport.send(message, batches);
  }

  /** Of the log, from the memory of its tail or from the store; none where the log does not have the first. */
  #batches(fromIndex: number, toIndex: number, bytesMax: number): readonly Batch[] {
    return (
      this.#tail.take(fromIndex, toIndex, bytesMax) ??
      this.#store.batches(this.id, fromIndex, toIndex, bytesMax)
    );
  }

  /** Applies what is committed, about so many bytes of it; true when more could be applied at once. */
  apply(bytesMax: number): boolean {
    if (this.#stopped !== undefined) return false;
    let backlog: boolean;
    this.machine.allowDurable(Math.min(this.raft.durableIndex, this.#commit));
    try {
      backlog = this.#applyCommitted(bytesMax);
    } catch (error) {
      this.#damaged(error);
      return false;
    }
    if (this.#stopped !== undefined) return false;
    // The machine may be ahead of a log that was damaged.
    this.raft.applied(Math.min(this.machine.appliedIndex, this.#commit));
    return backlog;
  }

  #applyCommitted(bytesMax: number): boolean {
    let budget = bytesMax;
    let backlog = false;
    while (this.machine.appliedIndex < this.#commit && this.machine.takesBatches !== false) {
      if (budget <= 0) {
        backlog = true;
        break;
      }
      const from = this.machine.appliedIndex + 1;
      const batches = this.#batches(from, this.#commit, budget);
      if (batches.length === 0) {
        this.#stop(`committed batches from index ${from} on are missing`);
        return false;
      }
      const tooHigh = this.#applyVersion.tooHighIn(batches);
      if (tooHigh !== undefined) this.#unsupported?.(tooHigh);
      let taken = 0;
      try {
        taken = this.#applier.apply(batches);
      } catch (error) {
        this.#broken(error);
      }
      for (let at = 0; at < taken; at++) {
        const { byteLength } = batches[at]!.bytes;
        budget -= byteLength;
        this.appliedBytes += byteLength;
      }
      if (taken < batches.length) break;
    }
    return backlog;
  }

  /** Tells watches what was applied; true when there is more of it at once. */
  tellWatches(nowMs: number, busy: boolean): boolean {
    const watches = this.#watches;
    if (watches === undefined || watches.size === 0 || this.#stopped !== undefined) return false;
    let more = false;
    const whole = this.#healable(() => (more = watches.serve(nowMs, busy)));
    if (this.#isStale) watches.endAll("no_leader");
    return whole && more;
  }

  /** Answers reads whose index is applied, and local ones that are not too old. */
  answerReads(): void {
    if (this.#boundedReads.length > 0) this.#answerBoundedReads();
    if (this.#reads.size === 0) return;
    const { appliedIndex } = this.machine;
    for (const waiter of this.#reads.takeReady(appliedIndex)) {
      waiter.ready(this.machine, appliedIndex);
    }
  }

  #answerBoundedReads(): void {
    const reads = this.#boundedReads;
    this.#boundedReads = [];
    // The tick that has begun counts as a whole: rather refuse than answer older.
    const staleMs = (this.#stalenessTicks() + 1) * this.#limits.tickMs;
    for (const { waiter, maxStalenessMs } of reads) {
      if (this.#stopped !== undefined) waiter.failed(this.#error("internal"));
      else if (staleMs > maxStalenessMs) waiter.failed(tooStale(staleMs, maxStalenessMs));
      else waiter.ready(this.machine, this.machine.appliedIndex);
    }
  }

  /** A slice of the machine's background work; true when there is more at once. */
  work(nowMs: number): boolean {
    if (this.#stopped !== undefined) return false;
    const more = this.machine.work(nowMs);
    // Its application is there again: a group at rest is looked at seldom.
    if (this.raft.isReluctant) this.#weighLeading();
    this.#cutByPolicy();
    return more;
  }

  /** Time-outs and log retirement; some times a second. */
  housekeep(nowMs: number): void {
    if (this.#pending.size > 0) this.#pending.expire(nowMs);
    if (this.#reads.size > 0) this.#reads.expire(nowMs);
    if (this.#forwards.size > 0) this.#expireForwards(nowMs);
    if (this.#inbox.length > 0 || this.#early.length > 0) this.#expireInbox(nowMs);
    this.#restTail();
    this.#handOver.tick(nowMs);
    if (this.#space !== "plenty") this.#handOver.unfit("its disk has little space", nowMs);
    const { absence } = this.machine;
    if (absence?.isLong) this.#handOver.unfit("its application does not answer", nowMs);
    this.#weighLeading();
    if (nowMs >= this.#heldUntilMs) this.#endHold();
    if (this.#stopped === undefined) {
      this.#guard(() => {
        const { storedIndex } = this.machine;
        if (storedIndex !== undefined) this.raft.machineHolds(storedIndex);
        this.#retireLog();
        if (this.#logCuts.length > 0) this.#cutByHand(nowMs);
        this.#raiseApplyVersion(nowMs);
      });
    }
    if (this.backups.size > 0) this.backups.work(nowMs);
    const isHeld = this.#snapshots.sends || this.backups.size > 0;
    if (isHeld) this.#guard(() => this.#boundSnapshots());
  }

  /** What nobody asks for any more is not kept in memory. */
  #restTail(): void {
    if (this.#tail.bytes === 0) return;
    this.#tail.yield();
    const { lastIndex } = this.raft;
    if (lastIndex !== this.#restIndex) {
      this.#restIndex = lastIndex;
      this.#restRounds = 0;
    } else if (++this.#restRounds >= restRoundsMax) {
      const isApplied = this.machine.appliedIndex >= lastIndex;
      if (isApplied && this.raft.minMatch() >= lastIndex) this.#tail.clear();
      this.#restRounds = 0;
    }
  }

  #expireForwards(nowMs: number): void {
    for (const waiter of this.#forwards.takeWhere(({ deadlineMs }) => deadlineMs <= nowMs)) {
      waiter.failed(this.#error("timeout"));
    }
  }

  #expireInbox(nowMs: number): void {
    for (const item of [...this.#inbox.takeLate(nowMs), ...this.#early.takeLate(nowMs)]) {
      // Never sealed, so surely not applied.
      if (item.waiter === undefined) this.#refuse(item, "overloaded");
      else {
        item.waiter.failed(
          new BargeError("timeout", "The write waited too long to enter the log.", {
            outcome: "not-applied",
          }),
        );
      }
    }
  }

  /** What the machine has made durable and every member has is not kept, where the log is bounded by bytes at all. */
  #retireLog(): void {
    if (this.#compaction.policy.bytes === 0) return;
    if (this.#store.logBytes(this.id) * 2 <= this.#limits.segmentBytes) return;
    const target = this.raft.compactionPoint(
      Math.min(this.machine.durableIndex, this.raft.minMatch()),
    );
    if (target !== undefined) this.#cutLog(target);
  }

  /** All groups together have more log than the node keeps, and this one has as much as the average or more: it has so much from now on, if it can. */
  relieveLog(bytes: number): void {
    if (this.#stopped !== undefined) return;
    const { durableIndex, appliedIndex } = this.machine;
    if (durableIndex < appliedIndex) this.machine.flush();
    this.#guard(() => {
      const bound = Math.min(durableIndex, this.#pinnedIndex(4 * bytes));
      const target = this.raft.compactionPoint(
        bound,
        Math.min(bytes / 2, this.compaction.tailBytes),
      );
      if (target !== undefined) this.#cutLog(target);
    });
  }

  #cutByPolicy(): void {
    const { durableIndex } = this.machine;
    this.#compaction.step(durableIndex);
    this.machine.flushAt(this.#compaction.flushAt(durableIndex));
    if (!this.#compaction.isDue(durableIndex)) return;
    this.#guard(() => {
      const target = this.#compaction.cut(durableIndex, this.#pinnedIndex());
      if (target !== undefined) this.#cutLog(target);
    });
  }

  /** When the log is cut; can be changed at any time. */
  get compaction(): CompactionPolicy {
    return this.#compaction.policy;
  }

  changeCompaction(policy: CompactionPolicy): void {
    this.#compaction.change(policy, this.machine.durableIndex);
  }

  /**
   * Up to here the log may go though a member lags. One that is alive, or receives a snapshot, is waited for, but not with more log
   * than there is room for.
   */
  #pinnedIndex(retainedBytesMax = retainedBytes(this.#limits, this.#snapshots.outrun)): number {
    if (this.raft.logBytes > retainedBytesMax) return Infinity;
    let index = this.#snapshots.pinnedIndex;
    for (const { active, state, match } of this.raft.progress()) {
      if (active && state !== "snapshot") index = Math.min(index, match);
    }
    return index;
  }

  /** No checkpoint runs while a snapshot is sent: before the machine's write-ahead log takes the disk, the streams begin anew [29]. */
  #boundSnapshots(): void {
    const { fileWalBytes = 0 } = this.machine.figures();
    if (fileWalBytes <= this.#limits.snapshotWalBytesMax) return;
    this.#snapshots.sender.giveUp("it keeps the state machine from its checkpoints");
    this.backups.giveUp();
  }

  /** Cuts the log up to what is applied now, but for its end, as soon as the machine has made that durable. */
  cutLog(tailBytes: number | undefined, deadlineMs: number, waiter: CutWaiter): void {
    if (this.#stopped !== undefined) return waiter.failed(this.#error("internal"));
    if (this.#logCuts.length >= logCutsMax) return waiter.failed(this.#error("overloaded"));
    const index = this.machine.appliedIndex;
    this.machine.flush();
    const kept = tailBytes ?? this.compaction.tailBytes;
    this.#logCuts.push({ index, tailBytes: kept, deadlineMs, waiter });
    this.touch();
  }

  /** A backup that holds what was acknowledged before it was asked for; with `local` what this node has applied. */
  openBackup(id: number, local: boolean, deadlineMs: number, waiter: BackupWaiter): void {
    if (this.#stopped !== undefined) return waiter.failed(this.#error("internal"));
    this.touch();
    const consistency = local ? Consistency.local : Consistency.linearizable;
    this.read(consistency, 0, deadlineMs, {
      ready: (_, index) => this.backups.open(id, index, deadlineMs, waiter),
      failed: (error) => waiter.failed(error),
    });
  }

  /** Fetches the machine's state from other members, should it ever be needed. */
  refill(ask: RefillOptions["ask"]): Refill {
    const isThere = (id: number): boolean => id !== this.#nodeId && this.#transport.connected(id);
    return new Refill({
      group: this.id,
      machine: this.machine,
      limits: this.#limits,
      applyVersionMax: this.#applyVersionMax,
      members: () => membersOf(this.raft.configuration).filter(isThere),
      ask,
      newId: () => ++this.#lastBackup,
      wake: this.#wake,
      info: (fields, message) => this.#logger.info(fields, message),
    });
  }

  #cutByHand(nowMs: number): void {
    const { durableIndex } = this.machine;
    this.#logCuts = this.#logCuts.filter(({ index, tailBytes, deadlineMs, waiter }) => {
      if (durableIndex < index) {
        this.machine.flush();
        if (nowMs < deadlineMs) return true;
        waiter.failed(new BargeError("timeout", "The state machine is still being written."));
        return false;
      }
      const bound = Math.min(durableIndex, this.#pinnedIndex());
      const target = this.raft.compactionPoint(bound, tailBytes);
      if (target !== undefined) this.#cutLog(target);
      waiter.done();
      return false;
    });
  }

  #cutLog(target: LogStart): void {
    const configuration = encodeConfiguration(this.raft.configurationAt(target.index));
    this.#store.compactTo(this.id, target, configuration);
    this.raft.compact(target);
  }

  #roleChanged(ready: Ready, nowMs: number): void {
    const { role, leader } = ready.softState!;
    this.#leader = leader;
    this.#leaderChanged?.(this.id);
    const leads = role === "leader";
    if (leads && !this.#wasLeader) {
      this.#leaderSinceMs = nowMs;
      this.#leaderTimeBaseMs = this.raft.lastTimeMs;
      this.#applyVersion.led();
    }
    // Leadership is gone: what was not sealed is surely not applied; what was sealed waits for its index [13].
    if (!leads && this.#wasLeader) {
      const { electionTicksMin, tickMs } = this.#limits;
      if (this.raft.handedOver) this.#heldUntilMs = nowMs + electionTicksMin * tickMs;
      else this.#refuseInbox("not_leader");
      this.#memberChanges.refuseWaiting(this.#error("not_leader"));
    }
    if (leads !== this.#wasLeader) this.#snapshots.roleChanged(leads);
    this.#handOver.led(leader);
    if (leader !== 0 && this.#heldUntilMs !== Infinity) this.#endHold();
    this.#wasLeader = leads;
    this.#logger.info({ group: this.id, term: this.raft.term, role, leader }, "role changed");
  }

  /* ---------------------------------------------------------------- handing over */

  /**
   * Leadership goes to `target` (0 = who fits best), asked by hand; the waiter hears once it has, or why not. With `from` (0 = whoever
   * leads), nothing changes where another leads than that node.
   */
  transferLeader(target: number, from: number, deadlineMs: number, waiter: HandOverWaiter): void {
    if (this.#stopped !== undefined) return waiter.failed(this.#error("internal"));
    this.#handOver.ask(target, from, deadlineMs, waiter);
    this.touch();
  }

  ledForMs(nowMs: number): number {
    return nowMs - Math.max(this.#leaderSinceMs, this.#balancedMs);
  }

  /** So that the nodes lead about equally many groups; false where that member cannot take over now. */
  balanceTo(target: number, nowMs: number): boolean {
    if (this.#stopped !== undefined || this.#draining) return false;
    this.#balancedMs = nowMs;
    return this.#handOver.begin(target, "it leads fewer groups").refusal === undefined;
  }

  /** The node is about to stop: false where it does not lead, or nobody can take over. */
  leave(): boolean {
    if (this.#stopped !== undefined || this.raft.role !== "leader") return false;
    return this.#handOver.begin(0, "this node stops").refusal === undefined;
  }

  slowSync(forMs: number, nowMs: number): boolean {
    if (this.#stopped !== undefined) return false;
    return this.#handOver.slowSync(forMs, this.#store.roundIndex(this.id), nowMs);
  }

  loopStalled(forMs: number, nowMs: number, mayFlee: boolean): boolean {
    return this.#stopped === undefined && this.#handOver.loopStalled(forMs, nowMs, mayFlee);
  }

  /**
   * What came while leadership was being handed over, and never got a place in the log, goes on to the new leader. Followers that passed
   * theirs on here send it again themselves, knowing him by now.
   */
  #endHold(): void {
    this.#heldUntilMs = Infinity;
    if (this.raft.role === "leader") return;
    if (this.#leader === 0) return this.#refuseInbox("not_leader");
    for (const item of this.#inbox.takeAll()) {
      const { section, count, deadlineMs, waiter } = item;
      if (waiter === undefined) this.#refuse(item, "not_leader");
      else this.#passOn(section, count, deadlineMs, waiter);
    }
  }

  #refuseInbox(code: ErrorCode): void {
    for (const item of this.#inbox.takeAll()) this.#refuse(item, code);
    for (const item of this.#early.takeAll()) this.#refuse(item, code);
  }

  /* ---------------------------------------------------------------- the end */

  /** The node stops: everybody who waits is told what is known. */
  failAll(code: ErrorCode): void {
    this.#refuseInbox(code);
    this.#memberChanges.failAll(this.#error(code));
    for (const { waiter } of this.#logCuts.splice(0)) waiter.failed(this.#error(code));
    this.backups.failAll(this.#error(code));
    const unknown = new BargeError(code, errorTable[code].help, { outcome: "unknown" });
    this.#pending.failAll(unknown);
    for (const waiter of this.#forwards.takeWhere(() => true)) waiter.failed(unknown);
    this.#reads.failAll(this.#error(code));
    this.#watches?.endAll(code);
    this.#handOver.failAll(this.#error(code));
    const reads = this.#boundedReads;
    this.#boundedReads = [];
    for (const { waiter } of reads) waiter.failed(this.#error(code));
  }

  /** It leaves this node: whoever waits is told, and nothing more is done in its name. */
  close(code: ErrorCode): void {
    this.#activate = () => {};
    this.#tail.clear();
    this.#stopped ??= "it was removed from this node";
    this.#snapshots.stop();
    this.failAll(code);
  }

  /** A broken invariant stops this group alone: it takes part in nothing any more, and says why. */
  #stop(reason: string): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = reason;
    this.#logger.error({ group: this.id, term: this.raft.term }, `group stopped: ${reason}`);
    this.#snapshots.stop();
    this.failAll("internal");
  }

  #guard<T>(action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      this.#broken(error);
      return undefined;
    }
  }

  #broken(error: unknown): void {
    if (!(error instanceof InvariantError)) throw error;
    this.#stop(error.message);
  }

  snapshotFigures(): SnapshotFigures {
    return this.#snapshots.figures();
  }

  watchFigures(): WatchFigures {
    return this.#watches?.figures() ?? noWatches;
  }

  sessionFigures(): SessionFigures {
    const figures = this.machine.figures();
    const { sessions = 0, requestIds = 0, sessionBytes = 0 } = figures;
    const { sectionsRepeated = 0, sectionsRefused = 0 } = figures;
    const counts = { repeated: sectionsRepeated, refused: sectionsRefused };
    return { open: sessions, requestIds, bytes: sessionBytes, ...counts };
  }

  applicationFigures(): ApplicationFigures {
    const { machine } = this;
    const figures = machine.figures();
    const { appCalls = 0, appEntries = 0, appFailures = 0, appReads = 0 } = figures;
    const { appReadWaiters = 0, appSnapshots = 0, appRestores = 0, appUnderWay = 0 } = figures;
    return {
      absent: machine.absence === undefined ? 0 : 1,
      updates: appCalls,
      entries: appEntries,
      failures: appFailures,
      underWay: appUnderWay,
      reads: appReads,
      readWaiters: appReadWaiters,
      snapshots: appSnapshots,
      restores: appRestores,
    };
  }

  /** What can grow, for metrics. */
  queues(): GroupQueues {
    const { memtableBytes = 0, fileWalBytes = 0 } = this.machine.figures();
    return {
      inboxBytes: this.#inbox.bytes,
      waiters: this.#inbox.length + this.#early.length + this.#pending.size,
      readWaiters: this.#reads.size,
      forwards: this.#forwards.size,
      unsyncedBytes: this.raft.unsyncedBytes,
      unappliedBytes: this.raft.unappliedBytes,
      tailCacheBytes: this.#tail.bytes,
      memtableBytes,
      kvWalBytes: fileWalBytes,
      backups: this.backups.size,
    };
  }

  /** As the leader of group 0: there is a registry, or one may begin with members that the log has had so far. */
  get mayHaveRegistry(): boolean {
    return this.#applyVersion.mayHaveSeed;
  }

  /** The members in force as this leader sees them. */
  memberList(): MembersAnswer {
    const { raft } = this;
    const { configuration } = raft;
    const { voters, learners, promotions, incarnations, removed } = configuration;
    const match = new Map(raft.progress().map((peer) => [peer.id, peer.match]));
    const streams = new Map(this.#snapshots.streams().map((stream) => [stream.to, stream]));
    const members = membersOf(configuration).map((id): MemberEntry => {
      const stream = streams.get(id);
      const isLearner = learners.includes(id);
      const isOwn = id === this.#nodeId;
      const matchIndex = isOwn && raft.role === "leader" ? raft.durableIndex : match.get(id);
      const replaces = promotions?.[id] ?? 0;
      const waitsFor = raft.role === "leader" ? raft.keptPlaces.get(replaces) : undefined;
      return {
        id,
        address: this.#addressOf(id) ?? "",
        role: isLearner ? "learner" : voters.includes(id) ? "voter" : "leaving",
        ...(promotions?.[id] === undefined ? {} : { promotion: true }),
        ...(replaces === 0 ? {} : { replaces }),
        ...(waitsFor === undefined ? {} : { promotionWaitsFor: waitsFor }),
        leader: id === this.#leader,
        connected: isOwn || this.#transport.connected(id),
        ...(this.#transport.dialsIn(id) ? { dialsIn: true as const } : {}),
        ...(matchIndex === undefined ? {} : { matchIndex }),
        ...(stream === undefined
          ? {}
          : { snapshot: { sentBytes: stream.sentBytes, bytes: stream.bytes } }),
        bound: incarnations?.[id] !== undefined,
      };
    });
    return {
      group: this.id,
      term: raft.term,
      leader: this.#leader,
      commitIndex: this.#commit,
      configurationIndex: raft.configurationIndex,
      joint: isJoint(configuration),
      members,
      removed: removed ?? [],
    };
  }

  /** Of its state machine: the file, its write-ahead log, and what is in memory. */
  get stateBytes(): number {
    const { memtableBytes = 0, fileWalBytes = 0, fileBytes = 0 } = this.machine.figures();
    return memtableBytes + fileWalBytes + fileBytes;
  }

  get memberIds(): readonly number[] {
    return membersOf(this.raft.configuration);
  }

  /** Committed as far as this node knows, and not applied. */
  get toApply(): number {
    return Math.max(0, this.#commit - this.machine.appliedIndex);
  }

  get isStopped(): boolean {
    return this.#stopped !== undefined;
  }

  get #role(): GroupFigures["role"] {
    return this.#stopped === undefined ? this.raft.role : "stopped";
  }

  /** Who leads it, and how far it is: for metrics and status. */
  #progress() {
    const { raft, machine } = this;
    return {
      id: this.id,
      role: this.#role,
      leader: this.#leader,
      term: raft.term,
      commitIndex: this.#commit,
      appliedIndex: machine.appliedIndex,
      durableIndex: raft.durableIndex,
      machineDurableIndex: machine.durableIndex,
      firstIndex: raft.firstIndex,
      lastIndex: raft.lastIndex,
      logBytes: this.#store.logBytes(this.id),
      stateBytes: this.stateBytes,
    };
  }

  /** For metrics. */
  figures(): GroupFigures {
    const { raft, machine } = this;
    const { voters, outgoing, learners } = raft.configuration;
    return {
      ...this.#progress(),
      voters: voters.length + outgoing.filter((id) => !voters.includes(id)).length,
      learners: learners.length,
      configurationIndex: raft.configurationIndex,
      joint: isJoint(raft.configuration),
      applyVersion: machine.applyVersion,
      woundedTo: raft.wound?.index ?? 0,
      queues: this.queues(),
      sessions: this.sessionFigures(),
      snapshots: this.snapshotFigures(),
      watches: this.watchFigures(),
      application: this.applicationFigures(),
    };
  }

  /** A line of it, without much ado. */
  brief(): GroupBrief {
    const { raft, machine } = this;
    return {
      id: this.id,
      role: this.#role,
      leader: this.#leader,
      term: raft.term,
      commitIndex: this.#commit,
      appliedIndex: machine.appliedIndex,
      logBytes: this.#store.logBytes(this.id),
      stateBytes: this.stateBytes,
      members: this.memberIds,
      ...(raft.wound === undefined ? {} : { wounded: true }),
      ...(machine.absence === undefined ? {} : { waits: true }),
    };
  }

  status(): GroupStatus {
    const { raft, machine } = this;
    const { waitsFor } = this.#applyVersion;
    const { open: sessions, requestIds, bytes } = this.sessionFigures();
    const { configuration } = raft;
    const handOver = this.#handOver.status();
    const voters = new Set([...configuration.voters, ...configuration.outgoing]);
    const match = new Map(raft.progress().map((peer) => [peer.id, peer.match]));
    const members = [...voters, ...configuration.learners].map((id) => {
      const matchIndex = match.get(id);
      return {
        id,
        address: this.#addressOf(id) ?? "",
        voter: voters.has(id),
        connected: id === this.#nodeId || this.#transport.connected(id),
        ...(this.#transport.dialsIn(id) ? { dialsIn: true as const } : {}),
        ...(matchIndex === undefined ? {} : { matchIndex }),
      };
    });
    return {
      ...this.#progress(),
      stateHash: machine.stateHash.toString(16).padStart(8, "0"),
      applyVersion: machine.applyVersion,
      ...(waitsFor.length === 0 ? {} : { applyVersionWaitsFor: waitsFor }),
      sessions: { open: sessions, requestIds, bytes },
      members,
      configurationIndex: raft.configurationIndex,
      joint: isJoint(configuration),
      ...(handOver === undefined ? {} : { handOver }),
      ...this.#snapshots.statusPart(),
      ...applicationPart(machine),
      ...(raft.wound === undefined
        ? {}
        : { wounded: { term: raft.wound.term, index: raft.wound.index } }),
    };
  }
}

function applicationPart({ absence }: StateMachine): Pick<GroupStatus, "application"> {
  if (absence === undefined) return {};
  const { reason: waitsFor, forMs } = absence;
  const isFirst = forMs === Infinity;
  return {
    application: { waitsFor, ...(isFirst ? {} : { forSeconds: Math.round(forMs / 1_000) }) },
  };
}

function tooStale(staleMs: number, maxStalenessMs: number): BargeError {
  const age = staleMs === Infinity ? "not known to be current at all" : `up to ${staleMs} ms old`;
  return new BargeError(
    "no_leader",
    `What this node has is ${age}, and at most ${maxStalenessMs} ms were asked for. Ask another node, or read linearizably.`,
  );
}

/** How much of the log is kept for others, after so many snapshots that the log has outrun. */
export function retainedBytes(limits: Limits, outrun: number): number {
  const { retainedLogBytesMax, groupLogBytesMax } = limits;
  const most = Math.max(retainedLogBytesMax, groupLogBytesMax / 2);
  return Math.min(retainedLogBytesMax * 2 ** outrun, most);
}

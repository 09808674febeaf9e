/**
 * One replica in its shell: seals the inbox into batches, turns the core's effects into work for store, transport and machine, and brings
 * requests and results together. Synchronous throughout; the shard decides when each step runs [44].
 */
import { BargeError, errorCodeOf, errorTable, type ErrorCode } from "../errors.ts";
import { frameOverheadBytes, type Limits } from "../limits.ts";
import type { StateMachine } from "../machine/machine.ts";
import type { Transport } from "../net/transport.ts";
import { encodeConfiguration } from "../raft/configuration.ts";
import { InvariantError } from "../raft/invariants.ts";
import type { Raft } from "../raft/raft.ts";
import type { Ready } from "../raft/ready.ts";
import type { GroupStatus, ReadWaiter, WriteWaiter } from "../server/groups.ts";
import type { GroupWrite, LogStore } from "../storage/log-store.ts";
import type { GroupQueues } from "../telemetry/metrics.ts";
import { BatchKind, batchHeaderBytes, sealBatch } from "../wire/batch.ts";
import {
  Consistency,
  type ForwardMessage,
  type ForwardReplyMessage,
  type RaftMessage,
} from "../wire/messages.ts";
import type { SectionHeader } from "../wire/section.ts";
import { Applier } from "./applier.ts";
import { Forwards } from "./forwards.ts";
import { Inbox, type InboxSection } from "./inbox.ts";
import { Pending } from "./pending.ts";
import { ReadQueue } from "./read-queue.ts";
import { TailCache } from "./tail-cache.ts";

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
  /** Random, below 2^48: where this life's requests to other nodes begin to be numbered. */
  readonly firstRequest: number;
}

export class Group {
  readonly id: number;
  readonly raft: Raft;
  readonly machine: StateMachine;
  readonly #nodeId: number;
  readonly #limits: Limits;
  readonly #store: LogStore;
  readonly #transport: Transport;
  readonly #logger: GroupLogger;

  readonly #tail: TailCache;
  readonly #pending = new Pending();
  readonly #reads = new ReadQueue();
  readonly #applier: Applier;

  readonly #inbox = new Inbox();
  readonly #forwards: Forwards;
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
  /** Ticks that the core was given; then how many it was not, after a pause, and at which tick that was. */
  #ticks = 0;
  #skippedTicks = 0;
  #skippedAtTick = -1;
  #stopped: string | undefined;
  #draining = false;
  /** Set by the shard while the disk has no space for the log. */
  diskFull = false;
  /** False on a first boot until all initial members have accepted this node: no vote, no candidacy [36]. */
  mayElect = true;

  constructor(options: GroupOptions) {
    this.id = options.id;
    this.raft = options.raft;
    this.machine = options.machine;
    this.#nodeId = options.nodeId;
    this.#limits = options.limits;
    this.#store = options.store;
    this.#transport = options.transport;
    this.#logger = options.logger;
    this.#forwards = new Forwards(options.firstRequest);
    this.#tail = new TailCache(options.limits.tailCacheBytes);
    this.#applier = new Applier(options.machine, this.#pending, options.limits);
    this.#commit = this.raft.commit;
  }

  /** Why this group stopped after a broken invariant; undefined while it runs. */
  get stopped(): string | undefined {
    return this.#stopped;
  }

  get leader(): number {
    return this.#leader;
  }

  get idle(): boolean {
    return (
      this.#inbox.length === 0 &&
      this.#pending.size === 0 &&
      this.#forwards.size === 0 &&
      this.#reads.size === 0
    );
  }

  /* ---------------------------------------------------------------- requests */

  write(section: Uint8Array, header: SectionHeader, deadlineMs: number, waiter: WriteWaiter): void {
    const refusal = this.#refusal(section.byteLength, header.count);
    if (refusal !== undefined) return waiter.failed(this.#error(refusal));
    if (this.raft.role === "leader") {
      const { count } = header;
      return this.#enqueue({ section, count, deadlineMs, waiter, origin: 0, request: 0 });
    }
    if (this.#leader === 0 || !this.#transport.connected(this.#leader)) {
      return waiter.failed(this.#error("no_leader"));
    }
    if (this.#forwards.size >= this.#limits.forwardsMax || this.#isCrowded) {
      return waiter.failed(this.#error("overloaded"));
    }
    const { count } = header;
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
    if (consistency === Consistency.local) {
      const staleMs = this.#stalenessTicks() * this.#limits.tickMs;
      if (maxStalenessMs > 0 && staleMs > maxStalenessMs) {
        return waiter.failed(
          new BargeError(
            "no_leader",
            `This node last heard of a quorum ${staleMs} ms ago, which is over ${maxStalenessMs} ms.`,
          ),
        );
      }
      return waiter.ready(this.machine, this.machine.appliedIndex);
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

  /** Stops intake; what is in flight goes on. */
  drain(): void {
    this.#draining = true;
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

  #enqueue(section: InboxSection): void {
    const bytes = section.section.byteLength;
    let refusal: ErrorCode | undefined;
    if (this.#store.logBytes(this.id) > this.#limits.groupLogBytesMax) refusal = "disk_full";
    else if (this.#inbox.bytes + bytes > this.#limits.inboxBytesMax || this.#isCrowded) {
      refusal = "overloaded";
    }
    if (refusal !== undefined) return this.#refuse(section, refusal);
    this.#inbox.push(section);
  }

  /** Also counts what was passed on, as it will wait for its index here once the leader has given it a place. */
  get #isCrowded(): boolean {
    const waiters = this.#inbox.length + this.#pending.size + this.#forwards.size;
    return waiters >= this.#limits.waitersMax;
  }

  #refuse(section: InboxSection, code: ErrorCode): void {
    if (section.waiter !== undefined) section.waiter.failed(this.#error(code));
    else this.#transport.send(this.#forwardReply(section.origin, section.request, code, 0, 0));
  }

  #error(code: ErrorCode): BargeError {
    if (code === "internal" && this.#stopped !== undefined) {
      return new BargeError(code, `Group ${this.id} stopped: ${this.#stopped}`, {
        outcome: "not-applied",
      });
    }
    const hint = this.raft.configuration.addresses[this.#leader];
    return new BargeError(
      code,
      errorTable[code].help,
      hint === undefined ? {} : { leaderHint: hint },
    );
  }

  /* ---------------------------------------------------------------- messages */

  step(message: RaftMessage): void {
    if (!this.mayElect && (message.type === "vote" || message.type === "preVote")) return;
    if (this.#stopped === undefined) this.#guard(() => this.raft.step(message));
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
    const refusal = this.#refusal(message.section.byteLength, header.count);
    if (refusal !== undefined) this.#refuse(item, refusal);
    else if (this.raft.role !== "leader") this.#refuse(item, "not_leader");
    else this.#enqueue(item);
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

  tick(): void {
    if (!this.mayElect) return;
    this.#ticks++;
    if (this.#stopped === undefined) this.#guard(() => this.raft.tick());
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
    let token: number | undefined;
    let covered = 0;
    for (const entry of this.#unsynced) {
      if (entry.appendSeq > syncedSeq) break;
      token = entry.token;
      covered++;
    }
    if (token === undefined) return;
    const last = token;
    this.#unsynced.splice(0, covered);
    if (this.#stopped === undefined) this.#guard(() => this.raft.synced(last));
  }

  /** Hands what has arrived to the core: new reads as one round, and the inbox as batches [7]. */
  propose(nowMs: number, syncing: boolean): void {
    if (this.#stopped !== undefined) return;
    this.#guard(() => {
      const context = this.#reads.begin();
      if (context !== 0) this.raft.readIndex(context);
      while (
        this.#inbox.length > 0 &&
        (!syncing || this.#inbox.bytes >= this.#limits.sealBytes) &&
        this.raft.unsyncedBytes < this.#limits.unsyncedBytesMax &&
        this.raft.unappliedBytes < this.#limits.unappliedBytesMax &&
        this.#seal(nowMs)
      );
    });
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
    const elapsedMs = Math.max(0, Math.floor(nowMs - this.#leaderSinceMs));
    this.raft.propose(
      sealBatch(
        {
          group: this.id,
          kind: BatchKind.commands,
          firstIndex: place.firstIndex,
          count: index - place.firstIndex,
          term: place.term,
          timeMs: Math.max(place.prevTimeMs, this.#leaderTimeBaseMs + elapsedMs),
          prevCrc: place.prevCrc,
        },
        bytes,
      ),
    );
    return true;
  }

  /** The core's effects, if there are any. What has to be written goes into `writes`. */
  collect(nowMs: number, writes: GroupWrite[]): Ready | undefined {
    if (this.#stopped !== undefined || !this.raft.hasReady()) return undefined;
    const ready = this.#guard(() => this.raft.ready());
    if (ready === undefined) return undefined;
    if (ready.softState !== undefined) this.#roleChanged(ready, nowMs);
    if (ready.token !== undefined) {
      writes.push({ group: this.id, hardState: ready.hardState, append: ready.append });
      this.#tail.append(ready.append);
    }
    return ready;
  }

  /** The turn's transaction has been committed as `appendSeq`: now messages may leave [20]. */
  perform(ready: Ready, appendSeq: number): void {
    if (ready.token !== undefined) this.#unsynced.push({ appendSeq, token: ready.token });
    for (const reply of this.#forwardReplies) this.#transport.send(reply);
    this.#forwardReplies.length = 0;
    for (const message of ready.messages) this.#send(message);
    for (const { context, index, ok } of ready.reads) this.#reads.resolve(context, index, ok);
    this.#commit = Math.max(this.#commit, ready.commit);
  }

  #send(message: RaftMessage): void {
    if (message.type !== "append" || message.fromIndex > message.toIndex) {
      this.#transport.send(message);
      return;
    }
    const { fromIndex, toIndex } = message;
    const bytesMax = this.#limits.frameBytesMax;
    const batches =
      this.#tail.take(fromIndex, toIndex, bytesMax) ??
      this.#store.batches(this.id, fromIndex, toIndex, bytesMax);
    // Compacted meanwhile: the core finds out by the log's start and never asks again.
    if (batches.length > 0) this.#transport.send(message, batches);
  }

  /** Applies what is committed, up to the turn's budget; true when more could be applied at once. */
  apply(): boolean {
    if (this.#stopped !== undefined) return false;
    let budget = this.#limits.applyBytesPerTurn;
    let backlog = false;
    while (this.machine.appliedIndex < this.#commit) {
      if (budget <= 0) {
        backlog = true;
        break;
      }
      const from = this.machine.appliedIndex + 1;
      const batches =
        this.#tail.take(from, this.#commit, budget) ??
        this.#store.batches(this.id, from, this.#commit, budget);
      if (batches.length === 0) {
        this.#stop(`committed batches from index ${from} on are missing`);
        return false;
      }
      const taken = this.#guard(() => this.#applier.apply(batches)) ?? 0;
      for (const batch of batches.slice(0, taken)) budget -= batch.bytes.byteLength;
      if (taken < batches.length) break;
    }
    if (this.#stopped !== undefined) return false;
    this.raft.applied(this.machine.appliedIndex);
    this.machine.allowDurable(Math.min(this.raft.durableIndex, this.#commit));
    return backlog;
  }

  /** Answers reads whose index is applied. */
  answerReads(): void {
    if (this.#reads.size === 0) return;
    const { appliedIndex } = this.machine;
    for (const waiter of this.#reads.takeReady(appliedIndex)) {
      waiter.ready(this.machine, appliedIndex);
    }
  }

  /** A slice of the machine's background work; true when there is more at once. */
  work(nowMs: number): boolean {
    return this.#stopped === undefined && this.machine.work(nowMs);
  }

  /** Time-outs and log retirement; some times a second. */
  housekeep(nowMs: number): void {
    this.#pending.expire(nowMs);
    this.#reads.expire(nowMs);
    for (const waiter of this.#forwards.takeWhere(({ deadlineMs }) => deadlineMs <= nowMs)) {
      waiter.failed(this.#error("timeout"));
    }
    this.#expireInbox(nowMs);
    if (this.#stopped === undefined) this.#guard(() => this.#retireLog());
  }

  #expireInbox(nowMs: number): void {
    for (const item of this.#inbox.takeLate(nowMs)) {
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

  /** Gives up the part of the log that every member has and that the machine has made durable. */
  #retireLog(): void {
    if (this.#store.logBytes(this.id) * 2 <= this.#limits.segmentBytes) return;
    const target = this.raft.compactionPoint(
      Math.min(this.machine.durableIndex, this.raft.minMatch()),
    );
    if (target === undefined) return;
    const configuration = encodeConfiguration(this.raft.configurationAt(target.index));
    this.#store.compactTo(this.id, target, configuration);
    this.raft.compact(target);
  }

  #roleChanged(ready: Ready, nowMs: number): void {
    const { role, leader } = ready.softState!;
    this.#leader = leader;
    const leads = role === "leader";
    if (leads && !this.#wasLeader) {
      this.#leaderSinceMs = nowMs;
      this.#leaderTimeBaseMs = this.raft.lastTimeMs;
    }
    // Leadership is gone: what was not sealed is surely not applied; what was sealed waits for its index [13].
    if (!leads && this.#wasLeader) this.#refuseInbox("not_leader");
    this.#wasLeader = leads;
    this.#logger.info({ group: this.id, term: this.raft.term, role, leader }, "role changed");
  }

  #refuseInbox(code: ErrorCode): void {
    for (const item of this.#inbox.takeAll()) this.#refuse(item, code);
  }

  /* ---------------------------------------------------------------- the end */

  /** The node stops: everybody who waits is told what is known. */
  failAll(code: ErrorCode): void {
    this.#refuseInbox(code);
    const unknown = new BargeError(code, errorTable[code].help, { outcome: "unknown" });
    this.#pending.failAll(unknown);
    for (const waiter of this.#forwards.takeWhere(() => true)) waiter.failed(unknown);
    this.#reads.failAll(this.#error(code));
  }

  /** A broken invariant stops this group alone: it takes part in nothing any more, and says why. */
  #stop(reason: string): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = reason;
    this.#logger.error({ group: this.id, term: this.raft.term }, `group stopped: ${reason}`);
    this.failAll("internal");
  }

  #guard<T>(action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof InvariantError)) throw error;
      this.#stop(error.message);
      return undefined;
    }
  }

  /** What can grow, for metrics. */
  queues(): GroupQueues {
    const { memtableBytes = 0, fileWalBytes = 0 } = this.machine.figures();
    return {
      inboxBytes: this.#inbox.bytes,
      waiters: this.#inbox.length + this.#pending.size,
      readWaiters: this.#reads.size,
      forwards: this.#forwards.size,
      unsyncedBytes: this.raft.unsyncedBytes,
      unappliedBytes: this.raft.unappliedBytes,
      tailCacheBytes: this.#tail.bytes,
      memtableBytes,
      kvWalBytes: fileWalBytes,
    };
  }

  status(): GroupStatus {
    const { raft, machine } = this;
    const { configuration } = raft;
    const voters = new Set([...configuration.voters, ...configuration.outgoing]);
    const match = new Map(raft.progress().map((peer) => [peer.id, peer.match]));
    const members = [...voters, ...configuration.learners].map((id) => {
      const matchIndex = match.get(id);
      return {
        id,
        address: configuration.addresses[id] ?? "",
        voter: voters.has(id),
        connected: id === this.#nodeId || this.#transport.connected(id),
        ...(matchIndex === undefined ? {} : { matchIndex }),
      };
    });
    return {
      id: this.id,
      role: this.#stopped === undefined ? raft.role : "stopped",
      leader: this.#leader,
      term: raft.term,
      commitIndex: this.#commit,
      appliedIndex: machine.appliedIndex,
      durableIndex: raft.durableIndex,
      machineDurableIndex: machine.durableIndex,
      firstIndex: raft.firstIndex,
      lastIndex: raft.lastIndex,
      logBytes: this.#store.logBytes(this.id),
      stateHash: machine.stateHash.toString(16).padStart(8, "0"),
      members,
    };
  }
}

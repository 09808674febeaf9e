/**
 * The Raft algorithm for one group: a deterministic state machine. Events go in (`tick`, `step`, `propose`, `readIndex`, `synced`…), effects
 * come out of `ready()`. It knows no clock, randomness, file or socket, and no bodies: those of the current turn only pass through.
 *
 * References are to the Raft paper (§), to decisions.md ([n]) and to correctness.md (D, E, C, R). Three things differ from the paper:
 *
 * - The unit is the batch, a run of indexes that one leader sealed in one go. Every position is a batch end [1].
 * - Appending and syncing are two phases. What must be durable before it counts (a vote, an acknowledgement, the leader's own match)
 *   is held back here until `synced` says so; the shell may send every message that `ready()` returns.
 * - Batches are chained by crc. Logs that agree on (index, term) but not on the crc are corrupt: the core throws rather than truncate [4].
 *
 * No message, however wrong, makes it throw, with one exception: a peer that speaks as the leader of the current term and
 * contradicts what is committed here. Then safety is lost already, and the group stops.
 */
import type { Limits } from "../limits.ts";
import { BatchKind, batchHeaderBytes, bodyOf, lastIndexOf, sealBatch } from "../wire/batch.ts";
import type { Batch, BatchInfo, HardState, LogStart, Wound } from "../wire/batch.ts";
import type {
  AppendMessage,
  AppendReplyMessage,
  HeartbeatMessage,
  HeartbeatReplyMessage,
  RaftMessage,
  ReadIndexMessage,
  ReadIndexReplyMessage,
  TimeoutNowMessage,
  VoteMessage,
  VoteReplyMessage,
} from "../wire/messages.ts";
import {
  ConfigurationStack,
  decodeConfiguration,
  isJoint,
  isVoter,
  membersOf,
} from "./configuration.ts";
import { Healing } from "./healing.ts";
import { InvariantError, brokenRule } from "./invariants.ts";
import type { CoreState } from "./invariants.ts";
import { Log } from "./log.ts";
import {
  follows,
  inProgress,
  leaderHasOnlyBegun,
  leaveJoint,
  planChange,
  promoteLearners,
  refuse,
} from "./membership.ts";
import type { ChangePlan, MemberChange } from "./membership.ts";
import { Progress } from "./progress.ts";
import type { ProgressState } from "./progress.ts";
import { quorumValue, voteResult } from "./quorum.ts";
import { ReadQuestions, ReadRounds } from "./reads.ts";
import type { LeaderRead } from "./reads.ts";
import type {
  Configuration,
  ReadState,
  Ready,
  Restore,
  Role,
  SnapshotRequest,
  SoftState,
} from "./ready.ts";
import { type TermClaim, TermClaims } from "./term-claims.ts";
import { bestTarget, nobody, Transfer, transferRefusal } from "./transfer.ts";
import type { TransferAnswer, TransferRefusal, TransferView } from "./transfer.ts";

export interface RaftOptions {
  readonly group: number;
  readonly nodeId: number;
  readonly limits: Limits;
  /** Uniform in [0, 1), seeded: the only source of chance. */
  readonly random: () => number;
  /** What the store recovered; all of it is durable. */
  readonly hardState: HardState;
  readonly start: LogStart;
  /** In force at `start`. */
  readonly startConfiguration: Configuration;
  readonly batches: readonly BatchInfo[];
  /** The configuration batches among `batches`, with their bodies, in order. */
  readonly configurations: readonly Batch[];
  /** What the state machine has; at most the end of the log [23], unless the node is wounded. */
  readonly appliedIndex: number;
  /** The disk lost some of what was durable: no vote until a leader has matched it again [22]. */
  readonly wound?: Wound | undefined;
  /** Up to that term an earlier replica of this node was a member, and what it acknowledged is forgotten: no vote before the log goes beyond. */
  readonly formerTerm?: number | undefined;
  /** This node should lead rather than one that does not say so; it tells its leader. */
  readonly preferred?: boolean;
}

/** Where the next batch goes: what the shell seals it with. */
export interface Seal {
  readonly firstIndex: number;
  readonly term: number;
  readonly prevCrc: number;
  readonly prevTimeMs: number;
}

/** A member as the leader sees it, for status. */
export interface MemberProgress {
  readonly id: number;
  readonly match: number;
  readonly next: number;
  readonly state: ProgressState;
  readonly inflightBytes: number;
  /** Heard within the check-quorum time. */
  readonly active: boolean;
}

/** Something handed to the shell that is not yet known to be durable. */
interface Write {
  readonly token: number;
  readonly term: number;
  readonly votedFor: number;
  readonly bytes: number;
  /** The log's end at that time, lowered when what it covered is truncated (D5). */
  lastIndex: number;
}

/** Questions and stamps of a life begin at random below this, so that answers to an earlier life's do not count. */
const firstOfLifeMax = 2 ** 48;

/** A log that began beyond could not go on to the end of all machines: a position from where numbers end is a lie. */
const startIndexMax = 2 ** 52;

const noBatches: readonly Batch[] = Object.freeze([]);
const noMessages: readonly RaftMessage[] = Object.freeze([]);
const noReads: readonly ReadState[] = Object.freeze([]);
const noSnapshots: readonly SnapshotRequest[] = Object.freeze([]);

/**
 * What a node makes of a snapshot that it is offered. needed: its log ends before it or differs there. held: the log has that position already.
 * refused: the offer is not from this term's leader, or makes no sense.
 */
export type SnapshotVerdict = "needed" | "held" | "refused";

export class Raft implements CoreState {
  readonly group: number;
  readonly nodeId: number;
  readonly #limits: Limits;
  readonly #random: () => number;
  readonly #preferred: boolean;
  /** Set by the shell: this node would rather not lead. It does not take over when asked, and is no preferred member meanwhile. */
  isReluctant = false;
  /** Set by the shell: false where there is room for no more commands. What makes an election is taken all the same. */
  takesCommands = true;

  // Persistent (§5.1), and what of it is durable.
  #term: number;
  #votedFor: number;
  #durableTerm: number;
  #durableVote: number;
  #hardStateDirty = false;
  readonly #log: Log;
  readonly #configurations: ConfigurationStack;
  /** One that `#isPlain` has looked at. */
  #plain: Configuration | undefined;
  /** The log up to here is on this node's disk. */
  #durableIndex: number;
  readonly #termClaims: TermClaims;
  /** Present while this node is wounded. */
  #healing: Healing | undefined;
  readonly #formerTerm: number;

  // Volatile.
  #role: Role = "follower";
  #leader = 0;
  #commit: number;
  #applied: number;
  #nowTick = 0;
  #electionElapsedTicks = 0;
  #electionTimeoutTicks = 0;
  #stepDownReason = "";

  // Candidates.
  readonly #votes = new Map<number, boolean>();
  /** The vote requests of this candidacy have left, and the own vote counts. */
  #voteRequested = false;
  /** The leader asked for this candidacy. */
  #candidateByTransfer = false;

  // Voters and followers.
  #leaderHeardTick = -Infinity;
  /** The log is known to equal that of this term's leader up to here. */
  #verified = 0;
  /** Highest index acknowledged to this term's leader. */
  #acked = 0;
  #ackDue = false;
  /** A granted vote that waits for its sync: to whom; 0 = none. */
  #voteReplyTo = 0;
  /** An answer to a heartbeat that waits for the term's sync: its round; -1 = none. */
  #heartbeatReplySeq = -1;
  readonly #questions: ReadQuestions;
  /** False only where no read waits, here or on the leader's side: a group at rest is not asked further. */
  #mayHaveReads = false;
  /** This node's tick 0, as it tells it to leaders: never 0, and another in each life. */
  readonly #firstStamp: number;
  /** At this tick, some leader led, and all that it had committed is applied here [35]. */
  #freshTick = -Infinity;
  /** The same, but true only once #freshIndex is applied. */
  #freshTickNext = -Infinity;
  #freshIndex = Infinity;
  /** Every member has the log durably up to here, as far as this node was told. */
  #minMatch = 0;

  // Leaders.
  #peers: Progress[] = [];
  #rounds: ReadRounds;
  #heartbeatElapsedTicks = 0;
  /** A batch of this term is committed, so commit covers all that earlier leaders committed (§8, R1). */
  #commitIsOwn = false;
  #leadsSinceTick = 0;
  /** Something happened that may allow an append to leave. */
  #sendDue = false;
  /** What is to be proposed next without being asked. */
  #configurationDue: Configuration | undefined;
  /** Voters whose places nobody takes yet, and what needs them still. */
  keptPlaces: ReadonlyMap<number, "system" | "groups"> = new Map();
  /** Leadership is being handed over: nothing is proposed. */
  #transfer: Transfer | undefined;
  #handedOver = false;

  // Effects of the turn.
  #unstable: Batch[] = [];
  #unstableBytes = 0;
  #messages: RaftMessage[] = [];
  #reads: ReadState[] = [];
  #snapshots: SnapshotRequest[] = [];
  #restore: Restore | undefined;
  #healed = false;
  #lastToken = 0;
  #writes: Write[] = [];
  #unsyncedBytes = 0;
  #unappliedBytes = 0;
  #readyCommit: number;
  #readyRole: Role = "follower";
  #readyLeader = 0;

  constructor(options: RaftOptions) {
    this.group = options.group;
    this.nodeId = options.nodeId;
    this.#limits = options.limits;
    this.#random = options.random;
    this.#preferred = options.preferred ?? false;
    this.#formerTerm = options.formerTerm ?? -1;
    this.#term = this.#durableTerm = options.hardState.term;
    this.#votedFor = this.#durableVote = options.hardState.votedFor;
    this.#log = new Log(options.start);
    this.#configurations = new ConfigurationStack(options.start.index, options.startConfiguration);
    this.#commit = this.#applied = options.start.index;
    this.#rounds = new ReadRounds(0);
    this.#termClaims = new TermClaims(options.limits.electionTicksMin);
    this.#questions = new ReadQuestions(1 + Math.floor(this.#random() * firstOfLifeMax));
    this.#firstStamp = 1 + Math.floor(this.#random() * firstOfLifeMax);

    for (const info of options.batches) {
      if (info.firstIndex !== this.#log.lastIndex + 1) this.#broken("recovered log has a gap");
      if (info.term < this.#log.lastTerm) this.#broken("recovered log has a falling term");
      this.#log.append(info);
    }
    for (const batch of options.configurations)
      if (!this.#configurations.push(batch)) this.#broken("recovered configuration is malformed");
    this.#durableIndex = this.#log.lastIndex;
    if (this.#log.lastIndex === 0 && this.#term > 0) this.#startNew();
    if (options.wound === undefined) this.#recoverCommit(options);
    else this.#startWounded(options.wound, options.appliedIndex);
    this.#readyCommit = this.#commit;
    this.#unappliedBytes = this.#bytesIn(this.#applied + 1, this.#log.lastIndex);
    this.#resetElectionTimer();
    this.#check();
  }

  #recoverCommit({ start, hardState, appliedIndex }: RaftOptions): void {
    if (appliedIndex > this.#log.lastIndex) this.#broken("the state machine is ahead of the log");
    // An application may have stopped within a batch; the batch is committed as a whole.
    const hint = this.#log.floorToEnd(Math.max(start.index, hardState.commit));
    const ordinal = this.#log.find(appliedIndex);
    this.#commit = Math.max(hint, ordinal < 0 ? 0 : this.#log.lastIndexAt(ordinal));
    this.#applied = Math.max(appliedIndex, start.index);
  }

  /** Made a moment ago it may not be durable yet that it begins in this term; where it is, to write it once more does no harm. */
  #startNew(): void {
    this.#durableTerm = 0;
    this.#durableVote = 0;
    this.#hardStateDirty = true;
  }

  /**
   * What is left of the log may have been superseded by what is lost, so neither the commit that was noted nor the machine says which of its
   * batches are committed. Its vote in the terms that it may have forgotten counts as given.
   */
  #startWounded(wound: Wound, appliedIndex: number): void {
    this.#healing = new Healing(wound, appliedIndex);
    if (wound.hardTerm > this.#term) {
      this.#term = wound.hardTerm;
      this.#votedFor = 0;
    }
    if (this.#votedFor === 0) this.#votedFor = this.nodeId;
    this.#hardStateDirty = true;
  }

  /* ---------------------------------------------------------------- state, for the shell and for status */

  get role(): Role {
    return this.#role;
  }
  get term(): number {
    return this.#term;
  }
  /** 0 = unknown. */
  get leader(): number {
    return this.#leader;
  }
  get votedFor(): number {
    return this.#votedFor;
  }
  get commit(): number {
    return this.#commit;
  }
  get appliedIndex(): number {
    return this.#applied;
  }
  get startIndex(): number {
    return this.#log.start.index;
  }
  get firstIndex(): number {
    return this.#log.start.index + 1;
  }
  get lastIndex(): number {
    return this.#log.lastIndex;
  }
  get lastTerm(): number {
    return this.#log.lastTerm;
  }
  /** Cluster time of the last batch [5]. */
  get lastTimeMs(): number {
    return this.#log.lastTimeMs;
  }
  /** Bytes of all batches that the log holds. */
  get logBytes(): number {
    return this.#log.bytes;
  }
  get durableIndex(): number {
    return this.#durableIndex;
  }
  get verifiedIndex(): number {
    return this.#verified;
  }
  /** Appended here, on any role, and not yet known to be durable. */
  get unsyncedBytes(): number {
    return this.#unsyncedBytes;
  }
  /** Bytes of the log above what is applied, committed or not. */
  get unappliedBytes(): number {
    return this.#unappliedBytes;
  }
  /** The configuration in force: the latest in the log, committed or not. */
  get configuration(): Configuration {
    return this.#configurations.current;
  }
  /** Log index that the configuration in force came with. */
  get configurationIndex(): number {
    return this.#configurations.currentIndex;
  }
  get configurationCommitted(): boolean {
    return this.#configurations.currentIndex <= this.#commit;
  }
  /** As of `index`: what the store keeps beside a log start there. */
  configurationAt(index: number): Configuration {
    return this.#configurations.at(index);
  }
  /** This node was a member once, and is not any more: it takes part in nothing. */
  get removed(): boolean {
    return this.#isRemoved(this.nodeId);
  }
  /**
   * Whether those whose votes this configuration needs are alive, as this leader sees it. Every voter counts that was heard within the
   * check-quorum time, and that the shell does not know to be gone.
   */
  liveMajority(
    configuration: Configuration,
    isConnected: (nodeId: number) => boolean = () => true,
  ): boolean {
    const isAlive = (id: number): number => {
      if (id === this.nodeId) return 1;
      const peer = this.#peer(id);
      if (peer === undefined || peer.wounded) return 0;
      return this.#isActive(peer) && isConnected(id) ? 1 : 0;
    };
    return quorumValue(configuration, isAlive) === 1;
  }
  /** Leads for less than the check-quorum time: whom it has not heard yet may be alive all the same. */
  get isNewLeader(): boolean {
    return (
      this.#role === "leader" &&
      this.#nowTick - this.#leadsSinceTick < this.#limits.checkQuorumTicks
    );
  }
  /**
   * What these changes of the members come to here and now. A `next` may be sealed and proposed in the same turn. With `force` it is given
   * even where no majority of the voters that would be left is alive: then nothing commits until one is again.
   */
  planChange(
    changes: readonly MemberChange[],
    force = false,
    isConnected?: (nodeId: number) => boolean,
  ): ChangePlan {
    if (this.#role !== "leader")
      return refuse("not_leader", "This node does not lead; ask the leader.");
    if (this.#transfer !== undefined)
      return refuse("not_leader", "This node is handing over leadership; try again.");
    if (!this.#maySucceed() || isJoint(this.configuration)) return inProgress();
    const plan = planChange(this.configuration, changes);
    if (!("next" in plan) || force || this.liveMajority(plan.next, isConnected)) {
      return plan;
    }
    if (this.isNewLeader) return leaderHasOnlyBegun();
    return refuse(
      "no_live_majority",
      `No majority of the voters ${plan.next.voters.join(", ")} is alive, so the change could not be completed. Bring the nodes that are down back first, or force it.`,
    );
  }
  /** What this node has to come to before it votes again; undefined = it is whole [22]. */
  get wound(): Wound | undefined {
    return this.#healing?.wound;
  }
  /** Why leadership was last given up; empty = never. */
  get stepDownReason(): string {
    return this.#stepDownReason;
  }
  /** Reads that wait for their index. */
  get readsWaiting(): number {
    if (!this.#mayHaveReads) return 0;
    const count = this.#rounds.count + this.#questions.count;
    this.#mayHaveReads = count > 0;
    return count;
  }
  /**
   * How old a local read may be, in ticks: since a moment at which a leader surely led, and all that was committed then is applied here [35].
   * Infinity = not known.
   */
  get stalenessTicks(): number {
    const rounds = this.#role === "leader" ? this.#rounds.freshTick(this.#applied) : -Infinity;
    return this.#nowTick - Math.max(this.#freshTick, rounds);
  }
  /** The member that leadership is being handed over to; 0 = none. */
  get transferTarget(): number {
    return this.#transfer?.target ?? 0;
  }

  /** The tick at which that began; another one where it was given up and begun anew. */
  get transferSinceTick(): number {
    return this.#transfer?.sinceTick ?? 0;
  }
  /** This node should lead rather than one that does not say so. */
  get isPreferred(): boolean {
    return this.#preferred && !this.isReluctant;
  }
  /** Leadership was last lost to a member that had been told to take it: who leads next is known soon. */
  get handedOver(): boolean {
    return this.#handedOver;
  }
  /** The preferred member that could lead in place of this leader; 0 = none, or this one is preferred itself. */
  get preferredTarget(): number {
    if (this.#role !== "leader" || this.isPreferred) return 0;
    for (const peer of this.#peers) {
      if (peer.preferred) return bestTarget(this.#transferView, -1, { onlyPreferred: true });
    }
    return 0;
  }
  /** The other members as this leader sees them; empty on other roles. */
  progress(): MemberProgress[] {
    const members = this.#peers.filter(({ leftIndex }) => leftIndex === 0);
    return members.map((peer) => ({
      id: peer.id,
      match: peer.match,
      next: peer.next,
      state: peer.state,
      inflightBytes: peer.inflightBytes,
      active: this.#isActive(peer),
    }));
  }
  /** Every member has the log durably up to here: below, no member will ever ask for it. For retiring the log. */
  minMatch(): number {
    if (this.#role === "leader") {
      let lowest = this.#durableIndex;
      for (const peer of this.#peers)
        if (peer.leftIndex === 0) lowest = Math.min(lowest, peer.match);
      this.#minMatch = Math.max(this.#minMatch, lowest);
    }
    return Math.min(this.#minMatch, this.#durableIndex);
  }

  /** The log's position at `index`, where a batch ends; undefined where none does. What a snapshot of the machine there is tied to. */
  positionAt(index: number): LogStart | undefined {
    return this.#log.positionAt(index);
  }

  /**
   * The highest batch end at or below `index` that the log may be compacted to, keeping at least `tailBytes` of it; undefined when that is where
   * it starts already.
   */
  compactionPoint(index: number, tailBytes = 0): LogStart | undefined {
    let ordinal = this.#log.find(this.#log.floorToEnd(Math.min(index, this.#applied)));
    if (ordinal >= 0 && tailBytes > 0) ordinal = Math.min(ordinal, this.#log.lastBeyond(tailBytes));
    return ordinal < 0 ? undefined : this.#log.endAt(ordinal);
  }

  /* ---------------------------------------------------------------- events */

  /** `limits.tickMs` went by, so many times. False where that was all, so that there is nothing ready that was not before. */
  tick(count = 1): boolean {
    let acted = false;
    for (let left = count - this.#passIdly(count); left > 0; left--) {
      acted = true;
      this.#nowTick++;
      if (this.#role === "leader") this.#tickLeader();
      else this.#tickFollower();
      left -= this.#passIdly(left - 1);
    }
    return acted;
  }

  /** Of the ticks to come, the first ones do nothing but go by; returns how many of them have. */
  #passIdly(ticksMax: number): number {
    const ticks = Math.min(ticksMax, this.idleTicks);
    if (ticks <= 0) return 0;
    this.#nowTick += ticks;
    if (this.#role === "leader") this.#heartbeatElapsedTicks += ticks;
    else this.#electionElapsedTicks += ticks;
    return ticks;
  }

  /** Of the ticks to come, so many do nothing but go by, unless something else happens. */
  get idleTicks(): number {
    return this.#role === "leader" ? this.#idleLeader() : this.#idle();
  }

  /** It leads, and would for so many ticks more if nobody answered. */
  isSureFor(ticks: number): boolean {
    return this.#role === "leader" && this.#untilQuorumLost - this.#limits.heartbeatTicks > ticks;
  }

  get #untilQuorumLost(): number {
    return this.#rounds.confirmedTick + this.#limits.checkQuorumTicks - this.#nowTick;
  }

  #idle(): number {
    if (this.#mayHaveReads && this.#questions.count > 0) return 0;
    if (!this.#isPlain() && this.#isSingleVoter()) return 0;
    return this.#electionTimeoutTicks - this.#electionElapsedTicks - 1;
  }

  #idleLeader(): number {
    if (this.#transfer !== undefined) return 0;
    if (!this.#isPlain() && this.#planDue()) return 0;
    const { heartbeatTicks, electionTicksMin } = this.#limits;
    const untilEnd = this.#untilQuorumLost;
    let until = untilEnd > heartbeatTicks ? untilEnd - heartbeatTicks : untilEnd;
    const untilHeartbeat = heartbeatTicks - this.#heartbeatElapsedTicks;
    // A single voter is its own quorum, which only its own rounds confirm.
    if (this.#peers.length === 0 || this.#isSingleVoter()) until = Math.min(until, untilHeartbeat);
    for (const peer of this.#peers) {
      // Since then, an answer that does not come counts as lost.
      if (peer.inflightFrames > 0)
        until = Math.min(until, peer.movedTick + electionTicksMin - this.#nowTick);
      if (peer.needsAsking)
        until = Math.min(until, heartbeatTicks - (this.#nowTick % heartbeatTicks));
      const untilOwn = this.#isSteady(peer)
        ? peer.beatTick + 2 * heartbeatTicks + 1 - this.#nowTick
        : -Infinity;
      until = Math.min(until, Math.max(untilHeartbeat, untilOwn));
    }
    return until - 1;
  }

  /** A message from a peer's core, well formed on the wire; what makes no sense here is dropped. */
  step(message: RaftMessage): void {
    if (!this.#plausible(message)) return;
    if (message.term > this.#term) {
      if (!this.#meetHigherTerm(message)) return;
    } else if (message.term < this.#term) {
      this.#answerLowerTerm(message);
      return;
    }
    switch (message.type) {
      case "preVote":
        return this.#stepPreVote(message);
      case "preVoteReply":
      case "voteReply":
        return this.#stepVoteReply(message);
      case "vote":
        return this.#stepVote(message);
      case "append":
        return this.#stepAppend(message);
      case "appendReply":
        return this.#stepAppendReply(message);
      case "heartbeat":
        return this.#stepHeartbeat(message);
      case "heartbeatReply":
        return this.#stepHeartbeatReply(message);
      case "readIndex":
        return this.#stepReadIndex(message);
      case "readIndexReply":
        return this.#stepReadIndexReply(message);
      case "timeoutNow":
        return this.#stepTimeoutNow(message);
    }
  }

  /** Where the next batch goes; undefined where this node does not lead, or hands over. */
  nextSeal(): Seal | undefined {
    if (this.#role !== "leader" || this.#transfer !== undefined) return undefined;
    return {
      firstIndex: this.#log.lastIndex + 1,
      term: this.#term,
      prevCrc: this.#log.lastCrc,
      prevTimeMs: this.#log.lastTimeMs,
    };
  }

  /** Appends a batch that was sealed with `nextSeal()`, in the same turn. A configuration is in force at once [37]. */
  propose(batch: Batch): void {
    if (this.#role !== "leader") this.#broken("only a leader proposes");
    if (this.#transfer !== undefined) this.#broken("a leader that hands over proposes nothing");
    if (batch.firstIndex !== this.#log.lastIndex + 1) this.#broken("a proposal follows the log");
    if (batch.term !== this.#term) this.#broken("a proposal is of the current term");
    if (batch.prevCrc !== this.#log.lastCrc) this.#broken("a proposal is chained to the log");
    if (batch.timeMs < this.#log.lastTimeMs) this.#broken("cluster time never falls");
    if (batch.count < 1 || batch.group !== this.group) this.#broken("a proposal is well formed");
    if (batch.kind === BatchKind.configuration) this.#checkSuccessor(batch);
    this.#appendToLog(batch);
    this.#sendDue = true;
  }

  /**
   * Asks for an index from which on a read is linearizable; the answer comes in `ready().reads` with the same `context`. Any role: a follower
   * asks the leader. `ok` is false when leadership could not be confirmed in time, or too many reads wait.
   */
  readIndex(context: number): void {
    if (this.readsWaiting >= this.#limits.readWaitersMax) return this.#failRead(context);
    this.#mayHaveReads = true;
    if (this.#role === "leader") this.#rounds.add({ context, from: 0 });
    else this.#questions.add(context, this.#nowTick);
  }

  /** All writes up to that of this token are durable. */
  synced(token: number): void {
    if (token > this.#lastToken) this.#broken("only what was handed out is synced");
    let count = 0;
    for (const write of this.#writes) {
      if (write.token > token) break;
      count++;
      this.#durableIndex = Math.max(this.#durableIndex, write.lastIndex);
      this.#durableTerm = write.term;
      this.#durableVote = write.votedFor;
      this.#unsyncedBytes -= write.bytes;
    }
    if (count === 0) return;
    this.#writes.splice(0, count);
    this.#releaseAfterSync();
  }

  /** The state machine has everything up to here. */
  applied(index: number): void {
    if (index > this.#commit) this.#broken("only committed batches are applied");
    if (index > this.#applied) {
      this.#unappliedBytes -= this.#bytesIn(this.#applied + 1, index);
      this.#applied = index;
    } else if (index < this.#applied && index >= this.#log.start.index) this.#unapply(index);
    this.#refresh();
  }

  /** An application has forgotten what it had not synced, and is given it again: until then what is read here is older than it was. */
  #unapply(index: number): void {
    this.#unappliedBytes += this.#bytesIn(index + 1, this.#applied);
    this.#applied = index;
    this.#freshTick = -Infinity;
  }

  /**
   * The state machine says that it holds what the log has up to there. It got nothing but what was committed, and all that ever was is in the log of a leader
   * (§5.4.3), so this is that, though the node may have forgotten it: what is committed is noted with each vote alone. An application may hold more than was
   * noted, and without this its state could not be sent to members that need it before they can acknowledge anything.
   */
  machineHolds(index: number): void {
    if (this.#role !== "leader" || this.#commitIsOwn || index <= this.#commit) return;
    const ordinal = this.#log.find(index);
    // Nothing of this term was given to it before any of it is committed.
    if (ordinal < 0 || this.#log.termAt(ordinal) === this.#term) return;
    const end = this.#log.lastIndexAt(ordinal);
    if (end > this.#durableIndex) return;
    this.#commit = end;
    this.#sendDue = true;
  }

  /** The connection to a peer came up anew: what was in flight may be lost (C5). */
  peerReset(nodeId: number): void {
    if (nodeId === this.#leader) this.#questions.askAgain();
    const peer = this.#peer(nodeId);
    if (peer === undefined || peer.state === "snapshot") return;
    peer.becomeProbe();
    peer.commitSent = 0;
    this.#sendDue = true;
  }

  /** The leader of `term` offers its state as of `start` (InstallSnapshot, §7). For "needed", `restored` follows once it is all here. */
  snapshotOffered(from: number, term: number, start: LogStart): SnapshotVerdict {
    if (from === this.nodeId || from === 0 || !isIndex(term)) return "refused";
    if (term === 0 || !isIndex(start.index) || start.index > startIndexMax) return "refused";
    if (!isIndex(start.term) || start.term > term || !isIndex(start.timeMs)) return "refused";
    if (term < this.#term) {
      this.#sendAppendReply(from, false, 0, 0, 0);
      return "refused";
    }
    if (term > this.#term && !this.#adoptTerm({ from, term }, from)) return "refused";
    if (!this.#hearLeader(from)) return "refused";
    if (!this.#holds(start)) return "needed";
    // What a leader has in a snapshot is committed; the answer tells it where to go on.
    this.#verified = Math.max(this.#verified, start.index, this.#log.start.index);
    this.#ackDue = true;
    this.#commitTo(start.index);
    return "held";
  }

  /**
   * A snapshot that was offered is whole on this node's disk: the log begins anew there, with all that it held void, and the next `ready`
   * says so. False when it has become useless meanwhile: nothing changes then.
   */
  restored(start: LogStart, configuration: Configuration): boolean {
    if (this.#role === "leader" || start.term > this.#term || this.#holds(start)) return false;
    if (this.#role !== "follower") this.#becomeFollower(this.#term, 0);
    this.#log.reset(start);
    this.#configurations.reset(start.index, configuration);
    this.#configurationChanged();
    this.#unstable = [];
    this.#unsyncedBytes -= this.#unstableBytes;
    this.#unstableBytes = 0;
    this.#unappliedBytes = 0;
    // No sync of the log of before counts for the new one (D5).
    this.#durableIndex = 0;
    for (const write of this.#writes) write.lastIndex = 0;
    this.#restore = { start, configuration };
    this.#commit = this.#applied = this.#verified = start.index;
    this.#ackDue = true;
    this.#refresh();
    return true;
  }

  /**
   * The log has this position, so whatever a snapshot there holds is not needed (N3): it is committed, or the batch that ends there is the same,
   * which by Log Matching means all before it too.
   */
  #holds(start: LogStart): boolean {
    if (start.index <= this.#log.start.index) return true;
    const termHere = this.#log.termOfEnd(start.index);
    if (termHere === start.term) {
      if (this.#log.crcOfEnd(start.index) !== start.crc)
        this.#broken(`corruption: equal term but other bytes up to index ${start.index}`);
      return true;
    }
    if (start.index <= this.#commit)
      this.#broken(`a snapshot differs from what is committed, at index ${start.index}`);
    return false;
  }

  /** The shell streams no snapshot to that node any more. If it still needs one, it is asked for again after a while. */
  snapshotEnded(to: number): void {
    const peer = this.#peer(to);
    if (peer === undefined) return;
    peer.snapshotAsked = false;
    peer.snapshotAskTick = this.#nowTick + this.#limits.electionTicksMin;
  }

  /**
   * Hands leadership over to `target`, or to the member that fits best (0); with `above`, to one that has the log durably beyond that index, and to
   * none of `avoid`.
   * Until it is over nothing is proposed. It ends when another leads, or after the shortest election time-out, and then this leader goes on.
   * Asking again for what is, or is under way, changes nothing.
   */
  transferLeadership(
    target: number,
    above = -1,
    avoid: ReadonlySet<number> = nobody,
  ): TransferAnswer {
    const refused = (refusal: TransferRefusal, about = target): TransferAnswer => ({
      target: about,
      refusal,
    });
    if (this.#role !== "leader") return refused("not_leader", this.#leader);
    if (target === this.nodeId) return { target, refusal: undefined };
    const running = this.transferTarget;
    if (running !== 0) {
      const same = target === 0 || target === running;
      return same ? { target: running, refusal: undefined } : refused("under_way", running);
    }
    const view = this.#transferView;
    const chosen = target === 0 ? bestTarget(view, above, { avoid }) : target;
    if (chosen === 0) return refused("nobody");
    const refusal = transferRefusal(view, chosen);
    if (refusal !== undefined) return refused(refusal);
    this.#transfer = new Transfer(chosen, this.#nowTick);
    this.#askTarget();
    return { target: chosen, refusal: undefined };
  }

  /** Gives up leadership or a candidacy now. This node never leads in the current term again: a new election raises the term [20]. */
  stepDown(reason: string): void {
    if (this.#role === "follower") return;
    this.#stepDownReason = reason;
    this.#becomeFollower(this.#term, 0);
    this.#resetElectionTimer();
  }

  /**
   * The batch at `firstIndex` is damaged on this node's disk: the log ends before it, whatever was committed, and the node is wounded [22]. The
   * store has noted it.
   */
  wounded(firstIndex: number, wound: Wound): void {
    this.stepDown("its log is damaged");
    this.#healing = new Healing(wound, Math.max(this.#applied, this.#healing?.appliedIndex ?? 0));
    this.#commit = Math.min(this.#commit, firstIndex - 1);
    this.#truncateFrom(firstIndex);
    this.#readyCommit = this.#commit;
    this.#applied = Math.min(this.#applied, this.#commit);
    this.#unappliedBytes = this.#bytesIn(this.#applied + 1, this.#log.lastIndex);
    // Nothing that was promised on the strength of what is gone may leave any more.
    this.#messages = [];
    this.#voteReplyTo = 0;
    this.#verified = this.#acked = 0;
    this.#healed = false;
  }

  /** As far as it was known to be, the log is durable and a current leader's: this node is whole again. */
  #healIfMatched(): void {
    if (this.#healing === undefined || this.#role !== "follower" || this.#leader === 0) return;
    const index = Math.min(this.#verified, this.#durableIndex);
    if (this.#durableTerm !== this.#term) return;
    if (!this.#healing.isOver(this.#log.termOfEnd(index), index)) return;
    this.#healing = undefined;
    this.#healed = this.#ackDue = true;
  }

  /** The store no longer holds the log up to `start`. */
  compact(start: LogStart): void {
    if (start.index <= this.#log.start.index) return;
    if (start.index > this.#applied) this.#broken("only applied batches are compacted");
    if (this.#log.termOfEnd(start.index) !== start.term) this.#broken("compaction ends at a batch");
    if (this.#log.crcOfEnd(start.index) !== start.crc) this.#broken("compaction keeps the chain");
    this.#log.compactTo(start);
    this.#configurations.compactTo(start.index);
  }

  /* ---------------------------------------------------------------- effects */

  hasReady(): boolean {
    return (
      this.#sendDue ||
      this.#hardStateDirty ||
      this.#unstable.length > 0 ||
      this.#messages.length > 0 ||
      this.#reads.length > 0 ||
      this.#snapshots.length > 0 ||
      this.#restore !== undefined ||
      this.#healed ||
      this.#commit !== this.#readyCommit ||
      this.#role !== this.#readyRole ||
      this.#leader !== this.#readyLeader ||
      this.#configurationDue !== undefined ||
      this.#ackReady() ||
      this.#roundReady() ||
      this.#questionReady()
    );
  }

  /** The effects since the last call; to be performed as `Ready` says. */
  ready(): Ready {
    // Decided here and not at each event, so that the events of a turn share a round, a frame, an acknowledgement.
    if (this.#roundReady()) this.#sendHeartbeats();
    if (this.#sendDue) this.#sendAppends();
    if (this.#ackReady()) this.#sendAck();
    if (this.#questionReady()) this.#sendQuestion();
    this.#check();

    const append = this.#unstable.length > 0 ? this.#unstable : noBatches;
    const messages = this.#messages.length > 0 ? this.#messages : noMessages;
    const reads = this.#reads.length > 0 ? this.#reads : noReads;
    const snapshots = this.#snapshots.length > 0 ? this.#snapshots : noSnapshots;
    const restore = this.#restore;
    const hardState: HardState | undefined = this.#hardStateDirty
      ? { term: this.#term, votedFor: this.#votedFor, commit: this.#commit }
      : undefined;
    let token: number | undefined;
    if (hardState !== undefined || restore !== undefined || append.length > 0) {
      token = ++this.#lastToken;
      this.#writes.push({
        token,
        term: this.#term,
        votedFor: this.#votedFor,
        bytes: this.#unstableBytes,
        lastIndex: this.#log.lastIndex,
      });
    }
    let softState: SoftState | undefined;
    if (this.#role !== this.#readyRole || this.#leader !== this.#readyLeader)
      softState = { role: this.#role, leader: this.#leader };

    this.#readyRole = this.#role;
    this.#readyLeader = this.#leader;
    this.#readyCommit = this.#commit;
    this.#hardStateDirty = false;
    if (append.length > 0) this.#unstable = [];
    this.#unstableBytes = 0;
    if (messages.length > 0) this.#messages = [];
    if (reads.length > 0) this.#reads = [];
    if (snapshots.length > 0) this.#snapshots = [];
    this.#restore = undefined;
    const healed = this.#healed;
    this.#healed = false;
    const configurationDue = this.#configurationDue;
    this.#configurationDue = undefined;
    const commit = this.#commit;
    return {
      token,
      hardState,
      restore,
      append,
      healed,
      messages,
      commit,
      reads,
      snapshots,
      softState,
      configurationDue,
    };
  }

  /* ---------------------------------------------------------------- terms and roles */

  /** Shape and addressee. A peer may be hostile, but a dropped message is always safe in Raft. */
  #plausible(message: RaftMessage): boolean {
    if (message.group !== this.group || message.to !== this.nodeId) return false;
    if (message.from === this.nodeId || message.from === 0) return false;
    if (!isIndex(message.term)) return false;
    switch (message.type) {
      case "preVote":
      case "vote":
        return (
          isIndex(message.lastIndex) && isIndex(message.lastTerm) && message.lastTerm < message.term
        );
      case "timeoutNow":
        return isIndex(message.lastIndex) && isIndex(message.lastTerm) && message.term > 0;
      case "append":
        return (
          isIndex(message.prevIndex) &&
          isIndex(message.prevTerm) &&
          isIndex(message.commit) &&
          message.prevTerm <= message.term &&
          message.term > 0
        );
      case "appendReply":
        return isIndex(message.index) && isIndex(message.hintIndex) && isIndex(message.hintTerm);
      case "heartbeat":
        return (
          isIndex(message.commit) &&
          isIndex(message.readSeq) &&
          isIndex(message.minMatch) &&
          isIndex(message.freshStamp) &&
          message.term > 0
        );
      case "heartbeatReply":
        return isIndex(message.readSeq) && isIndex(message.stamp);
      case "readIndex":
        return isIndex(message.context);
      case "readIndexReply":
        return isIndex(message.context) && isIndex(message.index);
      case "preVoteReply":
      case "voteReply":
        return true;
    }
  }

  /** §5.1: a higher term makes a follower of any role. False when the message is to be ignored. */
  #meetHigherTerm(message: RaftMessage): boolean {
    switch (message.type) {
      case "preVote":
        // The term of a candidacy that may never be (E3).
        return true;
      case "preVoteReply":
        if (message.granted) return true;
        break;
      case "vote":
        // While a leader is alive, nobody can depose it by campaigning (§6; E2), unless it asked for that itself.
        if (this.#hearsLeader() && !message.transfer) return false;
        break;
      case "append":
      case "heartbeat":
      case "timeoutNow":
        return this.#adoptTerm(message, message.from);
      case "voteReply":
      case "appendReply":
      case "heartbeatReply":
      case "readIndex":
      case "readIndexReply":
        break;
    }
    return this.#adoptTerm(message, 0);
  }

  /** False where that term is from beyond all reason: it is neared, and the message dropped. */
  #adoptTerm(claim: TermClaim, leader: number): boolean {
    const { term } = claim;
    const believed = this.#termClaims.believed(claim, {
      nodeId: this.nodeId,
      term: this.#term,
      nowTick: this.#nowTick,
      configuration: this.configuration,
    });
    if (believed > this.#term) this.#becomeFollower(believed, believed === term ? leader : 0);
    return believed === term;
  }

  /** The sender is behind; a request is refused with the higher term, so that it can catch up (E3). */
  #answerLowerTerm(message: RaftMessage): void {
    const { from } = message;
    switch (message.type) {
      case "preVote":
        return this.#sendVoteReply("preVoteReply", from, this.#term, false);
      case "vote":
        return this.#sendVoteReply("voteReply", from, this.#term, false);
      case "append":
        // Refuses no position: by now the sender may lead the higher term, and would take it for the answer to a newer append.
        return this.#sendAppendReply(from, false, 0, 0, 0);
      case "heartbeat":
        return this.#sendHeartbeatReply(from, 0);
      case "readIndex":
        return this.#sendReadIndexReply(from, message.context, 0, false);
      case "preVoteReply":
      case "voteReply":
      case "appendReply":
      case "heartbeatReply":
      case "readIndexReply":
      case "timeoutNow":
        // C3: a reply of an older term says nothing any more.
        return;
    }
  }

  /** Adopts a higher term: nothing that was known of the old term's leader or votes holds. */
  #startTerm(term: number): void {
    if (term <= this.#term) this.#broken("terms only grow");
    this.#term = term;
    this.#votedFor = 0;
    this.#hardStateDirty = true;
    this.#verified = 0;
    this.#acked = 0;
    this.#ackDue = false;
    this.#voteReplyTo = 0;
    this.#heartbeatReplySeq = -1;
    this.#freshIndex = Infinity;
  }

  #becomeFollower(term: number, leader: number): void {
    const led = this.#role === "leader";
    if (term > this.#term) this.#startTerm(term);
    this.#role = "follower";
    if (leader !== this.#leader) this.#questions.askAgain();
    this.#leader = leader;
    if (!led) return;
    // Only here, and on a message of the leader or a granted vote, does the wait begin anew (E5).
    this.#resetElectionTimer();
    for (const read of this.#rounds.drain()) this.#finishRead(read, 0, false);
    this.#handedOver = this.#transfer?.asked === true;
    this.#transfer = undefined;
    this.#peers = [];
    this.#configurationDue = undefined;
    this.#snapshots = [];
    this.#sendDue = false;
    this.#verified = 0;
  }

  /** Asks whether a candidacy could succeed, without raising the term (dissertation 9.6). */
  #preCampaign(): void {
    this.#role = "preCandidate";
    this.#leader = 0;
    this.#resetElectionTimer();
    this.#votes.clear();
    this.#votes.set(this.nodeId, true);
    this.#requestVotes("preVote", this.#term + 1);
    this.#countVotes();
  }

  /**
   * Raises the term and votes for itself. The requests leave, and the own vote counts, only when both are durable together with the log that they
   * speak of (D2): after a crash this node could otherwise collect, for the same term but with a shorter log, votes that were meant for the longer.
   */
  #campaign(byTransfer = false): void {
    this.#startTerm(this.#term + 1);
    this.#candidateByTransfer = byTransfer;
    this.#votedFor = this.nodeId;
    this.#role = "candidate";
    this.#leader = 0;
    this.#resetElectionTimer();
    this.#votes.clear();
    this.#voteRequested = false;
  }

  #requestVotes(type: VoteMessage["type"], term: number): void {
    for (const to of membersOf(this.configuration)) {
      if (to === this.nodeId || !isVoter(this.configuration, to)) continue;
      this.#messages.push({
        type,
        group: this.group,
        from: this.nodeId,
        to,
        term,
        transfer: type === "vote" && this.#candidateByTransfer,
        lastIndex: this.#log.lastIndex,
        lastTerm: this.#log.lastTerm,
      });
    }
  }

  #countVotes(): void {
    const result = voteResult(this.configuration, (nodeId) => this.#votes.get(nodeId));
    if (result === "lost") this.#becomeFollower(this.#term, 0);
    else if (result === "won" && this.#role === "preCandidate") this.#campaign();
    else if (result === "won" && this.#role === "candidate") this.#becomeLeader();
  }

  #becomeLeader(): void {
    if (this.#durableTerm !== this.#term || this.#durableVote !== this.nodeId)
      this.#broken("a leader's own vote is durable");
    this.#role = "leader";
    this.#leader = this.nodeId;
    this.#leadsSinceTick = this.#nowTick;
    this.#rounds = new ReadRounds(this.#nowTick);
    this.#heartbeatElapsedTicks = 0;
    this.#commitIsOwn = false;
    this.#verified = 0;
    this.#ackDue = false;
    this.#peers = [];
    this.#setPeers();
    // Reads that were to be asked of another leader are now this one's.
    this.#questions.drain((context) => this.#rounds.add({ context, from: 0 }));
    this.#appendNoop();
    this.#sendHeartbeats();
  }

  /** §8: the first batch of the term; with it, all that earlier leaders left is committed too. */
  #appendNoop(): void {
    const header = {
      group: this.group,
      kind: BatchKind.noop,
      firstIndex: this.#log.lastIndex + 1,
      count: 1,
      term: this.#term,
      timeMs: this.#log.lastTimeMs,
      prevCrc: this.#log.lastCrc,
    };
    this.propose(sealBatch(header, new Uint8Array(batchHeaderBytes)));
  }

  #resetElectionTimer(): void {
    const { electionTicksMin, electionTicksMax } = this.#limits;
    this.#electionElapsedTicks = 0;
    this.#electionTimeoutTicks =
      electionTicksMin + Math.floor(this.#random() * (electionTicksMax - electionTicksMin));
  }

  /** A leader is alive, as far as this node can tell: it heard from it, or leads and heard from a quorum, within the shortest time-out. */
  #hearsLeader(): boolean {
    const heardTick = this.#role === "leader" ? this.#rounds.confirmedTick : this.#leaderHeardTick;
    return this.#leader !== 0 && this.#nowTick - heardTick < this.#limits.electionTicksMin;
  }

  #tickFollower(): void {
    this.#electionElapsedTicks++;
    if (this.#questions.count > 0) {
      const sinceTick = this.#nowTick - this.#limits.electionTicksMax;
      this.#questions.expire(sinceTick, (context) => this.#failRead(context));
    }
    // A single voter has nobody to wait for (E4).
    const alone = this.#role === "follower" && this.#isSingleVoter();
    if (!alone && this.#electionElapsedTicks < this.#electionTimeoutTicks) return;
    if (this.#mayCampaign) this.#preCampaign();
  }

  /**
   * A voter, or one that was until a change that may not be committed: the change may have reached this node alone, and then no other has
   * a log that could win (dissertation 4.2.2). Its own vote counts only where it is a voter.
   */
  #isElectable(): boolean {
    if (isVoter(this.configuration, this.nodeId)) return true;
    if (this.configurationCommitted) return false;
    return isVoter(this.#configurations.at(this.#commit), this.nodeId);
  }

  /** Time asks nothing of the configuration in force. They never change, so that each is looked at once: ticks of many groups must not touch much memory. */
  #isPlain(): boolean {
    const { configuration } = this;
    if (configuration === this.#plain) return true;
    if (this.#isSingleVoter() || this.#planDue()) return false;
    this.#plain = configuration;
    return true;
  }

  /** Whoever leads has a successor of the configuration to plan. */
  #planDue(): boolean {
    return isJoint(this.configuration) || this.configuration.promotions !== undefined;
  }

  #isSingleVoter(): boolean {
    const { voters, outgoing } = this.configuration;
    return voters.length === 1 && voters[0] === this.nodeId && outgoing.length === 0;
  }

  #tickLeader(): void {
    const { heartbeatTicks } = this.#limits;
    const untilEnd = this.#untilQuorumLost;
    if (untilEnd <= 0) {
      this.stepDown("no quorum was heard within the check-quorum time");
      return;
    }
    // The answer to a beat comes with the other's next one. Where that may be too late, this group asks on its own.
    if (untilEnd === heartbeatTicks && this.#anyGoesByBeat()) this.#sendHeartbeats();
    if (this.#transfer?.expired(this.#nowTick, this.#limits) === true) {
      this.#transfer = undefined;
      if (this.#resign()) return;
    }
    for (const peer of this.#peers) {
      // Appends or their answers were lost without a sign: start over from what is known (etcd waits for a connection event here).
      const idleTicks = this.#nowTick - peer.movedTick;
      if (peer.inflightFrames > 0 && idleTicks >= this.#limits.electionTicksMin) {
        peer.becomeProbe();
        this.#sendDue = true;
      }
    }
    if (!this.#isPlain() && this.#planDue()) this.#planSuccessor();
    if (this.#nowTick % heartbeatTicks === 0) this.#askAgain();
    if (++this.#heartbeatElapsedTicks >= heartbeatTicks) this.#sendHeartbeats(true);
  }

  /** What may have been lost is sent again now and then: on a clock of its own, since reads make heartbeats at any time. */
  #askAgain(): void {
    this.#dropLeft();
    if (this.#transfer !== undefined) this.#askTarget(true);
    for (const peer of this.#peers) {
      if (peer.state === "snapshot" && !peer.snapshotAsked) this.#sendDue = true;
      if (!peer.probeSent) continue;
      peer.probeSent = false;
      this.#sendDue = true;
    }
  }

  /* ---------------------------------------------------------------- votes */

  /** §5.4.1: the log of the candidate is at least as complete as this one's, durable or not (E1). */
  #isUpToDate(message: VoteMessage): boolean {
    const { lastTerm, lastIndex } = this.#log;
    if (message.lastTerm !== lastTerm) return message.lastTerm > lastTerm;
    return message.lastIndex >= lastIndex;
  }

  /**
   * A node without any configuration is on its way into the group; should its id have had another disk before, that one may have voted [36].
   * Nor does a wounded one vote [22]. A former member gets no vote, and no chance to disturb. Otherwise it does not matter who is a voter by this node's log, which may be behind.
   */
  #maySupport(candidate: number): boolean {
    if (this.#healing !== undefined || this.#isForgetful) return false;
    return this.configuration.voters.length > 0 && !this.#isRemoved(candidate);
  }

  /**
   * An earlier replica of this node may have acknowledged the very change by which it left, and a log that ends before that names members of then, who
   * count on it. All of that is in the log again once it has a batch of a later term than that in which it had left.
   */
  get #isForgetful(): boolean {
    return this.#log.lastTerm <= this.#formerTerm;
  }

  #isRemoved(nodeId: number): boolean {
    return this.#configurations.at(this.#commit).removed?.includes(nodeId) ?? false;
  }

  /** Promises nothing and changes nothing: no timer, no vote, no term. */
  #stepPreVote(message: VoteMessage): void {
    const mayVote =
      message.term > this.#term ||
      this.#votedFor === message.from ||
      (this.#votedFor === 0 && this.#leader === 0);
    const granted =
      mayVote &&
      !this.#hearsLeader() &&
      this.#isUpToDate(message) &&
      this.#maySupport(message.from);
    const term = granted ? message.term : this.#term;
    this.#sendVoteReply("preVoteReply", message.from, term, granted);
    if (this.#role === "leader" && this.#isRemoved(message.from)) this.#tellLeft(message.from);
  }

  #stepVote(message: VoteMessage): void {
    const mayVote = this.#votedFor === message.from || (this.#votedFor === 0 && this.#leader === 0);
    if (!mayVote || !this.#isUpToDate(message) || !this.#maySupport(message.from)) {
      this.#sendVoteReply("voteReply", message.from, this.#term, false);
      return;
    }
    if (this.#votedFor === 0) {
      this.#votedFor = message.from;
      this.#hardStateDirty = true;
    }
    // A pre-candidate that votes for another gives way to it.
    if (this.#role !== "follower") this.#becomeFollower(this.#term, this.#leader);
    this.#resetElectionTimer();
    this.#voteReplyTo = message.from;
    this.#releaseVote();
  }

  #releaseVote(): void {
    if (this.#voteReplyTo === 0 || !this.#voteIsDurable(this.#voteReplyTo)) return;
    this.#sendVoteReply("voteReply", this.#voteReplyTo, this.#term, true);
    this.#voteReplyTo = 0;
  }

  #voteIsDurable(nodeId: number): boolean {
    return this.#durableTerm === this.#term && this.#durableVote === nodeId;
  }

  #stepVoteReply(message: VoteReplyMessage): void {
    const expected = message.type === "preVoteReply" ? "preCandidate" : "candidate";
    if (this.#role !== expected || !isVoter(this.configuration, message.from)) return;
    if (message.type === "preVoteReply" && message.granted && message.term !== this.#term + 1)
      return;
    if (message.type === "voteReply" && !this.#voteRequested) return;
    if (!this.#votes.has(message.from)) this.#votes.set(message.from, message.granted);
    this.#countVotes();
  }

  #sendVoteReply(type: VoteReplyMessage["type"], to: number, term: number, granted: boolean): void {
    this.#messages.push({ type, group: this.group, from: this.nodeId, to, term, granted });
  }

  /** A sync is done: what waited for it may leave, or count (D1 to D4). */
  #releaseAfterSync(): void {
    this.#healIfMatched();
    this.#releaseVote();
    if (this.#heartbeatReplySeq >= 0 && this.#leader !== 0 && this.#durableTerm === this.#term) {
      this.#sendHeartbeatReply(this.#leader, this.#heartbeatReplySeq);
      this.#heartbeatReplySeq = -1;
    }
    if (this.#role === "candidate" && !this.#voteRequested && this.#voteIsDurable(this.nodeId)) {
      this.#voteRequested = true;
      this.#votes.set(this.nodeId, true);
      this.#requestVotes("vote", this.#term);
      this.#countVotes();
    } else if (this.#role === "leader") {
      this.#advanceCommit();
    }
  }

  /* ---------------------------------------------------------------- the log */

  #appendToLog(batch: Batch): void {
    const bytes = batch.bytes.byteLength;
    const { firstIndex, count, term, crc, timeMs } = batch;
    this.#log.append({ firstIndex, count, term, crc, timeMs, bytes });
    this.#unstable.push(batch);
    this.#unstableBytes += bytes;
    this.#unsyncedBytes += bytes;
    this.#unappliedBytes += bytes;
    if (batch.kind !== BatchKind.configuration) return;
    if (!this.#configurations.push(batch)) this.#broken("a configuration batch is well formed");
    this.#configurationChanged();
  }

  /**
   * Drops the log from `firstIndex` on; a new suffix follows in the same turn, so the store needs no other sign [18]. What of the old one
   * is being synced must never count for the new one (D5).
   */
  #truncateFrom(firstIndex: number): void {
    if (firstIndex <= this.#commit) this.#broken("nothing committed is truncated");
    this.#unappliedBytes -= this.#bytesIn(firstIndex, this.#log.lastIndex);
    this.#log.truncateFrom(firstIndex);
    const last = this.#log.lastIndex;
    this.#durableIndex = Math.min(this.#durableIndex, last);
    for (const write of this.#writes) write.lastIndex = Math.min(write.lastIndex, last);
    while (this.#unstable.length > 0 && this.#unstable.at(-1)!.firstIndex >= firstIndex) {
      const bytes = this.#unstable.pop()!.bytes.byteLength;
      this.#unstableBytes -= bytes;
      this.#unsyncedBytes -= bytes;
    }
    if (this.#configurations.truncateFrom(firstIndex)) this.#configurationChanged();
  }

  #configurationChanged(): void {
    // A new member has nothing yet, whatever the others have.
    this.#minMatch = 0;
    // Planned on top of another configuration.
    this.#configurationDue = undefined;
    if (this.#role === "leader") this.#setPeers();
  }

  /* ---------------------------------------------------------------- follower: appends and heartbeats */

  /** A message of this term's leader. False when it cannot be: this node leads, or follows another. */
  #hearLeader(from: number): boolean {
    if (this.#role === "leader" || (this.#leader !== 0 && this.#leader !== from)) return false;
    if (this.#role !== "follower" || this.#leader === 0) this.#becomeFollower(this.#term, from);
    this.#leaderHeardTick = this.#nowTick;
    this.#resetElectionTimer();
    return true;
  }

  #stepAppend(message: AppendMessage): void {
    if (!this.#isChained(message) || !this.#hearLeader(message.from)) return;
    if (!this.#matchesAtPrev(message)) return;
    if (!this.takesCommands && this.#bringsCommands(message)) return this.#declineAppend(message);
    if (!this.#takeBatches(message)) return;
    this.#ackDue ||= message.batches.length > 0 || this.#verified > this.#acked;
    this.#commitTo(Math.min(message.commit, this.#verified));
    this.#healIfMatched();
  }

  /** The batches are whole, in order, and each is chained to the one before. */
  #isChained(message: AppendMessage): boolean {
    let { prevIndex, prevTerm, prevCrc } = message;
    let timeMs = 0;
    for (const batch of message.batches) {
      const ok =
        batch.group === this.group &&
        batch.firstIndex === prevIndex + 1 &&
        batch.prevCrc === prevCrc &&
        batch.term >= prevTerm &&
        batch.term <= message.term &&
        batch.timeMs >= timeMs &&
        batch.count >= 1 &&
        isIndex(lastIndexOf(batch)) &&
        (batch.kind !== BatchKind.configuration || ConfigurationStack.accepts(batch));
      if (!ok) return false;
      prevIndex = lastIndexOf(batch);
      prevTerm = batch.term;
      prevCrc = batch.crc;
      timeMs = batch.timeMs;
    }
    return true;
  }

  /** §5.3, consistency check; answers a rejection with a hint where to go on. */
  #matchesAtPrev({ from, prevIndex, prevTerm, prevCrc }: AppendMessage): boolean {
    // Below the log's start all is committed, so this term's leader has it too; #takeBatches checks the seam.
    if (prevIndex < this.#log.start.index) return true;
    const termHere = this.#log.termOfEnd(prevIndex);
    if (termHere === prevTerm) {
      if (this.#log.crcOfEnd(prevIndex) !== prevCrc)
        this.#broken(`corruption: equal term but other bytes up to index ${prevIndex}`);
      return true;
    }
    if (prevIndex <= this.#commit)
      this.#broken(`the leader's log differs from what is committed, at index ${prevIndex}`);
    const hintIndex = this.#log.floorToTerm(prevIndex, prevTerm);
    this.#sendAppendReply(from, false, prevIndex, hintIndex, this.#log.termOfEnd(hintIndex));
    return false;
  }

  /**
   * Appends what is new, truncating only at a real conflict: a shorter or older append never cuts the log (C4). The log matches up to
   * the first batch, so boundaries agree, and each batch is either held already, in conflict, or new. False: the message is nonsense.
   */
  #takeBatches(message: AppendMessage): boolean {
    const { start } = this.#log;
    let last = message.prevIndex;
    for (const batch of message.batches) {
      const { firstIndex } = batch;
      last = lastIndexOf(batch);
      if (firstIndex <= start.index) {
        if (last > start.index) return false;
        if (last === start.index && batch.crc !== start.crc)
          this.#broken(`corruption: other bytes up to the log's start at index ${last}`);
        continue;
      }
      if (firstIndex <= this.#log.lastIndex) {
        const held = this.#log.find(firstIndex);
        if (this.#log.termAt(held) === batch.term) {
          if (this.#log.crcAt(held) !== batch.crc)
            this.#broken(`corruption: equal term but other bytes at index ${firstIndex}`);
          continue;
        }
        if (firstIndex <= this.#verified)
          this.#broken(`a leader never rewrites its log, as it did at index ${firstIndex}`);
        this.#truncateFrom(firstIndex);
      }
      this.#appendToLog(batch);
    }
    this.#verified = Math.max(this.#verified, last, start.index);
    return true;
  }

  /** New ones: a batch that is here already takes no room. */
  #bringsCommands({ batches }: AppendMessage): boolean {
    return batches.some((batch) => {
      const last = lastIndexOf(batch);
      const isHeld = last <= this.#log.start.index || this.#log.termOfEnd(last) === batch.term;
      return batch.kind === BatchKind.commands && !isHeld;
    });
  }

  /** As if it did not fit the log: the leader tries again a little later, and sends no more than that meanwhile. */
  #declineAppend({ from, prevIndex, toIndex }: AppendMessage): void {
    this.#sendAppendReply(from, false, toIndex, prevIndex, this.#log.termOfEnd(prevIndex));
  }

  /** Follower's commit, bounded by what is verified (C2); a hostile index is rounded down to a batch end. */
  #commitTo(index: number): void {
    if (index > this.#commit) this.#commit = Math.max(this.#commit, this.#log.floorToEnd(index));
  }

  /** An acknowledgement can say something: all that is verified is durable, or more is than was said. */
  #ackReady(): boolean {
    if (!this.#ackDue || this.#role !== "follower" || this.#leader === 0) return false;
    if (this.#durableTerm !== this.#term) return false;
    return this.#verified <= this.#durableIndex || this.#durableIndex > this.#acked;
  }

  /** D4: the highest index that is durable and verified in this term; one answer for all appends since the last. */
  #sendAck(): void {
    const index = Math.min(this.#verified, this.#durableIndex);
    this.#acked = Math.max(this.#acked, index);
    this.#ackDue = index < this.#verified;
    if (this.#healing === undefined) this.#sendAppendReply(this.#leader, true, index, 0, 0);
    // The leader may remember more: this is all, and where its log ends.
    else this.#sendAppendReply(this.#leader, true, index, this.#log.lastIndex, this.#log.lastTerm);
  }

  #sendAppendReply(
    to: number,
    accepted: boolean,
    index: number,
    hintIndex: number,
    hintTerm: number,
  ): void {
    this.#messages.push({
      type: "appendReply",
      group: this.group,
      from: this.nodeId,
      to,
      term: this.#term,
      accepted,
      index,
      hintIndex,
      hintTerm,
      wounded: this.#healing !== undefined,
    });
  }

  #stepHeartbeat(message: HeartbeatMessage): void {
    if (!this.#hearLeader(message.from)) return;
    this.#ackDue ||= this.#healing !== undefined;
    this.#commitTo(Math.min(message.commit, this.#verified));
    this.#minMatch = Math.max(this.#minMatch, message.minMatch);
    this.#freshAsOf(message.freshStamp - this.#firstStamp, message.commit);
    // In a term that a crash could make this node forget, an answer would be a promise that it cannot keep [34].
    if (this.#durableTerm === this.#term) this.#sendHeartbeatReply(message.from, message.readSeq);
    else this.#heartbeatReplySeq = Math.max(this.#heartbeatReplySeq, message.readSeq);
  }

  /** At this tick of the node's own, or later, a leader led and had committed nothing above `index`. */
  #freshAsOf(tick: number, index: number): void {
    // No stamp, or one of an earlier life.
    if (tick < 0 || tick > this.#nowTick) return;
    // What waits to be applied becomes true first; otherwise a node under load would never be fresh.
    if (this.#freshIndex !== Infinity) return;
    this.#freshIndex = index;
    this.#freshTickNext = tick;
    this.#refresh();
  }

  #refresh(): void {
    if (this.#applied < this.#freshIndex) return;
    this.#freshTick = Math.max(this.#freshTick, this.#freshTickNext);
    this.#freshIndex = Infinity;
  }

  #sendHeartbeatReply(to: number, readSeq: number): void {
    this.#messages.push({
      type: "heartbeatReply",
      group: this.group,
      from: this.nodeId,
      to,
      term: this.#term,
      readSeq,
      stamp: this.#firstStamp + this.#nowTick,
      preferred: this.isPreferred,
    });
  }

  /* ---------------------------------------------------------------- leader: replication */

  #peer(nodeId: number): Progress | undefined {
    for (const peer of this.#peers) if (peer.id === nodeId) return peer;
    return undefined;
  }

  /**
   * One progress per other member; those that stay keep theirs. A new one begins at the log's end, and is asked back from there. Those that leave
   * keep theirs too, until they know.
   */
  #setPeers(): void {
    const members = membersOf(this.configuration).filter((id) => id !== this.nodeId);
    const next = this.#log.lastIndex + 1;
    const peers = members.map((id) => {
      const known = this.#peer(id);
      // One that comes back before it knew that it had left is a member like any new one.
      const stays = known !== undefined && known.leftIndex === 0;
      return stays ? known : new Progress(id, next, this.#limits);
    });
    for (const peer of this.#peers) {
      if (members.includes(peer.id)) continue;
      if (peer.leftIndex === 0) {
        peer.leftIndex = this.#configurations.currentIndex;
        peer.leftTick = this.#nowTick;
      }
      peers.push(peer);
    }
    this.#peers = peers;
    this.#sendDue = true;
  }

  #sendAppends(): void {
    this.#sendDue = false;
    for (const peer of this.#peers) {
      // The batch before `next` must still be known, for the consistency check.
      if (peer.state !== "snapshot" && peer.next <= this.#log.start.index) peer.becomeSnapshot();
      if (peer.state === "replicate") this.#replicate(peer);
      else if (peer.state === "probe") this.#probe(peer);
      else this.#askForSnapshot(peer);
    }
  }

  #askForSnapshot(peer: Progress): void {
    if (peer.leftIndex > 0) return;
    if (peer.snapshotAsked || this.#nowTick < peer.snapshotAskTick) return;
    peer.snapshotAsked = true;
    this.#snapshots.push({ to: peer.id, minIndex: this.#log.start.index });
  }

  #replicate(peer: Progress): void {
    let sent = false;
    while (peer.next <= this.#log.lastIndex) {
      const windowBytes = peer.windowBytes;
      const lastIndex = this.#frameEnd(peer.next, windowBytes);
      if (lastIndex < peer.next) return;
      const bytes = this.#sendAppend(peer, lastIndex);
      peer.sent(lastIndex, bytes, this.#nowTick);
      sent = true;
    }
    // With nothing to send along with, news of the commit travels alone: clients of the follower wait for it [14].
    if (!sent && peer.commitSent < this.#commit) this.#sendAppend(peer, peer.next - 1);
  }

  /**
   * An append from `next` without moving it: a guess where the logs meet. When they are known to meet at the log's end, it is only told once what of
   * that is committed: who was restarted since does not know yet that its log is the leader's, and nothing else would say so in an idle group.
   */
  #probe(peer: Progress): void {
    if (peer.probeSent) return;
    if (peer.next > this.#log.lastIndex && peer.next === peer.match + 1) {
      if (peer.commitSent < this.#commit) this.#sendAppend(peer, peer.match);
      return;
    }
    this.#sendAppend(peer, this.#frameEnd(peer.next, Infinity));
    peer.probeSent = true;
  }

  /**
   * Last index of the batches from `next` on that fit one frame and the window; below `next` when none does. One batch over the frame's bound
   * travels alone; one over the window waits until nothing is in flight.
   */
  #frameEnd(next: number, windowBytes: number): number {
    let last = next - 1;
    let bytes = 0;
    const ordinal = this.#log.find(next);
    if (ordinal < 0) return last;
    for (let at = ordinal; at < this.#log.length; at++) {
      bytes += this.#log.bytesAt(at);
      if (bytes > windowBytes || (at > ordinal && bytes > this.#limits.appendBytesMax)) break;
      last = this.#log.lastIndexAt(at);
    }
    return last;
  }

  /** Returns the bytes of the batches from the peer's `next` to `lastIndex`. */
  #sendAppend(peer: Progress, lastIndex: number): number {
    const prevIndex = peer.next - 1;
    const prevTerm = this.#log.termOfEnd(prevIndex);
    if (prevTerm < 0) this.#broken("next follows on the end of a batch");
    this.#messages.push({
      type: "append",
      group: this.group,
      from: this.nodeId,
      to: peer.id,
      term: this.#term,
      prevIndex,
      prevTerm,
      prevCrc: this.#log.crcOfEnd(prevIndex),
      commit: this.#commit,
      fromIndex: peer.next,
      toIndex: lastIndex,
      batches: noBatches,
    });
    peer.commitSent = this.#commit;
    return this.#bytesIn(peer.next, lastIndex);
  }

  /** Bytes of the batches that end in [fromIndex, toIndex]. */
  #bytesIn(fromIndex: number, toIndex: number): number {
    let bytes = 0;
    for (let at = this.#log.find(fromIndex); at >= 0 && at < this.#log.length; at++) {
      if (this.#log.lastIndexAt(at) > toIndex) break;
      bytes += this.#log.bytesAt(at);
    }
    return bytes;
  }

  #stepAppendReply(message: AppendReplyMessage): void {
    const peer = this.#role === "leader" ? this.#peer(message.from) : undefined;
    if (peer === undefined) return;
    peer.heardTick = this.#nowTick;
    const heals = peer.wounded && !message.wounded;
    peer.wounded = message.wounded;
    if (message.wounded && this.#forget(peer, message)) return;
    if (message.accepted) this.#acknowledge(peer, message.index);
    else this.#backOff(peer, message);
    if (heals) this.#advanceCommit();
  }

  /** A wounded member has lost what it had acknowledged to this very leader [22]. What was committed on that strength stays so. */
  #forget(peer: Progress, message: AppendReplyMessage): boolean {
    const { accepted, index, hintIndex, hintTerm } = message;
    const isLess = accepted ? index < peer.match : index <= peer.match && index > 0;
    // It has verified nothing yet, which is no answer to a probe.
    if (!isLess) return accepted && index === 0;
    const match = accepted && this.#log.termOfEnd(index) >= 0 ? index : 0;
    peer.forget(match, Math.max(match, this.#log.floorToTerm(hintIndex, hintTerm)) + 1);
    this.#sendDue = true;
    return true;
  }

  #acknowledge(peer: Progress, index: number): void {
    // Below the log's start nothing can be checked, and nothing depends on it.
    if (index > this.#log.start.index && this.#log.termOfEnd(index) < 0) {
      // No batch ends there [2]: a protocol error. Nothing of it is believed.
      peer.becomeProbe();
      this.#sendDue = true;
      return;
    }
    const moved = peer.acknowledged(index, this.#nowTick);
    if (peer.state === "probe" && index === peer.match) peer.becomeReplicate();
    else if (peer.state === "snapshot" && peer.match >= this.#log.start.index) {
      peer.becomeProbe();
    }
    // Most acknowledgements find everything sent already.
    const hasAll = peer.next > this.#log.lastIndex && peer.commitSent >= this.#commit;
    if (!hasAll || peer.state !== "replicate") this.#sendDue = true;
    if (moved) this.#advanceCommit();
    if (moved && this.#transfer !== undefined) this.#askTarget();
  }

  /** §5.3 with a hint: continue at the highest position where the logs can meet. `match` never moves for a rejection (C3). */
  #backOff(peer: Progress, { index, hintIndex, hintTerm }: AppendReplyMessage): void {
    if (peer.state === "replicate") {
      if (index <= peer.match) return;
      peer.becomeProbe();
    } else if (peer.state === "probe") {
      // An answer to an older probe says nothing about this one.
      if (index !== peer.next - 1 || index <= peer.match) return;
      const bound = Math.min(hintIndex, index - 1);
      const { start } = this.#log;
      peer.next = Math.max(this.#log.floorToTerm(bound, hintTerm), peer.match) + 1;
      peer.probeSent = false;
      if (bound < start.index && peer.match < start.index) peer.becomeSnapshot();
    }
    this.#sendDue = true;
  }

  readonly #matchOf = (nodeId: number): number => {
    if (nodeId === this.nodeId) return this.#durableIndex;
    const peer = this.#peer(nodeId);
    return peer === undefined || peer.wounded ? 0 : peer.match;
  };

  /** §5.4.2: a quorum has it durably, and it is of this term; what is before it is committed with it (C1). */
  #advanceCommit(): void {
    const index = quorumValue(this.configuration, this.#matchOf);
    if (index <= this.#commit || this.#log.termOfEnd(index) !== this.#term) return;
    this.#commit = index;
    this.#commitIsOwn = true;
    this.#sendDue = true;
    if (!this.configurationCommitted) return;
    if (isJoint(this.configuration)) this.#planSuccessor();
    else if (!isVoter(this.configuration, this.nodeId)) this.#leaveOffice();
  }

  /* ---------------------------------------------------------------- leader: configurations */

  /**
   * A change is safe only on top of a committed configuration, and under a leader with a committed batch of its own term (the bug of 2015). One that
   * hands over leaves it to the next.
   */
  #maySucceed(): boolean {
    return this.#commitIsOwn && this.configurationCommitted && this.#transfer === undefined;
  }

  #checkSuccessor(batch: Batch): void {
    const next = decodeConfiguration(bodyOf(batch));
    if (next === undefined) this.#broken("a configuration batch is well formed");
    if (!this.configurationCommitted) this.#broken("one configuration change at a time");
    if (!this.#commitIsOwn) this.#broken("a leader commits in its term before members change");
    if (!follows(this.configuration, next)) this.#broken("voters change by joint consensus");
  }

  /** Whoever leads ends a joint state, and promotes the learners that were promised it. */
  #planSuccessor(): void {
    const { configuration } = this;
    const learners = this.#caughtUpLearners();
    if (!this.#maySucceed()) return;
    if (isJoint(configuration)) this.#configurationDue = leaveJoint(configuration);
    else if (learners.length > 0) {
      const next = promoteLearners(configuration, learners);
      if (this.liveMajority(next)) this.#configurationDue = next;
    }
  }

  /** Learners to be promoted that have been within one window of the log's end, durably, for two election time-outs. */
  #caughtUpLearners(): number[] {
    const { electionTicksMax } = this.#limits;
    const learners: number[] = [];
    const { promotions = {} } = this.configuration;
    for (const id of Object.keys(promotions)) {
      const peer = this.#peer(Number(id));
      if (peer === undefined || this.keptPlaces.has(promotions[Number(id)]!)) continue;
      const isHeard = this.#nowTick - peer.heardTick < electionTicksMax;
      if (!isHeard || !this.#isWithinWindow(peer.match)) peer.caughtUpTick = Infinity;
      else peer.caughtUpTick = Math.min(peer.caughtUpTick, this.#nowTick);
      if (this.#nowTick - peer.caughtUpTick >= 2 * electionTicksMax) learners.push(peer.id);
    }
    return learners;
  }

  /** With something of this term: who was a member before votes by nothing less (`formerTerm`), and once it is a voter others may need that vote. */
  #isWithinWindow(match: number): boolean {
    if (this.#log.termOfEnd(match) !== this.#term) return false;
    let bytes = 0;
    for (let at = this.#log.length - 1; at >= 0 && this.#log.firstIndexAt(at) > match; at--) {
      bytes += this.#log.bytesAt(at);
      if (bytes > this.#limits.inflightBytesMax) return false;
    }
    return true;
  }

  /** The change that took this leader's vote is committed: it hands over, and goes in any case. */
  #leaveOffice(): void {
    if (this.#transfer !== undefined) return;
    // They say what is committed. Appends must wait for the end of the turn: who leads next may change the log until then.
    this.#sendHeartbeats();
    if (this.transferLeadership(0).refusal !== undefined) this.#resign();
  }

  /** Once it has handed over it hears of no successor, as it is no member. */
  #resign(): boolean {
    if (!this.configurationCommitted || isVoter(this.configuration, this.nodeId)) return false;
    this.stepDown("this node is no longer a voter");
    return true;
  }

  #isActive(peer: Progress): boolean {
    return this.#nowTick - peer.heardTick < this.#limits.checkQuorumTicks;
  }

  /** A former member that campaigns does not know: it gets the log for a while. */
  #tellLeft(nodeId: number): void {
    if (this.#peer(nodeId) !== undefined) return;
    const peer = new Progress(nodeId, this.#log.lastIndex + 1, this.#limits);
    peer.leftIndex = this.#configurations.currentIndex;
    peer.leftTick = this.#nowTick;
    this.#peers.push(peer);
    this.#sendDue = true;
  }

  /** Who is no member any more is told so for a while, and then no more. */
  #dropLeft(): void {
    let hasLeft = false;
    for (const peer of this.#peers) if (peer.leftIndex > 0) hasLeft = true;
    if (!hasLeft) return;
    const isOver = (peer: Progress): boolean =>
      peer.leftIndex > 0 &&
      (peer.state === "snapshot" ||
        peer.readSeq >= peer.leftSeq ||
        (this.configurationCommitted &&
          this.#nowTick - peer.leftTick > 4 * this.#limits.electionTicksMax));
    this.#peers = this.#peers.filter((peer) => !isOver(peer));
  }

  /* ---------------------------------------------------------------- leader: heartbeats and reads */

  /**
   * To all members, on their own, never waiting for a disk (E7). Each is a round that can confirm reads. Those that are due by time alone spare the
   * members that hear the same by beats.
   */
  #sendHeartbeats(byTime = false): void {
    this.#heartbeatElapsedTicks = 0;
    // A single voter is its own quorum, and must not need a learner's word.
    const needsOthers = this.#peers.length > 0 && !this.#isSingleVoter();
    if (byTime && needsOthers && this.#allGoByBeat()) return;
    const readSeq = this.#rounds.open(this.#nowTick, this.#commit, this.#commitIsOwn);
    for (const peer of this.#peers) {
      if (!byTime || !this.#goesByBeat(peer)) this.#sendHeartbeat(peer, readSeq);
    }
    this.#confirmRounds();
  }

  #sendHeartbeat(peer: Progress, readSeq: number): void {
    const commit = Math.min(this.#commit, peer.match);
    this.#messages.push({
      type: "heartbeat",
      group: this.group,
      from: this.nodeId,
      to: peer.id,
      term: this.#term,
      commit,
      readSeq,
      freshStamp: peer.stamps.before(this.#rounds.freshSeq(peer.match)),
      minMatch: this.minMatch(),
    });
    const isTold = peer.leftIndex > 0 && commit >= peer.leftIndex;
    if (isTold) peer.leftSeq = Math.min(peer.leftSeq, readSeq);
  }

  #stepHeartbeatReply(message: HeartbeatReplyMessage): void {
    const peer = this.#role === "leader" ? this.#peer(message.from) : undefined;
    if (peer === undefined || message.readSeq > this.#rounds.lastSeq) return;
    peer.heardTick = this.#nowTick;
    if (message.readSeq <= peer.readSeq) return;
    peer.readSeq = message.readSeq;
    peer.preferred = message.preferred;
    peer.stamps.add(message.stamp, this.#rounds.lastSeq, this.#nowTick);
    this.#confirmRounds();
  }

  readonly #readSeqOf = (nodeId: number): number =>
    nodeId === this.nodeId ? this.#rounds.lastSeq : (this.#peer(nodeId)?.readSeq ?? 0);

  #confirmRounds(): void {
    const seq = quorumValue(this.configuration, this.#readSeqOf);
    this.#rounds.confirm(seq, (read, index) => this.#finishRead(read, index, true));
  }

  /* ---------------------------------------------------------------- beats: heartbeats of many groups in one [34] */

  /**
   * Asked for each beat to that member: whether it says for this group all that a heartbeat would. Then none is sent for as long as beats follow one
   * another. What they cannot do is to find anything out: where the logs meet, whether the term is durable there, what a wounded member has.
   */
  joinsBeat(nodeId: number): boolean {
    const peer = this.#role === "leader" ? this.#peer(nodeId) : undefined;
    if (peer === undefined || !this.#isSteady(peer)) return false;
    peer.beatTick = this.#nowTick;
    return true;
  }

  /** It follows in this term, and said so since it last did not. */
  #isSteady(peer: Progress): boolean {
    // One that has the whole log stays in probe after its connection broke, until there is more to send.
    const isAtEnd = peer.state === "probe" && peer.match === this.#log.lastIndex;
    return (
      (peer.state === "replicate" || isAtEnd) &&
      peer.readSeq >= peer.beatFromSeq &&
      peer.leftIndex === 0 &&
      !peer.wounded &&
      this.#commitIsOwn &&
      this.#rounds.isConfirmed
    );
  }

  /** No beat speaks for this group any more. */
  leavesBeat(nodeId: number): void {
    const peer = this.#peer(nodeId);
    if (peer !== undefined) peer.beatTick = -Infinity;
  }

  /** After a pause of the process, too, beats go on before all groups have sent heartbeats of their own. */
  #goesByBeat(peer: Progress): boolean {
    const sinceTicks = this.#nowTick - peer.beatTick;
    return sinceTicks <= 2 * this.#limits.heartbeatTicks && this.#isSteady(peer);
  }

  #anyGoesByBeat(): boolean {
    for (const peer of this.#peers) if (this.#goesByBeat(peer)) return true;
    return false;
  }

  #allGoByBeat(): boolean {
    for (const peer of this.#peers) if (!this.#goesByBeat(peer)) return false;
    return true;
  }

  /** For how many ticks at most this leader may have led no more without knowing it; Infinity = since its election. */
  get ledAgeTicks(): number {
    const isSure = this.#role === "leader" && this.#rounds.isConfirmed;
    return isSure ? this.#nowTick - this.#rounds.confirmedTick : Infinity;
  }

  /** A beat that left so long ago, and said that this node leads in that term, has been heard by that member, which follows. */
  beatAnswered(nodeId: number, term: number, ageTicks: number, preferred: boolean): void {
    const leads = this.#role === "leader" && term === this.#term;
    const peer = leads ? this.#peer(nodeId) : undefined;
    if (peer === undefined) return;
    peer.heardTick = this.#nowTick;
    peer.preferred = preferred;
    const sentTick = this.#nowTick - ageTicks;
    if (sentTick <= peer.beatAnsweredTick) return;
    peer.beatAnsweredTick = sentTick;
    const seq = this.#rounds.sentBefore(sentTick);
    if (seq > peer.readSeq) {
      peer.readSeq = seq;
      this.#confirmRounds();
    }
    // A quorum with this member in it says no more than that.
    if (sentTick <= this.#rounds.confirmedTick) return;
    const ledTick = quorumValue(this.configuration, this.#beatTickOf);
    if (ledTick <= this.#rounds.confirmedTick) return;
    this.#rounds.ledAt(ledTick);
    // All that was committed then, by whomever, this leader's own commit index covers.
    if (this.#commitIsOwn) this.#freshAsOf(ledTick, this.#commit);
  }

  readonly #beatTickOf = (nodeId: number): number =>
    nodeId === this.nodeId ? this.#nowTick : (this.#peer(nodeId)?.beatAnsweredTick ?? -Infinity);

  /** That member does not stand by what the beat said of this group: it is asked on its own, and goes by beats again once it has answered. */
  beatRefused(nodeId: number, term: number): void {
    const leads = this.#role === "leader" && term === this.#term;
    const peer = leads ? this.#peer(nodeId) : undefined;
    if (peer === undefined) return;
    // Reads wait for a round that all members get.
    const readSeq = this.#rounds.open(this.#nowTick, this.#commit, false);
    peer.beatTick = -Infinity;
    peer.beatFromSeq = readSeq;
    this.#sendHeartbeat(peer, readSeq);
  }

  /**
   * A beat says that its sender leads in that term. Heard like a heartbeat, but answered by the node for all its groups at once, so only where that answer
   * is true as it stands: in this very term, which is durable here. False where it is not; the sender then asks this group on its own. `freshTicks` ago
   * the sender surely led, and no more than `commit` was committed; Infinity = not known.
   */
  heardBeat(
    from: number,
    term: number,
    commit: number,
    minMatch: number,
    freshTicks: number,
  ): boolean {
    if (term !== this.#term || this.#durableTerm !== term || from === this.nodeId) return false;
    if (this.#healing !== undefined || !this.#hearLeader(from)) return false;
    this.#commitTo(Math.min(commit, this.#verified));
    this.#minMatch = Math.max(this.#minMatch, minMatch);
    this.#freshAsOf(this.#nowTick - freshTicks, commit);
    return true;
  }

  /** It follows that node in that term, and the same beat of it again would change nothing but since when it was not heard. */
  standsBy(leader: number, term: number, commit: number): boolean {
    return (
      term === this.#term &&
      this.#leader === leader &&
      this.#role === "follower" &&
      this.#durableTerm === term &&
      this.#commit >= commit &&
      this.#healing === undefined
    );
  }

  #roundReady(): boolean {
    if (!this.#mayHaveReads) return false;
    return this.#role === "leader" && this.#commitIsOwn && this.#rounds.roundDue;
  }

  #finishRead({ context, from }: LeaderRead, index: number, ok: boolean): void {
    if (from === 0) this.#reads.push({ context, index, ok });
    else this.#sendReadIndexReply(from, context, index, ok);
  }

  #failRead(context: number): void {
    this.#reads.push({ context, index: 0, ok: false });
  }

  #stepReadIndex(message: ReadIndexMessage): void {
    const { from, context } = message;
    const full = this.readsWaiting >= this.#limits.readWaitersMax;
    if (this.#role !== "leader" || full) return this.#sendReadIndexReply(from, context, 0, false);
    this.#mayHaveReads = true;
    this.#rounds.add({ context, from });
  }

  #sendReadIndexReply(to: number, context: number, index: number, ok: boolean): void {
    this.#messages.push({
      type: "readIndexReply",
      group: this.group,
      from: this.nodeId,
      to,
      term: this.#term,
      context,
      index,
      ok,
    });
  }

  /* ---------------------------------------------------------------- follower: reads */

  #questionReady(): boolean {
    if (!this.#mayHaveReads || this.#role !== "follower" || this.#leader === 0) return false;
    return this.#questions.due(this.#nowTick, this.#limits.heartbeatTicks);
  }

  #sendQuestion(): void {
    this.#messages.push({
      type: "readIndex",
      group: this.group,
      from: this.nodeId,
      to: this.#leader,
      term: this.#term,
      context: this.#questions.ask(this.#nowTick),
    });
  }

  #stepReadIndexReply({ from, context, index, ok }: ReadIndexReplyMessage): void {
    if (from !== this.#leader) return;
    const askedTick = this.#questions.answer(context, ok, (read) =>
      this.#reads.push({ context: read, index, ok: true }),
    );
    this.#freshAsOf(askedTick, index);
  }

  /* ---------------------------------------------------------------- leadership transfer */

  get #transferView(): TransferView {
    return {
      configuration: this.configuration,
      peers: this.#peers,
      nowTick: this.#nowTick,
      limits: this.#limits,
      bytesAbove: (index) => this.#bytesIn(index + 1, this.#log.lastIndex),
    };
  }

  /** Tells the target to campaign once it has the whole log durably (E8); `again`, as the message may be lost. */
  #askTarget(again = false): void {
    const transfer = this.#transfer;
    if (transfer === undefined || (transfer.asked && !again)) return;
    if (this.#peer(transfer.target)?.match !== this.#log.lastIndex) return;
    transfer.asked = true;
    this.#messages.push({
      type: "timeoutNow",
      group: this.group,
      from: this.nodeId,
      to: transfer.target,
      term: this.#term,
      lastIndex: this.#log.lastIndex,
      lastTerm: this.#log.lastTerm,
    });
    this.#resign();
  }

  /** The leader wants this node in its place: no waiting, and no pre-vote, which voters that hear the leader would refuse. */
  #stepTimeoutNow(message: TimeoutNowMessage): void {
    if (!this.#hearLeader(message.from)) return;
    const { lastIndex, lastTerm } = this.#log;
    // Late: the leader gave up the transfer and went on. Or from another life of this node.
    if (message.lastIndex !== lastIndex || message.lastTerm !== lastTerm) return;
    if (this.#durableIndex < lastIndex || !this.#mayCampaign || this.isReluctant) return;
    this.#campaign(true);
  }

  get #mayCampaign(): boolean {
    if (this.#healing !== undefined || this.#isForgetful) return false;
    return this.#term < Number.MAX_SAFE_INTEGER - 1 && this.#isElectable();
  }

  /* ---------------------------------------------------------------- invariants */

  #check(): void {
    const rule = brokenRule(this);
    if (rule !== undefined) this.#broken(rule);
  }

  #broken(reason: string): never {
    throw new InvariantError(reason, {
      group: this.group,
      nodeId: this.nodeId,
      role: this.role,
      term: this.term,
      votedFor: this.votedFor,
      leader: this.leader,
      commit: this.commit,
      appliedIndex: this.appliedIndex,
      durableIndex: this.durableIndex,
      verifiedIndex: this.verifiedIndex,
      startIndex: this.startIndex,
      lastIndex: this.lastIndex,
      lastTerm: this.lastTerm,
    });
  }
}

/** A safe integer from 0 up. */
function isIndex(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

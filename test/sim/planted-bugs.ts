/**
 * Bugs that the simulation must find, each a small change to the text of one source file, made while Bun loads it. The product has no
 * switch for them. The text to change must be there exactly once: when the code moves on, the bug is planted anew or the test fails.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface PlantedBug {
  readonly what: string;
  readonly changes: readonly Change[];
}

interface Change {
  /** Below src/. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const raft = "raft/raft.ts";
const group = "node/group.ts";
const watches = "node/watches.ts";
const sessions = "machine/sessions.ts";
const registry = "node/registry.ts";
const beats = "node/beats.ts";
const logStore = "storage/log-store.ts";
const httpMachine = "machine/http/http-machine.ts";
const sourcePath = join(import.meta.dir, "../../src");

export const plantedBugs = {
  ackBeforeSync: {
    what: "a follower acknowledges what it has appended before a sync has covered it",
    changes: [
      {
        file: raft,
        from: "const index = Math.min(this.#verified, this.#durableIndex);\n    this.#acked",
        to: "const index = this.#verified;\n    this.#acked",
      },
      {
        file: raft,
        from: "return this.#verified <= this.#durableIndex || this.#durableIndex > this.#acked;",
        to: "return true;",
      },
    ],
  },
  leaderCountsItselfBeforeSync: {
    what: "the leader counts its own log before a sync has covered it",
    changes: [
      {
        file: raft,
        from: "if (nodeId === this.nodeId) return this.#durableIndex;\n    const peer",
        to: "if (nodeId === this.nodeId) return this.#log.lastIndex;\n    const peer",
      },
    ],
  },
  commitsOlderTermByCounting: {
    what: "the leader commits batches of an earlier term because a quorum holds them (figure 8 of the paper)",
    changes: [
      {
        file: raft,
        from: "if (index <= this.#commit || this.#log.termOfEnd(index) !== this.#term) return;",
        to: "if (index <= this.#commit) return;",
      },
      {
        file: raft,
        from: "this.#commitIsOwn = true;",
        to: "this.#commitIsOwn = this.#log.termOfEnd(index) === this.#term;",
      },
    ],
  },
  shorterAppendCutsLog: {
    what: "an append that the follower holds already cuts off what comes after it",
    changes: [
      {
        file: raft,
        from: "if (this.#log.termAt(held) === batch.term) {",
        to: "if (this.#log.termAt(held) === batch.term && firstIndex <= this.#commit) {",
      },
      {
        file: raft,
        from: "if (firstIndex <= this.#verified)\n          this.#broken(",
        to: "this.#verified = Math.min(this.#verified, firstIndex - 1);\n        if (firstIndex < 0)\n          this.#broken(",
      },
    ],
  },
  readWithoutConfirmation: {
    what: "the leader answers reads without asking a quorum whether it still leads",
    changes: [
      {
        file: raft,
        from: 'if (this.#role === "leader") this.#rounds.add({ context, from: 0 });',
        to: 'if (this.#role === "leader") this.#reads.push({ context, index: this.#commit, ok: true });',
      },
    ],
  },
  voteBeforeSync: {
    what: "a granted vote leaves before it is durable",
    changes: [
      {
        file: raft,
        from: "if (this.#voteReplyTo === 0 || !this.#voteIsDurable(this.#voteReplyTo)) return;",
        to: "if (this.#voteReplyTo === 0) return;",
      },
    ],
  },
  voteWithoutLogCheck: {
    what: "a vote is granted to a candidate whose log is behind",
    changes: [
      {
        file: raft,
        from: "if (!mayVote || !this.#isUpToDate(message) || !this.#maySupport(message.from)) {",
        to: "if (!mayVote || !this.#maySupport(message.from)) {",
      },
      {
        file: raft,
        from: "!this.#hearsLeader() &&\n      this.#isUpToDate(message) &&",
        to: "!this.#hearsLeader() &&",
      },
    ],
  },
  syncCoversTruncated: {
    what: "a sync that was begun for a suffix counts for another one that has replaced it",
    changes: [
      {
        file: raft,
        from: "for (const write of this.#writes) write.lastIndex = Math.min(write.lastIndex, last);",
        to: "",
      },
      {
        file: raft,
        from: "this.#durableIndex = Math.max(this.#durableIndex, write.lastIndex);",
        to: "this.#durableIndex = Math.max(this.#durableIndex, Math.min(write.lastIndex, this.#log.lastIndex));",
      },
    ],
  },
  readBeforeOwnCommit: {
    what: "a new leader answers reads before a batch of its own term is committed",
    changes: [
      {
        file: raft,
        from: 'return this.#role === "leader" && this.#commitIsOwn && this.#rounds.roundDue;',
        to: 'return this.#role === "leader" && this.#rounds.roundDue;',
      },
      {
        file: raft,
        from: "const readSeq = this.#rounds.open(this.#nowTick, this.#commit, this.#commitIsOwn);",
        to: "const readSeq = this.#rounds.open(this.#nowTick, this.#commit, true);",
      },
    ],
  },
  commitBeyondVerified: {
    what: "a follower takes the leader's commit for its own log, verified or not",
    changes: [
      {
        file: raft,
        from: "this.#commitTo(Math.min(message.commit, this.#verified));\n    this.#minMatch",
        to: "this.#commitTo(Math.min(message.commit, this.#log.lastIndex));\n    this.#minMatch",
      },
      {
        file: raft,
        from: "const commit = Math.min(this.#commit, peer.match);",
        to: "const commit = this.#commit;",
      },
    ],
  },
  machineAheadOfLog: {
    what: "the state machine may make durable what the node's own log has not",
    changes: [
      {
        file: group,
        from: "this.machine.allowDurable(Math.min(this.raft.durableIndex, this.#commit));",
        to: "this.machine.allowDurable(this.#commit);",
      },
    ],
  },
  commitFromRejectedAppend: {
    what: "a follower takes the commit of an append whose place in its log does not match",
    changes: [
      {
        file: raft,
        from: "if (!this.#matchesAtPrev(message)) return;",
        to: "if (!this.#matchesAtPrev(message)) return this.#commitTo(message.commit);",
      },
    ],
  },
  matchFromStaleReply: {
    what: "an acknowledgement of an earlier term moves what the leader knows of a follower",
    changes: [
      {
        file: raft,
        from: "} else if (message.term < this.#term) {",
        to: '} else if (message.term < this.#term && message.type !== "appendReply") {',
      },
    ],
  },
  rejectionCountsAsMatch: {
    what: "the leader takes the place of a rejected append for matched",
    changes: [
      {
        file: raft,
        from: "if (message.accepted) this.#acknowledge(peer, message.index);",
        to: "if (message.accepted || message.index > 0) this.#acknowledge(peer, message.index);",
      },
    ],
  },
  verifiedOutlivesTerm: {
    what: "what was verified against an earlier leader is acknowledged to a new one",
    changes: [
      {
        file: raft,
        from: "this.#verified = 0;\n    this.#acked = 0;\n    this.#ackDue = false;",
        to: "this.#acked = 0;\n    this.#ackDue = this.#verified > 0;",
      },
      {
        file: raft,
        from: "if (firstIndex <= this.#verified)\n          this.#broken(",
        to: "this.#verified = Math.min(this.#verified, firstIndex - 1);\n        if (firstIndex < 0)\n          this.#broken(",
      },
    ],
  },
  voteNotPersisted: {
    what: "the term is written without the vote in it",
    changes: [
      {
        file: raft,
        from: "? { term: this.#term, votedFor: this.#votedFor, commit: this.#commit }",
        to: "? { term: this.#term, votedFor: 0, commit: this.#commit }",
      },
    ],
  },
  termKeepsVote: {
    what: "a new term begins with the vote of the one before",
    changes: [
      {
        file: raft,
        from: "this.#term = term;\n    this.#votedFor = 0;",
        to: "this.#term = term;",
      },
    ],
  },
  ownVoteBeforeSync: {
    what: "a candidate asks for votes, and counts its own, before its vote is durable",
    changes: [
      {
        file: raft,
        from: "this.#votes.clear();\n    this.#voteRequested = false;",
        to: 'this.#votes.clear();\n    this.#voteRequested = true;\n    this.#votes.set(this.nodeId, true);\n    this.#requestVotes("vote", this.#term);',
      },
      {
        file: raft,
        from: "if (this.#durableTerm !== this.#term || this.#durableVote !== this.nodeId)",
        to: "if (this.nodeId === 0)",
      },
    ],
  },
  ackInLazyTerm: {
    what: "a follower acknowledges in a term that a crash could make it forget",
    changes: [
      {
        file: raft,
        from: "if (this.#durableTerm !== this.#term) return false;",
        to: "",
      },
    ],
  },
  confirmsInLazyTerm: {
    what: "a follower confirms a leader in a term that a crash could make it forget",
    changes: [
      {
        file: raft,
        from: "if (this.#durableTerm === this.#term) this.#sendHeartbeatReply(message.from, message.readSeq);",
        to: "if (this.nodeId > 0) this.#sendHeartbeatReply(message.from, message.readSeq);",
      },
    ],
  },
  smallQuorum: {
    what: "one node less than a majority decides",
    changes: [
      {
        file: "raft/quorum.ts",
        from: "return Math.floor(voters.length / 2) + 1;",
        to: "return Math.floor(voters.length / 2);",
      },
    ],
  },
  noLeaderNoop: {
    what: "a new leader does not begin with a batch of its own",
    changes: [
      {
        file: raft,
        from: "this.#appendNoop();\n    this.#sendHeartbeats();",
        to: "this.#sendHeartbeats();",
      },
    ],
  },
  truncationKeepsDurable: {
    what: "a follower goes on to count as durable what it has truncated",
    changes: [
      {
        file: raft,
        from: "this.#durableIndex = Math.min(this.#durableIndex, last);",
        to: "",
      },
      {
        file: "raft/invariants.ts",
        from: 'if (!(state.durableIndex <= state.lastIndex)) return "durable index is within the log";',
        to: "",
      },
    ],
  },
  syncCoversLater: {
    what: "a sync counts for what was appended while it ran",
    changes: [
      {
        file: "storage/log-store.ts",
        from: "this.#segments.retire(seq);\n      done(seq);",
        to: "this.#segments.retire(seq);\n      done(this.#appendSeq);",
      },
    ],
  },
  readJoinsOldRound: {
    what: "a read joins a round of heartbeats that was sent before it came",
    changes: [
      {
        file: "raft/reads.ts",
        from: "  add(read: LeaderRead): void {\n    this.#waiting.push(read);",
        to: "  add(read: LeaderRead): void {\n    const last = this.#open.at(-1);\n    if (last !== undefined && last.commit !== Infinity) {\n      this.#open[this.#open.length - 1] = { ...last, reads: [...last.reads, read] };\n      this.#readsOpen++;\n      return;\n    }\n    this.#waiting.push(read);",
      },
    ],
  },
  readBeforeApplied: {
    what: "a read is answered before its index is applied",
    changes: [
      {
        file: "node/read-queue.ts",
        from: "if (round.index > appliedIndex) return true;",
        to: "if (round.index === Number.POSITIVE_INFINITY) return true;",
      },
    ],
  },
  logRetiredBeforeDurable: {
    what: "the log is given up where the state machine has applied it but not made it durable",
    changes: [
      {
        file: group,
        from: "Math.min(this.machine.durableIndex, this.raft.minMatch()),",
        to: "Math.min(this.machine.appliedIndex, this.raft.minMatch()),",
      },
    ],
  },
  appliedIndexOutsideTransaction: {
    what: "the applied index is written in a transaction after that of the data",
    changes: [
      {
        file: "machine/kv-flush.ts",
        from: "this.#meta = meta;\n    this.#durableIndex = meta.appliedIndex;",
        to: "this.#meta = this.written = meta;\n    this.#durableIndex = meta.appliedIndex;",
      },
      {
        file: "machine/kv-flush.ts",
        from: "this.#file.write(table, meta, {",
        to: "const file = this.#file;\n    const older = this.written ?? { appliedIndex: 0, stateHash: 0, timeMs: 0 };\n    this.written = meta;\n    const write = (events) => file.write(table, older, { ...events, committed: () => {}, durable: () => file.write(new table.constructor(), meta, events) });\n    write({",
      },
    ],
  },
  appliesTwiceAfterRestart: {
    what: "after a restart the last commands are applied once more",
    changes: [
      {
        file: "machine/kv.ts",
        from: "this.#appliedIndex = meta.appliedIndex;\n",
        to: "this.#appliedIndex = Math.max(0, meta.appliedIndex - 2);\n",
      },
    ],
  },
  watermarkIgnored: {
    what: "a log that ends before what was known durable, or is not what was, starts all the same",
    changes: [
      {
        file: "storage/recovery.ts",
        from: "if (!short && !replay.watermarkDiffers) return undefined;",
        to: "if (replay.lastSeq >= 0) return undefined;",
      },
    ],
  },
  woundedVotes: {
    what: "a node that has lost durable data votes all the same",
    changes: [
      {
        file: raft,
        from: "if (this.#healing !== undefined || this.#isForgetful) return false;\n    return this.configuration",
        to: "if (this.#isForgetful) return false;\n    return this.configuration",
      },
    ],
  },
  woundedCampaigns: {
    what: "a node that has lost durable data asks for votes all the same",
    changes: [
      {
        file: raft,
        from: "if (this.#healing !== undefined || this.#isForgetful) return false;\n    return this.#term <",
        to: "if (this.#isForgetful) return false;\n    return this.#term <",
      },
    ],
  },
  healsTooEarly: {
    what: "a wounded node is whole again as soon as a leader has matched anything of its log",
    changes: [
      {
        file: "raft/healing.ts",
        from: "return !isBelow && index >= this.appliedIndex;",
        to: "return !isBelow || index > 0;",
      },
    ],
  },
  woundNotDurable: {
    what: "a wounded node does not note that it is",
    changes: [
      {
        file: "storage/log-store.ts",
        from: "return group.wound !== undefined || this.#movedWounds.has(group);",
        to: "return group.cut > 0;",
      },
    ],
  },
  woundForgetsVote: {
    what: "a wounded node takes its vote in the terms that it may have forgotten for not given",
    changes: [
      {
        file: raft,
        from: "if (this.#votedFor === 0) this.#votedFor = this.nodeId;",
        to: "",
      },
      {
        file: raft,
        from: "if (wound.hardTerm > this.#term) {",
        to: "if (wound.hardTerm < 0) {",
      },
    ],
  },
  secondWoundForgetsFirst: {
    what: "the watermark of a wounded node says only what it has now",
    changes: [
      {
        file: "storage/log-store.ts",
        from: "wound === undefined ? durable : gravest(wound, durable)",
        to: "wound === undefined ? durable : durable",
      },
    ],
  },
  rottenBatchServed: {
    what: "a batch that has rotted is read back without its checksum",
    changes: [
      {
        file: "storage/recovery.ts",
        from: "if (whole === undefined || !batchIntact(whole)) return false;",
        to: "if (whole === undefined) return false;",
      },
      {
        file: "storage/log-store.ts",
        from: "batch.crc === log.crcAt(position) &&\n      batchIntact(batch);",
        to: "batch.crc === log.crcAt(position);",
      },
    ],
  },
  supersededIsAcknowledged: {
    what: "whoever waits for an index is answered by what is applied there, whoever wrote it",
    changes: [
      {
        file: "node/pending.ts",
        from: "if (entry.term !== batch.term) lost.push(entry);",
        to: "",
      },
    ],
  },
  lostForwardIsNotApplied: {
    what: "a write that was passed on to a leader which then vanished is reported as not applied",
    changes: [
      {
        file: group,
        from: '({ to }) => to === nodeId)) {\n      waiter.failed(this.#error("outcome_unknown"));',
        to: '({ to }) => to === nodeId)) {\n      waiter.failed(this.#error("not_leader"));',
      },
    ],
  },
  lateWriteIsNotApplied: {
    what: "a write that is in the log when its time is over is reported as not applied",
    changes: [
      {
        file: "node/pending.ts",
        from: '"Not committed in time; it may still be applied later."),',
        to: '"Not committed in time.", { outcome: "not-applied" }),',
      },
    ],
  },
  refusedIsApplied: {
    what: "a write for which there is no room is refused and taken",
    changes: [
      {
        file: group,
        from: "if (refusal !== undefined) return this.#refuse(section, refusal);\n    this.#inbox",
        to: "if (refusal !== undefined) {\n      this.#refuse(section, refusal);\n      section = { ...section, waiter: undefined, origin: 0 };\n    }\n    this.#inbox",
      },
    ],
  },
  waitersUnbounded: {
    what: "any number of requests may wait",
    changes: [
      {
        file: group,
        from: "return waiters >= this.#limits.waitersMax;",
        to: "return waiters < 0;",
      },
    ],
  },
  handsOverTooEarly: {
    what: "a leader hands over to who has not got all of its log yet",
    changes: [
      {
        file: raft,
        from: "if (this.#peer(transfer.target)?.match !== this.#log.lastIndex) return;",
        to: "",
      },
    ],
  },
  proposesWhileHandingOver: {
    what: "a leader that hands over goes on to take writes",
    changes: [
      {
        file: raft,
        from: 'if (this.#role !== "leader" || this.#transfer !== undefined) return undefined;',
        to: 'if (this.#role !== "leader") return undefined;',
      },
      {
        file: raft,
        from: 'if (this.#transfer !== undefined) this.#broken("a leader that hands over proposes nothing");',
        to: "",
      },
    ],
  },
  handsOverForEver: {
    what: "a leader whose target does not take over waits for it for ever",
    changes: [
      {
        file: "raft/transfer.ts",
        from: "return nowTick - this.sinceTick >= electionTicksMin;",
        to: "return nowTick - this.sinceTick < -electionTicksMin;",
      },
    ],
  },
  targetAsksFirst: {
    what: "who is told to take over begins with a pre-vote, which those who hear the leader refuse",
    changes: [{ file: raft, from: "this.#campaign(true);", to: "this.#preCampaign();" }],
  },
  votersStayLoyal: {
    what: "voters that hear the leader do not vote for whom it hands over to",
    changes: [
      {
        file: raft,
        from: "if (this.#hearsLeader() && !message.transfer) return false;",
        to: "if (this.#hearsLeader()) return false;",
      },
    ],
  },
  wishOutweighsLog: {
    what: "a vote for whom the leader wanted is granted without a look at the log, and so is one that came late",
    changes: [
      {
        file: raft,
        from: "if (!mayVote || !this.#isUpToDate(message) || !this.#maySupport(message.from)) {",
        to: "if (!mayVote || (!message.transfer && !this.#isUpToDate(message)) || !this.#maySupport(message.from)) {",
      },
      {
        file: raft,
        from: "if (message.lastIndex !== lastIndex || message.lastTerm !== lastTerm) return;",
        to: "",
      },
    ],
  },
  heldIsKept: {
    what: "what waited while leadership was handed over goes on to the next leader, and stays",
    changes: [
      {
        file: group,
        from: "for (const item of this.#inbox.takeAll()) {\n      const { section",
        to: "for (const item of this.#inbox.all) {\n      const { section",
      },
      {
        file: "node/inbox.ts",
        from: "  get length(): number {",
        to: "  get all(): readonly InboxSection[] {\n    return this.#sections;\n  }\n\n  get length(): number {",
      },
    ],
  },
  freshFromArrival: {
    what: "a local read counts its age from when a heartbeat arrived",
    changes: [
      {
        file: raft,
        from: "this.#freshAsOf(message.freshStamp - this.#firstStamp, message.commit);",
        to: "if (message.freshStamp > 0) this.#freshAsOf(this.#nowTick, message.commit);",
      },
    ],
  },
  freshFromNewestStamp: {
    what: "a leader returns the newest stamp of a follower, though no quorum has confirmed it since",
    changes: [
      {
        file: "raft/reads.ts",
        from: "if (entry.lastSeq < seq) return entry.stamp;",
        to: "if (seq > 0) return entry.stamp;",
      },
    ],
  },
  freshBeforeApplied: {
    what: "a local read counts as fresh though what makes it so is not applied",
    changes: [
      {
        file: raft,
        from: "if (this.#applied < this.#freshIndex) return;",
        to: "",
      },
    ],
  },
  freshWithoutMatch: {
    what: "a leader vouches for a follower that has not got what was committed",
    changes: [
      {
        file: raft,
        from: "this.#rounds.freshSeq(peer.match)",
        to: "this.#rounds.freshSeq(Number.MAX_SAFE_INTEGER)",
      },
    ],
  },
  pauseMakesNothingOlder: {
    what: "the time for which a process stood still does not make its local reads older",
    changes: [
      {
        file: group,
        from: "return this.raft.stalenessTicks + (this.#freshSinceSkip() ? 0 : this.#skippedTicks);",
        to: "return this.raft.stalenessTicks;",
      },
    ],
  },
  boundedReadBeforeTicks: {
    what: "a local read with a bound is answered before the time that has passed is counted",
    changes: [
      {
        file: group,
        from: "this.#boundedReads.push({ waiter, maxStalenessMs });\n      return;",
        to: "this.#boundedReads.push({ waiter, maxStalenessMs });\n      return this.#answerBoundedReads();",
      },
    ],
  },
  configurationUsedLate: {
    what: "other voters count only once that is committed, by the voters before",
    changes: [
      {
        file: raft,
        from: "const index = quorumValue(this.configuration, this.#matchOf);",
        to: "const index = quorumValue(this.#configurations.at(this.#commit), this.#matchOf);",
      },
    ],
  },
  jointDecidedByNew: {
    what: "the new voters alone decide as soon as they are in the log",
    changes: [
      {
        file: "raft/quorum.ts",
        from: "return Math.min(incoming, majorityValue(configuration.outgoing, valueOf));",
        to: "return incoming;",
      },
    ],
  },
  jointDecidedByOld: {
    what: "the old voters alone decide until they are gone",
    changes: [
      {
        file: "raft/quorum.ts",
        from: "return Math.min(incoming, majorityValue(configuration.outgoing, valueOf));",
        to: "return majorityValue(configuration.outgoing, valueOf);",
      },
    ],
  },
  jointElectedByNew: {
    what: "the new voters alone elect as soon as they are in the log",
    changes: [
      {
        file: "raft/quorum.ts",
        from: 'if (configuration.outgoing.length === 0 || incoming === "lost") return incoming;',
        to: 'if (configuration.outgoing.length >= 0 || incoming === "lost") return incoming;',
      },
    ],
  },
  leavesJointEarly: {
    what: "a joint state is left before it is committed",
    changes: [
      {
        file: raft,
        from: "if (!this.#maySucceed()) return;\n    if (isJoint(configuration))",
        to: "if (isJoint(configuration))",
      },
      {
        file: raft,
        from: 'if (!this.configurationCommitted) this.#broken("one configuration change at a time");',
        to: "",
      },
      {
        file: raft,
        from: 'if (!this.#commitIsOwn) this.#broken("a leader commits in its term before members change");',
        to: "",
      },
    ],
  },
  twoChangesInFlight: {
    what: "members change while a change before is not committed",
    changes: [
      {
        file: raft,
        from: "return this.#commitIsOwn && this.configurationCommitted && this.#transfer === undefined;",
        to: "return this.#commitIsOwn && this.#transfer === undefined;",
      },
      {
        file: raft,
        from: 'if (!this.configurationCommitted) this.#broken("one configuration change at a time");',
        to: "",
      },
    ],
  },
  votersChangeAtOnce: {
    what: "voters change in one step, without a joint state",
    changes: [
      {
        file: "raft/membership.ts",
        from: "const outgoing = sameIds(voters, draft.before) ? [] : draft.before;",
        to: "const outgoing: number[] = [];",
      },
      {
        file: raft,
        from: 'if (!follows(this.configuration, next)) this.#broken("voters change by joint consensus");',
        to: "follows(this.configuration, next);",
      },
    ],
  },
  learnerInQuorum: {
    what: "a learner counts where a majority is needed to commit",
    changes: [
      {
        file: "raft/quorum.ts",
        from: "const incoming = majorityValue(configuration.voters, valueOf);",
        to: "const incoming = majorityValue([...configuration.voters, ...configuration.learners], valueOf);",
      },
    ],
  },
  learnerElects: {
    what: "a learner counts where a majority is needed to lead",
    changes: [
      {
        file: "raft/quorum.ts",
        from: "const incoming = majorityVote(configuration.voters, voteOf);",
        to: "const incoming = majorityVote([...configuration.voters, ...configuration.learners], voteOf);",
      },
      {
        file: raft,
        from: "if (to === this.nodeId || !isVoter(this.configuration, to)) continue;",
        to: "if (to === this.nodeId) continue;",
      },
      {
        file: raft,
        from: "if (this.#role !== expected || !isVoter(this.configuration, message.from)) return;",
        to: "if (this.#role !== expected) return;",
      },
    ],
  },
  leaderCountsItselfOutside: {
    what: "a leader goes on to count itself after the change that takes its vote",
    changes: [
      {
        file: raft,
        from: "const index = quorumValue(this.configuration, this.#matchOf);",
        to: "const voters = [...new Set([...this.configuration.voters, this.nodeId])];\n    const index = quorumValue({ ...this.configuration, voters }, this.#matchOf);",
      },
    ],
  },
  removedLeaderStays: {
    what: "a leader that is no voter any more goes on to lead",
    changes: [
      {
        file: raft,
        from: "else if (!isVoter(this.configuration, this.nodeId)) this.#leaveOffice();",
        to: "",
      },
    ],
  },
  jointStateNotInherited: {
    what: "a joint state that a leader left behind is not ended by the next",
    changes: [
      {
        file: raft,
        from: "if (isJoint(configuration)) this.#configurationDue = leaveJoint(configuration);",
        to: "if (isJoint(configuration) && this.#log.termOfEnd(this.#configurations.currentIndex) === this.#term)\n      this.#configurationDue = leaveJoint(configuration);",
      },
    ],
  },
  leaverNeverCampaigns: {
    what: "a node that a change would take the vote from never campaigns, though its log alone may be able to win",
    changes: [
      {
        file: raft,
        from: "return isVoter(this.#configurations.at(this.#commit), this.nodeId);",
        to: "return false;",
      },
    ],
  },
  removedIdComesBack: {
    what: "the id of a former member is given to a new one",
    changes: [
      {
        file: "raft/membership.ts",
        from: "if (draft.removed.has(id)) {",
        to: "if (draft.removed.has(-id)) {",
      },
      {
        file: "raft/configuration.ts",
        from: "if (removed.some((id) => members.has(id))) return false;",
        to: "",
      },
    ],
  },
  promotesWithoutLog: {
    what: "a learner becomes a voter after a while, whatever it has of the log",
    changes: [
      {
        file: raft,
        from: "if (!isHeard || !this.#isWithinWindow(peer.match)) peer.caughtUpTick = Infinity;",
        to: "if (!isHeard && this.#isWithinWindow(peer.match)) peer.caughtUpTick = Infinity;",
      },
      {
        file: raft,
        from: "if (this.liveMajority(next)) this.#configurationDue = next;",
        to: "this.#configurationDue = next;",
      },
    ],
  },
  newMemberCountsAsFull: {
    what: "a new member counts as having the whole log",
    changes: [
      {
        file: raft,
        from: "return stays ? known : new Progress(id, next, this.#limits);",
        to: "return stays ? known : Object.assign(new Progress(id, next, this.#limits), { match: next - 1 });",
      },
    ],
  },
  logCutBeforeMachineDurable: {
    what: "where a member lags, the log is cut up to what the machine has applied, though that is not durable",
    changes: [
      {
        file: group,
        from: "const { durableIndex } = this.machine;\n    this.#compaction.step(durableIndex);",
        to: "const durableIndex = this.machine.appliedIndex;\n    this.#compaction.step(durableIndex);",
      },
    ],
  },
  snapshotKeepsOldMembers: {
    what: "a snapshot is taken over without the members that come with it",
    changes: [
      {
        file: raft,
        from: "this.#configurations.reset(start.index, configuration);",
        to: "this.#configurations.reset(start.index, this.configuration);",
      },
    ],
  },
  snapshotCarriesNewestMembers: {
    what: "a snapshot carries the members of the leader's newest batch, committed or not, instead of those at its index",
    changes: [
      {
        file: "node/snapshot-sender.ts",
        from: "encodeConfiguration(raft.configurationAt(start.index));",
        to: "encodeConfiguration(raft.configuration);",
      },
    ],
  },
  snapshotCarriesOldestMembers: {
    what: "a snapshot carries the members at the beginning of the leader's log, not those at its own index",
    changes: [
      {
        file: "node/snapshot-sender.ts",
        from: "encodeConfiguration(raft.configurationAt(start.index));",
        to: "encodeConfiguration(raft.configurationAt(raft.startIndex));",
      },
    ],
  },
  snapshotInstalledBeforeDurable: {
    what: "a snapshot is taken over when its last part is written, before it is verified and durable",
    changes: [
      {
        file: "node/snapshot-receiver.ts",
        from: "if (receiving.finished !== undefined) return",
        to: "if (receiving.written === offer.bytes) return this.#finished(receiving, true);\n    if (receiving.finished !== undefined) return",
      },
    ],
  },
  snapshotKeepsSuffix: {
    what: "what lay beyond a snapshot's index in the log is kept, though the log did not match there",
    changes: [
      {
        file: raft,
        from: "this.#log.reset(start);",
        to: "this.#log.compactTo(start);",
      },
    ],
  },
  snapshotAcknowledgedBeforeSync: {
    what: "a snapshot is acknowledged before the log's pointer to it is durable",
    changes: [
      {
        file: raft,
        from: "this.#durableIndex = 0;\n    for (const write of this.#writes) write.lastIndex = 0;\n    this.#restore",
        to: "this.#durableIndex = start.index;\n    for (const write of this.#writes) write.lastIndex = 0;\n    this.#restore",
      },
    ],
  },
  machineFileNotRepeated: {
    what: "a new segment does not say which file is the state machine, so that is forgotten with the segment that did",
    changes: [
      {
        file: "storage/log-store.ts",
        from: "if (group.machineGeneration > 0) stateRecords++;",
        to: "",
      },
      {
        file: "storage/log-store.ts",
        from: "if (machineGeneration === 0) continue;",
        to: "if (machineGeneration >= 0) continue;",
      },
    ],
  },
  checkpointUnderSnapshot: {
    what: "a checkpoint changes the main file while a snapshot is sent from it",
    changes: [
      {
        file: "machine/kv-flush.ts",
        from: "this.#limits.kvWalBytesMax && !this.#snapshots.held;",
        to: "this.#limits.kvWalBytesMax;",
      },
    ],
  },
  snapshotOfWrongIndex: {
    what: "a snapshot says that it is at what is applied in memory, not at what is in the file",
    changes: [
      {
        file: "machine/kv.ts",
        from: "this.#live.snapshots.want(done);",
        to: "this.#live.snapshots.want((held) => done(held && { ...held, index: this.#appliedIndex }));",
      },
    ],
  },
  watchSkipsSnapshot: {
    what: "watches go on behind a snapshot that was taken over, as if nothing had changed up to there",
    changes: [
      {
        file: watches,
        from: 'for (const watch of this.#all) if (watch.place === "live") this.#endCompacted(watch);\n        return;',
        to: "this.livePosition = this.#oldest;\n        continue;",
      },
      {
        file: watches,
        from: "if (ownPosition < oldest) this.#endCompacted(watch);\n      else if",
        to: "if (ownPosition < oldest) watch.ownPosition = oldest;\n      else if",
      },
      {
        file: watches,
        from: "else if (watch.ownPosition < this.#oldest) this.#endCompacted(watch);",
        to: "",
      },
    ],
  },
  watchTrustsForgottenOutcomes: {
    what: "after a start, watches are told of commands of the last life as if all had done what they say",
    changes: [
      {
        file: "machine/kv.ts",
        from: "this.history.reset(meta.appliedIndex);",
        to: "",
      },
    ],
  },
  watchProgressAhead: {
    what: "a watch hears that nothing has changed up to what is applied, not up to what it was told",
    changes: [
      {
        file: watches,
        from: "this.#tell(watch, watch.position);",
        to: "this.#tell(watch, this.#options.appliedIndex());",
      },
    ],
  },
  watchJoinsWithoutCatchingUp: {
    what: "a watch that has room again goes on with the others, wherever it stands",
    changes: [
      {
        file: watches,
        from: "if (watch.ownPosition === this.livePosition) {",
        to: "if (watch.ownPosition <= this.livePosition) {",
      },
    ],
  },
  deduplicatesByAnotherSession: {
    what: "a section counts as applied when another session has applied one of the same numbers",
    changes: [
      {
        file: "machine/session-table.ts",
        from: "  close(id: number): void {",
        to: "  elsewhere(firstSeq: number, count: number): AppliedSection | undefined {\n    for (const each of this.#sessions.values()) {\n      const found = this.find(each, firstSeq);\n      if (found?.count === count) return found;\n    }\n    return undefined;\n  }\n\n  close(id: number): void {",
      },
      {
        file: sessions,
        from: "    if (firstSeq === session.nextSeq && Number",
        to: "    const twin = this.#table.elsewhere(firstSeq, count);\n    if (twin !== undefined) return this.#again(true, twin, results);\n    if (firstSeq === session.nextSeq && Number",
      },
    ],
  },
  expiresByWallClock: {
    what: "sessions end by the clock of each node, not by the cluster's time",
    changes: [
      {
        file: "machine/kv.ts",
        from: "this.#sessions.apply(batch, next, this.#hash);",
        to: "this.#sessions.apply({ ...batch, timeMs: Math.floor(this.#nowMs()) }, next, this.#hash);",
      },
    ],
  },
  windowTrimmedEarly: {
    what: "with what a client has confirmed, the result behind it is forgotten too",
    changes: [
      {
        file: "machine/session-table.ts",
        from: "window[0]!.count - 1 <= doneUpTo) {",
        to: "window[0]!.count - 2 <= doneUpTo) {",
      },
    ],
  },
  sessionsNotSaved: {
    what: "what is known of sessions is not in the machine's file, so neither a restart nor a snapshot has it",
    changes: [
      {
        file: "machine/kv.ts",
        from: "sessions: this.#sessions.save(),",
        to: "sessions: new Uint8Array(0),",
      },
    ],
  },
  requestIdsNotLoaded: {
    what: "after a restart or a snapshot no request id is known",
    changes: [
      {
        file: "machine/request-ids.ts",
        from: "this.#places.set(nameOf(this.#idAt(at)), at);",
        to: "",
      },
    ],
  },
  laterSectionOvertakes: {
    what: "a section enters the log though one before it was just refused",
    changes: [
      {
        file: "server/session-gaps.ts",
        from: "if (firstSeq > refused) return false;",
        to: "",
      },
    ],
  },
  gapsApplied: {
    what: "a section is applied though one before it is missing",
    changes: [
      {
        file: sessions,
        from: "if (firstSeq === session.nextSeq && Number",
        to: "if (firstSeq >= session.nextSeq && Number",
      },
    ],
  },
  sessionNotKeptAliveByUse: {
    what: "a session ends some time after it was opened, however much it is used",
    changes: [
      {
        file: "machine/session-table.ts",
        from: "    session.lastMs = timeMs;\n    return session;",
        to: "    return session;",
      },
    ],
  },
  repeatedWithNewIndex: {
    what: "a section that comes again is answered with its new place in the log",
    changes: [
      {
        file: "node/applier.ts",
        from: "?.applied(originalIndex, results);",
        to: "?.applied(index > originalIndex ? index : originalIndex, results);",
      },
    ],
  },
  sessionsBeforeTheirVersion: {
    what: "sections of sessions enter the log before the apply version makes them such",
    changes: [
      {
        file: group,
        from: "if (kind === SectionKind.plain || this.machine.applyVersion >= sessionsVersion) {\n      return this.#enqueue",
        to: "if (kind === SectionKind.plain || this.machine.applyVersion >= 0) {\n      return this.#enqueue",
      },
    ],
  },
  notAppliedOnLostLeadership: {
    what: "what is in the log of a leader that is deposed is reported as not applied",
    changes: [
      {
        file: group,
        from: 'else this.#refuseInbox("not_leader");\n',
        to: 'else this.#refuseInbox("not_leader");\n      this.#pending.failAll(this.#error("not_leader"));\n',
      },
    ],
  },
  applyVersionNotSaved: {
    what: "the apply version is not saved with the data: a node that starts again applies as the first version did",
    changes: [
      {
        file: "machine/kv.ts",
        from: "      applyVersion: this.#sessions.version,\n",
        to: "      applyVersion: applyVersionFirst,\n",
      },
    ],
  },
  tooNewIsApplied: {
    what: "a node goes on though its log raises the apply version beyond its build",
    changes: [
      {
        file: "node/apply-version.ts",
        from: "if (version > this.#options.max) return version;",
        to: "if (version > 250) return version;",
      },
      {
        file: "node/apply-version.ts",
        from: "const all = Math.min(max, upTo(), ...this.#others().map((id) => this.#maxOf(id)));",
        to: "const all = Math.min(max, upTo(), ...this.#others().map((id) => this.#maxOf(id) || max));",
      },
    ],
  },
  buriedGroupReturns: {
    what: "a group that was removed is made again by what the registry said before",
    changes: [
      {
        file: registry,
        from: "return revision <= (this.#options.store.tombstones.get(entry.id) ?? 0);",
        to: "return revision <= Math.min(0, this.#options.store.tombstones.get(entry.id) ?? 0);",
      },
      {
        file: logStore,
        from: "removedAt === undefined || registryIndex > removedAt,",
        to: "removedAt === undefined || registryIndex > 0,",
      },
    ],
  },
  beatOverChangedGroup: {
    what: "a group that this node does not lead any more is taken for unchanged, and goes on to be claimed",
    changes: [
      {
        file: beats,
        from: "if (said.size > claims) this.#withdraw(pair, seq, changed);",
        to: "if (said.size > claims && claims > 1e9) this.#withdraw(pair, seq, changed);",
      },
    ],
  },
  tombstoneLostAtRotation: {
    what: "a new segment does not repeat the tombstones, so they are forgotten with the segment that had them",
    changes: [
      {
        file: logStore,
        from: "      for (const [group, registryIndex] of this.#tombstones) {\n        records.push(",
        to: "      for (const [group, registryIndex] of this.#movedTombstones.size > 0 ? this.#tombstones : []) {\n        records.push(",
      },
      {
        file: logStore,
        from: "let stateRecords = this.#tombstones.size;",
        to: "let stateRecords = this.#movedTombstones.size > 0 ? this.#tombstones.size : 0;",
      },
    ],
  },
  tombstoneForgottenEarly: {
    what: "a tombstone is forgotten once it is written, though the registry's state is not durable that far",
    changes: [
      {
        file: logStore,
        from: "if (isWritten && removedAt <= registryIndex) this.#tombstones.delete(group);",
        to: "if (isWritten && (removedAt <= registryIndex || removedAt > 0)) this.#tombstones.delete(group);",
      },
    ],
  },
  rewriteSupersedes: {
    what: "a batch that is copied forward takes the place of all that comes behind it",
    changes: [
      {
        file: logStore,
        from: "records.push({ seq, kind: RecordKind.rewrite, group: group.group, data });",
        to: "records.push({ seq, kind: RecordKind.batch, group: group.group, data });",
      },
    ],
  },
  rewriteOutOfOrder: {
    what: "batches that are copied forward change places",
    changes: [
      {
        file: logStore,
        from: "copied.forEach(({ group, position }, at) => {\n        group.relocate(position, records[at]!.seq);",
        to: "copied.forEach(({ group, position }, at) => {\n        group.relocate(position, records[records.length - 1 - at]!.seq);",
      },
    ],
  },
  replicaGoesBeforeItsVote: {
    what: "a node that is to leave a group forgets it at once, though the group goes on to count on it",
    changes: [
      {
        file: registry,
        from: "return members.some(this.#isThis) || leaving.some(this.#isThis);",
        to: "return members.some(this.#isThis);",
      },
    ],
  },
  returnsBeforeItIsGone: {
    what: "a node comes back to a group before it has dropped the replica of its last stay, and answers for it meanwhile",
    changes: [
      {
        file: "node/registry-changes.ts",
        from: "      if (lingers(found.entry, node)) throw stillThere(id, node);\n",
        to: "",
      },
    ],
  },
  removedGroupIdGivenAgain: {
    what: "the id of a group that was removed is given to a new one",
    changes: [
      {
        file: "node/registry-changes.ts",
        from: "let given: readonly IdRun[] = runs;",
        to: "let given: readonly IdRun[] = [...view.groups.keys()].toSorted((a, b) => a - b).map((id): IdRun => [id, id]);",
      },
    ],
  },
  hotGroupStarves: {
    what: "who found no room for what waits in it is not first the next time: a group that is written to enough is first each time",
    changes: [
      {
        file: "node/shard.ts",
        from: "    const order = this.#passedOver;\n    for (const group of this.#active) if (!group.isPassedOver) order.push(group);\n",
        to: "    const order = [...this.#active];\n",
      },
    ],
  },
  filesOfRemovedGroupStay: {
    what: "what a removed group had in files is left where it is",
    changes: [
      {
        file: "node/replicas.ts",
        from: "      this.#options.deleteFiles(id);\n",
        to: "",
      },
    ],
  },
  blockedDropped: {
    what: "what found no space for the log is forgotten, and not tried again",
    changes: [
      {
        file: "node/shard.ts",
        from: "      if (this.#blocked === undefined) this.#setBlocked({ writes, effects });\n",
        to: "      return undefined;\n",
      },
    ],
  },
  appGivenBeyondLog: {
    what: "an application is given entries that are not durable in this node's own log",
    changes: [
      {
        file: httpMachine,
        from: "if (!pipeline.hasRoom || last > this.#allowedIndex) return false;",
        to: "if (!pipeline.hasRoom) return false;",
      },
    ],
  },
  appSavedBeforeSync: {
    what: "what is applied is noted as durable before the application has synced it",
    changes: [
      {
        file: httpMachine,
        from: 'this.#ask({ name: "Sync" }, () => this.#save(state));',
        to: 'this.#ask({ name: "Sync" }, () => {});\n    this.#save(state);',
      },
    ],
  },
  appForgottenNotGivenAgain: {
    what: "entries that an application has forgotten are not given again",
    changes: [
      {
        file: httpMachine,
        from: "      pipeline.load(this.#saved);\n      this.#clean();",
        to: "      this.#clean();",
      },
    ],
  },
  appStoredGivenAgain: {
    what: "an application is given entries that it says it has",
    changes: [
      {
        file: "machine/http/update-pipeline.ts",
        from: "Math.max(first, from, this.#storedIndex + 1)",
        to: "Math.max(first, from)",
      },
    ],
  },
  appReadsDoNotWait: {
    what: "an application is asked to read though it lacks what was applied when the read came",
    changes: [
      {
        file: "machine/http/app-reads.ts",
        from: "appliedIndex >= read.index",
        to: "appliedIndex >= -1",
      },
    ],
  },
  appRestoreForgotten: {
    what: "after a crash an application is not given the snapshot that it was to be given",
    changes: [
      {
        file: httpMachine,
        from: "snapshot: number, restores: true };",
        to: "snapshot: number, restores: false };",
      },
    ],
  },
} as const satisfies Record<string, PlantedBug>;

export type BugName = keyof typeof plantedBugs;

export function isBugName(name: string): name is BugName {
  return Object.hasOwn(plantedBugs, name);
}

/** From now on this process loads the changed files. To be called before anything of src/ is imported. */
export function plant(name: BugName): void {
  const texts = new Map<string, string>();
  const { changes }: PlantedBug = plantedBugs[name];
  for (const { file, from, to } of changes) {
    const text = texts.get(file) ?? readFileSync(join(sourcePath, file), "utf8");
    const times = text.split(from).length - 1;
    if (times !== 1) {
      throw new Error(`${name}: the text to change is ${times} times in src/${file}: ${from}`);
    }
    texts.set(
      file,
      text.replace(from, () => to),
    );
  }
  Bun.plugin({
    name: `planted bug ${name}`,
    setup(build) {
      for (const [file, contents] of texts) {
        const filter = new RegExp(`/src/${file.replaceAll(".", "\\.")}$`);
        build.onLoad({ filter }, () => ({ contents, loader: "ts" }));
      }
    },
  });
}

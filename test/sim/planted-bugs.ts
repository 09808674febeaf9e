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
const sourcePath = join(import.meta.dir, "../../src");

export const plantedBugs = {
  ackBeforeSync: {
    what: "a follower acknowledges what it has appended before a sync has covered it",
    changes: [
      {
        file: raft,
        from: "const index = Math.min(this.#verified, this.#durableIndex);",
        to: "const index = this.#verified;",
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
        from: "nodeId === this.nodeId ? this.#durableIndex : (this.#peer(nodeId)?.match ?? 0);",
        to: "nodeId === this.nodeId ? this.#log.lastIndex : (this.#peer(nodeId)?.match ?? 0);",
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
        from: 'else if (this.#role === "leader") this.#rounds.add({ context, from: 0 });',
        to: 'else if (this.#role === "leader") this.#reads.push({ context, index: this.#commit, ok: true });',
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
        from: "if (!mayVote || !this.#isUpToDate(message)) {",
        to: "if (!mayVote) {",
      },
      {
        file: raft,
        from: "const granted = mayVote && !this.#hearsLeader() && this.#isUpToDate(message);",
        to: "const granted = mayVote && !this.#hearsLeader();",
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
        from: "commit: Math.min(this.#commit, peer.match),",
        to: "commit: this.#commit,",
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
  logRetiredUnderFollowers: {
    what: "the log is given up though a follower still needs it",
    changes: [
      {
        file: group,
        from: "Math.min(this.machine.durableIndex, this.raft.minMatch()),",
        to: "Math.min(this.machine.durableIndex, this.raft.durableIndex),",
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
        from: "this.#appliedIndex = meta.appliedIndex;\n    return",
        to: "this.#appliedIndex = Math.max(0, meta.appliedIndex - 2);\n    return",
      },
    ],
  },
  watermarkIgnored: {
    what: "a log that ends before what was known durable, or is not what was, starts all the same",
    changes: [
      {
        file: "storage/recovery.ts",
        from: "if (!short && !replay.watermarkDiffers) return;",
        to: "if (replay.lastSeq >= 0) return;",
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

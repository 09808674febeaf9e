/**
 * Bugs that the simulation must find, each a small change to the text of one source file, made while Bun loads it. The product has no
 * switch for them. The text to change must be there exactly once: when the code moves on, the bug is planted anew or the test fails.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface PlantedBug {
  readonly what: string;
  /** Below src/. */
  readonly file: string;
  readonly changes: readonly { readonly from: string; readonly to: string }[];
}

const raft = "raft/raft.ts";

export const plantedBugs = {
  ackBeforeSync: {
    what: "a follower acknowledges what it has appended before a sync has covered it",
    file: raft,
    changes: [
      {
        from: "const index = Math.min(this.#verified, this.#durableIndex);",
        to: "const index = this.#verified;",
      },
      {
        from: "return this.#verified <= this.#durableIndex || this.#durableIndex > this.#acked;",
        to: "return true;",
      },
    ],
  },
  leaderCountsItselfBeforeSync: {
    what: "the leader counts its own log before a sync has covered it",
    file: raft,
    changes: [
      {
        from: "nodeId === this.nodeId ? this.#durableIndex : (this.#peer(nodeId)?.match ?? 0);",
        to: "nodeId === this.nodeId ? this.#log.lastIndex : (this.#peer(nodeId)?.match ?? 0);",
      },
    ],
  },
  commitsOlderTermByCounting: {
    what: "the leader commits batches of an earlier term because a quorum holds them (figure 8 of the paper)",
    file: raft,
    changes: [
      {
        from: "if (index <= this.#commit || this.#log.termOfEnd(index) !== this.#term) return;",
        to: "if (index <= this.#commit) return;",
      },
      {
        from: "this.#commitIsOwn = true;",
        to: "this.#commitIsOwn = this.#log.termOfEnd(index) === this.#term;",
      },
    ],
  },
  shorterAppendCutsLog: {
    what: "an append that the follower holds already cuts off what comes after it",
    file: raft,
    changes: [
      {
        from: "if (this.#log.termAt(held) === batch.term) {",
        to: "if (this.#log.termAt(held) === batch.term && firstIndex <= this.#commit) {",
      },
      {
        from: "if (firstIndex <= this.#verified)\n          this.#broken(",
        to: "this.#verified = Math.min(this.#verified, firstIndex - 1);\n        if (firstIndex < 0)\n          this.#broken(",
      },
    ],
  },
  readWithoutConfirmation: {
    what: "the leader answers reads without asking a quorum whether it still leads",
    file: raft,
    changes: [
      {
        from: 'else if (this.#role === "leader") this.#rounds.add({ context, from: 0 });',
        to: 'else if (this.#role === "leader") this.#reads.push({ context, index: this.#commit, ok: true });',
      },
    ],
  },
  voteBeforeSync: {
    what: "a granted vote leaves before it is durable",
    file: raft,
    changes: [
      {
        from: "if (this.#voteReplyTo === 0 || !this.#voteIsDurable(this.#voteReplyTo)) return;",
        to: "if (this.#voteReplyTo === 0) return;",
      },
    ],
  },
  voteWithoutLogCheck: {
    what: "a vote is granted to a candidate whose log is behind",
    file: raft,
    changes: [
      {
        from: "if (!mayVote || !this.#isUpToDate(message)) {",
        to: "if (!mayVote) {",
      },
      {
        from: "const granted = mayVote && !this.#hearsLeader() && this.#isUpToDate(message);",
        to: "const granted = mayVote && !this.#hearsLeader();",
      },
    ],
  },
  syncCoversTruncated: {
    what: "a sync that was begun for a suffix counts for another one that has replaced it",
    file: raft,
    changes: [
      {
        from: "for (const write of this.#writes) write.lastIndex = Math.min(write.lastIndex, last);",
        to: "",
      },
      {
        from: "this.#durableIndex = Math.max(this.#durableIndex, write.lastIndex);",
        to: "this.#durableIndex = Math.max(this.#durableIndex, Math.min(write.lastIndex, this.#log.lastIndex));",
      },
    ],
  },
  readBeforeOwnCommit: {
    what: "a new leader answers reads before a batch of its own term is committed",
    file: raft,
    changes: [
      {
        from: 'return this.#role === "leader" && this.#commitIsOwn && this.#rounds.roundDue;',
        to: 'return this.#role === "leader" && this.#rounds.roundDue;',
      },
      {
        from: "const readSeq = this.#rounds.open(this.#nowTick, this.#commit, this.#commitIsOwn);",
        to: "const readSeq = this.#rounds.open(this.#nowTick, this.#commit, true);",
      },
    ],
  },
  commitBeyondVerified: {
    what: "a follower takes the leader's commit for its own log, verified or not",
    file: raft,
    changes: [
      {
        from: "this.#commitTo(Math.min(message.commit, this.#verified));\n    this.#minMatch",
        to: "this.#commitTo(Math.min(message.commit, this.#log.lastIndex));\n    this.#minMatch",
      },
      {
        from: "commit: Math.min(this.#commit, peer.match),",
        to: "commit: this.#commit,",
      },
    ],
  },
  machineAheadOfLog: {
    what: "the state machine may make durable what the node's own log has not",
    file: "node/group.ts",
    changes: [
      {
        from: "this.machine.allowDurable(Math.min(this.raft.durableIndex, this.#commit));",
        to: "this.machine.allowDurable(this.#commit);",
      },
    ],
  },
} as const satisfies Record<string, PlantedBug>;

export type BugName = keyof typeof plantedBugs;

export function isBugName(name: string): name is BugName {
  return Object.hasOwn(plantedBugs, name);
}

/** From now on this process loads the changed file. To be called before anything of src/ is imported. */
export function plant(name: BugName): void {
  const bug: PlantedBug = plantedBugs[name];
  const path = join(import.meta.dir, "../../src", bug.file);
  let text = readFileSync(path, "utf8");
  for (const { from, to } of bug.changes) {
    const times = text.split(from).length - 1;
    if (times !== 1) {
      throw new Error(`${name}: the text to change is ${times} times in src/${bug.file}: ${from}`);
    }
    text = text.replace(from, () => to);
  }
  Bun.plugin({
    name: `planted bug ${name}`,
    setup(build) {
      const filter = new RegExp(`/src/${bug.file.replaceAll(".", "\\.")}$`);
      build.onLoad({ filter }, () => ({ contents: text, loader: "ts" }));
    },
  });
}

/**
 * Bugs that the tests of this folder must find: each leaves out, or does too early, one thing that keeps an application from losing something, getting it twice
 * or answering what is not so. The text to change must be there exactly once.
 */
export interface PlantedBug {
  readonly what: string;
  /** Below src/machine/http. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const machine = "http-machine.ts";
const pipeline = "update-pipeline.ts";
const link = "app-link.ts";
const reads = "app-reads.ts";
const snapshots = "app-snapshots.ts";

export const plantedBugs: Readonly<Record<string, PlantedBug>> = {
  savedBeforeSync: {
    what: "what is applied is noted as durable before the application has synced it",
    file: machine,
    from: 'this.#ask({ name: "Sync" }, () => this.#save(state));',
    to: 'this.#ask({ name: "Sync" }, () => {}); this.#save(state);',
  },
  givenBeyondTheLog: {
    what: "entries are given that are not durable in this node's own log",
    file: machine,
    from: "if (!pipeline.hasRoom || last > this.#allowedIndex) return false;",
    to: "if (!pipeline.hasRoom) return false;",
  },
  forgottenNotGivenAgain: {
    what: "entries that the application has forgotten are not given again",
    file: machine,
    from: "      pipeline.load(this.#saved);\n      this.#clean();",
    to: "      this.#clean();",
  },
  givenBeforeThePointer: {
    what: "a snapshot is given that the log may still forget",
    file: machine,
    from: "if (!restoring.isDurable || restoring.isGiven",
    to: "if (restoring.isGiven",
  },
  readsOutliveTheInstance: {
    what: "reads that were under way when the application was lost are not asked again",
    file: machine,
    from: "    this.#reads.closed();\n",
    to: "",
  },
  readsDoNotWait: {
    what: "a read is asked though the application lacks what was applied when it came",
    file: reads,
    from: "appliedIndex >= read.index",
    to: "appliedIndex >= -1",
  },
  streamsNotCompared: {
    what: "a snapshot that comes out otherwise is handed out to its end",
    file: snapshots,
    from: "bytes !== this.#appBytes || crc !== this.#crc",
    to: "bytes !== this.#appBytes",
  },
  lostResultsAreEmpty: {
    what: "a result that was lost is told as an empty one",
    file: pipeline,
    from: "return isKnown ? undefined : false;",
    to: "return undefined;",
  },
  storedGivenAgain: {
    what: "entries are given that the application says it has",
    file: pipeline,
    from: "Math.max(first, from, this.#storedIndex + 1)",
    to: "Math.max(first, from)",
  },
  aheadAccepted: {
    what: "an application that is ahead of all that it was ever given is taken as it is",
    file: machine,
    from: "if (ahead !== undefined) return ahead;",
    to: "",
  },
  oldStateAfterRestore: {
    what: "a state of before a snapshot is gone on from",
    file: machine,
    from: "find(({ snapshot }) => snapshot >= generation)",
    to: "find(() => true)",
  },
  otherInstanceIgnored: {
    what: "the answer of an application that was started anew counts",
    file: link,
    from: "else if (instance !== undefined && instance !== this.instance) {",
    to: "else if (instance === null) {",
  },
  restoreForgotten: {
    what: "after a crash a snapshot is not given that was to be",
    file: machine,
    from: "snapshot: number, restores: true };",
    to: "snapshot: number, restores: false };",
  },
  entryIndexNotKept: {
    what: "which entry was applied last is not remembered",
    file: pipeline,
    from: "this.#appIndex = Math.max(this.#appIndex, deliverer.lastEntry);",
    to: "",
  },
  lateSaveCounts: {
    what: "a state that was being saved when a snapshot came counts after it",
    file: machine,
    from: "      this.#saving = false;\n      if (epoch !== this.#epoch) return;\n      if (ok) {",
    to: "      this.#saving = false;\n      if (ok) {",
  },
  refillBeyondTheLog: {
    what: "another member's state is taken over before this node's log has come to it",
    file: machine,
    from: "state.appliedIndex > this.#allowedIndex) return;",
    to: "state.appliedIndex < 0) return;",
  },
  readyIsEnough: {
    what: "an application that is ready and does not do its work counts as there",
    file: link,
    from: "    this.#doubt = what;\n",
    to: "",
  },
};

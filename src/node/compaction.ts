/**
 * When the log is cut, and how far [19]. By commands: each time that `entries` of them can go, the machine is to be durable at the end of just that
 * batch, and the log goes up to there, but for its tail. So a restart replays at most so many, and what came while the machine was being written. By
 * bytes: once the log holds `bytes`, all but its tail goes. Neither ever comes early; late only by a write of the machine that is under way, or
 * while a member is waited for (group.ts). The bounds are a node's own and can be changed while it runs.
 */
import type { LogStart } from "../wire/batch.ts";

export interface CompactionPolicy {
  /** Cut once so many commands can go; 0 = not by commands. */
  readonly entries: number;
  /** Cut once the log holds so many bytes; 0 = not by bytes. */
  readonly bytes: number;
  /** Kept of the log's end, for members that were away for a moment. */
  readonly tailBytes: number;
}

const MiB = 1_048_576;

/** Not by commands: at full speed there is no number of them at which flushes would neither cost more than they have to nor come too late. */
export const defaultCompaction: CompactionPolicy = {
  entries: 0,
  bytes: 256 * MiB,
  tailBytes: 64 * MiB,
};

/** Why these are no bounds to keep, or undefined. */
export function compactionProblem(policy: CompactionPolicy): string | undefined {
  for (const [name, value] of Object.entries(policy)) {
    if (!Number.isSafeInteger(value) || value < 0)
      return `${name} must be a whole number from 0 on`;
  }
  if (policy.bytes > 0 && policy.tailBytes >= policy.bytes) {
    return "the tail that is kept must be below the bytes at which the log is cut";
  }
  return undefined;
}

/** The log as the policy sees it. */
export interface CompactableLog {
  readonly startIndex: number;
  readonly lastIndex: number;
  readonly logBytes: number;
  /** The highest batch end at or below `index` that leaves at least `tailBytes`; undefined where the log starts there already. */
  compactionPoint(index: number, tailBytes: number): LogStart | undefined;
}

export class Compaction {
  readonly #log: CompactableLog;
  #policy!: CompactionPolicy;
  /** Where the next interval by commands ends; Infinity = there is none. */
  #mark = Infinity;
  /** The log is to begin here; 0 = nothing is due. */
  #goal = 0;

  /** `durableIndex` is the machine's, here and below. */
  constructor(log: CompactableLog, policy: CompactionPolicy, durableIndex: number) {
    this.#log = log;
    this.change(policy, durableIndex);
  }

  get policy(): CompactionPolicy {
    return this.#policy;
  }

  change(policy: CompactionPolicy, durableIndex: number): void {
    this.#policy = policy;
    this.#goal = 0;
    const canGo = this.#endBefore(durableIndex) - this.#log.startIndex;
    this.#mark = policy.entries === 0 ? Infinity : durableIndex + policy.entries - canGo;
  }

  /** The machine is to flush once it has applied this; Infinity = the policy does not need it to. */
  flushAt(durableIndex: number): number {
    return durableIndex < this.#goal ? Math.min(this.#mark, this.#goal) : this.#mark;
  }

  /** Looks what has become due; in each turn, so it costs three comparisons. */
  step(durableIndex: number): void {
    const { entries, bytes } = this.#policy;
    if (durableIndex >= this.#mark) {
      this.#mark = durableIndex + entries;
      this.#due(this.#endBefore(durableIndex));
    }
    if (this.#goal === 0 && bytes > 0 && this.#log.logBytes >= bytes) {
      this.#due(this.#endBefore(this.#log.lastIndex));
    }
  }

  isDue(durableIndex: number): boolean {
    return this.#goal > 0 && durableIndex >= this.#goal;
  }

  /**
   * Where to cut now, with the log up to `keptFrom` free to go because nobody needs it any more. Short of what is due only where that is
   * held up and an interval, or the bytes, can go all the same.
   */
  cut(durableIndex: number, keptFrom: number): LogStart | undefined {
    if (!this.isDue(durableIndex)) return undefined;
    const { entries, bytes } = this.#policy;
    const { startIndex, logBytes } = this.#log;
    const start = this.#log.compactionPoint(Math.min(this.#goal, keptFrom), 0);
    if (keptFrom >= this.#goal) {
      this.#goal = 0;
      return start;
    }
    if (start === undefined) return undefined;
    const isLarge = bytes > 0 && logBytes >= bytes;
    return isLarge || (entries > 0 && start.index - startIndex >= entries) ? start : undefined;
  }

  #endBefore(index: number): number {
    const { startIndex } = this.#log;
    return this.#log.compactionPoint(index, this.#policy.tailBytes)?.index ?? startIndex;
  }

  #due(index: number): void {
    if (index > this.#log.startIndex) this.#goal = Math.max(this.#goal, index);
  }
}

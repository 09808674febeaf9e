/**
 * When the log is cut, and how far [19]. What every member has is not kept at all; where one lags, the log is kept for it up to these bounds,
 * and beyond them it gets a snapshot. The bounds are a node's own and can be changed while it runs.
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

export const defaultCompaction: CompactionPolicy = {
  entries: 100_000,
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

/** Something may have to go: asked often, so it costs two comparisons. */
export function isDue(log: CompactableLog, { entries, bytes }: CompactionPolicy): boolean {
  if (bytes > 0 && log.logBytes >= bytes) return true;
  return entries > 0 && log.lastIndex - log.startIndex >= entries;
}

/** Where to cut, with everything up to `index` free to go; undefined = not now. */
export function cutAt(
  log: CompactableLog,
  index: number,
  policy: CompactionPolicy,
): LogStart | undefined {
  if (!isDue(log, policy)) return undefined;
  const { entries, bytes, tailBytes } = policy;
  const isLarge = bytes > 0 && log.logBytes >= bytes;
  const start = log.compactionPoint(index, tailBytes);
  if (start === undefined) return undefined;
  return isLarge || start.index - log.startIndex >= entries ? start : undefined;
}

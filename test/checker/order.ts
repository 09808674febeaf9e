/**
 * Cheap checks over a whole history, all keys at once, that need no search: the log index of every operation is known, so
 * the order is known, and it has to agree with real time and with what was read. Stronger than linearizability key by key, and independent of wgl.ts.
 */
import type { Operation } from "./history.ts";

/** What is wrong with the history, or undefined. */
export function checkOrder(history: readonly Operation[]): string | undefined {
  const done = history.filter(({ outcome, index }) => outcome === "ok" && index > 0);
  return checkRealTime(done) ?? checkIndexesUnique(done) ?? checkReplay(history, done);
}

/** What returned before another was called has the lower index; a read may share its index with what came before. */
function checkRealTime(done: readonly Operation[]): string | undefined {
  const byCall = done.toSorted((a, b) => a.call - b.call);
  const byReturn = done.toSorted((a, b) => a.return - b.return);
  let highest: Operation | undefined;
  let at = 0;
  for (const operation of byCall) {
    for (; at < byReturn.length && byReturn[at]!.return < operation.call; at++) {
      const returned = byReturn[at]!;
      if (highest === undefined || returned.index > highest.index) highest = returned;
    }
    if (highest === undefined) continue;
    const least = operation.kind === "get" ? highest.index : highest.index + 1;
    if (operation.index < least) {
      return `${operation.kind} of ${operation.key} called at ${operation.call} has index ${operation.index}, after index ${highest.index} had returned at ${highest.return}`;
    }
  }
  return undefined;
}

function checkIndexesUnique(done: readonly Operation[]): string | undefined {
  const seen = new Map<number, Operation>();
  for (const operation of done) {
    const { kind, index, key, transaction } = operation;
    if (kind === "get") continue;
    const other = seen.get(index);
    const together = transaction !== undefined && transaction === other?.transaction;
    if (other !== undefined && !together) {
      return `two acknowledged writes have index ${index} (${other.key}, ${key})`;
    }
    seen.set(index, operation);
  }
  return undefined;
}

/**
 * Each read saw the newest acknowledged write below its index, or an unacknowledged one above that: never an older one, never one from
 * beyond its index.
 */
function checkReplay(
  history: readonly Operation[],
  done: readonly Operation[],
): string | undefined {
  const writer = new Map<string, Operation>();
  for (const operation of history) {
    if (operation.value === "" || operation.kind === "get") continue;
    writer.set(operation.value, operation);
  }
  const newest = new Map<string, Operation>();
  const byIndex = done.toSorted((a, b) => a.index - b.index || rank(a) - rank(b));
  for (const operation of byIndex) {
    const { key, kind } = operation;
    if (kind !== "get") {
      if (operation.success) newest.set(key, operation);
      continue;
    }
    const last = newest.get(key);
    const where = `get of ${key} at index ${operation.index}`;
    if (!operation.success) continue;
    if (operation.seenRevision > operation.index) {
      return `${where} saw revision ${operation.seenRevision}, not yet applied`;
    }
    if (last !== undefined && operation.seenRevision < last.index) {
      return `${where} saw revision ${operation.seenRevision}, but ${last.kind} at ${last.index} had overwritten it`;
    }
    const from = writer.get(operation.seenValue);
    if (from === undefined) return `${where} saw ${operation.seenValue}, which nobody wrote`;
    if (from.key !== key) return `${where} saw ${operation.seenValue}, written to ${from.key}`;
    if (from.outcome === "refused") {
      return `${where} saw ${operation.seenValue}, whose write was reported as not applied`;
    }
    if (from.outcome === "ok" && !from.success) {
      return `${where} saw ${operation.seenValue}, whose compare had failed`;
    }
  }
  return undefined;
}

/** At one index the write comes before the reads. */
function rank({ kind }: Operation): number {
  return kind === "get" ? 1 : 0;
}

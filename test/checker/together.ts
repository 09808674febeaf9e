/**
 * What the search key by key cannot see: that the parts of a transaction take effect at one moment, that the writes of a session do so in
 * the order of their calls, and that a list to which clients append by compare-and-put has each element once.
 */
import type { Operation } from "./history.ts";

/**
 * Who reads several keys at one moment and sees a write of a transaction on one of them sees, on each other key that it wrote, that
 * write or a later one. Keys that a history checked here writes in transactions are never deleted.
 */
export function checkTransactions(history: readonly Operation[]): string | undefined {
  const writer = new Map<string, Operation>();
  const writes = new Map<number, Operation[]>();
  const reads = new Map<number, Operation[]>();
  for (const operation of history) {
    const { kind, value, transaction, outcome } = operation;
    if (kind !== "get" && value !== "") writer.set(value, operation);
    if (transaction === undefined) continue;
    if (kind === "get" && outcome === "ok") into(reads, transaction, operation);
    if (kind !== "get") into(writes, transaction, operation);
  }
  for (const parts of reads.values()) {
    const seen = new Map(parts.map((part) => [part.key, part]));
    for (const { key, seenValue, seenRevision } of parts) {
      const transaction = writer.get(seenValue)?.transaction;
      if (transaction === undefined) continue;
      for (const other of writes.get(transaction)!) {
        const there = seen.get(other.key);
        if (there === undefined || there.seenRevision >= seenRevision) continue;
        return `a read at one moment saw ${seenValue}@${seenRevision} at ${key}, and ${other.key} at ${there.seenRevision}, which the same transaction wrote`;
      }
    }
  }
  return undefined;
}

function into(map: Map<number, Operation[]>, key: number, operation: Operation): void {
  const there = map.get(key);
  if (there === undefined) map.set(key, [operation]);
  else there.push(operation);
}

/** Acknowledged writes of a session have rising indexes, in the order of their calls, also of those that were in flight together. */
export function checkSessions(history: readonly Operation[]): string | undefined {
  const last = new Map<number, Operation>();
  const writes = history.filter(
    ({ kind, outcome, index }) => kind !== "get" && outcome === "ok" && index > 0,
  );
  for (const operation of writes.toSorted((a, b) => a.call - b.call)) {
    const { session, transaction } = operation;
    if (session === undefined) continue;
    const before = last.get(session);
    const together = transaction !== undefined && transaction === before?.transaction;
    if (before !== undefined && operation.index <= before.index && !together) {
      return `session ${session}: ${operation.value || operation.kind} called at ${operation.call} took effect at ${operation.index}, not after ${before.value || before.kind}, called at ${before.call}, at ${before.index}`;
    }
    last.set(session, operation);
  }
  return undefined;
}

/**
 * Values are lists whose last element is the writer's own; `element` takes it apart. The newest value that was read has each acknowledged
 * element up to there once, and none whose append had failed or was refused.
 */
export function checkAppends(
  history: readonly Operation[],
  elements: (value: string) => readonly string[],
): string | undefined {
  let newest: Operation | undefined;
  for (const operation of history) {
    if (operation.kind !== "get" || operation.outcome !== "ok" || !operation.success) continue;
    if (newest === undefined || operation.seenRevision > newest.seenRevision) newest = operation;
  }
  if (newest === undefined) return undefined;
  const there = elements(newest.seenValue);
  const unique = new Set(there);
  if (unique.size < there.length) return `${newest.key} has an element twice: ${newest.seenValue}`;
  for (const { kind, value, outcome, success, index } of history) {
    if (kind !== "compareAndPut") continue;
    const own = elements(value).at(-1)!;
    const acknowledged = outcome === "ok" && success;
    if (acknowledged && index <= newest.seenRevision && !unique.has(own)) {
      return `${newest.key} lacks ${own}, acknowledged at ${index}: ${newest.seenValue}`;
    }
    const failed = outcome === "refused" || (outcome === "ok" && !success);
    if (failed && unique.has(own)) {
      return `${newest.key} has ${own}, whose append was reported as without effect: ${newest.seenValue}`;
    }
  }
  return undefined;
}

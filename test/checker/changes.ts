/**
 * What a watch told, held against what the clients were told: all changes, in order, each once, nothing else. As every change names its writer
 * by its value, it also shows whether any command was applied twice, or against the order of its session.
 */
import type { Operation } from "./history.ts";

export interface SeenChange {
  readonly key: string;
  /** Undefined: the key was deleted. */
  readonly value: string | undefined;
  readonly revision: number;
}

/** `changes`: all that a watch told about the keys of the history, from before their first write up to `revision`. */
export function checkChanges(
  history: readonly Operation[],
  changes: readonly SeenChange[],
  revision: number,
): string | undefined {
  return (
    checkInOrder(changes) ??
    checkComplete(history, changes, revision) ??
    checkCaused(history, changes) ??
    checkSessionOrder(history, changes)
  );
}

function checkInOrder(changes: readonly SeenChange[]): string | undefined {
  const last = new Map<string, number>();
  const values = new Map<string, number>();
  let newest = 0;
  for (const { key, value, revision } of changes) {
    if (revision < newest) return `${key}@${revision} was told after revision ${newest}`;
    newest = revision;
    if (last.get(key) === revision) return `${key}@${revision} was told twice`;
    last.set(key, revision);
    if (value === undefined) continue;
    const before = values.get(value);
    if (before !== undefined) return `${value} was applied twice, at ${before} and ${revision}`;
    values.set(value, revision);
  }
  return undefined;
}

/** What was acknowledged, or read, was told. */
function checkComplete(
  history: readonly Operation[],
  changes: readonly SeenChange[],
  upTo: number,
): string | undefined {
  const told = new Map(changes.map((change) => [`${change.revision} ${change.key}`, change]));
  for (const operation of history) {
    const { kind, key, outcome, success, seenRevision, seenValue } = operation;
    if (outcome !== "ok") continue;
    const isRead = kind === "get";
    const at = isRead ? seenRevision : operation.index;
    if (!success || at === 0 || at > upTo) continue;
    const value = isRead ? seenValue : kind === "delete" ? undefined : operation.value;
    const change = told.get(`${at} ${key}`);
    if (change === undefined) return `the ${kind} of ${value} at ${key}@${at} was not told`;
    if (change.value !== value) {
      return `${key}@${at} is told as ${change.value}, and a ${kind} had ${value}`;
    }
  }
  return undefined;
}

/** What was told was done by somebody, at that revision, and not reported as without effect. */
function checkCaused(
  history: readonly Operation[],
  changes: readonly SeenChange[],
): string | undefined {
  const writers = new Map<string, Operation>();
  const deletes = new Set<string>();
  const unknownDeletes = new Map<string, number>();
  for (const operation of history) {
    const { kind, key, value, outcome, index, success } = operation;
    if (kind === "put" || kind === "compareAndPut") writers.set(value, operation);
    if (kind !== "delete") continue;
    if (outcome === "ok" && success) deletes.add(`${index} ${key}`);
    if (outcome === "unknown") unknownDeletes.set(key, (unknownDeletes.get(key) ?? 0) + 1);
  }
  for (const { key, value, revision } of changes) {
    if (value === undefined) {
      if (deletes.has(`${revision} ${key}`)) continue;
      const left = unknownDeletes.get(key) ?? 0;
      if (left === 0) return `nobody deleted ${key}@${revision}`;
      unknownDeletes.set(key, left - 1);
      continue;
    }
    const writer = writers.get(value);
    if (writer?.key !== key) return `nobody wrote ${value}, told as ${key}@${revision}`;
    const { outcome, success, index, kind } = writer;
    const without = outcome === "refused" || (outcome === "ok" && !success);
    if (without) return `${value} is told as ${key}@${revision}; its ${kind} had no effect`;
    if (outcome === "ok" && index !== revision) {
      return `${value} is told as ${key}@${revision}, acknowledged at ${index}`;
    }
  }
  return undefined;
}

/** Those of unknown outcome too. */
function checkSessionOrder(
  history: readonly Operation[],
  changes: readonly SeenChange[],
): string | undefined {
  const revisions = new Map(changes.map(({ value, revision }) => [value, revision]));
  const last = new Map<number, { readonly value: string; readonly revision: number }>();
  for (const { session, value } of history.toSorted((a, b) => a.call - b.call)) {
    const revision = value === "" ? undefined : revisions.get(value);
    if (session === undefined || revision === undefined) continue;
    const before = last.get(session);
    if (before !== undefined && revision < before.revision) {
      return `session ${session}: ${value} took effect at ${revision}, before ${before.value}, called earlier, at ${before.revision}`;
    }
    last.set(session, { value, revision });
  }
  return undefined;
}

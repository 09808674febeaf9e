/**
 * Is a history linearizable? The algorithm of Wing and Gong with Lowe's memo: walk a linked list of calls and returns, lift an operation
 * out when it can come next, put it back when that led nowhere, and never visit the same (set of linearized operations, state) twice.
 * Keys are checked one by one, since linearizability is local. An operation with an unknown outcome never returns: it may be placed anywhere after its call, or nowhere.
 *
 * The model is a key with a value and a revision. Each acknowledged write carries its log index, which is the revision that it gives, so
 * the writes of a key must also come in the order of their indexes; that is what keeps the search short.
 */
import type { Operation } from "./history.ts";

export type Verdict =
  | { readonly kind: "legal"; readonly steps: number }
  | { readonly kind: "illegal"; readonly key: string; readonly reason: string }
  /** The budget of steps ran out. A test must take this for a failure. */
  | { readonly kind: "undecided"; readonly key: string };

export const stepsMaxDefault = 20_000_000;

export function checkLinearizable(
  history: readonly Operation[],
  stepsMax: number = stepsMaxDefault,
): Verdict {
  const keys = new Map<string, Operation[]>();
  for (const operation of history) {
    // A read that saw nothing of the system and a write that surely did nothing constrain nothing.
    if (operation.outcome === "refused") continue;
    if (operation.outcome === "unknown" && operation.kind === "get") continue;
    const operations = keys.get(operation.key);
    if (operations === undefined) keys.set(operation.key, [operation]);
    else operations.push(operation);
  }
  let steps = 0;
  for (const [key, operations] of keys) {
    const verdict = checkKey(key, operations, stepsMax - steps);
    if (verdict.kind !== "legal") return verdict;
    steps += verdict.steps;
  }
  return { kind: "legal", steps };
}

/** State of a key: who wrote what is there (-1 = absent), and the index of the last write whose index is known. */
interface State {
  readonly writer: number;
  readonly index: number;
}

/** A call or a return in the list; `match` is the return of a call. */
interface Entry {
  readonly operation: number;
  readonly match: Entry | undefined;
  previous: Entry | undefined;
  next: Entry | undefined;
}

/** Revision that each operation gives the key: its index, or what somebody saw beside its value; 0 where nobody knows. */
export function revisionsOf(operations: readonly Operation[]): number[] | string {
  const writerOf = new Map<string, number>();
  const revisions = operations.map(({ kind, index }) => (kind === "get" ? 0 : index));
  for (const [at, operation] of operations.entries()) {
    if (operation.value === "" || operation.kind === "get") continue;
    if (writerOf.has(operation.value)) return `value ${operation.value} is written twice`;
    writerOf.set(operation.value, at);
  }
  for (const operation of operations) {
    if (operation.kind !== "get" || !operation.success) continue;
    const writer = writerOf.get(operation.seenValue);
    if (writer === undefined) return `a get saw ${operation.seenValue}, which nobody wrote`;
    if (revisions[writer] === 0) revisions[writer] = operation.seenRevision;
    if (revisions[writer] !== operation.seenRevision) {
      return `${operation.seenValue} has revision ${revisions[writer]} and was seen at ${operation.seenRevision}`;
    }
  }
  return revisions;
}

function checkKey(key: string, operations: readonly Operation[], stepsMax: number): Verdict {
  const revisions = revisionsOf(operations);
  if (typeof revisions === "string") return { kind: "illegal", key, reason: revisions };
  const claimed = new Set(revisions);
  for (const { kind, expected } of operations) {
    // What was never seen beside a value could belong to any write of unknown revision: the model would have to guess.
    if (kind === "compareAndPut" && expected !== 0 && !claimed.has(expected)) {
      return { kind: "illegal", key, reason: `compares with revision ${expected}, never seen` };
    }
  }

  const following = indexFollowing(revisions);
  if (typeof following === "string") return { kind: "illegal", key, reason: following };
  const head = linkEntries(operations);
  const taken = new Uint32Array((operations.length + 31) >>> 5);
  const memo = new Map<number, { taken: Uint32Array; writer: number; index: number }[]>();
  const stack: { entry: Entry; state: State }[] = [];
  let state: State = { writer: -1, index: 0 };
  let remaining = 0;
  for (const operation of operations) if (operation.outcome === "ok") remaining++;
  let steps = 0;
  let deepest = 0;
  let stuckAt: Operation | undefined;

  let entry = head.next;
  while (remaining > 0) {
    if (++steps > stepsMax) return { kind: "undecided", key };
    if (entry?.match !== undefined) {
      const operation = operations[entry.operation]!;
      const next = step(state, entry.operation, operation, { revisions, following });
      if (next !== undefined && remember(memo, taken, entry.operation, next)) {
        stack.push({ entry, state });
        state = next;
        if (operation.outcome === "ok") remaining--;
        lift(entry);
        entry = head.next;
      } else {
        entry = entry.next;
      }
      continue;
    }
    // A return whose call could not be placed, or the end of the list: back to the last choice.
    if (stack.length >= deepest && entry !== undefined) {
      deepest = stack.length;
      stuckAt = operations[entry.operation];
    }
    const back = stack.pop();
    if (back === undefined) {
      return { kind: "illegal", key, reason: `no order explains ${describe(stuckAt)}` };
    }
    state = back.state;
    const { operation } = back.entry;
    taken[operation >>> 5]! &= ~(1 << (operation & 31));
    if (operations[operation]!.outcome === "ok") remaining++;
    unlift(back.entry);
    entry = back.entry.next;
  }
  return { kind: "legal", steps };
}

/** The state after an operation, or undefined where it could not have had the result that it had. */
function step(
  state: State,
  at: number,
  operation: Operation,
  { revisions, following }: Indexes,
): State | undefined {
  const there = state.writer >= 0;
  const revision = there ? revisions[state.writer]! : 0;
  const known = operation.outcome === "ok";
  const own = revisions[at]!;
  // Writes whose index is known come in its order, and none is left out; a read has no index of its own.
  if (operation.kind !== "get" && own !== 0 && own !== following.get(state.index)) return undefined;
  const index = operation.kind === "get" || own === 0 ? state.index : own;
  switch (operation.kind) {
    case "get":
      if (operation.success !== there) return undefined;
      if (there && operation.seenRevision !== revision) return undefined;
      return state;
    case "put":
      return { writer: at, index };
    case "delete":
      if (known && operation.success !== there) return undefined;
      return { writer: -1, index };
    case "compareAndPut": {
      const equal = operation.expected === 0 ? !there : there && revision === operation.expected;
      if (!known) return equal ? { writer: at, index } : own === 0 ? state : undefined;
      if (operation.success !== equal) return undefined;
      if (equal) return { writer: at, index };
      // The revision of a write that nobody read and nobody acknowledged is not known here: any that it met may be right.
      if (there !== operation.seenRevision > 0) return undefined;
      if (there && revision !== 0 && revision !== operation.seenRevision) return undefined;
      return { writer: state.writer, index };
    }
  }
}

interface Indexes {
  readonly revisions: readonly number[];
  /** From each known index to the next one; from 0 to the first. */
  readonly following: ReadonlyMap<number, number>;
}

function indexFollowing(revisions: readonly number[]): ReadonlyMap<number, number> | string {
  const following = new Map<number, number>();
  let last = 0;
  for (const index of revisions.filter((known) => known !== 0).sort((a, b) => a - b)) {
    if (index === last) return `two writes have index ${index}`;
    following.set(last, index);
    last = index;
  }
  return following;
}

/** Marks the operation as taken and says whether (taken, state) is new; where it is not, takes the mark back. */
function remember(
  memo: Map<number, { taken: Uint32Array; writer: number; index: number }[]>,
  taken: Uint32Array,
  operation: number,
  state: State,
): boolean {
  taken[operation >>> 5]! |= 1 << (operation & 31);
  let hash = Math.imul(state.writer + 2, 0x9e37_79b1) ^ Math.imul(state.index + 1, 0x85eb_ca6b);
  for (const word of taken) hash = Math.imul(hash ^ word, 0xc2b2_ae35) ^ (hash >>> 15);
  const seen = memo.get(hash);
  if (seen === undefined) {
    memo.set(hash, [{ taken: taken.slice(), writer: state.writer, index: state.index }]);
    return true;
  }
  for (const other of seen) {
    if (other.writer !== state.writer || other.index !== state.index) continue;
    if (other.taken.every((word, at) => word === taken[at])) {
      taken[operation >>> 5]! &= ~(1 << (operation & 31));
      return false;
    }
  }
  seen.push({ taken: taken.slice(), writer: state.writer, index: state.index });
  return true;
}

/** The list of calls and returns by time, behind a head that is neither. Operations that never return have no return in it. */
function linkEntries(operations: readonly Operation[]): Entry {
  const timed: { time: number; entry: Entry }[] = [];
  for (const [at, operation] of operations.entries()) {
    const end: Entry = { operation: at, match: undefined, previous: undefined, next: undefined };
    const begin: Entry = { operation: at, match: end, previous: undefined, next: undefined };
    timed.push({ time: operation.call, entry: begin });
    if (operation.outcome === "ok") timed.push({ time: operation.return, entry: end });
  }
  timed.sort((a, b) => a.time - b.time);
  const head: Entry = { operation: -1, match: undefined, previous: undefined, next: undefined };
  let last = head;
  for (const { entry } of timed) {
    last.next = entry;
    entry.previous = last;
    last = entry;
  }
  return head;
}

function unlink(entry: Entry): void {
  entry.previous!.next = entry.next;
  if (entry.next !== undefined) entry.next.previous = entry.previous;
}

function relink(entry: Entry): void {
  entry.previous!.next = entry;
  if (entry.next !== undefined) entry.next.previous = entry;
}

function lift(call: Entry): void {
  unlink(call);
  if (call.match!.previous !== undefined) unlink(call.match!);
}

function unlift(call: Entry): void {
  if (call.match!.previous !== undefined) relink(call.match!);
  relink(call);
}

function describe(operation: Operation | undefined): string {
  if (operation === undefined) return "the history";
  const { client, kind, value, expected, call, success, seenValue, seenRevision, index } =
    operation;
  const what =
    kind === "get" ? "" : ` ${value}${kind === "compareAndPut" ? ` if ${expected}` : ""}`;
  const saw = seenRevision === 0 ? "" : `, saw ${seenValue}@${seenRevision}`;
  return `client ${client}: ${kind}${what} (called ${call}, returned ${operation.return}, index ${index}, ${success}${saw})`;
}

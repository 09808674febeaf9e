/**
 * What the clients of a chaos run did and saw, in epochs: each has keys of its own and is checked and forgotten some time after it ended, so
 * that a run of hours needs no more memory than one of minutes, and the search stays short.
 */
import { checkLinearizable } from "../checker/wgl.ts";
import { checkOrder } from "../checker/order.ts";
import { checkAppends, checkSessions, checkTransactions } from "../checker/together.ts";
import { checkChanges, type SeenChange } from "../checker/changes.ts";
import type { Operation } from "../checker/history.ts";

const stepsMax = 20_000_000;
const listSeparator = " ";

/** Keys of an epoch, by what is done with them. */
export interface EpochKeys {
  readonly registers: readonly string[];
  /** Appended to by compare-and-put. */
  readonly lists: readonly string[];
  /** Written together, never deleted. */
  readonly pairs: readonly (readonly [string, string])[];
  /** One for each client, for its writes in flight together. */
  readonly own: readonly string[];
}

const registerCount = 4;
const listCount = 2;
const pairCount = 2;

export class Epoch {
  readonly number: number;
  readonly prefix: string;
  /** All that is written in it comes after this log index. */
  readonly firstRevision: number;
  readonly keys: EpochKeys;
  readonly operations: Operation[] = [];
  /** Newest revision of a key that somebody was told of beside its value or as its writer: what may be compared with. */
  readonly toldRevisions = new Map<string, number>();
  /** Calls that have not returned. */
  inFlight = 0;
  /** What each watcher was told of its keys; only of those that missed nothing. */
  readonly changes: (readonly SeenChange[])[] = [];

  constructor(number: number, clients: number, firstRevision: number) {
    this.number = number;
    this.firstRevision = firstRevision;
    this.prefix = `e${String(number).padStart(6, "0")}/`;
    const named = (count: number, letter: string): string[] =>
      Array.from({ length: count }, (_, at) => `${this.prefix}${letter}${at}`);
    this.keys = {
      registers: named(registerCount, "r"),
      lists: named(listCount, "l"),
      pairs: named(pairCount, "p").map((key) => [`${key}a`, `${key}b`] as const),
      own: named(clients, "c"),
    };
  }

  get allKeys(): readonly string[] {
    const { registers, lists, pairs, own } = this.keys;
    return [...registers, ...lists, ...pairs.flat(), ...own];
  }

  record(operation: Operation): void {
    this.operations.push(operation);
    const { outcome, kind, key, index, success, seenRevision } = operation;
    if (outcome !== "ok" || !success) return;
    const revision = kind === "get" ? seenRevision : kind === "delete" ? 0 : index;
    const told = this.toldRevisions.get(key) ?? 0;
    if (kind === "delete" || revision > told) this.toldRevisions.set(key, revision);
  }

  /** What is wrong with what was seen, or undefined. */
  verdict(): string | undefined {
    return (
      this.#linearizable() ??
      checkOrder(this.operations) ??
      checkTransactions(this.operations) ??
      checkSessions(this.operations) ??
      this.#appends() ??
      this.#watched()
    );
  }

  /** Log index up to which everything of it was read. */
  get revision(): number {
    return this.operations.reduce(
      (newest, { kind, index }) => (kind === "get" && index > newest ? index : newest),
      0,
    );
  }

  #watched(): string | undefined {
    for (const changes of this.changes) {
      const wrong = checkChanges(this.operations, changes, this.revision);
      if (wrong !== undefined) return `watch: ${wrong}`;
    }
    return undefined;
  }

  #linearizable(): string | undefined {
    const verdict = checkLinearizable(this.operations, stepsMax);
    if (verdict.kind === "legal") return undefined;
    if (verdict.kind === "undecided") return `${verdict.key}: not decided in ${stepsMax} steps`;
    return `not linearizable: ${verdict.key}: ${verdict.reason}`;
  }

  #appends(): string | undefined {
    for (const list of this.keys.lists) {
      const own = this.operations.filter(({ key }) => key === list);
      const wrong = checkAppends(own, listElements);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }
}

export function listElements(value: string): string[] {
  return value.split(listSeparator);
}

export function appended(value: string, element: string): string {
  return value === "" ? element : value + listSeparator + element;
}

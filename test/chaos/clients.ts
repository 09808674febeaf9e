/**
 * The clients of a chaos run: each calls one thing after another, by chance, on few keys that all share, and records what it was told.
 * Some have a session, some have none, and some speak HTTP with request ids.
 */
import { BargeError } from "../../src/errors.ts";
import { type Client, connect } from "../../src/client/index.ts";
import type { Operation, OperationKind } from "../checker/history.ts";
import type { TestNode } from "../e2e/cluster.ts";
import type { Random } from "../sim/random.ts";
import { HttpCalls, type SimpleCalls } from "./http-calls.ts";
import { appended, type Epoch } from "./histories.ts";

/** Time for a call; over that of an election, under that of most faults. */
const timeoutMsMin = 500;
const timeoutMsMax = 5_000;
const burstMax = 6;
const refusedPauseMs = 10;

/** What the clients have in common. */
export interface Shared {
  /** The epoch that new calls belong to. */
  readonly epoch: () => Epoch;
  /** Never the same twice. */
  readonly tick: () => number;
  /** Of a write. */
  readonly succeeded: () => void;
  /** A break of the promise that no history shows. */
  readonly violation: (what: string) => void;
  readonly counts: Counts;
}

export interface Counts {
  operations: number;
  succeeded: number;
  refused: number;
  unknown: number;
  /** Codes of errors, and how often. */
  readonly errors: Map<string, number>;
}

/** With a session, or with request ids, the outcome is only ever unknown where the client itself has given up. */
export type ClientKind = "session" | "plain" | "http";

export interface ChaosClientOptions {
  /** From 0. */
  readonly number: number;
  readonly kind: ClientKind;
  readonly endpoints: string;
  readonly group: number;
  /** For those that speak HTTP. */
  readonly nodes: () => readonly TestNode[];
  readonly random: Random;
  readonly shared: Shared;
  /** Mean time between two calls. */
  readonly pauseMs: number;
}

/** What a call did, as far as it is known when it returns. */
type Part = Partial<Operation> & { readonly key: string; readonly kind: OperationKind };

export class ChaosClient implements AsyncDisposable {
  readonly #options: ChaosClientOptions;
  readonly #client: Client;
  readonly #calls: SimpleCalls;
  readonly #weights: readonly number[];
  #values = 0;
  #transactions = 0;
  #stopping = false;
  #closed = false;
  #loop: Promise<void> | undefined;

  constructor(options: ChaosClientOptions) {
    this.#options = options;
    const { endpoints, group, kind, number, nodes, random } = options;
    this.#client = connect({ endpoints, group, session: kind === "session" ? "required" : false });
    const speaksHttp = kind === "http";
    this.#calls = speaksHttp
      ? new HttpCalls(`client${number}`, group, nodes, random)
      : this.#client;
    this.#weights = speaksHttp ? simpleWeights : weights;
  }

  start(): void {
    this.#loop = this.#run();
  }

  /** Resolves once nothing is in flight. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#loop;
  }

  /** Reads all of an epoch at one moment, and again until that succeeds; else what it was told last. */
  async readAll(epoch: Epoch, isLate: () => boolean): Promise<string | undefined> {
    let told = "it was not asked";
    while (!isLate() && !this.#closed) {
      const failed = await this.#range(epoch);
      if (failed === undefined) return undefined;
      told = failed;
      await Bun.sleep(refusedPauseMs);
    }
    return told;
  }

  async #run(): Promise<void> {
    const { random, shared, pauseMs, number } = this.#options;
    while (!this.#stopping) {
      const epoch = shared.epoch();
      epoch.inFlight++;
      try {
        await this.#step(epoch);
      } catch (error) {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        shared.violation(`client ${number} failed with no error of the table: ${text}`);
      }
      epoch.inFlight--;
      await Bun.sleep(random.float() * 2 * pauseMs);
    }
  }

  #step(epoch: Epoch): Promise<unknown> {
    const { random } = this.#options;
    const { registers, lists, pairs } = epoch.keys;
    const register = random.pick(registers);
    switch (random.weighted(this.#weights)) {
      case 0:
        return this.#put(epoch, register);
      case 1:
        return this.#get(epoch, register);
      case 2:
        return this.#compareAndSet(epoch, register);
      case 3:
        return this.#delete(epoch, register);
      case 4:
        return this.#append(epoch, random.pick(lists));
      case 5:
        return this.#putPair(epoch, random.pick(pairs));
      case 6:
        return this.#getPair(epoch, random.pick(pairs));
      case 7:
        return this.#burst(epoch);
      default:
        return this.#range(epoch);
    }
  }

  /* ---------------------------------------------------------------- calls */

  #put(epoch: Epoch, key: string): Promise<unknown> {
    const value = this.#value();
    return this.#call(
      epoch,
      [{ key, kind: "put", value }],
      (timeoutMs) => this.#calls.put(key, value, { timeoutMs }),
      ({ revision }) => [{ key, kind: "put", value, index: revision, success: true }],
    );
  }

  #get(epoch: Epoch, key: string): Promise<readonly Operation[]> {
    return this.#call(
      epoch,
      [{ key, kind: "get" }],
      (timeoutMs) => this.#calls.get(key, { timeoutMs }),
      (entry) => [seen(key, entry)],
    );
  }

  #compareAndSet(epoch: Epoch, key: string): Promise<unknown> {
    const expected = this.#options.random.chance(0.8) ? (epoch.toldRevisions.get(key) ?? 0) : 0;
    return this.#compareAndPut(epoch, key, this.#value(), expected);
  }

  #compareAndPut(epoch: Epoch, key: string, value: string, expected: number): Promise<unknown> {
    const asked = { key, kind: "compareAndPut", value, expected } as const;
    return this.#call(
      epoch,
      [asked],
      (timeoutMs) => this.#calls.compareAndSet(key, value, expected, { timeoutMs }),
      ({ swapped, revision }) => [
        swapped
          ? { ...asked, success: true, index: revision }
          : { ...asked, success: false, seenRevision: revision },
      ],
    );
  }

  #delete(epoch: Epoch, key: string): Promise<unknown> {
    return this.#call(
      epoch,
      [{ key, kind: "delete" }],
      (timeoutMs) => this.#calls.delete(key, { timeoutMs }),
      ({ revision, deleted }) => [{ key, kind: "delete", index: revision, success: deleted }],
    );
  }

  /** Reads the list and puts it back with one element more, unless somebody else was quicker. */
  async #append(epoch: Epoch, key: string): Promise<void> {
    const [found] = await this.#get(epoch, key);
    if (found === undefined || found.outcome !== "ok") return;
    const value = appended(found.seenValue, this.#value());
    await this.#compareAndPut(epoch, key, value, found.seenRevision);
  }

  /** Both keys in one transaction; by chance only where the first is as it was last seen. */
  #putPair(epoch: Epoch, [a, b]: readonly [string, string]): Promise<unknown> {
    const stem = this.#value();
    const [valueA, valueB] = [`${stem}a`, `${stem}b`];
    const expected = epoch.toldRevisions.get(a) ?? 0;
    const compares = this.#options.random.chance(0.5) ? [{ key: a, revision: expected }] : [];
    const txn = this.#client
      .txn()
      .compare(...compares)
      .onSuccess({ op: "put", key: a, value: valueA }, { op: "put", key: b, value: valueB })
      .onFailure({ op: "get", key: a }, { op: "get", key: b });
    const kind = compares.length > 0 ? "compareAndPut" : "put";
    const putA = { key: a, kind, value: valueA, expected } as const;
    // Of the second key the history only says that it may be written; what is known is added when it is.
    const putB = { key: b, kind: "put", value: valueB } as const;
    return this.#call(
      epoch,
      [putA, putB],
      (timeoutMs) => txn.commit({ timeoutMs }),
      (result) => {
        const { revision: index } = result;
        if (result.succeeded) {
          return [
            { ...putA, success: true, index },
            { ...putB, success: true, index },
          ];
        }
        const [entryA, entryB] = result.results;
        const { seenRevision = 0 } = seen(a, entryA);
        return [
          { ...putA, success: false, index, seenRevision },
          { ...seen(a, entryA), index },
          { ...seen(b, entryB), index },
        ];
      },
    );
  }

  #getPair(epoch: Epoch, [a, b]: readonly [string, string]): Promise<unknown> {
    const txn = this.#client.txn().onSuccess({ op: "get", key: a }, { op: "get", key: b });
    return this.#call(
      epoch,
      [
        { key: a, kind: "get" },
        { key: b, kind: "get" },
      ],
      (timeoutMs) => txn.commit({ timeoutMs }),
      ({ revision: index, results: [entryA, entryB] }) => {
        return [
          { ...seen(a, entryA), index },
          { ...seen(b, entryB), index },
        ];
      },
    );
  }

  /** Writes in flight together, on a key of its own: their order is the session's. */
  async #burst(epoch: Epoch): Promise<void> {
    const key = epoch.keys.own[this.#options.number]!;
    const count = this.#options.random.between(2, burstMax);
    await Promise.all(Array.from({ length: count }, () => this.#put(epoch, key)));
  }

  /** What it was told, where that is an error. */
  async #range(epoch: Epoch): Promise<string | undefined> {
    const { allKeys, prefix } = epoch;
    let told: string | undefined;
    await this.#call(
      epoch,
      allKeys.map((key) => ({ key, kind: "get" as const })),
      (timeoutMs) =>
        this.#client.range({ prefix, timeoutMs }).catch((error: unknown) => {
          told = String(error);
          throw error;
        }),
      ({ items, revision: index }) => {
        const there = new Map(items.map((item) => [text(item.key), item]));
        return allKeys.map((key) => ({ ...seen(key, there.get(key)), index }));
      },
    );
    return told;
  }

  /* ---------------------------------------------------------------- records */

  /** Calls, and records what came of it: `asked` where that is an error, else what `answer` makes of the result. */
  async #call<T>(
    epoch: Epoch,
    asked: readonly Part[],
    call: (timeoutMs: number) => Promise<T>,
    answer: (result: T) => readonly Part[],
  ): Promise<readonly Operation[]> {
    const { random, shared, number, kind } = this.#options;
    const transaction =
      asked.length > 1 ? number * transactionsPerClient + ++this.#transactions : undefined;
    const common = {
      client: number,
      ...(transaction === undefined ? {} : { transaction }),
      ...(kind === "session" ? { session: number } : {}),
      call: shared.tick(),
    };
    const isWrite = asked.some(({ kind }) => kind !== "get");
    const record = (parts: readonly Part[], outcome: Operation["outcome"]): Operation[] => {
      const end = outcome === "unknown" ? Infinity : shared.tick();
      const operations = parts.map((part) => ({
        ...blank,
        ...part,
        ...common,
        return: end,
        outcome,
      }));
      for (const operation of operations) epoch.record(operation);
      return operations;
    };
    shared.counts.operations++;
    try {
      const parts = answer(await call(random.between(timeoutMsMin, timeoutMsMax)));
      shared.counts.succeeded++;
      if (isWrite) shared.succeeded();
      return record(parts, "ok");
    } catch (error) {
      if (!(error instanceof BargeError)) throw error;
      const { code, outcome, message } = error;
      const { errors } = shared.counts;
      errors.set(code, (errors.get(code) ?? 0) + 1);
      if (neverTold.has(code)) {
        shared.violation(`client ${number} was told ${code}: ${message}`);
      }
      if (outcome === "not-applied") {
        shared.counts.refused++;
        await Bun.sleep(refusedPauseMs);
        return record(asked, "refused");
      }
      if (kind !== "plain" && isWrite && !givenUp.has(code) && !this.#closed) {
        shared.violation(`client ${number} (${kind}) was told ${code}: ${message}`);
      }
      shared.counts.unknown++;
      return record(asked, "unknown");
    }
  }

  #value(): string {
    return `${this.#options.number}.${++this.#values}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = this.#closed = true;
    this.#client.close();
    await this.#loop;
  }
}

/** In the order of the cases of a step. */
const weights = [20, 20, 14, 5, 14, 10, 8, 6, 3];
/** Without transactions and ranges. */
const simpleWeights = [20, 20, 14, 5, 14, 0, 0, 6, 0];
const transactionsPerClient = 1_000_000_000;
/** With a session, what remains unknown: the client gave up. No fault lasts as long as a session that is not used, so none may expire. */
const givenUp: ReadonlySet<string> = new Set(["timeout", "aborted"]);

/** Whatever happens: all requests are as they should be, and the groups of the clients are there. */
const neverTold: ReadonlySet<string> = new Set([
  "bad_request",
  "internal",
  "too_large",
  "unknown_group",
]);

const blank: Omit<Operation, "key" | "kind"> = {
  client: 0,
  value: "",
  expected: 0,
  call: 0,
  return: 0,
  outcome: "ok",
  index: 0,
  success: false,
  seenValue: "",
  seenRevision: 0,
};

interface Found {
  readonly value: Uint8Array;
  readonly revision: number;
}

function seen(key: string, entry: Found | undefined): Part {
  return {
    key,
    kind: "get",
    success: entry !== undefined,
    seenValue: entry === undefined ? "" : text(entry.value),
    seenRevision: entry?.revision ?? 0,
  };
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

/**
 * Load whose effects can be checked afterwards. Each writer puts values under keys that nobody uses again, and counts up one register of
 * its own, one call after the other; many writers keep many calls in flight, through the SDK and through the HTTP port of each node.
 *
 * What is checked: on every node, by local reads, each acknowledged write is there with the revision that was acknowledged, and none
 * that was reported as not applied; unknown ones may be there or not. Revisions rise. A linearizable read of a register
 * answers the last acknowledged value, or one of unknown outcome.
 */
import { BargeError, type Outcome } from "../../src/errors.ts";
import { type Client, connect } from "../../src/client/index.ts";
import { type TestCluster, type TestNode, until } from "./cluster.ts";
import { type Door, HttpDoor, SdkDoor } from "./doors.ts";

export interface WorkloadOptions {
  readonly clients?: number;
  readonly writersPerClient?: number;
  /** Writers through the HTTP port of each node. */
  readonly httpWritersPerNode?: number;
  readonly valueBytes?: number;
  readonly timeoutMs?: number;
}

export interface WorkloadCounts {
  acknowledged: number;
  notApplied: number;
  unknown: number;
  reads: number;
  /** Longest time from the call of a write to its acknowledgement. */
  longestMs: number;
  /** When that one was acknowledged, by performance.now(). */
  longestEndedMs: number;
}

const pageItems = 1_000;
/** A writer whose call was refused does not spin. */
const refusedPauseMs = 5;

export class Workload implements AsyncDisposable {
  readonly counts: WorkloadCounts = {
    acknowledged: 0,
    notApplied: 0,
    unknown: 0,
    reads: 0,
    longestMs: 0,
    longestEndedMs: 0,
  };
  readonly #cluster: TestCluster;
  readonly #clients: readonly Client[];
  readonly #writers: readonly Writer[];
  #running: Promise<unknown> | undefined;
  #stopping = false;
  /** The first thing that must not have happened. */
  #violation: Error | undefined;

  constructor(cluster: TestCluster, options: WorkloadOptions = {}) {
    const { clients = 2, writersPerClient = 8, httpWritersPerNode = 1 } = options;
    const { valueBytes = 64, timeoutMs = 3_000 } = options;
    this.#cluster = cluster;
    this.#clients = Array.from({ length: clients }, () =>
      connect({ endpoints: cluster.endpoints, timeoutMs }),
    );
    const doors: Door[] = [];
    for (const client of this.#clients) {
      for (let i = 0; i < writersPerClient; i++) doors.push(new SdkDoor(client));
    }
    for (const node of cluster.nodes) {
      for (let i = 0; i < httpWritersPerNode; i++) doors.push(new HttpDoor(node));
    }
    this.#writers = doors.map(
      (door, number) => new Writer({ number, door, valueBytes, timeoutMs, counts: this.counts }),
    );
  }

  start(): void {
    if (this.#running !== undefined) return;
    this.#stopping = false;
    this.#running = Promise.all(
      this.#writers.map(async (writer) => {
        try {
          while (!this.#stopping) await writer.step();
        } catch (error) {
          this.#violation ??= error as Error;
        }
      }),
    );
  }

  /** Resolves once nothing is in flight any more; rejects where a writer saw what must not be. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
    this.#running = undefined;
    if (this.#violation !== undefined) throw this.#violation;
  }

  /** Waits until that many more writes were acknowledged. */
  async acknowledges(more: number): Promise<void> {
    const goal = this.counts.acknowledged + more;
    await until(
      `${more} more writes acknowledged`,
      () => this.#violation !== undefined || this.counts.acknowledged >= goal,
    );
    if (this.#violation !== undefined) throw this.#violation;
  }

  /** Waits until each writer, but those through that node, had that many more writes acknowledged. */
  async eachAcknowledges(more: number, except: TestNode): Promise<void> {
    const writers = this.#writers.filter((writer) => writer.node !== except);
    const goals = writers.map((writer) => writer.acknowledged + more);
    await until(
      `${more} more writes of each writer acknowledged`,
      () =>
        this.#violation !== undefined ||
        writers.every((writer, at) => writer.acknowledged >= goals[at]!),
    );
    if (this.#violation !== undefined) throw this.#violation;
  }

  /**
   * Compares what each node has with what was reported. To be called on a converged cluster, while nobody writes. `recent`: only the
   * writes since the last call; what was reported as not applied is looked for from the beginning in any case.
   */
  async verify(extent: "recent" | "all"): Promise<void> {
    for (const node of this.#cluster.nodes) {
      for (const writer of this.#writers) await writer.verify(node, extent);
    }
    for (const writer of this.#writers) writer.verified();
  }

  summary(): string {
    const { acknowledged, notApplied, unknown, reads } = this.counts;
    return `${acknowledged} writes acknowledged, ${notApplied} not applied, ${unknown} unknown, ${reads} linearizable reads`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    for (const client of this.#clients) client.close();
    await this.#running;
  }
}

interface WriterOptions {
  readonly number: number;
  readonly door: Door;
  readonly valueBytes: number;
  readonly timeoutMs: number;
  readonly counts: WorkloadCounts;
}

/** What became of a write: its revision where it was acknowledged, else one of these, which are no revisions. */
const notApplied = -1;
const unknown = -2;
const pending = -3;

/** Calls one after the other, so it knows in which order they took effect. */
class Writer {
  readonly #options: WriterOptions;
  readonly #prefix: string;
  /** By sequence number. */
  readonly #writes: number[] = [];
  readonly #register: string;
  /** By the number that was written there. */
  readonly #registered: number[] = [];
  #registerAcknowledged = -1;
  #lastRevision = 0;
  #verifiedCount = 0;
  acknowledged = 0;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#prefix = `unique/${options.number}/`;
    this.#register = `register/${options.number}`;
  }

  get node(): TestNode | undefined {
    return this.#options.door.node;
  }

  async step(): Promise<void> {
    const sequence = this.#writes.length;
    await this.#put(this.#writes, this.#key(sequence), this.#value(sequence));
    const count = this.#registered.length;
    await this.#put(this.#registered, this.#register, String(count));
    if (this.#registered[count]! > 0) this.#registerAcknowledged = count;
    await this.#readRegister();
  }

  async #put(ledger: number[], key: string, value: string): Promise<void> {
    const { door, timeoutMs, counts } = this.#options;
    const at = ledger.length;
    ledger.push(pending);
    const beganMs = performance.now();
    try {
      const revision = await door.put(key, value, timeoutMs);
      const endedMs = performance.now();
      if (endedMs - beganMs > counts.longestMs) {
        counts.longestMs = endedMs - beganMs;
        counts.longestEndedMs = endedMs;
      }
      if (!(revision > this.#lastRevision)) {
        throw new Error(`${key}: revision ${revision} acknowledged after ${this.#lastRevision}`);
      }
      this.#lastRevision = revision;
      ledger[at] = revision;
      counts.acknowledged++;
      this.acknowledged++;
    } catch (error) {
      ledger[at] = await this.#outcome(error, key);
    }
  }

  async #outcome(error: unknown, key: string): Promise<number> {
    if (!(error instanceof BargeError)) throw error;
    const { counts } = this.#options;
    await Bun.sleep(refusedPauseMs);
    const outcome: Outcome = error.outcome;
    if (outcome === "applied") throw new Error(`${key}: ${error.code} says applied`);
    if (outcome === "unknown") counts.unknown++;
    else counts.notApplied++;
    return outcome === "unknown" ? unknown : notApplied;
  }

  async #readRegister(): Promise<void> {
    const { door, timeoutMs, counts } = this.#options;
    try {
      const found = await door.get(this.#register, timeoutMs);
      counts.reads++;
      this.#checkRegister(found, "a linearizable read");
    } catch (error) {
      if (!(error instanceof BargeError)) throw error;
      await Bun.sleep(refusedPauseMs);
    }
  }

  #checkRegister(found: { value: string; revision: number } | undefined, who: string): void {
    const last = this.#registerAcknowledged;
    const number = found === undefined ? -1 : Number(found.value);
    const outcome = this.#registered[number];
    const right =
      number === last ? outcome === undefined || outcome === found?.revision : outcome === unknown;
    if (right) return;
    throw new Error(
      `${this.#register}: ${who} found ${JSON.stringify(found)}, reported as ${outcome}; the last acknowledged is ${last} at revision ${this.#registered[last]}`,
    );
  }

  async verify(node: TestNode, extent: "recent" | "all"): Promise<void> {
    const from = extent === "all" ? 0 : this.#verifiedCount;
    let next = from;
    let after = from === 0 ? undefined : this.#key(from - 1);
    for (;;) {
      const page = await readPage(node, this.#prefix, after);
      for (const { key, value, revision } of page.items) {
        const sequence = Number(key.slice(this.#prefix.length));
        while (next < sequence) this.#mayBeAbsent(next++, node);
        this.#mayBeThere(sequence, value, revision, node);
        next++;
      }
      after = page.items.at(-1)?.key;
      if (!page.more) break;
    }
    while (next < this.#writes.length) this.#mayBeAbsent(next++, node);
    await this.#verifyNotApplied(node, from);
    const found = await new HttpDoor(node).get(this.#register, 5_000, "local");
    this.#checkRegister(found, `node ${node.id}`);
  }

  /** What was verified earlier as absent must not have come since. */
  async #verifyNotApplied(node: TestNode, before: number): Promise<void> {
    for (let sequence = 0; sequence < before; sequence++) {
      if (this.#writes[sequence] !== notApplied) continue;
      const found = await new HttpDoor(node).get(this.#key(sequence), 5_000, "local");
      if (found !== undefined) this.#mayBeThere(sequence, found.value, found.revision, node);
    }
  }

  verified(): void {
    this.#verifiedCount = this.#writes.length;
  }

  #mayBeAbsent(sequence: number, node: TestNode): void {
    const outcome = this.#writes[sequence]!;
    if (outcome < 0) return;
    throw new Error(
      `lost: ${this.#key(sequence)}, acknowledged at revision ${outcome}, is not on node ${node.id}`,
    );
  }

  #mayBeThere(sequence: number, value: string, revision: number, node: TestNode): void {
    const key = this.#key(sequence);
    const outcome = this.#writes[sequence];
    if (outcome === undefined) throw new Error(`${key} on node ${node.id} was never written`);
    if (outcome === notApplied) {
      throw new Error(`${key}, reported as not applied, is on node ${node.id} at ${revision}`);
    }
    if (outcome >= 0 && outcome !== revision) {
      throw new Error(`${key} is at ${revision} on node ${node.id}, acknowledged at ${outcome}`);
    }
    if (value !== this.#value(sequence)) {
      throw new Error(`${key} on node ${node.id} has another value: ${value.slice(0, 80)}`);
    }
  }

  #key(sequence: number): string {
    return this.#prefix + String(sequence).padStart(9, "0");
  }

  #value(sequence: number): string {
    return `${this.#key(sequence)} `.padEnd(this.#options.valueBytes, ".");
  }
}

interface Page {
  readonly items: readonly { key: string; value: string; revision: number }[];
  readonly more: boolean;
}

/** By a local read of that very node. */
async function readPage(node: TestNode, prefix: string, after: string | undefined): Promise<Page> {
  const query = new URLSearchParams({ prefix, consistency: "local", limit: String(pageItems) });
  if (after !== undefined) query.set("after", after);
  const response = await node.fetch(`/v1/kv?${query.toString()}`, {}, 10_000);
  if (!response.ok) throw new Error(`node ${node.id}: ${await response.text()}`);
  const { items, more } = (await response.json()) as Page;
  const text = (base64: string): string => Buffer.from(base64, "base64").toString();
  return {
    items: items.map(({ key, value, revision }) => ({
      key: text(key),
      value: text(value),
      revision,
    })),
    more,
  };
}

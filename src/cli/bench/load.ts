/**
 * The load itself: so many requests in flight, each awaited by itself, or so many a second, whatever becomes of them. Kept cheap, for
 * it shares the machine with the nodes: all slots have one key buffer, and an operation makes nothing but the SDK's promise.
 *
 * Closed loop: a slot begins its next request when the last one is answered; latency from the call to its answer. Open loop: operations
 * are due at even intervals, and latency counts from the moment one was due, so that a stall is felt by all that were due in it (no
 * coordinated omission).
 *
 * With several groups each key belongs to one of them, and each request goes to one that is drawn anew, so that all are written alike.
 */
import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import type { Client } from "../../client/index.ts";
import { BargeError } from "../../errors.ts";
import { keyBytes, type LoadPlan } from "./plan.ts";

export interface LoadResult {
  readonly operations: number;
  /** Of each whole minute. */
  readonly perMinute: readonly number[];
  readonly seconds: number;
  /** Nanoseconds, per request. */
  readonly latency: RecordableHistogram;
  readonly errors: number;
  readonly unknown: number;
  /** The first error, in words. */
  readonly firstError: string | undefined;
  readonly clientCpuSeconds: number;
  /** Open loop: the most operations that were due and not yet begun. */
  readonly backlogMax: number;
}

export interface LoadEvents {
  /** Warm-up is over: called before anything is counted. */
  begin(): Promise<void>;
  /** The measured time is over, while requests are still in flight. */
  end(): Promise<void>;
}

const minuteMs = 60_000;
/** Groups that are written to for the first time at once. */
const reachAtOnce = 64;
const latencyNsMax = 120e9;
/** Timers are coarse: the last stretch before an operation is due is waited for turn by turn. */
const spinMs = 2;

export class Load {
  readonly #plan: LoadPlan;
  /** By connection, then by group. */
  readonly #clients: readonly (readonly Client[])[];
  readonly #groups: number;
  /** Of one group. */
  readonly #keys: number;
  readonly #value: Uint8Array;
  /** Of the call that is being made: thousands of buffers would not stay in the processor's caches. */
  readonly #key = new Uint8Array(keyBytes);
  readonly #histogram = createHistogram({ lowest: 1, highest: latencyNsMax, figures: 3 });
  #random = 0x9e37_79b9;
  #running = true;
  #measuring = false;
  #operations = 0;
  #errors = 0;
  #unknown = 0;
  #firstError: string | undefined;
  #backlogMax = 0;

  constructor(plan: LoadPlan, clients: readonly (readonly Client[])[]) {
    this.#plan = plan;
    this.#clients = clients;
    this.#groups = plan.groups;
    this.#keys = Math.floor(plan.keySpace / plan.groups);
    this.#value = new Uint8Array(plan.valueBytes);
    // Not zeros: nothing on the way may profit from that.
    for (let i = 0; i < this.#value.byteLength; i++) this.#value[i] = this.#next() & 0xff;
  }

  /** Writes every key once. */
  async fill(): Promise<void> {
    const key = new Uint8Array(keyBytes);
    let pending: Promise<unknown>[] = [];
    for (let group = 0; group < this.#groups; group++) {
      for (let i = 0; i < this.#keys;) {
        const batch = this.#clients[0]![group]!.batch();
        while (i < this.#keys && batch.put(this.#writeKey(key, i, group), this.#value)) i++;
        pending.push(batch.send());
        if (pending.length === 8) {
          await Promise.all(pending);
          pending = [];
        }
      }
    }
    await Promise.all(pending);
  }

  /** Puts something into each group once: whoever leads it is known then, and there is a session. */
  async reach(): Promise<void> {
    for (const groups of this.#clients) {
      for (let from = 0; from < groups.length; from += reachAtOnce) {
        const some = groups.slice(from, from + reachAtOnce);
        await Promise.all(some.map((client) => client.put("reach", this.#value)));
      }
    }
  }

  async run(events: LoadEvents): Promise<LoadResult> {
    const { warmupSeconds, seconds, rate } = this.#plan;
    const loops = rate === undefined ? this.#closedLoops() : [this.#openLoop(rate)];
    await Bun.sleep(warmupSeconds * 1_000);
    await events.begin();
    const cpu = process.cpuUsage();
    const beginNs = Bun.nanoseconds();
    this.#measuring = true;
    const perMinute: number[] = [];
    for (let restMs = seconds * 1_000; restMs > 0; restMs -= minuteMs) {
      const before = this.#operations;
      await Bun.sleep(Math.min(restMs, minuteMs));
      if (restMs >= minuteMs) perMinute.push(this.#operations - before);
    }
    this.#measuring = false;
    const elapsed = (Bun.nanoseconds() - beginNs) / 1e9;
    const { user, system } = process.cpuUsage(cpu);
    await events.end();
    this.#running = false;
    await Promise.all(loops);
    return {
      operations: this.#operations,
      perMinute,
      seconds: elapsed,
      latency: this.#histogram,
      errors: this.#errors,
      unknown: this.#unknown,
      firstError: this.#firstError,
      clientCpuSeconds: (user + system) / 1e6,
      backlogMax: this.#backlogMax,
    };
  }

  #closedLoops(): Promise<void>[] {
    const { inFlight, batch } = this.#plan;
    return Array.from({ length: inFlight }, (_, slot) => {
      const clients = this.#clients[slot % this.#clients.length]!;
      return batch === 1 ? this.#singles(clients) : this.#batches(clients);
    });
  }

  /** One slot: one operation at a time, each awaited by itself. */
  async #singles(clients: readonly Client[]): Promise<void> {
    while (this.#running) {
      const beginNs = Bun.nanoseconds();
      try {
        await this.#operation(clients, this.#key);
        this.#done(beginNs, 1);
      } catch (error) {
        this.#failed(error, 1);
      }
    }
  }

  /** Calls encode the key at once, so that the buffer is free again when this returns. One that waits for room takes the key that is in it then. */
  #operation(clients: readonly Client[], key: Uint8Array): Promise<unknown> {
    const group = this.#drawGroup();
    const client = clients[group]!;
    this.#randomKey(key, group);
    return this.#reads() ? client.get(key) : client.put(key, this.#value);
  }

  async #batches(clients: readonly Client[]): Promise<void> {
    const key = new Uint8Array(keyBytes);
    const { batch: size } = this.#plan;
    while (this.#running) {
      const group = this.#drawGroup();
      const client = clients[group]!;
      const beginNs = Bun.nanoseconds();
      try {
        if (this.#reads()) {
          const gets: Promise<unknown>[] = [];
          for (let i = 0; i < size; i++) gets.push(client.get(this.#randomKey(key, group)));
          await Promise.all(gets);
        } else {
          const batch = client.batch();
          for (let i = 0; i < size; i++) {
            if (!batch.put(this.#randomKey(key, group), this.#value))
              throw new Error("the batch is full");
          }
          await batch.send();
        }
        this.#done(beginNs, size);
      } catch (error) {
        this.#failed(error, size);
      }
    }
  }

  async #openLoop(rate: number): Promise<void> {
    const intervalNs = 1e9 / rate;
    const keys = Array.from({ length: this.#plan.inFlight }, () => new Uint8Array(keyBytes));
    const pending = new Set<Promise<void>>();
    const beginNs = Bun.nanoseconds();
    let begun = 0;
    while (this.#running) {
      const dueNs = beginNs + begun * intervalNs;
      const nowNs = Bun.nanoseconds();
      if (nowNs < dueNs) {
        await untilDue((dueNs - nowNs) / 1e6);
        continue;
      }
      const key = keys.pop();
      if (key === undefined) {
        this.#backlogMax = Math.max(this.#backlogMax, Math.floor((nowNs - dueNs) / intervalNs));
        await Promise.race(pending);
        continue;
      }
      const clients = this.#clients[begun++ % this.#clients.length]!;
      const operation = this.#single(clients, key, dueNs).then(() => {
        keys.push(key);
        pending.delete(operation);
      });
      pending.add(operation);
    }
    await Promise.all(pending);
  }

  async #single(clients: readonly Client[], key: Uint8Array, dueNs: number): Promise<void> {
    try {
      await this.#operation(clients, key);
      this.#done(dueNs, 1);
    } catch (error) {
      this.#failed(error, 1);
    }
  }

  #done(beginNs: number, operations: number): void {
    if (!this.#measuring) return;
    this.#operations += operations;
    this.#histogram.record(Math.max(1, Math.min(latencyNsMax, Bun.nanoseconds() - beginNs)));
  }

  #failed(error: unknown, operations: number): void {
    if (!(error instanceof BargeError)) throw error;
    this.#firstError ??= `${error.code}: ${error.message}`;
    if (!this.#measuring) return;
    if (error.outcome === "unknown") this.#unknown += operations;
    else this.#errors += operations;
  }

  #reads(): boolean {
    const { readShare } = this.#plan;
    if (readShare === 0) return false;
    return readShare === 1 || this.#next() / 0x1_0000_0000 < readShare;
  }

  #drawGroup(): number {
    return this.#groups === 1 ? 0 : this.#next() % this.#groups;
  }

  #randomKey(key: Uint8Array, group: number): Uint8Array {
    return this.#writeKey(key, this.#next() % this.#keys, group);
  }

  /** The number of that key among those of its group. */
  #writeKey(key: Uint8Array, number: number, group: number): Uint8Array {
    return writeKey(key, number * this.#groups + group);
  }

  /** xorshift32: every run asks for the same keys in the same order. */
  #next(): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x;
    return x >>> 0;
  }
}

/** A key's number in decimal digits, of one length. */
function writeKey(key: Uint8Array, number: number): Uint8Array {
  let rest = number;
  for (let i = keyBytes - 1; i >= 0; i--) {
    key[i] = 48 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
  return key;
}

function untilDue(waitMs: number): Promise<unknown> {
  if (waitMs > spinMs) return Bun.sleep(waitMs - spinMs);
  return new Promise((resolve) => setImmediate(resolve));
}

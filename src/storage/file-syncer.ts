/**
 * The real syncer: one Worker that does nothing but `fdatasync` [27]. It is woken through shared memory, which costs the event loop no
 * message, and answers with a message, which reached the loop sooner than `Atomics.waitAsync` (90-115 against 125-135 µs a sync; equal when
 * the loop is busy).
 */

import { createHistogram } from "node:perf_hooks";
import { Worker } from "node:worker_threads";
import { fatal } from "../fatal.ts";
import { awaitWord } from "./await-word.ts";
import { isLatched, latchMemory } from "./sync-latch.ts";
import { SyncWord } from "./sync-request.ts";
import type { SyncReply, SyncWorkerData } from "./sync-request.ts";
import type { Syncer } from "./syncer.ts";

/** Of one round. */
export const syncDescriptorsMax = 1_022;

export interface SyncDurations {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Memory that a Worker waits on, kept for ever: collecting it under a waiting thread is a race in the runtime. */
const kept: SharedArrayBuffer[] = [];

export class FileSyncer implements Syncer {
  readonly #words: Int32Array;
  /** Started with the first sync: not every file that could be synced ever is. */
  #worker: Worker | undefined;
  readonly #synced: (seconds: number) => void;
  readonly #durations = createHistogram();
  #done: (() => void) | undefined;
  #closed = false;

  /** `synced` is told how long each round took on the disk. */
  constructor(synced: (seconds: number) => void = () => {}) {
    this.#synced = synced;
    const control = new SharedArrayBuffer((SyncWord.descriptors + syncDescriptorsMax) * 4);
    kept.push(control);
    this.#words = new Int32Array(control);
  }

  #start(): Worker {
    const control = this.#words.buffer as SharedArrayBuffer;
    const workerData: SyncWorkerData = { control, latch: latchMemory() };
    const worker = new Worker(new URL("./sync-worker.ts", import.meta.url), { workerData });
    worker.on("message", (reply: SyncReply) => this.#replied(reply));
    worker.on("error", (error) => fatal("sync_failed", `the sync Worker died: ${error}`));
    return worker;
  }

  get syncing(): boolean {
    return this.#done !== undefined;
  }

  sync(descriptors: readonly number[], done: () => void): void {
    if (this.#closed) throw new Error("sync after close");
    if (this.#done !== undefined) throw new Error("a sync is under way already");
    if (descriptors.length > syncDescriptorsMax) {
      throw new Error(`${descriptors.length} descriptors in one sync`);
    }
    this.#done = done;
    this.#words[SyncWord.count] = descriptors.length;
    this.#words.set(descriptors, SyncWord.descriptors);
    // Only a sync in flight keeps the process alive.
    this.#worker ??= this.#start();
    this.#worker.ref();
    Atomics.add(this.#words, SyncWord.request, 1);
    Atomics.notify(this.#words, SyncWord.request);
  }

  /** Of the rounds as the Worker saw them: the disk, without the way there and back. */
  durations(): SyncDurations {
    const { count } = this.#durations;
    if (count === 0) return { count: 0, p50Ms: 0, p99Ms: 0 };
    return {
      count,
      p50Ms: this.#durations.percentile(50) / 1e6,
      p99Ms: this.#durations.percentile(99) / 1e6,
    };
  }

  /**
   * No more syncs. Waits for the one in flight, because descriptors may be closed next; its `done` does not run. The Worker sleeps on: a
   * thread is never terminated.
   */
  close(): void {
    this.#closed = true;
    const request = Atomics.load(this.#words, SyncWord.request);
    awaitWord(this.#words, SyncWord.answered, request, "the last sync");
    this.#worker?.unref();
  }

  #replied(reply: SyncReply): void {
    if (typeof reply === "string") fatal("sync_failed", reply);
    if (isLatched()) fatal("sync_failed", "another sync failed meanwhile");
    this.#durations.record(Math.max(1, Math.round(reply * 1e6)));
    this.#synced(reply / 1_000);
    const done = this.#done;
    this.#done = undefined;
    if (this.#closed) return;
    this.#worker?.unref();
    done?.();
  }
}

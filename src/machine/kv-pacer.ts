/** The thread that syncs a kv file again and again while kv-worker.ts is within one long call (kv-pace.ts). Started by kv-files.ts, never ended. */
import { setPriority } from "node:os";
import { workerData } from "node:worker_threads";
import { adoptLatch, fdatasyncFile } from "../storage/sync-latch.ts";
import type { KvWorkerData } from "./kv-jobs.ts";
import { PaceWord } from "./kv-pace.ts";

/** Between two syncs: what is written in that time goes to the disk together. */
const syncEveryMs = 5;
const niceness = 10;

const { latch, pace } = workerData as KvWorkerData;
const words = new Int32Array(pace);
adoptLatch(latch);
if (process.platform === "linux") setPriority(0, niceness);

for (;;) {
  Atomics.wait(words, PaceWord.descriptor, 0);
  Atomics.wait(words, PaceWord.descriptor, Atomics.load(words, PaceWord.descriptor), syncEveryMs);
  // Whoever takes the descriptor back waits from here on until the sync has ended.
  Atomics.store(words, PaceWord.syncing, 1);
  const descriptor = Atomics.load(words, PaceWord.descriptor) - 1;
  if (descriptor >= 0) trySync(descriptor);
  Atomics.store(words, PaceWord.syncing, 0);
  Atomics.notify(words, PaceWord.syncing);
}

function trySync(descriptor: number): void {
  try {
    fdatasyncFile(descriptor);
  } catch {
    // The latch is tripped: kv-worker.ts finds it so, and tells.
  }
}

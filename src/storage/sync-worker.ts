/** The thread that syncs: sleeps, makes the descriptors of one request durable in order, answers. Started by file-syncer.ts, never ended. */

import { parentPort, workerData } from "node:worker_threads";
import { adoptLatch, fdatasyncFile } from "./sync-latch.ts";
import { SyncWord } from "./sync-request.ts";
import type { SyncReply, SyncWorkerData } from "./sync-request.ts";

const { control, latch } = workerData as SyncWorkerData;
const words = new Int32Array(control);
adoptLatch(latch);

let request = 0;
for (;;) {
  Atomics.wait(words, SyncWord.request, request);
  const current = Atomics.load(words, SyncWord.request);
  if (current === request) continue;
  request = current;
  parentPort?.postMessage(syncAll());
  Atomics.store(words, SyncWord.answered, request);
  Atomics.notify(words, SyncWord.answered);
}

function syncAll(): SyncReply {
  const startedMs = performance.now();
  try {
    const count = words[SyncWord.count]!;
    for (let i = 0; i < count; i++) fdatasyncFile(words[SyncWord.descriptors + i]!);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return performance.now() - startedMs;
}

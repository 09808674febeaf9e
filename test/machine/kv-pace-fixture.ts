/** Child process of kv-pace.test.ts: `kv-pace-fixture.ts FILE` paces a long call over FILE, then one over no file at all. */
import { closeSync, openSync, writeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import type { KvWorkerData } from "../../src/machine/kv-jobs.ts";
import { Pace, paceBytes, PaceWord } from "../../src/machine/kv-pace.ts";
import { isLatched, latchMemory } from "../../src/storage/sync-latch.ts";

const memory = new SharedArrayBuffer(paceBytes);
const words = new Int32Array(memory);
const workerData: KvWorkerData = { latch: latchMemory(), pace: memory };
new Worker(new URL("../../src/machine/kv-pacer.ts", import.meta.url), { workerData }).unref();
const pace = new Pace(memory);
const say = (text: string): void => void writeSync(1, `${text}\n`);

/** Within one call, as SQLite would be: until so many syncs have begun. */
function untilSynced(times: number): void {
  for (let seen = 0; seen < times; seen++) {
    while (Atomics.load(words, PaceWord.syncing) === 0 && !isLatched());
    while (Atomics.load(words, PaceWord.syncing) === 1);
  }
}

const descriptor = openSync(process.argv[2] ?? "", "r");
pace.during(descriptor, () => untilSynced(3));
say(`syncing ${Atomics.load(words, PaceWord.syncing)} latched ${isLatched()}`);
closeSync(descriptor);
try {
  pace.during(987_654, () => untilSynced(1));
} catch (error) {
  say(`${String(error)}, latched ${isLatched()}`);
}
process.exit(0);

/** One writer of `bench disk`, in a thread of its own: appends and syncs until the time is over, then answers with the times. */
import { closeSync, fdatasyncSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import type { DiskTask, DiskTimes } from "./disk.ts";

/** The file begins anew above this, outside of what is measured. */
const fileBytesMax = 512 * 1024 * 1024;

const { file, bytes, seconds } = workerData as DiskTask;
const data = new Uint8Array(bytes).map((_, i) => (i * 31) & 0xff);
const descriptor = openSync(file, "w");
const timesMs: number[] = [];
let position = 0;
let measuredMs = 0;
while (measuredMs < seconds * 1_000) {
  if (position + bytes > fileBytesMax) {
    ftruncateSync(descriptor, 0);
    fdatasyncSync(descriptor);
    position = 0;
  }
  const beginMs = performance.now();
  position += writeSync(descriptor, data, 0, bytes, position);
  fdatasyncSync(descriptor);
  const timeMs = performance.now() - beginMs;
  measuredMs += timeMs;
  timesMs.push(timeMs);
}
closeSync(descriptor);
const times: DiskTimes = {
  timesMs: Float64Array.from(timesMs),
  elapsedSeconds: measuredMs / 1_000,
};
parentPort!.postMessage(times);

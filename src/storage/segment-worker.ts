/**
 * The thread that prepares and removes segments: syncs, and the freeing of blocks, take milliseconds that the event loop does not have (M7).
 * Started by sqlite-disk.ts, never ended; it does one job at a time, in the order given.
 */

import { parentPort, workerData } from "node:worker_threads";
import { DiskFullError } from "./disk.ts";
import { ProgressWord } from "./segment-jobs.ts";
import type { SegmentJob, SegmentJobDone, SegmentWorkerData } from "./segment-jobs.ts";
import { prepareSegment, unlinkSegment } from "./segment-files.ts";
import { adoptLatch } from "./sync-latch.ts";

const { directory, progress, latch } = workerData as SegmentWorkerData;
const words = new Int32Array(progress);
adoptLatch(latch);

parentPort?.on("message", (job: SegmentJob) => {
  const done = work(job);
  parentPort?.postMessage(done);
  Atomics.add(words, ProgressWord.doneJobs, 1);
  Atomics.notify(words, ProgressWord.doneJobs);
});

function work(job: SegmentJob): SegmentJobDone {
  try {
    if (job.kind === "unlink") {
      unlinkSegment(directory, job.number);
    } else {
      prepareSegment(directory, job.number, job).leave();
      Atomics.store(words, ProgressWord.prepared, job.number);
    }
    return { job };
  } catch (error) {
    const failed = error instanceof Error ? error.message : String(error);
    return { job, failed, isFull: error instanceof DiskFullError };
  }
}

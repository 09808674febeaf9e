/**
 * The limit of the disk: append and fdatasync in a loop, as three nodes on one disk do it at best. Each writer is a thread of its own
 * with blocking calls, so that nothing of the event loop is in the figures.
 */
import { rmSync } from "node:fs";
import { createHistogram } from "node:perf_hooks";
import { Worker } from "node:worker_threads";
import { benchFolder } from "./nodes.ts";
import { grouped, round } from "./report.ts";
import { filesystemOf } from "./environment.ts";

export interface DiskPoint {
  readonly bytes: number;
  readonly writers: number;
  readonly megabytesPerSecond: number;
  readonly syncsPerSecond: number;
  /** One append and its fdatasync. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface DiskReport {
  readonly benchmark: "disk";
  readonly filesystem: string;
  readonly results: readonly DiskPoint[];
}

/** What a writer is told, and what it answers. */
export interface DiskTask {
  readonly file: string;
  readonly bytes: number;
  readonly seconds: number;
}

export interface DiskTimes {
  /** Milliseconds of each append and its sync. */
  readonly timesMs: Float64Array;
  readonly elapsedSeconds: number;
}

const KiB = 1024;
export const diskSizes = [4 * KiB, 16 * KiB, 64 * KiB, 256 * KiB, 1024 * KiB] as const;
export const diskWriters = [1, 3] as const;

export async function measureDisk(
  dir: string | undefined,
  secondsPerPoint: number,
  progress: (text: string) => void,
  sizes: readonly number[] = diskSizes,
): Promise<DiskReport> {
  const folder = benchFolder(dir);
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  try {
    const results: DiskPoint[] = [];
    for (const writers of diskWriters) {
      for (const bytes of sizes) {
        progress(`${writers} × ${bytes / KiB} KiB`);
        results.push(await measurePoint(folder, bytes, writers, secondsPerPoint));
      }
    }
    return { benchmark: "disk", filesystem: filesystemOf(folder), results };
  } finally {
    remove();
    process.removeListener("exit", remove);
  }
}

async function measurePoint(
  folder: string,
  bytes: number,
  writers: number,
  seconds: number,
): Promise<DiskPoint> {
  const all = await Promise.all(
    Array.from({ length: writers }, (_, i) =>
      runWriter({ file: `${folder}/writer${i}`, bytes, seconds }),
    ),
  );
  const histogram = createHistogram({ lowest: 1, highest: 60e9, figures: 3 });
  let perSecond = 0;
  for (const { timesMs, elapsedSeconds } of all) {
    perSecond += timesMs.length / elapsedSeconds;
    for (const timeMs of timesMs) histogram.record(Math.max(1, Math.round(timeMs * 1e6)));
  }
  return {
    bytes,
    writers,
    megabytesPerSecond: round((perSecond * bytes) / 1e6, 1),
    syncsPerSecond: Math.round(perSecond),
    p50Ms: round(histogram.percentile(50) / 1e6, 3),
    p99Ms: round(histogram.percentile(99) / 1e6, 3),
  };
}

function runWriter(task: DiskTask): Promise<DiskTimes> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./disk-writer.ts", import.meta.url), { workerData: task });
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

export function humanDiskReport({ results, filesystem }: DiskReport): string {
  const rows = results.map(({ writers, bytes, megabytesPerSecond, syncsPerSecond, p50Ms, p99Ms }) =>
    [
      String(writers).padStart(7),
      `${bytes / KiB} KiB`.padStart(9),
      megabytesPerSecond.toFixed(1).padStart(8),
      grouped(syncsPerSecond).padStart(9),
      p50Ms.toFixed(3).padStart(8),
      p99Ms.toFixed(3).padStart(8),
    ].join("  "),
  );
  const best = Math.max(...results.map((point) => point.megabytesPerSecond));
  const small = results.find((point) => point.writers === 1);
  return [
    `disk: up to ${best} MB/s with a sync for each append, on ${filesystem}`,
    `one ${(small?.bytes ?? 0) / KiB} KiB append with its sync: p50 ${small?.p50Ms} ms, p99 ${small?.p99Ms} ms`,
    "",
    "writers       size      MB/s    syncs/s   p50 ms   p99 ms",
    ...rows,
  ].join("\n");
}

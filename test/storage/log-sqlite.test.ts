/** The log over real files: rotation with recycled segments, several starts, and a watermark that outlives a lost tail. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultLimits } from "../../src/limits.ts";
import { LogStore } from "../../src/storage/log-store.ts";
import { SqliteDisk } from "../../src/storage/sqlite-disk.ts";
import type { Batch } from "../../src/wire/batch.ts";
import { makeRun } from "./batches.ts";
import { seedCrc, startAfter } from "./log-world.ts";

let folder: string;
let store: LogStore | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "barge-log-"));
});
afterEach(() => {
  store?.close();
  store = undefined;
  rmSync(folder, { recursive: true, force: true });
});

function open(): { store: LogStore; recovered: ReturnType<LogStore["recover"]> } {
  const disk = new SqliteDisk({
    segmentsPath: join(folder, "segments"),
    watermarkPath: join(folder, "watermark"),
    segmentBytes: 200_000,
  });
  const limits = { ...defaultLimits, segmentBytes: 200_000 };
  store = new LogStore(disk, { limits, bootId: 1, seedCrc });
  return { store, recovered: store.recover() };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function synced(log: LogStore): Promise<void> {
  const target = log.appendSeq;
  while (log.syncedSeq < target) {
    log.sync(() => {});
    await turn();
  }
}

test("rotation, compaction and starts over SQLite segments", async () => {
  let end = { index: 0, crc: seedCrc };
  let { store: log } = open();
  let kept: Batch[] = [];
  let most = 0;
  for (let round = 0; round < 5; round++) {
    for (let each = 0; each < 60; each++) {
      const run = makeRun(end, 1, [3], { bodyBytes: 10_000 });
      log.append([{ group: 0, hardState: { term: 1, votedFor: 1, commit: each }, append: run }]);
      kept.push(...run);
      end = startAfter(run[0]!);
      if (each % 5 === 0) await synced(log);
      if (each % 10 === 9) {
        const start = startAfter(kept[kept.length - 5]!);
        log.compactTo(0, start, new Uint8Array([7]));
        kept = kept.slice(-4);
      }
      log.tick(performance.now());
      await turn();
    }
    await synced(log);
    log.tick(performance.now() + 1_000);
    await synced(log);
    most = Math.max(most, log.diskBytes);
    log.close();
    const again = open();
    log = again.store;
    const group = again.recovered.get(0)!;
    expect(group.hardState).toEqual({ term: 1, votedFor: 1, commit: 59 });
    expect([...group.startConfiguration]).toEqual([7]);
    expect(group.batches.map((batch) => batch.crc)).toEqual(kept.map((batch) => batch.crc));
    const read = log.batches(0, kept[0]!.firstIndex, end.index, 1e9);
    expect(read.map((batch) => Buffer.compare(batch.bytes, kept.shift()!.bytes))).toEqual([
      0, 0, 0, 0,
    ]);
    kept = read;
    await synced(log);
  }
  expect(most).toBeLessThan(6 * 200_000);
}, 20_000);

/** The one suite over both disks: SQLite files and the simulated disk that every simulation trusts. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SqliteDisk } from "../../src/storage/sqlite-disk.ts";
import { Random } from "../sim/random.ts";
import { Scheduler } from "../sim/scheduler.ts";
import { SimDisk } from "../sim/sim-disk.ts";
import { diskSuite, type DiskHarness } from "./disk.suite.ts";

diskSuite("simulated", (): DiskHarness => {
  const scheduler = new Scheduler();
  const random = new Random(1);
  const options = {
    random: () => random.float(),
    schedule: (delayMs: number, run: () => void) => scheduler.after(delayMs, run),
  };
  return {
    open: () => new SimDisk(options),
    reopen: (disk) => (disk as SimDisk).crash("all"),
    async settle(until) {
      while (!until()) {
        if (!scheduler.step()) throw new Error("nothing is under way");
      }
    },
    dispose() {},
  };
});

/** Growing segments, and segments filled beforehand that the records outgrow. */
for (const segmentBytes of [0, 20_000]) {
  diskSuite(`sqlite, ${segmentBytes} bytes filled`, () => sqliteHarness(segmentBytes));
}

function sqliteHarness(segmentBytes: number): DiskHarness {
  const folder = mkdtempSync(join(tmpdir(), "barge-disk-"));
  const open = (): SqliteDisk =>
    new SqliteDisk({
      segmentsPath: join(folder, "segments"),
      watermarkPath: join(folder, "watermark"),
      segmentBytes,
    });
  return {
    open,
    reopen(disk) {
      disk.close();
      return open();
    },
    async settle(until) {
      const deadline = performance.now() + 5_000;
      while (!until()) {
        if (performance.now() > deadline) throw new Error("waited in vain");
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
    dispose: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** The sync Worker by itself, on a file under the current folder: write some bytes, wait until they are durable. */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { bench, group, run as runSuite } from "mitata";
import { FileSyncer } from "../src/storage/file-syncer.ts";

const KiB = 1024;
/** Written over and over, as a recycled segment is. */
const fileBytes = 16 * 1024 * KiB;

export async function run(small: boolean): Promise<void> {
  const folder = mkdtempSync(join(process.cwd(), "barge-bench-"));
  const descriptor = openSync(join(folder, "file"), "w+");
  const syncer = new FileSyncer();
  const sync = (): Promise<void> => new Promise((resolve) => syncer.sync([descriptor], resolve));
  try {
    const capacity = small ? 64 * KiB : fileBytes;
    writeSync(descriptor, new Uint8Array(capacity).fill(1), 0, capacity, 0);
    await sync();
    group("sync Worker", () => {
      bench("nothing to write", () => sync());
      for (const bytes of small ? [512] : [512, 4 * KiB, 64 * KiB, 256 * KiB]) {
        const data = new Uint8Array(bytes).fill(7);
        let position = 0;
        bench(`overwrite ${bytes} B and sync`, async () => {
          if (position + bytes > capacity) position = 0;
          position += writeSync(descriptor, data, 0, bytes, position);
          await sync();
        });
      }
    });
    await runSuite({ format: small ? "quiet" : "mitata" });
  } finally {
    syncer.close();
    closeSync(descriptor);
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.main) await run(process.argv.includes("--small"));

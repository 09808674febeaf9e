/**
 * The log on real SQLite segments, under the current folder: `append` alone (what holds up the event loop), and append with its sync (what
 * one write waits for). The log is compacted behind, so that segments are recycled as in a running node.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { bench, group, run as runSuite } from "mitata";
import { defaultLimits } from "../src/limits.ts";
import { LogStore } from "../src/storage/log-store.ts";
import { openSqliteDisk } from "../src/storage/sqlite-disk.ts";
import { BatchKind, batchHeaderBytes, sealBatch, type Batch } from "../src/wire/batch.ts";

const KiB = 1024;
/** Batches kept behind the newest one. */
const kept = 64;

export async function run(small: boolean): Promise<void> {
  const folder = mkdtempSync(join(process.cwd(), "barge-bench-"));
  const logs: Log[] = [];
  try {
    for (const bodyBytes of small ? [512] : [512, 4 * KiB, 64 * KiB, 256 * KiB]) {
      group(`batch of ${bodyBytes} B`, () => {
        const log = new Log(join(folder, `${bodyBytes}`), bodyBytes);
        logs.push(log);
        bench("append", () => log.append());
        bench("append and sync", async () => {
          log.append();
          await log.sync();
        });
      });
    }
    await runSuite({ format: small ? "quiet" : "mitata" });
  } finally {
    for (const log of logs) log.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

class Log {
  readonly #store: LogStore;
  readonly #body: Uint8Array;
  #index = 0;
  #crc = 0;
  readonly #recent: Batch[] = [];

  constructor(folder: string, bodyBytes: number) {
    mkdirSync(folder);
    const disk = openSqliteDisk({
      segmentsPath: join(folder, "segments"),
      watermarkPath: join(folder, "watermark"),
      segmentBytes: defaultLimits.segmentBytes,
    });
    this.#store = new LogStore(disk, { limits: defaultLimits, bootId: 1, seedCrc: 0 });
    this.#store.recover();
    this.#body = new Uint8Array(bodyBytes).fill(7);
  }

  append(): void {
    const bytes = new Uint8Array(batchHeaderBytes + this.#body.byteLength);
    bytes.set(this.#body, batchHeaderBytes);
    const batch = sealBatch(
      {
        group: 0,
        kind: BatchKind.commands,
        firstIndex: this.#index + 1,
        count: 1,
        term: 1,
        timeMs: 0,
        prevCrc: this.#crc,
      },
      bytes,
    );
    this.#index++;
    this.#crc = batch.crc;
    this.#store.append([{ group: 0, hardState: undefined, append: [batch] }]);
    this.#recent.push(batch);
    if (this.#recent.length < kept * 2) return;
    const { firstIndex, crc, term, timeMs } = this.#recent[kept - 1]!;
    this.#recent.splice(0, kept);
    this.#store.compactTo(0, { index: firstIndex, term, crc, timeMs }, new Uint8Array([1]));
    this.#store.tick(performance.now());
  }

  sync(): Promise<void> {
    return new Promise((resolve) => this.#syncUpTo(this.#store.appendSeq, resolve));
  }

  /** A round that is under way may have begun before the append: then one more is needed. */
  #syncUpTo(seq: number, done: () => void): void {
    const again = (): void => this.#syncUpTo(seq, done);
    if (this.#store.syncedSeq >= seq) done();
    else if (!this.#store.sync(again)) setImmediate(again);
  }

  close(): void {
    this.#store.close();
  }
}

if (import.meta.main) await run(process.argv.includes("--small"));

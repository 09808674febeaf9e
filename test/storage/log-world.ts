/** A log-store over a simulated disk, with the clock in hand: for tests that crash and come back. */
import { defaultLimits, type Limits } from "../../src/limits.ts";
import { LogStore, type RecoveredGroup } from "../../src/storage/log-store.ts";
import { BatchKind, type Batch, type LogStart } from "../../src/wire/batch.ts";
import { Random } from "../sim/random.ts";
import { Scheduler } from "../sim/scheduler.ts";
import { SimDisk, type CrashMode } from "../sim/sim-disk.ts";
import { makeBatch, makeRun } from "./batches.ts";

export const seedCrc = 0x5eed;

export class LogWorld {
  readonly random: Random;
  readonly scheduler = new Scheduler();
  readonly limits: Limits;
  /** There are others that have what is lost here. */
  readonly canHeal: boolean;
  disk: SimDisk;
  store: LogStore;
  recovered = new Map<number, RecoveredGroup>();
  /** What the store reported through onCorrupt. */
  damage: string[] = [];

  constructor(seed: number, limits: Partial<Limits> = {}, canHeal = false) {
    this.canHeal = canHeal;
    this.random = new Random(seed);
    this.limits = { ...defaultLimits, ...limits };
    this.disk = new SimDisk({
      random: () => this.random.float(),
      schedule: (delayMs, run) => this.scheduler.after(delayMs, run),
    });
    this.store = this.#open();
    this.recovered = this.store.recover();
  }

  #open(): LogStore {
    return new LogStore(this.disk, {
      limits: this.limits,
      bootId: this.random.u32(),
      seedCrc,
      canHeal: this.canHeal,
      onCorrupt: (what) => this.damage.push(what),
    });
  }

  append(...batches: Batch[]): number {
    return this.store.append([{ group: batches[0]!.group, hardState: undefined, append: batches }]);
  }

  /** A run of batches that continues what the store has of group 0. */
  appendRun(term: number, counts: readonly number[], bodyBytes = 16): Batch[] {
    const run = makeRun(this.end(0), term, counts, { bodyBytes });
    this.append(...run);
    return run;
  }

  /** Where group `group` ends, as the store reads it back. */
  end(group: number, from = 1): { index: number; crc: number } {
    const last = this.log(group, from).at(-1);
    if (last === undefined) return { index: 0, crc: seedCrc };
    return { index: last.firstIndex + last.count - 1, crc: last.crc };
  }

  log(group: number, from = 1): Batch[] {
    return this.store.batches(group, from, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  }

  /** Syncs everything appended so far. */
  sync(): void {
    const target = this.store.appendSeq;
    while (this.store.syncedSeq < target) {
      this.store.sync(() => {});
      if (!this.scheduler.step()) throw new Error("no sync is under way");
    }
  }

  /** A tick, and everything that it set off. */
  tick(): void {
    this.store.tick(this.scheduler.nowMs + 1_000);
    while (this.scheduler.step());
  }

  crash(mode: CrashMode): Map<number, RecoveredGroup> {
    this.disk = this.disk.crash(mode);
    this.store = this.#open();
    return (this.recovered = this.store.recover());
  }
}

export function startAfter(batch: Batch): LogStart {
  const { firstIndex, count, term, crc, timeMs } = batch;
  return { index: firstIndex + count - 1, term, crc, timeMs };
}

export { BatchKind, makeBatch, makeRun };

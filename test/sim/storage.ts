/** What a simulated node has on disk: its log's segments and its key-value file. Outlives the node's boots; a crash decides what is left. */
import type { KvFile } from "../../src/machine/kv-file.ts";
import type { Disk } from "../../src/storage/disk.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import { SimDisk, type CrashMode } from "./sim-disk.ts";
import { SimKvFile } from "./sim-kv-file.ts";

export interface StorageOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly syncMsMax: number;
}

export class Storage {
  #disk: SimDisk;
  #kvFile: SimKvFile;

  constructor({ scheduler, random, syncMsMax }: StorageOptions) {
    const options = {
      random: (): number => random.float(),
      schedule: (delayMs: number, run: () => void): void => scheduler.after(delayMs, run),
      syncMsMin: 0.05,
      syncMsMax,
    };
    this.#disk = new SimDisk(options);
    this.#kvFile = new SimKvFile(options);
  }

  /** Factor on the time of each sync of the log. */
  set slowness(factor: number) {
    this.#disk.slowness = factor;
  }

  /** From now on the log may grow by so many bytes, and the key-value file not at all unless there is room without end. */
  set room(bytes: number) {
    let taken = 0;
    for (const segment of this.#disk.segments) taken += segment.bytes;
    this.#disk.bytesMax = taken + bytes;
    this.#kvFile.bytesMax = bytes === Infinity ? Infinity : 0;
  }

  get disk(): Disk {
    return this.#disk;
  }

  get kvFile(): KvFile {
    return this.#kvFile;
  }

  crash(mode: CrashMode): void {
    this.#disk = this.#disk.crash(mode);
    this.#kvFile = this.#kvFile.crash(mode);
  }
}

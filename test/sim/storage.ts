/** What a simulated node has on disk: its log's segments and its key-value files. Outlives the node's boots; a crash decides what is left. */
import type { Space } from "../../src/node/shard.ts";
import type { Disk } from "../../src/storage/disk.ts";
import type { SpaceLevel } from "../../src/storage/disk-space.ts";
import { systemGroup } from "../../src/wire/registry.ts";
import type { Limits } from "../../src/limits.ts";
import { readWatermark } from "../../src/storage/watermark.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import { SimDisk, type CrashMode } from "./sim-disk.ts";
import type { SimKvFileOptions } from "./sim-kv-file.ts";
import { SimAppFolder } from "./sim-app-folder.ts";
import { SimKvFolder } from "./sim-kv-folder.ts";

export interface StorageOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** For what belongs to other groups than the default one. */
  readonly folderRandom: Random;
  /** Factor on the time of each sync of the registry's file: what it says is durable late. */
  readonly registrySlowness: number;
  readonly syncMsMax: number;
  /** Room that the log gets once it has none; 0 = the node knows nothing of space. */
  readonly ballastBytes: number;
  /** The log got it. */
  readonly ballastReleased: () => void;
  /** A sync has failed: the process will notice soon, and end. */
  readonly syncFailed: () => void;
}

/** Any record that the watermark covers; or one of the first in the newest segment, where is said what the node has. */
export type RotPlace = "anywhere" | "newest";

/** Records that tell of the group, at the beginning of each segment. */
const stateRecords = 5;

/** In the order of `rots`: a bit, a record in another's place, a tail that is gone, a record that is gone, a bit of the watermark. */
const rotWeights = { anywhere: [5, 2, 2, 2, 1], newest: [5, 2, 2, 2, 0] };

export class Storage {
  readonly #random: Random;
  readonly #syncFailed: () => void;
  #disk: SimDisk;
  /** Of the default group's machine. */
  #folder: SimKvFolder;
  /** Of the others' machines. */
  #folders = new Map<number, SimKvFolder>();
  readonly #folderOptions: SimKvFileOptions;
  /** Of machines that are applications. */
  #appFolders = new Map<number, SimAppFolder>();
  #folderSlowness = 1;
  #registrySlowness: number;
  #failing = false;
  /** No sync of this life succeeds any more, whatever it covers [D9]. */
  #latched = false;
  readonly #ballastBytes: number;
  #level: SpaceLevel = "plenty";
  /** What the node is told of it, and asks for. */
  readonly space: Space;

  constructor({
    scheduler,
    random,
    folderRandom,
    registrySlowness,
    syncMsMax,
    ballastBytes,
    ballastReleased,
    syncFailed,
  }: StorageOptions) {
    this.#random = random;
    this.#registrySlowness = registrySlowness;
    this.#syncFailed = syncFailed;
    this.#ballastBytes = ballastBytes;
    const level = (): SpaceLevel => this.#level;
    this.space = {
      get level() {
        return level();
      },
      release: () => {
        const isThere = this.#level === "low";
        if (isThere) {
          this.#level = "out";
          this.#disk.bytesMax += ballastBytes;
          ballastReleased();
        }
        return isThere;
      },
    };
    const options = {
      random: (): number => random.float(),
      schedule: (delayMs: number, run: () => void): void => scheduler.after(delayMs, run),
      syncMsMin: 0.05,
      syncMsMax,
      syncFails: () => this.#syncFails(),
    };
    this.#disk = new SimDisk(options);
    const slowness = (): number => this.#folderSlowness;
    this.#folder = new SimKvFolder({ ...options, slowness });
    this.#folderOptions = { ...options, slowness, random: () => folderRandom.float() };
  }

  /** Factor on the time of each sync of the log. */
  set slowness(factor: number) {
    this.#disk.slowness = factor;
  }

  /** Nothing is slow, full or about to fail, and what is under way is done soon. */
  calm(slowness: number): void {
    this.#failing = false;
    this.room = Infinity;
    this.slowness = slowness;
    this.#folderSlowness = slowness;
    this.#registrySlowness = 1;
    this.#disk.hurry();
  }

  /** From now on the log may grow by so many bytes, and the key-value file not at all unless there is room without end. */
  set room(bytes: number) {
    let taken = 0;
    for (const segment of this.#disk.segments) taken += segment.bytes;
    this.#disk.bytesMax = taken + bytes;
    for (const folder of [this.#folder, ...this.#folders.values()]) {
      folder.bytesMax = bytes === Infinity ? Infinity : 0;
    }
    for (const folder of this.#appFolders.values()) {
      folder.bytesMax = bytes === Infinity ? Infinity : 0;
    }
    this.#level = bytes === Infinity || this.#ballastBytes === 0 ? "plenty" : "low";
  }

  get disk(): Disk {
    return this.#disk;
  }

  /** Of the log, that have ended since the node's last crash. */
  get syncs(): number {
    return this.#disk.syncs;
  }

  /** What a group's state machine keeps; there is such a folder from when it is asked for. */
  folder(group: number): SimKvFolder {
    if (group === 0) return this.#folder;
    let folder = this.#folders.get(group);
    if (folder === undefined) {
      const slowness = (): number =>
        this.#folderSlowness * (group === systemGroup ? this.#registrySlowness : 1);
      folder = new SimKvFolder({ ...this.#folderOptions, slowness });
      folder.bytesMax = this.#folder.bytesMax;
      this.#folders.set(group, folder);
    }
    return folder;
  }

  /** The same of a machine that is an application. */
  appFolder(group: number, limits: Limits): SimAppFolder {
    let folder = this.#appFolders.get(group);
    if (folder === undefined) {
      folder = new SimAppFolder(this.#folderOptions, limits);
      folder.bytesMax = this.#folder.bytesMax;
      this.#appFolders.set(group, folder);
    }
    return folder;
  }

  /** Groups, but for the default one, that have a folder. */
  get folders(): readonly number[] {
    return [...this.#folders.keys(), ...this.#appFolders.keys()].filter((group) => group !== 0);
  }

  removeFolder(group: number): void {
    this.#folders.delete(group);
    this.#appFolders.delete(group);
  }

  /** The next sync to end fails, be it of log, watermark or key-value file. */
  failSync(): void {
    this.#failing = true;
  }

  #syncFails(): boolean {
    if (this.#failing) {
      this.#failing = false;
      this.#latched = true;
      this.#syncFailed();
    }
    return this.#latched;
  }

  crash(mode: CrashMode): void {
    this.#disk = this.#disk.crash(mode);
    this.#folder = this.#folder.crash(mode);
    for (const [group, folder] of this.#folders) this.#folders.set(group, folder.crash(mode));
    for (const [group, folder] of this.#appFolders) {
      this.#appFolders.set(group, folder.crash(mode));
    }
    this.#failing = this.#latched = false;
  }

  /**
   * Bit rot while the node is down. Strikes only what the watermark covers: beyond it nobody can tell rot from a tail that a power cut took, which
   * is a stated limit [22]. Returns up to which record the node knew its log durable; undefined when there is nothing yet.
   */
  rot(where: RotPlace): number | undefined {
    const disk = this.#disk;
    const random = this.#random;
    disk.catchWatermarkUp();
    const bytes = disk.readWatermark();
    const watermark = bytes === undefined ? undefined : readWatermark(bytes);
    if (watermark === undefined) return undefined;
    let covered: number[] = [];
    let newest: number[] = [];
    for (const segment of disk.segments) {
      const first = covered.length;
      segment.scan(({ seq }) => {
        if (seq <= watermark.seq) covered.push(seq);
      });
      if (covered.length > first) newest = covered.slice(first, first + stateRecords);
    }
    if (where === "newest") covered = newest;
    if (covered.length === 0) return undefined;
    const seq = random.pick(covered);
    const bit = random.below(1 << 16);
    const rots = [
      () => disk.flipBit(seq, bit),
      () => disk.misdirect(random.pick(covered), seq),
      () => disk.cutTail(seq),
      () => disk.loseRecord(seq),
      () => disk.flipWatermarkBit(bit),
    ];
    rots[random.weighted(rotWeights[where])]!();
    return watermark.seq;
  }
}

/**
 * How much the file system of the data folder has left, and the *ballast*: a file of zeros that takes room while there is plenty, and gives it up
 * to the log once there is none, so that votes can still be written [20]. Says what the node may do; never writes what matters itself.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  statfs,
  statfsSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

/**
 * `plenty`: all is well. `low`: less is free than should be; what this node is given it takes, but it asks for no more. `out`: the log met the end
 * of the disk, and the ballast is gone: there is room for votes and for little else.
 */
export type SpaceLevel = "plenty" | "low" | "out";

export interface DiskSpaceOptions {
  readonly folder: string;
  /** Less than this is little; 0 = never. */
  readonly minFreeBytes: number;
  readonly ballastBytes: number;
}

const chunkBytes = 1_048_576;
/** To begin its life a node makes a segment; with less than this free the ballast goes first. */
const startBytes = 1_048_576;

export class DiskSpace {
  readonly #folder: string;
  readonly #path: string;
  readonly #minFreeBytes: number;
  readonly #ballastBytes: number;
  #level: SpaceLevel = "plenty";
  #freeBytes = Infinity;
  #looking = false;

  /** Looks, and makes the ballast where there is room for it. Blocks. */
  constructor({ folder, minFreeBytes, ballastBytes }: DiskSpaceOptions) {
    this.#folder = folder;
    this.#path = join(folder, "ballast");
    this.#minFreeBytes = minFreeBytes;
    this.#ballastBytes = ballastBytes;
    const free = freeBytesAt(folder);
    if (free < startBytes || !this.#fillBallast()) this.release();
    this.#judge(freeBytesAt(folder));
  }

  get level(): SpaceLevel {
    return this.#level;
  }

  /** As of the last look. */
  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** Whether so much could be written and leave what the ballast takes, so that the log never has to do without it for the sake of something else. */
  hasRoomFor(bytes: number): boolean {
    return freeBytesAt(this.#folder) - this.#ballastBytes >= bytes;
  }

  /** Looks, off the event loop; what has changed shows in `level` a little later. One look at a time. */
  look(): void {
    if (this.#looking) return;
    this.#looking = true;
    statfs(this.#folder, (error, found) => {
      this.#looking = false;
      // A folder that cannot be looked at any more will be met by whoever writes in it.
      if (error === null) this.#judge(found.bavail * found.bsize);
    });
  }

  /** The disk is full: gives up the ballast. False where there was none. */
  release(): boolean {
    this.#level = "out";
    try {
      unlinkSync(this.#path);
      return true;
    } catch {
      return false;
    }
  }

  #judge(freeBytes: number): void {
    this.#freeBytes = freeBytes;
    if (this.#level === "out") this.#restore();
    if (this.#level === "out") return;
    // What is freed by a little is soon gone again.
    const enough = this.#level === "low" ? this.#minFreeBytes * 1.25 : this.#minFreeBytes;
    this.#level = this.#freeBytes < enough ? "low" : "plenty";
  }

  /** Once there is room for the ballast and as much again, or what should be free. */
  #restore(): void {
    const wanted = this.#ballastBytes + Math.max(this.#ballastBytes, this.#minFreeBytes);
    if (this.#freeBytes < wanted) return;
    if (!this.#fillBallast()) return void this.release();
    this.#level = "low";
    this.#freeBytes -= this.#ballastBytes;
  }

  /**
   * False where it cannot be had, on a full disk or on one that fails: whoever writes next says why. What the file holds is never read, so it is not
   * synced either.
   */
  #fillBallast(): boolean {
    let descriptor: number | undefined;
    try {
      descriptor = openSync(this.#path, constants.O_WRONLY | constants.O_CREAT, 0o600);
      const zeros = new Uint8Array(chunkBytes);
      let at = fstatSync(descriptor).size;
      if (at > this.#ballastBytes) ftruncateSync(descriptor, this.#ballastBytes);
      while (at < this.#ballastBytes) {
        at += writeSync(descriptor, zeros, 0, Math.min(chunkBytes, this.#ballastBytes - at), at);
      }
      return true;
    } catch {
      return false;
    } finally {
      if (descriptor !== undefined) closeSync(descriptor);
    }
  }
}

function freeBytesAt(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

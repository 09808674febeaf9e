/**
 * A file system of its own on a loop device, whose power can be cut: what was not synced is gone, and all that is asked of it afterwards fails, until it
 * is mounted anew. Needs root and loop devices; where they cannot be had the reason is printed and the caller skips.
 */
import { dlopen, FFIType, ptr } from "bun:ffi";
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const fileSystems = ["ext4", "xfs"] as const;
export type FileSystemKind = (typeof fileSystems)[number];

/** XFS takes no less than 300 MB; the file has holes. */
const imageBytes = 512 * 1024 * 1024;
const make: Record<FileSystemKind, readonly string[]> = {
  ext4: ["mkfs.ext4", "-q", "-F"],
  xfs: ["mkfs.xfs", "-q", "-f"],
};
/** EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same; 2: not even the journal is written. */
const shutdownRequest = 0x80_04_58_7dn;
const shutdownNoLogFlush = 2;

/** Disks for the nodes of one test, in a folder that goes with them; undefined where this machine cannot have them. */
export function loopDisks(kind: FileSystemKind, count: number): LoopDisks | undefined {
  const disks = new LoopDisks();
  try {
    for (let i = 0; i < count; i++) disks.add(kind);
    return disks;
  } catch (error) {
    disks[Symbol.dispose]();
    process.stderr.write(`skip: no ${kind} on a loop device here (${String(error)})\n`);
    return undefined;
  }
}

export class LoopDisks implements Disposable {
  readonly all: LoopDisk[] = [];
  readonly #folder: string = mkdtempSync(join(tmpdir(), "barge-power-"));

  add(kind: FileSystemKind): void {
    this.all.push(new LoopDisk(kind, join(this.#folder, `disk${this.all.length + 1}`)));
  }

  [Symbol.dispose](): void {
    for (const disk of this.all) disk.end();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export class LoopDisk {
  /** Where it is mounted. */
  readonly path: string;
  #image: string;
  #copies = 0;

  constructor(kind: FileSystemKind, path: string) {
    this.path = path;
    this.#image = `${path}.img`;
    mkdirSync(path);
    writeFileSync(this.#image, "");
    truncateSync(this.#image, imageBytes);
    run(...make[kind], this.#image);
    this.#mount();
  }

  #mount(): void {
    run("mount", "-o", "loop", this.#image, this.path);
  }

  /** From now on nothing reaches it. */
  cut(): void {
    const folder = openSync(this.path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      if (shutdown(folder) !== 0) throw new Error(`the power of ${this.path} was not cut`);
    } finally {
      closeSync(folder);
    }
  }

  /** With power again: what its journal says is there. Nobody may have a file of it open. */
  bringBack(): void {
    run("umount", this.path);
    this.#mount();
    if (this.#isAlive()) return;
    // Another mount namespace has it still, as it was when the power went: then what the disk holds goes on as another disk.
    run("umount", this.path);
    const copy = `${this.path}-${++this.#copies}.img`;
    run("cp", "--sparse=always", this.#image, copy);
    rmSync(this.#image);
    this.#image = copy;
    this.#mount();
    if (!this.#isAlive()) throw new Error(`${this.path} does not come back`);
  }

  #isAlive(): boolean {
    const probe = join(this.path, "probe");
    try {
      writeFileSync(probe, "");
      rmSync(probe);
      return true;
    } catch {
      return false;
    }
  }

  end(): void {
    // Lazily, should anything still hold it; there may be nothing to unmount.
    Bun.spawnSync(["umount", "-l", this.path], { stderr: "ignore" });
  }
}

function run(...command: string[]): void {
  const { success, stderr } = Bun.spawnSync(command, { stdout: "ignore", stderr: "pipe" });
  if (!success) throw new Error(`${command.join(" ")}: ${stderr.toString().trim()}`);
}

let libc: ReturnType<typeof openLibc> | undefined;

function openLibc() {
  return dlopen("libc.so.6", {
    ioctl: { args: [FFIType.i32, FFIType.u64, FFIType.ptr], returns: FFIType.i32 },
  });
}

function shutdown(folder: number): number {
  libc ??= openLibc();
  const how = new Uint32Array([shutdownNoLogFlush]);
  return libc.symbols.ioctl(folder, shutdownRequest, ptr(how));
}

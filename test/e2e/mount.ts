/** A small file system of its own for a test, where this process may mount one; else the reason is printed and the caller skips. */
import { appendFileSync, mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface Mount extends Disposable {
  readonly path: string;
  remount(options: string): void;
}

/** A tmpfs at `path`, with such options as `size=32m`; undefined where it cannot be had. */
export function mounted(path: string, options: string): Mount | undefined {
  mkdirSync(path, { recursive: true });
  const refused = mountCommand("mount", "-t", "tmpfs", "-o", options, "tmpfs", path);
  if (refused !== undefined) {
    process.stderr.write(`skip: no file system can be mounted here (${refused})\n`);
    return undefined;
  }
  return {
    path,
    remount(changed: string): void {
      const failed = mountCommand("mount", "-o", `remount,${changed}`, path);
      if (failed !== undefined) throw new Error(`remount ${path} ${changed}: ${failed}`);
    },
    [Symbol.dispose](): void {
      // Lazily, should anything still hold it.
      mountCommand("umount", "-l", path);
    },
  };
}

/** Bytes that are left of the file system. */
function freeBytesOf(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** Makes one file as large as leaves so much. */
function leaveFree(mount: string, file: string, bytes: number): void {
  for (;;) {
    rmSync(file, { force: true });
    try {
      return writeFileSync(file, new Uint8Array(Math.max(0, freeBytesOf(mount) - bytes)));
    } catch (error) {
      // The node has taken some of it meanwhile: it puts its ballast back as soon as it can.
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    }
  }
}

/** A small file system of its own for one node, which somebody else uses too. */
export class NodeDisk implements Disposable {
  readonly folder: string;
  readonly #mount: Mount;

  private constructor(mount: Mount) {
    this.#mount = mount;
    this.folder = join(mount.path, "node");
  }

  /** `size`: like `192m`. Undefined where none can be had. */
  static make(path: string, size: string): NodeDisk | undefined {
    const mount = mounted(path, `size=${size}`);
    return mount === undefined ? undefined : new NodeDisk(mount);
  }

  /** Somebody else uses it, up to so much. */
  leave(bytes: number): void {
    this.free();
    leaveFree(this.#mount.path, this.#other("most"), bytes);
  }

  fill(): void {
    fillWith(this.#other("rest"));
  }

  free(): void {
    for (const name of ["most", "rest"]) rmSync(this.#other(name), { force: true });
  }

  #other(name: string): string {
    return join(this.#mount.path, name);
  }

  [Symbol.dispose](): void {
    this.#mount[Symbol.dispose]();
  }
}

/** Takes all that is left of the file system into one file. */
export function fillWith(path: string): void {
  const block = new Uint8Array(4_096);
  try {
    for (;;) appendFileSync(path, block);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

/** Undefined where it went well, else what it said. */
function mountCommand(...command: string[]): string | undefined {
  try {
    const { success, stderr } = Bun.spawnSync(command, { stderr: "pipe" });
    return success ? undefined : stderr.toString().trim();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

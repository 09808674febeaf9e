/** The clocks and disks of daemons under chaos, through preload.c. Needs a C compiler; without one these faults are left out. */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";

const source = join(import.meta.dir, "preload.c");
const controlBytes = 128;
/** The two delays; what follows is the library's to change too. */
const delaysBytes = 16;
const patternAt = 40;
const patternBytesMax = 88;

/** What fails next: the call, and the files, as of fnmatch(3). */
export interface DiskFault {
  readonly call: "sync" | "write";
  readonly pattern: string;
}

/** Compiles the library into `dir`; undefined where that cannot be done here. */
export function buildPreload(dir: string): string | undefined {
  const compiler = process.platform === "linux" ? Bun.which("cc") : null;
  if (compiler === null) return undefined;
  const library = join(dir, "preload.so");
  const built = Bun.spawnSync(
    [compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"],
    { stderr: "inherit" },
  );
  return built.success ? library : undefined;
}

/** What one daemon takes for the time, and how quick its disk is. */
export class Surroundings implements Disposable {
  readonly environment: Readonly<Record<string, string>>;
  readonly #view = new DataView(new ArrayBuffer(delaysBytes));
  readonly #file: number;

  constructor(library: string, path: string) {
    this.#file = openSync(path, "w+");
    ftruncateSync(this.#file, controlBytes);
    this.environment = { LD_PRELOAD: library, CHAOS_CONTROL: path };
    this.#write();
  }

  /** The wall clock shows so much more than the time. Across restarts too. */
  set clockOffsetMs(ms: number) {
    this.#view.setBigInt64(0, BigInt(Math.round(ms)), true);
    this.#write();
  }

  /** Each sync takes so much longer. */
  set syncDelayMs(ms: number) {
    this.#view.setBigInt64(8, BigInt(Math.round(ms)), true);
    this.#write();
  }

  /** The next such call fails with EIO, once. */
  failNext({ call, pattern }: DiskFault): void {
    const bytes = Buffer.alloc(controlBytes - delaysBytes);
    bytes.writeBigInt64LE(call === "sync" ? 1n : 2n, 0);
    if (bytes.write(pattern, patternAt - delaysBytes) >= patternBytesMax)
      throw new Error(`the pattern ${pattern} is too long`);
    // The pattern first: from the number on it is in force.
    writeSync(this.#file, bytes, 8, bytes.byteLength - 8, delaysBytes + 8);
    writeSync(this.#file, bytes, 0, 8, delaysBytes);
  }

  /** Nothing fails any more that has not failed yet. */
  failNothing(): void {
    writeSync(this.#file, new Uint8Array(8), 0, 8, delaysBytes);
  }

  /** How many calls failed, and how many syncs came too late after one that did. */
  get failures(): { readonly failed: number; readonly after: number } {
    const bytes = Buffer.alloc(16);
    readSync(this.#file, bytes, 0, 16, delaysBytes + 8);
    return { failed: Number(bytes.readBigInt64LE(0)), after: Number(bytes.readBigInt64LE(8)) };
  }

  forgetFailures(): void {
    writeSync(this.#file, new Uint8Array(16), 0, 16, delaysBytes + 8);
  }

  #write(): void {
    writeSync(this.#file, new Uint8Array(this.#view.buffer), 0, delaysBytes, 0);
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

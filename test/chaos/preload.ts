/** The clocks and disks of daemons under chaos, through preload.c. Needs a C compiler; without one these faults are left out. */
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";

const source = join(import.meta.dir, "preload.c");
const controlBytes = 16;

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
  readonly #view = new DataView(new ArrayBuffer(controlBytes));
  readonly #file: number;

  constructor(library: string, path: string) {
    this.#file = openSync(path, "w+");
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

  #write(): void {
    writeSync(this.#file, new Uint8Array(this.#view.buffer), 0, controlBytes, 0);
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

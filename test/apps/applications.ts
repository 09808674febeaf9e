/** The applications of this folder as processes of tests: started on a free port with a data folder of their own, killed, and started again on the same data. */
import type { Subprocess } from "bun";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts, until } from "../e2e/cluster.ts";

export interface Language {
  readonly name: string;
  /** What starts the application. */
  readonly command: readonly string[];
  /** The program that it needs, where that may be missing. */
  readonly needs?: string;
  /** Before the first start. */
  readonly build?: () => void;
}

const here = import.meta.dir;

export const typescript: Language = {
  name: "TypeScript",
  command: [process.execPath, join(here, "typescript", "app.ts")],
};

export const python: Language = {
  name: "Python",
  needs: "python3",
  command: ["python3", join(here, "python", "app.py")],
};

const goProgram = join(tmpdir(), `barge-go-application-${process.pid}`);

export const go: Language = {
  name: "Go",
  needs: "go",
  command: [goProgram],
  build: () => {
    if (existsSync(goProgram)) return;
    const cwd = join(here, "go");
    // Without a C compiler.
    const env = { ...process.env, CGO_ENABLED: "0" };
    const build = ["go", "build", "-o", goProgram, "."];
    const { exitCode, stderr } = Bun.spawnSync(build, { cwd, env });
    if (exitCode !== 0) throw new Error(`go build: ${stderr.toString()}`);
    process.on("exit", () => rmSync(goProgram, { force: true }));
  },
};

/** Instant snapshots; for a daemon with --app-sync. */
export const wal: Language = {
  name: "TypeScript with a write-ahead log under control",
  command: [process.execPath, join(here, "wal", "app.ts")],
};

export const languages: readonly Language[] = [typescript, python, go];

/** Whether it can be started here; where not, says so: what is not tested is told. Built before the tests run, as that may take half a minute. */
export function prepared({ name, needs, build }: Language): boolean {
  if (needs === undefined || Bun.which(needs) !== null) {
    build?.();
    return true;
  }
  process.stderr.write(`${needs} is not installed: the application in ${name} is not tested\n`);
  return false;
}

export class TestApplication implements AsyncDisposable {
  readonly port: number;
  readonly dataDir: string;
  readonly #language: Language;
  #child: Subprocess | undefined;

  constructor(language: Language, dataDir: string) {
    this.#language = language;
    language.build?.();
    this.dataDir = dataDir;
    [this.port] = freePorts(1) as [number];
    mkdirSync(dataDir, { recursive: true });
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Returns once it answers. */
  async start(): Promise<void> {
    this.#child = Bun.spawn([...this.#language.command], {
      env: {
        ...process.env,
        PORT: String(this.port),
        DATA_DIR: this.dataDir,
      },
      stdin: "ignore",
      stdout: "ignore",
      // Connections that break are told there at length.
      stderr: "ignore",
    });
    await until(`the application on ${this.port} answers`, async () => {
      try {
        return (await fetch(`${this.url}/Ready`, { method: "POST" })).ok;
      } catch {
        return false;
      }
    });
  }

  /** As one stops it who means well. */
  async terminate(): Promise<void> {
    this.#child?.kill("SIGTERM");
    await this.#child?.exited;
    this.#child = undefined;
  }

  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#child?.exited;
    this.#child = undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

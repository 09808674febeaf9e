/** The applications of this folder as processes of tests: started on a free port with a data folder of their own, killed, and started again on the same data. */
import type { Subprocess } from "bun";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { freePorts, until } from "../e2e/cluster.ts";

export interface Language {
  readonly name: string;
  /** What starts the application. */
  readonly command: readonly string[];
  /** Before its first start; it fails where the language is not installed. */
  readonly build?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

const here = import.meta.dir;

export const typescript: Language = {
  name: "TypeScript",
  command: [process.execPath, join(here, "typescript", "app.ts")],
};

export class TestApplication implements AsyncDisposable {
  readonly port: number;
  readonly dataDir: string;
  readonly #language: Language;
  #child: Subprocess | undefined;

  constructor(language: Language, dataDir: string) {
    this.#language = language;
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
        ...this.#language.environment,
        PORT: String(this.port),
        DATA_DIR: this.dataDir,
      },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "inherit",
    });
    await until(`the application on ${this.port} answers`, async () => {
      try {
        return (await fetch(`${this.url}/Ready`, { method: "POST" })).ok;
      } catch {
        return false;
      }
    });
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

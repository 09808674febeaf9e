/**
 * The program as a user runs it: a process of its own, its output as bytes, its exit status. None outlives the test, and none sees the
 * environment that the tests run in.
 */
import type { Subprocess } from "bun";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../e2e/cluster.ts";

const main = join(import.meta.dir, "../../src/main.ts");
/** Longer than anything here may take, also beside other tests. */
const runMsMax = 30_000;

export interface RunOptions {
  readonly input?: Uint8Array | string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

export interface RunningOptions extends RunOptions {
  /** Its input and output are a terminal. */
  readonly terminal?: boolean;
  /** Nobody reads its standard output. */
  readonly closeOutput?: boolean;
}

/** A program that has ended. */
export interface Ran {
  /** Null where a signal ended it. */
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly out: string;
  readonly err: string;
  readonly ms: number;
  /** Processor time: what a user waits for on a machine that does nothing else. */
  readonly cpuMs: number;
}

/** Runs it to its end. Standard input is empty unless given. */
export async function barge(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const beganMs = performance.now();
  const input = options.input ?? "";
  const child = Bun.spawn([process.execPath, main, ...args], {
    ...place(options),
    stdin: typeof input === "string" ? new TextEncoder().encode(input) : input,
    stdout: "pipe",
    stderr: "pipe",
    timeout: runMsMax,
    killSignal: "SIGKILL",
  });
  alive.add(child);
  const [stdout, err] = await Promise.all([
    child.stdout.bytes(),
    child.stderr.text(),
    child.exited,
  ]);
  alive.delete(child);
  const bytes = Buffer.from(stdout);
  const ms = performance.now() - beganMs;
  const cpuMs = Number(child.resourceUsage()!.cpuTime.total) / 1_000;
  return { status: child.exitCode, stdout: bytes, out: bytes.toString(), err, ms, cpuMs };
}

/** What a process has said may be read this long after its end. */
const lastWordsMs = 2_000;

/** A program that goes on. */
export class Running implements AsyncDisposable {
  readonly #child: Subprocess;
  readonly #terminal: Bun.Terminal | undefined;
  #said = "";

  constructor(args: readonly string[], options: RunningOptions = {}) {
    const command = [process.execPath, main, ...args];
    if (options.terminal === true) {
      const decoder = new TextDecoder();
      this.#terminal = new Bun.Terminal({
        cols: 200,
        data: (_terminal, bytes) => void (this.#said += decoder.decode(bytes, { stream: true })),
      });
      this.#child = Bun.spawn(command, {
        ...place(options),
        detached: true,
        terminal: this.#terminal,
      });
    } else {
      const child = Bun.spawn(command, {
        ...place(options),
        detached: true,
        stdin: "pipe",
        stdout: "pipe",
        stderr: "pipe",
      });
      if (options.closeOutput === true) void child.stdout.cancel();
      else void this.#listen(child.stdout);
      void this.#listen(child.stderr);
      this.#child = child;
    }
    alive.add(this.#child);
    void this.#child.exited.then(() => alive.delete(this.#child));
  }

  async #listen(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of stream) this.#said += decoder.decode(bytes, { stream: true });
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** All that it has written so far, errors too. */
  get said(): string {
    return this.#said;
  }

  /** Waits until it says so, and returns what was found. */
  async says(words: RegExp): Promise<RegExpExecArray> {
    let found: RegExpExecArray | null = null;
    let endedMs = Infinity;
    await until(`it says ${words}`, () => {
      found = words.exec(this.#said);
      if (this.#child.exitCode !== null) endedMs = Math.min(endedMs, performance.now());
      return found !== null || performance.now() - endedMs > lastWordsMs;
    }).catch(() => {});
    if (found === null) throw new Error(`it never said ${words}, but:\n${this.#said}`);
    return found;
  }

  type(text: string): void {
    this.#terminal?.write(text);
  }

  /** Ctrl-C: a terminal sends the signal to the whole process group. */
  interrupt(): void {
    process.kill(-this.pid, "SIGINT");
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Waits for its end. */
  async ended(): Promise<{ readonly status: number | null; readonly signal: unknown }> {
    await this.#child.exited;
    return { status: this.#child.exitCode, signal: this.#child.signalCode };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    this.#terminal?.close();
  }
}

/** Ports of their own for nodes that are started without flags. */
export const anyPorts: Readonly<Record<string, string>> = {
  BARGE_LISTEN: "127.0.0.1:0",
  BARGE_HTTP_LISTEN: "127.0.0.1:0",
};

/** A one-node cluster in a folder, ready. */
export class Served extends Running {
  readonly endpoints: string;
  readonly http: string;

  private constructor(cwd: string) {
    super(["serve"], { cwd, env: anyPorts });
    this.endpoints = "";
    this.http = "";
  }

  static async in(cwd: string): Promise<Served> {
    const served = new Served(cwd);
    const [, endpoints, http] = await served.says(
      /"listen":"([^"]+)","http":"([^"]+)","startMs":\d+,"message":"serving"/,
    );
    return Object.assign(served, { endpoints, http });
  }
}

export function scratchFolder(): string {
  return mkdtempSync(join(tmpdir(), "barge-cli-"));
}

export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

function place({ cwd, env }: RunOptions): {
  readonly cwd: string;
  readonly env: Record<string, string>;
} {
  const { PATH = "", HOME = "" } = process.env;
  return { cwd: cwd ?? tmpdir(), env: { PATH, HOME, TMPDIR: tmpdir(), ...env } };
}

const alive = new Set<Subprocess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

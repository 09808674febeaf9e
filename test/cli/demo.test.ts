/** `barge demo` as a user meets it: one round trip, a node that is killed and comes back, and nothing left behind, whatever ends it. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "..", "..");
const testMsMax = 60_000;
const waitMsMax = 20_000;

const folder = mkdtempSync(join(tmpdir(), "barge-demo-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One run of the demo, with what it has said so far. */
class Demo implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #reading: Promise<void>;
  readonly #errors: Promise<string>;
  said = "";

  constructor(...flags: readonly string[]) {
    this.#child = Bun.spawn([process.execPath, "src/main.ts", "demo", ...flags], {
      cwd: root,
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#reading = this.#read();
    this.#errors = new Response(this.#child.stderr).text();
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.#child.stdout) this.said += decoder.decode(chunk);
  }

  async says(pattern: RegExp): Promise<RegExpExecArray> {
    const deadline = performance.now() + waitMsMax;
    while (performance.now() < deadline) {
      const match = pattern.exec(this.said);
      if (match !== null) return match;
      if (this.#child.exitCode !== null) break;
      await Bun.sleep(10);
    }
    throw new Error(`the demo never said ${pattern}:\n${this.said}\n${await this.#lastErrors()}`);
  }

  get pids(): number[] {
    return [...this.said.matchAll(/pid (\d+)/g)].map((match) => Number(match[1]));
  }

  line(): void {
    this.#child.stdin.write("\n");
    void this.#child.stdin.flush();
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async ended(): Promise<{ status: number; errors: string }> {
    const status = await this.#child.exited;
    await this.#reading;
    return { status, errors: await this.#errors };
  }

  async #lastErrors(): Promise<string> {
    this.kill("SIGKILL");
    return await this.#errors;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill("SIGINT");
    await this.ended();
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function allGone(pids: readonly number[]): Promise<void> {
  const deadline = performance.now() + waitMsMax;
  while (pids.some(alive)) {
    if (performance.now() > deadline) throw new Error(`still there: ${pids.filter(alive)}`);
    await Bun.sleep(10);
  }
}

test(
  "--once: a write, a read, and nothing is left behind",
  async () => {
    await using demo = new Demo("--once");
    expect(await demo.ended()).toEqual({ status: 0, errors: "" });
    expect(demo.said).toMatch(/wrote .* through node 1: revision \d+\nread .* through node 3/);
    const place = /nodes in (\S+), which is removed/.exec(demo.said)![1]!;
    expect(existsSync(place)).toBe(false);
    expect(demo.pids).toHaveLength(3);
    expect(demo.pids.filter(alive)).toEqual([]);
  },
  testMsMax,
);

test(
  "a node that is killed is told of and comes back; Ctrl-C ends all; the folder is picked up again",
  async () => {
    const dir = join(folder, "kept");
    {
      await using demo = new Demo("--dir", dir);
      const pid = Number((await demo.says(/kill -9 (\d+)/))[1]);
      process.kill(pid, "SIGKILL");
      await demo.says(/node \d ended \(SIGKILL\); 2 of 3 are left/);
      await demo.says(/main\.ts serve --node-id=\d --data-dir=\S+ --listen=\S+/);
      demo.line();
      await demo.says(/node \d is back, pid \d+/);
      demo.kill("SIGINT");
      expect(await demo.ended()).toEqual({ status: 0, errors: "" });
      expect(demo.pids.filter(alive)).toEqual([]);
    }
    expect(existsSync(dir)).toBe(true);

    await using other = new Demo("--nodes", "5", "--dir", dir);
    const { status, errors } = await other.ended();
    expect(status).toBe(2);
    expect(errors).toContain("has 3 nodes");

    await using again = new Demo("--once", "--dir", dir);
    expect(await again.ended()).toEqual({ status: 0, errors: "" });
    // The first run wrote at revision 3: a cluster that began anew would do so again.
    expect(Number(/revision (\d+)/.exec(again.said)![1])).toBeGreaterThan(3);
  },
  testMsMax,
);

test(
  "kill -9 of the demo itself leaves no node behind",
  async () => {
    await using demo = new Demo("--dir", join(folder, "orphans"));
    await demo.says(/Ctrl-C ends all nodes/);
    expect(demo.pids.filter(alive)).toHaveLength(3);
    demo.kill("SIGKILL");
    await allGone(demo.pids);
  },
  testMsMax,
);

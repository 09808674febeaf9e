/** The application as a process that is started, killed like a power button would, and started again on the same data. */
import type { Subprocess } from "bun";
import { Fault } from "./application.ts";

/** Of what it says, for whoever wants to know why it ended. */
const saidBytesMax = 4_096;

export class ApplicationProcess {
  readonly #command: string;
  #child: Subprocess<"ignore", "pipe", "pipe"> | undefined;
  #said = "";
  starts = 0;

  /** `command` is one line for the shell. */
  constructor(command: string) {
    this.#command = command;
  }

  start(): void {
    this.#said = "";
    this.starts++;
    const child = Bun.spawn(["sh", "-c", this.#command], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      // A group of its own, so that all of it is killed at once.
      detached: true,
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) void this.#listen(stream);
  }

  async #listen(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.#said = (this.#said + decoder.decode(chunk, { stream: true })).slice(-saidBytesMax);
    }
  }

  /** Throws where it has ended by itself. */
  check(): void {
    const child = this.#child;
    if (child === undefined || (child.exitCode === null && child.signalCode === null)) return;
    const words = this.#said.trim() === "" ? "It said nothing." : `It said: ${this.#said.trim()}`;
    throw new Fault(
      `The application ended by itself, with ${child.signalCode ?? child.exitCode}. ${words}`,
      "It must run until it is told to stop, whatever it is sent.",
    );
  }

  /** SIGKILL to all of it; nothing of it runs when this returns. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // It has ended.
    }
    await child.exited;
  }
}

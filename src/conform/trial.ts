/**
 * What all checks share: the application, the process that it runs in where its command is known, the updates and reads that its author gave, the state that it was found
 * in, and what it did when each update came alone.
 */
import { createHash } from "node:crypto";
import { type Application, type Entry, Fault, Unreachable } from "./application.ts";
import type { ApplicationProcess } from "./process.ts";

/** A check that cannot be done, and what would let it be. */
export class Skipped extends Error {
  override readonly name: string = "Skipped";
}

export interface TrialOptions {
  readonly app: Application;
  readonly process: ApplicationProcess | undefined;
  /** Commands that the application understands; `{n}` in one becomes 1, 2, 3…, so that they differ. */
  readonly updates: readonly string[];
  /** Queries whose answers together tell the state as far as it is looked at; one with `{n}` is asked for each number of an update. */
  readonly reads: readonly string[];
  /** UpdateEntries may be lazy: `Sync` makes durable. */
  readonly sync: boolean;
  readonly startMs: number;
  readonly random: () => number;
}

/** What came of the updates when each came alone: after so many of them. */
export interface Reference {
  readonly digests: readonly string[];
  readonly results: readonly string[];
}

export const steps = 12;

export class Trial {
  readonly app: Application;
  readonly process: ApplicationProcess | undefined;
  readonly sync: boolean;
  readonly random: () => number;
  readonly #options: TrialOptions;
  /** The state that the application was found in, and its index. */
  first!: { readonly snapshot: Uint8Array; readonly index: number };
  #reference: Reference | undefined;

  constructor(options: TrialOptions) {
    this.#options = options;
    this.app = options.app;
    this.process = options.process;
    this.sync = options.sync;
    this.random = options.random;
  }

  get hasReads(): boolean {
    return this.#options.reads.length > 0;
  }

  get hasUpdates(): boolean {
    return this.#options.updates.length > 0;
  }

  /** Number `n` from 1 on; with the indexes right behind those of the state that was found. */
  entry(n: number): Entry {
    const { updates } = this.#options;
    const text = this.hasUpdates ? updates[(n - 1) % updates.length]! : "conform {n}";
    const command = new TextEncoder().encode(text.replaceAll("{n}", String(n)));
    return { index: this.first.index + n, command };
  }

  /** From number `from` up to `to`. */
  entries(from: number, to: number): Entry[] {
    return Array.from({ length: to - from + 1 }, (_, i) => this.entry(from + i));
  }

  /** What the reads answer now, all of it as one text; without reads always the same. */
  async digest(): Promise<string> {
    const hash = createHash("sha256");
    for (const text of this.#options.reads) {
      const count = text.includes("{n}") ? steps : 1;
      for (let n = 1; n <= count; n++) {
        const query = new TextEncoder().encode(text.replaceAll("{n}", String(n)));
        const answer = await this.app.read(query);
        hash.update(`${answer.byteLength}:`).update(answer);
      }
    }
    return hash.digest("hex");
  }

  /** Back to the state that was found. */
  async reset(): Promise<void> {
    await this.restore(this.first.snapshot, this.first.index);
  }

  async restore(snapshot: Uint8Array, index: number): Promise<void> {
    await this.app.recoverFromSnapshot(snapshot);
    if (this.sync) await this.app.sync();
    const found = await this.app.lastLogIndex();
    if (found === index) return;
    throw new Fault(
      `RecoverFromSnapshot took a snapshot made at index ${index}, and LastLogIndex then says ${found}.`,
      "Keep the index in the snapshot, beside the data, and take it over with them.",
    );
  }

  get reference(): Reference {
    if (this.#reference !== undefined) return this.#reference;
    throw new Skipped("what updates do one by one could not be found out");
  }

  set reference(reference: Reference) {
    this.#reference = reference;
  }

  /** The number of updates after which the reads answered so; undefined where they never did. */
  stepOf(digest: string): number | undefined {
    const at = this.reference.digests.indexOf(digest);
    return at < 0 ? undefined : at;
  }

  /* ---------------------------------------------------------------- the process */

  get running(): ApplicationProcess {
    if (this.process !== undefined) return this.process;
    throw new Skipped("needs --start, the command that starts the application");
  }

  /** The first time: it was started, or runs already. */
  async begin(): Promise<void> {
    try {
      await this.app.ready(this.#options.startMs);
    } catch (error) {
      this.process?.check();
      throw error;
    }
  }

  /** Started anew after a kill, and asked where it is, as the daemon asks. */
  async restart(): Promise<number> {
    this.running.start();
    await this.begin();
    return this.app.lastLogIndex();
  }

  /** After a kill: the index is that of the data, whatever was lost; returns how many of the updates it has. */
  async checkWhole(index: number, when: string): Promise<number> {
    const number = index - this.first.index;
    if (number < 0 || number > steps) {
      throw new Fault(
        `Killed ${when}, the application came back with LastLogIndex ${index}, which is none that it was given.`,
        "Store the index of the last entry with the data, and tell that.",
      );
    }
    const digest = await this.digest();
    if (digest === this.reference.digests[number]) return number;
    const data = this.stepOf(digest);
    const has =
      data === undefined
        ? "data that no number of whole updates gives"
        : `the data of index ${this.first.index + data}`;
    throw new Fault(
      `Killed ${when}, the application came back with LastLogIndex ${index}, but ${has}.`,
      "Store the index of the last entry together with the data, in one transaction: entries above it are sent again, those below it never.",
    );
  }
}

/** Whatever it was, the application is there again for the next check. */
export function isGone(error: unknown): boolean {
  return error instanceof Unreachable;
}

export function hexOf(bytes: Uint8Array | undefined): string {
  return bytes === undefined ? "" : Buffer.from(bytes).toString("hex");
}

/** The first byte in which the two differ; their common length where one is the other's beginning. */
export function differsAt(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.byteLength, b.byteLength);
  for (let at = 0; at < length; at++) if (a[at] !== b[at]) return at;
  return length;
}

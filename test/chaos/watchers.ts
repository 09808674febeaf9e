/**
 * Watchers of all keys during a chaos run. What they are told is sorted by epoch, and checked with it. Where the nodes have cut their logs
 * above what a watcher has seen it is told so, and goes on from a fresh revision: such a gap is counted, and the epochs in it are not checked
 * by this watcher.
 */
import { BargeError } from "../../src/errors.ts";
import type { SeenChange } from "../checker/changes.ts";

/** A way to watch. */
export interface ChangeSource {
  /** Tells all changes from `from` on, and how far it has come; over any loss. Rejects with `compacted`, or when it is closed. */
  follow(
    from: number,
    told: (changes: readonly SeenChange[], revision: number) => void,
  ): Promise<void>;
  /** A revision of now, however long it takes to learn one. */
  revisionNow(): Promise<number>;
  close(): void;
}

export interface WatcherOptions {
  readonly source: ChangeSource;
  readonly violation: (what: string) => void;
}

/** Keys begin with the name of their epoch. */
const epochCharacters = "e000000/".length;

export class Watcher implements AsyncDisposable {
  readonly #options: WatcherOptions;
  readonly #byEpoch = new Map<string, SeenChange[]>();
  /** Nothing was missed after this revision. */
  #wholeFrom = 0;
  #revision = 0;
  #changeCount = 0;
  #gapCount = 0;
  #stopping = false;
  #loop: Promise<void> | undefined;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  /** All changes up to here were told. */
  get revision(): number {
    return this.#revision;
  }

  get changeCount(): number {
    return this.#changeCount;
  }

  /** How often it was told that what it asked for is compacted. */
  get gapCount(): number {
    return this.#gapCount;
  }

  start(): void {
    this.#loop = this.#run();
  }

  /** What it was told about an epoch; undefined where it missed some of what came after `revision`. */
  changesOf(prefix: string, revision: number): readonly SeenChange[] | undefined {
    return revision < this.#wholeFrom ? undefined : (this.#byEpoch.get(prefix) ?? []);
  }

  forget(prefix: string): void {
    this.#byEpoch.delete(prefix);
  }

  async #run(): Promise<void> {
    const { source, violation } = this.#options;
    while (!this.#stopping) {
      const from = this.#revision + 1;
      try {
        await source.follow(from, (changes, revision) => this.#told(changes, revision));
        if (!this.#stopping) violation(`a watch from ${from} ended by itself`);
      } catch (error) {
        if (this.#stopping) return;
        if (!(error instanceof BargeError) || error.code !== "compacted") {
          violation(`a watch from ${from} failed: ${String(error)}`);
          return;
        }
        this.#gapCount++;
        this.#revision = await source.revisionNow();
        this.#wholeFrom = this.#revision + 1;
      }
    }
  }

  #told(changes: readonly SeenChange[], revision: number): void {
    for (const change of changes) {
      const prefix = change.key.slice(0, epochCharacters);
      const there = this.#byEpoch.get(prefix);
      if (there === undefined) this.#byEpoch.set(prefix, [change]);
      else there.push(change);
    }
    this.#changeCount += changes.length;
    this.#revision = revision;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    this.#options.source.close();
    await this.#loop;
  }
}

/**
 * Watchers of all keys during a chaos run. What they are told is sorted by epoch, and checked with it. Where the nodes have cut their logs
 * above what a watcher has seen it is told so, and goes on from a fresh revision: such a gap is counted, and the epochs in it are not checked
 * by this watcher.
 */
import { BargeError } from "../../src/errors.ts";
import { type Change, type Client, connect } from "../../src/client/index.ts";
import type { SeenChange } from "../checker/changes.ts";

const retryMs = 50;
/** Keys begin with the name of their epoch. */
const epochCharacters = "e000000/".length;

export interface WatcherOptions {
  readonly endpoints: string;
  readonly violation: (what: string) => void;
  /** Says what the client says. */
  readonly say: ((line: string) => void) | undefined;
}

export class Watcher implements AsyncDisposable {
  readonly #options: WatcherOptions;
  readonly #client: Client;
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
    const { endpoints, say } = options;
    const log = (line: string): void => say?.(`watcher at ${endpoints}: ${line}`);
    const logger = { debug: log, info: log, warn: log, error: log };
    this.#client = connect({ endpoints, logger });
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
    let from = 1;
    while (!this.#stopping) {
      try {
        for await (const { changes, revision } of this.#client.watch({ from }).batches()) {
          for (const change of changes) this.#note(change);
          this.#revision = revision;
          from = revision + 1;
        }
      } catch (error) {
        if (this.#stopping) return;
        if (!(error instanceof BargeError) || error.code !== "compacted") {
          this.#options.violation(`a watch from ${from} failed: ${String(error)}`);
          return;
        }
        this.#gapCount++;
        from = (await this.#revisionNow()) + 1;
        this.#wholeFrom = from;
      }
    }
  }

  #note(change: Change): void {
    const key = text(change.key);
    const prefix = key.slice(0, epochCharacters);
    let changes = this.#byEpoch.get(prefix);
    if (changes === undefined) this.#byEpoch.set(prefix, (changes = []));
    changes.push({
      key,
      value: change.type === "put" ? text(change.value) : undefined,
      revision: change.revision,
    });
    this.#changeCount++;
  }

  async #revisionNow(): Promise<number> {
    for (;;) {
      try {
        return (await this.#client.range({ limit: 1 })).revision;
      } catch (error) {
        if (this.#stopping) return 0;
        if (!(error instanceof BargeError)) throw error;
        await Bun.sleep(retryMs);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    this.#client.close();
    await this.#loop;
  }
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

/**
 * What the clients of one group did, epoch by epoch: each group has an order of its own, and its epochs are checked by themselves. The keys of all groups
 * have the same names, and no two clients write the same value: what strays from one group into another breaks a history.
 */
import type { ChaosClient } from "./clients.ts";
import { Epoch } from "./histories.ts";
import type { Watcher } from "./watchers.ts";

export interface GroupHistoryOptions {
  readonly group: number;
  /** Of all groups. */
  readonly clientCount: number;
  /** Of a client of this group: it reads what each epoch ends with. */
  readonly reader: () => Pick<ChaosClient, "readAll">;
  readonly watchers: readonly Watcher[];
  /** On the clock of the next. */
  readonly nowMs: () => number;
  /** An epoch that cannot be read for so long without a fault is one too many. */
  readonly isLate: (sinceMs: number) => boolean;
  /** Waits until the watchers have come so far. */
  readonly watched: (revision: number) => Promise<void>;
  readonly violation: (what: string) => void;
  readonly broken: (epoch: Epoch, wrong: string) => void;
  readonly checked: (epoch: Epoch) => void;
}

const epochMs = 6_000;
const pollMs = 20;

export class GroupHistory {
  readonly #options: GroupHistoryOptions;
  #epoch: Epoch;
  #beganMs = performance.now();
  /** Ended, but not yet checked. */
  readonly #ended: Epoch[] = [];
  #checkedCount = 0;
  #over = false;
  #isAbandoned = false;

  constructor(options: GroupHistoryOptions) {
    this.#options = options;
    this.#epoch = new Epoch(1, options.clientCount, 0);
  }

  get group(): number {
    return this.#options.group;
  }

  get checkedCount(): number {
    return this.#checkedCount;
  }

  /** The epoch that new calls belong to. */
  current(): Epoch {
    if (performance.now() - this.#beganMs > epochMs) {
      const { number, revision } = this.#epoch;
      this.#ended.push(this.#epoch);
      this.#epoch = new Epoch(number + 1, this.#options.clientCount, revision);
      this.#beganMs = performance.now();
    }
    return this.#epoch;
  }

  /** No more calls. */
  end(): void {
    this.#ended.push(this.#epoch);
    this.#over = true;
  }

  /** What is not checked yet never will be. */
  abandon(): void {
    this.#over = this.#isAbandoned = true;
    this.#ended.length = 0;
  }

  /** Checks those that have ended, until all have. */
  async check(): Promise<void> {
    while (!this.#over || this.#ended.length > 0) {
      const epoch = this.#ended[0];
      if (epoch === undefined || epoch.inFlight > 0) {
        await Bun.sleep(pollMs);
        continue;
      }
      this.#ended.shift();
      await this.#check(epoch);
    }
  }

  async #check(epoch: Epoch): Promise<void> {
    const { group, reader, nowMs, isLate, violation, checked, broken } = this.#options;
    const endedMs = nowMs();
    const unread = await reader().readAll(epoch, () => isLate(endedMs));
    if (this.#isAbandoned) return;
    if (unread !== undefined) {
      violation(
        `epoch ${epoch.number} of group ${group} cannot be read for long without a fault: ${unread}`,
      );
    }
    await this.#collectChanges(epoch);
    this.#checkedCount++;
    checked(epoch);
    const wrong = epoch.verdict();
    if (wrong !== undefined) broken(epoch, wrong);
  }

  async #collectChanges(epoch: Epoch): Promise<void> {
    const { watchers, watched } = this.#options;
    if (watchers.length === 0) return;
    const { revision, prefix, firstRevision } = epoch;
    await watched(revision);
    for (const watcher of watchers) {
      const changes = watcher.changesOf(prefix, firstRevision);
      if (changes !== undefined) epoch.changes.push(changes);
      watcher.forget(prefix);
    }
  }
}

/**
 * Simulated watchers: they watch keys on any node, take their time, lose their node, and go on elsewhere from the revision that they have come to. Each is
 * told every change that the history has, in order and once, whatever nodes and logs go through meanwhile; only where a node does not know
 * the past any more may it say so.
 */
import { BargeError, type ErrorCode } from "../../src/errors.ts";
import { checkLimits, type Limits } from "../../src/limits.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import type { Changes, WatchHandle, Watcher } from "../../src/server/groups.ts";
import { Violation } from "./invariants.ts";
import type { Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimNode } from "./sim-node.ts";
import type { Swarm } from "./swarm.ts";
import type { Tally } from "./tally.ts";

/** What the watches of a run are like. */
export interface WatchSwarm {
  readonly watchers: number;
  /** Time until a watcher changes its node for no reason, on average; Infinity = never. */
  readonly moveEveryMs: number;
  /** And until one that has lost its node asks the next. */
  readonly returnMs: number;
  /** Frames that it takes until it has no room for a while; Infinity = it always has. */
  readonly framesMax: number;
  readonly slowMs: number;
  /** All ask the first node that is up, so that they meet there. */
  readonly together: boolean;
}

export function drawWatches(random: Random, { limits }: Swarm): WatchSwarm {
  const electionMs = limits.electionTicksMax * limits.tickMs;
  return {
    watchers: random.chance(0.4) ? 0 : random.between(1, 5),
    moveEveryMs: electionMs * random.pick([0.5, 3, Infinity]),
    returnMs: electionMs * random.pick([0.02, 0.3, 2]),
    framesMax: random.pick([1, 5, Infinity]),
    slowMs: electionMs * random.pick([0.1, 2]),
    together: random.chance(0.4),
  };
}

/** Bounds at which the rare paths of watches become common. */
export function watchLimits(random: Random, limits: Limits): Limits {
  const strange = (value: number, odd: readonly number[]): number =>
    random.chance(0.35) ? random.pick(odd) : value;
  const electionMs = limits.electionTicksMax * limits.tickMs;
  return checkLimits({
    ...limits,
    watchSliceBytes: strange(limits.watchSliceBytes, [1, 300]),
    watchBytesPerTurn: strange(limits.watchBytesPerTurn, [1, 300]),
    watchCatchUpBytesPerTurn: strange(limits.watchCatchUpBytesPerTurn, [1, 300]),
    watchProgressMs: strange(100, [10, 2_000]),
    watchStaleMs: electionMs * strange(10, [3]),
    outcomeBytesMax: strange(limits.outcomeBytesMax, [1]),
  });
}

export interface WatchersOptions extends WatchSwarm {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly nodes: readonly SimNode[];
  readonly oracle: Oracle;
  readonly tally: Tally;
}

const prefixes = ["", "", "", "k", "k0.", "k0.1", "k1", "b", "none"];
const decoder = new TextDecoder();

/** What a node may say when it ends a watch, or refuses one. */
const expectedErrors: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "compacted",
  "shutting_down",
  "no_leader",
]);

export class Watchers {
  readonly #watchers: readonly SimWatcher[];

  constructor(options: WatchersOptions) {
    this.#watchers = Array.from({ length: options.watchers }, (_, at) => {
      const watcher = new SimWatcher(at, options);
      watcher.begin();
      return watcher;
    });
  }

  /** Nobody changes its node, or has no room, any more. */
  stop(): void {
    for (const watcher of this.#watchers) watcher.rest();
  }

  crashed(node: SimNode): void {
    for (const watcher of this.#watchers) watcher.crashed(node);
  }

  /** All are told everything up to the end of history. */
  get upToDate(): boolean {
    return this.#watchers.every((watcher) => watcher.isUpToDate);
  }
}

/** One watcher through all its watches. */
class SimWatcher {
  readonly #id: number;
  readonly #options: WatchersOptions;
  readonly #prefix: string;
  readonly #exact: boolean;
  /** Everything up to here was told; -1 = no node has said where it begins. */
  #position = -1;
  #watch: OneWatch | undefined;
  #resting = false;
  #searches = false;

  constructor(id: number, options: WatchersOptions) {
    this.#id = id;
    this.#options = options;
    this.#prefix = options.random.pick(prefixes);
    this.#exact = this.#prefix !== "" && options.random.chance(0.2);
  }

  get name(): string {
    return `watcher ${this.#id} of "${this.#prefix}"${this.#exact ? " alone" : ""}`;
  }

  get isUpToDate(): boolean {
    return this.#watch !== undefined && this.#position >= this.#options.oracle.lastIndex;
  }

  begin(): void {
    // Some know from the start where they want to begin, so that nothing of the past is theirs to miss.
    if (this.#options.random.chance(0.5)) this.#position = 0;
    this.#findNode();
    this.#moveLater();
  }

  rest(): void {
    this.#resting = true;
    this.#watch?.rest();
  }

  crashed(node: SimNode): void {
    if (this.#watch?.node !== node) return;
    this.#watch.over = true;
    this.#watch = undefined;
    this.#findNode();
  }

  #after(meanMs: number, act: () => void): void {
    const { scheduler, random } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * meanMs, act);
  }

  #moveLater(): void {
    const { moveEveryMs } = this.#options;
    if (moveEveryMs === Infinity) return;
    this.#after(moveEveryMs, () => {
      if (this.#resting) return;
      this.#watch?.leave();
      if (this.#watch !== undefined) {
        this.#watch = undefined;
        this.#findNode();
      }
      this.#moveLater();
    });
  }

  /** Asks one node after the other until one serves it; a paused one may never get to it. */
  #findNode(): void {
    if (this.#searches) return;
    this.#searches = true;
    // In peace it has to find one that serves it among many that do not.
    const { returnMs } = this.#options;
    this.#after(this.#resting ? returnMs / 20 : returnMs, () => {
      this.#searches = false;
      if (this.#watch !== undefined) return;
      const { random, nodes, together } = this.#options;
      const up = nodes.filter(({ door }) => door !== undefined);
      // In peace the first may be no member any more.
      if (up.length > 0) this.#ask(together && !this.#resting ? up[0]! : random.pick(up));
      if (this.#watch === undefined) this.#findNode();
    });
  }

  #ask(node: SimNode): void {
    const { life } = node;
    node.deliver(() => {
      if (node.life === life && this.#watch === undefined) this.#open(node);
    });
  }

  #open(node: SimNode): void {
    const { random, framesMax, slowMs, scheduler } = this.#options;
    const watch = new OneWatch(node, {
      told: (position, told) => this.#told(node, position, told),
      ended: (position, error) => this.#ended(node, position, error),
      slowMs,
      scheduler,
      frames: this.#resting || framesMax === Infinity ? Infinity : 1 + random.below(framesMax),
    });
    this.#watch = watch;
    const prefix = new TextEncoder().encode(this.#prefix);
    const from = this.#position + 1;
    try {
      watch.handle = node.door!.watch(0, { prefix, exact: this.#exact, from }, watch);
      this.#options.tally.watches++;
    } catch (error) {
      if (!(error instanceof BargeError)) throw error;
      watch.over = true;
      this.#ended(node, this.#position, error);
    }
  }

  #told(node: SimNode, position: number, told: readonly Told[]): void {
    if (this.#position < 0) this.#position = position;
    if (position < this.#position) {
      throw new Violation(`${this.name} is told by node ${node.id} of ${position} once more`);
    }
    const { oracle, tally } = this.#options;
    tally.watchedChanges += told.length;
    if (position > oracle.lastIndex && told.length > 0) {
      throw new Violation(`${this.name} is told by node ${node.id} of what nobody has applied`);
    }
    let next = 0;
    const end = Math.min(position, oracle.lastIndex);
    for (let index = this.#position + 1; index <= end; index++) {
      const command = oracle.commands.get(index);
      if (command === undefined || command.code !== ResultCode.ok) continue;
      if (!this.#wants(command.key)) continue;
      const { revision = -1, key = "", value } = told[next++] ?? {};
      if (revision === index && key === command.key && value === (command.value || undefined)) {
        continue;
      }
      throw new Violation(
        `${this.name} is told by node ${node.id} of ${key}=${value} at ${revision}, where ${command.key}=${command.value} at ${index} was due`,
      );
    }
    if (next < told.length) {
      const { key, revision } = told[next]!;
      throw new Violation(
        `${this.name} is told by node ${node.id} of a change of ${key} at ${revision} that there was not`,
      );
    }
    this.#position = position;
  }

  #wants(key: string): boolean {
    return this.#exact ? key === this.#prefix : key.startsWith(this.#prefix);
  }

  #ended(node: SimNode, position: number, error: BargeError): void {
    if (!expectedErrors.has(error.code)) {
      throw new Violation(`${this.name}: node ${node.id} answers ${error.code}: ${error.message}`);
    }
    this.#watch = undefined;
    if (error.code === "compacted") this.#compacted(node, position);
    this.#findNode();
  }

  /** The past may be gone, but only where the node has cut its log, or began anew, above. */
  #compacted(node: SimNode, position: number): void {
    const { tally, random } = this.#options;
    tally.watchesCompacted++;
    const { raft, machine } = node.group!;
    const oldest = Math.max(raft.startIndex, machine.history!.floor);
    if (position >= oldest) {
      throw new Violation(`${this.name}: node ${node.id} has no past below ${oldest}, nor above`);
    }
    // Others may know more; sooner or later it reads the keys anew instead.
    if (this.#resting || random.chance(0.5)) this.#position = -1;
  }
}

interface Told {
  readonly revision: number;
  readonly key: string;
  readonly value: string | undefined;
}

interface OneWatchOptions {
  readonly told: (position: number, told: readonly Told[]) => void;
  readonly ended: (position: number, error: BargeError) => void;
  readonly scheduler: Scheduler;
  readonly slowMs: number;
  readonly frames: number;
}

/** One watch on one life of a node. */
class OneWatch implements Watcher {
  readonly node: SimNode;
  readonly #life: number;
  readonly #options: OneWatchOptions;
  #framesLeft: number;
  #slow = false;
  handle: WatchHandle | undefined;
  /** Ended, left, or lost: it must not be told anything. */
  over = false;

  constructor(node: SimNode, options: OneWatchOptions) {
    this.node = node;
    this.#life = node.life;
    this.#options = options;
    this.#framesLeft = options.frames;
  }

  get hasRoom(): boolean {
    return !this.#slow;
  }

  changed(revision: number, changes: Changes): void {
    if (this.#isOver()) return;
    const told: Told[] = [];
    while (changes.next()) {
      const { bytes, keyAt, keyLength, valueLength, deleted } = changes;
      const valueAt = keyAt + keyLength;
      const value = decoder.decode(bytes.subarray(valueAt, valueAt + valueLength));
      told.push({
        revision: changes.revision,
        key: decoder.decode(bytes.subarray(keyAt, keyAt + keyLength)),
        value: deleted ? undefined : value,
      });
    }
    if (--this.#framesLeft <= 0) this.#slowDown();
    this.#options.told(revision, told);
  }

  progressed(revision: number): void {
    if (this.#isOver()) return;
    this.#options.told(revision, []);
  }

  ended(revision: number, error: BargeError): void {
    if (this.#isOver()) return;
    this.over = true;
    this.#options.ended(revision, error);
  }

  /** It has room again after a while, and for ever from then on. */
  #slowDown(): void {
    this.#slow = true;
    this.#framesLeft = Infinity;
    this.#options.scheduler.after(this.#options.slowMs, () => this.rest());
  }

  rest(): void {
    this.#slow = false;
    this.#framesLeft = Infinity;
    if (!this.over) this.node.deliver(() => !this.over && this.handle?.resume());
  }

  leave(): void {
    if (this.over) return;
    this.over = true;
    this.node.deliver(() => this.handle?.close());
  }

  /** True where it was left, and its node, which stood still, does not know. */
  #isOver(): boolean {
    if (this.node.life !== this.#life)
      throw new Violation("a watch is told by a node that is gone");
    return this.over;
  }
}

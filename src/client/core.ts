/**
 * What the groups of one client share: the nodes and the connections to them, the turns of the event loop in which requests leave, the one timer, the
 * room for what is in flight, and the connection for watches. Each group has its own session, queue and leader (client.ts, router.ts), so none waits
 * for another.
 */
import { defaultLimits } from "../limits.ts";
import type { Dial } from "../net/socket.ts";
import type { NodeLink } from "./node-link.ts";
import { Nodes, type NodesEvents } from "./nodes.ts";
import type { Settings } from "./options.ts";
import { Room } from "./room.ts";
import { Sweeper } from "./sweeper.ts";
import { Watches } from "./watches.ts";
import { type SectionBounds, WriteSection } from "./write-section.ts";

/** The client of one group, as far as what is shared has to do with it. */
export interface GroupClient {
  /** The calls of the turn that ends go on their way. */
  endTurn(nowMs: number): void;
  /** Sends what can be sent. */
  pump(nowMs: number): void;
  /** Time-outs; true while there is something to watch. */
  sweep(nowMs: number): boolean;
  /** There may be room for calls that wait for it. */
  admit(): void;
  learned(): void;
  nodeLost(node: NodeLink): void;
}

/** Of sections that are kept for their buffers: many small ones, where there are many groups. */
const pooledSectionsMax = 4_096;
const pooledBytesMax = 32 * 1024 * 1024;
/** Turns, of the event loop, over which is smoothed how many groups they send to; and from how many on they are many. */
const smoothedTurns = 8;
const manyGroups = 8;
/** Groups that were idle for so many sweeps are looked at with all others, in longer intervals. */
const calmSweeps = 50;
/** Of more groups than this a part is swept each time, in so many parts at the most. */
const sweptAtOnce = 256;
const sweepPartsMax = 5;
const sweepAllMs = 10_000;

export class ClientCore<C extends GroupClient> implements NodesEvents {
  readonly settings: Settings;
  readonly bounds: SectionBounds;
  readonly nodes: Nodes;
  readonly room: Room;
  readonly #dial: Dial;
  readonly #sweeper: Sweeper;
  readonly #clients = new Map<number, C>();
  /** The one that connect() gave. */
  first: C | undefined;
  /** All of them are being closed. */
  isClosing = false;
  /** Swept each few milliseconds, and for how many sweeps they have been idle. */
  readonly #busy = new Map<C, number>();
  #sweptAllMs = 0;
  #sweeps = 0;
  /** Whose turn ends with the present one of the event loop. */
  #due: C[] = [];
  /** How many that were of late. */
  #dueMean = 0;
  /** Groups with calls that wait for room. */
  readonly crowded = new Set<C>();
  /** Sections kept for their buffers. */
  readonly #pool: WriteSection[] = [];
  #pooledBytes = 0;
  #watches: Watches | undefined;

  constructor(settings: Settings, dial: Dial) {
    this.settings = settings;
    this.#dial = dial;
    const { sectionBytesMax, frameBytesMax } = defaultLimits;
    this.bounds = { sectionBytesMax, frameBytesMax };
    this.nodes = new Nodes(settings, this.bounds, dial, this);
    this.room = new Room(settings);
    this.#sweeper = new Sweeper(settings.attemptTimeoutMs, (nowMs) => this.#sweep(nowMs));
  }

  /* ---------------------------------------------------------------- groups */

  get clients(): Iterable<C> {
    return this.#clients.values();
  }

  get size(): number {
    return this.#clients.size;
  }

  get closed(): boolean {
    return this.nodes.isClosed;
  }

  client(group: number): C | undefined {
    return this.#clients.get(group);
  }

  add(group: number, client: C): void {
    this.#clients.set(group, client);
    this.first ??= client;
    const isAlone = this.#clients.size === 1;
    if (!isAlone) this.nodes.follow({ all: true, group: 0 });
    else if (group !== 0) this.nodes.follow({ all: false, group });
  }

  remove(group: number, client: C): void {
    if (this.#clients.get(group) === client) this.#clients.delete(group);
    this.#busy.delete(client);
    this.crowded.delete(client);
  }

  close(): void {
    this.#sweeper.stop();
    this.#watches?.close();
    this.nodes.close();
  }

  /* ---------------------------------------------------------------- turns and time */

  /** The client's turn is to end with this one of the event loop; called once for that. */
  endsTurn(client: C): void {
    if (this.#due.push(client) === 1) setImmediate(this.#endTurn);
  }

  /**
   * The turns send to many groups: so much is under way that sections which wait for others of their group, and are fewer and fuller for it, come through
   * sooner than those that go at once.
   */
  get isSpread(): boolean {
    return this.#dueMean >= manyGroups;
  }

  /** Calls are under way. */
  wakes(client: C): void {
    this.#busy.set(client, 0);
    this.#sweeper.busy();
  }

  readonly #endTurn = (): void => {
    const due = this.#due;
    this.#due = [];
    this.#dueMean += (due.length - this.#dueMean) / smoothedTurns;
    const nowMs = performance.now();
    for (const client of due) client.endTurn(nowMs);
    this.nodes.flush();
  };

  #sweep(nowMs: number): boolean {
    this.nodes.sweep(nowMs);
    let isBusy = false;
    const parts = Math.min(sweepPartsMax, Math.ceil(this.#busy.size / sweptAtOnce));
    const part = this.#sweeps++ % Math.max(1, parts);
    let place = 0;
    for (const [client, calm] of this.#busy) {
      if (place++ % parts !== part) isBusy = true;
      else if (client.sweep(nowMs)) {
        isBusy = true;
        if (calm > 0) this.#busy.set(client, 0);
      } else if (calm < calmSweeps) this.#busy.set(client, calm + 1);
      else this.#busy.delete(client);
    }
    if (nowMs - this.#sweptAllMs >= sweepAllMs) this.#sweepAll(nowMs);
    this.nodes.dropRetired();
    this.nodes.flush();
    return isBusy;
  }

  #sweepAll(nowMs: number): void {
    this.#sweptAllMs = nowMs;
    for (const client of this.#clients.values()) if (!this.#busy.has(client)) client.sweep(nowMs);
  }

  /** Something in flight has its answer: each group whose calls wait for room, in its turn. */
  admit(): void {
    for (const client of this.crowded) client.admit();
  }

  takeSection(): WriteSection {
    const section = this.#pool.pop();
    if (section === undefined) return new WriteSection();
    this.#pooledBytes -= section.capacity;
    return section;
  }

  recycle(section: WriteSection): void {
    const { capacity } = section;
    const isKept = capacity <= this.bounds.sectionBytesMax * 2;
    const hasRoom =
      this.#pool.length < pooledSectionsMax && this.#pooledBytes + capacity <= pooledBytesMax;
    if (!isKept || !hasRoom) return;
    section.reset();
    this.#pool.push(section);
    this.#pooledBytes += capacity;
  }

  /* ---------------------------------------------------------------- what the connections say */

  changed(nowMs: number): void {
    for (const client of this.#clients.values()) client.pump(nowMs);
  }

  lost(node: NodeLink): void {
    for (const client of this.#clients.values()) client.nodeLost(node);
  }

  learned(groups: readonly number[]): void {
    for (const group of groups) this.#clients.get(group)?.learned();
  }

  /* ---------------------------------------------------------------- watches */

  /** Made with the first one. */
  get watches(): Watches {
    const { attemptTimeoutMs, logger } = this.settings;
    this.#watches ??= new Watches({
      dial: this.#dial,
      attemptTimeoutMs,
      logger,
      endpoints: (group) => this.nodes.endpointsFor(group),
      isListed: (group) => this.nodes.directory.isListed(group),
      learn: (members) => this.nodes.learn(members),
    });
    return this.#watches;
  }

  /** Those of the group end, in peace. */
  closeWatches(group: number): void {
    this.#watches?.closeGroup(group);
  }
}

/**
 * One simulated node: real shard, group, core, log-store and key-value machine over simulated disks, network and time. It is the part of node.ts that
 * a simulation has to replace: boot in the order of recovery, the loop, and the ways in which a process ends.
 */
import { FatalError } from "../../src/fatal.ts";
import type { Limits } from "../../src/limits.ts";
import { KvMachine } from "../../src/machine/kv.ts";
import type { TransportEvents } from "../../src/net/transport.ts";
import { bootstrapGroup, createCore, initialConfiguration } from "../../src/node/bootstrap.ts";
import { Group } from "../../src/node/group.ts";
import { Shard } from "../../src/node/shard.ts";
import { InvariantError } from "../../src/raft/invariants.ts";
import type { Raft } from "../../src/raft/raft.ts";
import { DiskFullError } from "../../src/storage/disk.ts";
import { CorruptBatchError, LogStore, type RecoveredGroup } from "../../src/storage/log-store.ts";
import { batchIntact } from "../../src/wire/batch.ts";
import type { ClientNode } from "./clients.ts";
import type { DurableLedger } from "./durable-ledger.ts";
import { Violation, type Invariants } from "./invariants.ts";
import { ObservedMachine } from "./observed-machine.ts";
import { ProcessEnd, type EndPoint } from "./process-end.ts";
import { brokenCap } from "./queue-caps.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { NetworkNode, SimNetwork } from "./sim-network.ts";
import type { CrashMode } from "./sim-disk.ts";
import type { Storage } from "./storage.ts";
import type { Happening, Tally } from "./tally.ts";

export interface SimNodeOptions {
  readonly id: number;
  readonly members: ReadonlyMap<number, string>;
  readonly seedCrc: number;
  readonly limits: Limits;
  readonly scheduler: Scheduler;
  /** Its clock runs so much faster than the simulation's. */
  readonly clockRate: number;
  readonly random: Random;
  readonly storage: Storage;
  readonly ledger: DurableLedger;
  readonly invariants: Invariants;
  readonly network: () => SimNetwork;
  readonly endPoint: EndPoint;
  readonly tally: Tally;
  /** The process has to end now, by itself: the simulation decides what its disk keeps and when it comes back. */
  readonly ended: (node: SimNode, why: Ending) => void;
}

/** Ways in which a process ends by itself. */
export type Ending = Extract<Happening, "endsInside" | "failedSyncs" | "rotMetRunning"> | "noSpace";

const groupId = 0;
/** From the wish for a turn to the turn. */
const loopDelayMs = 0.02;
/** Until the loop hears from its Worker that a sync has failed, at most. */
const failureNoticeMs = 1;

export class SimNode implements NetworkNode, ClientNode {
  readonly id: number;
  /** Counts the boots: what belongs to an earlier one is void. */
  life = 0;
  paused = false;
  /** Its disk has rotted, and it found out: it stays down. */
  refused = false;
  events: TransportEvents | undefined;
  door: Shard | undefined;
  readonly #options: SimNodeOptions;
  #group: Group | undefined;
  /** Its log is read, and the sync that makes it count is under way. */
  #booting = false;
  #turnDue = false;
  #rotten = false;
  /** What came while the process was paused: requests and finished syncs. */
  #backlog: (() => void)[] = [];

  constructor(options: SimNodeOptions) {
    this.id = options.id;
    this.#options = options;
  }

  get alive(): boolean {
    return this.#group !== undefined || this.#booting;
  }

  /** Monotonic, as this node sees it. */
  get #nowMs(): number {
    return this.#options.scheduler.nowMs * this.#options.clockRate;
  }

  get group(): Group | undefined {
    return this.#group;
  }

  get clockRate(): number {
    return this.#options.clockRate;
  }

  get rotten(): boolean {
    return this.#rotten;
  }

  /* ---------------------------------------------------------------- boot */

  start(): void {
    if (this.alive || this.refused) return;
    this.#nextLife();
    this.#booting = true;
    this.paused = false;
    this.#run(() => this.#boot());
  }

  #boot(): void {
    const { life } = this;
    const { storage, limits, seedCrc, members } = this.#options;
    const store = this.#openStore();
    let recovered: RecoveredGroup;
    try {
      const found = store.recover().get(groupId);
      const configuration = initialConfiguration(members);
      recovered = found ?? bootstrapGroup(store, groupId, configuration, seedCrc);
    } catch (error) {
      if (error instanceof DiskFullError) return this.#options.ended(this, "noSpace");
      if (error instanceof FatalError && this.#rotten) return this.#refuseStart();
      throw error;
    }
    if (this.#rotten) this.#options.tally.rottenStarts++;
    // What was read counts, and the first batch too, only once one sync has covered it; nothing runs before.
    store.sync(() => {
      if (this.life !== life) return;
      this.#booting = false;
      let works = 0;
      const kv = new KvMachine({
        file: storage.kvFile,
        limits,
        nowMs: () => this.#nowMs + (works++ % 64) * 0.05,
      });
      this.#begin(store, recovered, kv);
    });
  }

  #openStore(): LogStore {
    const { storage, ledger, limits, seedCrc, random, endPoint } = this.#options;
    const disk = ledger.watch(storage.disk, {
      deliver: (event) => this.deliver(event),
      effect: endPoint.effect,
    });
    return new LogStore(disk, { limits, seedCrc, bootId: random.u32() });
  }

  #refuse(): void {
    this.#options.tally.refusedStarts++;
    this.refused = true;
    this.#booting = false;
  }

  /** It stays down, and would be refused again: a refused start has changed nothing. */
  #refuseStart(): void {
    this.#refuse();
    try {
      this.#openStore().recover();
    } catch (error) {
      if (error instanceof FatalError) return;
      throw error;
    }
    throw new Violation(`node ${this.id} is refused once and then starts`);
  }

  #begin(store: LogStore, recovered: RecoveredGroup, kv: KvMachine): void {
    const { id, life } = this;
    const { limits, random, invariants } = this.#options;
    const network = this.#options.network();
    const machine = new ObservedMachine(kv, id, invariants);
    const appliedIndex = machine.open();
    const coreRandom = random.fork(life);
    let raft: Raft;
    try {
      raft = createCore({
        group: groupId,
        nodeId: id,
        limits,
        random: () => coreRandom.float(),
        recovered,
        appliedIndex,
      });
    } catch (error) {
      // The state machine is ahead of what rot has left of the log: the node refuses to start.
      if (error instanceof InvariantError && this.#rotten) return this.#refuse();
      throw error;
    }
    const transport = network.transportOf(id, life, this.#options.endPoint.effect);
    const logger = { info: () => {}, error: () => {} };
    this.#group = new Group({
      id: groupId,
      nodeId: id,
      limits,
      raft,
      store,
      transport,
      machine,
      logger,
      firstRequest: coreRandom.u32(),
    });
    const shard = new Shard(
      { limits, store, transport, groups: [this.#group], wake: () => this.#wake() },
      this.#nowMs,
    );
    this.door = shard;
    this.events = {
      message: (message) => {
        if (message.type === "append") {
          for (const batch of message.batches) {
            if (!batchIntact(batch)) throw new Violation(`node ${id} is given a damaged batch`);
          }
        }
        shard.deliver(message);
      },
      peerUp: (peer) => shard.peerUp(peer),
      peerDown: (peer) => shard.peerDown(peer),
    };
    network.awake(id);
    this.#tick(life);
  }

  /* ---------------------------------------------------------------- the loop */

  /** Runs now, or once the node runs again, or never when it ends before. */
  deliver(event: () => void): void {
    if (this.paused) this.#backlog.push(event);
    else if (this.alive) this.#run(event);
  }

  /** Runs the node's own code, in which the process may end. */
  #run(code: () => void): void {
    try {
      code();
    } catch (error) {
      if (error instanceof ProcessEnd) return this.#options.ended(this, "endsInside");
      if (!(error instanceof CorruptBatchError && this.#rotten)) throw error;
      this.refused = true;
      this.#options.ended(this, "rotMetRunning");
    }
  }

  #tick(life: number): void {
    if (this.life !== life || this.#group === undefined) return;
    const { scheduler, limits, clockRate } = this.#options;
    if (!this.paused) this.#run(() => this.#turn());
    scheduler.after(limits.tickMs / clockRate, () => this.#tick(life));
  }

  #wake(): void {
    if (this.#turnDue) return;
    this.#turnDue = true;
    const { life } = this;
    this.#options.scheduler.after(loopDelayMs, () => {
      if (this.life !== life || !this.#turnDue) return;
      if (!this.paused) this.#run(() => this.#turn());
    });
  }

  #turn(): void {
    const { invariants, limits } = this.#options;
    this.#turnDue = false;
    const more = this.door!.turn(this.#nowMs);
    const group = this.#group!;
    if (group.stopped !== undefined)
      throw new Violation(`node ${this.id} stopped: ${group.stopped}`);
    // While the disk is full the core is ahead of the log, and the node silent.
    if (!this.door!.diskFull) invariants.turned(this.id, this.life, group.raft, group.machine);
    const broken = brokenCap(group.queues(), limits);
    if (broken !== undefined) throw new Violation(`node ${this.id}: ${broken}`);
    if (more) this.#wake();
  }

  #nextLife(): number {
    this.#options.invariants.lives(this.id, ++this.life);
    return this.life;
  }

  /* ---------------------------------------------------------------- ways to end */

  pause(): void {
    if (this.#group !== undefined) this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    const backlog = this.#backlog;
    this.#backlog = [];
    for (const event of backlog) this.deliver(event);
    this.#options.network().awake(this.id);
    if (this.#group !== undefined) this.#run(() => this.#turn());
  }

  /** A sync has failed. The Worker knows; the loop goes on until it hears, reads what was written, and then ends. */
  syncFailed(): void {
    const { life } = this;
    const { scheduler, random, ended } = this.#options;
    scheduler.after(random.float() * failureNoticeMs, () => {
      if (this.life === life) this.deliver(() => ended(this, "failedSyncs"));
    });
  }

  /** Bit rot at rest, while it is down. False when there is nothing to strike. */
  rot(): boolean {
    if (this.alive || !this.#options.storage.rot()) return false;
    this.#rotten = true;
    return true;
  }

  /** kill -9, or a power cut. */
  crash(mode: CrashMode): void {
    if (!this.alive) return;
    this.#nextLife();
    this.#group = undefined;
    this.#booting = false;
    this.door = undefined;
    this.events = undefined;
    this.paused = false;
    this.#turnDue = false;
    this.#backlog = [];
    this.#options.endPoint.disarm();
    this.#options.storage.crash(mode);
    this.#options.network().crashed(this.id);
  }
}

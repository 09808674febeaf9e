/** One shard of many groups on a simulated disk, each group with this node as its only voter, and the clock in hand. */
import { checkLimits, defaultLimits, type Limits } from "../../src/limits.ts";
import { KvMachine } from "../../src/machine/kv.ts";
import type { StateMachine } from "../../src/machine/machine.ts";
import {
  createCore,
  type FirstLog,
  foundingLog,
  initialConfiguration,
} from "../../src/node/bootstrap.ts";
import { Group } from "../../src/node/group.ts";
import { Shard } from "../../src/node/shard.ts";
import { LogStore } from "../../src/storage/log-store.ts";
import { encodeKvPut } from "../../src/wire/kv.ts";
import { applyVersionFirst } from "../../src/wire/versions.ts";
import { plainSection, readSectionHeader } from "../../src/wire/section.ts";
import { Random } from "../sim/random.ts";
import { Scheduler } from "../sim/scheduler.ts";
import { SimDisk } from "../sim/sim-disk.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";

const seedCrc = 7;
const nodeId = 1;

/** What became of a write. */
export interface Written {
  outcome: "waits" | "applied" | string;
}

export class ShardWorld {
  readonly scheduler = new Scheduler();
  readonly random: Random;
  readonly limits: Limits;
  readonly disk: SimDisk;
  readonly store: LogStore;
  readonly shard: Shard;
  /** Appends of the log, each a transaction; and turns of the shard. */
  transactions = 0;
  turns = 0;

  constructor(groups: number, limits: Partial<Limits> = {}, seed = 1) {
    this.random = new Random(seed);
    this.limits = checkLimits({ ...defaultLimits, ...limits });
    const schedule = (delayMs: number, run: () => void): void => this.scheduler.after(delayMs, run);
    this.disk = new SimDisk({ random: () => this.random.float(), schedule });
    const { limits: all, disk } = this;
    this.store = new LogStore(disk, { limits: all, bootId: 1, seedCrc });
    this.store.recover();
    const append = this.store.append.bind(this.store);
    this.store.append = (writes) => {
      this.transactions++;
      return append(writes);
    };
    const { store } = this;
    this.shard = new Shard(
      { limits: all, store, transport, groups: [], firstRequest: 1, wake: () => {} },
      this.scheduler.nowMs,
    );
    for (let group = 1; group <= groups; group++) this.add(group, 1);
    this.run(20);
  }

  /** A replica that the registry has made at that index. */
  add(
    id: number,
    registryIndex: number,
    wrap: (kv: KvMachine) => StateMachine = (kv) => kv,
    limits = this.limits,
    others: readonly number[] = [],
  ): Group {
    const members = new Map([nodeId, ...others].map((id) => [id, `127.0.0.1:${id}`]));
    const log: FirstLog = foundingLog({
      group: id,
      seedCrc,
      configuration: initialConfiguration(members),
      applyVersion: applyVersionFirst,
      registryIndex,
    });
    this.store.append([log.write]);
    const nowMs = (): number => this.scheduler.nowMs;
    const machine = wrap(new KvMachine({ file: this.#file(), limits, nowMs }));
    const appliedIndex = machine.open();
    const { store } = this;
    const random = (): number => this.random.float();
    const { recovered } = log;
    const raft = createCore({ group: id, nodeId, limits, random, store, recovered, appliedIndex });
    const logger = { info: () => {}, error: () => {} };
    const given = { id, nodeId, limits, raft, store, transport, machine, logger };
    const group = new Group({ ...given, firstRequest: 1, wake: () => {} });
    this.shard.add(group);
    return group;
  }

  #file(): SimKvFile {
    return new SimKvFile({
      random: () => this.random.float(),
      schedule: (delayMs, run) => this.scheduler.after(delayMs, run),
    });
  }

  write(group: number, valueBytes = 16, key = "key"): Written {
    const section = plainSection([encodeKvPut(Buffer.from(key), new Uint8Array(valueBytes))]);
    const written: Written = { outcome: "waits" };
    this.shard.write(group, section, readSectionHeader(section, 0)!, 60_000, {
      applied: () => (written.outcome = "applied"),
      failed: ({ code }) => (written.outcome = code),
    });
    return written;
  }

  turn(): boolean {
    this.turns++;
    return this.shard.turn(this.scheduler.nowMs);
  }

  /** The sync that is under way ends, and so does whatever else was to happen until then. */
  sync(): void {
    const { syncedSeq } = this.store;
    while (this.store.syncedSeq === syncedSeq) {
      if (!this.scheduler.step()) throw new Error("no sync is under way");
    }
  }

  /** So many ticks, with what happens meanwhile. */
  run(ticks: number): void {
    for (let tick = 0; tick < ticks; tick++) {
      const untilMs = this.scheduler.nowMs + this.limits.tickMs;
      this.scheduler.after(this.limits.tickMs, () => {});
      while (this.scheduler.nowMs < untilMs && this.scheduler.step()) this.turn();
      while (this.turn());
    }
  }

  groups(): Group[] {
    return this.shard.status().map(({ id }) => this.shard.group(id)!);
  }
}

/** Nobody else is there. */
const transport = {
  send: () => {},
  connected: () => false,
  dialsIn: () => false,
  takesBeats: () => false,
  applyVersionMax: () => 0,
  flush: () => {},
};

/**
 * One run from one seed: a cluster under a swarm of faults and clients, then peace, recovery and the last checks. Whatever breaks is thrown,
 * out of the event that broke it.
 */
import { clusterIdOf, seedCrcOf } from "../../src/node/bootstrap.ts";
import { encodeKvGet, readKvEntry } from "../../src/wire/kv.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import { checkOrder } from "../checker/order.ts";
import { checkLinearizable } from "../checker/wgl.ts";
import { Clients } from "./clients.ts";
import { DurableLedger } from "./durable-ledger.ts";
import { Invariants, Violation } from "./invariants.ts";
import { Random } from "./random.ts";
import { Scheduler } from "./scheduler.ts";
import { SimNetwork } from "./sim-network.ts";
import { SimNode } from "./sim-node.ts";
import { Storage } from "./storage.ts";
import { crashModes, drawSwarm, faults, type Fault, type Swarm } from "./swarm.ts";
import { Trace } from "./trace.ts";

export interface RunOptions {
  readonly seed: number;
  /** Events before the faults end. */
  readonly events: number;
  /** Judges by what is applied and what clients see alone. */
  readonly blackBox?: boolean;
}

export interface RunResult {
  readonly seed: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly leaders: number;
  readonly committed: number;
  readonly operations: number;
  readonly hash: string;
  readonly failure: unknown;
}

/** Runs a seed to its end; a failure is part of the result. */
export function simulate(options: RunOptions): RunResult {
  const simulation = new Simulation(options);
  let failure: unknown;
  try {
    simulation.run();
  } catch (error) {
    failure = error ?? new Error("nothing was thrown");
  }
  return { ...simulation.result, failure };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

class Simulation {
  readonly #seed: number;
  readonly #eventsMax: number;
  readonly #random: Random;
  readonly #swarm: Swarm;
  readonly #scheduler = new Scheduler();
  readonly #trace = new Trace();
  readonly #invariants: Invariants;
  readonly #storages: ReadonlyMap<number, Storage>;
  readonly #nodes: readonly SimNode[];
  readonly #network: SimNetwork;
  readonly #clients: Clients;
  #events = 0;
  /** Elections that were won so far. */
  #leaders = 0;
  #peace = false;

  constructor({ seed, events, blackBox = false }: RunOptions) {
    this.#seed = seed;
    this.#eventsMax = events;
    this.#random = new Random(seed);
    this.#swarm = drawSwarm(this.#random.fork(1));
    const swarm = this.#swarm;
    const scheduler = this.#scheduler;
    const members = new Map<number, string>();
    for (let id = 1; id <= swarm.nodes; id++) members.set(id, `sim:${id}`);

    const ledgers = new Map<number, DurableLedger>();
    const storages = new Map<number, Storage>();
    for (const id of members.keys()) {
      const onAppend = (
        batch: Parameters<Invariants["appended"]>[1],
        log: DurableLedger["visible"],
      ): void => this.#invariants.appended(id, batch, log);
      ledgers.set(id, new DurableLedger(0, onAppend));
      const random = this.#random.fork(100 + id);
      storages.set(id, new Storage({ scheduler, random, syncMsMax: swarm.syncMs }));
    }
    this.#storages = storages;
    this.#invariants = new Invariants(ledgers, { blackBox });
    const seedCrc = seedCrcOf(clusterIdOf(`sim ${seed}`, members));
    this.#nodes = [...members.keys()].map(
      (id) =>
        new SimNode({
          id,
          members,
          seedCrc,
          limits: swarm.limits,
          scheduler,
          clockRate: swarm.drift ** (2 * this.#random.float() - 1),
          random: this.#random.fork(200 + id),
          storage: storages.get(id)!,
          ledger: ledgers.get(id)!,
          invariants: this.#invariants,
          network: () => this.#network,
        }),
    );
    this.#network = new SimNetwork({
      scheduler,
      random: this.#random.fork(2),
      nodes: this.#nodes,
      frameBytesMax: swarm.limits.frameBytesMax,
      delayMs: swarm.delayMs,
      slowChance: swarm.slowChance,
      slowMs: swarm.slowMs,
      splitChance: swarm.splitChance,
      corruptChance: swarm.corruptChance,
      frameTimeoutMs: swarm.outageMs,
      onSend: (life, message) => this.#invariants.sent(life, message),
      onBytes: (from, to, crc) => this.#trace.add(scheduler.nowMs, from * 16 + to, crc),
    });
    this.#clients = new Clients({
      ...swarm,
      scheduler,
      random: this.#random.fork(3),
      nodes: this.#nodes,
      oracle: this.#invariants.oracle,
    });
  }

  get result(): Omit<RunResult, "failure"> {
    return {
      seed: this.#seed,
      events: this.#events,
      virtualMs: this.#scheduler.nowMs,
      leaders: this.#invariants.leaders,
      committed: this.#invariants.oracle.lastIndex,
      operations: this.#clients.history.length,
      hash: this.#trace.hash,
    };
  }

  run(): void {
    for (const node of this.#nodes) node.start();
    this.#network.start();
    this.#nextFault();
    while (this.#events < this.#eventsMax) this.#step();
    this.#makePeace();
    this.#converge();
    for (const { call, return: end, index } of this.#clients.history) {
      this.#trace.add(call, end === Infinity ? -1 : end, index);
    }
    this.#checkStates();
    this.#checkHistory();
  }

  #step(): void {
    this.#events++;
    if (!this.#scheduler.step()) throw new Violation("nothing is left to happen");
    if (this.#invariants.leaders > this.#leaders) this.#fell();
  }

  /* ---------------------------------------------------------------- faults */

  #nextFault(): void {
    const { faultWeights, faultEveryMs } = this.#swarm;
    if (faultWeights.every((weight) => weight === 0)) return;
    this.#scheduler.after(-Math.log(1 - this.#random.float()) * faultEveryMs, () => {
      if (this.#peace) return;
      const fault = faults[this.#random.weighted(faultWeights)]!;
      this.#trace.add(this.#scheduler.nowMs, 1, faults.indexOf(fault));
      this.#strike(fault);
      this.#nextFault();
    });
  }

  #fell(): void {
    this.#leaders = this.#invariants.leaders;
    const { fellBy, fellChance, fellWithinMs } = this.#swarm;
    if (this.#peace || !this.#random.chance(fellChance)) return;
    this.#scheduler.after(this.#random.float() * fellWithinMs, () => {
      if (!this.#peace) this.#strike(fellBy);
    });
  }

  #strike(fault: Fault): void {
    const random = this.#random;
    const victim = random.pick(this.#nodes);
    const leader = this.#nodes.find((node) => node.group?.raft.role === "leader") ?? victim;
    switch (fault) {
      case "crash":
        return this.#crash(victim);
      case "crashLeader":
        return this.#crash(leader);
      case "crashAll":
        for (const node of this.#nodes) this.#crash(node);
        return;
      case "pause":
        return this.#pause(victim);
      case "pauseLeader":
        return this.#pause(leader);
      case "isolate":
        return this.#isolate([victim]);
      case "isolateLeader":
        return this.#isolate([leader]);
      case "split":
        return this.#isolate(this.#nodes.filter(() => random.chance(0.5)));
      case "cutOneWay": {
        const [a, b] = random.pick(this.#network.pairs);
        if (random.chance(0.5)) this.#network.cut(a, b);
        else this.#network.cut(b, a);
        return this.#healLater();
      }
      case "heal":
        return this.#network.heal();
      case "reset": {
        const [a, b] = random.pick(this.#network.pairs);
        return this.#network.reset(a, b);
      }
      case "slowLink": {
        const [a, b] = random.pick(this.#network.pairs);
        this.#network.slow(a, b);
        return this.#healLater();
      }
      case "fullDisk": {
        const storage = this.#storages.get(victim.id)!;
        storage.room = random.below(500);
        return this.#scheduler.after(random.float() * this.#swarm.outageMs, () => {
          storage.room = Infinity;
        });
      }
      case "slowDisk": {
        const storage = this.#storages.get(victim.id)!;
        storage.slowness = this.#swarm.slowness;
        this.#scheduler.after(random.float() * this.#swarm.outageMs, () => {
          if (!this.#peace) storage.slowness = 1;
        });
      }
    }
  }

  #crash(node: SimNode): void {
    if (!node.alive) return;
    node.crash(crashModes[this.#random.weighted(this.#swarm.crashWeights)]!);
    this.#clients.crashed(node);
    this.#scheduler.after(this.#random.float() * this.#swarm.outageMs, () => node.start());
  }

  #pause(node: SimNode): void {
    const { life } = node;
    node.pause();
    this.#scheduler.after(this.#random.float() * this.#swarm.pauseMs, () => {
      if (node.life === life) node.resume();
    });
  }

  /** Nothing passes between these nodes and the others. */
  #isolate(inside: readonly SimNode[]): void {
    for (const a of inside) {
      for (const b of this.#nodes) {
        if (inside.includes(b)) continue;
        this.#network.cut(a.id, b.id);
        this.#network.cut(b.id, a.id);
      }
    }
    this.#healLater();
  }

  #healLater(): void {
    this.#scheduler.after(this.#random.float() * this.#swarm.outageMs, () => this.#network.heal());
  }

  /* ---------------------------------------------------------------- the end */

  #makePeace(): void {
    this.#peace = true;
    this.#clients.stop();
    this.#network.calm();
    const slowness = Math.min(1, 0.3 / this.#swarm.syncMs);
    for (const storage of this.#storages.values()) {
      storage.slowness = slowness;
      storage.room = Infinity;
    }
    for (const node of this.#nodes) {
      node.resume();
      node.start();
    }
  }

  /**
   * With everything healed the cluster must serve again, through every node, within some elections, and all nodes must come to the
   * same index; and nobody who asked may wait for ever.
   */
  #converge(): void {
    const { limits, timeoutMs } = this.#swarm;
    const electionMs = limits.electionTicksMax * limits.tickMs;
    const deadlineMs = this.#scheduler.nowMs + 30 * electionMs + 3 * timeoutMs + 2_000;
    let served = 0;
    const probe = (node: SimNode): void => {
      const again = (): void => this.#scheduler.after(limits.tickMs, () => probe(node));
      if (node.door === undefined) return again();
      this.#clients.probe(node, (ok) => {
        if (ok) served++;
        else again();
      });
    };
    for (const node of this.#nodes) probe(node);
    const { oracle } = this.#invariants;
    const settled = (): boolean =>
      served === this.#nodes.length &&
      this.#clients.unanswered === 0 &&
      this.#nodes.every(({ group }) => group?.machine.appliedIndex === oracle.lastIndex);
    while (!settled()) {
      this.#step();
      if (this.#scheduler.nowMs <= deadlineMs) continue;
      const applied = this.#nodes.map(
        ({ group }) =>
          `${group?.raft.role} ${group?.raft.term} applied ${group?.machine.appliedIndex}`,
      );
      throw new Violation(
        `no recovery: ${served} of ${this.#nodes.length} nodes serve, ${this.#clients.unanswered} requests wait, history ends at ${oracle.lastIndex}; ${applied.join("; ")}`,
      );
    }
  }

  /** All nodes hold what the model holds, and nothing that was refused. */
  #checkStates(): void {
    const { oracle } = this.#invariants;
    const keys = new Set(this.#clients.history.map(({ key }) => key));
    for (const { id, group } of this.#nodes) {
      const { machine } = group!;
      oracle.hash(id, machine.appliedIndex, machine.stateHash);
      for (const key of keys) {
        const held = oracle.state.get(key);
        machine.read(encodeKvGet(encoder.encode(key)), {
          answer: (code, bytes) => {
            const entry = code === ResultCode.ok ? readKvEntry(bytes!) : undefined;
            const value = entry === undefined ? undefined : decoder.decode(entry.value);
            if (value !== held?.value || entry?.revision !== held?.revision) {
              throw new Violation(
                `node ${id} holds ${value}@${entry?.revision} for ${key}, the model ${held?.value}@${held?.revision}`,
              );
            }
          },
        });
      }
    }
    for (const { outcome, value, kind } of this.#clients.history) {
      if (outcome === "refused" && kind !== "get" && oracle.indexOfValue.has(value)) {
        throw new Violation(
          `${value} was reported as not applied and is in the log at ${oracle.indexOfValue.get(value)}`,
        );
      }
    }
  }

  #checkHistory(): void {
    const { history, localReads } = this.#clients;
    const disorder =
      checkOrder(history) ??
      checkOrder([
        ...history.filter(({ kind }) => kind !== "get"),
        ...localReads.map((read) => ({ ...read, call: 0, return: Infinity })),
      ]);
    if (disorder !== undefined) throw new Violation(disorder);
    const verdict = checkLinearizable(this.#resolved());
    if (verdict.kind !== "legal") {
      throw new Violation(
        `history of ${verdict.key}: ${verdict.kind === "illegal" ? verdict.reason : "undecided"}`,
      );
    }
  }

  /** What the log says of writes whose outcome nobody told the client: without effect, or where they took it. */
  #resolved(): Clients["history"] {
    const { oracle } = this.#invariants;
    return this.#clients.history.flatMap((operation) => {
      if (operation.outcome !== "unknown" || operation.value === "") return [operation];
      const index = oracle.indexOfValue.get(operation.value);
      if (index === undefined || oracle.commands.get(index)!.code !== ResultCode.ok) return [];
      return [{ ...operation, index }];
    });
  }
}

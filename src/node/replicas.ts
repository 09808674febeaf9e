/**
 * The replicas of one node. Each is made the same way, group 0 and `system` too: state machine, core and shell, out of what the log has of it, or out of
 * the registry's entry that names this node. Taken away, nothing of it stays but a tombstone in the log. Knows no sockets, clocks and files: a simulated
 * node makes its replicas here as well.
 */
import { FatalError } from "../fatal.ts";
import type { Limits } from "../limits.ts";
import type { StateMachine } from "../machine/machine.ts";
import type { Transport } from "../net/transport.ts";
import { InvariantError } from "../raft/invariants.ts";
import type { Raft } from "../raft/raft.ts";
import type { LogStore, RecoveredGroup } from "../storage/log-store.ts";
import { isDiskFull } from "../storage/sqlite.ts";
import { defaultGroup } from "../wire/registry.ts";
import { createCore, type FirstLog, unreadableState, withoutState } from "./bootstrap.ts";
import type { SeedSource } from "./apply-version.ts";
import type { CompactionPolicy } from "./compaction.ts";
import { Group, type GroupLogger } from "./group.ts";
import type { Shard } from "./shard.ts";

/** What a group is, whoever hosts it. */
export interface ReplicaSpec {
  readonly id: number;
  /** Kind of its state machine. */
  readonly machine: string;
  /** Above it the leader takes no more writes; the node's own bound, if nothing is said. */
  readonly logBytesMax?: number | undefined;
  /** Up to that term an earlier replica of this node was a member; undefined where there was none. */
  readonly formerTerm?: number | undefined;
}

export interface ReplicasOptions {
  readonly nodeId: number;
  readonly limits: Limits;
  readonly store: LogStore;
  readonly transport: Transport;
  readonly logger: GroupLogger;
  /** Uniform in [0, 1), seeded. */
  readonly random: () => number;
  /** Below 2^48: where this life's requests to other nodes begin to be numbered. */
  readonly firstRequest: () => number;
  /** The machine of a group over the file that its log says is live, not open yet. Throws FatalError for a kind that there is not. */
  readonly createMachine: (spec: ReplicaSpec, recovered: RecoveredGroup) => StateMachine;
  /** Where its files are, for people. */
  readonly machinePath: (id: number) => string;
  /** Removes the machine's files, or does nothing where there are none. */
  readonly deleteFiles: (id: number) => void;
  /** Something is being written to the machine's files, or is about to be. */
  readonly isWriting?: (id: number) => boolean;
  /** Groups of whose machines there are files. */
  readonly storedIds?: () => readonly number[];
  /** There are others that may have what this node has lost. */
  readonly canHeal: () => boolean;
  /** Where a node is reached: group 0 alone says it of itself. */
  readonly addressOf?: (nodeId: number) => string | undefined;
  /** For group 0. */
  readonly seed?: SeedSource;
  readonly wake: () => void;
  readonly leaderChanged?: ((id: number) => void) | undefined;
  readonly preferred?: boolean;
  readonly compaction?: CompactionPolicy | undefined;
  readonly applyVersionMax?: number;
  readonly founderMax?: (id: number) => number;
  readonly unsupported?: (applyVersion: number) => never;
}

/** The files of a replica that is gone: they stay until nothing can bring its log back. */
interface Leaving {
  readonly id: number;
  /** The tombstone is durable once a sync has covered more than this. */
  readonly appendSeq: number;
}

/** Folders that are deleted in one go; each takes a moment of the loop. */
const deletionsPerStep = 16;

export class Replicas {
  readonly #options: ReplicasOptions;
  readonly #machines = new Map<number, StateMachine>();
  /** Found in the log, and not opened: nobody has said yet what they are. */
  readonly #dormant = new Map<number, RecoveredGroup>();
  /** Of the registry's entry that made a replica. */
  readonly #madeAt = new Map<number, number>();
  /** Those that could not be opened, and why. */
  readonly #failed = new Map<number, string>();
  #leaving: Leaving[] = [];
  #shard: Shard | undefined;

  constructor(options: ReplicasOptions, recovered: ReadonlyMap<number, RecoveredGroup>) {
    this.#options = options;
    for (const [id, found] of recovered) {
      this.#dormant.set(id, found);
      this.#madeAt.set(id, found.registryIndex);
    }
  }

  /** From now on replicas come and go while it runs. */
  attach(shard: Shard): void {
    this.#shard = shard;
  }

  /** Found in the log and not opened yet. */
  isDormant(id: number): boolean {
    return this.#dormant.has(id);
  }

  get unopened(): number {
    return this.#dormant.size;
  }

  get openIds(): Iterable<number> {
    return this.#machines.keys();
  }

  /** Of this node, whether it could be opened or not. */
  has(id: number): boolean {
    return this.#machines.has(id) || this.#dormant.has(id) || this.#failed.has(id);
  }

  isOpen(id: number): boolean {
    return this.#machines.has(id);
  }

  get ids(): number[] {
    return [
      ...new Set([...this.#machines.keys(), ...this.#dormant.keys(), ...this.#failed.keys()]),
    ];
  }

  machine(id: number): StateMachine | undefined {
    return this.#machines.get(id);
  }

  get machines(): Iterable<StateMachine> {
    return this.#machines.values();
  }

  /** Index of the registry at which the replica was made: what was so before says nothing of it. */
  madeAt(id: number): number {
    return this.#madeAt.get(id) ?? 0;
  }

  /** Why replicas could not be opened. */
  get failures(): ReadonlyMap<number, string> {
    return this.#failed;
  }

  /** The files of an earlier replica of that group are still there. */
  isLeaving(id: number): boolean {
    return this.#leaving.some((leaving) => leaving.id === id);
  }

  /**
   * Opens one that the log has, or that it has just been given. The caller adds it to a shard. Throws FatalError where its files are not of use, and nothing of
   * it is open then.
   */
  open(spec: ReplicaSpec, recovered = this.#dormant.get(spec.id)): Group {
    if (recovered === undefined) throw new Error(`replicas: the log has no group ${spec.id}`);
    const { limits, nodeId, store } = this.#options;
    const machine = this.#options.createMachine(spec, recovered);
    try {
      const appliedIndex = this.#openMachine(spec.id, machine);
      const usable = this.#usable(spec.id, recovered, appliedIndex);
      this.#tellReplay(spec.id, usable, appliedIndex);
      const { logBytesMax } = spec;
      const group = new Group({
        id: spec.id,
        nodeId,
        limits: logBytesMax === undefined ? limits : { ...limits, groupLogBytesMax: logBytesMax },
        raft: this.#core(spec, usable, appliedIndex),
        store,
        machine,
        machineKind: spec.machine,
        firstRequest: this.#options.firstRequest(),
        ...(spec.id === defaultGroup
          ? { seed: this.#options.seed }
          : {
              addressOf: this.#options.addressOf,
              // Any node of the cluster may have to host it.
              applyVersionUpTo: () => this.#machines.get(defaultGroup)?.applyVersion ?? 0,
            }),
        ...this.#given(),
      });
      this.#machines.set(spec.id, machine);
      this.#dormant.delete(spec.id);
      return group;
    } catch (error) {
      machine.close();
      throw error;
    }
  }

  #given(): Pick<
    ConstructorParameters<typeof Group>[0],
    | "transport"
    | "logger"
    | "wake"
    | "leaderChanged"
    | "compaction"
    | "applyVersionMax"
    | "founderMax"
    | "unsupported"
  > {
    const { transport, logger, wake, leaderChanged, ...rest } = this.#options;
    const { compaction, applyVersionMax, founderMax, unsupported } = rest;
    return {
      transport,
      logger,
      wake,
      leaderChanged,
      ...(compaction === undefined ? {} : { compaction }),
      ...(applyVersionMax === undefined ? {} : { applyVersionMax }),
      ...(founderMax === undefined ? {} : { founderMax }),
      ...(unsupported === undefined ? {} : { unsupported }),
    };
  }

  /**
   * Replicas that this node has not had, with the first logs that they are given: one transaction for all of them. What depends on these leaves the node only with
   * later records, and no sync covers those without these. Throws DiskFullError with nothing changed.
   */
  found(founded: readonly { readonly spec: ReplicaSpec; readonly log: FirstLog }[]): void {
    this.#options.store.append(founded.map(({ log }) => log.write));
    for (const { spec, log } of founded) {
      // An earlier replica may have left some, where the process ended before they were deleted.
      this.#options.deleteFiles(spec.id);
      this.#madeAt.set(spec.id, log.recovered.registryIndex);
      this.#dormant.set(spec.id, log.recovered);
      this.start(spec);
    }
  }

  /** Opens a replica that the log has while the node runs. One that cannot be opened is told, and harms no other; without space it stays as it is. */
  start(spec: ReplicaSpec): void {
    try {
      this.#shard!.add(this.open(spec));
    } catch (error) {
      if (isDiskFull(error)) return;
      if (!(error instanceof FatalError)) throw error;
      this.#dormant.delete(spec.id);
      this.#failed.set(spec.id, error.message);
      this.#options.logger.error({ group: spec.id }, error.message);
    }
  }

  /** As the registry says at that index of its log. */
  remove(id: number, registryIndex: number): void {
    const { store, logger } = this.#options;
    if (this.#shard?.remove(id, registryIndex) === undefined) store.remove(id, registryIndex);
    this.#machines.get(id)?.close();
    this.#machines.delete(id);
    this.#dormant.delete(id);
    this.#failed.delete(id);
    this.#madeAt.delete(id);
    this.#leaving.push({ id, appendSeq: store.appendSeq });
    logger.info({ group: id, registryIndex }, "this node has no replica of the group any more");
  }

  /** Now and then: deletes files whose tombstones are durable by now, once nobody writes to them any more: a thread would take it for a disk that fails. */
  deleteLeft(): void {
    if (this.#leaving.length === 0) return;
    const { store, isWriting = () => false } = this.#options;
    const { syncedSeq } = store;
    let left = deletionsPerStep;
    this.#leaving = this.#leaving.filter(({ id, appendSeq }) => {
      if (appendSeq >= syncedSeq || left === 0 || isWriting(id)) return true;
      left--;
      this.#options.deleteFiles(id);
      return false;
    });
  }

  /** Once, when all replicas are there that are to be: files that belong to none go, as they were left by a process that ended before it had deleted them. */
  deleteOrphans(): void {
    const { storedIds = () => [], deleteFiles } = this.#options;
    for (const id of storedIds()) {
      if (!this.has(id) && !this.isLeaving(id)) deleteFiles(id);
    }
  }

  close(): void {
    for (const machine of this.#machines.values()) machine.close();
  }

  #openMachine(id: number, machine: StateMachine): number {
    try {
      return machine.open();
    } catch (error) {
      if (error instanceof FatalError || isDiskFull(error)) throw error;
      throw unreadableState(id, this.#options.machinePath(id), String(error));
    }
  }

  /** Wounded where the state that its log goes on from is lost. */
  #usable(id: number, found: RecoveredGroup, appliedIndex: number): RecoveredGroup {
    const { store, canHeal, logger } = this.#options;
    const usable = withoutState(store, id, found, appliedIndex, canHeal());
    if (usable !== found) {
      logger.error(
        { group: id, appliedIndex, firstIndex: found.start.index + 1 },
        "the state that the log goes on from is lost; it is fetched from the leader again",
      );
    }
    return usable;
  }

  #core({ id, formerTerm }: ReplicaSpec, recovered: RecoveredGroup, appliedIndex: number): Raft {
    const { nodeId, limits, random, store, preferred = false } = this.#options;
    const given = { nodeId, limits, random, store, recovered, appliedIndex, formerTerm, preferred };
    try {
      return createCore({ group: id, ...given });
    } catch (error) {
      if (!(error instanceof InvariantError)) throw error;
      throw new FatalError("corrupt_data", error.message, { cause: error });
    }
  }

  /** How far the log goes beyond the state machine: what was not durable there is applied again as soon as it is known to be committed. */
  #tellReplay(id: number, { batches, start }: RecoveredGroup, appliedIndex: number): void {
    const last = batches.at(-1);
    const lastIndex = last === undefined ? start.index : last.firstIndex + last.count - 1;
    const commands = Math.max(0, lastIndex - appliedIndex);
    // There is nothing but its founding, or nothing to do.
    if (lastIndex <= 1 || (id !== 0 && commands === 0)) return;
    this.#options.logger.info({ group: id, commands, appliedIndex }, "replaying the log");
  }
}

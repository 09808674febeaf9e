/**
 * The apply version of one group [16]: when its leader raises it, and what a node does that cannot follow. It is a batch of its own in the log, so
 * all members go over at the same command, and a new leader, a restart or a snapshot change nothing.
 */
import type { StateMachine } from "../machine/machine.ts";
import type { Transport } from "../net/transport.ts";
import { membersOf } from "../raft/configuration.ts";
import type { Raft } from "../raft/raft.ts";
import { applyVersionOf, type Batch, BatchKind } from "../wire/batch.ts";
import type { AppendMessage } from "../wire/messages.ts";
import { applyVersionFirst, registryVersion } from "../wire/versions.ts";

export interface GroupApplyVersionOptions {
  readonly nodeId: number;
  readonly raft: Raft;
  readonly machine: StateMachine;
  readonly transport: Transport;
  /** The highest that this node takes part in. */
  readonly max: number;
  /** The group goes no further than this by now; the same as `max`, if nothing is said. */
  readonly upTo?: (() => number) | undefined;
  /** What a member could when this node formed the cluster with it, in this very life; 0 where it did not. */
  readonly founderMax: (id: number) => number;
  /** Of the group that says who the first members of `system` are: who they are as of now, undefined while that cannot be said. */
  readonly seed?: SeedSource | undefined;
  /** A leader has sent what this build cannot apply: told once for each version, some times at most. */
  readonly refused: (version: number, leader: number) => void;
}

export interface SeedSource {
  /** What the entry is to carry; undefined where it has to wait. */
  now(): Uint8Array | undefined;
  /** Whether these bytes, which the state has, are of this very cluster. */
  isOurs(seed: Uint8Array): boolean;
}

/** What a leader puts into its log. */
export interface DueVersion {
  readonly version: number;
  readonly seed: Uint8Array | undefined;
}

/** There are not many versions; who makes up more must not fill the log. */
const refusalsToldMax = 10;
const nothing = new Uint8Array(0);

export class GroupApplyVersion {
  readonly #options: GroupApplyVersionOptions;
  /** As the leader: it is not raised before this index is applied. */
  #fromIndex = 0;
  /** The highest that was refused, and how often that was told. */
  #refusedVersion = 0;
  #refusals = 0;

  constructor(options: GroupApplyVersionOptions) {
    this.#options = options;
  }

  /** This node leads from now on: what its log holds already may raise the version. */
  led(): void {
    this.#fromIndex = this.#options.raft.lastIndex;
  }

  /** It is raised by the batch that will be at `index`. */
  raisedAt(index: number): void {
    this.#fromIndex = index;
  }

  /**
   * The version that this leader has to raise the group to now: the newest that all members can. Undefined while there is none. Who is not connected
   * could have become a build that cannot, so it is waited for; but not where the cluster has only just formed: then its word of that moment holds, or
   * one that is lost right away would keep all others from what they were made for.
   */
  due(): DueVersion | undefined {
    const { raft, machine, max } = this.#options;
    if (raft.role !== "leader" || (machine.applyVersion >= max && !this.#lacksSeed))
      return undefined;
    if (machine.appliedIndex < this.#fromIndex) return undefined;
    const { upTo = () => max } = this.#options;
    const all = Math.min(max, upTo(), ...this.#others().map((id) => this.#maxOf(id)));
    const seed = all < registryVersion ? undefined : this.#options.seed?.now();
    const waitsForSeed = this.#options.seed !== undefined && seed === undefined;
    const version = waitsForSeed ? Math.min(all, registryVersion - 1) : all;
    if (version > machine.applyVersion) return { version, seed };
    return this.#lacksSeed && seed !== undefined
      ? { version: machine.applyVersion, seed }
      : undefined;
  }

  /** The state came from another cluster, by a backup or because this one was recovered: with its first members nobody here can begin. */
  get #lacksSeed(): boolean {
    const { seed, machine } = this.#options;
    if (seed === undefined || machine.applyVersion < registryVersion) return false;
    return !seed.isOurs(machine.systemSeed ?? nothing);
  }

  /** As the leader: the log holds a higher one already, for all that is known, or is about to. */
  get mayRiseSoon(): boolean {
    const { raft, machine } = this.#options;
    if (raft.role !== "leader") return false;
    if (machine.appliedIndex < this.#fromIndex) return true;
    const due = this.due();
    return due !== undefined && due.version > machine.applyVersion;
  }

  /** As the leader: the first members of `system` are said, or may be, by what the log holds already. */
  get mayHaveSeed(): boolean {
    const { raft, machine } = this.#options;
    if (raft.role === "leader" && machine.appliedIndex < this.#fromIndex) return true;
    return machine.applyVersion >= registryVersion && !this.#lacksSeed;
  }

  /** As the leader: the members that the next version waits for. */
  get waitsFor(): number[] {
    const { raft, machine, max } = this.#options;
    if (machine.applyVersion >= max || raft.role !== "leader") return [];
    return this.#others().filter((id) => this.#maxOf(id) <= machine.applyVersion);
  }

  /**
   * What this node cannot apply it does not take into its log either: so a version takes effect only where a majority can, and a node that is too
   * old stays as it is until it is upgraded.
   */
  accepts({ batches, from }: AppendMessage): boolean {
    const version = this.tooHighIn(batches);
    if (version === undefined) return true;
    if (version > this.#refusedVersion && this.#refusals++ < refusalsToldMax) {
      this.#refusedVersion = version;
      this.#options.refused(version, from);
    }
    return false;
  }

  /** The version in these batches that this node cannot apply; undefined where there is none. */
  tooHighIn(batches: readonly Batch[]): number | undefined {
    for (const batch of batches) {
      if (batch.kind !== BatchKind.applyVersion) continue;
      const version = applyVersionOf(batch);
      if (version > this.#options.max) return version;
    }
    return undefined;
  }

  #others(): number[] {
    const { raft, nodeId } = this.#options;
    return membersOf(raft.configuration).filter((id) => id !== nodeId);
  }

  #maxOf(id: number): number {
    const { transport, machine, founderMax } = this.#options;
    const said = transport.applyVersionMax(id);
    if (said > 0 || machine.applyVersion > applyVersionFirst) return said;
    return founderMax(id);
  }
}

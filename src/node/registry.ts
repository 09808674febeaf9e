/**
 * More groups than one, on one node: makes `system` where the cluster has come so far, follows what it says, and brings the replicas of this node in line with it. Nothing
 * else creates a replica or takes one away. On the leader of `system` it also takes changes of the registry, and puts other nodes in the places of those that have left
 * the cluster. Knows no sockets and no clock: a simulated node has the same.
 *
 *     group 0 at apply version 3 ──▶ `system`, from the seed in group 0's state, or empty
 *     `system` applies ──▶ view ──▶ replicas: create, remove      (every node)
 *                            └────▶ members of the groups that this node leads
 */
import { BargeError, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import {
  encodeConfiguration,
  decodeConfiguration,
  isJoint,
  membersOf,
} from "../raft/configuration.ts";
import type { Configuration } from "../raft/ready.ts";
import { DiskFullError } from "../storage/disk.ts";
import type { LogStore } from "../storage/log-store.ts";
import type { CheckedAdminBody } from "../wire/admin-bodies.ts";
import type { ReleasedAnswer } from "../wire/admin.ts";
import { Consistency } from "../wire/messages.ts";
import {
  decodeSystemSeed,
  defaultGroup,
  encodeSystemSeed,
  type RegistryEntry,
  systemGroup,
} from "../wire/registry.ts";
import { registryVersion } from "../wire/versions.ts";
import type { SeedSource } from "./apply-version.ts";
import {
  departureProblem,
  forgetting,
  forgettingLeft,
  type LeaderWord,
  noting,
} from "./departures.ts";
import { emptyLog, type FirstLog, foundingLog } from "./bootstrap.ts";
import { firstLogOf, foundingConfiguration } from "./first-log.ts";
import type { Group, GroupLogger } from "./group.ts";
import { GroupMembers } from "./group-members.ts";
import {
  creation,
  type DroppedReplica,
  dropping,
  type Host,
  move,
  needsOthers,
  type NewGroups,
  removal,
  replacing,
  type SettledGroup,
  settling,
  unknownGroup,
  type Wish,
} from "./registry-changes.ts";
import { type RegisteredGroup, RegistryView } from "./registry-view.ts";
import { type RegistryJob, RegistryWriter } from "./registry-writer.ts";
import type { Places } from "./places.ts";
import type { Replicas, ReplicaSpec } from "./replicas.ts";
import type { Shard } from "./shard.ts";

export interface RegistryOptions {
  readonly nodeId: number;
  readonly incarnation: string;
  readonly clusterId: string;
  readonly seedCrc: number;
  readonly limits: Limits;
  readonly store: LogStore;
  readonly shard: Shard;
  readonly replicas: Replicas;
  readonly logger: GroupLogger;
  /** The data folder of a node of the cluster as far as this one knows it. */
  readonly incarnationOf: (id: number) => string | undefined;
  /** The registry says something else of that group than before. */
  readonly changed?: (id: number) => void;
}

/** Who asks for a change of the registry hears of it once: exactly one of the two is called. */
export interface RegistryCall<Answer> {
  readonly deadlineMs: number;
  answer(answer: Answer): void;
  fail(error: BargeError): void;
}

/** Replicas that are made in one turn: each takes some tenths of a millisecond. */
const madePerStep = 64;
const removedPerStep = 64;
/** Between two looks at the members of groups, and at what is left over. */
const lookEveryMs = 200;
/** Between two looks for groups on nodes that are gone. */
const replaceEveryMs = 1_000;
/** Between two times that the same is told. */
const tellDroppedEveryMs = 1_000;
/** Told to the registry at once. */
const droppedPerMessage = 64;

export class Registry {
  readonly view: RegistryView;
  readonly #options: RegistryOptions;
  readonly #members: GroupMembers;
  #system: Group | undefined;
  #writer: RegistryWriter | undefined;
  /** The replicas of this node are as the registry said at that index. */
  #followedIndex = -1;
  #isSwept = false;
  /**
   * A damaged log may have lost by which word of the registry a replica was made. An old word, read once more, must not take it away, or it would forget
   * what it has promised: that is for what the registry surely says now, from this index on.
   */
  #sureIndex = Infinity;
  /** Whether there is anything to be sure of; found out once `system` is here. */
  #asksSure: boolean | undefined;
  #isAskingSure = false;
  /** The state of `system` was lost, and is made anew from its log: words that were taken back long ago, and their tombstones with them, are read once more. */
  #isRereading = false;
  #lookMs = -Infinity;
  #replaceMs = -Infinity;
  #isReplacing = false;
  #tellDroppedMs = -Infinity;
  /** The registry as it was when that was told. */
  #toldIndex = -1;

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.view = new RegistryView(options.changed);
    const { shard, replicas, limits, incarnationOf } = options;
    this.#members = new GroupMembers({
      view: this.view,
      group: (id) => shard.group(id),
      ids: () => replicas.openIds,
      incarnationOf,
      settle: (settled, done) =>
        shard.admin("settleGroups", { settled }, { answered: done, failed: done }),
      readTimeoutMs: limits.requestTimeoutMs,
      askLeader: (operation, body, waiter) => shard.admin(operation, body, waiter),
      askAt: (to, operation, body, waiter) => shard.adminAt(to, operation, body, waiter),
    });
  }

  get system(): Group | undefined {
    return this.#system;
  }

  get places(): Places {
    return this.#members.places;
  }

  /** After each turn. True when there is something for the next one. */
  step(nowMs: number): boolean {
    if (this.#system === undefined) this.#begin();
    const system = this.#system;
    if (system === undefined) {
      this.places.keep();
      return false;
    }
    this.view.refresh(system.machine);
    let more = this.view.index !== this.#followedIndex && this.#follow();
    if (this.#writer?.step(nowMs) === true) more = true;
    this.places.keep();
    if (nowMs - this.#lookMs >= lookEveryMs) {
      this.#lookMs = nowMs;
      this.#look(system, nowMs);
    }
    return more;
  }

  /* ---------------------------------------------------------------- `system` */

  /** Group 0 is where it has to be for a registry, and this node has none yet. */
  #begin(): void {
    const { replicas, shard } = this.#options;
    if (!replicas.has(systemGroup) && !this.#foundSystem()) return;
    if (replicas.isDormant(systemGroup)) replicas.start(systemSpec);
    this.#system = shard.group(systemGroup);
    if (this.#system === undefined) return;
    this.#writer = new RegistryWriter(this.#system, this.view);
    const { machine, raft } = this.#system;
    this.#isRereading = machine.durableIndex === 0 && raft.lastIndex > foundingBatches;
  }

  #foundSystem(): boolean {
    const { replicas, shard } = this.#options;
    const { machine } = shard.group(defaultGroup)!;
    if (machine.applyVersion < registryVersion || shard.diskFull) return false;
    const seed = this.#ownSeed(machine.systemSeed);
    if (seed === undefined) return false;
    return (
      this.#found([{ spec: systemSpec, log: this.#systemLog(seed) }]) && replicas.has(systemGroup)
    );
  }

  /** The first members, where they are those of this cluster. */
  #ownSeed(bytes: Uint8Array | undefined): Configuration | undefined {
    const seed = bytes === undefined ? undefined : decodeSystemSeed(bytes);
    if (seed === undefined || seed.clusterId !== this.#options.clusterId) return undefined;
    return decodeConfiguration(seed.configuration);
  }

  /** Should this very folder be among the first members', it begins as all of them do; else it waits for the leader. */
  #systemLog(configuration: Configuration): FirstLog {
    const { nodeId, incarnation, seedCrc } = this.#options;
    const place = { group: systemGroup, seedCrc };
    const isFirst =
      configuration.voters.includes(nodeId) && configuration.incarnations?.[nodeId] === incarnation;
    if (!isFirst) return emptyLog(place);
    return foundingLog({ ...place, configuration, applyVersion: registryVersion });
  }

  /* ---------------------------------------------------------------- following */

  /** Brings the replicas of this node in line with the view; true when there is more of that at once. */
  #follow(): boolean {
    const { replicas, shard } = this.#options;
    // Whatever waits for space is to go on first.
    if (shard.diskFull) return false;
    let removed = 0;
    for (const id of replicas.ids) {
      if (id === defaultGroup || id === systemGroup) continue;
      if (this.#namesNode(this.view.group(id))) continue;
      // What the registry said before it made the replica says nothing of it.
      if (this.view.index <= replicas.madeAt(id) || this.view.isUnreadable(id)) continue;
      if (replicas.madeAt(id) === 0 && this.view.index < this.#sureIndex) continue;
      if (removed === removedPerStep) return true;
      removed++;
      replicas.remove(id, this.view.index);
      this.#members.forget(id);
    }
    return this.#make();
  }

  #make(): boolean {
    const { replicas } = this.#options;
    const founded: { spec: ReplicaSpec; log: FirstLog }[] = [];
    let made = 0;
    let waits = false;
    for (const found of this.view.groups.values()) {
      const { id } = found.entry;
      if (replicas.isOpen(id) || !this.#names(found) || this.#isBuried(found)) continue;
      if (made === madePerStep) return this.#found(founded);
      if (replicas.isDormant(id)) {
        replicas.start(this.#specOf(found.entry));
        waits ||= replicas.isDormant(id);
        made++;
      } else if (replicas.isLeaving(id) || this.#mayBeOld) waits = true;
      else if (!replicas.has(id)) {
        founded.push({ spec: this.#specOf(found.entry), log: this.#firstLog(found) });
        made++;
      }
    }
    // Files of an earlier replica are deleted first, with the ticks.
    if (this.#found(founded) && !waits) this.#followedIndex = this.view.index;
    return false;
  }

  /** What is read may have been taken back: no replica is made of it. */
  get #mayBeOld(): boolean {
    return this.#isRereading && this.view.index < this.#sureIndex;
  }

  /** In whatever folder: one that was recovered has another name from then on, which the registry is about to say. */
  #namesNode(found: RegisteredGroup | undefined): boolean {
    if (found === undefined) return false;
    const { members, leaving } = found.entry;
    const isNode = ({ id }: Host): boolean => id === this.#options.nodeId;
    return members.some(isNode) || leaving.some(isNode);
  }

  /** This node has removed the group by a later word of the registry: what it reads is what was so before. */
  #isBuried({ entry, revision }: RegisteredGroup): boolean {
    return revision <= (this.#options.store.tombstones.get(entry.id) ?? 0);
  }

  #names({ entry: { members, leaving } }: RegisteredGroup): boolean {
    return members.some(this.#isThis) || leaving.some(this.#isThis);
  }

  readonly #isThis = (member: Host): boolean =>
    member.id === this.#options.nodeId && member.incarnation === this.#options.incarnation;

  #specOf({ id, machine, logBytesMax, members, leaving }: RegistryEntry): ReplicaSpec {
    const formerTerm = [...members, ...leaving].find(this.#isThis)?.aboveTerm;
    return { id, machine, logBytesMax, formerTerm };
  }

  #firstLog({ entry, revision: registryIndex }: RegisteredGroup): FirstLog {
    const { seedCrc } = this.#options;
    return firstLogOf(entry, { group: entry.id, seedCrc, registryIndex }, this.#isThis);
  }

  /** False where the disk has no room for them: it is tried again. */
  #found(founded: readonly { readonly spec: ReplicaSpec; readonly log: FirstLog }[]): boolean {
    if (founded.length === 0) return true;
    try {
      this.#options.replicas.found(founded);
      return true;
    } catch (error) {
      if (!(error instanceof DiskFullError)) throw error;
      return false;
    }
  }

  /* ---------------------------------------------------------------- now and then */

  #look(system: Group, nowMs: number): void {
    const { replicas, store } = this.#options;
    const { machine } = system;
    replicas.deleteLeft();
    const isCurrent = this.#followedIndex === this.view.index && system.leader !== 0;
    if (!this.#isSwept && isCurrent && system.toApply === 0) {
      this.#isSwept = true;
      replicas.deleteOrphans();
    }
    if (this.#sureIndex === Infinity) this.#askSure(system, nowMs);
    store.forgetTombstones(machine.durableIndex);
    // What it says is read at the next start before there is a leader.
    if (machine.durableIndex < machine.appliedIndex) machine.flush();
    this.#members.step(nowMs);
    this.#tellDropped(machine.durableIndex, nowMs);
    if (system.raft.role === "leader" && nowMs - this.#replaceMs >= replaceEveryMs) {
      this.#replaceMs = nowMs;
      this.#replaceLeft(nowMs);
    }
  }

  #askSure(system: Group, nowMs: number): void {
    const { replicas, limits } = this.#options;
    const isUnknown = (id: number): boolean =>
      id !== defaultGroup && id !== systemGroup && replicas.madeAt(id) === 0;
    this.#asksSure ??= this.#isRereading || replicas.ids.some(isUnknown);
    if (this.#isAskingSure || !this.#asksSure) return;
    this.#isAskingSure = true;
    system.read(Consistency.linearizable, 0, nowMs + limits.requestTimeoutMs, {
      ready: (_, appliedIndex) => {
        this.#isAskingSure = false;
        this.#sureIndex = appliedIndex;
        this.#followedIndex = -1;
      },
      failed: () => void (this.#isAskingSure = false),
    });
    system.touch();
  }

  /**
   * Tells of groups that were taken off this node what the registry waits for: that it has no replica any more, and never makes one of what was said so far, as
   * the word that took it away is durable, and so is the tombstone. Again until the registry says it too.
   */
  #tellDropped(durableIndex: number, nowMs: number): void {
    const { replicas, shard, nodeId } = this.#options;
    const isNew = this.#toldIndex !== durableIndex;
    if (!isNew && nowMs - this.#tellDroppedMs < tellDroppedEveryMs) return;
    this.#tellDroppedMs = nowMs;
    this.#toldIndex = durableIndex;
    const dropped: DroppedReplica[] = [];
    for (const { entry, revision } of this.view.groups.values()) {
      const own = entry.lingering?.find(({ id }) => id === nodeId);
      if (own === undefined || revision > durableIndex) continue;
      if (replicas.has(entry.id) || replicas.isLeaving(entry.id)) continue;
      if (dropped.push({ id: entry.id, left: own.left }) === droppedPerMessage) break;
    }
    if (dropped.length === 0) return;
    const heard = (): void => {};
    shard.admin("dropGroups", { node: nodeId, dropped }, { answered: heard, failed: heard });
  }

  #replaceLeft(nowMs: number): void {
    if (this.#isReplacing) return;
    const isGoing = (id: number): boolean => this.view.isGoing(id);
    const needs = [...this.view.groups.values()].some(({ entry }) =>
      needsOthers(entry, this.#isNode, isGoing),
    );
    const forgets = forgettingLeft(this.#isNode);
    if (!needs && forgets(this.view) === undefined) return;
    this.#isReplacing = true;
    const ended = (): void => void (this.#isReplacing = false);
    // As a quorum of group 0 has it: this node may not have heard yet of who has come.
    const group = this.#options.shard.group(defaultGroup)!;
    const deadlineMs = nowMs + this.#options.limits.requestTimeoutMs;
    group.read(Consistency.linearizable, 0, deadlineMs, {
      ready: () => {
        const replaces = replacing(() => this.#hosts(), this.#isNode);
        const plan: RegistryJob["plan"] = (view) => replaces(view) ?? forgets(view);
        this.#submit({ plan, deadlineMs, done: ended, failed: ended });
      },
      failed: ended,
    });
  }

  readonly #isNode = (id: number): boolean => this.#cluster.addresses[id] !== undefined;

  /** A group of which this node has no replica; undefined where there is none, as far as it has heard. */
  elsewhere(id: number): BargeError | undefined {
    const found = this.view.group(id);
    if (found === undefined) return this.view.isUnreadable(id) ? notUnderstood(id) : undefined;
    const { addresses } = this.#cluster;
    const members = found.entry.members.map((member) => member.id);
    const leaderHint = members
      .filter((node) => node !== this.#options.nodeId)
      .map((node) => addresses[node])
      .find((at) => at !== undefined);
    const failure = this.#options.replicas.failures.get(id);
    return new BargeError(
      "group_elsewhere",
      failure === undefined
        ? `Group ${id} is on the nodes ${members.join(", ")}; ask one of them.`
        : `Group ${id} is on the nodes ${members.join(", ")}, and this one cannot open it: ${failure}`,
      leaderHint === undefined ? {} : { leaderHint },
    );
  }

  /**
   * What to say of such a group: that there is none only once a quorum has said so, as this node may have just started, or another one may have made it a moment
   * ago. Told once.
   */
  absent(id: number, deadlineMs: number, told: (error: BargeError) => void): void {
    const found = this.elsewhere(id);
    if (found !== undefined) return told(found);
    const system = this.#system;
    const cluster = this.#options.shard.group(defaultGroup)!;
    (system ?? cluster).read(Consistency.linearizable, 0, deadlineMs, {
      ready: () => {
        // Begun meanwhile, it is the one to be asked.
        if (system !== this.#system) return this.absent(id, deadlineMs, told);
        if (system !== undefined) this.view.refresh(system.machine);
        told(this.#absent(id));
      },
      failed: () => told(registryBehind(id)),
    });
    (system ?? cluster).touch();
  }

  /** The same at once, by what this node has heard so far. */
  absentSoFar(id: number): BargeError {
    const { leader, toApply, machine } = this.#system ?? this.#options.shard.group(defaultGroup)!;
    // Who has just come has heard of a leader before it has heard of anything else.
    const hasHeard = leader !== 0 && toApply === 0 && machine.appliedIndex > 0;
    return hasHeard ? this.#absent(id) : (this.elsewhere(id) ?? registryBehind(id));
  }

  #absent(id: number): BargeError {
    const { machine } = this.#options.shard.group(defaultGroup)!;
    // Where there is no registry, there are no groups.
    const isSure = this.#system !== undefined || machine.applyVersion < registryVersion;
    return this.elsewhere(id) ?? (isSure ? unknownGroup(id) : registryBehind(id));
  }

  /** Of groups of which nothing else is said. */
  get machineKind(): string {
    return this.#options.shard.group(defaultGroup)!.machineKind;
  }

  /** That new groups begin with: all nodes can, as group 0 has it. */
  get applyVersion(): number {
    return this.#options.shard.group(defaultGroup)!.machine.applyVersion;
  }

  /* ---------------------------------------------------------------- changes, on the leader of `system` */

  create(wanted: NewGroups, call: RegistryCall<readonly RegistryEntry[]>): void {
    const made = new Map<number, RegistryEntry>();
    this.#submit({
      plan: creation(wanted, () => this.#hosts(), this.#options.limits.groupsMax, made),
      deadlineMs: call.deadlineMs,
      done: () => call.answer([...made.values()]),
      failed: (error) => call.fail(error),
    });
  }

  /** Answered with those that were there. */
  remove(ids: readonly number[], call: RegistryCall<readonly number[]>): void {
    const removed = new Set<number>();
    this.#submit({
      plan: removal(ids, removed),
      deadlineMs: call.deadlineMs,
      done: () => call.answer([...removed]),
      failed: (error) => call.fail(error),
    });
  }

  /** Answered with the entry, and whether it is another one than before. */
  move(
    id: number,
    wish: Wish,
    call: RegistryCall<{ readonly entry: RegistryEntry; readonly changed: boolean }>,
  ): void {
    let changed = false;
    this.#submit({
      plan: move(
        id,
        wish,
        () => this.#hosts(),
        () => (changed = true),
      ),
      deadlineMs: call.deadlineMs,
      done: () => call.answer({ entry: this.view.group(id)!.entry, changed }),
      failed: (error) => call.fail(error),
    });
  }

  settle(settled: readonly SettledGroup[], call: RegistryCall<undefined>): void {
    this.#submit({
      plan: settling(settled),
      deadlineMs: call.deadlineMs,
      done: () => call.answer(undefined),
      failed: (error) => call.fail(error),
    });
  }

  /** That node has dropped what it had of groups whose member it is no more. */
  dropped(node: number, dropped: readonly DroppedReplica[], call: RegistryCall<undefined>): void {
    this.#submit({
      plan: dropping(node, dropped),
      deadlineMs: call.deadlineMs,
      done: () => call.answer(undefined),
      failed: (error) => call.fail(error),
    });
  }

  /** These nodes leave the cluster: no group is to be lost with them, and `system` has to do without them before they end. */
  release(
    { nodes, term, word, replaced, force }: CheckedAdminBody<"releaseNodes">,
    call: RegistryCall<ReleasedAnswer>,
  ): void {
    const system = this.#system;
    if (system === undefined) return call.fail(this.#noRegistry());
    this.#submit({
      plan: noting({ nodes, term, word }, force),
      deadlineMs: call.deadlineMs,
      done: () => {
        if (replaced) call.answer(this.#waitsFor(system, nodes));
        else this.#letGo(system, nodes, call);
      },
      failed: (error) => call.fail(error),
    });
  }

  /** Whose places others take: `system` lets them go by itself once it can (group-members.ts). */
  #waitsFor({ raft }: Group, nodes: readonly number[]): ReleasedAnswer {
    const isInTheWay = (id: number): boolean =>
      departureProblem(this.view, id, this.#isNode) !== undefined;
    if (nodes.some(isInTheWay)) return { waitsFor: "groups" };
    const members = membersOf(raft.configuration);
    const isOut = raft.configurationCommitted && !nodes.some((id) => members.includes(id));
    return isOut ? {} : { waitsFor: "system" };
  }

  #letGo(system: Group, nodes: readonly number[], call: RegistryCall<ReleasedAnswer>): void {
    for (const id of nodes) {
      const problem = departureProblem(this.view, id, this.#isNode);
      if (problem !== undefined) return call.fail(problem);
    }
    const { configuration } = system.raft;
    const stays = (id: number): boolean => !nodes.includes(id);
    const missing = this.#cluster.voters.filter(
      (id) => stays(id) && !configuration.voters.includes(id),
    );
    if (missing.length > 0) {
      const text = `The registry's own group does not have the nodes ${missing.join(", ")} as voters yet, which are those of the cluster: try again in a moment, or force it.`;
      return call.fail(new BargeError("change_in_progress", text));
    }
    const going = membersOf(configuration).filter((id) => !stays(id));
    if (going.length === 0) return call.answer({});
    system.changeMembers({
      changes: going.map((id) => ({ op: "remove", id })),
      force: false,
      deadlineMs: call.deadlineMs,
      waiter: { done: () => call.answer({}), failed: (error) => call.fail(error) },
    });
  }

  /** They stay in the cluster after all. */
  keep(word: LeaderWord, call: RegistryCall<undefined>): void {
    this.#submit({
      plan: forgetting(word),
      deadlineMs: call.deadlineMs,
      done: () => call.answer(undefined),
      failed: (error) => call.fail(error),
    });
  }

  /** All groups, as a quorum has them. */
  list(call: RegistryCall<readonly RegistryEntry[]>): void {
    const system = this.#system;
    if (system === undefined) return call.fail(this.#noRegistry());
    system.read(Consistency.linearizable, 0, call.deadlineMs, {
      ready: () => {
        this.view.refresh(system.machine);
        call.answer([...this.view.groups.values()].map(({ entry }) => entry));
      },
      failed: (error) => call.fail(error),
    });
  }

  #submit(job: RegistryJob): void {
    if (this.#writer === undefined) job.failed(this.#noRegistry());
    else this.#writer.submit(job);
  }

  #noRegistry(): BargeError {
    return noRegistry(this.#options.shard.group(defaultGroup));
  }

  failAll(error: BargeError): void {
    this.#writer?.failAll(error);
  }

  get #cluster(): Configuration {
    return this.#options.shard.group(defaultGroup)!.raft.configuration;
  }

  /** The nodes that can have replicas: the cluster's voters, once they have joined. */
  #hosts(): Host[] {
    const { voters, incarnations = {}, promotions = {} } = this.#cluster;
    const replaced = new Set(Object.values(promotions));
    return voters.flatMap((id) => {
      const incarnation = incarnations[id] ?? this.#options.incarnationOf(id);
      if (incarnation === undefined) return [];
      return [replaced.has(id) ? { id, incarnation, goes: true } : { id, incarnation }];
    });
  }
}

/** The first log of `system`: its members, and the apply version. */
const foundingBatches = 2;
export const systemSpec: ReplicaSpec = { id: systemGroup, machine: "kv" };

/** Why a node has no registry that could be asked; `cluster` is its group 0. */
export function noRegistry(cluster: Group | undefined): BargeError {
  // It is about to begin, or was not heard of yet.
  const isSoon = cluster?.leader === 0 || (cluster?.machine.applyVersion ?? 0) >= registryVersion;
  const code = isSoon ? "no_leader" : "no_registry";
  return new BargeError(code, errorTable[code].help);
}

function notUnderstood(id: number): BargeError {
  const message = `This node does not understand what the registry says of group ${id}: it may take a newer build.`;
  return new BargeError("group_elsewhere", message);
}

function registryBehind(id: number): BargeError {
  const why = "it has just started or joined, or reaches no leader of the registry";
  const message = `This node has no group ${id}, and cannot tell whether there is one: ${why}.`;
  return new BargeError("registry_behind", message);
}

/** What group 0 says of how `system` begins: with its voters of now, each in the folder that this node knows it by. */
export function systemSeedOf(
  clusterId: string,
  configuration: () => Configuration,
  incarnationOf: (id: number) => string | undefined,
): SeedSource {
  return {
    isOurs: (seed) => decodeSystemSeed(seed)?.clusterId === clusterId,
    now: () => {
      const current = configuration();
      if (isJoint(current)) return undefined;
      const founders: Host[] = [];
      for (const id of current.voters) {
        const incarnation = current.incarnations?.[id] ?? incarnationOf(id);
        if (incarnation === undefined) return undefined;
        founders.push({ id, incarnation });
      }
      const bytes = encodeConfiguration(foundingConfiguration(founders));
      return encodeSystemSeed({ clusterId, configuration: bytes });
    },
  };
}

/**
 * What there is to change in the registry, each as a function from what it says to what to write next: create, remove and move groups, note that a move is done and
 * that who left has dropped what it had, and replace nodes that have left the cluster. Pure.
 */
import { BargeError } from "../errors.ts";
import { leaderHasOnlyBegun, votersMax } from "../raft/membership.ts";
import type { KvOperation } from "../wire/kv-txn.ts";
import {
  encodeEntry,
  encodeIds,
  type FormerMember,
  type Founder,
  goingKey,
  groupKey,
  type GroupMember,
  type IdRun,
  idRunsMax,
  idsKey,
  type LingeringMember,
  nameKey,
  nextId,
  type RegistryEntry,
  wasGiven,
  withId,
} from "../wire/registry.ts";
import type { RegisteredGroup, RegistryView } from "./registry-view.ts";
import type { RegistryWrite } from "./registry-writer.ts";

/** A node of the cluster that can have replicas. */
export interface Host extends Founder {
  /** Another node takes its place in the cluster before long, and then it ends with all that it hosts. */
  readonly goes?: true;
}

export interface NewGroups {
  /** Drawn by who asks, at random: asked again with the same one, what is there already is not made twice. */
  readonly request: string;
  readonly count: number;
  /** Of the first one, the others follow on it; undefined = the next ones that are free. */
  readonly id: number | undefined;
  readonly name: string | undefined;
  readonly machine: string;
  readonly applyVersion: number;
  readonly replicas: number | undefined;
  /** Who is to host them; undefined = those that host the fewest. */
  readonly members: readonly number[] | undefined;
  readonly logBytesMax: number | undefined;
}

/** Groups of one transaction: each takes one of its operations, and where it was there before up to three more. */
const createdPerWrite = 100;
const groupsPerWrite = 24;
/** How many members a group has, where nobody says. */
const replicasUsual = 3;

/** Makes groups, as many writes as it takes. `made` collects what there is in the end. */
export function creation(
  wanted: NewGroups,
  hosts: () => readonly Host[],
  groupsMax: number,
  made: Map<number, RegistryEntry>,
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    made.clear();
    for (const { entry } of view.groups.values()) {
      if (entry.request === wanted.request) made.set(entry.id, entry);
    }
    const left = wanted.count - made.size;
    if (left <= 0) return undefined;
    if (view.groups.size + left > groupsMax) {
      throw new BargeError(
        "too_many_groups",
        `There are ${view.groups.size} groups, and at most ${groupsMax} are allowed: remove some.`,
      );
    }
    const { runs, revision } = view.ids;
    const placing = new Placing(view, hosts(), wanted);
    let given: readonly IdRun[] = runs;
    const compare = [{ key: idsKey, revision }, sameGoing(view)];
    const operations: KvOperation[] = [];
    for (let at = 0; at < Math.min(left, createdPerWrite); at++) {
      const id = wanted.id === undefined ? nextId(given) : wanted.id + made.size + at;
      if (id === undefined)
        throw new BargeError("too_many_groups", "All ids of groups were given.");
      checkId(view, given, id);
      given = withId(given, id);
      const members = placing.next();
      refuseToLose(id, members, placing.goes);
      const { name } = wanted;
      if (name !== undefined) {
        if (view.named(name) !== undefined) throw taken(`the name ${name}`, view.named(name)!);
        compare.push({ key: nameKey(name), revision: 0 });
        operations.push({ op: "put", key: nameKey(name), value: encodeName(id) });
      }
      operations.push({
        op: "put",
        key: groupKey(id),
        value: encodeEntry(firstEntry(wanted, id, members)),
      });
    }
    if (given.length > idRunsMax) {
      throw new BargeError(
        "too_many_groups",
        "Too many ids lie apart from all others; let the cluster choose the ids.",
      );
    }
    operations.push({ op: "put", key: idsKey, value: encodeIds(given) });
    return { compare, operations };
  };
}

function encodeName(id: number): Uint8Array {
  return new TextEncoder().encode(String(id));
}

function firstEntry(wanted: NewGroups, id: number, hosts: readonly Host[]): RegistryEntry {
  const { name, machine, applyVersion, logBytesMax, request } = wanted;
  const founders = hosts.map(({ id: node, incarnation }) => ({ id: node, incarnation }));
  return {
    id,
    name,
    machine,
    applyVersion,
    logBytesMax,
    request,
    replicas: hosts.length,
    members: founders.map((founder) => ({ ...founder, since: 1 })),
    leaving: [],
    founders,
    version: 1,
  };
}

function checkId(view: RegistryView, given: readonly IdRun[], id: number): void {
  if (view.group(id) !== undefined) throw taken(`the id ${id}`, id);
  if (!wasGiven(given, id)) return;
  throw new BargeError(
    "group_exists",
    `There was a group ${id}, and the id of a removed group is never used again: take another one, or let the cluster choose.`,
  );
}

function taken(what: string, id: number): BargeError {
  return new BargeError("group_exists", `Group ${id} has ${what} already.`);
}

/** Spreads groups over the nodes: each goes to those that host the fewest. */
class Placing {
  readonly goes: Goes;
  readonly #hosts: readonly Host[];
  readonly #loads: Map<number, number>;
  readonly #fixed: readonly Host[] | undefined;
  readonly #replicas: number;

  constructor(view: RegistryView, hosts: readonly Host[], wanted: NewGroups) {
    this.#hosts = hosts;
    this.goes = goingAmong(view, hosts);
    this.#loads = loadsOf(view, hosts);
    this.#fixed = wanted.members?.map((id) => hostOf(hosts, id));
    this.#replicas = wanted.replicas ?? Math.min(replicasUsual, hosts.length);
    if (this.#replicas > hosts.length && this.#fixed === undefined) {
      throw new BargeError(
        "bad_request",
        `A group of ${this.#replicas} members needs as many nodes that vote in the cluster, and there are ${hosts.length}.`,
      );
    }
  }

  next(): readonly Host[] {
    if (this.#fixed !== undefined) return this.#fixed;
    const chosen = leastLoaded(this.#hosts, this.#loads, this.goes).slice(0, this.#replicas);
    for (const { id } of chosen) this.#loads.set(id, this.#loads.get(id)! + 1);
    return chosen.toSorted((a, b) => a.id - b.id);
  }
}

/** Those that go come last. */
function leastLoaded(
  hosts: readonly Host[],
  loads: ReadonlyMap<number, number>,
  goes: Goes,
): Host[] {
  const order = (a: Host, b: Host): number =>
    Number(goes(a.id)) - Number(goes(b.id)) || loads.get(a.id)! - loads.get(b.id)! || a.id - b.id;
  return hosts.toSorted(order);
}

type Members = readonly { readonly id: number }[];

/** What places replicas holds only while no other nodes leave the cluster than those that it knew of: see departures.ts. */
function sameGoing({ going }: RegistryView): RegistryWrite["compare"][number] {
  return { key: goingKey, revision: going.revision };
}

type Goes = (id: number) => boolean;

/** They are about to leave the cluster, as far as the registry says so, or this node has heard. */
function goingAmong(view: RegistryView, hosts: readonly Host[]): Goes {
  const heard = new Set(hosts.flatMap(({ id, goes }) => (goes ? [id] : [])));
  return (id) => heard.has(id) || view.isGoing(id);
}

/** With those that go its majority goes. */
function isLost(members: Members, goes: Goes): boolean {
  let left = 0;
  for (const { id } of members) if (!goes(id)) left++;
  return left < members.length && left * 2 <= members.length;
}

/** A group must not come to where it would be lost: once nothing is in a node's way, it goes. */
function refuseToLose(group: number, members: Members, goes: Goes): void {
  if (!isLost(members, goes)) return;
  const nodes = members.flatMap(({ id }) => (goes(id) ? [id] : []));
  throw new BargeError(
    "change_in_progress",
    `Node ${nodes.join(", ")} is leaving the cluster, and group ${group} would be lost with it: nothing is changed. Try again when that is done (barge member list), or choose other nodes.`,
  );
}

/**
 * While a group is moved it has its old members and its new ones, and does without some of the old ones as well as before. Not where there is no room for all of
 * them: then an old one has to go before a new one comes, and it may be one that stays.
 */
function refuseToHurry({ id, members, leaving }: RegistryEntry, goes: Goes): void {
  const all = [...members, ...leaving];
  const node = all.find((member) => goes(member.id));
  if (node === undefined || all.length <= votersMax) return;
  throw new BargeError(
    "change_in_progress",
    `Node ${node.id} is leaving the cluster, and is among the members of group ${id}, which has no room for all its new members beside the old ones: nothing is changed. Try again when that is done (barge member list), or move fewer at once.`,
  );
}

function loadsOf(view: RegistryView, hosts: readonly Host[]): Map<number, number> {
  const loads = new Map(hosts.map(({ id }) => [id, 0]));
  for (const { entry } of view.groups.values()) {
    for (const { id } of entry.members) {
      const load = loads.get(id);
      if (load !== undefined) loads.set(id, load + 1);
    }
  }
  return loads;
}

function hostOf(hosts: readonly Host[], id: number): Host {
  const host = hosts.find((each) => each.id === id);
  if (host !== undefined) return host;
  throw new BargeError(
    "unknown_member",
    `Node ${id} cannot host groups: it is no voter of the cluster, or has not joined yet. \`barge member list\` tells.`,
  );
}

/* ------------------------------------------------------------------ the end of groups */

/** `removed` collects those that were there. */
export function removal(
  ids: readonly number[],
  removed: Set<number>,
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const compare: { key: Uint8Array; revision: number }[] = [];
    const operations: KvOperation[] = [];
    const gone: number[] = [];
    for (const id of ids) {
      const found = view.group(id);
      if (found === undefined && !wasGiven(view.ids.runs, id)) throw unknownGroup(id);
      if (found === undefined || gone.length >= groupsPerWrite) continue;
      gone.push(id);
      compare.push({ key: groupKey(id), revision: found.revision });
      operations.push({ op: "delete", key: groupKey(id) });
      const { name } = found.entry;
      if (name !== undefined) operations.push({ op: "delete", key: nameKey(name) });
    }
    if (gone.length === 0) return undefined;
    return { compare, operations, written: () => gone.forEach((id) => removed.add(id)) };
  };
}

export function unknownGroup(id: number): BargeError {
  return new BargeError(
    "unknown_group",
    `There is no group ${id}: \`barge group list\` shows all.`,
  );
}

/* ------------------------------------------------------------------ members */

/** What is wanted of a group's members, given those that it has. */
export type Wish = (members: readonly number[]) => readonly number[];

/** Others are to be its members. `changed` hears whether that was anything new. */
export function move(
  id: number,
  wish: Wish,
  hosts: () => readonly Host[],
  changed: () => void,
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const found = view.group(id);
    if (found === undefined) throw unknownGroup(id);
    const before = found.entry.members.map((member) => member.id);
    const wanted = [...new Set(wish(before))].toSorted((a, b) => a - b);
    if (wanted.length === 0) {
      throw new BargeError(
        "bad_request",
        `Group ${id} would have no member left. To end it: \`barge group remove ${id}\`.`,
      );
    }
    const all = hosts();
    for (const node of wanted) {
      if (before.includes(node)) continue;
      hostOf(all, node);
      if (lingers(found.entry, node)) throw stillThere(id, node);
    }
    const next = withMembers(found.entry, wanted, all);
    if (next === undefined) return undefined;
    const goes = goingAmong(view, all);
    refuseToLose(id, next.members, goes);
    refuseToHurry(next, goes);
    return placed(view, [{ found, next: { ...next, replicas: wanted.length } }], changed);
  };
}

/** Its old replica may answer yet: what a leader counted of that would go with it. */
function lingers({ lingering = [] }: RegistryEntry, node: number): boolean {
  return lingering.some(({ id }) => id === node);
}

function stillThere(id: number, node: number): BargeError {
  return new BargeError(
    "change_in_progress",
    `Node ${node} was a member of group ${id} and has not yet dropped the replica that it had, or has not said so: nothing is changed. Try again in a moment; where it is down, cut off or of an older build, mend that first, or choose another node.`,
  );
}

interface Change {
  readonly found: RegisteredGroup;
  readonly next: RegistryEntry;
}

/** They may have new members. */
function placed(
  view: RegistryView,
  changes: readonly Change[],
  written?: () => void,
): RegistryWrite {
  const write = rewrite(changes, written);
  return { ...write, compare: [...write.compare, sameGoing(view)] };
}

function rewrite(changes: readonly Change[], written?: () => void): RegistryWrite {
  return {
    compare: changes.map(({ found, next }) => ({
      key: groupKey(next.id),
      revision: found.revision,
    })),
    operations: changes.map(({ next }) => ({
      op: "put",
      key: groupKey(next.id),
      value: encodeEntry(next),
    })),
    ...(written === undefined ? {} : { written }),
  };
}

/** Undefined where it has just these. Who goes stays among the leaving; who comes back before it has left is as it was. */
function withMembers(
  entry: RegistryEntry,
  wanted: readonly number[],
  hosts: readonly Host[],
): RegistryEntry | undefined {
  const known = new Map([...entry.leaving, ...entry.members].map((each) => [each.id, each]));
  const version = entry.version + 1;
  const members = wanted.map((id) => known.get(id) ?? newMember(entry, id, hosts, version));
  const leaving = [...known.values()].filter(({ id }) => !wanted.includes(id));
  const same =
    members.length === entry.members.length &&
    members.every(({ id }, at) => entry.members[at]!.id === id);
  if (same) return undefined;
  const former = entry.former?.filter(({ id }) => !wanted.includes(id));
  return { ...entry, members, leaving, former, version };
}

function newMember(
  { former = [] }: RegistryEntry,
  id: number,
  hosts: readonly Host[],
  since: number,
): GroupMember {
  const { incarnation } = hostOf(hosts, id);
  const aboveTerm = former.find((each) => each.id === id)?.term;
  return { id, incarnation, since, ...(aboveTerm === undefined ? {} : { aboveTerm }) };
}

/**
 * Why these nodes cannot leave the cluster now: a group would have too few members left, and alive, to go on. Undefined where none would. A new leader has
 * not heard everybody yet: where that alone is why, it says to try again.
 */
export function leavingProblem(
  entries: readonly RegistryEntry[],
  going: ReadonlySet<number>,
  isAlive: (node: number) => boolean = () => true,
  isNewLeader = false,
): BargeError | undefined {
  const stuck: number[] = [];
  const moving: number[] = [];
  for (const { id, members, leaving } of entries) {
    const goes = (member: GroupMember): boolean => going.has(member.id);
    const left = members.filter((member) => !goes(member) && isAlive(member.id)).length;
    if (members.some(goes) && left * 2 <= members.length) stuck.push(id);
    // Which of them are its voters by now its leader alone knows.
    else if (leaving.length > 0 && [...members, ...leaving].some(goes)) moving.push(id);
  }
  const nodes = [...going].join(", ");
  if (stuck.length > 0) {
    if (isNewLeader && leavingProblem(entries, going)?.code !== "no_live_majority") {
      const { refused, message } = leaderHasOnlyBegun();
      return new BargeError(refused, message);
    }
    return new BargeError(
      "no_live_majority",
      `Without node ${nodes} the groups ${someOf(stuck)} would have lost their majority, and all that they hold: move them to other nodes first (barge group move), remove one node after the other, bring back those that are down, or force it.`,
    );
  }
  if (moving.length === 0) return undefined;
  return new BargeError(
    "change_in_progress",
    `The groups ${someOf(moving)} are being moved, node ${nodes} among their members: try again when that is done (barge group list), or force it.`,
  );
}

function someOf(ids: readonly number[]): string {
  const shown = ids.slice(0, 5).join(", ");
  return ids.length > 5 ? `${shown} and ${ids.length - 5} more` : shown;
}

/** A group's leader says that the members of that version are its members, and no others, committed. */
export interface SettledGroup {
  readonly id: number;
  readonly version: number;
  /** In which it said so: no former member was heard in a later one. */
  readonly term: number;
}

/** What has left has left. */
export function settling(
  settled: readonly SettledGroup[],
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const changes = settled.flatMap(({ id, version, term }) => {
      const found = view.group(id);
      if (found === undefined || found.entry.version !== version) return [];
      const { entry } = found;
      if (entry.leaving.length === 0) return [];
      const gone: FormerMember[] = entry.leaving.map((each) => ({ id: each.id, term }));
      const former = [...(entry.former ?? []), ...gone].slice(-formerMax);
      const left = version + 1;
      const lingering = [
        ...(entry.lingering ?? []),
        ...gone.map((each) => ({ id: each.id, left })),
      ];
      return [{ found, next: { ...entry, leaving: [], former, lingering, version: left } }];
    });
    return changes.length === 0 ? undefined : rewrite(changes.slice(0, groupsPerWrite));
  };
}

/** Of one group; those that left longest ago are forgotten first: by the time that so many have, they have long dropped what they had. */
const formerMax = 1_024;

/** A node says that it has no replica of a group any more, and will make none of what the registry said until it left with that version. */
export interface DroppedReplica {
  readonly id: number;
  readonly left: number;
}

/** It may come back from then on. */
export function dropping(
  node: number,
  dropped: readonly DroppedReplica[],
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const changes = dropped.flatMap(({ id, left }) => {
      const found = view.group(id);
      const isIt = (each: LingeringMember): boolean => each.id === node && each.left === left;
      return found?.entry.lingering?.some(isIt) === true
        ? [{ found, next: newer(strike(found.entry, isIt)) }]
        : [];
    });
    return changes.length === 0 ? undefined : rewrite(changes.slice(0, groupsPerWrite));
  };
}

function strike(entry: RegistryEntry, isIt: (member: LingeringMember) => boolean): RegistryEntry {
  return { ...entry, lingering: entry.lingering?.filter((each) => !isIt(each)) };
}

function newer(entry: RegistryEntry): RegistryEntry {
  return { ...entry, version: entry.version + 1 };
}

/** Whether others have to come in the places of nodes that are none of the cluster any more, or that it would be lost with; or one of the former is waited for. */
export function needsOthers(
  { members, lingering = [] }: RegistryEntry,
  isNode: (id: number) => boolean,
  isNoted: (id: number) => boolean,
): boolean {
  const isGone = ({ id }: { readonly id: number }): boolean => !isNode(id);
  return members.some(isGone) || lingering.some(isGone) || isLost(members, isNoted);
}

/**
 * Groups whose members are no nodes of the cluster any more, or that would be lost with those that leave it: others take their places, as long as there are any. Nor is
 * a node waited for that has left: its id never comes back, and so nothing that it has counts again. Undefined where there is none such.
 */
export function replacing(
  hosts: () => readonly Host[],
  isNode: (id: number) => boolean,
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const changes: Change[] = [];
    let filling: Filling | undefined;
    for (const found of view.groups.values()) {
      if (changes.length >= groupsPerWrite) break;
      if (!needsOthers(found.entry, isNode, (id) => view.isGoing(id))) continue;
      filling ??= new Filling(view, hosts(), isNode);
      const entry = strike(found.entry, ({ id }) => !isNode(id));
      const next = filling.next(entry);
      if (next !== undefined) changes.push({ found, next });
      else if (entry.lingering?.length !== found.entry.lingering?.length) {
        changes.push({ found, next: newer(entry) });
      }
    }
    return changes.length === 0 ? undefined : placed(view, changes);
  };
}

/** Finds members in the places of others, each time among the nodes with the fewest groups. */
class Filling {
  readonly #view: RegistryView;
  readonly #hosts: readonly Host[];
  readonly #loads: Map<number, number>;
  readonly #isNode: (id: number) => boolean;
  readonly #mayGo: (id: number) => boolean;

  constructor(view: RegistryView, hosts: readonly Host[], isNode: (id: number) => boolean) {
    this.#view = view;
    this.#hosts = hosts;
    this.#loads = loadsOf(view, hosts);
    this.#isNode = isNode;
    this.#mayGo = goingAmong(view, hosts);
  }

  /** Undefined where there is nothing to change, or nobody to change it with. */
  next(entry: RegistryEntry): RegistryEntry | undefined {
    const all = entry.members.map(({ id }) => id);
    const here = all.filter(this.#isNode);
    const stays = (id: number): boolean => this.#isNode(id) && !this.#view.isGoing(id);
    const staying = here.filter(stays);
    if (staying.length < here.length && staying.length * 2 <= all.length) {
      const safe = this.#filled(entry, staying, (id) => !this.#mayGo(id));
      // Not upon fewer nodes: nobody would see to it that they become more again. So it waits, and the node that goes with it.
      if (safe.length >= here.length) return this.#with(entry, safe);
    }
    if (here.length === all.length) return undefined;
    let members = this.#filled(entry, here, () => true);
    if (
      isLost(
        members.map((id) => ({ id })),
        this.#mayGo,
      )
    ) {
      members = this.#filled(entry, here, (id) => !this.#mayGo(id));
    }
    // All of it is lost, and nobody could bring it back.
    return members.length === 0 ? undefined : this.#with(entry, members);
  }

  #filled(
    entry: RegistryEntry,
    stay: readonly number[],
    may: (id: number) => boolean,
  ): readonly number[] {
    const coming = leastLoaded(this.#hosts, this.#loads, this.#mayGo).flatMap(({ id }) => {
      return stay.includes(id) || !this.#isNode(id) || lingers(entry, id) || !may(id) ? [] : [id];
    });
    return [...stay, ...coming.slice(0, Math.max(0, entry.replicas - stay.length))];
  }

  #with(entry: RegistryEntry, members: readonly number[]): RegistryEntry | undefined {
    for (const id of members) {
      const isNew = entry.members.every((member) => member.id !== id);
      if (isNew) this.#loads.set(id, this.#loads.get(id)! + 1);
    }
    const ids = members.toSorted((a, b) => a - b);
    return withMembers(entry, ids, this.#hosts);
  }
}

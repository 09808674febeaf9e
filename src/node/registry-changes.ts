/**
 * What there is to change in the registry, each as a function from what it says to what to write next: create, remove and move groups, note that a move is done and
 * that who left has dropped what it had, and replace nodes that have left the cluster. Pure.
 */
import { BargeError } from "../errors.ts";
import { leaderHasOnlyBegun } from "../raft/membership.ts";
import type { KvOperation } from "../wire/kv-txn.ts";
import {
  encodeEntry,
  encodeIds,
  type FormerMember,
  type Founder,
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
    const compare = [{ key: idsKey, revision }];
    const operations: KvOperation[] = [];
    for (let at = 0; at < Math.min(left, createdPerWrite); at++) {
      const id = wanted.id === undefined ? nextId(given) : wanted.id + made.size + at;
      if (id === undefined)
        throw new BargeError("too_many_groups", "All ids of groups were given.");
      checkId(view, given, id);
      given = withId(given, id);
      const members = placing.next();
      refuseToLose(id, members, placing.hosts);
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
  readonly hosts: readonly Host[];
  readonly #loads: Map<number, number>;
  readonly #fixed: readonly Host[] | undefined;
  readonly #replicas: number;

  constructor(view: RegistryView, hosts: readonly Host[], wanted: NewGroups) {
    this.hosts = hosts;
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
    const chosen = leastLoaded(this.hosts, this.#loads).slice(0, this.#replicas);
    for (const { id } of chosen) this.#loads.set(id, this.#loads.get(id)! + 1);
    return chosen.toSorted((a, b) => a.id - b.id);
  }
}

/** Those that go come last. */
function leastLoaded(hosts: readonly Host[], loads: ReadonlyMap<number, number>): Host[] {
  const order = (a: Host, b: Host): number =>
    Number(a.goes ?? false) - Number(b.goes ?? false) ||
    loads.get(a.id)! - loads.get(b.id)! ||
    a.id - b.id;
  return hosts.toSorted(order);
}

type Members = readonly { readonly id: number }[];

function goingAmong(members: Members, hosts: readonly Host[]): readonly Host[] {
  return hosts.filter(({ id, goes }) => goes && members.some((member) => member.id === id));
}

/** A group must not come to where it would be lost: its members are looked at before a node goes, and not again. */
function refuseToLose(group: number, members: Members, hosts: readonly Host[]): void {
  const going = goingAmong(members, hosts);
  if (going.length === 0 || (members.length - going.length) * 2 > members.length) return;
  throw new BargeError(
    "change_in_progress",
    `Another node takes the place of node ${going.map(({ id }) => id).join(", ")} in the cluster, and group ${group} would be lost with it: nothing is changed. Try again when that is done (barge member list), or choose other nodes.`,
  );
}

/** Who are to have the group may not have it yet when the node goes, and it cannot be asked to stay. */
function refuseToHurry({ id: group, members }: RegistryEntry, hosts: readonly Host[]): void {
  const [going] = goingAmong(members, hosts);
  if (going === undefined) return;
  throw new BargeError(
    "change_in_progress",
    `Another node takes the place of node ${going.id} in the cluster, which is among the members of group ${group}: nothing is changed, try again when that is done (barge member list). The group then gets another member by itself.`,
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
    refuseToLose(id, next.members, all);
    refuseToHurry(found.entry, all);
    return rewrite([{ found, next: { ...next, replicas: wanted.length } }], changed);
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

function rewrite(
  changes: readonly { readonly found: RegisteredGroup; readonly next: RegistryEntry }[],
  written?: () => void,
): RegistryWrite {
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

/** Whether nodes that are none of the cluster any more are its members, or waited for. */
export function namesLeft(
  { members, lingering = [] }: RegistryEntry,
  isNode: (id: number) => boolean,
): boolean {
  return members.some(({ id }) => !isNode(id)) || lingering.some(({ id }) => !isNode(id));
}

/**
 * Groups whose members are no nodes of the cluster any more: others take their places, as long as there are any. Nor is such a node waited for: its id never comes
 * back, and so nothing that it has counts again. Undefined where there is none such.
 */
export function replacing(
  hosts: () => readonly Host[],
  isNode: (id: number) => boolean,
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const changes: { found: RegisteredGroup; next: RegistryEntry }[] = [];
    let loads: Map<number, number> | undefined;
    for (const found of view.groups.values()) {
      if (changes.length >= groupsPerWrite) break;
      if (!namesLeft(found.entry, isNode)) continue;
      const entry = strike(found.entry, ({ id }) => !isNode(id));
      if (entry.members.every(({ id }) => isNode(id))) {
        changes.push({ found, next: newer(entry) });
        continue;
      }
      const all = hosts();
      loads ??= loadsOf(view, all);
      const stay = entry.members.filter(({ id }) => isNode(id)).map(({ id }) => id);
      for (const { id } of leastLoaded(all, loads)) {
        if (stay.length >= entry.replicas) break;
        if (stay.includes(id) || !isNode(id) || lingers(entry, id)) continue;
        stay.push(id);
        loads.set(id, loads.get(id)! + 1);
      }
      // All of it is lost, and nobody could bring it back.
      if (stay.length === 0) continue;
      const next = withMembers(
        entry,
        stay.toSorted((a, b) => a - b),
        all,
      );
      if (next !== undefined) changes.push({ found, next });
    }
    return changes.length === 0 ? undefined : rewrite(changes);
  };
}

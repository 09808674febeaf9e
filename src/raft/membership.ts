/**
 * Changes of the members of a group, as functions from one configuration to the next; pure. Every change of the voters goes through a joint
 * configuration (§6), in which the majorities of the old and the new voters are both needed. Learners come and go in one step, as nothing counts them.
 *
 * A new voter is a learner first, until its log has caught up: the change only marks it for promotion, and whoever leads then promotes it. So a request
 * is done once its configuration is committed, and survives the leader that took it.
 */
import { isJoint, removedMax, sameConfiguration } from "./configuration.ts";
import type { Configuration } from "./ready.ts";

/** One wish. Several in one request take effect together. */
export type MemberChange =
  /** A new member. `learner`: it stays one; else it becomes a voter once it has caught up. */
  | {
      readonly op: "add";
      readonly id: number;
      readonly address: string;
      readonly learner: boolean;
      /** The data folder that it is bound to. */
      readonly incarnation?: string;
      /** Also where it was removed: whoever asks knows that nothing which it said then counts now. */
      readonly returns?: boolean;
    }
  /** A learner becomes a voter, once it has caught up. */
  | { readonly op: "promote"; readonly id: number }
  /** A voter becomes a learner, and stays one. */
  | { readonly op: "demote"; readonly id: number }
  /** From now on only this data folder may speak in the member's name [36]. */
  | { readonly op: "bind"; readonly id: number; readonly incarnation: string }
  /** The member is to be reached there from now on: same id, same data folder. */
  | { readonly op: "move"; readonly id: number; readonly address: string }
  /** For good: the id is never used again. */
  | { readonly op: "remove"; readonly id: number }
  /** The new node `by` takes the place of `id` once it has caught up; until then `id` keeps it. */
  | {
      readonly op: "replace";
      readonly id: number;
      readonly by: number;
      readonly address: string;
      readonly incarnation?: string;
    };

export type ChangeRefusal =
  | "not_leader"
  /** Another change is under way, or this leader has only begun: later it may go. */
  | "change_in_progress"
  /** The voters that would be left are not alive in their majority. */
  | "no_live_majority"
  | "unknown_member"
  /** The id or the address is that of another member. */
  | "member_exists"
  /** The id was given up. */
  | "member_removed"
  /** What is asked for makes no sense for any group. */
  | "bad_request";

export interface RefusedChange {
  readonly refused: ChangeRefusal;
  /** For people: why, and what to do. */
  readonly message: string;
}

export type ChangePlan =
  | { readonly next: Configuration }
  /** All of it holds already. */
  | { readonly unchanged: true }
  | RefusedChange;

/** More voters make a group slower and hardly safer. */
export const votersMax = 9;
export const learnersMax = 64;
const addressCharactersMax = 512;
const idMax = 0xffff_fffe;

/** A configuration in the making. */
interface Draft {
  /** The voters so far. */
  readonly before: readonly number[];
  readonly voters: Set<number>;
  readonly learners: Set<number>;
  readonly promotions: Map<number, number>;
  readonly removed: Set<number>;
  readonly addresses: Map<number, string>;
  readonly incarnations: Map<number, string>;
}

/** Who a new member is. */
interface Identity {
  readonly id: number;
  readonly address: string;
  readonly incarnation: string | undefined;
}

/** What the changes, one after the other, make of a configuration that is committed. */
export function planChange(current: Configuration, changes: readonly MemberChange[]): ChangePlan {
  if (isJoint(current)) return inProgress();
  if (changes.length === 0) return refuse("bad_request", "No change is asked for.");
  const draft = draftOf(current);
  for (const change of changes) {
    const refusal = applyChange(draft, change);
    if (refusal !== undefined) return refusal;
  }
  if (draft.voters.size === 0)
    return refuse("bad_request", "The last voter stays. To end the group, stop its nodes.");
  for (const id of draft.learners) {
    if (draft.promotions.has(id) && current.voters.includes(id))
      return refuse("bad_request", `Node ${id} cannot stop being a voter and become one at once.`);
  }
  const joining = [...draft.promotions.values()].filter((place) => place === 0);
  if (draft.voters.size + joining.length > votersMax)
    return refuse("bad_request", `A group has at most ${votersMax} voters; add learners instead.`);
  if (draft.learners.size > learnersMax)
    return refuse("bad_request", `A group has at most ${learnersMax} learners.`);
  // Each member may have to be remembered as a removed one some day, and then there must be room.
  const { removed, before, voters, learners } = draft;
  if (new Set([...removed, ...before, ...voters, ...learners]).size > removedMax) {
    return refuse(
      "bad_request",
      `This group has had ${removedMax} members and can remember no more; move its data to a new cluster.`,
    );
  }
  const next = finish(draft);
  return sameConfiguration(next, current) ? { unchanged: true } : { next };
}

/** What follows a joint configuration once it is committed: the incoming voters alone. */
export function leaveJoint(current: Configuration): Configuration {
  const draft = draftOf(current);
  for (const id of current.outgoing) if (!isMember(draft, id)) draft.removed.add(id);
  return finish(draft);
}

/** These learners become voters, and those whose places they take are removed. */
export function promoteLearners(current: Configuration, ids: readonly number[]): Configuration {
  const draft = draftOf(current);
  const replaced = ids.map((id) => draft.promotions.get(id) ?? 0);
  for (const id of ids) {
    draft.promotions.delete(id);
    draft.learners.delete(id);
    draft.voters.add(id);
  }
  // After all of them: a learner whose place another one takes may be among them itself.
  for (const place of replaced) if (place !== 0) removeMember(draft, place);
  return finish(draft);
}

/** Whether `next` may come directly after `current`: voters change only into and out of a joint state. */
export function follows(current: Configuration, next: Configuration): boolean {
  if (isJoint(current)) return !isJoint(next) && sameIds(next.voters, current.voters);
  return sameIds(isJoint(next) ? next.outgoing : next.voters, current.voters);
}

export function inProgress(): RefusedChange {
  return refuse(
    "change_in_progress",
    "Another change of the members is under way; try again when it is done.",
  );
}

export function leaderHasOnlyBegun(): RefusedChange {
  return refuse(
    "change_in_progress",
    "The leader has only begun, and has not heard yet who is alive; try again.",
  );
}

export function refuse(refused: ChangeRefusal, message: string): RefusedChange {
  return { refused, message };
}

function applyChange(draft: Draft, change: MemberChange): RefusedChange | undefined {
  const { id } = change;
  switch (change.op) {
    case "add": {
      const { address, incarnation, learner, returns } = change;
      if (returns === true) draft.removed.delete(id);
      return addMember(draft, { id, address, incarnation }, learner ? undefined : 0);
    }
    case "promote":
      return promoteMember(draft, id);
    case "demote":
      return demoteMember(draft, id);
    case "bind":
      return bindMember(draft, id, change.incarnation);
    case "move":
      return moveMember(draft, id, change.address);
    case "remove":
      if (!isMember(draft, id) && !draft.removed.has(id)) return unknown(id);
      removeMember(draft, id);
      return undefined;
    case "replace": {
      const { by, address, incarnation } = change;
      return replaceMember(draft, id, { id: by, address, incarnation });
    }
  }
}

/** `place`: 0 = becomes a voter, undefined = stays a learner, else the member whose place it takes; `replaced`: who goes, for a learner too. */
function addMember(
  draft: Draft,
  identity: Identity,
  place: number | undefined,
  replaced = place,
): RefusedChange | undefined {
  const { id, address, incarnation } = identity;
  const refusal = checkIdentity(draft, identity, replaced);
  if (refusal !== undefined) return refusal;
  if (draft.voters.has(id)) {
    if (place !== undefined) return undefined;
    return refuse("member_exists", `Node ${id} is a voter; demote it to make it a learner.`);
  }
  if (draft.learners.has(id)) {
    if (place !== undefined && !draft.promotions.get(id)) draft.promotions.set(id, place);
    return undefined;
  }
  draft.learners.add(id);
  draft.addresses.set(id, address);
  if (incarnation !== undefined) draft.incarnations.set(id, incarnation);
  if (place !== undefined) draft.promotions.set(id, place);
  return undefined;
}

function checkIdentity(
  draft: Draft,
  identity: Identity,
  replaced: number | undefined,
): RefusedChange | undefined {
  const { id, address, incarnation } = identity;
  if (!Number.isSafeInteger(id) || id < 1 || id > idMax)
    return refuse("bad_request", `A node's id is a whole number from 1 to ${idMax}, not ${id}.`);
  if (draft.removed.has(id)) {
    return refuse(
      "member_removed",
      `Node ${id} was removed from this group, and its id is never used again: take an empty data folder and another id; ${freeId(draft)} is free.`,
    );
  }
  const known = draft.addresses.get(id);
  if (known !== undefined && known !== address) {
    return refuse(
      "member_exists",
      `Node ${id} is a member at ${known}. To reach that same node at ${address} from now on: \`barge member move ${id}=${address}\`; for another node, take another id.`,
    );
  }
  const bound = draft.incarnations.get(id);
  if (bound !== undefined && incarnation !== undefined && bound !== incarnation)
    return otherFolder(draft, id);
  return known === address ? undefined : checkAddress(draft, id, address, replaced);
}

/** The address of a member is its own, except that whoever replaces it may have it: the machine is new, its name is not. */
function checkAddress(
  draft: Draft,
  id: number,
  address: string,
  replaced?: number,
): RefusedChange | undefined {
  if (address.length === 0 || address.length > addressCharactersMax) {
    return refuse(
      "bad_request",
      `Node ${id} needs an address host:port of at most ${addressCharactersMax} characters.`,
    );
  }
  for (const [other, held] of draft.addresses) {
    if (held === address && other !== id && other !== replaced)
      return refuse("member_exists", `${address} is the address of node ${other}.`);
  }
  return undefined;
}

/** Nobody is counted otherwise for it, so one step is enough. */
function moveMember(draft: Draft, id: number, address: string): RefusedChange | undefined {
  if (!isMember(draft, id)) return unknown(id);
  const refusal = checkAddress(draft, id, address);
  if (refusal === undefined) draft.addresses.set(id, address);
  return refusal;
}

function otherFolder(draft: Draft, id: number): RefusedChange {
  const by = freeId(draft);
  return refuse(
    "member_exists",
    `Node ${id} is a member with another data folder. Should that one be lost: \`barge member replace ${id} --by ${by}=HOST:PORT\`, and start the new node with --node-id ${by} --join and an empty folder.`,
  );
}

function bindMember(draft: Draft, id: number, incarnation: string): RefusedChange | undefined {
  if (!isMember(draft, id)) return unknown(id);
  const bound = draft.incarnations.get(id);
  if (bound !== undefined && bound !== incarnation) return otherFolder(draft, id);
  draft.incarnations.set(id, incarnation);
  return undefined;
}

function promoteMember(draft: Draft, id: number): RefusedChange | undefined {
  if (!isMember(draft, id)) return unknown(id);
  if (draft.learners.has(id) && !draft.promotions.has(id)) draft.promotions.set(id, 0);
  return undefined;
}

function demoteMember(draft: Draft, id: number): RefusedChange | undefined {
  if (!isMember(draft, id)) return unknown(id);
  draft.voters.delete(id);
  draft.learners.add(id);
  draft.promotions.delete(id);
  return undefined;
}

function replaceMember(draft: Draft, id: number, by: Identity): RefusedChange | undefined {
  if (id === by.id) {
    return refuse(
      "bad_request",
      `Node ${id} cannot replace itself: a node that lost its data comes back under another id; ${freeId(draft)} is free.`,
    );
  }
  // It is done already.
  const isSame = draft.addresses.get(by.id) === by.address;
  if (draft.removed.has(id) && isMember(draft, by.id) && isSame) return undefined;
  if (!isMember(draft, id)) return unknown(id);
  if (draft.learners.has(id)) {
    const refusal = addMember(draft, by, draft.promotions.get(id), id);
    if (refusal === undefined) removeMember(draft, id);
    return refusal;
  }
  if (draft.voters.has(by.id))
    return refuse("member_exists", `Node ${by.id} is a voter already; remove node ${id} instead.`);
  const other = draft.promotions.get(by.id) ?? 0;
  if (other !== 0 && other !== id)
    return refuse("member_exists", `Node ${by.id} is about to replace node ${other}.`);
  return addMember(draft, by, id);
}

/** A voter is among the removed only once it no longer votes; nobody waits any more to take the place of one who is gone. */
function removeMember(draft: Draft, id: number): void {
  draft.learners.delete(id);
  draft.promotions.delete(id);
  draft.voters.delete(id);
  if (!draft.before.includes(id)) draft.removed.add(id);
  for (const [learner, place] of draft.promotions)
    if (place === id) draft.promotions.set(learner, 0);
}

function unknown(id: number): RefusedChange {
  return refuse("unknown_member", `Node ${id} is not a member of this group.`);
}

function isMember({ voters, learners }: Draft, id: number): boolean {
  return voters.has(id) || learners.has(id);
}

function freeId({ voters, learners, removed }: Draft): number {
  return Math.max(...voters, ...learners, ...removed) + 1;
}

function draftOf(current: Configuration): Draft {
  return {
    before: current.voters,
    voters: new Set(current.voters),
    learners: new Set(current.learners),
    promotions: mapOf(current.promotions),
    removed: new Set(current.removed),
    incarnations: mapOf(current.incarnations),
    addresses: mapOf(current.addresses),
  };
}

/** Joint where the voters are not those of before. Whoever is no member loses its address. */
function finish(draft: Draft): Configuration {
  const voters = ascending(draft.voters);
  const learners = ascending(draft.learners);
  const outgoing = sameIds(voters, draft.before) ? [] : draft.before;
  const members = new Set([...voters, ...learners, ...outgoing]);
  const { promotions, removed } = draft;
  const incarnations = recordOf(draft.incarnations, members);
  return {
    voters,
    outgoing,
    learners,
    addresses: recordOf(draft.addresses, members),
    ...(Object.keys(incarnations).length > 0 ? { incarnations } : {}),
    ...(removed.size > 0 ? { removed: ascending(removed) } : {}),
    ...(promotions.size > 0 ? { promotions: Object.fromEntries(promotions) } : {}),
  };
}

function mapOf<T>(record: Readonly<Record<number, T>> = {}): Map<number, T> {
  return new Map(Object.entries(record).map(([id, value]) => [Number(id), value]));
}

function recordOf<T>(map: ReadonlyMap<number, T>, members: ReadonlySet<number>): Record<number, T> {
  return Object.fromEntries([...map].filter(([id]) => members.has(id)));
}

function sameIds(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((id, at) => id === b[at]);
}

function ascending(ids: ReadonlySet<number>): number[] {
  return [...ids].sort((a, b) => a - b);
}

/**
 * Makes the members of the groups that this node leads what the registry says, and those of `system` what the cluster's are: new ones come as learners and vote once they
 * have caught up; only then the others go. Looks now and then, and costs next to nothing where all is as it should be.
 *
 * A leader acts only on what it has read, through a quorum, since it leads: what an earlier one has done meanwhile it then knows of.
 */
import { isJoint } from "../raft/configuration.ts";
import { type MemberChange, votersMax } from "../raft/membership.ts";
import type { Configuration } from "../raft/ready.ts";
import { Consistency } from "../wire/messages.ts";
import { defaultGroup, type GroupMember, systemGroup } from "../wire/registry.ts";
import type { Group } from "./group.ts";
import { Places, type PlacesOptions } from "./places.ts";
import type { SettledGroup } from "./registry-changes.ts";
import { systemMembers } from "./system-members.ts";

export interface WantedMembers {
  readonly voters: readonly Pick<GroupMember, "id" | "incarnation" | "aboveTerm">[];
  readonly learners: readonly Pick<GroupMember, "id" | "incarnation">[];
}

/**
 * The next change on the way from a configuration that is committed to these members; none where they are its members, or where what is under way has to come to
 * its end first.
 */
export function changesToward(current: Configuration, wanted: WantedMembers): MemberChange[] {
  const { voters, learners, promotions = {} } = current;
  const coming: MemberChange[] = [];
  let room = votersMax - voters.length - Object.keys(promotions).length;
  const isFull = room <= 0;
  for (const { id, incarnation } of wanted.voters) {
    if (voters.includes(id) || promotions[id] !== undefined || room-- <= 0) continue;
    coming.push(learners.includes(id) ? { op: "promote", id } : added(id, incarnation, false));
  }
  for (const { id, incarnation } of wanted.learners) {
    if (!voters.includes(id) && !learners.includes(id)) coming.push(added(id, incarnation, true));
  }
  if (coming.length > 0) return coming;
  const isWaiting = wanted.voters.some(({ id }) => !voters.includes(id));
  if (isWaiting && !(isFull && Object.keys(promotions).length === 0)) return [];
  const going = goingFrom(current, wanted);
  // With no room for those who come, one of those who go makes it.
  return isWaiting ? going.slice(0, 1) : going;
}

function goingFrom({ voters, learners }: Configuration, wanted: WantedMembers): MemberChange[] {
  const votes = new Set(wanted.voters.map(({ id }) => id));
  const learns = new Set(wanted.learners.map(({ id }) => id));
  const going: MemberChange[] = [];
  for (const id of voters) {
    if (!votes.has(id)) going.push({ op: learns.has(id) ? "demote" : "remove", id });
  }
  for (const id of learners) {
    if (!votes.has(id) && !learns.has(id)) going.push({ op: "remove", id });
  }
  return going;
}

/** Where a node is reached group 0 alone says; here each has an address that is nobody else's. */
export function placeholderAddress(id: number): string {
  return `node-${id}`;
}

function added(id: number, incarnation: string, learner: boolean): MemberChange {
  return { op: "add", id, address: placeholderAddress(id), learner, incarnation, returns: true };
}

export interface GroupMembersOptions extends PlacesOptions {
  readonly ids: () => Iterable<number>;
  /** What is known of a node of the cluster; undefined while it has not joined. */
  readonly incarnationOf: (id: number) => string | undefined;
  /** Tells the registry; `done` later, with whether it went well or not. */
  readonly settle: (settled: readonly SettledGroup[], done: () => void) => void;
  /** How long a read through a quorum may take. */
  readonly readTimeoutMs: number;
}

/** Told to the registry at once. */
const settledPerMessage = 64;
/** Between two times that leadership is given up for the sake of a new term. */
const newTermEveryMs = 2_000;

/** What holds while nothing of this changes. */
interface Settled {
  readonly version: number;
  readonly configurationIndex: number;
}

export class GroupMembers {
  readonly #options: GroupMembersOptions;
  /** By group, the term in which what this leader knows was read. */
  readonly #readIn = new Map<number, number>();
  readonly #settled = new Map<number, Settled>();
  readonly #newTermMs = new Map<number, number>();
  /** Of nodes in the cluster. */
  readonly places: Places;
  #unread: { readonly id: number; readonly term: number }[] = [];
  #isReading = false;
  #isTelling = false;

  constructor(options: GroupMembersOptions) {
    this.#options = options;
    this.places = new Places(options);
  }

  /** Some times a second. */
  step(nowMs: number): void {
    const told: SettledGroup[] = [];
    for (const id of this.#options.ids()) {
      if (id === defaultGroup) continue;
      const group = this.#options.group(id);
      if (group === undefined || group.stopped !== undefined || group.raft.role !== "leader") {
        continue;
      }
      const settled = id === systemGroup ? undefined : this.#lookAt(group, nowMs);
      if (id === systemGroup) this.#lookAtSystem(group, nowMs);
      if (settled !== undefined && told.length < settledPerMessage) told.push(settled);
    }
    this.places.step(nowMs);
    this.#tell(told);
    this.#read(nowMs);
  }

  /** The group is not here any more. */
  forget(id: number): void {
    this.#readIn.delete(id);
    this.#settled.delete(id);
    this.#newTermMs.delete(id);
  }

  #lookAt(group: Group, nowMs: number): SettledGroup | undefined {
    const { id, raft } = group;
    const found = this.#options.view.group(id);
    if (found === undefined) return undefined;
    const { members, leaving, version } = found.entry;
    const settled = this.#settled.get(id);
    const { configurationIndex } = raft;
    const isSettled =
      settled?.version === version && settled.configurationIndex === configurationIndex;
    if (isSettled) return undefined;
    if (!raft.configurationCommitted || isJoint(raft.configuration)) return undefined;
    if (!this.#hasRead(group)) return undefined;
    const wanted = { voters: members, learners: [] };
    const changes = changesToward(raft.configuration, wanted);
    if (changes.length > 0) {
      this.#change(group, changes, members, nowMs);
      return undefined;
    }
    if (!isJust(raft.configuration, members)) return undefined;
    if (leaving.length > 0) return { id, version, term: raft.term };
    this.#settled.set(id, { version, configurationIndex });
    return undefined;
  }

  #lookAtSystem(group: Group, nowMs: number): void {
    const { raft } = group;
    const cluster = this.#options.group(defaultGroup);
    if (cluster === undefined || !cluster.raft.configurationCommitted) return;
    const { configuration } = cluster.raft;
    if (isJoint(configuration) || isJoint(raft.configuration)) return;
    if (!raft.configurationCommitted || !this.#hasRead(group)) return;
    const { view, incarnationOf } = this.#options;
    const current = raft.configuration;
    const wanted = systemMembers({ cluster: configuration, current, view, incarnationOf });
    const changes = changesToward(current, wanted);
    if (changes.length > 0) this.#change(group, changes, [], nowMs);
  }

  #change(
    group: Group,
    changes: readonly MemberChange[],
    members: WantedMembers["voters"],
    nowMs: number,
  ): void {
    const { id, raft } = group;
    const added = new Set(changes.filter(({ op }) => op === "add").map((change) => change.id));
    const isOld = members.some(
      ({ id: node, aboveTerm }) => added.has(node) && raft.term <= (aboveTerm ?? 0),
    );
    if (!isOld) {
      // Refused, it is tried again.
      group.proposeChanges(changes, false, nowMs);
      group.touch();
      return;
    }
    if (nowMs - (this.#newTermMs.get(id) ?? -Infinity) < newTermEveryMs) return;
    this.#newTermMs.set(id, nowMs);
    group.touch();
    group.giveUpTerm("a former member returns, and what it said in this term must not count");
  }

  #hasRead(group: Group): boolean {
    const { id, raft } = group;
    if (this.#readIn.get(id) === raft.term) return true;
    this.#unread.push({ id, term: raft.term });
    return false;
  }

  #read(nowMs: number): void {
    const wanted = this.#unread;
    this.#unread = [];
    if (wanted.length === 0 || this.#isReading) return;
    this.#isReading = true;
    const deadlineMs = nowMs + this.#options.readTimeoutMs;
    const ended = (): void => void (this.#isReading = false);
    // Of both, as one of the groups may be `system`.
    this.#readOne(defaultGroup, deadlineMs, ended, () => {
      const done = (): void => {
        ended();
        for (const { id, term } of wanted) this.#readIn.set(id, term);
      };
      this.#readOne(systemGroup, deadlineMs, ended, done);
    });
  }

  #readOne(id: number, deadlineMs: number, failed: () => void, done: () => void): void {
    const group = this.#options.group(id);
    if (group === undefined) return failed();
    group.read(Consistency.linearizable, 0, deadlineMs, {
      ready: () => {
        if (id === systemGroup) this.#options.view.refresh(group.machine);
        done();
      },
      failed,
    });
  }

  #tell(settled: readonly SettledGroup[]): void {
    if (settled.length === 0 || this.#isTelling) return;
    this.#isTelling = true;
    this.#options.settle(settled, () => {
      this.#isTelling = false;
    });
  }
}

function isJust({ voters, learners }: Configuration, members: WantedMembers["voters"]): boolean {
  return learners.length === 0 && voters.length === members.length;
}

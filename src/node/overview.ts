/**
 * All groups of a node at a glance: the part of its status that was asked for, and who leads what. Bounded and cheap for a thousand groups: in full only those
 * that are asked for, of the others a line or a count.
 */
import type { KnownGroups } from "../server/group-followers.ts";
import type { GroupLeader } from "../wire/group-leaders.ts";
import { systemGroup } from "../wire/registry.ts";
import {
  type GroupBrief,
  type GroupsSummary,
  type NodeStatus,
  statusGroups,
  type StatusRequest,
} from "../wire/status.ts";
import { limitOf } from "../wire/status-request.ts";
import type { Group } from "./group.ts";
import type { RegistryView } from "./registry-view.ts";

export interface OverviewOptions {
  /** Those of this node. */
  readonly groups: ReadonlyMap<number, Group>;
  /** Undefined where there is no registry yet. */
  readonly registry: () => RegistryView | undefined;
  /** A group with more state than this is larger than it should be; 0 = none is. */
  readonly largeBytes: number;
}

const suspectsMax = 16;
/** Of the bound: below that it is not large any more. */
const smallAgain = 0.9;

export class Overview implements KnownGroups {
  readonly #options: OverviewOptions;
  readonly #toldLarge = new Set<number>();

  constructor(options: OverviewOptions) {
    this.#options = options;
  }

  /* ---------------------------------------------------------------- status */

  status(
    request: StatusRequest,
  ): Pick<NodeStatus, "groups" | "briefs" | "more"> & { readonly summary: GroupsSummary } {
    const { asked, more } = this.#page(request);
    const summary = this.summary();
    const rest = more ? { more: true as const, summary } : { summary };
    if (request.brief === true) {
      return { groups: [], briefs: asked.map((group) => group.brief()), ...rest };
    }
    return { groups: asked.map((group) => group.status()), ...rest };
  }

  #page({ groups: wanted, after, ...request }: StatusRequest): { asked: Group[]; more: boolean } {
    const { groups } = this.#options;
    if (wanted !== undefined) {
      const asked = wanted.slice(0, statusGroups.max).flatMap((id) => groups.get(id) ?? []);
      return { asked, more: false };
    }
    const ids = this.ids.filter((id) => after === undefined || id > after);
    const limit = limitOf(request);
    return { asked: ids.slice(0, limit).map((id) => groups.get(id)!), more: ids.length > limit };
  }

  /** Rising. */
  get ids(): number[] {
    return [...this.#options.groups.keys()].sort((a, b) => a - b);
  }

  summary(): GroupsSummary {
    const counts = { total: 0, leads: 0, leaderless: 0, stopped: 0, wounded: 0, large: 0 };
    const sums = { logBytes: 0, stateBytes: 0 };
    const suspects: number[] = [];
    for (const group of this.#options.groups.values()) {
      const brief = group.brief();
      const isSuspect = count(counts, brief, this.#options.largeBytes);
      if (isSuspect) suspects.push(brief.id);
      sums.logBytes += brief.logBytes;
      sums.stateBytes += brief.stateBytes;
    }
    suspects.sort((a, b) => a - b).splice(suspectsMax);
    return { ...counts, ...sums, suspects };
  }

  /** Groups that have become larger than they should be since the last call; one that hovers about the bound is told once. */
  newlyLarge(): GroupBrief[] {
    const { groups, largeBytes } = this.#options;
    if (largeBytes === 0) return [];
    const found: GroupBrief[] = [];
    for (const [id, group] of groups) {
      const { stateBytes } = group;
      if (stateBytes > largeBytes && !this.#toldLarge.has(id)) {
        this.#toldLarge.add(id);
        found.push(group.brief());
      } else if (stateBytes < largeBytes * smallAgain) this.#toldLarge.delete(id);
    }
    return found;
  }

  /* ---------------------------------------------------------------- who leads what */

  get version(): number {
    return this.#options.registry()?.index ?? 0;
  }

  leaderOf(id: number): GroupLeader | undefined {
    const group = this.#options.groups.get(id);
    const entry = this.#options.registry()?.group(id)?.entry;
    if (group === undefined && entry === undefined) return undefined;
    const members = entry?.members.map((member) => member.id) ?? group!.memberIds;
    return {
      group: id,
      leader: group?.leader ?? 0,
      term: group?.raft.term ?? 0,
      members,
      gone: false,
    };
  }

  all(): readonly GroupLeader[] {
    const ids = new Set(this.#options.groups.keys());
    for (const id of this.#options.registry()?.groups.keys() ?? []) ids.add(id);
    return [...ids].map((id) => this.leaderOf(id)!);
  }
}

type Counts = {
  -readonly [Name in "total" | "leads" | "leaderless" | "stopped" | "wounded" | "large"]: number;
};

/** True where somebody should have a look at it. */
function count(counts: Counts, brief: GroupBrief, largeBytes: number): boolean {
  const { id, role, leader, wounded, waits, stateBytes } = brief;
  // It is the nodes' own.
  if (id !== systemGroup) {
    counts.total++;
    if (role === "leader") counts.leads++;
  }
  const isLarge = largeBytes > 0 && stateBytes > largeBytes;
  if (isLarge) counts.large++;
  if (role === "stopped") counts.stopped++;
  else if (leader === 0) counts.leaderless++;
  if (wounded === true) counts.wounded++;
  const isOut = role === "stopped" || leader === 0 || waits === true;
  return isLarge || isOut || wounded === true;
}

/**
 * What keeps a node from being of use, in words. Group 0 always counts. Other groups, and `system`, count while the node starts, so that who restarts one node after the
 * other waits for all of it; later a group that stands still is its own trouble, and no reason to send nobody here: status and metrics tell of it.
 */
import { defaultGroup } from "../wire/registry.ts";
import type { Group } from "./group.ts";

export interface ReadinessOptions {
  readonly nodeId: number;
  readonly groups: ReadonlyMap<number, Group>;
  readonly connected: (nodeId: number) => boolean;
  /** Groups that the log has, and that wait for the registry to say what they are. */
  readonly unopened?: () => number;
  /** Why a group that is wounded is not of use. */
  readonly woundText: (group: Group) => string;
}

/** So long the other groups are waited for: one may have lost its majority for good. */
const startMsMax = 30_000;
/** The rest is counted. */
const toldMax = 10;

export class Readiness {
  readonly #options: ReadinessOptions;
  readonly #startedMs: number;
  #wasReady = false;

  constructor(options: ReadinessOptions, nowMs: number) {
    this.#options = options;
    this.#startedMs = nowMs;
  }

  /** Empty where nothing is missing; `only`: to that group. */
  missing(nowMs: number, only?: number): string[] {
    if (only !== undefined) {
      const group = this.#options.groups.get(only);
      return group === undefined ? [`this node has no group ${only}`] : this.#missingOf(group);
    }
    const isStarting = !this.#wasReady && nowMs - this.#startedMs < startMsMax;
    const missing: string[] = [];
    let untold = 0;
    for (const group of this.#options.groups.values()) {
      if (!isStarting && group.id !== defaultGroup) continue;
      const why = this.#missingOf(group);
      if (why.length === 0) continue;
      if (missing.length < toldMax) missing.push(...why);
      else untold++;
    }
    const unopened = isStarting ? (this.#options.unopened?.() ?? 0) : 0;
    if (unopened > 0) missing.push(`${unopened} groups are still to be opened`);
    if (untold > 0) missing.push(`and ${untold} groups more`);
    return missing;
  }

  /** From then on a group lags only as far as the load makes it. */
  ready(): void {
    this.#wasReady = true;
  }

  #missingOf(group: Group): string[] {
    const { id, leader, raft, isStopped } = group;
    const missing = raft.wound === undefined ? [] : [this.#options.woundText(group)];
    const { absence } = group.machine;
    if (absence !== undefined) {
      missing.push(`group ${id} waits for its application: ${absence.reason}`);
    }
    if (isStopped) missing.push(`group ${id} stopped`);
    else if (leader === 0) missing.push(`group ${id} has no leader`);
    else if (leader !== this.#options.nodeId && !this.#options.connected(leader)) {
      missing.push(`group ${id}: no connection to its leader, node ${leader}`);
    } else if (!this.#wasReady && group.toApply > 0) {
      missing.push(`group ${id} has ${group.toApply} committed commands to apply`);
    }
    return missing;
  }
}

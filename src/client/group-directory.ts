/**
 * What a client knows of the groups of the cluster: which there are, on which nodes, and who leads them. Nodes may lag behind each other, so of a
 * leader the highest term counts, and of the groups and their members the newest state of the registry. Pure.
 */
import type { GroupLeader, GroupLeaders } from "../wire/group-leaders.ts";

interface Known {
  term: number;
  /** Node id; 0 = unknown. */
  leader: number;
  /** Nodes that have a copy; empty = not known. */
  members: readonly number[];
  /** Of the registry, as whoever said so had it. */
  version: number;
}

const anywhere: readonly number[] = [];

export class GroupDirectory {
  readonly #groups = new Map<number, Known>();
  /** The newest state of the registry that anybody has told. */
  #version = -1;

  get size(): number {
    return this.#groups.size;
  }

  get ids(): number[] {
    return [...this.#groups.keys()];
  }

  /** Some node has told that there is such a group. */
  isListed(group: number): boolean {
    return (this.#groups.get(group)?.version ?? -1) >= 0;
  }

  leaderOf(group: number): number {
    return this.#groups.get(group)?.leader ?? 0;
  }

  /** False only for a node that surely has no copy. */
  mayServe(group: number, nodeId: number): boolean {
    const members = this.#groups.get(group)?.members ?? anywhere;
    return members.length === 0 || nodeId === 0 || members.includes(nodeId);
  }

  /** A leader without a term is believed where none is known. True where that is news. */
  guess(group: number, leader: number): boolean {
    if (leader === 0 || this.leaderOf(group) !== 0) return false;
    this.#entry(group).leader = leader;
    return true;
  }

  /** True where that is news. */
  led(group: number, term: number, leader: number): boolean {
    const known = this.#entry(group);
    if (term < known.term || leader === 0) return false;
    const isNews = term > known.term || leader !== known.leader;
    known.term = term;
    known.leader = leader;
    return isNews;
  }

  /** The ids of the groups of which it said something new. */
  take({ whole, version, groups }: GroupLeaders): number[] {
    const changed: number[] = [];
    const said = new Set<number>();
    for (const each of groups) {
      said.add(each.group);
      if (this.#takeOne(version, each)) changed.push(each.group);
    }
    for (const [group, known] of whole ? this.#groups : []) {
      // Who tells of one group alone says nothing of the others.
      if (said.has(group) || group === 0 || known.version > version) continue;
      this.#groups.delete(group);
      changed.push(group);
    }
    this.#version = Math.max(this.#version, version);
    return changed;
  }

  #takeOne(version: number, { group, term, leader, members, gone }: GroupLeader): boolean {
    const known = this.#groups.get(group);
    if (gone) {
      if (known === undefined || known.version > version) return false;
      return this.#groups.delete(group);
    }
    // Of a group that the newest state does not have it is no news that an older one has it.
    if (known === undefined && version < this.#version) return false;
    const entry = known ?? this.#entry(group);
    let isNews = known === undefined;
    if (version >= entry.version) {
      isNews ||= String(members) !== String(entry.members);
      entry.version = version;
      entry.members = members;
    }
    return this.led(group, term, leader) || isNews;
  }

  #entry(group: number): Known {
    let known = this.#groups.get(group);
    if (known === undefined) {
      known = { term: 0, leader: 0, members: anywhere, version: -1 };
      this.#groups.set(group, known);
    }
    return known;
  }
}

/**
 * Clients that want to know who leads which group: each is told all of it once, and then what changes, with the end of the turn in which it did. Whoever does
 * not read is told nothing, and all of it again once he does: so what lies in a connection's queue is at most one whole list, and what came until it was full.
 */
import type { Connection } from "../net/connection.ts";
import {
  encodeGroupLeaders,
  type FollowGroups,
  type GroupLeader,
  type GroupLeaders,
} from "../wire/group-leaders.ts";

/** What this node knows of the groups of the cluster, those among them that it has no copy of. */
export interface KnownGroups {
  /** Log index in `system` up to which the registry is known; 0 = there is none. */
  readonly version: number;
  /** Undefined where there is no such group. */
  leaderOf(group: number): GroupLeader | undefined;
  all(): readonly GroupLeader[];
}

export interface Follower {
  readonly connection: Connection;
  /** Undefined while it wants to be told nothing. */
  follows: FollowGroups | undefined;
  /** It could not be told, and gets all of it again. */
  leadersDue: boolean;
}

export interface FollowersOptions<F extends Follower> {
  readonly known: () => KnownGroups;
  readonly hasRoom: (connection: Connection) => boolean;
  /** There is something in its connection's send buffer. */
  readonly sent: (follower: F) => void;
}

export class GroupFollowers<F extends Follower> {
  readonly #options: FollowersOptions<F>;
  readonly #followers = new Set<F>();
  readonly #changed = new Set<number>();

  constructor(options: FollowersOptions<F>) {
    this.#options = options;
  }

  get size(): number {
    return this.#followers.size;
  }

  follow(follower: F, groups: FollowGroups): void {
    follower.follows = groups;
    this.#followers.add(follower);
    this.tellAll(follower);
  }

  forget(follower: F): void {
    this.#followers.delete(follower);
  }

  /** Another leads the group, its members are others, it has come or gone. */
  changed(group: number): void {
    if (this.#followers.size > 0) this.#changed.add(group);
  }

  /** The end of a turn. */
  flush(): void {
    if (this.#changed.size === 0) return;
    const known = this.#options.known();
    const groups = [...this.#changed].map((group) => known.leaderOf(group) ?? gone(group));
    this.#changed.clear();
    const byId = new Map(groups.map((each) => [each.group, each]));
    for (const follower of this.#followers) {
      const { all, group } = follower.follows!;
      const one = all ? undefined : byId.get(group);
      if (!all && one === undefined) continue;
      const news = one === undefined ? groups : [one];
      this.#tell(follower, { version: known.version, whole: false, groups: news });
    }
  }

  /** All that it follows. */
  tellAll(follower: F): void {
    if (follower.follows === undefined) return;
    const { all, group } = follower.follows;
    const known = this.#options.known();
    const one = all ? undefined : known.leaderOf(group);
    const groups = all ? known.all() : one === undefined ? [] : [one];
    follower.leadersDue = false;
    this.#tell(follower, { version: known.version, whole: true, groups });
  }

  #tell(follower: F, leaders: Omit<GroupLeaders, "type">): void {
    // What changed is in the whole list that it gets then.
    if (follower.leadersDue) return;
    const { connection } = follower;
    if (!this.#options.hasRoom(connection)) {
      follower.leadersDue = true;
      return;
    }
    encodeGroupLeaders(connection.out, leaders);
    this.#options.sent(follower);
  }
}

function gone(group: number): GroupLeader {
  return { group, leader: 0, term: 0, members: [], gone: true };
}

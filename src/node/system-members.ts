/**
 * Who is to be a member of `system`: the cluster's members, but for those that are about to leave it. Those go from here first, as they end once the cluster has let them
 * go; yet not while a group needs them, because who is out of `system` does not hear any more where its groups are to be. Pure.
 */
import { membersOf } from "../raft/configuration.ts";
import type { Configuration } from "../raft/ready.ts";
import { departureProblem } from "./departures.ts";
import type { WantedMembers } from "./group-members.ts";
import { placesTaken } from "./places.ts";
import type { RegistryView } from "./registry-view.ts";

export interface SystemSurroundings {
  /** Of group 0, committed. */
  readonly cluster: Configuration;
  /** Of `system` now. */
  readonly current: Configuration;
  readonly view: RegistryView;
  /** What is known of a node of the cluster; undefined while it has not joined. */
  readonly incarnationOf: (id: number) => string | undefined;
}

export function systemMembers({
  cluster,
  current,
  view,
  incarnationOf,
}: SystemSurroundings): WantedMembers {
  const here = new Set(membersOf(current));
  const mayGo = (id: number): boolean =>
    view.isGoing(id) &&
    departureProblem(view, id, (node) => cluster.addresses[node] !== undefined) === undefined;
  // Who has not joined yet has no folder that a replica could be in.
  const known = (id: number): WantedMembers["voters"] => {
    // It has gone already. Where it was let go, stayed after all, and is to go once more, a group may have come to it meanwhile: then it is back until that is elsewhere.
    if (!here.has(id) && mayGo(id)) return [];
    const incarnation = cluster.incarnations?.[id] ?? incarnationOf(id);
    return incarnation === undefined && !here.has(id)
      ? []
      : [{ id, incarnation: incarnation ?? "" }];
  };
  // Who is to vote there votes here as soon as it can too: a cluster that has just grown must not have a registry on fewer nodes for longer than need be.
  const isComing = (id: number): boolean => cluster.promotions?.[id] !== undefined;
  const coming = cluster.learners.filter(isComing);
  const comes = (id: number): boolean => known(id).length > 0;
  const taken = [...placesTaken(cluster, comes)].filter(mayGo);
  const staying = (ids: readonly number[]): WantedMembers["voters"] =>
    ids.filter((id) => !taken.includes(id)).flatMap(known);
  return {
    voters: staying([...cluster.voters, ...coming]),
    learners: staying(cluster.learners.filter((id) => !isComing(id))),
  };
}

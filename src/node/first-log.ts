/** What a replica begins with that the registry makes: the group's own first log, or none where others have gone on meanwhile. */
import type { Configuration } from "../raft/ready.ts";
import type { Founder, GroupMember, RegistryEntry } from "../wire/registry.ts";
import { emptyLog, type FirstLog, type Founding, foundingLog } from "./bootstrap.ts";
import { placeholderAddress } from "./group-members.ts";

/** `isThis` tells which member this node is, in this folder. */
export function firstLogOf(
  { members, leaving, founders, applyVersion }: RegistryEntry,
  place: Omit<Founding, "configuration" | "applyVersion">,
  isThis: (member: GroupMember) => boolean,
): FirstLog {
  const isFounder = [...members, ...leaving].some((member) => isThis(member) && member.since === 1);
  const { aboveTerm = -1 } = members.find(isThis) ?? {};
  // Who was a member before has forgotten what it said, and answers no leader of then: the last of these may lead yet, and tell it that it has left.
  if (!isFounder) return emptyLog(place, aboveTerm + 1);
  return foundingLog({ ...place, configuration: foundingConfiguration(founders), applyVersion });
}

/** The configuration of a group's first log. */
export function foundingConfiguration(founders: readonly Founder[]): Configuration {
  return {
    voters: founders.map(({ id }) => id).toSorted((a, b) => a - b),
    outgoing: [],
    learners: [],
    addresses: Object.fromEntries(founders.map(({ id }) => [id, placeholderAddress(id)])),
    incarnations: Object.fromEntries(founders.map(({ id, incarnation }) => [id, incarnation])),
  };
}

/** What is under way, one line each: `barge status` says it below its table, `barge member add --wait` of those that it waits for. */
import type { MemberEntry, NodeStatus } from "../client/index.ts";

type Group = NodeStatus["groups"][number];

/** `size`: bytes for people. */
export function notesOn(
  nodeId: number,
  group: Group,
  size: (bytes: number) => string,
): readonly string[] {
  const notes: string[] = [];
  const { handOver, snapshots, wounded, applyVersion = 1, applyVersionWaitsFor } = group;
  if (handOver !== undefined) notes.push(handOverNote(nodeId, handOver));
  for (const { to, index, sentBytes, bytes } of snapshots?.sending ?? []) {
    if (bytes === 0) notes.push(`node ${nodeId} prepares a snapshot for node ${to}`);
    else
      notes.push(
        `node ${nodeId} sends a snapshot as of ${index} to node ${to}: ${shareOf(sentBytes, bytes)} of ${size(bytes)}`,
      );
  }
  const receiving = snapshots?.receiving;
  if (receiving !== undefined) {
    const { from, index, receivedBytes, bytes } = receiving;
    notes.push(
      `node ${nodeId} receives a snapshot as of ${index} from node ${from}: ${shareOf(receivedBytes, bytes)} of ${size(bytes)}`,
    );
  }
  for (const { id, address, dialsIn } of group.role === "leader" ? group.members : []) {
    if (dialsIn === true) {
      notes.push(
        `node ${id} is reached over its own connection: nobody answers for it at ${address}`,
      );
    }
  }
  if (applyVersionWaitsFor !== undefined) {
    const nodes = applyVersionWaitsFor.join(", ");
    notes.push(
      `group ${group.id} applies version ${applyVersion}; a newer one waits for ${nodes}: upgrade or start what is missing`,
    );
  }
  if (group.application !== undefined) {
    const { waitsFor, forSeconds } = group.application;
    const since = forSeconds === undefined ? "" : `, for ${forSeconds} s now`;
    notes.push(`node ${nodeId} waits for its application${since}: ${waitsFor}`);
  }
  if (wounded !== undefined) {
    notes.push(
      `node ${nodeId} lost durable data and heals from the leader: it has ${group.lastIndex} of ${wounded.index}, and does not vote until then`,
    );
  }
  return notes;
}

/** Why a voter that comes for another one does not vote yet, however far it is; undefined where it only has to catch up. */
export function keptPlaceNote({
  id,
  replaces,
  promotionWaitsFor,
}: MemberEntry): string | undefined {
  if (promotionWaitsFor === undefined) return undefined;
  if (promotionWaitsFor === "groups") {
    return `node ${id} takes the place of node ${replaces} once no group would be lost with that node: they go to other nodes by themselves, where there are any; if it stays so, bring node ${replaces} back, move them (barge group list, barge group move), or force the replacement`;
  }
  return `node ${id} takes the place of node ${replaces} once the group system, which keeps the registry, does without that node; if it stays so, an older build leads that group, or a majority of its members does not answer: upgrade the one, bring back the others`;
}

/** How far a new voter has come, on the way to the leader's `commitIndex`. */
export function catchUpNote(
  member: MemberEntry,
  commitIndex: number,
  size: (bytes: number) => string,
): string {
  const { id, matchIndex = 0, bound, connected, snapshot } = member;
  if (snapshot !== undefined) {
    const { sentBytes, bytes } = snapshot;
    if (bytes === 0) return `node ${id} is about to get a snapshot`;
    return `node ${id} gets a snapshot: ${shareOf(sentBytes, bytes)} of ${size(bytes)}`;
  }
  if (!bound) return `node ${id} has not joined yet: start it with --node-id ${id} --join`;
  if (!connected) return `node ${id} is not connected`;
  const kept = matchIndex < commitIndex ? undefined : keptPlaceNote(member);
  return kept ?? `node ${id} catches up: ${matchIndex} of ${commitIndex}`;
}

function handOverNote(nodeId: number, handOver: NonNullable<Group["handOver"]>): string {
  const { to, reason, state, secondsAgo } = handOver;
  const why = `: ${reason}`;
  if (state === "under way") return `node ${nodeId} hands leadership over to node ${to}${why}`;
  if (state === "done")
    return `node ${nodeId} handed leadership over to node ${to} ${secondsAgo} s ago${why}`;
  return `node ${nodeId} tried to hand leadership over to node ${to} ${secondsAgo} s ago, which did not take over in time${why}`;
}

export function shareOf(part: number, whole: number): string {
  return `${whole === 0 ? 100 : Math.floor((100 * part) / whole)} %`;
}

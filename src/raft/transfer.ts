/**
 * Leadership transfer (dissertation 3.10): whom a leader can hand over to, and the hand-over that is under way. While it is, the leader
 * proposes nothing; the target may campaign once it has the leader's whole log durably (E8), and if it does not lead within the
 * shortest election time-out, the leader goes on as before.
 *
 * The target asks no pre-vote, and its votes say that the leader wants it, so that neither pre-vote nor the voters' loyalty to a living
 * leader stands against it. All else that makes an election safe holds: its own vote is durable first, and voters compare logs.
 */
import type { Limits } from "../limits.ts";
import { membersOf } from "./configuration.ts";
import type { Progress } from "./progress.ts";
import type { Configuration } from "./ready.ts";

/** Why leadership is not handed over; each leaves everything as it was. */
export type TransferRefusal =
  /** This node does not lead. */
  | "not_leader"
  | "unknown_member"
  /** It could not lead: a learner, or a voter that a change under way removes. */
  | "not_voter"
  /** Another transfer is under way, to `target`. */
  | "under_way"
  /** Not heard within the shortest election time-out. */
  | "unreachable"
  /** So much of the log is missing there that writes would have to wait too long. */
  | "behind"
  /** Nobody was named, and nobody fits. */
  | "nobody";

export interface TransferAnswer {
  /** Who leads or will; of a refusal, whom it is about. 0 = nobody. */
  readonly target: number;
  readonly refusal: TransferRefusal | undefined;
}

export class Transfer {
  readonly target: number;
  readonly sinceTick: number;
  /** The target was told, and the message may still be on its way. */
  asked = false;

  constructor(target: number, sinceTick: number) {
    this.target = target;
    this.sinceTick = sinceTick;
  }

  expired(nowTick: number, { electionTicksMin }: Limits): boolean {
    return nowTick - this.sinceTick >= electionTicksMin;
  }
}

export interface TransferView {
  readonly configuration: Configuration;
  readonly peers: readonly Progress[];
  readonly nowTick: number;
  readonly limits: Limits;
  /** Bytes of the leader's log above an index. */
  bytesAbove(index: number): number;
}

export interface TargetChoice {
  readonly onlyPreferred?: boolean;
  /** Members that were asked already, and did not take over. */
  readonly avoid?: ReadonlySet<number>;
}

export const nobody: ReadonlySet<number> = new Set();

/** Why the leader cannot hand over to this member; undefined where it can. */
export function transferRefusal(view: TransferView, target: number): TransferRefusal | undefined {
  const peer = view.peers.find(({ id }) => id === target);
  // A former member may get the log for a while.
  if (peer === undefined || !membersOf(view.configuration).includes(target))
    return "unknown_member";
  if (!view.configuration.voters.includes(target)) return "not_voter";
  const { electionTicksMin, inflightBytesMax, unsyncedBytesMax } = view.limits;
  if (view.nowTick - peer.heardTick >= electionTicksMin) return "unreachable";
  // A healthy follower under full load is behind by what is in flight, or is not yet on the disks.
  const bytesMax = Math.max(inflightBytesMax, unsyncedBytesMax);
  if (peer.wounded || peer.state === "snapshot" || view.bytesAbove(peer.match) > bytesMax)
    return "behind";
  return undefined;
}

/**
 * The member that is best to hand over to: a preferred one before others, then the one that has most of the log. 0 = none fits. With `above`,
 * only one that has the log durably beyond that index.
 */
export function bestTarget(
  view: TransferView,
  above = -1,
  { onlyPreferred = false, avoid = nobody }: TargetChoice = {},
): number {
  let best: Progress | undefined;
  for (const peer of view.peers) {
    if (peer.match <= above || (onlyPreferred && !peer.preferred) || avoid.has(peer.id)) continue;
    if (transferRefusal(view, peer.id) !== undefined) continue;
    if (best === undefined || isBetter(peer, best)) best = peer;
  }
  return best?.id ?? 0;
}

function isBetter(one: Progress, other: Progress): boolean {
  if (one.preferred !== other.preferred) return one.preferred;
  return one.match > other.match;
}

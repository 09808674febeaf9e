/** The contract of the Raft core with its shell: what goes in at the start, what comes out of each turn. Types only. */
import type { Batch, HardState, LogStart } from "../wire/batch.ts";
import type { RaftMessage } from "../wire/messages.ts";

/** Members by role. Node ids ascending. */
export interface Configuration {
  readonly voters: readonly number[];
  /** Not empty = joint: the voters until now, of whom a majority is needed too until the joint state is left. */
  readonly outgoing: readonly number[];
  /** They get the log and are never counted. One that is in `outgoing` too is being demoted, and votes until the joint state is left. */
  readonly learners: readonly number[];
  /** `host:port` by node id. */
  readonly addresses: Readonly<Record<number, string>>;
  /** The data folder that a member is bound to, by node id: no other may speak, let alone vote, in its name [36]. */
  readonly incarnations?: Readonly<Record<number, string>>;
  /** Ids of former members. Never used again: whoever came under one could have forgotten a vote. */
  readonly removed?: readonly number[];
  /** Learners that become voters by themselves once they have caught up, each with the member whose place it then takes; 0 = nobody's. */
  readonly promotions?: Readonly<Record<number, number>>;
}

export type Role = "follower" | "preCandidate" | "candidate" | "leader";

export interface SoftState {
  readonly role: Role;
  /** 0 = unknown. */
  readonly leader: number;
}

export interface ReadState {
  readonly context: number;
  /** Safe to read once applied up to here. */
  readonly index: number;
  /** False: leadership could not be confirmed; the reads fail, retryable. */
  readonly ok: boolean;
}

/** A peer needs what the log no longer holds: a snapshot at or above `minIndex`, the log's start [8]. */
export interface SnapshotRequest {
  readonly to: number;
  readonly minIndex: number;
}

/** The log begins anew at the position of a snapshot, and all that it held is void. */
export interface Restore {
  readonly start: LogStart;
  /** In force at `start`. */
  readonly configuration: Configuration;
}

/**
 * Effects of a turn, to be performed in this order: `hardState`, `restore` and `append` in one transaction; only when it has committed, `messages`
 * in order; then a sync that covers the transaction, then `raft.synced(token)`. Everything in `messages` is safe to send at once: the
 * core itself keeps back what must wait for a sync (granted votes, acknowledgements, its own match) until `synced`.
 */
export interface Ready {
  /** Present when there is something to make durable (hardState, restore or append); hand it to `synced` afterwards. Rising by 1. */
  readonly token: number | undefined;
  readonly hardState: HardState | undefined;
  /** With it, and not before, the state machine goes over to the snapshot, in the same transaction by a pointer [25]. */
  readonly restore: Restore | undefined;
  /** In order; the first may supersede batches that the store has from its firstIndex on [18]. */
  readonly append: readonly Batch[];
  /** This node was wounded and is whole again; to be noted, in this transaction or later [22]. */
  readonly healed: boolean;
  readonly messages: readonly RaftMessage[];
  /** Never goes down but by `wounded`; batch end. Batches up to here may be applied. */
  readonly commit: number;
  readonly reads: readonly ReadState[];
  /** To be sent by the shell in its own time; each is asked for once, and again only after `snapshotEnded`. */
  readonly snapshots: readonly SnapshotRequest[];
  /** Present when it changed. */
  readonly softState: SoftState | undefined;
  /**
   * Present when this leader has to seal and propose this configuration now: it ends a joint state, or promotes learners that have caught up.
   * Said again some ticks later if nothing came of it.
   */
  readonly configurationDue: Configuration | undefined;
}

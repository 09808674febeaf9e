/** The contract of the Raft core with its shell: what goes in at the start, what comes out of each turn. Types only. */
import type { Batch, HardState } from "../wire/batch.ts";
import type { RaftMessage } from "../wire/messages.ts";

/** Members by role. Joint when `outgoing` is not empty. Node ids ascending. */
export interface Configuration {
  readonly voters: readonly number[];
  readonly outgoing: readonly number[];
  readonly learners: readonly number[];
  /** `host:port` by node id. */
  readonly addresses: Readonly<Record<number, string>>;
  /** The data folder that a member is bound to, by node id: no other may speak, let alone vote, in its name [36]. */
  readonly incarnations?: Readonly<Record<number, string>>;
  /** Ids of former members. Never used again: whoever came under one could have forgotten a vote. */
  readonly removed?: readonly number[];
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

/**
 * Effects of a turn, to be performed in this order: `hardState` and `append` in one transaction; only when it has committed, `messages`
 * in order; then a sync that covers the transaction, then `raft.synced(token)`. Everything in `messages` is safe to send at once: the
 * core itself keeps back what must wait for a sync (granted votes, acknowledgements, its own match) until `synced`.
 */
export interface Ready {
  /** Present when there is something to make durable (hardState or append); hand it to `synced` afterwards. Rising by 1. */
  readonly token: number | undefined;
  readonly hardState: HardState | undefined;
  /** In order; the first may supersede batches that the store has from its firstIndex on [18]. */
  readonly append: readonly Batch[];
  readonly messages: readonly RaftMessage[];
  /** Never goes down; batch end. Batches up to here may be applied. */
  readonly commit: number;
  readonly reads: readonly ReadState[];
  /** Present when it changed. */
  readonly softState: SoftState | undefined;
}

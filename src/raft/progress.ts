/**
 * What a leader knows about one other member (etcd's tracker): how far its log matches, what to send next, and how much is in flight.
 *
 * - probe: where the logs meet is not known, or contact was lost: one append at a time, at most one per heartbeat interval.
 * - replicate: they meet at `match`; appends are pipelined ahead of the acknowledgements, within the window.
 * - snapshot: it needs batches that the log no longer holds; heartbeats only, while the shell streams a snapshot.
 */
import type { Limits } from "../limits.ts";
import { Stamps } from "./reads.ts";

export type ProgressState = "probe" | "replicate" | "snapshot";

export class Progress {
  readonly id: number;
  /**
   * Highest index known to be durable there and equal to the leader's log; only grows within a term, unless that node is wounded. A batch end,
   * 0 = unknown.
   */
  match = 0;
  /** It says that it has lost durable data [22]: it counts for nothing until it has all of it again. */
  wounded = false;
  /** First index of the next batch to send. match < next ≤ lastIndex + 1. */
  next: number;
  state: ProgressState = "probe";
  /** In probe: an append is out, and the next waits for its answer or the next heartbeat. */
  probeSent = false;
  /** Newest read round that it has answered [34]. */
  readSeq = 0;
  /** Tick of the last beat of this node that spoke for this group too; -Infinity = none. Then when the newest that it has answered was sent. */
  beatTick = -Infinity;
  beatAnsweredTick = -Infinity;
  /** It goes by beats only once it has answered this round of heartbeats, or a later one. */
  beatFromSeq = 1;
  /** What its answers said of its own time. */
  readonly stamps: Stamps = new Stamps();
  /** It says that it should lead. */
  preferred = false;
  /** In snapshot: the shell has been asked for one; else it is to be asked from this tick on. */
  snapshotAsked = false;
  snapshotAskTick = 0;
  /** Highest commit index that an append has carried to it. */
  commitSent = 0;
  /** Tick of the last message from it in this term; -Infinity = none yet. */
  heardTick = -Infinity;
  /** Since when a learner has had all but the last window of the log; Infinity = it has not. */
  caughtUpTick = Infinity;
  /** It is no member any more: index of the configuration that left it out, which it is still told. 0 = a member. */
  leftIndex = 0;
  /** Tick at which it left, and the first read round that told it so; Infinity = not yet. */
  leftTick = 0;
  leftSeq = Infinity;
  /** Tick of the last acknowledgement that freed something in flight, or of the first append after an idle time. */
  movedTick = 0;

  /** Frames in flight, oldest first, as a ring: the last index and the bytes of each. */
  readonly #frameLast: Float64Array;
  readonly #frameBytes: Float64Array;
  #frameHead = 0;
  #frameCount = 0;
  #bytes = 0;
  readonly #bytesMax: number;

  constructor(id: number, next: number, limits: Limits) {
    this.id = id;
    this.next = next;
    this.#frameLast = new Float64Array(limits.inflightFramesMax);
    this.#frameBytes = new Float64Array(limits.inflightFramesMax);
    this.#bytesMax = limits.inflightBytesMax;
  }

  get inflightFrames(): number {
    return this.#frameCount;
  }

  get inflightBytes(): number {
    return this.#bytes;
  }

  /** Now and then there is something to be done for it that may have been lost. */
  get needsAsking(): boolean {
    const isToAskFor = this.state === "snapshot" && !this.snapshotAsked;
    return this.probeSent || isToAskFor || this.leftIndex > 0;
  }

  /** Bytes that the next frame may have; Infinity when nothing is in flight, so that a batch over the window travels alone. */
  get windowBytes(): number {
    if (this.#frameCount === 0) return Infinity;
    return this.#frameCount === this.#frameLast.length ? 0 : this.#bytesMax - this.#bytes;
  }

  becomeProbe(): void {
    // What was sent beyond match may be lost. In probe already, `next` is the guess that the last rejection led to.
    if (this.state === "replicate" || this.match > 0) this.next = this.match + 1;
    this.state = "probe";
    this.probeSent = false;
    this.#clear();
  }

  becomeReplicate(): void {
    this.state = "replicate";
    this.next = this.match + 1;
    this.#clear();
  }

  becomeSnapshot(): void {
    this.state = "snapshot";
    this.snapshotAsked = false;
    this.snapshotAskTick = 0;
    this.#clear();
  }

  /** A wounded node has no more than this, and its log may meet the leader's before `next`. */
  forget(match: number, next: number): void {
    this.match = match;
    this.next = next;
    this.commitSent = 0;
    this.probeSent = false;
    if (this.state === "replicate") this.state = "probe";
    this.#clear();
  }

  /** An append up to `lastIndex` leaves. */
  sent(lastIndex: number, bytes: number, nowTick: number): void {
    if (this.#frameCount === 0) this.movedTick = nowTick;
    const slot = (this.#frameHead + this.#frameCount++) % this.#frameLast.length;
    this.#frameLast[slot] = lastIndex;
    this.#frameBytes[slot] = bytes;
    this.#bytes += bytes;
    this.next = lastIndex + 1;
  }

  /** An acknowledgement up to `index` came. False when it says nothing new. */
  acknowledged(index: number, nowTick: number): boolean {
    if (index <= this.match) return false;
    this.match = index;
    this.movedTick = nowTick;
    if (this.next <= index) this.next = index + 1;
    while (this.#frameCount > 0 && this.#frameLast[this.#frameHead]! <= index) {
      this.#bytes -= this.#frameBytes[this.#frameHead]!;
      this.#frameHead = (this.#frameHead + 1) % this.#frameLast.length;
      this.#frameCount--;
    }
    return true;
  }

  #clear(): void {
    this.#frameHead = 0;
    this.#frameCount = 0;
    this.#bytes = 0;
  }
}

/**
 * The beat: what one node tells another in place of the heartbeats of all groups that it leads there [34], and its answer to the other's last beat.
 *
 * Both sides hold the same set of claims, one per group: "I lead this group in this term, and so much of its log is committed". A beat carries the
 * claims that are new or other than before, then count and digest of the whole set. A receiver whose set comes out otherwise has missed something: it
 * believes nothing, and asks for the whole set. Its answer, in its own next beat, holds for all claims of the set but those that it names.
 *
 *     0 zero u32 | 4 from u32 | 8 to u32 | 12 flags u32 | 16 seq u64 | 24 answered u64 | 32 stamp u64 | 40 freshStamp u64 | 48 digest u64
 *     56 count u32 | 60 leads u32 | 64 claims in this beat u32 | 68 groups refused u32 | 72 claims | groups refused, u32 each
 *
 *     a claim: 0 group u32 | 4 term u64 | 12 commit u64 | 20 minMatch u64; all zero but the group where it is withdrawn
 */
import { readSafe, writeSafe } from "./batch.ts";
import { FrameType } from "./messages.ts";
import type { SendBuffer } from "./send-buffer.ts";

/** What the leader of a group says at each heartbeat. */
export interface BeatClaim {
  readonly group: number;
  /** 0 = the claim is withdrawn. */
  readonly term: number;
  readonly commit: number;
  /** As in a heartbeat: every member has the log durably up to here. */
  readonly minMatch: number;
}

export interface BeatMessage {
  readonly type: "beat";
  readonly from: number;
  readonly to: number;
  /** Rises by one from beat to beat, from a random start. */
  readonly seq: number;
  /** The claims are the whole set: whatever was claimed before is void. */
  readonly whole: boolean;
  readonly claims: readonly BeatClaim[];
  /** Of the set, once these claims are in it. */
  readonly count: number;
  readonly digest: number;
  /** The newest beat of the receiver's whose claims have been heard; 0 = none since the last answer. */
  readonly answered: number;
  /** Groups whose claims in that beat do not stand here. */
  readonly refused: readonly number[];
  /** The sender's set came out otherwise: it is to be told the whole of it. */
  readonly asksWhole: boolean;
  /** The sender should lead rather than a node that does not say so. */
  readonly preferred: boolean;
  /** The sender would rather not lead: its disk is slow or has little space, or it is about to stop. */
  readonly reluctant: boolean;
  /** Of all groups, how many the sender leads. */
  readonly leads: number;
  /** The sender's ticks, from a random start. */
  readonly stamp: number;
  /**
   * The newest stamp of the receiver's that came before a moment at which the sender surely led all groups of the set, none with more committed
   * than is claimed [35]; 0 = none.
   */
  readonly freshStamp: number;
}

const fieldsBytes = 72;
const claimBytes = 28;
const groupBytes = 4;

const Flag = { whole: 1, asksWhole: 2, preferred: 4, reluctant: 8 } as const;
const flagMax = 15;

export function encodeBeat(out: SendBuffer, beat: BeatMessage): void {
  const { claims, refused } = beat;
  const bytes = fieldsBytes + claims.length * claimBytes + refused.length * groupBytes;
  let at = out.begin(FrameType.beat, bytes);
  const { view } = out;
  view.setUint32(at, 0, true);
  view.setUint32(at + 4, beat.from, true);
  view.setUint32(at + 8, beat.to, true);
  view.setUint32(at + 12, flagsOf(beat), true);
  writeSafe(view, at + 16, beat.seq);
  writeSafe(view, at + 24, beat.answered);
  writeSafe(view, at + 32, beat.stamp);
  writeSafe(view, at + 40, beat.freshStamp);
  writeSafe(view, at + 48, beat.digest);
  view.setUint32(at + 56, beat.count, true);
  view.setUint32(at + 60, beat.leads, true);
  view.setUint32(at + 64, claims.length, true);
  view.setUint32(at + 68, refused.length, true);
  at += fieldsBytes;
  for (const { group, term, commit, minMatch } of claims) {
    view.setUint32(at, group, true);
    writeSafe(view, at + 4, term);
    writeSafe(view, at + 12, commit);
    writeSafe(view, at + 20, minMatch);
    at += claimBytes;
  }
  for (const group of refused) {
    view.setUint32(at, group, true);
    at += groupBytes;
  }
  out.end();
}

function flagsOf({ whole, asksWhole, preferred, reluctant }: BeatMessage): number {
  return (
    (whole ? Flag.whole : 0) |
    (asksWhole ? Flag.asksWhole : 0) |
    (preferred ? Flag.preferred : 0) |
    (reluctant ? Flag.reluctant : 0)
  );
}

/** Undefined where the payload is malformed. */
export function decodeBeat(payload: Uint8Array, fields: number): BeatMessage | undefined {
  if (fields !== payload.byteLength || fields < fieldsBytes) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, fields);
  const from = view.getUint32(4, true);
  const to = view.getUint32(8, true);
  const flags = view.getUint32(12, true);
  if (view.getUint32(0, true) !== 0 || from === 0 || to === 0 || flags > flagMax) return undefined;
  const claimCount = view.getUint32(64, true);
  const refusedCount = view.getUint32(68, true);
  const bytes = fieldsBytes + claimCount * claimBytes + refusedCount * groupBytes;
  if (bytes !== fields) return undefined;

  const seq = readSafe(view, 16);
  const answered = readSafe(view, 24);
  const stamp = readSafe(view, 32);
  const freshStamp = readSafe(view, 40);
  const digest = readSafe(view, 48);
  if (!(seq > 0 && answered >= 0 && stamp >= 0 && freshStamp >= 0 && digest >= 0)) return undefined;
  const claims = readClaims(view, claimCount);
  if (claims === undefined) return undefined;
  const refused: number[] = [];
  for (let at = fieldsBytes + claimCount * claimBytes; at < fields; at += groupBytes) {
    refused.push(view.getUint32(at, true));
  }
  return {
    type: "beat",
    from,
    to,
    seq,
    whole: (flags & Flag.whole) !== 0,
    claims,
    count: view.getUint32(56, true),
    digest,
    answered,
    refused,
    asksWhole: (flags & Flag.asksWhole) !== 0,
    preferred: (flags & Flag.preferred) !== 0,
    reluctant: (flags & Flag.reluctant) !== 0,
    leads: view.getUint32(60, true),
    stamp,
    freshStamp,
  };
}

function readClaims(view: DataView, count: number): BeatClaim[] | undefined {
  const claims: BeatClaim[] = [];
  for (let at = fieldsBytes; claims.length < count; at += claimBytes) {
    const group = view.getUint32(at, true);
    const term = readSafe(view, at + 4);
    const commit = readSafe(view, at + 12);
    const minMatch = readSafe(view, at + 20);
    if (!(term >= 0 && commit >= 0 && minMatch >= 0)) return undefined;
    claims.push({ group, term, commit, minMatch });
  }
  return claims;
}

/* ------------------------------------------------------------------ the digest of a set */

const wordSpan = 2 ** 32;
/** Of the upper half, so that a digest is a safe integer. */
const upperMask = 0x1f_ffff;

/**
 * The digest of a set of claims in whatever order: the sum of the digests of each, so that a set can be changed without being gone through.
 * It is to notice what was missed, not to withstand who would deceive: whoever sends beats may claim what it likes.
 */
export class ClaimDigest {
  #low = 0;
  #high = 0;

  get value(): number {
    return (this.#high & upperMask) * wordSpan + this.#low;
  }

  clear(): void {
    this.#low = this.#high = 0;
  }

  add({ group, term, commit, minMatch }: BeatClaim): void {
    this.#low = (this.#low + mixed(0x9e3779b9, group, term, commit, minMatch)) >>> 0;
    this.#high = (this.#high + mixed(0x85ebca6b, group, term, commit, minMatch)) >>> 0;
  }

  remove({ group, term, commit, minMatch }: BeatClaim): void {
    this.#low = (this.#low - mixed(0x9e3779b9, group, term, commit, minMatch)) >>> 0;
    this.#high = (this.#high - mixed(0x85ebca6b, group, term, commit, minMatch)) >>> 0;
  }
}

function mixed(seed: number, a: number, b: number, c: number, d: number): number {
  let hash = step(seed, a);
  hash = step(step(hash, b), b / wordSpan);
  hash = step(step(hash, c), c / wordSpan);
  hash = step(step(hash, d), d / wordSpan);
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
  hash = Math.imul(hash ^ (hash >>> 15), 0x846ca68b);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** The lower 32 bits of `word` into the hash. */
function step(hash: number, word: number): number {
  const turned = Math.imul(word, 0xcc9e2d51);
  const mix = hash ^ Math.imul((turned << 15) | (turned >>> 17), 0x1b873593);
  return (Math.imul((mix << 13) | (mix >>> 19), 5) + 0xe6546b64) | 0;
}

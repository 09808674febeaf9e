/** Beats: what is refused on arrival, and the digest that both sides keep of a set of claims. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { type BeatClaim, type BeatMessage, ClaimDigest } from "../../src/wire/beat-message.ts";
import { FrameType, type PeerMessage } from "../../src/wire/messages.ts";
import { decodePeerMessage } from "../../src/wire/peer-messages.ts";
import { bytesOf, framesOf, safeInteger, u32 } from "./messages.ts";
import { holds } from "./property.ts";

const sample: BeatMessage = {
  type: "beat",
  from: 1,
  to: 2,
  seq: 9,
  whole: false,
  claims: [
    { group: 3, term: 4, commit: 5, minMatch: 2 },
    { group: 7, term: 0, commit: 0, minMatch: 0 },
  ],
  count: 1,
  digest: 77,
  answered: 8,
  refused: [11, 12, 13],
  asksWhole: false,
  preferred: false,
  reluctant: true,
  leads: 1,
  stamp: 100,
  freshStamp: 90,
};

const payload = framesOf(bytesOf(sample))[0]!.payload;

function decodeWith(change: (view: DataView) => void, bytes = payload): PeerMessage | undefined {
  const copy = bytes.slice();
  change(new DataView(copy.buffer));
  return decodePeerMessage(FrameType.beat, copy, copy.byteLength);
}

test("a sound beat arrives; any other count, length or flag is malformed", () => {
  expect(decodeWith(() => {})).toEqual(sample);
  for (let bytes = 0; bytes < payload.byteLength; bytes++) {
    expect(decodePeerMessage(FrameType.beat, payload.slice(0, bytes), bytes)).toBeUndefined();
  }
  expect(decodePeerMessage(FrameType.beat, payload, payload.byteLength - 4)).toBeUndefined();
  for (const offset of [64, 68]) {
    for (const count of [0, 1, 4, 0x7fff_ffff, 0xffff_ffff]) {
      expect(decodeWith((view) => view.setUint32(offset, count, true))).toBeUndefined();
    }
  }
  expect(decodeWith((view) => view.setUint32(0, 1, true))).toBeUndefined();
  expect(decodeWith((view) => view.setUint32(4, 0, true))).toBeUndefined();
  expect(decodeWith((view) => view.setUint32(8, 0, true))).toBeUndefined();
  expect(decodeWith((view) => view.setUint32(12, 16, true))).toBeUndefined();
  expect(decodeWith((view) => view.setUint32(16, 0, true))).toBeUndefined();
});

test("every number is a safe integer", () => {
  for (const offset of [16, 24, 32, 40, 48, 76, 84, 92]) {
    expect(decodeWith((view) => view.setUint32(offset + 4, 0x1f_ffff, true))).toBeDefined();
    expect(decodeWith((view) => view.setUint32(offset + 4, 0x20_0000, true))).toBeUndefined();
  }
});

const claim = fc.record({
  group: u32,
  term: safeInteger,
  commit: safeInteger,
  minMatch: safeInteger,
});

function digestOf(claims: readonly BeatClaim[]): number {
  const digest = new ClaimDigest();
  for (const each of claims) digest.add(each);
  return digest.value;
}

test("the digest does not depend on the order, and what is removed leaves no trace", () => {
  const sets = fc.array(claim, { maxLength: 20 });
  holds(300, fc.tuple(sets, sets), ([kept, others]) => {
    const digest = new ClaimDigest();
    for (const each of [...others, ...kept]) digest.add(each);
    for (const each of others.toReversed()) digest.remove(each);
    expect(digest.value).toBe(digestOf(kept.toReversed()));
    expect(Number.isSafeInteger(digest.value) && digest.value >= 0).toBe(true);
    digest.clear();
    expect(digest.value).toBe(digestOf([]));
  });
});

test("one field that differs, however little, gives another digest", () => {
  holds(2_000, fc.tuple(claim, fc.nat(3), fc.integer({ min: 1, max: 40 })), ([one, at, by]) => {
    const name = (["group", "term", "commit", "minMatch"] as const)[at]!;
    const other = { ...one, [name]: one[name] >= by ? one[name] - by : one[name] + by };
    expect(digestOf([other])).not.toBe(digestOf([one]));
  });
});

test("no two of many neighbouring claims have one digest", () => {
  const seen = new Set<number>();
  for (let group = 0; group < 40; group++) {
    for (let term = 1; term <= 20; term++) {
      for (let commit = 0; commit < 25; commit++) {
        seen.add(digestOf([{ group, term, commit, minMatch: commit }]));
      }
    }
  }
  expect(seen.size).toBe(40 * 20 * 25);
});

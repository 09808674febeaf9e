/** What a chunk of a snapshot must be on arrival, and the digest that ties the chunks together. */
import { expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { FrameType, type SnapshotChunkMessage } from "../../src/wire/messages.ts";
import { decodePeerMessage } from "../../src/wire/peer-messages.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import { bytesOf, framesOf } from "./messages.ts";

const body = new Uint8Array(50).map((_, at) => at * 3);
const head = { type: "snapshotChunk", group: 1, from: 1, to: 2, term: 5, snapshot: 9 } as const;
const chunk: SnapshotChunkMessage = { ...head, offset: 100, digest: 7, crc: crc32(body), body };

test("a flipped bit in the body, an empty body, and cut fields are malformed", () => {
  const [frame] = framesOf(bytesOf(chunk));
  const { payload, fieldsBytes } = frame!;
  const decode = (bytes: Uint8Array, fields = fieldsBytes): unknown =>
    decodePeerMessage(FrameType.snapshotChunk, bytes, fields);
  expect(decode(payload)).toEqual(chunk);
  for (let bit = fieldsBytes * 8; bit < payload.byteLength * 8; bit++) {
    const bytes = payload.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    expect(decode(bytes)).toBeUndefined();
  }
  expect(decode(payload.slice(0, fieldsBytes))).toBeUndefined();
  for (let fields = 0; fields < fieldsBytes; fields++) {
    expect(decode(payload, fields)).toBeUndefined();
  }
});

test("the digest tells which chunks there were, and in which order", () => {
  const of = (...crcs: number[]): number => crcs.reduce(nextDigest, 0);
  const digests = [of(1, 2, 3), of(1, 3, 2), of(1, 2), of(1, 2, 3, 3), of(2, 3), of(0, 1, 2, 3)];
  expect(new Set(digests).size).toBe(digests.length);
});

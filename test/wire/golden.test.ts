/**
 * One frame of each type, byte for byte as this version speaks. A difference means that nodes of two builds do not understand each other:
 * raise `frameVersion` and add files, never change one. `BARGE_WRITE_GOLDEN=1` writes those that are missing.
 */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { BatchKind } from "../../src/wire/batch.ts";
import { FrameType } from "../../src/wire/messages.ts";
import { plainSection } from "../../src/wire/section.ts";
import { SectionResults } from "../../src/wire/section-results.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import {
  type AnyMessage,
  bytesOf,
  chain,
  changesOf,
  concat,
  decodeAny,
  framesOf,
} from "./messages.ts";

const folder = join(import.meta.dir, "..", "golden", "frames");

const peer = { group: 7, from: 1, to: 2, term: 5 };
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const section = plainSection([ascii("one"), ascii(""), ascii("three")]);
const large = 2 ** 40 + 3;
const batches = chain(
  { group: 7, index: 41, term: 4, crc: 0xcafe_f00d },
  [
    { body: section, count: 3, kind: BatchKind.commands, termStep: 0 },
    { body: new Uint8Array(0), count: 1, kind: BatchKind.noop, termStep: 1 },
  ],
  5,
);
const results = new SectionResults();
results.add(1, 3, ascii("revision"));

const samples: Record<keyof typeof FrameType, AnyMessage> = {
  hello: {
    type: "hello",
    hello: {
      role: "peer-bulk",
      versionMin: 1,
      versionMax: 1,
      features: 0,
      software: "0.1.0",
      clusterId: "cluster",
      nodeId: 1,
      incarnation: "incarnation",
      expectNodeId: 2,
    },
  },
  helloReply: {
    type: "helloReply",
    reply: {
      version: 1,
      features: 0,
      software: "0.1.0",
      clusterId: "cluster",
      nodeId: 2,
      incarnation: "incarnation",
      frameBytesMax: 8_388_608,
      sectionBytesMax: 262_144,
      members: { "1": "127.0.0.1:9091", "2": "127.0.0.1:9191" },
      leader: 1,
    },
  },
  ping: { type: "ping", nonce: large },
  pong: { type: "pong", nonce: large },
  preVote: { type: "preVote", ...peer, transfer: false, lastIndex: large, lastTerm: 4 },
  preVoteReply: { type: "preVoteReply", ...peer, granted: true },
  vote: { type: "vote", ...peer, transfer: false, lastIndex: large, lastTerm: 4 },
  voteReply: { type: "voteReply", ...peer, granted: false },
  append: {
    type: "append",
    ...peer,
    prevIndex: 41,
    prevTerm: 4,
    prevCrc: 0xcafe_f00d,
    commit: 40,
    fromIndex: 42,
    toIndex: 45,
    batches,
  },
  appendReply: {
    type: "appendReply",
    ...peer,
    accepted: true,
    index: 45,
    hintIndex: 41,
    hintTerm: 4,
    wounded: false,
  },
  heartbeat: {
    type: "heartbeat",
    ...peer,
    commit: 40,
    readSeq: large,
    minMatch: 39,
    freshStamp: 2,
  },
  heartbeatReply: {
    type: "heartbeatReply",
    ...peer,
    readSeq: large,
    stamp: large + 1,
    preferred: true,
  },
  timeoutNow: { type: "timeoutNow", ...peer, lastIndex: large, lastTerm: 4 },
  readIndex: { type: "readIndex", ...peer, context: 12 },
  readIndexReply: { type: "readIndexReply", ...peer, context: 12, index: 40, ok: true },
  forward: { type: "forward", group: 7, from: 1, to: 2, request: 99, section },
  snapshotOffer: {
    type: "snapshotOffer",
    ...peer,
    snapshot: 3,
    start: { index: 41, term: 4, crc: 0xcafe_f00d, timeMs: large },
    bytes: 1_000_000,
    configuration: ascii("configuration"),
  },
  snapshotChunk: {
    type: "snapshotChunk",
    ...peer,
    snapshot: 3,
    offset: 262_144,
    digest: nextDigest(0xdead_beef, crc32(ascii("a part"))),
    crc: crc32(ascii("a part")),
    body: ascii("a part"),
  },
  snapshotReply: {
    type: "snapshotReply",
    ...peer,
    snapshot: 3,
    state: "receiving",
    offset: 262_144,
  },
  adminRequest: {
    type: "adminRequest",
    group: 7,
    from: 1,
    to: 2,
    request: large,
    timeoutMs: 5_000,
    operation: "members",
    body: { group: 7 },
  },
  adminReply: {
    type: "adminReply",
    group: 7,
    from: 2,
    to: 1,
    request: large,
    error: 27,
    outcome: "not-applied",
    message: "try again",
    body: undefined,
  },
  beat: {
    type: "beat",
    from: 1,
    to: 2,
    seq: large,
    whole: true,
    claims: [
      { group: 7, term: 5, commit: 40, minMatch: 39 },
      { group: 0xffff_ffff, term: large, commit: large + 1, minMatch: 0 },
      { group: 8, term: 0, commit: 0, minMatch: 0 },
    ],
    count: 2,
    digest: large + 2,
    answered: large + 3,
    refused: [9, 10],
    asksWhole: false,
    preferred: true,
    reluctant: false,
    leads: 12,
    stamp: large + 4,
    freshStamp: 3,
  },
  forwardReply: {
    type: "forwardReply",
    group: 7,
    from: 1,
    to: 2,
    request: 99,
    error: 0,
    firstIndex: 42,
    term: 5,
  },
  notice: {
    type: "notice",
    group: 7,
    term: 5,
    leader: 2,
    configurationIndex: large,
    members: { "1": "127.0.0.1:9091", "2": "127.0.0.1:9191" },
  },
  write: { type: "write", request: 100, group: 7, timeoutMs: 5_000, section },
  writeReply: { type: "writeReply", request: 100, firstIndex: 42, results: results.view() },
  read: {
    type: "read",
    request: 101,
    group: 7,
    timeoutMs: 5_000,
    consistency: 2,
    maxStalenessMs: 250,
    count: 2,
    queries: concat([Uint8Array.of(3, 0, 0, 0), ascii("key"), Uint8Array.of(0, 0, 0, 0)]),
  },
  readReply: {
    type: "readReply",
    request: 101,
    appliedIndex: 45,
    count: 2,
    answers: concat([
      Uint8Array.of(0, 0, 0, 0, 5, 0, 0, 0),
      ascii("value"),
      Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0),
    ]),
  },
  errorReply: {
    type: "errorReply",
    request: 102,
    error: 1,
    outcome: "not-applied",
    message: "Node 2 does not lead group 7.",
    leaderHint: "127.0.0.1:9091",
  },
  control: { type: "control", request: 103, operation: "status", body: null },
  controlReply: { type: "controlReply", request: 103, body: { nodeId: 1, groups: [{ id: 7 }] } },
  watch: {
    type: "watch",
    watch: 104,
    group: 7,
    windowBytes: 1_048_576,
    from: large,
    exact: true,
    prefix: ascii("key"),
  },
  watchCredit: { type: "watchCredit", watch: 104, bytes: 65_536 },
  followGroups: { type: "followGroups", all: false, group: 7 },
  groupLeaders: {
    type: "groupLeaders",
    version: large,
    whole: false,
    groups: [
      { group: 7, leader: 2, term: 5, members: [1, 2, 4], gone: false },
      { group: 8, leader: 0, term: 0, members: [], gone: true },
    ],
  },
  watchStop: { type: "watchStop", watch: 104 },
  watchChanges: {
    type: "watchChanges",
    watch: 104,
    revision: large,
    count: 2,
    changes: changesOf(large, [
      { revision: large - 5, key: ascii("key"), value: ascii("value") },
      { revision: large, key: ascii("key"), value: undefined },
    ]),
  },
  accepted: { type: "accepted" },
  watchEnded: {
    type: "watchEnded",
    watch: 104,
    revision: large,
    error: 8,
    message: "That part of the log is gone.",
  },
};

/** Sixteen bytes a line: the header is the first. */
function hexOf(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.byteLength; at += 16) {
    lines.push(Buffer.from(bytes.subarray(at, at + 16)).toString("hex"));
  }
  return `${lines.join("\n")}\n`;
}

for (const name of Object.keys(FrameType) as (keyof typeof FrameType)[]) {
  test(`golden frame ${name}`, () => {
    const message = samples[name];
    const bytes = bytesOf(message);
    const path = join(folder, `${name}.hex`);
    if (process.env["BARGE_WRITE_GOLDEN"] === "1" && !existsSync(path)) {
      writeFileSync(path, hexOf(bytes));
    }
    const golden = readFileSync(path, "utf8");
    expect(hexOf(bytes)).toBe(golden);
    const [frame] = framesOf(new Uint8Array(Buffer.from(golden.replaceAll("\n", ""), "hex")));
    expect(frame!.type).toBe(FrameType[name]);
    expect(decodeAny(frame!)).toEqual(message);
  });
}

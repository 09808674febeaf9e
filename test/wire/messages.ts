/** Arbitrary messages, and ways from messages to bytes and back, for the tests of wire. */
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { type Batch, batchHeaderBytes, BatchKind, sealBatch } from "../../src/wire/batch.ts";
import {
  decodeClientRequest,
  decodePing,
  decodeServerReply,
  encodeControl,
  encodeControlReply,
  encodeErrorReply,
  encodePing,
  encodePong,
  encodeRead,
  encodeWrite,
  encodeWriteReply,
  ReadReplyWriter,
} from "../../src/wire/client-messages.ts";
import type { BeatMessage } from "../../src/wire/beat-message.ts";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import {
  decodeHello,
  decodeHelloReply,
  encodeAccepted,
  encodeHello,
  encodeHelloReply,
  isAccepted,
} from "../../src/wire/hello.ts";
import {
  type AppendMessage,
  type ClientRequest,
  FrameType,
  type Hello,
  type HelloReply,
  type Notice,
  type PeerMessage,
  type ServerReply,
} from "../../src/wire/messages.ts";
import { decodeNotice, encodeNotice } from "../../src/wire/notice.ts";
import { decodePeerMessage, encodePeerMessage } from "../../src/wire/peer-messages.ts";
import {
  decodeFollowGroups,
  decodeGroupLeaders,
  encodeFollowGroups,
  encodeGroupLeaders,
  type FollowGroups,
  type GroupLeaders,
} from "../../src/wire/group-leaders.ts";
import { plainSection } from "../../src/wire/section.ts";
import { SectionResults } from "../../src/wire/section-results.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import {
  type ChangeSource,
  decodeWatchCommand,
  decodeWatchReply,
  encodeWatch,
  encodeWatchChanges,
  encodeWatchCredit,
  encodeWatchEnded,
  encodeWatchStop,
  isWatchFrame,
  type KvChange,
  readWatchChanges,
  type WatchCommand,
  type WatchReply,
} from "../../src/wire/watch-messages.ts";

export interface Frame {
  readonly type: number;
  readonly payload: Uint8Array;
  readonly fieldsBytes: number;
}

export type Ping = { readonly type: "ping" | "pong"; readonly nonce: number };
export type AnyMessage =
  | PeerMessage
  | ClientRequest
  | ServerReply
  | WatchCommand
  | WatchReply
  | Notice
  | FollowGroups
  | GroupLeaders
  | Ping
  | { readonly type: "accepted" }
  | ({ readonly type: "hello" } & { readonly hello: Hello })
  | ({ readonly type: "helloReply" } & { readonly reply: HelloReply });

/* ------------------------------------------------------------------ bytes */

/** All unsent bytes, taken. */
export function drain(out: SendBuffer): Uint8Array {
  const chunks: Uint8Array[] = [];
  for (let chunk = out.chunk(); chunk !== undefined; chunk = out.chunk()) {
    chunks.push(chunk.slice());
    out.consume(chunk.byteLength);
  }
  return concat(chunks);
}

export function concat(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}

export function framesOf(bytes: Uint8Array, frameBytesMax = 16 * 1024 * 1024): Frame[] {
  const frames: Frame[] = [];
  const reader = new FrameReader(frameBytesMax, (type, payload, fieldsBytes) =>
    frames.push({ type, payload, fieldsBytes }),
  );
  const error = reader.push(bytes);
  if (error !== undefined) throw new Error(error);
  return frames;
}

export function encodeAny(out: SendBuffer, message: AnyMessage): void {
  switch (message.type) {
    case "write":
      return encodeWrite(out, message.request, message.group, message.timeoutMs, message.section);
    case "read":
      return encodeRead(
        out,
        message.request,
        message.group,
        message.timeoutMs,
        message.consistency,
        message.maxStalenessMs,
        message.count,
        message.queries,
      );
    case "control":
      return encodeControl(out, message.request, message.operation, message.body);
    case "writeReply":
      return encodeWriteReply(out, message.request, message.firstIndex, message.results);
    case "readReply": {
      const writer = new ReadReplyWriter();
      writer.begin(out, message.request, message.appliedIndex);
      const view = new DataView(message.answers.buffer, message.answers.byteOffset);
      for (let at = 0; at < message.answers.byteLength;) {
        const end = at + 8 + view.getUint32(at + 4, true);
        writer.answer(view.getUint32(at, true), message.answers.subarray(at + 8, end));
        at = end;
      }
      return writer.end();
    }
    case "errorReply":
      return encodeErrorReply(
        out,
        message.request,
        message.error,
        message.outcome,
        message.message,
        message.leaderHint,
      );
    case "controlReply":
      return encodeControlReply(out, message.request, message.body);
    case "watch":
      return encodeWatch(out, message);
    case "watchCredit":
      return encodeWatchCredit(out, message.watch, message.bytes);
    case "watchStop":
      return encodeWatchStop(out, message.watch);
    case "watchChanges": {
      const { watch, revision } = message;
      encodeWatchChanges(out, watch, revision, new ChangeList(readWatchChanges(message)));
      return;
    }
    case "watchEnded":
      return encodeWatchEnded(out, message.watch, message.revision, message.error, message.message);
    case "ping":
      return encodePing(out, message.nonce);
    case "pong":
      return encodePong(out, message.nonce);
    case "notice":
      return encodeNotice(out, message);
    case "followGroups":
      return encodeFollowGroups(out, message);
    case "groupLeaders":
      return encodeGroupLeaders(out, message);
    case "accepted":
      return encodeAccepted(out);
    case "hello":
      return encodeHello(out, message.hello);
    case "helloReply":
      return encodeHelloReply(out, message.reply);
    default:
      return encodePeerMessage(out, message);
  }
}

/** Changes to be encoded, one after the other. */
export class ChangeList implements ChangeSource {
  readonly #changes: readonly KvChange[];
  #next = 0;
  revision = 0;
  deleted = false;
  bytes: Uint8Array = new Uint8Array(0);
  readonly keyAt = 0;
  keyLength = 0;
  valueAt = 0;
  valueLength = 0;

  constructor(changes: readonly KvChange[]) {
    this.#changes = changes;
  }

  next(): boolean {
    const change = this.#changes[this.#next++];
    if (change === undefined) return false;
    const { revision, key, value } = change;
    this.revision = revision;
    this.deleted = value === undefined;
    this.bytes = concat([key, value ?? new Uint8Array(0)]);
    this.keyLength = this.valueAt = key.byteLength;
    this.valueLength = value?.byteLength ?? 0;
    return true;
  }
}

/** The body of a frame of changes. */
export function changesOf(revision: number, changes: readonly KvChange[]): Uint8Array {
  const out = new SendBuffer();
  encodeWatchChanges(out, 1, revision, new ChangeList(changes));
  const [frame] = framesOf(drain(out));
  return frame!.payload.slice(frame!.fieldsBytes);
}

/** What a receiver makes of a frame, whichever side it is. */
export function decodeAny({ type, payload, fieldsBytes }: Frame): AnyMessage | undefined {
  if (type === FrameType.hello) {
    const hello = decodeHello(payload, fieldsBytes);
    return hello && { type: "hello", hello };
  }
  if (type === FrameType.helloReply) {
    const reply = decodeHelloReply(payload, fieldsBytes);
    return reply && { type: "helloReply", reply };
  }
  if (type === FrameType.ping || type === FrameType.pong) {
    const nonce = decodePing(payload, fieldsBytes);
    if (nonce === undefined) return undefined;
    return { type: type === FrameType.ping ? "ping" : "pong", nonce };
  }
  if (isAccepted(type, payload)) return { type: "accepted" };
  if (type === FrameType.notice) return decodeNotice(payload, fieldsBytes);
  if (type === FrameType.followGroups) return decodeFollowGroups(payload, fieldsBytes);
  if (type === FrameType.groupLeaders) return decodeGroupLeaders(payload, fieldsBytes);
  if (isWatchFrame(type)) {
    return (
      decodeWatchCommand(type, payload, fieldsBytes) ?? decodeWatchReply(type, payload, fieldsBytes)
    );
  }
  return (
    decodePeerMessage(type, payload, fieldsBytes) ??
    decodeClientRequest(type, payload, fieldsBytes) ??
    decodeServerReply(type, payload, fieldsBytes)
  );
}

export function bytesOf(message: AnyMessage): Uint8Array {
  const out = new SendBuffer();
  encodeAny(out, message);
  return drain(out);
}

/* ------------------------------------------------------------------ arbitrary messages */

export const safeInteger = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.maxSafeNat(),
  fc.constant(Number.MAX_SAFE_INTEGER - 2),
);
export const u32 = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);
export const nodeId = fc.oneof(
  fc.integer({ min: 1, max: 5 }),
  fc.integer({ min: 1, max: 0xffff_ffff }),
);
const text = fc.string({ maxLength: 40, unit: "grapheme" });
const command = fc.uint8Array({ maxLength: 40 });

export const sectionBytes = fc
  .array(command, { minLength: 1, maxLength: 6 })
  .map((commands) => plainSection(commands));

/** A chain of sealed batches after (prevIndex, prevTerm, prevCrc), none of a term above `termMax`. */
export function chain(
  after: { group: number; index: number; term: number; crc: number },
  bodies: readonly { body: Uint8Array; count: number; kind: BatchKind; termStep: number }[],
  termMax: number,
): Batch[] {
  const batches: Batch[] = [];
  let { index, term, crc } = after;
  for (const { body, count, kind, termStep } of bodies) {
    const bytes = new Uint8Array(batchHeaderBytes + body.byteLength);
    bytes.set(body, batchHeaderBytes);
    term = Math.min(termMax, term + termStep);
    const header = {
      group: after.group,
      kind,
      firstIndex: index + 1,
      count: kind === BatchKind.commands ? count : 1,
      term,
      timeMs: index * 3,
      prevCrc: crc,
    };
    const batch = sealBatch(header, bytes);
    batches.push(batch);
    index += batch.count;
    crc = batch.crc;
  }
  return batches;
}

/** A command takes four bytes and more. */
const batchBody = fc
  .record({
    body: fc.uint8Array({ minLength: 4, maxLength: 60 }),
    count: fc.integer({ min: 1, max: 100 }),
    kind: fc.constantFrom(...Object.values(BatchKind)),
    termStep: fc.integer({ min: 0, max: 2 }),
  })
  .map(({ count, ...rest }) => ({
    ...rest,
    count: Math.min(count, Math.floor(rest.body.byteLength / 4)),
  }));

export const append: fc.Arbitrary<AppendMessage> = fc
  .record({
    group: u32,
    from: nodeId,
    to: nodeId,
    prevIndex: fc.oneof(fc.integer({ min: 0, max: 50 }), fc.nat(2 ** 31)),
    prevTerm: fc.integer({ min: 0, max: 50 }),
    termAbove: fc.integer({ min: 0, max: 5 }),
    prevCrc: u32,
    commit: safeInteger,
    bodies: fc.array(batchBody, { maxLength: 5 }),
  })
  .map(({ termAbove, bodies, ...head }) => {
    const term = head.prevTerm + termAbove;
    const { group, prevIndex, prevTerm, prevCrc } = head;
    const start = { group, index: prevIndex, term: prevTerm, crc: prevCrc };
    const batches = chain(start, bodies, term);
    const toIndex = batches.reduce((index, batch) => index + batch.count, prevIndex);
    return { type: "append", ...head, term, fromIndex: prevIndex + 1, toIndex, batches };
  });

const controlBody = fc.oneof(
  fc.constant(null),
  fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), fc.oneof(fc.integer(), text, fc.boolean()), {
    noNullPrototype: true,
  }),
);

const peer = { group: u32, from: nodeId, to: nodeId, term: safeInteger };

const claim = fc.oneof(
  fc.record({ group: u32, term: safeInteger, commit: safeInteger, minMatch: safeInteger }),
  fc.record({
    group: u32,
    term: fc.constant(0),
    commit: fc.constant(0),
    minMatch: fc.constant(0),
  }),
);

export const beat: fc.Arbitrary<BeatMessage> = fc.record({
  type: fc.constant("beat" as const),
  from: nodeId,
  to: nodeId,
  seq: safeInteger.map((seq) => Math.max(1, seq)),
  whole: fc.boolean(),
  claims: fc.array(claim, { maxLength: 6 }),
  count: u32,
  digest: safeInteger,
  answered: safeInteger,
  refused: fc.array(u32, { maxLength: 6 }),
  asksWhole: fc.boolean(),
  preferred: fc.boolean(),
  reluctant: fc.boolean(),
  leads: u32,
  stamp: safeInteger,
  freshStamp: safeInteger,
});

export const peerMessage: fc.Arbitrary<PeerMessage> = fc.oneof(
  append,
  fc.record({
    type: fc.constant("preVote" as const),
    ...peer,
    transfer: fc.constant(false),
    lastIndex: safeInteger,
    lastTerm: safeInteger,
  }),
  fc.record({
    type: fc.constant("vote" as const),
    ...peer,
    transfer: fc.boolean(),
    lastIndex: safeInteger,
    lastTerm: safeInteger,
  }),
  fc.record({
    type: fc.constant("timeoutNow" as const),
    ...peer,
    lastIndex: safeInteger,
    lastTerm: safeInteger,
  }),
  fc.record({
    type: fc.constantFrom("preVoteReply" as const, "voteReply" as const),
    ...peer,
    granted: fc.boolean(),
  }),
  fc.record({
    type: fc.constant("appendReply" as const),
    ...peer,
    accepted: fc.boolean(),
    index: safeInteger,
    hintIndex: safeInteger,
    hintTerm: safeInteger,
    wounded: fc.boolean(),
  }),
  fc.record({
    type: fc.constant("heartbeat" as const),
    ...peer,
    commit: safeInteger,
    readSeq: safeInteger,
    minMatch: safeInteger,
    freshStamp: safeInteger,
  }),
  fc.record({
    type: fc.constant("heartbeatReply" as const),
    ...peer,
    readSeq: safeInteger,
    stamp: safeInteger,
    preferred: fc.boolean(),
  }),
  fc.record({ type: fc.constant("readIndex" as const), ...peer, context: safeInteger }),
  fc.record({
    type: fc.constant("readIndexReply" as const),
    ...peer,
    context: safeInteger,
    index: safeInteger,
    ok: fc.boolean(),
  }),
  fc.record({
    type: fc.constant("forward" as const),
    group: u32,
    from: nodeId,
    to: nodeId,
    request: safeInteger,
    section: sectionBytes,
  }),
  fc.record({
    type: fc.constant("snapshotOffer" as const),
    ...peer,
    snapshot: safeInteger,
    start: fc.record({ index: safeInteger, term: safeInteger, crc: u32, timeMs: safeInteger }),
    bytes: safeInteger,
    configuration: fc.uint8Array({ maxLength: 200 }),
  }),
  fc
    .record({
      ...peer,
      snapshot: safeInteger,
      offset: safeInteger,
      digest: u32,
      body: fc.uint8Array({ minLength: 1, maxLength: 300 }),
    })
    .map((chunk) => ({ type: "snapshotChunk" as const, ...chunk, crc: crc32(chunk.body) })),
  fc.record({
    type: fc.constant("snapshotReply" as const),
    ...peer,
    snapshot: safeInteger,
    state: fc.constantFrom("receiving" as const, "done" as const, "failed" as const),
    offset: safeInteger,
  }),
  fc.record({
    type: fc.constant("adminRequest" as const),
    group: u32,
    from: nodeId,
    to: nodeId,
    request: safeInteger,
    timeoutMs: u32,
    operation: fc.stringMatching(/^[a-z]{1,20}$/),
    body: controlBody,
  }),
  fc
    .record({
      group: u32,
      from: nodeId,
      to: nodeId,
      request: safeInteger,
      error: u32,
      outcome: fc.constantFrom("applied" as const, "not-applied" as const, "unknown" as const),
      message: text,
      body: controlBody,
    })
    .map(({ error, outcome, message, body: answer, ...head }) =>
      error === 0
        ? {
            type: "adminReply" as const,
            ...head,
            error,
            outcome: "applied" as const,
            message: "",
            body: answer,
          }
        : { type: "adminReply" as const, ...head, error, outcome, message, body: undefined },
    ),
  beat,
  fc.record({
    type: fc.constant("forwardReply" as const),
    group: u32,
    from: nodeId,
    to: nodeId,
    request: safeInteger,
    error: u32,
    firstIndex: safeInteger,
    term: safeInteger,
  }),
);

/** Pieces behind a head whose last four bytes are their length. */
function pieces(headBytes: number, contents: readonly Uint8Array[]): Uint8Array {
  return concat(
    contents.map((content, i) => {
      const piece = new Uint8Array(headBytes + content.byteLength);
      const view = new DataView(piece.buffer);
      if (headBytes === 8) view.setUint32(0, i % 5, true);
      view.setUint32(headBytes - 4, content.byteLength, true);
      piece.set(content, headBytes);
      return piece;
    }),
  );
}

export const clientRequest: fc.Arbitrary<ClientRequest> = fc.oneof(
  fc.record({
    type: fc.constant("write" as const),
    request: safeInteger,
    group: u32,
    timeoutMs: u32,
    section: sectionBytes,
  }),
  fc
    .record({
      request: safeInteger,
      group: u32,
      timeoutMs: u32,
      consistency: fc.constantFrom(0 as const, 1 as const, 2 as const),
      maxStalenessMs: u32,
      contents: fc.array(command, { minLength: 1, maxLength: 6 }),
    })
    .map(({ contents, ...rest }) => ({
      type: "read" as const,
      ...rest,
      count: contents.length,
      queries: pieces(4, contents),
    })),
  fc.record({
    type: fc.constant("control" as const),
    request: safeInteger,
    operation: fc.stringMatching(/^[a-z]{1,20}$/),
    body: controlBody,
  }),
);

export const serverReply: fc.Arbitrary<ServerReply> = fc.oneof(
  fc
    .record({
      request: safeInteger,
      firstIndex: safeInteger,
      results: fc.array(fc.tuple(u32, command), { maxLength: 4 }),
    })
    .map(({ results, ...rest }) => {
      const writer = new SectionResults();
      results.forEach(([code, bytes], i) => writer.add(i * 2, code, bytes));
      return { type: "writeReply" as const, ...rest, results: writer.view().slice() };
    }),
  fc
    .record({
      request: safeInteger,
      appliedIndex: safeInteger,
      contents: fc.array(command, { maxLength: 6 }),
    })
    .map(({ contents, ...rest }) => ({
      type: "readReply" as const,
      ...rest,
      count: contents.length,
      answers: pieces(8, contents),
    })),
  fc.record({
    type: fc.constant("errorReply" as const),
    request: safeInteger,
    error: u32,
    outcome: fc.constantFrom("applied" as const, "not-applied" as const, "unknown" as const),
    message: text,
    leaderHint: fc.constantFrom("", "127.0.0.1:9091", "[::1]:9091"),
  }),
  fc.record({
    type: fc.constant("controlReply" as const),
    request: safeInteger,
    body: controlBody,
  }),
);

export const watchMessage: fc.Arbitrary<WatchCommand | WatchReply> = fc.oneof(
  fc.record({
    type: fc.constant("watch" as const),
    watch: safeInteger,
    group: u32,
    windowBytes: u32,
    from: safeInteger,
    exact: fc.boolean(),
    prefix: fc.uint8Array({ maxLength: 40 }),
  }),
  fc.record({ type: fc.constant("watchCredit" as const), watch: safeInteger, bytes: u32 }),
  fc.record({ type: fc.constant("watchStop" as const), watch: safeInteger }),
  fc
    .record({
      watch: safeInteger,
      revision: fc.integer({ min: 1_000, max: Number.MAX_SAFE_INTEGER - 2 }),
      kinds: fc.array(
        fc.tuple(
          fc.integer({ min: 0, max: 20 }),
          fc.uint8Array({ minLength: 1, maxLength: 40 }),
          fc.option(command, { nil: undefined }),
        ),
        { maxLength: 8 },
      ),
    })
    .map(({ watch, revision, kinds }) => {
      let at = revision - 200;
      const changes = kinds.map(([step, key, value]) => ({ revision: (at += step), key, value }));
      const count = changes.length;
      return {
        type: "watchChanges" as const,
        watch,
        revision,
        count,
        changes: changesOf(revision, changes),
      };
    }),
  fc.record({
    type: fc.constant("watchEnded" as const),
    watch: safeInteger,
    revision: safeInteger,
    error: u32,
    message: text,
  }),
);

const shortText = fc.stringMatching(/^[ -~]{0,30}$/);
const u8 = fc.integer({ min: 1, max: 255 });
const versions = fc.tuple(u8, u8).map(([a, b]) => ({
  versionMin: Math.min(a, b),
  versionMax: Math.max(a, b),
}));

export const hello: fc.Arbitrary<Hello> = fc.oneof(
  fc
    .record({ versions, features: u32, software: shortText })
    .map(({ versions: range, ...rest }) => ({ role: "client" as const, ...range, ...rest })),
  fc
    .record(
      {
        role: fc.constantFrom("peer-control" as const, "peer-bulk" as const),
        versions,
        features: u32,
        software: shortText,
        clusterId: shortText,
        nodeId,
        incarnation: shortText,
        address: shortText,
        http: shortText,
        configurationIndex: safeInteger,
        applyVersion: nodeId,
        applyVersionMax: nodeId,
        expectNodeId: nodeId,
      },
      {
        requiredKeys: [
          "role",
          "versions",
          "features",
          "software",
          "clusterId",
          "nodeId",
          "incarnation",
        ],
      },
    )
    .map(({ versions: range, ...rest }) => ({ ...range, ...rest })),
);

export const helloReply: fc.Arbitrary<HelloReply> = fc.record(
  {
    version: fc.integer({ min: 0, max: 255 }),
    features: u32,
    software: shortText,
    clusterId: shortText,
    nodeId,
    incarnation: shortText,
    frameBytesMax: nodeId,
    sectionBytesMax: nodeId,
    members: fc.dictionary(nodeId.map(String), shortText, { noNullPrototype: true }),
    leader: u32,
    http: shortText,
    applyVersion: nodeId,
    applyVersionMax: nodeId,
    error: fc.record({ code: shortText, message: shortText }, { noNullPrototype: true }),
  },
  {
    noNullPrototype: true,
    requiredKeys: [
      "version",
      "features",
      "software",
      "clusterId",
      "nodeId",
      "incarnation",
      "frameBytesMax",
      "sectionBytesMax",
      "members",
      "leader",
    ],
  },
);

export const notice: fc.Arbitrary<Notice> = fc.record({
  type: fc.constant("notice" as const),
  group: u32,
  term: safeInteger,
  leader: u32,
  configurationIndex: safeInteger,
  members: fc.dictionary(nodeId.map(String), fc.constantFrom("127.0.0.1:9091", "[::1]:9191"), {
    noNullPrototype: true,
  }),
});

export const followGroups: fc.Arbitrary<FollowGroups> = fc.oneof(
  fc.record({ type: fc.constant("followGroups" as const), all: fc.constant(false), group: u32 }),
  fc.constant({ type: "followGroups" as const, all: true, group: 0 }),
);

export const groupLeaders: fc.Arbitrary<GroupLeaders> = fc.record({
  type: fc.constant("groupLeaders" as const),
  version: safeInteger,
  whole: fc.boolean(),
  groups: fc.array(
    fc.record({
      group: u32,
      leader: u32,
      term: safeInteger,
      members: fc.array(u32, { maxLength: 7 }),
      gone: fc.boolean(),
    }),
    { maxLength: 20 },
  ),
});

export const anyMessage: fc.Arbitrary<AnyMessage> = fc.oneof(
  peerMessage,
  clientRequest,
  serverReply,
  watchMessage,
  fc.record({ type: fc.constantFrom("ping" as const, "pong" as const), nonce: safeInteger }),
  notice,
  followGroups,
  groupLeaders,
  fc.constant({ type: "accepted" as const }),
  hello.map((value) => ({ type: "hello" as const, hello: value })),
  helloReply.map((value) => ({ type: "helloReply" as const, reply: value })),
);

import { beforeEach, expect, test } from "bun:test";
import { BargeError, errorTable } from "../../src/errors.ts";
import { checkLimits, defaultLimits, type Limits } from "../../src/limits.ts";
import { type CloseReason, Connection } from "../../src/net/connection.ts";
import type { ByteSocket } from "../../src/net/socket.ts";
import { ClientServer } from "../../src/server/client-server.ts";
import type { AdminWaiter, ReadSink } from "../../src/server/groups.ts";
import { Tallies } from "../../src/telemetry/metrics.ts";
import {
  answerHeadBytes,
  decodeServerReply,
  encodeControl,
  encodeRead,
  encodeWrite,
} from "../../src/wire/client-messages.ts";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import { encodeKvGet, encodeKvPut } from "../../src/wire/kv.ts";
import { Consistency, type ReadReply, type ServerReply } from "../../src/wire/messages.ts";
import { readSectionResults } from "../../src/wire/section-results.ts";
import { layOutSection, plainSection, SectionKind } from "../../src/wire/section.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { FakeGroups } from "./fake-groups.ts";

const limits = checkLimits({
  ...defaultLimits,
  connectionRequestsMax: 4,
  connectionSessionsMax: 3,
  sendQueueBytesMax: 10_000,
  watchQueueBytesMax: 10_000,
  requestTimeoutMs: 700,
  requestTimeoutMsMax: 900,
});

/** A client at the other end of a socket that exists in memory only. */
class FakeClient implements ByteSocket {
  readonly remoteAddress = "test";
  readonly out = new SendBuffer();
  readonly connection: Connection;
  readonly replies: ServerReply[] = [];
  readonly closed: CloseReason[] = [];
  paused = false;
  writes = 0;
  /** What the socket takes at most. */
  room = Number.POSITIVE_INFINITY;
  readonly #reader: FrameReader;

  constructor(server: ClientServer, connectionLimits: Limits = limits) {
    this.#reader = new FrameReader(connectionLimits.frameBytesMax, (type, payload, fieldsBytes) => {
      const reply = decodeServerReply(type, payload, fieldsBytes);
      if (reply === undefined) throw new Error(`no reply: frame type ${type}`);
      this.replies.push(reply);
    });
    this.connection = new Connection(this, {
      epoch: 1,
      limits: connectionLimits,
      handler: { frame: () => {}, closed: () => {} },
      onGone: (_connection, reason) => this.closed.push(reason),
      silenceMsMax: 1_000,
      pingMs: 0,
    });
    this.connection.expect("client");
    server.accept(this.connection);
  }

  /** Sends what was encoded into `out`. */
  send(): void {
    for (let chunk = this.out.chunk(); chunk !== undefined; chunk = this.out.chunk()) {
      const bytes = chunk.slice();
      this.out.consume(bytes.byteLength);
      this.connection.received(bytes);
    }
  }

  write(bytes: Uint8Array): number {
    const taken = Math.min(this.room, bytes.byteLength);
    this.room -= taken;
    this.writes++;
    this.#reader.push(bytes.slice(0, taken));
    return taken;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  end(): void {}
  terminate(): void {}
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

let groups: FakeGroups;
let tallies: Tallies;
let wakes: number;
let server: ClientServer;
let client: FakeClient;

beforeEach(() => {
  groups = new FakeGroups();
  tallies = new Tallies();
  wakes = 0;
  server = new ClientServer({ groups, limits, tallies, wake: () => wakes++ });
  client = new FakeClient(server);
});

function put(request: number, ...values: readonly string[]): void {
  const section = plainSection(values.map((value, i) => encodeKvPut(bytes(`k${i}`), bytes(value))));
  encodeWrite(client.out, request, 0, 0, section);
  client.send();
}

function get(request: number, ...keys: readonly string[]): void {
  const queries = plainSection(keys.map((key) => encodeKvGet(bytes(key)))).subarray(40);
  encodeRead(client.out, request, 0, 500, Consistency.local, 20, keys.length, queries);
  client.send();
}

function answersOf(reply: ReadReply): { code: number; text: string }[] {
  const { buffer, byteOffset, byteLength } = reply.answers;
  const view = new DataView(buffer, byteOffset, byteLength);
  const answers = [];
  for (let at = 0; at < byteLength;) {
    const end = at + answerHeadBytes + view.getUint32(at + 4, true);
    const value = reply.answers.subarray(Math.min(at + answerHeadBytes + 8, end), end);
    answers.push({ code: view.getUint32(at, true), text: new TextDecoder().decode(value) });
    at = end;
  }
  return answers;
}

function errorReply(request: number, code: keyof typeof errorTable, outcome: string): object {
  const error = errorTable[code].number;
  return { type: "errorReply", request, error, outcome, message: expect.any(String) };
}

test("a section is written and answered, in one write for all replies of a turn", () => {
  put(1, "a", "b");
  put(2, "c");
  expect(client.replies).toEqual([]);
  expect(wakes).toBe(1);
  server.flush();
  expect(client.replies).toMatchObject([
    { type: "writeReply", request: 1, firstIndex: 1 },
    { type: "writeReply", request: 2, firstIndex: 3 },
  ]);
  expect(client.writes).toBe(1);
  expect(tallies).toMatchObject({ writeRequests: 2, writeCommands: 3, requestsWaiting: 0 });
});

test("exceptions of a section come by position", () => {
  const section = plainSection([encodeKvPut(bytes("k"), bytes("v")), bytes("no command")]);
  encodeWrite(client.out, 9, 0, 0, section);
  client.send();
  server.flush();
  const [reply] = client.replies;
  if (reply?.type !== "writeReply") throw new Error("no write reply");
  expect(readSectionResults(reply.results, 2)).toMatchObject([{ position: 1, code: 1 }]);
});

test("queries are answered in order, at one index", () => {
  put(1, "first", "second");
  get(2, "k1", "nothing", "k0");
  server.flush();
  const reply = client.replies[1] as ReadReply;
  expect(reply).toMatchObject({ type: "readReply", request: 2, appliedIndex: 2, count: 3 });
  expect(answersOf(reply)).toEqual([
    { code: 0, text: "second" },
    { code: 2, text: "" },
    { code: 0, text: "first" },
  ]);
  expect(groups.consistencies).toEqual([[Consistency.local, 20]]);
});

/** An application that answers when the test does. */
function answerLater(): { readonly query: Uint8Array; readonly sink: ReadSink }[] {
  const asked: { query: Uint8Array; sink: ReadSink }[] = [];
  groups.read = (_group, _consistency, _maxStalenessMs, _timeoutMs, waiter) =>
    waiter.ready({ read: (query, sink) => asked.push({ query, sink }), answersLater: true }, 7);
  return asked;
}

/** As a machine answers: a revision, and the value. */
const entry = (value: string): Uint8Array => bytes(`revision${value}`);

test("answers of an application come in any order, and make one reply once all are there", () => {
  const asked = answerLater();
  get(2, "k0", "k1", "k2");
  expect(asked.length).toBe(3);
  const view = entry("yes");
  asked[2]!.sink.answer(0, entry("last"));
  asked[0]!.sink.answer(0, view);
  view.fill(0);
  asked[0]!.sink.answer(0, entry("again"));
  server.flush();
  expect([client.replies.length, tallies.requestsWaiting]).toEqual([0, 1]);
  asked[1]!.sink.answer(6, entry("no such table"));
  server.flush();
  const reply = client.replies[0] as ReadReply;
  expect(reply).toMatchObject({ type: "readReply", request: 2, appliedIndex: 7, count: 3 });
  expect(answersOf(reply)).toEqual([
    { code: 0, text: "yes" },
    { code: 6, text: "no such table" },
    { code: 0, text: "last" },
  ]);
  expect(tallies.requestsWaiting).toBe(0);
});

test("an application's answers that do not fit the frame, and those to a connection that is gone", () => {
  const asked = answerLater();
  const small = checkLimits({
    ...defaultLimits,
    frameBytesMax: 2_500_000,
    txnBytesMax: 2_000_000,
  });
  server = new ClientServer({ groups, limits: small, tallies, wake: () => wakes++ });
  client = new FakeClient(server, small);
  get(2, "k0", "k1", "k2", "k3");
  const large = entry("x".repeat(1_000_000));
  for (const { sink } of asked.splice(0)) sink.answer(0, large);
  server.flush();
  const answers = answersOf(client.replies[0] as ReadReply);
  expect(answers.map(({ code, text }) => [code, text.length])).toEqual([
    [0, 1_000_000],
    [0, 1_000_000],
    [4, 0],
    [4, 0],
  ]);
  get(3, "k0");
  client.connection.socketClosed("closed by the other side");
  asked[0]!.sink.answer(0, large);
  server.flush();
  expect([client.replies.length, tallies.requestsWaiting]).toEqual([1, 0]);
});

test("answers that do not fit the frame are answered as too large, the others are there", () => {
  const value = "x".repeat(1_000_000);
  const small = checkLimits({
    ...defaultLimits,
    frameBytesMax: 2_500_000,
    txnBytesMax: 2_000_000,
  });
  server = new ClientServer({ groups, limits: small, tallies, wake: () => wakes++ });
  client = new FakeClient(server, small);
  put(1, value);
  get(2, "k0", "k0", "k0", "nothing");
  server.flush();
  const answers = answersOf(client.replies[1] as ReadReply);
  expect(answers.map(({ code, text }) => [code, text.length])).toEqual([
    [0, 1_000_000],
    [0, 1_000_000],
    [4, 0],
    [2, 0],
  ]);
});

test("time-outs are filled in and bounded", () => {
  put(1, "a");
  get(2, "a");
  encodeRead(
    client.out,
    3,
    0,
    1e9,
    Consistency.local,
    0,
    1,
    plainSection([bytes("q")]).subarray(40),
  );
  client.send();
  expect(groups.timeouts).toEqual([700, 500, 900]);
});

test("an error carries number, outcome, message and the leader", () => {
  groups.fail = new BargeError("not_leader", "Ask node 2.", { leaderHint: "10.0.0.2:9091" });
  put(1, "a");
  groups.fail = new BargeError("timeout", "Late.", { outcome: "not-applied" });
  get(2, "a");
  server.flush();
  expect(client.replies).toMatchObject([
    {
      ...errorReply(1, "not_leader", "not-applied"),
      message: "Ask node 2.",
      leaderHint: "10.0.0.2:9091",
    },
    errorReply(2, "timeout", "not-applied"),
  ]);
  expect(Object.fromEntries(tallies.refused)).toEqual({ not_leader: 1, timeout: 1 });
});

test("status is a control operation; an unknown one is refused and the connection lives on", () => {
  encodeControl(client.out, 1, "status", undefined);
  encodeControl(client.out, 2, "reboot", {});
  client.send();
  // On a busy machine the first may use up the time that a turn has for requests.
  for (let turns = 0; client.replies.length < 2 && turns < 100; turns++) server.flush();
  expect(client.replies).toMatchObject([
    { type: "controlReply", request: 1, body: groups.status() },
    errorReply(2, "bad_request", "not-applied"),
  ]);
  expect(client.closed).toEqual([]);
});

test("one connection opens so many sessions at most, until it has closed some or their time has passed", () => {
  let request = 0;
  const ask = (operation: string, body: unknown): void => {
    encodeControl(client.out, ++request, operation, body);
    client.send();
    for (let turns = 0; turns < 100; turns++) server.flush();
  };
  const next = (): AdminWaiter => groups.admins.shift()!.waiter;
  const opened = (session: number, ttlMs: number): object => ({ session, ttlMs });
  const { connectionSessionsMax: max } = limits;
  // What is on its way counts, and what failed as not applied does not.
  ask("sessionOpen", {});
  next().failed(new BargeError("no_leader", "none"));
  for (let count = 1; count <= max; count++) ask("sessionOpen", {});
  ask("sessionOpen", {});
  server.flush();
  expect(client.replies.at(-1)).toMatchObject(errorReply(request, "sessions_full", "not-applied"));
  // One may be open though nobody knows, and one has lived for as long as it may.
  next().failed(new BargeError("timeout", "no answer"));
  next().answered(opened(1, 0));
  for (let session = 2; session < max; session++) next().answered(opened(session, 600_000));
  ask("sessionOpen", {});
  next().answered(opened(max, 600_000));
  ask("sessionOpen", {});
  expect(groups.admins).toEqual([]);
  ask("sessionClose", { session: 2 });
  next().answered({});
  ask("sessionOpen", {});
  expect(groups.admins.length).toBe(1);
  ask("sessionOpen", {});
  expect(groups.admins.length).toBe(1);
});

test("sections that this node does not take are refused", () => {
  const control = { kind: SectionKind.control, session: 0, firstSeq: 0, doneUpTo: 0 };
  encodeWrite(client.out, 1, 0, 0, layOutSection([bytes("any")], control));
  const half = new Uint8Array(limits.sectionBytesMax / 2);
  encodeWrite(client.out, 2, 0, 0, plainSection([half, half]));
  client.send();
  server.flush();
  expect(client.replies).toMatchObject([
    errorReply(1, "bad_request", "not-applied"),
    errorReply(2, "too_large", "not-applied"),
  ]);
  expect(groups.lastIndex).toBe(0);
});

/** One command of a session. */
function encodeInSession(request: number, firstSeq: number, session = 5): void {
  const identity = { kind: SectionKind.session, session, firstSeq, doneUpTo: 0 };
  const section = layOutSection([encodeKvPut(bytes("k"), bytes(`${firstSeq}`))], identity);
  encodeWrite(client.out, request, 0, 0, section);
}

function writeInSession(request: number, firstSeq: number, session = 5): void {
  encodeInSession(request, firstSeq, session);
  client.send();
}

test("what follows a refused section of its session is refused, until what was refused comes again", () => {
  groups.fail = new BargeError("overloaded", "full");
  writeInSession(1, 1);
  groups.fail = undefined;
  writeInSession(2, 2);
  writeInSession(3, 3);
  // Another session does not suffer.
  writeInSession(4, 7, 6);
  put(5, "plain");
  for (const seq of [1, 2, 3, 4]) writeInSession(5 + seq, seq);
  server.flush();
  expect(client.replies).toMatchObject([
    errorReply(1, "overloaded", "not-applied"),
    errorReply(2, "sequence_gap", "not-applied"),
    errorReply(3, "sequence_gap", "not-applied"),
    ...[4, 5, 6, 7, 8, 9].map((request) => ({ type: "writeReply", request })),
  ]);
});

test("a later one that comes again is taken too: what was refused may have arrived on another way", () => {
  groups.fail = new BargeError("overloaded", "full");
  writeInSession(1, 1);
  groups.fail = undefined;
  writeInSession(2, 2);
  writeInSession(3, 2);
  writeInSession(4, 3);
  server.flush();
  expect(client.replies.map(({ type }) => type)).toEqual([
    "errorReply",
    "errorReply",
    "writeReply",
    "writeReply",
  ]);
});

test("a refusal that says nothing of what follows stands alone", () => {
  for (const code of ["timeout", "session_mismatch", "session_expired"] as const) {
    groups.fail = new BargeError(code, "no");
    writeInSession(1, 1);
    groups.fail = undefined;
    writeInSession(2, 2);
  }
  server.flush();
  expect(client.replies.map(({ type }) => type === "writeReply")).toEqual(
    [1, 2, 3].flatMap(() => [false, true]),
  );
});

test("one that is refused unread counts as well", () => {
  const small = checkLimits({ ...defaultLimits, inboxBytesMax: 130 });
  server = new ClientServer({ groups, limits: small, tallies, wake: () => wakes++ });
  client = new FakeClient(server);
  groups.hold = true;
  for (const seq of [1, 2, 3, 4]) encodeInSession(seq, seq);
  client.send();
  server.flush();
  // Two fit; the third ends the reading, and the fourth is read only when there is room.
  groups.hold = false;
  groups.release();
  server.flush();
  server.flush();
  expect(client.replies).toMatchObject([
    errorReply(3, "overloaded", "not-applied"),
    { type: "writeReply", request: 1 },
    { type: "writeReply", request: 2 },
    errorReply(4, "sequence_gap", "not-applied"),
  ]);
});

test("too many waiting requests stop the reading of that socket, until half are answered", () => {
  groups.hold = true;
  for (let request = 1; request <= 3; request++) put(request, "v");
  expect(client.paused).toBe(false);
  put(4, "v");
  expect(client.paused).toBe(true);
  expect(tallies.requestsWaiting).toBe(4);
  groups.release();
  server.flush();
  expect(client.paused).toBe(false);
  expect(client.replies).toHaveLength(4);
  expect(tallies.requestsWaiting).toBe(0);
});

test("a client that does not read is not read either, and goes on when it reads again", () => {
  put(1, "x".repeat(8_000));
  server.flush();
  client.room = 0;
  get(2, "k0");
  get(3, "k0");
  server.flush();
  expect(client.paused).toBe(true);
  client.room = Number.POSITIVE_INFINITY;
  client.connection.drained();
  expect(client.paused).toBe(false);
  expect(client.replies).toHaveLength(3);
});

test("answers to a connection that is gone are dropped", () => {
  groups.hold = true;
  put(1, "v");
  get(2, "k0");
  client.connection.socketClosed("closed by the other side");
  expect([server.connectionCount, tallies.clientConnections, tallies.requestsWaiting]).toEqual([
    0, 0, 0,
  ]);
  groups.release();
  server.flush();
  expect(groups.lastIndex).toBe(1);
  expect(client.writes).toBe(0);
});

test("malformed requests close the connection and touch nothing", () => {
  const section = plainSection([encodeKvPut(bytes("k"), bytes("v"))]);
  section[section.byteLength - 1]! ^= 1;
  encodeWrite(client.out, 1, 0, 0, section);
  client.send();
  expect(client.closed).toEqual(["malformed message"]);
  expect(groups.lastIndex).toBe(0);
  expect(tallies.clientConnectionsCut).toBe(1);
});

test("while stopping, new requests are refused and those under way are answered", () => {
  groups.hold = true;
  put(1, "v");
  server.stop();
  put(2, "v");
  get(3, "k0");
  groups.release();
  server.flush();
  expect(client.replies).toMatchObject([
    errorReply(2, "shutting_down", "not-applied"),
    errorReply(3, "shutting_down", "not-applied"),
    { type: "writeReply", request: 1 },
  ]);
  server.close();
  expect(client.closed).toEqual(["closed here"]);
  expect(server.connectionCount).toBe(0);
});

test("more than may wait is refused to whoever has more than its share, who is read again when there is room", () => {
  const small = checkLimits({ ...defaultLimits, inboxBytesMax: 1_000 });
  server = new ClientServer({ groups, limits: small, tallies, wake: () => wakes++ });
  const hog = new FakeClient(server);
  const polite = new FakeClient(server);
  groups.hold = true;
  const section = plainSection([encodeKvPut(bytes("key"), new Uint8Array(300))]);
  for (let request = 1; request <= 5; request++) encodeWrite(hog.out, request, 0, 0, section);
  hog.send();
  encodeWrite(polite.out, 1, 0, 0, section);
  polite.send();
  server.flush();
  // Two of the hog's fit. The third is refused and ends its reading; the fourth is not even looked at.
  expect(groups.heldCount).toBe(3);
  expect(hog.replies).toMatchObject([errorReply(3, "overloaded", "not-applied")]);
  expect([hog.paused, polite.paused]).toEqual([true, false]);
  expect(tallies.writeBytesWaiting).toBe(3 * section.byteLength);
  groups.release();
  server.flush();
  server.flush();
  expect(hog.paused).toBe(false);
  expect(groups.heldCount).toBe(2);
  groups.release();
  server.flush();
  expect(hog.replies.map(({ request }) => request)).toEqual([3, 1, 2, 4, 5]);
  expect(tallies.writeBytesWaiting).toBe(0);
});

test("a turn takes so many requests; the rest waits in its connection for the next", () => {
  const few = checkLimits({ ...defaultLimits, requestsPerTurn: 2 });
  server = new ClientServer({ groups, limits: few, tallies, wake: () => wakes++ });
  client = new FakeClient(server);
  const section = plainSection([encodeKvPut(bytes("key"), bytes("value"))]);
  for (let request = 1; request <= 5; request++) encodeWrite(client.out, request, 0, 0, section);
  client.send();
  const taken: number[] = [];
  for (let turn = 0; turn < 3; turn++) {
    taken.push(groups.lastIndex);
    server.flush();
  }
  expect(taken).toEqual([2, 4, 5]);
  server.flush();
  expect(client.replies.map(({ request }) => request)).toEqual([1, 2, 3, 4, 5]);
});

test("reads wait while their client does not take replies, and are answered when it does", () => {
  groups.entries.set("big", { key: bytes("big"), value: new Uint8Array(200_000), revision: 1 });
  const tight = checkLimits({
    ...defaultLimits,
    sendQueueBytesMax: 300_000,
    watchQueueBytesMax: 300_000,
  });
  server = new ClientServer({ groups, limits: tight, tallies, wake: () => wakes++ });
  client = new FakeClient(server, tight);
  client.room = 0;
  for (let request = 1; request <= 20; request++) get(request, "big");
  server.flush();
  server.flush();
  // One over the bound, never two.
  expect(client.connection.sendQueueBytes).toBeLessThan(600_000);
  expect(tallies.requestsWaiting).toBeGreaterThan(15);
  for (let turn = 0; turn < 100 && tallies.requestsWaiting > 0; turn++) {
    client.room = Number.POSITIVE_INFINITY;
    client.connection.drained();
    server.flush();
  }
  client.connection.drained();
  server.flush();
  expect(client.replies.map(({ request }) => request)).toEqual(
    Array.from({ length: 20 }, (_, i) => i + 1),
  );
});

test("a group that gives no answers takes no room from others on the same connection", () => {
  const small = checkLimits({ ...defaultLimits, inboxBytesMax: 1_000 });
  server = new ClientServer({ groups, limits: small, tallies, wake: () => wakes++ });
  const both = new FakeClient(server);
  for (const group of [1, 2]) groups.others.add(group);
  groups.stuck.add(1);
  const section = plainSection([encodeKvPut(bytes("key"), new Uint8Array(300))]);
  for (let request = 1; request <= 8; request++) encodeWrite(both.out, request, 1, 0, section);
  encodeWrite(both.out, 9, 2, 0, section);
  both.send();
  server.flush();
  // All that it had was of the stuck group: it was not read on until there was room.
  expect(both.paused).toBe(true);
  groups.release();
  server.flush();
  server.flush();
  groups.release();
  for (let turn = 0; turn < 4; turn++) {
    server.flush();
    groups.release();
  }
  server.flush();
  expect(both.paused).toBe(false);
  // Something of the other group is under way: it is read on, whatever the stuck one has.
  groups.stuck.add(2);
  const little = plainSection([encodeKvPut(bytes("key"), new Uint8Array(10))]);
  encodeWrite(both.out, 10, 2, 0, little);
  for (let request = 11; request <= 18; request++) encodeWrite(both.out, request, 1, 0, section);
  both.send();
  groups.stuck.delete(2);
  encodeWrite(both.out, 19, 2, 0, little);
  both.send();
  server.flush();
  expect(both.paused).toBe(false);
  const answered = both.replies.filter(({ request }) => request === 19);
  expect(answered).toMatchObject([{ type: "writeReply" }]);
  expect(tallies.writeBytesWaiting).toBeLessThanOrEqual(2_000);
  groups.release();
  server.flush();
  expect(tallies.writeBytesWaiting).toBe(0);
});

test("a connection's sessions are counted for each group by itself", () => {
  const open = (request: number, group: number): void => {
    encodeControl(client.out, request, "sessionOpen", { group });
    client.send();
    server.flush();
  };
  const answer = (session: number): void =>
    groups.admins.shift()!.waiter.answered({ session, ttlMs: 60_000, windowSections: 1 });
  for (let i = 0; i < 3; i++) {
    for (const group of [1, 2]) {
      open(i * 2 + group, group);
      answer(100 + i);
    }
  }
  expect(client.replies.every(({ type }) => type === "controlReply")).toBe(true);
  open(10, 1);
  expect(groups.admins).toEqual([]);
  expect(client.replies.at(-1)).toMatchObject(errorReply(10, "sessions_full", "not-applied"));
  // The same id in another group is another session.
  encodeControl(client.out, 11, "sessionClose", { group: 2, session: 101 });
  client.send();
  server.flush();
  groups.admins.shift()!.waiter.answered({});
  open(12, 1);
  expect(client.replies.at(-1)).toMatchObject(errorReply(12, "sessions_full", "not-applied"));
  open(13, 2);
  answer(200);
  server.flush();
  expect(client.replies.at(-1)).toMatchObject({ type: "controlReply", request: 13 });
});

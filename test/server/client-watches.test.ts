/** The binary door for watches: what a client may ask, what it is sent, and what happens to one that does not keep to it. */
import { beforeEach, expect, test } from "bun:test";
import { BargeError, errorTable } from "../../src/errors.ts";
import { checkLimits, defaultLimits } from "../../src/limits.ts";
import { type CloseReason, Connection } from "../../src/net/connection.ts";
import type { ByteSocket } from "../../src/net/socket.ts";
import { ClientServer } from "../../src/server/client-server.ts";
import type { Changes } from "../../src/server/groups.ts";
import { Tallies } from "../../src/telemetry/metrics.ts";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import {
  decodeWatchReply,
  encodeWatch,
  encodeWatchCredit,
  encodeWatchStop,
  type KvChange,
  readWatchChanges,
  type WatchReply,
} from "../../src/wire/watch-messages.ts";
import { ChangeList } from "../wire/messages.ts";
import { FakeGroups } from "./fake-groups.ts";

const limits = checkLimits({ ...defaultLimits, connectionWatchesMax: 3, watchQueueBytesMax: 500 });
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A client at the other end of a socket that exists in memory only. */
class FakeClient implements ByteSocket {
  readonly remoteAddress = "test";
  readonly out = new SendBuffer();
  readonly connection: Connection;
  readonly replies: WatchReply[] = [];
  readonly closed: CloseReason[] = [];
  /** What the socket takes at most. */
  room = Number.POSITIVE_INFINITY;
  readonly #reader = new FrameReader(limits.frameBytesMax, (type, payload, fieldsBytes) => {
    this.replies.push(decodeWatchReply(type, payload, fieldsBytes)!);
  });

  constructor(door: ClientServer) {
    this.connection = new Connection(this, {
      epoch: 1,
      limits,
      handler: { frame: () => {}, closed: () => {} },
      onGone: (_connection, reason) => this.closed.push(reason),
      silenceMsMax: 1_000,
      pingMs: 0,
    });
    this.connection.expect("client");
    door.accept(this.connection);
  }

  send(): void {
    for (let chunk = this.out.chunk(); chunk !== undefined; chunk = this.out.chunk()) {
      const sent = chunk.slice();
      this.out.consume(sent.byteLength);
      this.connection.received(sent);
    }
    server.flush();
  }

  watch(number: number, prefix = "p", more: { from?: number; windowBytes?: number } = {}): void {
    const { from = 5, windowBytes = 1_000 } = more;
    encodeWatch(this.out, {
      watch: number,
      group: 0,
      windowBytes,
      from,
      exact: false,
      prefix: bytes(prefix),
    });
    this.send();
  }

  write(chunk: Uint8Array): number {
    const taken = Math.min(this.room, chunk.byteLength);
    this.room -= taken;
    this.#reader.push(chunk.slice(0, taken));
    return taken;
  }

  pause(): void {}
  resume(): void {}
  end(): void {}
  terminate(): void {}
}

class ChangesOf extends ChangeList implements Changes {
  readonly count: number;
  readonly byteLength: number;

  constructor(changes: readonly KvChange[]) {
    super(changes);
    this.count = changes.length;
    this.byteLength = 0;
  }
}

const change = (revision: number, valueBytes = 3): KvChange => ({
  revision,
  key: bytes("p1"),
  value: new Uint8Array(valueBytes),
});

let groups: FakeGroups;
let server: ClientServer;
let client: FakeClient;

beforeEach(() => {
  groups = new FakeGroups();
  server = new ClientServer({ groups, limits, tallies: new Tallies(), wake: () => {} });
  client = new FakeClient(server);
});

test("a watch is asked of its group, and told where it begins, what changes, and how it ends", () => {
  client.watch(7);
  expect(groups.watches[0]!.request).toMatchObject({ from: 5, exact: false, prefix: bytes("p") });
  expect(client.replies).toMatchObject([{ type: "watchChanges", watch: 7, revision: 4, count: 0 }]);
  const { watcher } = groups.watches[0]!;
  const told = [change(6), { revision: 9, key: bytes("p2"), value: undefined }];
  watcher.changed(9, new ChangesOf(told));
  watcher.ended(9, new BargeError("compacted", "Gone."));
  server.flush();
  const [, changes, end] = client.replies;
  expect(changes).toMatchObject({ type: "watchChanges", revision: 9, count: 2 });
  if (changes?.type === "watchChanges") expect(readWatchChanges(changes)).toEqual(told);
  const error = errorTable.compacted.number;
  expect(end).toEqual({ type: "watchEnded", watch: 7, revision: 9, error, message: "Gone." });
  // What crosses with that is no error.
  encodeWatchCredit(client.out, 7, 100);
  encodeWatchStop(client.out, 7);
  client.send();
  expect(client.closed).toEqual([]);
});

test("it has room while the client lets more come, and while the connection takes it", () => {
  client.watch(1, "p", { windowBytes: 40 });
  const { watcher } = groups.watches[0]!;
  expect(watcher.hasRoom).toBe(true);
  watcher.changed(6, new ChangesOf([change(6, 30)]));
  expect(watcher.hasRoom).toBe(false);
  encodeWatchCredit(client.out, 1, 4);
  client.send();
  expect(watcher.hasRoom).toBe(false);
  encodeWatchCredit(client.out, 1, 1_000);
  client.send();
  expect(watcher.hasRoom).toBe(true);
  expect(groups.resumed).toBe(2);
  client.room = 0;
  watcher.changed(7, new ChangesOf([change(7, 600)]));
  server.flush();
  expect(watcher.hasRoom).toBe(false);
  client.room = Number.POSITIVE_INFINITY;
  client.connection.drained();
  expect(watcher.hasRoom).toBe(true);
});

test("credit has a bound, however much is promised", () => {
  client.watch(1, "p", { windowBytes: 0xffff_ffff });
  const { watcher } = groups.watches[0]!;
  for (let i = 0; i < 5; i++) encodeWatchCredit(client.out, 1, 0xffff_ffff);
  client.send();
  let frames = 0;
  for (; watcher.hasRoom; frames++) {
    watcher.changed(6 + frames, new ChangesOf([change(6 + frames, 1_000_000)]));
    server.flush();
  }
  expect(frames).toBe(Math.ceil(limits.watchWindowBytesMax / 1_000_014));
});

test("refusals are said for that watch alone", () => {
  groups.fail = new BargeError("no_leader", "Nobody leads.");
  client.watch(1);
  groups.fail = undefined;
  client.watch(2, "x".repeat(limits.keyBytesMax + 1));
  for (const number of [3, 4, 5, 6]) client.watch(number);
  const ends = client.replies.filter(({ type }) => type === "watchEnded");
  expect(ends).toMatchObject([
    { watch: 1, revision: 4, error: errorTable.no_leader.number },
    { watch: 2, error: errorTable.too_large.number },
    { watch: 6, error: errorTable.overloaded.number },
  ]);
  expect(client.closed).toEqual([]);
  encodeWatchStop(client.out, 3);
  client.send();
  client.watch(6);
  expect(groups.watches.length).toBe(3);
});

test("a number is used once, and what makes no sense ends the connection, with its watches", () => {
  client.watch(1);
  client.watch(2);
  expect(groups.watches.length).toBe(2);
  client.watch(2);
  expect(client.closed).toEqual(["malformed message"]);
  expect(groups.watches).toEqual([]);
});

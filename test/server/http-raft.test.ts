/**
 * The API of raftd over HTTP, before a node that is made up: what is asked of it, what is answered, every documented code, and all of it over HTTP/2 too. How it
 * goes with real nodes and applications is tested in test/e2e/.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { connect } from "node:http2";
import { BargeError, type ErrorCode, errorTable } from "../../src/errors.ts";
import { checkLimits, defaultLimits } from "../../src/limits.ts";
import type { ReadWaiter, WriteWaiter } from "../../src/server/groups.ts";
import { type HttpServer, startHttpServer } from "../../src/server/http-server.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { SectionResults } from "../../src/wire/section-results.ts";
import { sectionHeaderBytes } from "../../src/wire/section.ts";
import { FakeGroups } from "./fake-groups.ts";

const limits = checkLimits({ ...defaultLimits, valueBytesMax: 1_000, inboxBytesMax: 2_500 });

/** Answers what it is asked with the bytes reversed, later, as an application does. */
class ApplicationGroups extends FakeGroups {
  override machine = "http";
  readonly commands: Uint8Array[] = [];
  /** Of the next answer. */
  code = 0;
  neverAnswers = false;

  override write(
    group: number,
    section: Uint8Array,
    header: Parameters<FakeGroups["write"]>[2],
    timeoutMs: number,
    waiter: WriteWaiter,
  ): void {
    this.timeouts.push(timeoutMs);
    if (this.fail !== undefined) return waiter.failed(this.fail);
    if (group !== 0) return waiter.failed(new BargeError("unknown_group", "There is none."));
    const command = section.slice(sectionHeaderBytes + 4, sectionHeaderBytes + header.bodyBytes);
    this.commands.push(command);
    const results = new SectionResults();
    const answer = command.toReversed();
    if (answer.byteLength > 0 || this.code > 0) results.add(0, this.code, answer);
    const index = ++this.lastIndex;
    setImmediate(() => waiter.applied(index, results.view()));
  }

  override read(
    group: number,
    consistency: Parameters<FakeGroups["read"]>[1],
    maxStalenessMs: number,
    _timeoutMs: number,
    waiter: ReadWaiter,
  ): void {
    this.consistencies.push([consistency, maxStalenessMs]);
    if (this.fail !== undefined) return waiter.failed(this.fail);
    if (group !== 0) return waiter.failed(new BargeError("unknown_group", "There is none."));
    const { code } = this;
    const read = (query: Uint8Array, sink: { answer: FakeAnswer }): void => {
      if (!this.neverAnswers) setImmediate(() => sink.answer(code, query.toReversed()));
    };
    waiter.ready({ read, answersLater: true }, this.lastIndex);
  }
}

type FakeAnswer = (code: number, bytes: Uint8Array | undefined) => void;

let groups: ApplicationGroups;
let server: HttpServer;
let base: string;

beforeEach(() => {
  groups = new ApplicationGroups();
  server = startHttpServer({
    groups,
    listen: { host: "127.0.0.1", port: 0 },
    metricsText: () => Promise.resolve(""),
    limits,
    tallies: new Metrics().tallies,
  });
  base = `http://127.0.0.1:${server.port}`;
});

afterEach(() => server.stop(0));

interface Reply {
  readonly status: number;
  readonly bytes: Uint8Array;
  readonly header: (name: string) => string | null | undefined;
}

type Ask = (
  method: string,
  path: string,
  body?: Uint8Array<ArrayBuffer> | string,
  headers?: Record<string, string>,
) => Promise<Reply>;

const overHttp1: Ask = async (method, path, body, headers = {}) => {
  const init = { method, headers, ...(body === undefined ? {} : { body }) };
  const response = await fetch(base + path, init);
  return {
    status: response.status,
    bytes: await response.bytes(),
    header: (name) => response.headers.get(name),
  };
};

const overHttp2: Ask = async (method, path, body, headers = {}) => {
  const session = connect(base);
  try {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    session.on("error", reject);
    const stream = session.request({ ...headers, ":method": method, ":path": path });
    const chunks: Buffer[] = [];
    let heads: Record<string, string | string[] | number | undefined> = {};
    stream.on("response", (given) => (heads = { ...given } as typeof heads));
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", reject);
    stream.on("end", () =>
      resolve({
        status: Number(heads[":status"]),
        bytes: new Uint8Array(Buffer.concat(chunks)),
        header: (name) => heads[name]?.toString(),
      }),
    );
    stream.end(body === undefined ? undefined : Buffer.from(body));
    return await promise;
  } finally {
    session.close();
  }
};

const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i);
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const json = ({ bytes }: Reply): { readonly error: { readonly code: string; outcome: string } } =>
  JSON.parse(text(bytes));

describe.each([
  ["HTTP/1.1", overHttp1],
  ["HTTP/2, clear text by prior knowledge", overHttp2],
])("%s", (_, ask) => {
  test("an update is handed over as it is, and answered with what the application said", async () => {
    for (const command of [everyByte, new Uint8Array(0), Buffer.from('{"a":"ü"}')]) {
      const sent = new Uint8Array(command);
      const { status, bytes, header } = await ask("POST", "/raft/update", sent);
      expect([status, header("content-type")]).toEqual([200, "application/octet-stream"]);
      expect(groups.commands.at(-1)).toEqual(sent);
      expect(bytes).toEqual(sent.toReversed());
      expect(header("barge-index")).toBe(String(groups.lastIndex));
    }
  });

  test("a read is relayed as it is, with the consistency that was asked for", async () => {
    for (const query of [everyByte, new Uint8Array(0)]) {
      const { status, bytes, header } = await ask("POST", "/raft/read", query);
      expect([status, header("content-type")]).toEqual([200, "application/octet-stream"]);
      expect(bytes).toEqual(query.toReversed());
      expect(header("barge-index")).toBe("0");
    }
    const local = "/raft/read?consistency=local&maxStalenessMs=250";
    expect((await ask("POST", local, "ab")).status).toBe(200);
    expect((await ask("GET", "/raft/read")).status).toBe(200);
    expect(groups.consistencies.at(-2)).toEqual([expect.anything(), 250]);
  });

  test.each([
    ["no_leader", 503, "not-applied"],
    ["not_leader", 503, "not-applied"],
    ["timeout", 504, "unknown"],
    ["outcome_unknown", 503, "unknown"],
    ["too_large", 413, "not-applied"],
    ["overloaded", 429, "not-applied"],
    ["shutting_down", 503, "not-applied"],
    ["disk_full", 507, "not-applied"],
    ["result_forgotten", 410, "applied"],
  ] as const)("the node's %s is %i, %s", async (code: ErrorCode, status, outcome) => {
    groups.fail = new BargeError(code, errorTable[code].help);
    const reply = await ask("POST", "/raft/update", "x");
    expect([reply.status, json(reply).error]).toMatchObject([status, { code, outcome }]);
  });

  test("a body over the bound, an unknown group and an unknown parameter are refused by name", async () => {
    const cases: readonly [string, string, string, number, string][] = [
      ["POST", "/raft/update", "x".repeat(1_001), 413, "too_large"],
      ["POST", "/raft/read", "x".repeat(1_001), 413, "too_large"],
      ["POST", "/raft/update?group=7", "x", 404, "unknown_group"],
      ["POST", "/raft/update?grup=7", "x", 400, "bad_request"],
      ["POST", "/raft/read?group=7", "x", 404, "unknown_group"],
      ["POST", "/raft/read?maxStalenessMs=5", "x", 400, "bad_request"],
      ["PUT", "/raft/update", "x", 405, "method_not_allowed"],
      ["POST", "/raft/updates", "x", 404, "no_such_path"],
      ["POST", "/raft/recruit_replica", "x", 400, "bad_request"],
    ];
    for (const [method, path, body, status, code] of cases) {
      const reply = await ask(method, path, body);
      expect([path, reply.status, json(reply).error.code]).toEqual([path, status, code]);
    }
    expect(groups.commands).toEqual([]);
  });
});

test("a GET whose body would be lost is refused", async () => {
  const socket = await raw(
    "GET /raft/read HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nab",
  );
  expect(socket).toStartWith("HTTP/1.1 400");
  expect(socket).toContain("send it by POST");
});

test("codes of the application become errors of a read", async () => {
  groups.code = 6;
  const reply = await overHttp1("POST", "/raft/read", "drowssap on");
  expect([reply.status, json(reply).error]).toMatchObject([
    502,
    { code: "application_failed", message: "no password", outcome: "not-applied" },
  ]);
  groups.code = 4;
  expect((await overHttp1("POST", "/raft/read", "x")).status).toBe(413);
  groups.code = 1;
  expect((await overHttp1("POST", "/raft/update", "x")).status).toBe(400);
});

test("an application that does not answer a read costs the time that was given, not more", async () => {
  groups.neverAnswers = true;
  const reply = await overHttp1("POST", "/raft/read?timeoutMs=30", "x");
  expect([reply.status, json(reply).error]).toMatchObject([
    504,
    { code: "timeout", outcome: "not-applied" },
  ]);
});

test("keys and values are refused where an application keeps the data", async () => {
  for (const [method, path] of [
    ["PUT", "/v1/kv/a"],
    ["GET", "/v1/kv/a"],
    ["DELETE", "/v1/kv/a"],
    ["GET", "/v1/kv?prefix=a"],
    ["POST", "/v1/txn"],
  ] as const) {
    const reply = await overHttp1(method, path, method === "GET" ? undefined : "{}");
    expect([path, reply.status, json(reply).error.code]).toEqual([path, 409, "wrong_machine"]);
  }
  expect(groups.commands).toEqual([]);
});

test("/hc and /rc: alive, not ready with the reason, ready, by group, and shut down for good", async () => {
  const ask = async (path: string): Promise<[number, string]> => {
    const { status, bytes } = await overHttp1("GET", path);
    return [status, text(bytes)];
  };
  groups.missing = ["group 0 waits for its application", "first start"];
  expect(await ask("/hc")).toEqual([200, "ok\n"]);
  expect(await ask("/rc")).toEqual([503, "group 0 waits for its application\nfirst start\n"]);
  expect(await ask("/rc?group=0")).toEqual([503, "group 0 waits for its application\n"]);
  expect((await ask("/rc?group=7"))[0]).toBe(404);
  groups.missing = [];
  expect(await ask("/rc")).toEqual([200, "ready\n"]);
  groups.isLeaving = true;
  expect(await ask("/rc")).toEqual([500, "shut down\n"]);
  expect(await ask("/hc")).toEqual([200, "ok\n"]);
});

test("members: what the leader says, in raftd's words", async () => {
  const pending = overHttp1("GET", "/raft/membership_info?group=0&timeoutMs=700");
  const { operation, body, waiter } = await asked();
  expect([operation, body]).toEqual(["members", { group: 0, timeoutMs: 700 }]);
  waiter.answered({
    group: 0,
    term: 4,
    leader: 2,
    commitIndex: 90,
    configurationIndex: 12,
    joint: false,
    removed: [3],
    members: [
      { id: 1, address: "a:1", role: "learner", leader: false, connected: true, bound: true },
      {
        id: 2,
        address: "b:1",
        role: "voter",
        leader: true,
        connected: true,
        matchIndex: 90,
        bound: true,
      },
    ],
  });
  expect(json(await pending)).toMatchObject({
    ShardID: 0,
    leader: { nodeID: 2, addr: "b:1" },
    members: [
      { nodeID: 1, addr: "a:1", role: "learner", leader: false },
      { nodeID: 2, addr: "b:1", role: "voter", leader: true, matchIndex: 90 },
    ],
    commitIndex: 90,
    removed: [3],
  });
});

test.each([
  ["recruit_replica", { ReplicaID: 4, ReplicaAddr: "n4:9091" }, { op: "add", address: "n4:9091" }],
  ["recruit_replica", { ReplicaID: 4, ReplicaAddr: "n4:9091", ShardID: 0 }, { op: "add" }],
  ["remove_replica", { ReplicaID: 4, ShardID: 0 }, { op: "remove" }],
])("%s %j is a change of members, answered 202 and empty", async (name, body, change) => {
  const pending = overHttp1("POST", `/raft/${name}`, JSON.stringify(body));
  const given = await asked();
  expect(given.operation).toBe("changeMembers");
  expect(given.body).toMatchObject({ group: 0, changes: [{ id: 4, ...change }] });
  // Also where it was so already.
  given.waiter.answered({ changed: false });
  const { status, bytes } = await pending;
  expect([status, bytes.byteLength]).toEqual([202, 0]);
});

test("a member's id that was removed is refused, as the node says it", async () => {
  const pending = overHttp1(
    "POST",
    "/raft/recruit_replica",
    '{"ReplicaID":3,"ReplicaAddr":"a:1","ShardID":0}',
  );
  (await asked()).waiter.failed(new BargeError("member_removed", errorTable.member_removed.help));
  const reply = await pending;
  expect([reply.status, json(reply).error.code]).toEqual([410, "member_removed"]);
});

test.each([
  ['{"ReplicaAddr":"a:1"}', "ReplicaID is missing"],
  ['{"ReplicaID":0,"ReplicaAddr":"a:1"}', "4294967294"],
  ['{"ReplicaID":4294967295,"ReplicaAddr":"a:1"}', "4294967294"],
  ['{"ReplicaID":9007199254740993,"ReplicaAddr":"a:1"}', "4294967294"],
  ['{"ReplicaID":18446744073709551615,"ReplicaAddr":"a:1"}', "4294967294"],
  ['{"ReplicaID":"4","ReplicaAddr":"a:1"}', "ReplicaID"],
  ['{"ReplicaID":4}', "ReplicaAddr"],
  ['{"ReplicaID":4,"ReplicaAddr":"a:1","ShardID":-1}', "ShardID"],
  ['{"ReplicaID":4,"ReplicaAddr":"a:1","Shard":1}', "Shard is unknown"],
  ["7", "The body must be a JSON object"],
  ["[]", "ReplicaID is missing"],
  ["", "JSON"],
])("%s is refused and says why: %s", async (body, words) => {
  const reply = await overHttp1("POST", "/raft/recruit_replica", body);
  expect(reply.status).toBe(400);
  expect(text(reply.bytes)).toContain(words);
  expect(groups.admins).toEqual([]);
});

test("a snapshot on request asks the node that was asked", async () => {
  const pending = overHttp1("POST", "/raft/snapshot?group=0");
  const { operation, waiter } = await asked();
  expect(operation).toBe("snapshot");
  waiter.answered({ index: 17 });
  expect(text((await pending).bytes)).toBe('{"index":17}\n');
});

test("an exported snapshot is the file of a backup", async () => {
  const pending = fetch(`${base}/raft/snapshot`);
  const opened = await asked();
  expect(opened.operation).toBe("backupOpen");
  opened.waiter.answered({
    group: 0,
    node: 7,
    clusterId: "c0ffee",
    machine: "http",
    index: 9,
    term: 1,
    applyVersion: 2,
    bytes: 3,
    chunkBytes: 1_024,
    software: "0",
  });
  const response = await pending;
  expect(response.headers.get("barge-index")).toBe("9");
  const read = await asked();
  expect(read.operation).toBe("backupRead");
  read.waiter.answered({ bytes: new Uint8Array([1, 2, 3]) });
  expect((await response.bytes()).byteLength).toBeGreaterThan(3);
});

test("a group that is known needs no making; another one is made for the application", async () => {
  groups.leaders.set(0, { group: 0, leader: 1, term: 1, members: [1], gone: false });
  expect((await overHttp1("POST", "/raft/new_shard", '{"ShardID":0}')).status).toBe(202);
  expect(groups.admins).toEqual([]);
  const pending = overHttp1("POST", "/raft/new_shard?timeoutMs=700", '{"ShardID":5}');
  const { operation, body, waiter } = await asked();
  expect([operation, body]).toEqual([
    "createGroups",
    { timeoutMs: 700, request: "new_shard:5", id: 5, machine: "http" },
  ]);
  waiter.answered({ groups: [] });
  expect((await pending).status).toBe(202);
  expect((await overHttp1("POST", "/raft/new_shard", "{}")).status).toBe(400);
});

/** What the node was asked for next. */
async function asked(): Promise<FakeGroups["admins"][number]> {
  for (;;) {
    const next = groups.admins.shift();
    if (next !== undefined) return next;
    await Bun.sleep(1);
  }
}

async function raw(request: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let answer = "";
  await Bun.connect({
    hostname: "127.0.0.1",
    port: server.port,
    socket: {
      open: (socket) => void socket.write(request),
      data: (_socket, chunk) => void (answer += chunk.toString()),
      close: () => resolve(answer),
    },
  });
  return promise;
}

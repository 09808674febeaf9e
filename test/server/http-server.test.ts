import { afterEach, beforeEach, expect, test } from "bun:test";
import { connect } from "node:net";
import { BargeError } from "../../src/errors.ts";
import { checkLimits, defaultLimits } from "../../src/limits.ts";
import { ListenError } from "../../src/net/listener.ts";
import { type HttpServer, startHttpServer } from "../../src/server/http-server.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { Consistency } from "../../src/wire/messages.ts";
import { FakeGroups } from "./fake-groups.ts";

const limits = checkLimits({ ...defaultLimits, valueBytesMax: 1_000, inboxBytesMax: 2_500 });
const loopback = { host: "127.0.0.1", port: 0 };

const sessions = { open: 0, requestIds: 0, bytes: 0, repeated: 0, refused: 0 };
const snapshots = { sent: 0, installed: 0, givenUp: 0, bytesSent: 0, bytesReceived: 0 };
const watches = {
  watches: 0,
  behind: 0,
  waiting: 0,
  changes: 0,
  bytes: 0,
  compacted: 0,
  outcomeBytes: 0,
};
const application = {
  absent: 0,
  updates: 0,
  entries: 0,
  failures: 0,
  underWay: 0,
  reads: 0,
  readWaiters: 0,
  snapshots: 0,
  restores: 0,
};
const queues = {
  inboxBytes: 1,
  waiters: 2,
  readWaiters: 3,
  forwards: 4,
  unsyncedBytes: 5,
  unappliedBytes: 6,
  tailCacheBytes: 7,
  memtableBytes: 8,
  kvWalBytes: 9,
  backups: 0,
};

const figures = { queues, snapshots, sessions, watches, application };

let groups: FakeGroups;
let metrics: Metrics;
let server: HttpServer;
let base: string;

beforeEach(() => {
  groups = new FakeGroups();
  metrics = new Metrics();
  metrics.observe(() => {
    const status = groups.status();
    const scrub = { passes: 0, bytes: 0, damages: 0 };
    const shared = {
      activeGroups: 1,
      tailCacheBytes: 2,
      memtableBytes: 3,
      logBytes: 4,
      tombstones: 0,
    };
    const node = { connections: 1, clientBytes: 2, kvOpenFiles: 3, shared, scrub, peers: [] };
    return {
      ...status,
      ...node,
      summary: { total: 1, leads: 1, leaderless: 0, stopped: 0, wounded: 0, large: 0 },
      groups: status.groups.map((group) => {
        const members = { voters: 1, learners: 0, woundedTo: 0, applyVersion: 1, stateBytes: 0 };
        return {
          name: String(group.id),
          always: false,
          figures: () => ({ ...group, ...members, ...figures }),
        };
      }),
    };
  });
  server = start({});
  base = `http://127.0.0.1:${server.port}`;
});

afterEach(() => server.stop(0));

function start(more: Partial<Parameters<typeof startHttpServer>[0]>): HttpServer {
  return startHttpServer({
    groups,
    listen: loopback,
    metricsText: () => metrics.text(),
    limits,
    tallies: metrics.tallies,
    ...more,
  });
}

async function call(
  method: string,
  target: string,
  body?: string | Uint8Array<ArrayBuffer> | ReadableStream,
): Promise<{ status: number; body: unknown; revision: string | null }> {
  const response = await fetch(base + target, { method, ...(body === undefined ? {} : { body }) });
  const json = response.headers.get("content-type") === "application/json";
  return {
    status: response.status,
    body: json ? await response.json() : await response.text(),
    revision: response.headers.get("barge-revision"),
  };
}

/** Sends a request line that no URL library has touched. */
async function raw(head: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let answer = "";
  const socket = connect(server.port, "127.0.0.1", () => socket.write(head, "latin1"));
  socket.setEncoding("latin1");
  socket.on("data", (text) => (answer += String(text)));
  socket.on("close", () => resolve(answer));
  socket.on("error", reject);
  return promise;
}

function error(code: string, outcome = "not-applied"): object {
  return { error: expect.objectContaining({ code, outcome, message: expect.any(String) }) };
}

test("put, get, delete: revisions are log indexes, values are verbatim", async () => {
  const value = new Uint8Array(256).map((_, i) => i);
  expect(await call("PUT", "/v1/kv/a", value)).toMatchObject({
    status: 200,
    body: { revision: 1 },
  });
  const got = await fetch(`${base}/v1/kv/a`);
  expect(got.status).toBe(200);
  expect(got.headers.get("barge-revision")).toBe("1");
  expect(new Uint8Array(await got.arrayBuffer())).toEqual(value);

  expect(await call("DELETE", "/v1/kv/a")).toMatchObject({
    status: 200,
    body: { revision: 2, deleted: true },
  });
  expect(await call("DELETE", "/v1/kv/a")).toMatchObject({ body: { revision: 3, deleted: false } });
  expect(await call("GET", "/v1/kv/a")).toMatchObject({ status: 404, body: error("not_found") });
});

test("an empty value is a value", async () => {
  await call("PUT", "/v1/kv/a");
  expect(await call("GET", "/v1/kv/a")).toEqual({ status: 200, body: "", revision: "1" });
});

test("HEAD answers like GET without the value", async () => {
  await call("PUT", "/v1/kv/a", "value");
  const head = await fetch(`${base}/v1/kv/a`, { method: "HEAD" });
  expect([head.status, head.headers.get("barge-revision"), await head.text()]).toEqual([
    200,
    "1",
    "",
  ]);
});

test("prevRevision compares first; a 409 carries the revision that is there", async () => {
  expect(await call("PUT", "/v1/kv/a?prevRevision=5", "x")).toMatchObject({
    status: 409,
    body: { ...error("compare_failed"), revision: 0 },
    revision: "0",
  });
  expect(await call("PUT", "/v1/kv/a?prevRevision=0", "x")).toMatchObject({ status: 200 });
  expect(await call("PUT", "/v1/kv/a?prevRevision=0", "y")).toMatchObject({
    status: 409,
    body: { revision: 2 },
  });
  expect(await call("DELETE", "/v1/kv/a?prevRevision=1")).toMatchObject({ status: 409 });
  expect(await call("DELETE", "/v1/kv/a?prevRevision=2")).toMatchObject({
    body: { deleted: true },
  });
});

test("keys are bytes: escapes of any kind reach the store untouched", async () => {
  const targets: readonly [string, readonly number[]][] = [
    ["/v1/kv/%FF%00%2f", [0xff, 0, 0x2f]],
    ["/v1/kv/a/b", [0x61, 0x2f, 0x62]],
    ["/v1/kv/a+b", [0x61, 0x2b, 0x62]],
    ["/v1/kv/%25", [0x25]],
    ["/v1/kv?key=..", [0x2e, 0x2e]],
    ["/v1/kv?key=%2E", [0x2e]],
    ["/v1/kv?key=%FF", [0xff]],
  ];
  for (const [target, key] of targets) {
    groups.entries.clear();
    const answer = await raw(
      `PUT ${target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx`,
    );
    expect(answer).toStartWith("HTTP/1.1 200");
    expect([...groups.entries.keys()]).toEqual([String.fromCharCode(...key)]);
  }
});

test("a key that cannot be a path segment is refused with the alternative", async () => {
  for (const target of ["/v1/kv/.", "/v1/kv/..", "/v1/kv/%2e%2e", "/v1/kv/"]) {
    const answer = await raw(
      `PUT ${target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx`,
    );
    expect(answer).toStartWith("HTTP/1.1 400");
    expect(answer).toContain("/v1/kv?key=");
  }
  expect(groups.lastIndex).toBe(0);
});

test("wrong requests are refused and nothing is written", async () => {
  const rows: readonly [string, string, number, string][] = [
    ["PUT", "/v1/kv/%zz", 400, "bad_request"],
    ["PUT", "/v1/kv/a?prevrevision=1", 400, "bad_request"],
    ["PUT", "/v1/kv/a?prevRevision=x", 400, "bad_request"],
    ["PUT", "/v1/kv/a?prevRevision=99999999999999999", 400, "bad_request"],
    ["PUT", "/v1/kv/a?group=0&group=0", 400, "bad_request"],
    ["PUT", "/v1/kv/a?group=5", 404, "unknown_group"],
    ["PUT", "/v1/kv/a?timeoutMs=0", 400, "bad_request"],
    ["PUT", "/v1/kv/a?timeoutMs=60001", 400, "bad_request"],
    ["PUT", "/v1/kv/a?consistency=local", 400, "bad_request"],
    ["PUT", `/v1/kv/${"k".repeat(4_097)}`, 413, "too_large"],
    ["GET", "/v1/kv/a?consistency=eventual", 400, "bad_request"],
    ["GET", "/v1/kv/a?maxStalenessMs=5", 400, "bad_request"],
    ["GET", "/v1/kv?limit=1001", 400, "bad_request"],
    ["GET", "/v1/kv?prefix=%", 400, "bad_request"],
    ["GET", "/v1/nothing", 404, "no_such_path"],
    ["GET", "/", 404, "no_such_path"],
    ["POST", "/v1/kv/a", 405, "method_not_allowed"],
    ["DELETE", "/v1/kv", 405, "method_not_allowed"],
    ["PUT", "/v1/status", 405, "method_not_allowed"],
    ["POST", "/livez", 405, "method_not_allowed"],
  ];
  for (const [method, target, status, code] of rows) {
    const answer = await call(method, target, method === "PUT" ? "x" : undefined);
    expect({ target, ...answer }).toMatchObject({ target, status, body: error(code) });
  }
  expect(groups.lastIndex).toBe(0);
});

test("a range is paged, with keys and values in base64", async () => {
  for (const key of ["a/1", "a/%FF", "b"]) await call("PUT", `/v1/kv/${key}`, `value of ${key}`);
  const first = await call("GET", "/v1/kv?prefix=a/&limit=1");
  expect(first.body).toEqual({
    items: [{ key: btoa("a/1"), value: btoa("value of a/1"), revision: 1 }],
    more: true,
    revision: 3,
    next: "a%2F1",
  });
  const { next } = first.body as { next: string };
  expect((await call("GET", `/v1/kv?prefix=a/&limit=1&after=${next}`)).body).toEqual({
    items: [{ key: btoa("a/\xff"), value: btoa("value of a/%FF"), revision: 2 }],
    more: false,
    revision: 3,
  });
  expect((await call("GET", "/v1/kv")).body).toMatchObject({ items: [{}, {}, {}], more: false });
});

test("consistency, staleness and time-out reach the group", async () => {
  await call("GET", "/v1/kv/a?consistency=local&maxStalenessMs=250&timeoutMs=1234");
  await call("GET", "/v1/kv?consistency=lease");
  await call("GET", "/v1/kv/a");
  expect(groups.consistencies).toEqual([
    [Consistency.local, 250],
    [Consistency.lease, 0],
    [Consistency.linearizable, 0],
  ]);
  expect(groups.timeouts).toEqual([1_234, limits.requestTimeoutMs, limits.requestTimeoutMs]);
});

test("an error of the group comes with its status, outcome and leader", async () => {
  groups.fail = new BargeError("not_leader", "Ask node 2.", { leaderHint: "10.0.0.2:9091" });
  expect(await call("PUT", "/v1/kv/a", "x")).toMatchObject({
    status: 503,
    body: {
      error: {
        code: "not_leader",
        message: "Ask node 2.",
        outcome: "not-applied",
        retryable: true,
        leader: "10.0.0.2:9091",
      },
    },
  });
  groups.fail = new BargeError("timeout", "No quorum.");
  expect(await call("PUT", "/v1/kv/a", "x")).toMatchObject({
    status: 504,
    body: error("timeout", "unknown"),
  });
  expect(metrics.tallies.refused.get("timeout")).toBe(1);
});

/** Puts under a request id; the group fails first in these ways, one attempt each. */
async function putAgain(
  errors: readonly BargeError[],
  timeoutMs: number,
): Promise<{ status: number; body: unknown; attempts: number }> {
  const write = FakeGroups.prototype.write.bind(groups);
  let attempts = 0;
  groups.write = (...request) => {
    groups.fail = errors[attempts++];
    write(...request);
  };
  const response = await fetch(`${base}/v1/kv/k?timeoutMs=${timeoutMs}`, {
    method: "PUT",
    body: "v",
    headers: { "barge-request-id": "one" },
  });
  return { status: response.status, body: await response.json(), attempts };
}

test("under a request id a write is sent again while contact with the leader is lost", async () => {
  const lost = new BargeError("outcome_unknown", "lost");
  const none = new BargeError("no_leader", "none");
  expect(await putAgain([lost, none, none], 5_000)).toMatchObject({ status: 200, attempts: 4 });
});

test("an attempt that may have been done makes the whole unknown; anything else ends it at once", async () => {
  const lost = new BargeError("outcome_unknown", "lost");
  const none = new BargeError("no_leader", "none");
  const full = new BargeError("overloaded", "full");
  expect(await putAgain([none, full], 5_000)).toMatchObject({
    body: error("overloaded"),
    attempts: 2,
  });
  expect(await putAgain([lost, full], 5_000)).toMatchObject({
    body: error("overloaded", "unknown"),
    attempts: 2,
  });
  const late = await putAgain([lost, ...Array<BargeError>(100).fill(none)], 100);
  expect(late).toMatchObject({ status: 503, body: error("no_leader", "unknown") });
  expect((await putAgain([new BargeError("session_mismatch", "")], 5_000)).body).toMatchObject(
    error("session_mismatch"),
  );
});

test("a body over the bound is refused, declared or not", async () => {
  const large = new Uint8Array(1_001);
  expect(await call("PUT", "/v1/kv/a", large)).toMatchObject({
    status: 413,
    body: error("too_large"),
  });
  const chunked = new ReadableStream({
    start(controller) {
      controller.enqueue(large);
      controller.close();
    },
  });
  expect(await call("PUT", "/v1/kv/a", chunked)).toMatchObject({
    status: 413,
    body: error("too_large"),
  });
  expect(await call("PUT", "/v1/kv/a", large.subarray(1))).toMatchObject({ status: 200 });
});

test("all bodies together are bounded, and the bound is given back", async () => {
  groups.hold = true;
  const body = new Uint8Array(1_000);
  const waiting = [call("PUT", "/v1/kv/a", body), call("PUT", "/v1/kv/b", body)];
  while (groups.heldCount < 2) await Bun.sleep(1);
  expect(await call("PUT", "/v1/kv/c", body)).toMatchObject({
    status: 429,
    body: error("overloaded"),
  });
  groups.hold = false;
  groups.release();
  expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([200, 200]);
  expect(await call("PUT", "/v1/kv/c", body)).toMatchObject({ status: 200 });
});

test("status, health and metrics", async () => {
  expect((await call("GET", "/v1/status")).body).toEqual(
    JSON.parse(JSON.stringify(groups.status())),
  );
  for (const path of ["/livez", "/hc", "/readyz"]) {
    expect(await call("GET", path)).toMatchObject({ status: 200, body: "ok\n" });
  }
  groups.missing = ["group 0 has no leader", "recovering"];
  expect(await call("GET", "/readyz")).toMatchObject({
    status: 503,
    body: "group 0 has no leader\nrecovering\n",
  });
  const { body } = await call("GET", "/metrics");
  expect(body).toContain('barge_group_is_leader{group="0"} 1');
  expect(body).toMatch(/^barge_http_requests_total \d+$/m);
});

test("who asks for a group that is elsewhere is told where, as far as that is known", async () => {
  const leaderHint = "10.0.0.4:9091";
  groups.fail = new BargeError("group_elsewhere", "Group 5 is on the nodes 4.", { leaderHint });
  const path = "/v1/kv/a?consistency=local";
  const blind = await fetch(base + path);
  expect([blind.status, blind.headers.get("location")]).toEqual([421, null]);
  groups.doors.set(leaderHint, "10.0.0.4:9090");
  const led = await fetch(base + path);
  expect([led.status, led.headers.get("location")]).toEqual([421, `http://10.0.0.4:9090${path}`]);
  expect(await led.json()).toMatchObject({
    error: { code: "group_elsewhere", leader: leaderHint, leaderHttp: "10.0.0.4:9090" },
  });
});

test("metrics can have a port of their own, which serves nothing else", async () => {
  await using own = Object.assign(start({ metricsListen: loopback }), {
    [Symbol.asyncDispose]: (): Promise<void> => own.stop(0),
  });
  const response = await fetch(`http://127.0.0.1:${own.metricsPort}/metrics`);
  expect(await response.text()).toContain("barge_build_info");
  expect((await fetch(`http://127.0.0.1:${own.metricsPort}/v1/status`)).status).toBe(404);
});

test("a taken port is a typed error, and nothing stays open", async () => {
  const taken = { host: "127.0.0.1", port: server.port };
  expect(() => start({ listen: taken })).toThrow(ListenError);
  expect(() => start({ metricsListen: taken })).toThrow(
    `127.0.0.1:${server.port} is already in use`,
  );
});

test("stopping finishes what is under way and refuses what is new", async () => {
  groups.hold = true;
  const waiting = call("PUT", "/v1/kv/a", "x");
  while (groups.heldCount < 1) await Bun.sleep(1);
  const stopped = server.stop(5_000);
  groups.release();
  expect(await waiting).toMatchObject({ status: 200 });
  await stopped;
  await expect(fetch(`${base}/livez`)).rejects.toThrow();
});

/** Where requests go and what becomes of them when nodes refuse, fall silent or go away. */
import { expect, test } from "bun:test";
import { BargeError, connect } from "../../src/client/index.ts";
import { commandsOf, countOf, entry, FakeNode, type Received } from "./fake-node.ts";

function applyAll(node: FakeNode, request: Received): void {
  if (request.type === "write") node.applied(request);
  if (request.type === "read")
    node.read(request, () => ({ code: 0, bytes: entry(1, `${node.nodeId}`) }));
}

const notLeader = (hint?: string): BargeError =>
  new BargeError("not_leader", "not me", hint === undefined ? {} : { leaderHint: hint });

test("answers may come in any order", async () => {
  using node = new FakeNode();
  // With a session those that wait for it to be opened would go together.
  await using client = connect({ endpoints: node.endpoint, session: false });
  const writes = [];
  for (let i = 0; i < 200; i++) {
    writes.push(client.put(`${i}`, "v"));
    // A turn of the loop: a section each.
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  await node.until(() => node.writes.length === 200);
  expect(node.connections.length).toBe(1);
  const order = node.writes.toReversed();
  order.push(...order.splice(0, 77));
  const indexOf = new Map<string, number>();
  for (const request of order) {
    const key = new TextDecoder().decode(commandsOf(request)[0]!.subarray(8)).slice(0, -1);
    indexOf.set(key, node.applied(request));
  }
  const revisions = (await Promise.all(writes)).map(({ revision }) => revision);
  expect(revisions).toEqual(Array.from({ length: 200 }, (_, i) => indexOf.get(`${i}`)!));
});

test("the hello's leader is followed, though it was not among the endpoints", async () => {
  using leader = new FakeNode(2);
  using follower = new FakeNode(1);
  leader.answer = applyAll;
  follower.answer = applyAll;
  const members = { "1": follower.endpoint, "2": leader.endpoint };
  follower.hello = { members, leader: 2 };
  await using client = connect({ endpoints: follower.endpoint });
  // Any node takes any request: the first may go through the follower while the leader is dialled.
  await client.put("a", "1");
  await leader.until(() => leader.connections.length === 1);
  await client.put("b", "2");
  await client.put("c", "3");
  expect(leader.writes.length).toBeGreaterThanOrEqual(1);
  expect(client.leader()).toBe(leader.endpoint);
  expect(client.endpoints()).toEqual([follower.endpoint, leader.endpoint]);
});

test("a refusal with a hint is followed at once, with the same bytes", async () => {
  using first = new FakeNode(1);
  using second = new FakeNode(2);
  first.answer = (node, request) => node.refuse(request, notLeader(second.endpoint));
  second.answer = applyAll;
  await using client = connect({ endpoints: first.endpoint });
  expect(await client.put("k", "v")).toEqual({ revision: 1 });
  expect(second.writes[0]!.section).toEqual(first.writes[0]!.section);
  expect(client.leader()).toBe(second.endpoint);
});

test("hints that go round in a circle are followed a few times, then with pauses, until the deadline", async () => {
  using first = new FakeNode(1);
  using second = new FakeNode(2);
  first.answer = (node, request) => node.refuse(request, notLeader(second.endpoint));
  second.answer = (node, request) => node.refuse(request, notLeader(first.endpoint));
  await using client = connect({ endpoints: first.endpoint, timeoutMs: 1_000 });
  await expect(client.put("k", "v")).rejects.toMatchObject({
    code: "not_leader",
    outcome: "not-applied",
  });
  const tries = first.writes.length + second.writes.length;
  expect(tries).toBeGreaterThan(5);
  expect(tries).toBeLessThan(200);
});

test("what was refused as not applied is tried again; what may have been applied is not", async () => {
  using node = new FakeNode();
  let refusals = 3;
  node.answer = (_, request) => {
    if (refusals-- > 0) node.refuse(request, new BargeError("overloaded", "full"));
    else node.applied(request);
  };
  await using client = connect({ endpoints: node.endpoint });
  expect(await client.put("k", "v")).toEqual({ revision: 1 });
  expect(node.writes.length).toBe(4);

  node.answer = (_, request) =>
    node.refuse(request, new BargeError("outcome_unknown", "lost leadership"));
  await expect(client.put("k", "v")).rejects.toMatchObject({
    code: "outcome_unknown",
    outcome: "unknown",
  });
  node.answer = (_, request) => node.refuse(request, new BargeError("too_large", "no"));
  await expect(client.put("k", "v")).rejects.toMatchObject({
    code: "too_large",
    outcome: "not-applied",
  });
  expect(node.writes.length).toBe(6);
});

test("a lost connection makes sent writes unknown and asks reads again", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint });
  const write = client.put("k", "v");
  const read = client.get("k");
  await node.until(() => node.received.length === 2);
  node.cut();
  await expect(write).rejects.toMatchObject({ code: "outcome_unknown", outcome: "unknown" });
  await node.until(() => node.reads.length === 2);
  node.read(node.reads[1]!, () => ({ code: 0, bytes: entry(3, "v") }));
  expect(await read).toMatchObject({ revision: 3 });
  expect(node.writes.length).toBe(1);
});

test("writes whose bytes had not left are sent again on the next connection", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint });
  const first = Promise.allSettled([client.put("first", "v")]);
  await node.until(() => node.writes.length === 1);
  // The node stops reading, so that most of these stay in this process.
  node.connections[0]!.pause();
  const value = new Uint8Array(200 * 1024);
  const many = Promise.allSettled(Array.from({ length: 100 }, (_, i) => client.put(`${i}`, value)));
  await new Promise<void>((resolve) => setTimeout(resolve, 20));
  node.answer = applyAll;
  node.cut();
  expect(await first).toMatchObject([{ reason: { outcome: "unknown" } }]);
  const settled = await many;
  const unknown = settled.filter((each) => each.status === "rejected");
  for (const each of unknown) expect(each.reason).toMatchObject({ code: "outcome_unknown" });
  const written = settled.length - unknown.length;
  // A few MiB fit the buffers of both kernels: these are unknown, the rest was written exactly once.
  expect(unknown.length).toBeGreaterThan(0);
  expect(written).toBeGreaterThan(50);
  expect(node.writes.reduce((sum, request) => sum + countOf(request), 0)).toBe(1 + written);
});

test("a write that nobody answers is unknown at its deadline, a read is asked elsewhere", async () => {
  using silent = new FakeNode(1);
  using other = new FakeNode(2);
  other.answer = applyAll;
  silent.hello = { members: { "1": silent.endpoint, "2": other.endpoint }, leader: 1 };
  await using client = connect({ endpoints: silent.endpoint, attemptTimeoutMs: 100 });
  const write = client.put("k", "v", { timeoutMs: 250 });
  const read = client.get("k");
  // The node is slow, yet alive: it answers pings. So the write waits for all of its time.
  const beganMs = performance.now();
  await expect(write).rejects.toMatchObject({ code: "timeout", outcome: "unknown" });
  expect(performance.now() - beganMs).toBeGreaterThan(200);
  expect(new TextDecoder().decode((await read)!.value)).toBe("2");
  expect(silent.writes.length + other.writes.length).toBe(1);
});

test("a node that is stopped is passed over before its connection is given up", async () => {
  using stopped = new FakeNode(1);
  using other = new FakeNode(2);
  stopped.answer = applyAll;
  other.answer = applyAll;
  stopped.hello = { members: { "1": stopped.endpoint, "2": other.endpoint }, leader: 1 };
  await using client = connect({ endpoints: stopped.endpoint, attemptTimeoutMs: 400 });
  await client.put("k", "before");
  // Neither requests nor pings are read any more, as with SIGSTOP.
  stopped.connections[0]!.pause();
  const beganMs = performance.now();
  const lost = Promise.allSettled([client.put("k", "lost")]).then(([each]) => {
    expect(each).toMatchObject({ reason: { code: "outcome_unknown", outcome: "unknown" } });
    return performance.now() - beganMs;
  });
  const tries: Promise<unknown>[] = [];
  while (other.writes.length === 0) {
    tries.push(client.put("k", "later").catch((error: unknown) => error));
    await new Promise<void>((resolve) => setTimeout(resolve, 20));
  }
  const passedOverMs = performance.now() - beganMs;
  const lostMs = await lost;
  expect(passedOverMs).toBeLessThan(lostMs);
  expect(lostMs).toBeLessThan(1_500);
  await Promise.all(tries);
});

test("no node at all: unreachable, not applied, with the reasons", async () => {
  const gone = new FakeNode();
  const { endpoint } = gone;
  gone[Symbol.dispose]();
  await using client = connect({ endpoints: endpoint, timeoutMs: 200 });
  const settled = await Promise.allSettled([
    client.put("k", "v"),
    client.get("k"),
    client.status(),
  ]);
  for (const each of settled) {
    expect(each).toMatchObject({ reason: { code: "unreachable", outcome: "not-applied" } });
    expect(String((each as PromiseRejectedResult).reason)).toContain(endpoint);
  }
  const beganMs = performance.now();
  await expect(client.status(endpoint, { timeoutMs: 5_000 })).rejects.toMatchObject({
    code: "unreachable",
  });
  expect(performance.now() - beganMs).toBeLessThan(1_500);
});

test("a node that comes back is found again", async () => {
  const before = new FakeNode();
  before.answer = applyAll;
  const { port, endpoint } = before;
  await using client = connect({ endpoints: endpoint });
  await client.put("k", "v");
  before[Symbol.dispose]();
  const waiting = client.put("k", "w");
  using after = new FakeNode(1, port);
  after.answer = applyAll;
  const settled = await Promise.allSettled([waiting]);
  // Sent into the dying connection, or not: never reported wrongly.
  if (settled[0]!.status === "rejected") expect(settled[0]!.reason.outcome).toBe("unknown");
  expect(await client.put("k", "x")).toMatchObject({ revision: expect.any(Number) });
});

test("local reads go to the nodes in the order of the user's list", async () => {
  using first = new FakeNode(1);
  using second = new FakeNode(2);
  first.answer = applyAll;
  second.answer = applyAll;
  first.hello = { members: { "1": first.endpoint, "2": second.endpoint }, leader: 2 };
  await using client = connect({ endpoints: [first.endpoint, second.endpoint] });
  await client.put("k", "v");
  for (let i = 0; i < 5; i++) {
    const read = await client.get("k", { consistency: "local" });
    expect(new TextDecoder().decode(read!.value)).toBe("1");
  }
  expect(first.reads.length).toBe(5);
});

test("garbage from a node closes the connection; nothing hangs and nothing crashes", async () => {
  const garbage: ((node: FakeNode, request: Received) => void)[] = [
    (_, { connection }) => {
      connection.out.begin(65, 3);
      connection.out.setFields(0, new Uint8Array([1, 2, 3]));
      connection.out.end();
      connection.flush();
    },
    // A reply of the wrong kind.
    (node, request) => node.control(request, { nonsense: true }),
    // A peer's frame.
    (_, { connection }) => {
      connection.out.begin(20, 0);
      connection.out.end();
      connection.flush();
    },
  ];
  for (const answer of garbage) {
    using node = new FakeNode();
    node.answer = answer;
    await using client = connect({ endpoints: node.endpoint, timeoutMs: 400 });
    await expect(client.put("k", "v")).rejects.toMatchObject({
      code: "outcome_unknown",
      outcome: "unknown",
    });
    node.answer = applyAll;
    expect(await client.put("k", "v")).toEqual({ revision: 1 });
  }
});

test("a hello that refuses is reported with its words", async () => {
  using node = new FakeNode();
  node.hello = { error: { code: "unauthorised", message: "who are you?" } };
  await using client = connect({ endpoints: node.endpoint, timeoutMs: 200 });
  const error = await client.put("k", "v").catch((each: unknown) => each);
  expect(error).toMatchObject({ code: "unreachable", outcome: "not-applied" });
  expect(String(error)).toContain("who are you?");
});

test("several connections to a node are used in turn", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint, connectionsPerNode: 3 });
  await client.put("k", "v");
  await node.until(() => node.connections.length === 3);
  await client.put("k", "v");
  for (let i = 0; i < 9; i++) await client.put("k", "v");
  const used = new Set(node.writes.slice(-6).map(({ connection }) => connection));
  expect(used.size).toBe(3);
});

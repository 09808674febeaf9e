/** One client and many groups: one set of connections, each group its own leader and session, and none waits for another. */
import { expect, test } from "bun:test";
import { BargeError, connect, type Client } from "../../src/client/index.ts";
import { commandsOf, entry, FakeNode, type Received } from "./fake-node.ts";

function applyAll(node: FakeNode, request: Received): void {
  if (request.type === "write") node.applied(request);
  if (request.type === "read")
    node.read(request, () => ({ code: 0, bytes: entry(1, `${node.nodeId}`) }));
}

function cluster(): FakeNode[] {
  const nodes = [1, 2, 3].map((id) => new FakeNode(id));
  const members = Object.fromEntries(nodes.map(({ nodeId, endpoint }) => [nodeId, endpoint]));
  for (const node of nodes) {
    node.answer = applyAll;
    node.hello = { members, leader: 1 };
  }
  return nodes;
}

function dispose(nodes: readonly FakeNode[]): void {
  for (const node of nodes) node[Symbol.dispose]();
}

/** Writes until the client has heard who leads the group. */
async function untilLed(client: Client, by: FakeNode): Promise<void> {
  while (client.leader() !== by.endpoint || by.connections.length === 0) {
    await client.get("any");
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

test("groups share connections, and each request names its group", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint, group: 3 });
  expect(client.groupId).toBe(3);
  const others = [5, 6, 7].map((group) => client.group(group));
  expect(client.group(5)).toBe(others[0]!);
  expect(others[0]!.group(3)).toBe(client);
  await Promise.all([client, ...others].map((each) => each.put("k", `${each.groupId}`)));
  await client.put("k", "8", { group: 8 });
  await client.get("k", { group: 9 });
  await client
    .batch()
    .send({ group: 9 })
    .catch(() => {});
  expect(node.connections.length).toBe(1);
  const written = node.writes.map(({ group, section }) => [
    group,
    Buffer.from(commandsOf({ section } as never)[0]!)
      .toString()
      .at(-1),
  ]);
  expect(written.toSorted()).toEqual([3, 5, 6, 7, 8].map((group) => [group, `${group}`]));
  expect(node.reads.map(({ group }) => group)).toEqual([9]);
});

test("a wrong group is refused like any wrong option, and harms nothing", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint });
  for (const group of [-1, 0.5, 2 ** 32 - 1, Number.NaN]) {
    expect(() => client.group(group)).toThrow("group must be");
    await expect(client.put("k", "v", { group })).rejects.toMatchObject({ code: "bad_request" });
    await expect(client.get("k", { group })).rejects.toMatchObject({ code: "bad_request" });
  }
  await client.put("k", "v");
});

test("a client asks to be told only of what it uses", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using zero = connect({ endpoints: node.endpoint });
  await zero.put("k", "v");
  expect(node.followed).toEqual([]);
  await using one = connect({ endpoints: node.endpoint, group: 4 });
  await one.put("k", "v");
  await node.until(() => node.followed.length === 1);
  expect(node.followed[0]).toMatchObject({ all: false, group: 4 });
  await one.group(5).put("k", "v");
  await node.until(() => node.followed.length === 2);
  expect(node.followed[1]).toMatchObject({ all: true });
});

test("each group's requests go to its own leader, as any one node tells", async () => {
  const nodes = cluster();
  try {
    const [first, second, third] = nodes as [FakeNode, FakeNode, FakeNode];
    await using client = connect({ endpoints: first.endpoint });
    const [a, b] = [client.group(10), client.group(11)];
    await a.put("k", "v");
    await first.until(() => first.followed.length > 0);
    first.tell(5, true, [
      { group: 0, leader: 1 },
      { group: 10, leader: 2, members: [1, 2, 3] },
      { group: 11, leader: 3, members: [2, 3] },
    ]);
    await untilLed(a, second);
    await untilLed(b, third);
    const before = nodes.map(({ writes }) => writes.length);
    await Promise.all([client.put("k", "0"), a.put("k", "10"), b.put("k", "11")]);
    expect(nodes.map(({ writes }, i) => writes.length - before[i]!)).toEqual([1, 1, 1]);
    expect(client.groups().toSorted()).toEqual([0, 10, 11]);
    // An old term is not believed, a new one at once; a difference says nothing of the others.
    first.tell(5, false, [{ group: 10, leader: 3, term: 0 }]);
    first.tell(6, false, [{ group: 11, leader: 2, term: 2, members: [2, 3] }]);
    await untilLed(b, second);
    expect(a.leader()).toBe(second.endpoint);
    first.tell(7, false, [{ group: 11, gone: true }]);
    while (client.groups().includes(11)) await client.get("any");
  } finally {
    dispose(nodes);
  }
});

test("a leader that refused once, and one that a lagging node named, are left again for whoever leads", async () => {
  const nodes = cluster();
  try {
    const [first, second, third] = nodes as [FakeNode, FakeNode, FakeNode];
    await using client = connect({ endpoints: first.endpoint, group: 10, session: false });
    await client.put("k", "v");
    await first.until(() => first.followed.length > 0);
    first.tell(5, true, [{ group: 10, leader: 2, members: [1, 2, 3] }]);
    await untilLed(client, second);
    const refuseOnce = (error: BargeError): void => {
      second.answer = (node, request) => {
        second.answer = applyAll;
        node.refuse(request, error);
      };
    };
    refuseOnce(new BargeError("no_leader", "an election"));
    await client.put("k", "elsewhere");
    await untilLed(client, second);
    refuseOnce(new BargeError("not_leader", "it was", { leaderHint: third.endpoint }));
    await client.put("k", "where it was");
    await untilLed(client, second);
  } finally {
    dispose(nodes);
  }
});

test("a session goes back to a leader whose connection was lost", async () => {
  const nodes = cluster();
  try {
    const [first, second] = nodes as [FakeNode, FakeNode];
    for (const node of nodes) node.sessions = { ttlMs: 60_000, windowSections: 8 };
    await using client = connect({ endpoints: first.endpoint, group: 10, session: "required" });
    await client.put("k", "v");
    await first.until(() => first.followed.length > 0);
    first.tell(5, true, [{ group: 10, leader: 2, members: [1, 2, 3] }]);
    await untilLed(client, second);
    await client.put("k", "there");
    // The first time what opened the session was asked for, too; then there are writes alone.
    for (let times = 0; times < 2; times++) {
      second.cut();
      while (client.leader() === second.endpoint) await client.put("k", "elsewhere");
      const before = second.writes.length;
      while (second.writes.length === before) await client.put("k", "where it was");
      expect(client.leader()).toBe(second.endpoint);
    }
  } finally {
    dispose(nodes);
  }
});

test("a node without the group is not asked, where another is known to have it", async () => {
  const nodes = cluster();
  try {
    const [first, second] = nodes as [FakeNode, FakeNode];
    await using client = connect({ endpoints: first.endpoint, group: 12 });
    await client.put("k", "v");
    await first.until(() => first.followed.length > 0);
    first.tell(5, true, [{ group: 12, leader: 0, members: [2] }]);
    // It dials who has it.
    while (second.received.length === 0) await client.get("k");
    const asked = first.received.length;
    for (let i = 0; i < 5; i++) {
      await client.put("k", "w");
      await client.get("k", { consistency: "local" });
    }
    expect(first.received.length).toBe(asked);
  } finally {
    dispose(nodes);
  }
});

test("a group that one node has not heard of yet is asked for elsewhere; one that nobody has is refused", async () => {
  const nodes = cluster();
  try {
    const [first, second] = nodes as [FakeNode, FakeNode];
    const lags = (node: FakeNode, request: Received): void =>
      request.type !== "control" && request.group !== 0
        ? node.refuse(request, new BargeError("unknown_group", "none here"))
        : applyAll(node, request);
    first.answer = lags;
    await using client = connect({ endpoints: first.endpoint, session: false });
    // Others would know, but they were not met yet, or do not either: after a moment it is believed.
    for (const node of nodes) node.answer = lags;
    const beginMs = performance.now();
    for (let i = 0; i < 2; i++) {
      await expect(client.put("k", "v", { group: 20 })).rejects.toMatchObject({
        code: "unknown_group",
        outcome: "not-applied",
      });
    }
    expect(performance.now() - beginMs).toBeLessThan(2_000);
    for (const node of nodes.slice(1)) node.answer = applyAll;
    await first.until(() => first.followed.length > 0);
    first.tell(5, true, [
      { group: 0, leader: 1 },
      { group: 20, members: [1, 2, 3] },
    ]);
    while (!client.groups().includes(20)) await client.get("any");
    const written = (): number => second.writes.length + nodes[2]!.writes.length;
    const before = written();
    await client.put("k", "v", { group: 20 });
    expect(written()).toBe(before + 1);
  } finally {
    dispose(nodes);
  }
});

test("a hint of a node without the group is followed", async () => {
  const nodes = cluster();
  try {
    const [first, , third] = nodes as [FakeNode, FakeNode, FakeNode];
    first.answer = (node, request) =>
      node.refuse(
        request,
        new BargeError("group_elsewhere", "not here", { leaderHint: third.endpoint }),
      );
    await using client = connect({ endpoints: first.endpoint, group: 20, session: false });
    await client.put("k", "v");
    expect(third.writes.length).toBe(1);
    const asked = first.received.length;
    await client.get("k");
    await client.put("k", "v");
    expect(first.received.length).toBe(asked);
  } finally {
    dispose(nodes);
  }
});

test("a group without answers takes no room from the others", async () => {
  using node = new FakeNode();
  node.sessions = { ttlMs: 60_000, windowSections: 64 };
  node.answer = (_, request) => {
    if (request.type === "control" || request.group !== 1) applyAll(node, request);
  };
  await using client = connect({
    endpoints: node.endpoint,
    maxInFlightRequests: 8,
    timeoutMs: 1_000,
  });
  const stuck = client.group(1);
  const failures: unknown[] = [];
  for (let i = 0; i < 20; i++) stuck.put(`${i}`, "v").catch((error) => failures.push(error));
  for (let i = 0; i < 50; i++) {
    await Promise.all([client.group(2).put("k", `${i}`), client.group(3).get("k")]);
  }
  expect(failures).toEqual([]);
  // Among themselves they keep to the bound.
  expect(node.writes.filter(({ group }) => group === 1).length).toBeLessThanOrEqual(8);
  stuck.close();
  await node.until(() => true);
  for (let i = 0; failures.length < 20 && i < 100; i++) await Bun.sleep(1);
  expect(failures.length).toBe(20);
});

test("closing one group's client leaves the others alone; closing the first one closes all", async () => {
  using node = new FakeNode();
  node.sessions = { ttlMs: 60_000, windowSections: 64 };
  node.answer = (_, request) => {
    if (request.type === "write" && request.group === 1 && node.writes.length > 1) return;
    applyAll(node, request);
  };
  const client = connect({ endpoints: node.endpoint });
  const one = client.group(1);
  await one.put("k", "v");
  const unanswered = one.put("k", "v");
  const read = one.get("k");
  await read;
  one.close();
  await expect(unanswered).rejects.toMatchObject({ code: "outcome_unknown" });
  await expect(one.put("k", "v")).rejects.toMatchObject({ code: "shutting_down" });
  await node.until(() => node.sessionCalls.includes("sessionClose"));
  await client.put("k", "v");
  // Another one takes its place.
  const again = client.group(1);
  expect(again).not.toBe(one);
  await again.get("k");
  const other = client.group(2);
  await other.put("k", "v");
  await client.drain();
  for (const each of [client, again, other, client.group(3)]) {
    await expect(each.get("k")).rejects.toMatchObject({ code: "shutting_down" });
  }
  await node.until(() => node.connections.every(({ closed }) => closed));
});

test("draining waits for the calls of all groups", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint, session: false });
  const writes = [1, 2, 3].map((group) => client.group(group).put("k", "v"));
  const drained = client.drain();
  await node.until(() => node.writes.length === 3);
  let isDrained = false;
  void drained.then(() => (isDrained = true));
  for (const request of node.writes.slice(0, 2)) node.applied(request);
  await Promise.all(writes.slice(0, 2));
  expect(isDrained).toBe(false);
  node.applied(node.writes[2]!);
  await Promise.all([...writes, drained]);
});

test("of several connections to a node one is told of groups, and another one when that is gone", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint, group: 4, connectionsPerNode: 3 });
  while (node.connections.length < 3) await client.get("any");
  await client.get("any");
  expect(node.followed.length).toBe(1);
  for (let round = 2; round < 5; round++) {
    node.followed.at(-1)!.connection.close("closed here");
    while (node.followed.length < round) await client.get("any");
  }
  expect(node.followed.length).toBe(4);
});

/** Calls for each of the groups, turn for turn of the event loop, all unanswered; returns how many sections came of each group. */
async function sectionsOf(node: FakeNode, client: Client, groups: number): Promise<number[]> {
  const turns = 40;
  const answers: Promise<unknown>[] = [];
  const held: Received[] = [];
  node.answer = (_, request) => void held.push(request);
  for (let turn = 0; turn < turns; turn++) {
    for (let group = 1; group <= groups; group++) {
      answers.push(client.put("k", "v", { group, timeoutMs: 30_000 }));
    }
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  await node.until(() => held.length >= groups);
  node.answer = applyAll;
  for (const request of held) applyAll(node, request);
  await Promise.all(answers);
  const commands = new Map<number, number>();
  const sections = new Map<number, number>();
  for (const request of node.writes) {
    const { group } = request;
    commands.set(group, (commands.get(group) ?? 0) + commandsOf(request).length);
    sections.set(group, (sections.get(group) ?? 0) + 1);
  }
  expect([...commands.values()]).toEqual(Array.from({ length: groups }, () => turns));
  return [...sections.values()];
}

test("with calls to many groups, those of one gather while a section of it is on its way", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint, session: false });
  const sections = await sectionsOf(node, client, 32);
  // The first turns find out; a section is held 50 ms at the longest.
  for (const count of sections) expect(count).toBeLessThan(20);
});

test("with calls to a few groups, each goes with its turn", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint, session: false });
  const sections = await sectionsOf(node, client, 4);
  for (const count of sections) expect(count).toBeGreaterThan(30);
});

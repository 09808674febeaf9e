/** What a session sends, and when: numbers, copies, windows, its opening and its end. Under chance: session-faults.test.ts. */
import { expect, test } from "bun:test";
import { BargeError, connect } from "../../src/client/index.ts";
import { readSectionHeader, type SectionHeader, SectionKind } from "../../src/wire/section.ts";
import { FakeNode, type Received } from "./fake-node.ts";

function serving(nodeId = 1): FakeNode {
  const node = new FakeNode(nodeId);
  node.sessions = { ttlMs: 600_000, windowSections: 4 };
  return node;
}

function applyAll(node: FakeNode, request: Received): void {
  if (request.type === "write") node.applied(request);
  if (request.type === "read") node.read(request, () => ({ code: 2 }));
}

const headersOf = (node: FakeNode): SectionHeader[] =>
  node.writes.map(({ section }) => readSectionHeader(section, 0)!);
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("it is opened by the first write, numbers all commands, says what is done, and is closed at the end", async () => {
  using node = serving();
  node.answer = applyAll;
  const client = connect({ endpoints: node.endpoint });
  expect(client.session()).toBeUndefined();
  await client.get("a");
  expect(node.sessionsOpened).toBe(0);
  await Promise.all([client.put("a", "1"), client.put("b", "2")]);
  await client.delete("a");
  await client.put("c", "3");
  const session = client.session()!;
  const kind = SectionKind.session;
  expect(headersOf(node)).toMatchObject([
    { kind, session, firstSeq: 1, count: 2, doneUpTo: 0 },
    { kind, session, firstSeq: 3, count: 1, doneUpTo: 2 },
    { kind, session, firstSeq: 4, count: 1, doneUpTo: 3 },
  ]);
  expect(node.sessionsOpened).toBe(1);
  await client.drain();
  await node.until(() => node.sessionCalls.includes("sessionClose"));
});

test("what was sent on a connection that is lost is sent again, the same bytes, in order", async () => {
  using node = serving();
  await using client = connect({ endpoints: node.endpoint });
  const first = client.put("a", "1");
  await node.until(() => node.writes.length === 1);
  const second = client.put("b", "2");
  await node.until(() => node.writes.length === 2);
  node.answer = applyAll;
  node.cut();
  expect((await first).revision).toBeLessThan((await second).revision);
  const [one, two, oneAgain, twoAgain] = node.writes;
  expect(oneAgain!.section).toEqual(one!.section);
  expect(twoAgain!.section).toEqual(two!.section);
});

test("a node that gives no answer is left for another, and both answers to it are one", async () => {
  using silent = serving(1);
  using other = serving(2);
  other.answer = applyAll;
  silent.hello = { members: { "1": silent.endpoint, "2": other.endpoint }, leader: 1 };
  await using client = connect({ endpoints: silent.endpoint, attemptTimeoutMs: 100 });
  expect(await client.put("a", "1")).toEqual({ revision: 1 });
  expect(other.writes[0]!.section).toEqual(silent.writes[0]!.section);
});

test("a copy without an answer is given up, though later ones are refused again and again meanwhile", async () => {
  using node = serving();
  await using client = connect({ endpoints: node.endpoint, attemptTimeoutMs: 100 });
  let isOpen = true;
  node.answer = (_, request) => {
    if (request.type !== "write") return applyAll(node, request);
    const isOldest = readSectionHeader(request.section, 0)!.firstSeq === 1;
    if (isOldest && isOpen) isOpen = false;
    else if (isOldest) node.answer = applyAll;
    else return node.refuse(request, new BargeError("sequence_gap", "the first is missing"));
    if (node.answer === applyAll) node.applied(request);
  };
  const first = client.put("a", "1");
  await node.until(() => node.writes.length === 1);
  const [one, two] = await Promise.all([first, client.put("b", "2")]);
  expect(one.revision).toBeLessThan(two.revision);
});

test("calls of one turn keep their order, whatever they ask for", async () => {
  using node = serving();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint });
  const { signal } = new AbortController();
  const batch = client.batch();
  batch.put("d", "4");
  const done = await Promise.all([
    client.put("a", "1"),
    client.put("b", "2", { timeoutMs: 777 }),
    client.put("c", "3", { signal }),
    batch.send().then(({ firstIndex }) => ({ revision: firstIndex })),
    client.put("e", "5"),
  ]);
  const revisions = done.map(({ revision }) => revision);
  expect(revisions).toEqual(revisions.toSorted((a, b) => a - b));
});

test("no more sections are open than the window has, and more follow as it empties", async () => {
  using node = serving();
  const client = connect({ endpoints: node.endpoint });
  const writes: Promise<unknown>[] = [];
  for (let i = 0; i < 10; i++) {
    writes.push(client.put(`${i}`, "v"));
    await turn();
  }
  await node.until(() => node.writes.length === 4);
  await turn();
  expect(node.writes.length).toBe(4);
  node.answer = applyAll;
  for (const request of node.writes) node.applied(request);
  await Promise.all(writes);
  // Those that had to wait went together.
  const headers = headersOf(node);
  expect(
    headers.reduce((next, { firstSeq, count }) => (firstSeq === next ? next + count : -1), 1),
  ).toBe(11);
  expect(headers.length).toBeLessThan(8);
  await client.drain();
});

test("a session that is gone costs a client nothing that was not sent before", async () => {
  using node = serving();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint });
  await client.put("a", "1");
  const old = client.session()!;
  node.answer = (_, request) => {
    if (request.type !== "write") return applyAll(node, request);
    const isOld = readSectionHeader(request.section, 0)!.session === old;
    if (isOld) node.refuse(request, new BargeError("session_expired", "gone"));
    else node.applied(request);
  };
  const both = await Promise.all([client.put("b", "2"), client.put("c", "3")]);
  expect(both[0].revision + 1).toBe(both[1].revision);
  expect(client.session()).not.toBe(old);
  expect(headersOf(node).at(-1)).toMatchObject({ firstSeq: 1, count: 2, doneUpTo: 0 });
});

test("a session that is gone while an earlier copy may have been applied: nobody knows, and it says so", async () => {
  using node = serving();
  await using client = connect({ endpoints: node.endpoint });
  const lost = client.put("a", "1");
  await node.until(() => node.writes.length === 1);
  node.answer = (_, request) => node.refuse(request, new BargeError("session_expired", "gone"));
  node.cut();
  await expect(lost).rejects.toMatchObject({ code: "session_expired", outcome: "unknown" });
});

test("a write that was given up after it was sent keeps its place before later ones", async () => {
  using node = serving();
  await using client = connect({ endpoints: node.endpoint, attemptTimeoutMs: 60_000 });
  const controller = new AbortController();
  const given = client.put("a", "1", { signal: controller.signal });
  await node.until(() => node.writes.length === 1);
  controller.abort();
  await expect(given).rejects.toMatchObject({ code: "aborted", outcome: "unknown" });
  const later = client.put("b", "2");
  await node.until(() => node.writes.length === 2);
  node.answer = applyAll;
  node.cut();
  await later;
  expect(headersOf(node).map(({ firstSeq }) => firstSeq)).toEqual([1, 2, 1, 2]);
});

test("refused and out of time: not applied, with the reason, and its numbers are free again", async () => {
  using node = serving();
  node.answer = (_, request) => node.refuse(request, new BargeError("no_leader", "nobody leads"));
  await using client = connect({ endpoints: node.endpoint });
  const [one, two] = await Promise.allSettled([
    client.put("a", "1", { timeoutMs: 1_000 }),
    client.put("b", "2", { timeoutMs: 1_100 }),
  ]);
  for (const { reason } of [one, two] as PromiseRejectedResult[]) {
    expect(reason).toMatchObject({ code: "no_leader", outcome: "not-applied" });
  }
  node.answer = applyAll;
  await client.put("c", "3");
  expect(headersOf(node).at(-1)).toMatchObject({ firstSeq: 1, count: 1 });
  expect(node.sessionsOpened).toBe(1);
});

test("a client in use keeps its session alive, though it only reads", async () => {
  using node = serving();
  node.sessions = { ttlMs: 300, windowSections: 4 };
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint, sessionTtlMs: 300 });
  await client.put("a", "1");
  while (!node.sessionCalls.includes("sessionKeepAlive")) {
    await client.get("a");
    await Bun.sleep(5);
  }
  expect(node.sessionsOpened).toBe(1);
});

test("where there are no sessions: once each without, refused where one is required, none wanted where it is off", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  const plain = SectionKind.plain;
  for (const session of [true, false]) {
    await using client = connect({ endpoints: node.endpoint, session });
    await client.put("a", "1");
    expect(headersOf(node).at(-1)).toMatchObject({ kind: plain, session: 0 });
  }
  await using client = connect({ endpoints: node.endpoint, session: "required" });
  await expect(client.put("a", "1")).rejects.toMatchObject({
    code: "bad_request",
    outcome: "not-applied",
  });
  expect(node.writes.length).toBe(2);
});

test("the group has no room for another session: tried again, and told at the end of the time", async () => {
  using node = new FakeNode();
  node.answersControl = true;
  node.answer = (_, request) => {
    if (request.type === "control") {
      node.refuse(request, new BargeError("sessions_full", "there are as many as there may be"));
    }
  };
  await using client = connect({ endpoints: node.endpoint, timeoutMs: 200 });
  await expect(client.put("a", "1")).rejects.toMatchObject({
    code: "sessions_full",
    outcome: "not-applied",
  });
});

test("refused at first, and not answered any more: told why it was refused", async () => {
  using node = new FakeNode();
  node.answersControl = true;
  let asked = 0;
  node.answer = (_, request) => {
    if (request.type === "control" && ++asked === 1) {
      node.refuse(request, new BargeError("sessions_full", "there are as many as there may be"));
    }
  };
  await using client = connect({ endpoints: node.endpoint, timeoutMs: 200 });
  await expect(client.put("a", "1")).rejects.toMatchObject({
    code: "sessions_full",
    outcome: "not-applied",
  });
  expect(asked).toBeGreaterThan(1);
});

/** Writes under an id each: what is sent, and when, and what is told. Under chance: session-faults.test.ts. */
import { expect, test } from "bun:test";
import { BargeError, connect } from "../../src/client/index.ts";
import { readSectionHeader, type SectionHeader, SectionKind } from "../../src/wire/section.ts";
import { FakeNode, type Received } from "./fake-node.ts";

const session = "request-ids";

const headersOf = (node: FakeNode): SectionHeader[] =>
  node.writes.map(({ section }) => readSectionHeader(section, 0)!);

function apply(node: FakeNode, request: Received): void {
  if (request.type === "write") node.applied(request);
}

test("each request has an id of its own, and no session is opened", async () => {
  using node = new FakeNode();
  node.sessions = { ttlMs: 600_000, windowSections: 4 };
  node.answer = apply;
  await using client = connect({ endpoints: node.endpoint, session });
  expect(await client.put("a", "1")).toEqual({ revision: 1 });
  expect(await client.put("a", "2")).toEqual({ revision: 2 });
  const [one, two] = headersOf(node) as [SectionHeader, SectionHeader];
  expect([one.kind, two.kind]).toEqual([SectionKind.keyed, SectionKind.keyed]);
  expect(one.session).not.toBe(two.session);
  expect(node.sessionsOpened).toBe(0);
  expect(client.session()).toBeUndefined();
});

test("it is sent again, the same bytes, where the connection is lost, the outcome unknown or there is no answer", async () => {
  using silent = new FakeNode(1);
  using other = new FakeNode(2);
  const members = { "1": silent.endpoint, "2": other.endpoint };
  silent.hello = { members, leader: 1 };
  other.hello = { members, leader: 1 };
  await using client = connect({ endpoints: silent.endpoint, session, attemptTimeoutMs: 100 });
  const put = client.put("a", "1");
  await silent.until(() => silent.writes.length === 1);
  silent.cut();
  await other.until(() => other.writes.length === 1 || silent.writes.length === 2);
  const second = other.writes[0] ?? silent.writes[1]!;
  const node = other.writes.length === 1 ? other : silent;
  node.refuse(second, new BargeError("outcome_unknown", "lost leadership"));
  silent.answer = apply;
  other.answer = apply;
  expect(await put).toEqual({ revision: 1 });
  const sections = [...silent.writes, ...other.writes].map(({ section }) => section.toHex());
  expect(sections.length).toBeGreaterThanOrEqual(3);
  expect(new Set(sections).size).toBe(1);
});

test("what nobody answers is unknown in the end; what was refused each time was not applied", async () => {
  using node = new FakeNode();
  const options = {
    endpoints: node.endpoint,
    session,
    timeoutMs: 150,
    attemptTimeoutMs: 40,
  } as const;
  await using client = connect(options);
  await expect(client.put("a", "1")).rejects.toMatchObject({ code: "timeout", outcome: "unknown" });
  expect(node.writes.length).toBeGreaterThan(1);
  node.answer = (_, request) => node.refuse(request, new BargeError("no_leader", "none"));
  await expect(client.put("a", "2")).rejects.toMatchObject({
    code: "no_leader",
    outcome: "not-applied",
  });
  node.answer = (_, request) => node.refuse(request, new BargeError("too_large", "no"));
  await expect(client.put("a", "3")).rejects.toMatchObject({
    code: "too_large",
    outcome: "not-applied",
  });
});

test("a refusal for good says nothing of the copy before it", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint, session });
  const put = client.put("a", "1");
  await node.until(() => node.writes.length === 1);
  node.answer = (_, request) => node.refuse(request, new BargeError("too_large", "no"));
  node.cut();
  await expect(put).rejects.toMatchObject({ code: "too_large", outcome: "unknown" });
});

test("given up: unknown once it was sent, by an abort and by the end of the client", async () => {
  using node = new FakeNode();
  const client = connect({ endpoints: node.endpoint, session });
  const giveUp = new AbortController();
  const aborted = client.put("a", "1", { signal: giveUp.signal });
  const closed = client.put("b", "1");
  const told = Promise.allSettled([aborted, closed]);
  await node.until(() => node.writes.length === 2);
  giveUp.abort();
  client.close();
  expect(await told).toMatchObject([
    { reason: { code: "aborted", outcome: "unknown" } },
    { reason: { code: "outcome_unknown", outcome: "unknown" } },
  ]);
});

test("a cluster that knows no ids gets it once, plainly", async () => {
  using node = new FakeNode();
  node.answer = (_, request) => {
    if (request.type !== "write") return;
    const isPlain = readSectionHeader(request.section, 0)!.kind === SectionKind.plain;
    if (isPlain) node.applied(request);
    else node.refuse(request, new BargeError("version_mismatch", "not yet"));
  };
  const warned: string[] = [];
  const logger = { debug() {}, info() {}, error() {}, warn: (text: string) => warned.push(text) };
  await using client = connect({ endpoints: node.endpoint, session, logger });
  expect(await client.put("a", "1")).toEqual({ revision: 1 });
  expect(await client.put("a", "2")).toEqual({ revision: 2 });
  expect(headersOf(node).at(-1)!.kind).toBe(SectionKind.plain);
  expect(warned).toEqual(["writes go without an id: not yet"]);
});

/** Bounds, giving up, and the end of a client. */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { countOf, entry, FakeNode, type Received } from "./fake-node.ts";

function applyAll(node: FakeNode, request: Received): void {
  if (request.type === "write") node.applied(request);
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("calls above the bound wait, in order, and go when there is room", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint, maxInFlightRequests: 2 });
  const settled: number[] = [];
  const calls = Array.from({ length: 5 }, (_, i) =>
    client.put(`${i}`, "v").then(() => settled.push(i)),
  );
  await node.until(() => node.writes.length === 1);
  expect(node.writes.map(countOf)).toEqual([2]);
  node.answer = applyAll;
  node.applied(node.writes[0]!);
  await Promise.all(calls);
  expect(settled).toEqual([0, 1, 2, 3, 4]);
  expect(node.writes.map(countOf)).toEqual([2, 2, 1]);
});

test("bytes in flight are bounded too", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint, maxInFlightBytes: 1_000 });
  const calls = Array.from({ length: 4 }, (_, i) => client.put(`${i}`, new Uint8Array(600)));
  await node.until(() => node.writes.length === 1);
  expect(node.writes.map(countOf)).toEqual([2]);
  node.answer = applyAll;
  node.applied(node.writes[0]!);
  await Promise.all(calls);
});

test("waiting has a bound and a deadline of its own", async () => {
  using node = new FakeNode();
  await using client = connect({
    endpoints: node.endpoint,
    maxInFlightRequests: 1,
    maxWaitingRequests: 1,
  });
  const first = client.put("1", "v");
  const second = client.put("2", "v", { timeoutMs: 60 });
  await expect(client.put("3", "v")).rejects.toMatchObject({
    code: "overloaded",
    outcome: "not-applied",
  });
  await expect(second).rejects.toMatchObject({ code: "timeout", outcome: "not-applied" });
  await node.until(() => node.writes.length === 1);
  node.applied(node.writes[0]!);
  await first;
  expect(node.writes.length).toBe(1);
});

test("AbortSignal: before it was sent not applied, afterwards unknown, and the rest goes on", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint });

  await expect(client.put("k", "v", { signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: "aborted",
    outcome: "not-applied",
  });

  const early = new AbortController();
  const neverSent = client.put("k", "v", { signal: early.signal });
  const neighbour = client.put("k", "v");
  early.abort();
  await expect(neverSent).rejects.toMatchObject({ code: "aborted", outcome: "not-applied" });
  await node.until(() => node.writes.length === 1);
  node.applied(node.writes[0]!);
  expect(await neighbour).toEqual({ revision: 1 });

  const late = new AbortController();
  const sent = client.put("k", "v", { signal: late.signal });
  const read = client.get("k", { signal: late.signal });
  await node.until(() => node.received.length === 3);
  late.abort(new Error("enough"));
  await expect(sent).rejects.toMatchObject({
    code: "aborted",
    outcome: "unknown",
    cause: { message: "enough" },
  });
  await expect(read).rejects.toMatchObject({ code: "aborted", outcome: "not-applied" });
  // The late answers are dropped, and the connection serves on.
  node.applied(node.writes[1]!);
  node.answer = applyAll;
  expect(await client.put("k", "v")).toEqual({ revision: 3 });
  expect(node.connections.length).toBe(1);
});

test("AbortSignal while waiting for room", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint, maxInFlightRequests: 1 });
  const first = client.put("1", "v");
  const giveUp = new AbortController();
  const waiting = client.put("2", "v", { signal: giveUp.signal });
  giveUp.abort();
  await expect(waiting).rejects.toMatchObject({ code: "aborted", outcome: "not-applied" });
  await node.until(() => node.writes.length === 1);
  node.answer = applyAll;
  node.applied(node.writes[0]!);
  await first;
  expect(await client.put("3", "v")).toEqual({ revision: 2 });
});

test("time-outs differ by call; calls with the same share a section", async () => {
  using node = new FakeNode();
  await using client = connect({ endpoints: node.endpoint });
  const short = client.put("1", "v", { timeoutMs: 80 });
  const long = [client.put("2", "v"), client.put("3", "v")];
  await node.until(() => node.writes.length === 2);
  expect(node.writes.map(({ timeoutMs }) => timeoutMs <= 80)).toEqual([true, false]);
  await expect(short).rejects.toMatchObject({ code: "timeout", outcome: "unknown" });
  node.applied(node.writes[1]!);
  expect(await Promise.all(long)).toEqual([{ revision: 1 }, { revision: 2 }]);
});

test("drain lets what is in flight finish, takes no more, and is idempotent", async () => {
  using node = new FakeNode();
  const client = connect({ endpoints: node.endpoint, maxInFlightRequests: 1 });
  const first = client.put("1", "v");
  const waiting = client.put("2", "v");
  const drained = client.drain();
  expect(client.drain()).toBe(drained);
  await expect(client.put("3", "v")).rejects.toMatchObject({
    code: "shutting_down",
    outcome: "not-applied",
  });
  await expect(client.get("3")).rejects.toMatchObject({ code: "shutting_down" });
  await node.until(() => node.writes.length === 1);
  node.answer = applyAll;
  node.applied(node.writes[0]!);
  expect(await Promise.all([first, waiting])).toEqual([{ revision: 1 }, { revision: 2 }]);
  await drained;
  await client.drain();
  client.close();
});

test("close settles everything at once, each by what is true of it", async () => {
  using node = new FakeNode();
  const client = connect({ endpoints: node.endpoint, maxInFlightRequests: 3 });
  const sent = client.put("1", "v");
  const read = client.get("1");
  await node.until(() => node.received.length === 2);
  const filling = client.put("2", "v");
  const waiting = client.put("3", "v");
  client.close();
  client.close();
  await expect(sent).rejects.toMatchObject({ code: "outcome_unknown", outcome: "unknown" });
  await expect(read).rejects.toMatchObject({ outcome: "not-applied" });
  await expect(filling).rejects.toMatchObject({ code: "shutting_down", outcome: "not-applied" });
  await expect(waiting).rejects.toMatchObject({ code: "shutting_down", outcome: "not-applied" });
  await client.drain();
  await turn();
  expect(node.writes.length).toBe(1);
});

test("a client that was never used closes too, and `await using` drains", async () => {
  await connect().drain();
  using node = new FakeNode();
  node.answer = (_, request) => node.read(request, () => ({ code: 0, bytes: entry(1, "v") }));
  let read: Promise<unknown>;
  {
    await using client = connect({ endpoints: node.endpoint });
    read = client.get("k");
  }
  expect(await read).toMatchObject({ revision: 1 });
});

test("a process with an idle client that was closed ends by itself", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  const script = `
    import { connect } from "${import.meta.dir}/../../src/client/index.ts";
    await using client = connect({ endpoints: "${node.endpoint}" });
    console.log((await client.put("k", "v")).revision);
  `;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  expect(await new Response(child.stdout).text()).toBe("1\n");
  expect(await child.exited).toBe(0);
});

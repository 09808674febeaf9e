/** Clients hear of new leaders and members from the nodes, unasked, and follow. */
import { expect, test } from "bun:test";
import { type Client, connect } from "../../src/client/index.ts";
import type { Notice } from "../../src/wire/messages.ts";
import { encodeNotice } from "../../src/wire/notice.ts";
import { oneNode } from "../node/one-node.ts";
import { FakeNode, type Received } from "./fake-node.ts";

function applyAll(node: FakeNode, request: Received): void {
  if (request.type === "write") node.applied(request);
  if (request.type === "read") node.read(request, () => ({ code: 2 }));
}

function tell(node: FakeNode, notice: Partial<Notice>): void {
  const base = { group: 0, term: 1, leader: 1, configurationIndex: 1, members: {} };
  for (const connection of node.connections) {
    encodeNotice(connection.out, { type: "notice", ...base, ...notice });
    connection.flush();
  }
}

async function until(client: Client, condition: () => boolean): Promise<void> {
  while (!condition()) {
    await client.get("any");
    await Bun.sleep(2);
  }
}

test("a new leader is followed at once, an old one is not believed", async () => {
  using first = new FakeNode(1);
  using second = new FakeNode(2);
  const members = { "1": first.endpoint, "2": second.endpoint };
  for (const node of [first, second]) {
    node.answer = applyAll;
    node.hello = { members, leader: 1 };
  }
  await using client = connect({ endpoints: first.endpoint });
  await client.put("a", "1");
  expect(client.leader()).toBe(first.endpoint);
  tell(first, { term: 3, leader: 2, members });
  tell(first, { term: 2, leader: 1, members });
  await until(client, () => client.leader() === second.endpoint);
  await until(client, () => second.connections.length > 0);
  await client.put("b", "2");
  await client.put("c", "3");
  expect(second.writes.length).toBeGreaterThan(0);
  expect(client.leader()).toBe(second.endpoint);
});

test("members come and go: who is none any more is left, unless the user named it", async () => {
  using named = new FakeNode(1);
  using going = new FakeNode(2);
  using coming = new FakeNode(3);
  for (const node of [named, going, coming]) node.answer = applyAll;
  const before = { "1": named.endpoint, "2": going.endpoint };
  const after = { "3": coming.endpoint };
  for (const node of [named, going]) node.hello = { members: before, leader: 2 };
  await using client = connect({ endpoints: named.endpoint });
  await client.put("a", "1");
  await until(client, () => going.connections.length > 0);
  expect(client.endpoints()).toEqual([named.endpoint, going.endpoint]);
  tell(going, { configurationIndex: 9, term: 2, leader: 3, members: after });
  // From a node that lags: not believed.
  tell(named, { configurationIndex: 8, term: 1, leader: 2, members: before });
  await until(client, () => !client.endpoints().includes(going.endpoint));
  expect(client.endpoints()).toEqual([named.endpoint, coming.endpoint]);
  await until(client, () => coming.connections.length > 0);
});

test("a malformed notice ends the connection, and nothing else", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint });
  await client.put("a", "1");
  tell(node, { members: { "0": "nobody" } });
  await node.until(() => node.connections.every(({ closed }) => closed));
  await client.put("b", "2");
});

test("a node tells an idle client of a member that was added", async () => {
  await using node = await oneNode();
  await using idle = connect({ endpoints: node.endpoint });
  await using busy = connect({ endpoints: node.endpoint });
  await idle.get("any");
  const address = "127.0.0.1:9";
  await busy.changeMembers([{ op: "add", id: 2, address, learner: true }]);
  const endMs = performance.now() + 4_000;
  while (!idle.endpoints().includes(address) && performance.now() < endMs) await Bun.sleep(5);
  expect(idle.endpoints()).toContain(address);
});

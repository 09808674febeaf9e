/** Administration from the SDK: what is sent, what is answered, and what becomes of a change whose answer is lost. */
import { expect, test } from "bun:test";
import { BargeError, connect } from "../../src/client/index.ts";
import type { ControlRequest } from "../../src/wire/messages.ts";
import { FakeNode, type Received } from "./fake-node.ts";

const wish = { op: "remove" as const, id: 3 };

/** Now and then a client asks who leads, too. */
function asked(node: FakeNode): ControlRequest[] {
  const all = node.received.filter((request) => request.type === "control");
  return all.filter(({ operation }) => operation !== "status");
}

function answering(answer: (node: FakeNode, request: Received) => void): FakeNode {
  const node = new FakeNode();
  node.answersControl = true;
  node.answer = (_, request) => {
    if (request.type !== "control" || request.operation !== "status") answer(node, request);
  };
  return node;
}

test("a change is sent with its group and time, and its answer is handed on", async () => {
  using node = answering((each, request) => each.control(request, { changed: true }));
  await using client = connect({ endpoints: node.endpoint, group: 7, timeoutMs: 3_000 });
  const answer: object = await client.changeMembers([wish], { force: true });
  expect(answer).toEqual({ changed: true });
  const [{ operation, body }] = asked(node) as [ControlRequest];
  expect(operation).toBe("changeMembers");
  expect(body).toMatchObject({ changes: [wish], force: true, group: 7 });
  expect((body as { timeoutMs: number }).timeoutMs).toBeWithin(1, 3_001);
  await client.members();
  expect(asked(node)[1]).toMatchObject({ operation: "members", body: { group: 7 } });
});

test("a change whose answer is lost is asked for again, as what holds already changes nothing", async () => {
  using node = answering((each, request) => {
    if (asked(each).length === 1) request.connection.close("closed here");
    else each.control(request, { changed: false });
  });
  await using client = connect({ endpoints: node.endpoint, timeoutMs: 5_000 });
  expect(await client.changeMembers([wish])).toMatchObject({ changed: false });
  expect(asked(node).length).toBe(2);
});

test("a change that nobody answers in time may have been made", async () => {
  using node = answering(() => {});
  await using client = connect({ endpoints: node.endpoint, timeoutMs: 300 });
  const error = await client.changeMembers([wish]).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(BargeError);
  expect(error).toMatchObject({ code: "timeout", outcome: "unknown" });
  const list = await client.members().catch((thrown: unknown) => thrown);
  expect(list).toMatchObject({ code: "timeout", outcome: "not-applied" });
});

test("a refusal comes as it is, and only what may pass is tried again", async () => {
  using node = answering((each, request) => {
    const isFirst = asked(each).length === 1;
    if (isFirst) each.refuse(request, new BargeError("change_in_progress", "wait"));
    else each.refuse(request, new BargeError("member_removed", "gone for good"));
  });
  await using client = connect({ endpoints: node.endpoint, timeoutMs: 5_000 });
  const error = await client.changeMembers([wish]).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "member_removed", message: "gone for good" });
  expect(asked(node).length).toBe(2);
});

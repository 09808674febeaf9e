/** Transactions of the SDK: results with the types of their operations, codecs, what is refused, and how they travel. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  BargeError,
  connect,
  type DeleteResult,
  type Entry,
  type PutResult,
  type RangePage,
  type Txn,
} from "../../src/client/index.ts";
import { type OneNode, oneNode } from "../node/one-node.ts";
import { countOf, FakeNode } from "./fake-node.ts";

let node: OneNode;
beforeAll(async () => {
  node = await oneNode();
});
afterAll(() => node[Symbol.asyncDispose]());

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function refusal(txn: { commit(): Promise<unknown> }): Promise<string> {
  const error = await txn.commit().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof BargeError)) throw new Error("it was not refused");
  return `${error.code} ${error.outcome} ${error.message}`;
}

test("each result has the type of its operation", async () => {
  await using client = connect({ endpoints: node.endpoint });
  const take = client
    .txn()
    .compare({ key: "lock", exists: false })
    .onSuccess({ op: "put", key: "lock", value: "me" }, { op: "get", key: bytes("lock") })
    .onSuccess({ op: "range", prefix: "lo" })
    .onFailure({ op: "get", key: "lock" }, { op: "delete", key: "lock" });
  const first = await take.commit();
  if (!first.succeeded) throw new Error("the lock was free");
  const [put, got, page] = first.results satisfies readonly [
    PutResult,
    Entry | undefined,
    RangePage,
  ];
  expect(put.revision).toBe(first.revision);
  expect(got).toEqual({ value: bytes("me"), revision: first.revision });
  expect(page.items).toEqual([
    { key: bytes("lock"), value: bytes("me"), revision: first.revision },
  ]);
  expect([page.more, page.revision]).toEqual([false, first.revision]);

  const second = await take.commit();
  if (second.succeeded) throw new Error("the lock was taken");
  const [held, freed] = second.results satisfies readonly [Entry | undefined, DeleteResult];
  expect(held).toEqual({ value: bytes("me"), revision: first.revision });
  expect(freed).toEqual({ deleted: true, revision: second.revision });
  expect(await client.get("lock")).toBeUndefined();
});

test("a part may be used for several", async () => {
  await using client = connect({ endpoints: node.endpoint });
  const base = client.txn().onSuccess({ op: "put", key: "part", value: "1" });
  const other = base.compare({ key: "part", revision: 0, operator: "greater" });
  expect((await other.commit()).succeeded).toBe(false);
  expect((await base.commit()).succeeded).toBe(true);
  const { succeeded, results } = await other.onSuccess({ op: "get", key: "part" }).commit();
  expect([succeeded, results.length]).toEqual([true, 2]);
});

test("codecs read and write values, and compare what they write", async () => {
  await using client = connect({ endpoints: node.endpoint, codec: "json" });
  await client.put("json/a", { n: 1 });
  const { succeeded, results } = await client
    .txn()
    .compare({ key: "json/a", value: { n: 1 } }, { key: "json/b", value: 0, operator: "notEqual" })
    .onSuccess({ op: "put", key: "json/a", value: [2] }, { op: "get", key: "json/a" })
    .onSuccess({ op: "range", prefix: "json/" }, { op: "range", prefix: "json/", keysOnly: true })
    .commit();
  expect(succeeded).toBe(true);
  expect(results[1]).toMatchObject({ value: [2] });
  expect(results[2]).toMatchObject({ items: [{ value: [2] }] });
  expect(results[3]).toMatchObject({ items: [{ value: undefined }] });
  expect(await client.range({ prefix: "json/", keysOnly: true })).toMatchObject({
    items: [{ key: bytes("json/a"), value: undefined }],
  });
  expect(await refusal(client.txn().onSuccess({ op: "put", key: "k", value: undefined }))).toBe(
    "bad_request not-applied success[0].value: must be a value that the json codec can write",
  );

  await using plain = connect({ endpoints: node.endpoint });
  await plain.put("json/broken", "{");
  const both = client.txn().onSuccess({ op: "put", key: "json/c", value: 3 });
  expect(await refusal(both.onSuccess({ op: "get", key: "json/broken" }))).toStartWith(
    "bad_request applied the json codec cannot",
  );
  expect(await client.get("json/c")).toMatchObject({ value: 3 });
});

test("what is wrong is named, before anything is sent or by the machine", async () => {
  await using client = connect({ endpoints: node.endpoint });
  const txn: Txn = client.txn();
  expect(await refusal(txn.onSuccess({ op: "get", key: "a" }, { op: "get", key: "" }))).toBe(
    "bad_request not-applied success[1].key: must not be empty",
  );
  expect(await refusal(txn.compare({ key: "a", revision: -1 }))).toBe(
    `bad_request not-applied compare[0].revision: must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`,
  );
  const value = new Uint8Array(600_000);
  await client.put("large", value);
  const read = { op: "get", key: "large" } as const;
  expect(await refusal(txn.onFailure(read).onSuccess(read, read))).toBe(
    "too_large not-applied success[1] makes the results of the transaction too large; read less in it",
  );
  const five = Array.from({ length: 7 }, (_, i) => ({ op: "put", key: `${i}`, value }) as const);
  expect(await refusal(txn.onSuccess(...five))).toStartWith(
    "too_large not-applied the transaction takes 42",
  );
});

test("four megabytes at once", async () => {
  await using client = connect({ endpoints: node.endpoint });
  const value = new Uint8Array(1_000_000).fill(7);
  const four = ["1", "2", "3", "4"].map((key) => ({ op: "put", key, value }) as const);
  const { revision } = await client
    .txn()
    .onSuccess(...four)
    .commit();
  expect(await client.get("4")).toEqual({ value, revision });
});

test("those that only write share a section, those that read travel alone", async () => {
  using fake = new FakeNode();
  fake.answer = (_, request) => void (request.type === "write" && fake.applied(request));
  await using client = connect({ endpoints: fake.endpoint });
  const write = client.txn().onSuccess({ op: "put", key: "a", value: "1" });
  const read = write.onFailure({ op: "range" });
  const results = await Promise.all([
    write.commit(),
    client.put("b", "2"),
    write.commit(),
    read.commit(),
    read.commit(),
  ]);
  expect(fake.writes.map(countOf).toSorted((a, b) => a - b)).toEqual([1, 1, 3]);
  expect(results.every(({ revision }) => revision > 0)).toBe(true);
});

/** `POST /v1/txn` on a whole node: what it answers, and how it refuses. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { defaultLimits } from "../../src/limits.ts";
import { type OneNode, oneNode } from "../node/one-node.ts";

let node: OneNode;
beforeAll(async () => {
  node = await oneNode();
});
afterAll(() => node[Symbol.asyncDispose]());

const base64 = (text: string): string => Buffer.from(text).toString("base64");

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

async function post(body: unknown, query = ""): Promise<Answer> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const response = await fetch(`${node.url}/v1/txn${query}`, { method: "POST", body: text });
  return { status: response.status, body: await response.json() };
}

async function refusal(body: unknown, query = ""): Promise<string> {
  const { status, body: answer } = await post(body, query);
  const { error } = answer as { error: { code: string; message: string; outcome: string } };
  expect(error.outcome).toBe("not-applied");
  return `${status} ${error.code}: ${error.message}`;
}

test("compares, then one of two lists, with the answers of the single requests", async () => {
  const key = base64("a\u0000ü");
  const lists = {
    success: [
      { op: "put", key, value: base64("one") },
      { op: "get", key },
      { op: "range", prefix: base64("a"), limit: 1 },
      { op: "delete", key: base64("none") },
    ],
    failure: [
      { op: "get", key },
      { op: "get", key: base64("none") },
      { op: "delete", key },
    ],
  };
  const once = { compare: [{ key, exists: false }], ...lists };
  const first = await post(once);
  const { revision } = first.body as { revision: number };
  const item = { value: base64("one"), revision };
  expect(first).toEqual({
    status: 200,
    body: {
      succeeded: true,
      revision,
      results: [
        { revision },
        item,
        { items: [{ key, ...item }], more: false, revision },
        { revision, deleted: false },
      ],
    },
  });
  expect(await post(once)).toEqual({
    status: 200,
    body: {
      succeeded: false,
      revision: revision + 1,
      results: [item, null, { revision: revision + 1, deleted: true }],
    },
  });
  expect(await post({ compare: [{ key, revision: 0 }] })).toEqual({
    status: 200,
    body: { succeeded: true, revision: revision + 2, results: [] },
  });
});

test("a wrong request is refused with its place", async () => {
  const get = { op: "get", key: base64("a") };
  expect(await refusal({ success: [get, get, get, { op: "get", key: "*" }] })).toBe(
    "400 bad_request: success[3].key: must be in base64",
  );
  expect(await refusal({ compare: [{ key: base64("a"), value: 7 }] })).toBe(
    "400 bad_request: compare[0].value: must be a string in base64",
  );
  expect(await refusal({ failure: [{ op: "put", key: base64("a") }] })).toBe(
    "400 bad_request: failure[0].value: must be a string in base64",
  );
  const long = base64("k".repeat(defaultLimits.keyBytesMax + 1));
  expect(await refusal({ failure: [{ op: "delete", key: long }] })).toBe(
    "413 too_large: failure[0].key: may be at most 4096 bytes",
  );
  expect(await refusal("{")).toBe("400 bad_request: The body is not JSON.");
  expect(await refusal("")).toBe("400 bad_request: The body is not JSON.");
  expect(await refusal("[]")).toBe("400 bad_request: the transaction: must be an object");
  expect(await refusal({}, "?gruop=1")).toStartWith("400 bad_request: Unknown parameter");
  expect(await refusal({}, "?group=7")).toStartWith("404 unknown_group");
});

test("what the machine refuses is named too, and nothing of it is there", async () => {
  const value = base64("x".repeat(600_000));
  const put = { op: "put", key: base64("large"), value };
  expect((await post({ success: [put] })).status).toBe(200);
  const get = { op: "get", key: base64("large") };
  const trace = { op: "put", key: base64("trace"), value: "" };
  expect(await refusal({ success: [trace, get, get] })).toBe(
    "413 too_large: success[2] makes the results of the transaction too large; read less in it",
  );
  expect((await fetch(`${node.url}/v1/kv/trace`)).status).toBe(404);
});

test("the largest transaction is taken, a larger one is not", async () => {
  const value = base64("x".repeat(1_000_000));
  const put = (name: string): unknown => ({ op: "put", key: base64(name), value });
  const four = ["1", "2", "3", "4"].map(put);
  expect((await post({ success: four })).status).toBe(200);
  expect((await fetch(`${node.url}/v1/kv/4`)).headers.get("content-length")).toBe("1000000");
  expect(await refusal({ success: [...four, put("5")] })).toStartWith(
    "413 too_large: the transaction takes 5000",
  );
  expect(await refusal(`"${"x".repeat(9_000_000)}"`)).toStartWith("413 too_large: The body may be");
});

test("JSON of very many small things is refused before it is parsed", async () => {
  const message = "413 too_large: The body has too many names, numbers or blanks.";
  expect(await refusal(`[${"[],".repeat(100_000)}[]]`)).toBe(message);
  expect(await refusal("[".repeat(300_000))).toBe(message);
  expect(await refusal(`[${'"",'.repeat(100_000)}""]`)).toBe(message);
});

test("only POST", async () => {
  const response = await fetch(`${node.url}/v1/txn`);
  expect([response.status, response.headers.get("allow")]).toEqual([405, "POST"]);
});

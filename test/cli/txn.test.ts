/** `barge txn` as a process, against a node of its own. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type OneNode, oneNode } from "../node/one-node.ts";

const main = join(import.meta.dir, "..", "..", "src", "main.ts");
let node: OneNode;
let folder: string;
beforeAll(async () => {
  node = await oneNode();
  folder = mkdtempSync(join(tmpdir(), "barge-cli-txn-"));
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await node[Symbol.asyncDispose]();
});

interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

async function txn(input: unknown, ...words: readonly string[]): Promise<Outcome> {
  const text = typeof input === "string" ? input : JSON.stringify(input);
  const child = Bun.spawn([process.execPath, main, "txn", ...words], {
    stdin: new TextEncoder().encode(text),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, BARGE_ENDPOINTS: node.endpoint },
  });
  const [out, err, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { status, out, err };
}

test("takes a lock once: text in, lines out, status 1 when the compares do not hold", async () => {
  const lock = {
    compare: [{ key: "lock", exists: false }],
    success: [
      { op: "put", key: "lock", value: "me" },
      { op: "delete", key: "none" },
    ],
    failure: [
      { op: "get", key: "lock" },
      { op: "get", key: "none" },
      { op: "range", limit: 1 },
    ],
  };
  const first = await txn(lock, "--no-session");
  const revision = Number(/revision ([0-9]+)/.exec(first.out)![1]);
  expect(first).toEqual({
    status: 0,
    out: `succeeded: revision ${revision}\nput\tlock\ndelete\tnone\tthere was no such key\n`,
    err: "",
  });
  // Nothing else was written in between.
  expect(await txn(lock, "--no-session")).toEqual({
    status: 1,
    out:
      `the compares did not hold: revision ${revision + 1}\n` +
      `get\tlock\t${revision}\tme\nget\tnone\tthere is no such key\nrange\tlock\t${revision}\tme\n`,
    err: "",
  });
});

test("--json prints what HTTP answers, and takes its body with --base64, from a file", async () => {
  const file = join(folder, "txn.json");
  const key = Buffer.from([0xff, 0]).toString("base64");
  const body = {
    success: [
      { op: "put", key, value: "AAE=" },
      { op: "get", key },
      { op: "get", key: "AA==" },
      { op: "range", from: key },
    ],
  };
  await Bun.write(file, JSON.stringify(body));
  const mine = JSON.parse(
    (await txn("", "--no-session", "--base64", "--json", file)).out,
  ) as object;
  const response = await fetch(`${node.url}/v1/txn`, {
    method: "POST",
    body: JSON.stringify(body),
  });
  const raised = (text: string, by: number): unknown =>
    JSON.parse(text.replace(/"revision":([0-9]+)/g, (_, n) => `"revision":${Number(n) + by}`));
  expect(raised(JSON.stringify(mine), 1)).toEqual(await response.json());
});

test("what is wrong is named, with status 2", async () => {
  const cases: readonly [unknown, string, ...string[]][] = [
    [{ success: [{ op: "get", kye: "a" }] }, "success[0].kye: is unknown; known here: op, key"],
    [{ success: [{ op: "put", key: "a", value: 1 }] }, "success[0].value: must be a string"],
    [{ failure: [{ op: "get", key: "*" }] }, "failure[0].key: must be in base64", "--base64"],
    [{ else: [] }, "else: is unknown; known here: compare, success, failure"],
    [{ success: {} }, "success: must be a list"],
    [[], "the transaction must be an object"],
    ["{", "the transaction is not JSON"],
    ["", "cannot read", "/nowhere/txn.json"],
  ];
  await Promise.all(
    cases.map(async ([input, message, ...words]) => {
      const { status, out, err } = await txn(input, ...words);
      expect({ status, out, err }).toEqual({ status: 2, out: "", err: expect.any(String) });
      expect(err).toContain(message);
    }),
  );
});

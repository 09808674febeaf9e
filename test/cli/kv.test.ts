/** The key-value commands against one node: bytes verbatim, one document for machines, exit statuses, pipes that close. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import {
  barge,
  type Ran,
  removeFolder,
  type RunOptions,
  scratchFolder,
  Served,
} from "./program.ts";

setDefaultTimeout(60_000);

const folder = scratchFolder();
let served: Served;
beforeAll(async () => {
  served = await Served.in(folder);
});
afterAll(async () => {
  await served[Symbol.asyncDispose]();
  removeFolder(folder);
});

function run(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return barge(args, { ...options, env: { BARGE_ENDPOINTS: served.endpoints } });
}

/** Runs it, expects 0 and nothing on standard error, and returns what it printed. */
async function ok(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const ran = await run(args, options);
  expect({ status: ran.status, err: ran.err }).toEqual({ status: 0, err: "" });
  return ran;
}

/** The one document it printed, and nothing else. */
async function json(args: readonly string[], status = 0): Promise<Record<string, unknown>> {
  const ran = await run([...args, "--json"]);
  expect(ran.status).toBe(status);
  expect(ran.out.trimEnd().split("\n")).toHaveLength(1);
  return JSON.parse(ran.out) as Record<string, unknown>;
}

const allBytes = Uint8Array.from({ length: 256 }, (_, i) => i);
const values: readonly (readonly [title: string, value: Uint8Array])[] = [
  ["nothing", new Uint8Array(0)],
  ["a newline", new TextEncoder().encode("\n")],
  ["lines that end with none", new TextEncoder().encode("a\nb\r\nc")],
  ["zero bytes", new Uint8Array(3)],
  ["what is no UTF-8", Uint8Array.of(0xff, 0xfe, 0xc3, 0x28, 0x80)],
  ["every byte", allBytes],
  ["the largest value", new Uint8Array(1024 * 1024).map((_, i) => (i * 7) & 0xff)],
];

describe.concurrent("values go in and come out verbatim", () => {
  for (const [title, value] of values) {
    test(title, async () => {
      const key = `value: ${title}`;
      await ok(["put", key], { input: value });
      const { stdout } = await ok(["get", key]);
      expect(stdout.equals(value)).toBe(true);
      const { found, value: text } = await json(["get", key]);
      expect(found).toBe(true);
      expect(Buffer.from(text as string, "base64").equals(value)).toBe(true);
    });
  }

  test("text from the command line", async () => {
    for (const value of ["", " ", "-x", "schön 🚢", "two\nlines"]) {
      await ok(["put", "value: text", "--", value]);
      expect((await ok(["get", "value: text"])).out).toBe(value);
    }
  });
});

describe.concurrent("keys of all kinds", () => {
  const keys = [
    "with space",
    "-dash",
    "--json",
    "a/b/../c",
    "%41%zz",
    "ключ",
    "🚢",
    "a\tb",
    "'\"`$",
  ];
  for (const key of keys) {
    test(JSON.stringify(key), async () => {
      await ok(["put", "--", key, key]);
      expect((await ok(["get", "--", key])).out).toBe(key);
      const [first] = key;
      const { out } = await ok(["range", "--json", "--", first!]);
      const found = out
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as { key: string });
      expect(found.map((item) => Buffer.from(item.key, "base64").toString())).toContain(key);
      await ok(["del", "--", key]);
      expect((await run(["get", "--", key])).status).toBe(1);
    });
  }
});

describe.concurrent("the answer no is status 1", () => {
  test("get and del of an absent key", async () => {
    const got = await run(["get", "absent"]);
    expect([got.status, got.out, got.err]).toEqual([1, "", 'barge: there is no key "absent"\n']);
    expect(await json(["get", "absent"], 1)).toEqual({ found: false });
    const deleted = await run(["del", "absent"]);
    expect([deleted.status, deleted.out, deleted.err]).toEqual([1, "there was no such key\n", ""]);
    expect(await json(["del", "absent"], 1)).toMatchObject({ deleted: false });
  });

  test("--prev-revision that is another", async () => {
    const first = ["put", "lock", "me", "--prev-revision", "0"];
    expect((await ok(first)).out).toMatch(/^revision \d+\n$/);
    const { swapped, revision } = await json(first, 1);
    expect(swapped).toBe(false);
    const again = await run(first);
    expect([again.status, again.out]).toEqual([1, `not written: revision is ${revision}\n`]);
    expect((await ok(["get", "lock"])).out).toBe("me");

    const mine = String(revision);
    const swap = await json(["put", "lock", "you", "--prev-revision", mine]);
    expect(swap).toMatchObject({ swapped: true });
    const stale = await run(["del", "lock", "--prev-revision", mine]);
    expect([stale.status, stale.out]).toEqual([
      1,
      `not deleted: revision is ${swap["revision"]}\n`,
    ]);
    await ok(["del", "lock", "--prev-revision", String(swap["revision"])]);
    const gone = await run(["put", "lock", "x", "--prev-revision", mine]);
    expect([gone.status, gone.out]).toEqual([1, "not written: there is no such key\n"]);
  });

  test("a transaction whose compares do not hold", async () => {
    const input = JSON.stringify({
      compare: [{ key: "txn", exists: true }],
      success: [],
      failure: [{ op: "get", key: "txn" }],
    });
    const { status, out } = await run(["txn"], { input });
    expect(status).toBe(1);
    expect(out).toContain("the compares did not hold");
  });
});

describe.concurrent("consistency, group, bounds", () => {
  test("linearizable and local read, lease is refused with words", async () => {
    await ok(["put", "level", "here"]);
    for (const level of ["linearizable", "local"]) {
      expect((await ok(["get", "level", "--consistency", level])).out).toBe("here");
    }
    const { status, out, err } = await run(["get", "level", "--consistency", "lease"]);
    expect([status, out]).toEqual([2, ""]);
    expect(err).toContain("Lease reads are switched off; use linearizable or local.");
  });

  test("a group that is not there", async () => {
    for (const args of [["put", "k", "v"], ["get", "k"], ["del", "k"], ["range"]]) {
      const { status, err } = await run([...args, "--group", "5"]);
      expect(err).toContain("barge: unknown_group: There is no group 5: ");
      expect(status).toBe(2);
    }
    const { status, out } = await run(["status", "--group", "5"]);
    expect(out).toContain("no group 5");
    expect(status).toBe(2);
  });

  test("a value or a key over its bound", async () => {
    const value = await run(["put", "big"], { input: new Uint8Array(1024 * 1024 + 1) });
    expect(value.status).toBe(2);
    expect(value.err).toBe(
      "barge: too_large: the value has 1048577 bytes; a node takes up to 1048576. Nothing was changed.\n",
    );
    expect((await run(["put", "k".repeat(4_097), "v"])).status).toBe(2);
    await ok(["put", "k".repeat(4_096), "v"]);
  });
});

describe("range", () => {
  const count = 2_345;
  const name = (i: number): string => `page/${String(i).padStart(5, "0")}`;

  beforeAll(async () => {
    await using client = connect({ endpoints: served.endpoints });
    const writes = Array.from({ length: count }, (_, i) => client.put(name(i), `value ${i}`));
    await Promise.all(writes);
  });

  test("lists all pages in order", async () => {
    const { out } = await ok(["range", "page/"]);
    const lines = out
      .trimEnd()
      .split("\n")
      .map((line) => line.split("\t"));
    expect(lines).toHaveLength(count);
    for (const [i, [key, revision, value]] of lines.entries()) {
      expect(key).toBe(name(i));
      expect(Number(revision)).toBeGreaterThan(0);
      expect(value).toBe(`value ${i}`);
    }
  });

  test("with --json prints one object a line; --limit, --after and --keys-only", async () => {
    const args = ["range", "page/", "--json", "--limit", "1500", "--after", name(9)];
    const items = (await ok(args)).out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { readonly key: string; readonly value: string });
    expect(items).toHaveLength(1_500);
    expect(Buffer.from(items[0]!.key, "base64").toString()).toBe(name(10));
    expect(Buffer.from(items[0]!.value, "base64").toString()).toBe("value 10");
    const keys = await ok(["range", "page/", "--limit", "2", "--keys-only"]);
    expect(keys.out).toMatch(/^page\/00000\t\d+\npage\/00001\t\d+\n$/);
  });

  test("nothing found is nothing printed", async () => {
    expect((await ok(["range", "nothing/"])).out).toBe("");
  });

  test("shows values to be recognised: text as text even where it is cut, else hex", async () => {
    const texts = Array.from({ length: 4 }, (_, i) => `${"x".repeat(i)}${"ü🚢".repeat(40)}`);
    for (const [i, text] of texts.entries()) await ok(["put", `preview/${i}`, text]);
    await ok(["put", "preview/binary"], { input: Uint8Array.of(0, 0xff) });
    await ok(["put", "preview/escape"], { input: "\u001b[31mred\n" });
    const lines = (await ok(["range", "preview/"])).out.trimEnd().split("\n");
    for (const [i, text] of texts.entries()) {
      const [, , shown] = lines[i]!.split("\t");
      const [cut, bytes] = shown!.split("…");
      expect(text).toStartWith(cut!);
      expect(cut!.length).toBeGreaterThan(30);
      expect(bytes).toBe(` (${Buffer.byteLength(text)} bytes)`);
    }
    expect(lines[4]).toEndWith("\t0x00ff");
    expect(lines[5]).toEndWith('\t"\\u001b[31mred\\n"');
  });

  test("and a reader that closes the pipe ends it quietly", async () => {
    for (const reader of ["head -c 1", "true"]) {
      for (const command of ["range page/", "range page/ --json", "get page/00000", "help bench"]) {
        expect(await piped(command, reader)).toBe("status 0\n");
      }
    }
  });
});

/** What the command and its status write to standard error while its output goes to a reader that ends early, or at once. */
async function piped(command: string, reader: string): Promise<string> {
  const main = `${import.meta.dir}/../../src/main.ts`;
  const line = `{ "$0" "$1" ${command}; echo "status $?" >&2; } | ${reader} >/dev/null`;
  const shell = Bun.spawn(["sh", "-c", line, process.execPath, main], {
    env: { PATH: process.env["PATH"] ?? "", BARGE_ENDPOINTS: served.endpoints },
    stderr: "pipe",
  });
  return await shell.stderr.text();
}

test("a put whose revision nobody reads is written all the same", async () => {
  expect(await piped("put unread value", "true")).toBe("status 0\n");
  expect((await ok(["get", "unread"])).out).toBe("value");
});

test("bench --json prints one document, and the same into --out", async () => {
  const file = `${folder}/bench.json`;
  const args = ["bench", "put", "--seconds", "0.2", "--warmup", "0", "--in-flight", "8"];
  const { status, out, err } = await run([...args, "--json", "--out", file]);
  expect(status).toBe(0);
  expect(await Bun.file(file).text()).toBe(out);
  const report = JSON.parse(out) as Record<string, unknown>;
  expect(report).toMatchObject({ benchmark: "put", nodes: 1, errors: 0, unknown: 0, inFlight: 8 });
  expect(report["operations"]).toBeGreaterThan(0);
  expect(err).toContain("doubtful: a short run");
});

test("a write takes one entry of the log, and is tried again all the same", async () => {
  const revisions: unknown[] = [];
  for (const value of ["1", "2", "3"])
    revisions.push((await json(["put", "one", value]))["revision"]);
  const [first] = revisions as [number];
  expect(revisions).toEqual([first, first + 1, first + 2]);
  const metrics = await (await fetch(`http://${served.http}/metrics`)).text();
  expect(metrics).toMatch(/^barge_group_request_ids\{.*\} [1-9][0-9]*$/m);
});

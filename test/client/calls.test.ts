/** Calls into requests: merging by turn, splitting at bounds, results by position, codecs, wrong arguments. */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { writeSafe } from "../../src/wire/batch.ts";
import { KvCommandReader, KvOp, readKvQuery } from "../../src/wire/kv.ts";
import { SectionResults } from "../../src/wire/section-results.ts";
import { commandsOf, countOf, entry, FakeNode, type Received } from "./fake-node.ts";

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

function applyAll(node: FakeNode, request: Received): void {
  if (request.type === "write") node.applied(request);
}

test("the commands of one turn are one section, each with its own revision", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint });
  const results = await Promise.all(
    Array.from({ length: 500 }, (_, i) => client.put(`key-${i}`, `value-${i}`)),
  );
  expect(node.writes.map(countOf)).toEqual([500]);
  expect(results.map(({ revision }) => revision)).toEqual(
    Array.from({ length: 500 }, (_, i) => i + 1),
  );
  const reader = new KvCommandReader();
  const [first] = commandsOf(node.writes[0]!);
  expect(
    reader.read(
      new DataView(first!.buffer, first!.byteOffset, first!.byteLength),
      0,
      first!.byteLength,
    ),
  ).toBe(true);
  expect(reader.op).toBe(KvOp.put);
  expect(text(first!.subarray(reader.keyAt, reader.keyAt + reader.keyLength))).toBe("key-0");
  expect(text(first!.subarray(reader.valueAt, reader.valueAt + reader.valueLength))).toBe(
    "value-0",
  );

  await client.put("later", "turn");
  expect(node.writes.map(countOf)).toEqual([500, 1]);
});

test("keys and values of any text and bytes arrive as they are", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint });
  const samples = ["a", "ü", "日本語", "💡", "x".repeat(100), `${"y".repeat(70)}é`, "\u0000"];
  const reader = new KvCommandReader();
  for (const sample of samples) {
    await client.put(sample, sample);
    const command = commandsOf(node.writes.at(-1)!)[0]!;
    const view = new DataView(command.buffer, command.byteOffset, command.byteLength);
    expect(reader.read(view, 0, command.byteLength)).toBe(true);
    expect(text(command.subarray(reader.keyAt, reader.valueAt))).toBe(sample);
    expect(text(command.subarray(reader.valueAt))).toBe(sample);
  }
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  await client.put(bytes, bytes);
  const command = commandsOf(node.writes.at(-1)!)[0]!;
  expect(command.subarray(8, 264)).toEqual(bytes);
  expect(command.subarray(264)).toEqual(bytes);
});

test("a section ends at the bound of the hello, and a larger command travels alone", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  node.hello = { sectionBytesMax: 1_000 };
  await using client = connect({ endpoints: node.endpoint });
  await client.put("greet", "first");
  const value = new Uint8Array(300);
  await Promise.all([
    client.put("1", value),
    client.put("2", value),
    client.put("3", value),
    client.put("4", new Uint8Array(5_000)),
    client.put("5", value),
  ]);
  expect(node.writes.slice(1).map(countOf)).toEqual([3, 1, 1]);
  expect(
    node.writes.every(({ section }) => section.byteLength <= 1_000 || section.byteLength > 5_000),
  ).toBe(true);
});

test("results that are not plain ok reach their own call", async () => {
  using node = new FakeNode();
  const revision = new Uint8Array(8);
  writeSafe(new DataView(revision.buffer), 0, 77);
  node.answer = (_, request) => {
    const results = new SectionResults();
    results.add(1, 2, undefined); // delete: not found
    results.add(3, 3, revision); // compare failed
    results.add(5, 4, undefined); // too large
    results.add(6, 99, new Uint8Array([1, 2])); // the machine's own
    node.applied(request, results);
  };
  await using client = connect({ endpoints: node.endpoint });
  const settled = await Promise.allSettled([
    client.put("0", "v"),
    client.delete("1"),
    client.delete("2"),
    client.compareAndSet("3", "v", 5),
    client.compareAndSet("4", "v", 5),
    client.put("5", "v"),
    client.write(new Uint8Array([1])),
    client.write(new Uint8Array([1])),
    client.compareAndDelete("8", 4),
  ]);
  expect(
    settled.map((each) => (each.status === "fulfilled" ? each.value : each.reason.code)),
  ).toEqual([
    { revision: 1 },
    { revision: 2, deleted: false },
    { revision: 3, deleted: true },
    { swapped: false, revision: 77 },
    { swapped: true, revision: 5 },
    "too_large",
    { index: 7, code: 99, bytes: new Uint8Array([1, 2]) },
    { index: 8, code: 0, bytes: new Uint8Array(0) },
    { swapped: true, revision: 9 },
  ]);
  expect(settled[5]).toMatchObject({ reason: { outcome: "not-applied" } });
});

test("writeMany and batch are one section with one promise", async () => {
  using node = new FakeNode();
  node.answer = (_, request) => {
    const results = new SectionResults();
    results.add(1, 5, new Uint8Array([9]));
    node.applied(request, results);
  };
  await using client = connect({ endpoints: node.endpoint });
  const exceptions = [{ position: 1, code: 5, bytes: new Uint8Array([9]) }];
  expect(await client.writeMany([new Uint8Array([1]), new Uint8Array([2, 2])])).toEqual({
    firstIndex: 1,
    count: 2,
    exceptions,
  });
  expect(commandsOf(node.writes[0]!)).toEqual([new Uint8Array([1]), new Uint8Array([2, 2])]);

  const batch = client.batch();
  expect(batch.put("a", "1") && batch.delete("b") && batch.command(new Uint8Array([3]))).toBe(true);
  expect(batch.count).toBe(3);
  expect(await batch.send()).toEqual({ firstIndex: 3, count: 3, exceptions });
  await expect(batch.send()).rejects.toMatchObject({ code: "bad_request" });
  await expect(client.batch().send()).rejects.toMatchObject({ code: "bad_request" });
});

test("a batch says when it is full, and writeMany refuses what does not fit", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint });
  const batch = client.batch();
  const value = new Uint8Array(1_000);
  let fitted = 0;
  while (batch.put(`key-${fitted}`, value)) fitted++;
  expect(fitted).toBeGreaterThan(250);
  expect(batch.byteLength).toBeLessThanOrEqual(256 * 1024);
  expect(await batch.send()).toMatchObject({ firstIndex: 1, count: fitted });
  const commands = Array.from({ length: 300 }, () => value);
  await expect(client.writeMany(commands)).rejects.toMatchObject({
    code: "too_large",
    outcome: "not-applied",
  });
});

test("the queries of one turn are one request per consistency", async () => {
  using node = new FakeNode();
  node.answer = (_, request) => {
    if (request.type === "read") {
      node.read(request, (i) =>
        i === 1 ? { code: 2 } : { code: 0, bytes: entry(i + 10, `v${i}`) },
      );
    }
  };
  await using client = connect({ endpoints: node.endpoint });
  const [a, b, c, d] = await Promise.all([
    client.get("a"),
    client.get("b"),
    client.get("c"),
    client.get("d", { consistency: "local", maxStalenessMs: 250 }),
  ]);
  expect([text(a!.value), a!.revision, b, text(c!.value)]).toEqual(["v0", 10, undefined, "v2"]);
  expect(text(d!.value)).toBe("v0");
  expect(
    node.reads.map(({ count, consistency, maxStalenessMs }) => [
      count,
      consistency,
      maxStalenessMs,
    ]),
  ).toEqual([
    [3, 0, 0],
    [1, 2, 250],
  ]);
  const { queries } = node.reads[0]!;
  expect(readKvQuery(queries.subarray(4, 9))).toEqual({
    op: 64,
    key: new TextEncoder().encode("a"),
  });
});

test("a value that did not fit beside the others is asked for again, alone", async () => {
  using node = new FakeNode();
  node.answer = (_, request) => {
    if (request.type !== "read") return;
    const alone = request.count === 1;
    node.read(request, (i) =>
      i === 1 && !alone ? { code: 4 } : { code: 0, bytes: entry(5, `${request.count}/${i}`) },
    );
  };
  await using client = connect({ endpoints: node.endpoint });
  const [a, b] = await Promise.all([client.get("a"), client.get("b")]);
  expect([text(a!.value), text(b!.value)]).toEqual(["2/0", "1/0"]);
  expect(node.reads.map(({ count }) => count)).toEqual([2, 1]);
});

test("codecs: json and msgpack values come back as they were", async () => {
  const value = { list: [1, "two", null], nested: { yes: true } };
  for (const codec of ["json", "msgpack"] as const) {
    using node = new FakeNode();
    let stored = new Uint8Array(0);
    const reader = new KvCommandReader();
    node.answer = (_, request) => {
      if (request.type === "write") {
        const command = commandsOf(request)[0]!;
        const view = new DataView(command.buffer, command.byteOffset, command.byteLength);
        reader.read(view, 0, command.byteLength);
        stored = command.slice(reader.valueAt);
        node.applied(request);
      } else if (request.type === "read") {
        node.read(request, () => ({ code: 0, bytes: entry(1, stored) }));
      }
    };
    await using client = connect({ endpoints: node.endpoint, codec });
    await client.put("k", value);
    expect((await client.get("k"))?.value).toEqual(value);
    stored = new Uint8Array([0xda, 0xff]);
    await expect(client.get("k")).rejects.toMatchObject({
      code: "bad_request",
      outcome: "not-applied",
    });
  }
});

test("wrong arguments reject, are not applied, and harm no other call of the turn", async () => {
  using node = new FakeNode();
  node.answer = applyAll;
  await using client = connect({ endpoints: node.endpoint });
  const settled = await Promise.allSettled([
    client.put("", "v"),
    client.put("ok", "v"),
    client.put("k".repeat(70_000), "v"),
    client.put("k", new Uint8Array(9 * 1024 * 1024)),
    client.put("k", 5 as unknown as string),
    client.put("k", "v", { timeoutMs: 0 }),
    client.get("k", { consistency: "strong" as "local" }),
    client.get("k", { maxStalenessMs: -1 }),
    client.range({ limit: 0 }),
    client.status("nonsense"),
  ]);
  const codes = settled.map((each) => (each.status === "fulfilled" ? "ok" : each.reason.code));
  expect(codes).toEqual([
    "bad_request",
    "ok",
    "too_large",
    "too_large",
    ...Array.from({ length: 6 }, () => "bad_request"),
  ]);
  expect(node.writes.map(countOf)).toEqual([1]);
});

test("invalid options throw at once", () => {
  for (const options of [
    { endpoints: "" },
    { endpoints: "host" },
    { endpoints: "host:0" },
    { endpoints: ["h:1", "h:99999"] },
    { group: -1 },
    { group: 0xffff_ffff },
    { timeoutMs: 60_001 },
    { attemptTimeoutMs: 0 },
    { codec: "xml" as "json" },
  ]) {
    expect(() => connect(options)).toThrow(expect.objectContaining({ code: "bad_request" }));
  }
});

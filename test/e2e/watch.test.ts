/** Watches through every door of real nodes: the SDK, HTTP, the command line; slow ones, lost nodes, a past that is gone. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { connect, type Change, type Client } from "../../src/client/index.ts";
import { checkLimits, defaultLimits } from "../../src/limits.ts";
import { oneNode } from "../node/one-node.ts";
import { until, withCluster } from "./cluster.ts";

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

function shown(change: Change): string {
  const value = change.type === "put" ? `=${text(change.value)}` : " gone";
  return `${change.revision} ${text(change.key)}${value}`;
}

async function take(changes: AsyncIterable<Change>, count: number): Promise<string[]> {
  const taken: string[] = [];
  for await (const change of changes) {
    taken.push(shown(change));
    if (taken.length === count) break;
  }
  return taken;
}

test("every kind of change, from a revision on and as it happens", async () => {
  await using node = await oneNode();
  await using client = connect({ endpoints: node.endpoint });
  const { revision: first } = await client.put("a/1", "one");
  await client.put("b/1", "elsewhere");
  await client.delete("a/nothing");
  await client.compareAndSet("a/1", "not so", 0);
  const { revision: second } = await client.compareAndSet("a/1", "two", first);
  const { revision: third } = await client
    .txn()
    .onSuccess(
      { op: "put", key: "a/2", value: "x" },
      { op: "delete", key: "a/1" },
      { op: "delete", key: "a/nothing" },
      { op: "put", key: "a/2", value: "y" },
    )
    .commit();
  const watch = client.watch({ prefix: "a/", from: first });
  const taking = take(watch, 5);
  const { revision: fourth } = await client.put("a/3", "later");
  expect(await taking).toEqual([
    `${first} a/1=one`,
    `${second} a/1=two`,
    `${third} a/1 gone`,
    `${third} a/2=y`,
    `${fourth} a/3=later`,
  ]);
  // What was handed out last may not have been dealt with.
  expect(watch.revision).toBe(fourth - 1);
});

test("one key alone; now; the end of a watch", async () => {
  await using node = await oneNode();
  await using client = connect({ endpoints: node.endpoint });
  await client.put("key", "before");
  const watch = client.watch({ key: "key" });
  const batches = watch.batches()[Symbol.asyncIterator]();
  // The first says where it begins.
  const begin = await batches.next();
  expect(begin.value).toMatchObject({ changes: [] });
  await client.put("key2", "other");
  const { revision } = await client.put("key", "after");
  let batch = await batches.next();
  while (batch.value!.changes.length === 0) batch = await batches.next();
  expect(batch.value!.changes.map(shown)).toEqual([`${revision} key=after`]);
  watch.close();
  while (batch.done !== true) batch = (await batches.next()) as typeof batch;
  const next = client.watch({ prefix: "k", from: revision });
  client.close();
  expect(await take(next, Infinity)).toEqual([]);
  expect(() => client.watch()).toThrow("closed");
});

test("what is wrong with the options is said at once", () => {
  const client = connect();
  expect(() => client.watch({ prefix: "a", key: "b" })).toThrow("either prefix or key");
  expect(() => client.watch({ key: "" })).toThrow("must not be empty");
  expect(() => client.watch({ from: -1 })).toThrow("from must be");
  expect(() => client.watch({ prefix: "x".repeat(5_000) })).toThrow("at most 4096 bytes");
  client.close();
});

test("without a node a watch waits, or gives up when it is told to, or is aborted", async () => {
  const client = connect({ endpoints: "127.0.0.1:9", attemptTimeoutMs: 50 });
  const given = client.watch({ giveUpMs: 100 });
  await expect(take(given, 1)).rejects.toMatchObject({ code: "unreachable" });
  const abort = new AbortController();
  const aborted = take(client.watch({ signal: abort.signal }), 1);
  abort.abort();
  await expect(aborted).rejects.toMatchObject({ code: "aborted" });
  client.close();
});

test("a slow program is waited for: a small window, and all of it in the end", async () => {
  const limits = checkLimits({ ...defaultLimits, watchSliceBytes: 4_096 });
  await using node = await oneNode(limits);
  await using client = connect({ endpoints: node.endpoint });
  const watch = client.watch({ prefix: "s/", windowBytes: 1_000 });
  const batches = watch.batches()[Symbol.asyncIterator]();
  await batches.next();
  const count = 3_000;
  const revisions: number[] = [];
  while (revisions.length < count) {
    const puts = Array.from({ length: 100 }, (_, i) => client.put(`s/${i}`, "x".repeat(100)));
    for (const { revision } of await Promise.all(puts)) revisions.push(revision);
  }
  const metrics = await (await fetch(`${node.url}/metrics`)).text();
  // The node has stopped to send long before it was through.
  const told = Number(/barge_group_watch_bytes\{[^}]*\} (\d+)/.exec(metrics)![1]);
  expect(told).toBeLessThan(60_000);
  const seen: number[] = [];
  while (seen.length < count) {
    const { value } = await batches.next();
    for (const change of value!.changes) seen.push(change.revision);
  }
  expect(seen).toEqual(revisions.toSorted((a, b) => a - b));
});

test("a past that is gone is said to be, with what to do", async () => {
  await using node = await oneNode();
  await using client = connect({ endpoints: node.endpoint });
  const { revision } = await client.put("key", "value");
  await client.admin("snapshot", { tailBytes: 0 }, { endpoint: node.endpoint });
  const past = take(client.watch({ from: revision }), 1);
  await expect(past).rejects.toMatchObject({ code: "compacted", retryable: false });
  await expect(take(client.watch({ from: revision }), 1)).rejects.toThrow("read the keys anew");
  const page = await client.range();
  const on = take(client.watch({ from: page.revision + 1 }), 1);
  const { revision: next } = await client.put("key", "on");
  expect(await on).toEqual([`${next} key=on`]);
});

/** The events of a stream, until there are so many. */
async function events(url: string, count: number, headers = {}): Promise<string[]> {
  const abort = new AbortController();
  const response = await fetch(url, { headers, signal: abort.signal });
  if (!response.ok) throw new Error(await response.text());
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const found: string[] = [];
  let rest = "";
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + chunk).split("\n\n");
    rest = parts.pop()!;
    found.push(...parts.filter((part) => !part.includes("event: progress")));
    if (found.length >= count) break;
  }
  abort.abort();
  return found;
}

function event(type: string, revision: number, id: boolean, key: string, value?: string): string {
  const data = {
    key: Buffer.from(key).toString("base64"),
    ...(value === undefined ? {} : { value: Buffer.from(value).toString("base64") }),
    revision,
  };
  return `${id ? `id: ${revision}\n` : ""}event: ${type}\ndata: ${JSON.stringify(data)}`;
}

async function put(client: Client, ...keys: readonly string[]): Promise<number> {
  let txn = client.txn();
  for (const key of keys) {
    txn = txn.onSuccess({ op: "put", key, value: key }) as unknown as typeof txn;
  }
  return (await txn.commit()).revision;
}

test("over HTTP, as server-sent events that can be resumed", async () => {
  await using node = await oneNode();
  await using client = connect({ endpoints: node.endpoint });
  const first = await put(client, "h/1", "h/2");
  const second = await put(client, "h/3");
  const { revision: third } = await client.delete("h/1");
  const url = `${node.url}/v1/watch`;
  const all = [
    event("put", first, false, "h/1", "h/1"),
    event("put", first, true, "h/2", "h/2"),
    event("put", second, true, "h/3", "h/3"),
    event("delete", third, true, "h/1"),
  ];
  expect(await events(`${url}?prefix=h%2F&from=${first}`, 4)).toEqual(all);
  expect(await events(`${url}?key=h%2F1&from=1`, 2)).toEqual([
    event("put", first, true, "h/1", "h/1"),
    event("delete", third, true, "h/1"),
  ]);
  const resumed = await events(`${url}?prefix=h/`, 2, { "Last-Event-ID": String(first) });
  expect(resumed).toEqual(all.slice(2));
  for (const [query, code] of [
    ["prefix=a&key=b", "bad_request"],
    ["from=x", "bad_request"],
    ["group=7", "unknown_group"],
    ["nonsense=1", "bad_request"],
  ]) {
    let answer = { error: { code: "registry_behind" } };
    // A node that has just started cannot tell yet which groups there are.
    await until("it knows", async () => {
      answer = (await (await fetch(`${url}?${query}`)).json()) as typeof answer;
      return answer.error.code !== "registry_behind";
    });
    expect(answer.error.code).toBe(code!);
  }
  expect((await fetch(url, { method: "POST" })).status).toBe(405);
  // All that were left are gone from the node.
  const open = async (): Promise<string> => {
    const metrics = await (await fetch(`${node.url}/metrics`)).text();
    return `${/barge_http_watches (\d+)/.exec(metrics)![1]} ${/barge_group_watches\{[^}]*\} (\d+)/.exec(metrics)![1]}`;
  };
  while ((await open()) !== "0 0") await Bun.sleep(10);
});

test("whoever follows over HTTP and does not read is told no more than fits between", async () => {
  await using node = await oneNode();
  await using client = connect({ endpoints: node.endpoint });
  const { hostname, port } = new URL(node.url);
  const begun = Promise.withResolvers<void>();
  const socket = await Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      data: (each) => {
        each.pause();
        begun.resolve();
      },
    },
  });
  socket.write("GET /v1/watch?prefix=big/ HTTP/1.1\r\nHost: node\r\n\r\n");
  await begun.promise;
  const value = new Uint8Array(100_000);
  const rounds = 10;
  for (let round = 0; round < rounds; round++) {
    await Promise.all(Array.from({ length: 40 }, (_, i) => client.put(`big/${i}`, value)));
  }
  const metrics = await (await fetch(`${node.url}/metrics`)).text();
  const told = Number(/barge_group_watch_bytes\{[^}]*\} (\d+)/.exec(metrics)![1]);
  expect(told).toBeLessThan((rounds * 40 * value.byteLength) / 2);
  socket.terminate();
});

test("on the command line", async () => {
  await using node = await oneNode();
  await using client = connect({ endpoints: node.endpoint });
  const { revision } = await client.put("cli/1", "one");
  const { revision: gone } = await client.delete("cli/1");
  const run = async (...words: readonly string[]): Promise<readonly [number, string, string]> => {
    const main = join(import.meta.dir, "../../src/main.ts");
    const endpoints = ["--endpoints", node.endpoint];
    const child = Bun.spawn(["bun", main, "watch", ...words, ...endpoints], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const out = await new Response(child.stdout).text();
    const err = await new Response(child.stderr).text();
    return [await child.exited, out, err];
  };
  const from = ["--from", String(revision), "--limit", "2"];
  expect(await run("cli/", ...from)).toEqual([
    0,
    `put\tcli/1\t${revision}\tone\ndelete\tcli/1\t${gone}\n`,
    "",
  ]);
  const [status, json] = await run("--key", "cli/1", ...from, "--json");
  expect(status).toBe(0);
  expect(
    json
      .trimEnd()
      .split("\n")
      .map((line): unknown => JSON.parse(line)),
  ).toEqual([
    { type: "put", key: "Y2xpLzE=", value: "b25l", revision },
    { type: "delete", key: "Y2xpLzE=", revision: gone },
  ]);
  await client.admin("snapshot", { tailBytes: 0 }, { endpoint: node.endpoint });
  const [no, , words] = await run("--from", String(revision));
  expect(no).toBe(1);
  expect(words).toContain("compacted");
});

test(
  "over the loss of one node after the other nothing is missed, doubled or out of order",
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
      const { revision: first } = await client.put("w/first", "");
      const watches = Array.from({ length: 6 }, () => {
        // Each a client of its own: they spread over the nodes.
        const watcher = connect({ endpoints: cluster.endpoints });
        const watch = watcher.watch({ prefix: "w/", from: first });
        const seen: Change[] = [];
        const done = (async () => {
          for await (const change of watch) {
            seen.push(change);
            if (text(change.key) === "w/last") break;
          }
          watcher.close();
        })();
        return { seen, done };
      });
      let writing = true;
      const written: string[] = [`${first} w/first=`];
      const writer = (async () => {
        for (let i = 0; writing; i++) {
          const { revision } = await client.put(`w/${i % 7}`, `${i}`);
          written.push(`${revision} w/${i % 7}=${i}`);
        }
      })();
      const have = async (count: number): Promise<void> => {
        while (written.length < count) await Bun.sleep(10);
      };
      for (const node of cluster.nodes) {
        await have(written.length + 50);
        await node.kill();
        await have(written.length + 50);
        node.start();
        await node.ready();
        await have(written.length + 20);
        node.pause();
        await have(written.length + 50);
        node.resume();
        await node.ready();
      }
      writing = false;
      await writer;
      const { revision: last } = await client.put("w/last", "");
      written.push(`${last} w/last=`);
      await Promise.all(watches.map(({ done }) => done));
      // Written in sessions: each write is in the log once, and in this order.
      for (const { seen } of watches) expect(seen.map(shown)).toEqual(written);
    }),
  60_000,
);

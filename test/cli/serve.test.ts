/** `barge serve` without a flag, on a terminal and off it; and how it ends. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../e2e/cluster.ts";
import { anyPorts, barge, removeFolder, Running, scratchFolder, Served } from "./program.ts";

setDefaultTimeout(60_000);

const folder = scratchFolder();
afterAll(() => removeFolder(folder));

let folders = 0;
function newFolder(): string {
  const path = join(folder, String(folders++));
  mkdirSync(path);
  return path;
}

describe.concurrent("serve without a flag", () => {
  test("is a one-node cluster in ./barge-data, which keeps its data and its token", async () => {
    const cwd = newFolder();
    const identity = (): unknown => {
      const text = readFileSync(join(cwd, "barge-data/identity.json"), "utf8");
      const { clusterId, nodeId, token, incarnation } = JSON.parse(text) as Record<string, unknown>;
      return { clusterId, nodeId, token, incarnation };
    };
    let first: unknown;
    {
      await using served = await Served.in(cwd);
      expect(readdirSync(cwd)).toEqual(["barge-data"]);
      first = identity();
      const put = await barge(["put", "k", "v", "--endpoints", served.endpoints]);
      expect(put).toMatchObject({ status: 0, err: "" });
      const { http } = served;
      await until("it is ready", async () => (await fetch(`http://${http}/readyz`)).ok);
      served.signal("SIGTERM");
      expect(await served.ended()).toEqual({ status: 0, signal: null });
    }
    await using served = await Served.in(cwd);
    expect((await barge(["get", "k", "--endpoints", served.endpoints])).out).toBe("v");
    expect(identity()).toEqual(first);
  });

  test("two of them are two clusters", async () => {
    const [one, two] = await Promise.all([Served.in(newFolder()), Served.in(newFolder())]);
    await using _one = one;
    await using _two = two;
    const clusterId = async ({ http }: Served): Promise<unknown> => {
      const status = await fetch(`http://${http}/v1/status`);
      return ((await status.json()) as { readonly clusterId: unknown }).clusterId;
    };
    expect(await clusterId(one)).not.toEqual(await clusterId(two));
  });

  test("logs one JSON object a line, without colours", async () => {
    await using served = await Served.in(newFolder());
    await served.says(/"role":"leader"/);
    served.signal("SIGINT");
    expect(await served.ended()).toEqual({ status: 0, signal: null });
    const lines = served.said.trimEnd().split("\n");
    const messages = lines.map((line) => (JSON.parse(line) as { message: string }).message);
    expect(messages[0]).toBe("starting");
    expect(messages[1]).toBe("serving");
    expect(messages.at(-1)).toBe("stopped");
    expect(served.said).not.toContain("\u001b");
  });

  test("greets a person on a terminal with what to type next", async () => {
    const cwd = newFolder();
    await using served = new Running(["serve"], { cwd, env: anyPorts, terminal: true });
    await served.says(/role=leader/);
    const text = served.said.replaceAll("\r\n", "\n");
    expect(text).toStartWith("Barge ");
    expect(text).toContain(`\n  data      ${join(cwd, "barge-data")}\n`);
    expect(text).toMatch(/\nCtrl-C stops it; the data stays\. The log follows\.\n\d\d:\d\d/);
    expect(text).not.toContain("\u001b");
    const [, endpoints] = await served.says(/ put greeting hello --endpoints (\S+)/);
    const put = await barge(["put", "greeting", "hello", "--endpoints", endpoints!]);
    expect(put.status).toBe(0);
    served.interrupt();
    expect(await served.ended()).toEqual({ status: 0, signal: null });
  });

  test("says nothing with --log-level silent, not even on a terminal", async () => {
    const env = { ...anyPorts, BARGE_LOG_LEVEL: "silent", BARGE_HTTP_LISTEN: "127.0.0.1:0" };
    const options = { cwd: newFolder(), env };
    await using served = new Running(["serve"], { ...options, terminal: true });
    const wal = join(options.cwd, "barge-data/watermark");
    while (!(await Bun.file(wal).exists())) await Bun.sleep(5);
    served.signal("SIGTERM");
    expect(await served.ended()).toEqual({ status: 0, signal: null });
    expect(served.said).toBe("");
  });
});

test("a second signal ends it at once, with the status of that signal", async () => {
  await using served = await Served.in(newFolder());
  // A request that does not end keeps the first signal waiting.
  const held = new TransformStream<Uint8Array, Uint8Array>();
  const writer = held.writable.getWriter();
  const request = fetch(`http://${served.http}/v1/kv/held`, {
    method: "PUT",
    body: held.readable,
  }).catch(() => undefined);
  await writer.write(new TextEncoder().encode("the beginning"));
  await until("the request is there", async () => {
    const metrics = await (await fetch(`http://${served.http}/metrics`)).text();
    // The one that asks counts too.
    return Number(/^barge_http_requests_under_way (\d+)/m.exec(metrics)?.[1]) >= 2;
  });
  served.signal("SIGTERM");
  await served.says(/"message":"stopping/);
  const beganMs = performance.now();
  served.signal("SIGINT");
  const { status } = await served.ended();
  expect(performance.now() - beganMs).toBeLessThan(1_000);
  expect(status).toBe(130);
  await writer.abort().catch(() => {});
  await request;
});

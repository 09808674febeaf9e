/** `serveMachine`: both shapes, what it refuses, one step at a time, over TCP and a Unix socket; and that a machine over it keeps to the contract. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Machine, type MachineServer, serveMachine } from "../../src/client/index.ts";
import { conform } from "../../src/conform/conform.ts";

setDefaultTimeout(60_000);

/** Lists in memory: `KEY VALUE` appends. */
class Lists implements Machine {
  index = 0;
  lists = new Map<string, string>();
  busy = 0;
  overlapped = false;

  lastIndex(): number {
    return this.index;
  }

  async apply(
    entries: readonly { readonly command: Uint8Array }[],
    lastIndex: number,
  ): Promise<(string | undefined)[]> {
    this.overlapped ||= this.busy++ > 0;
    await Bun.sleep(1);
    this.busy--;
    this.index = lastIndex;
    return entries.map(({ command }) => {
      const [key = "", value] = new TextDecoder().decode(command).split(" ");
      if (value === undefined) return undefined;
      this.lists.set(key, `${this.lists.get(key) ?? ""}${value},`);
      return this.lists.get(key);
    });
  }

  read(query: Uint8Array): string {
    return this.lists.get(new TextDecoder().decode(query)) ?? "";
  }

  snapshot(): { save: () => string[] } {
    const text = JSON.stringify([this.index, ...this.lists]);
    return { save: () => [text.slice(0, 3), text.slice(3)] };
  }

  async recover(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) parts.push(chunk);
    const [index, ...lists] = JSON.parse(Buffer.concat(parts).toString()) as [number, ...never[]];
    this.index = index;
    this.lists = new Map(lists);
  }
}

async function withServer(
  machine: Machine,
  body: (url: string, server: MachineServer) => Promise<void>,
): Promise<void> {
  const server = await serveMachine({ port: 0, machine: () => machine });
  try {
    await body(`http://127.0.0.1:${server.port}`, server);
  } finally {
    await server.close();
  }
}

test("a machine over it keeps to the contract, with Sync too", async () => {
  const lists = new Lists();
  await withServer(lists, async (url) => {
    const findings = await conform(
      {
        url,
        group: 7,
        timeoutMs: 10_000,
        startMs: 10_000,
        start: undefined,
        updates: ["k {n}"],
        reads: ["k"],
        sync: true,
        random: Math.random,
      },
      () => {},
    );
    expect(findings.filter(({ verdict }) => verdict === "fault")).toEqual([]);
    expect(lists.overlapped).toBe(false);
  });
});

test("the JSON shape, entries that are there already, gaps, and what there is not", () =>
  withServer(new Lists(), async (url) => {
    const post = async (
      name: string,
      body: string,
      headers: Record<string, string> = {},
    ): Promise<[number, string]> => {
      const response = await fetch(`${url}/groups/3/${name}`, { method: "POST", body, headers });
      expect(response.headers.get("barge-instance")).toMatch(/^[0-9a-f-]{36}$/);
      return [response.status, await response.text()];
    };
    const type = { "content-type": "application/json" };
    const entry = (Index: number, text: string): object => ({ Index, Cmd: btoa(text) });
    const send = (previous: number, ...Entries: object[]): Promise<[number, string]> => {
      const headers = { ...type, "barge-previous-index": String(previous) };
      return post("UpdateEntries", JSON.stringify({ Entries }), headers);
    };
    expect((await send(0, entry(3, "a 1"), entry(4, "a 2")))[0]).toBe(200);
    expect((await send(4, entry(4, "a 2"), entry(9, "a 3")))[0]).toBe(200);
    expect(await post("Read", "a")).toEqual([200, "1,2,3,"]);
    expect(await send(4, entry(10, "a x"))).toEqual([409, expect.stringContaining("ends at 9")]);
    expect(await post("LastLogIndex", "")).toEqual([200, '{"LastLogIndex":9}']);
    expect((await post("SaveSnapshot", '{"Handle":"none"}'))[0]).toBe(404);
    expect((await post("SaveSnapshot", "no JSON"))[0]).toBe(400);
    expect((await post("Nothing", ""))[0]).toBe(404);
    expect((await post("UpdateEntries", "\u0001\u0000", { "barge-previous-index": "9" }))[0]).toBe(
      500,
    );
    expect(await post("LastLogIndex", "")).toEqual([200, '{"LastLogIndex":9}']);
  }));

test("each group has a machine of its own; a machine alone is that of group 0, and no other's", async () => {
  const call = async (server: MachineServer, group: number): Promise<[number, string]> => {
    const url = `http://127.0.0.1:${server.port}/groups/${group}/LastLogIndex`;
    const headers = { "raftd-shard-id": String(group) };
    const response = await fetch(url, { method: "POST", headers });
    return [response.status, await response.text()];
  };
  const machines = [5, 6].map((index) => Object.assign(new Lists(), { index }));
  const several = await serveMachine({ port: 0, machine: (group) => machines[group - 5] });
  expect(await call(several, 5)).toEqual([200, '{"LastLogIndex":5}']);
  expect(await call(several, 6)).toEqual([200, '{"LastLogIndex":6}']);
  expect(await call(several, 7)).toEqual([404, "this application keeps nothing of group 7"]);
  await several.close();
  const one = await serveMachine({ port: 0, machine: new Lists() });
  expect(await call(one, 0)).toEqual([200, '{"LastLogIndex":0}']);
  expect((await call(one, 5))[0]).toBe(404);
  await one.close();
});

test("over a Unix socket", async () => {
  const folder = mkdtempSync(join(tmpdir(), "barge-machine-"));
  const socketPath = join(folder, "app.sock");
  const server = await serveMachine({ socketPath, machine: new Lists() });
  const response = await fetch("http://localhost/Ready", { method: "POST", unix: socketPath });
  expect(await response.json()).toEqual({ Shape: "binary" });
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

test("its node is watched from the first Ready on, and missed once nobody answers there", async () => {
  let asked = 0;
  const node = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: ({ url }) => new Response(url.endsWith("/hc") && ++asked > 0 ? "ok" : "?"),
  });
  const lost = Promise.withResolvers<void>();
  const server = await serveMachine({
    port: 0,
    machine: new Lists(),
    nodeUrl: `http://127.0.0.1:${node.port}/`,
    onNodeLost: lost.resolve,
  });
  expect(asked).toBe(0);
  await fetch(`http://127.0.0.1:${server.port}/Ready`, { method: "POST" });
  while (asked === 0) await Bun.sleep(10);
  await node.stop(true);
  await lost.promise;
  await server.close();
});

/**
 * Clients of many groups on real processes, five nodes and groups of three: from any one node they find each group's leader and follow it; and what they write into one
 * group is never seen in another, whatever is killed meanwhile.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { connect, type Client, groupOfKey } from "../../src/client/index.ts";
import { barge } from "../cli/program.ts";
import { type TestNode, until, withCluster } from "./cluster.ts";
import { createGroups } from "./groups.ts";

setDefaultTimeout(90_000);

const keys = Array.from({ length: 8 }, (_, i) => `k${i}`);
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** What a group holds, or was seen to change to, must have been written into that group. */
function onlyOf(group: number, values: Iterable<string>): void {
  for (const value of values) expect(value).toStartWith(`${group}:`);
}

test("two clients, one of all groups and one of each, never mix groups, though nodes are killed", () =>
  withCluster({ nodes: 5 }, async (cluster) => {
    const nodes = cluster.nodes as [TestNode, TestNode, TestNode, TestNode, TestNode];
    const placements = [
      [1, 2, 3],
      [2, 3, 4],
      [3, 4, 5],
      [4, 5, 1],
      [5, 1, 2],
      [1, 3, 5],
    ];
    for (const members of placements) await createGroups(nodes[0], { members });
    const ids = [0, ...placements.map((_, i) => i + 1)];
    const timeoutMs = 30_000;
    // Each begins at one node, which hosts some of the groups and of the others knows where they are.
    await using shared = connect({ endpoints: nodes[3].binary, timeoutMs });
    const alone = ids.map((group) => connect({ endpoints: nodes[1].binary, group, timeoutMs }));

    const seen = new Map<number, string[]>(ids.map((id) => [id, []]));
    const watching = ids.map(async (group) => {
      for await (const change of shared.watch({ group, prefix: "k", from: 1 })) {
        if (change.type === "put") seen.get(group)!.push(text(change.value));
      }
    });

    let written = 0;
    const write = async (client: Client, group: number, by: string): Promise<void> => {
      for (let i = 0; i < 60; i++) {
        const key = keys[i % keys.length]!;
        await client.put(key, `${group}:${by}:${i}`, { group });
        const entry = await client.get(key, { group });
        onlyOf(group, [text(entry!.value)]);
        written++;
      }
    };
    const writing = ids.flatMap((group, i) => [
      write(shared, group, "shared"),
      write(alone[i]!, group, "alone"),
    ]);
    await until("there is something to lose", () => written > 200);
    await nodes[4].kill();
    await until("they go on", () => written > 400);
    await nodes[4].start();
    await Promise.all(writing);

    for (const group of ids) {
      const page = await shared.range({ group, prefix: "k" });
      expect(page.items.length).toBe(keys.length);
      onlyOf(
        group,
        page.items.map(({ value }) => text(value)),
      );
      await until("its watch has seen all", () => seen.get(group)!.length >= 120);
      onlyOf(group, seen.get(group)!);
      // Each once: a write is applied once, though it was sent again.
      expect(new Set(seen.get(group)).size).toBe(120);
      expect(seen.get(group)!.length).toBe(120);
    }
    expect(shared.groups().toSorted((a, b) => a - b)).toEqual(ids);

    // Those in use are led by who the client takes for the leader: nothing has to be passed on.
    for (const group of ids) {
      const { leader, members } = await shared.group(group).members();
      const address = cluster.nodes[leader - 1]!.binary;
      expect(members.some(({ id, leader: leads }) => id === leader && leads)).toBe(true);
      await until(`the client of group ${group} follows node ${leader}`, async () => {
        await shared.get("k0", { group });
        return shared.group(group).leader() === address;
      });
    }
    await shared.drain();
    await Promise.all(watching);
    await Promise.all(alone.map((client) => client.drain()));
  }));

test("a group that comes is there for a client that runs; one that goes is refused", () =>
  withCluster({}, async (cluster) => {
    const [one, two] = cluster.nodes as [TestNode, TestNode];
    await using client = connect({ endpoints: two.binary, timeoutMs: 20_000 });
    await client.put("k", "0");
    const made = await createGroups(one, { count: 4 });
    const ids = made.map(({ id }) => id);
    await Promise.all(ids.map((group) => client.put("k", `${group}`, { group })));
    for (const key of ["a", "b", "c"]) {
      await client.group(groupOfKey(key, ids)).put(key, key);
      expect(text((await client.get(key, { group: groupOfKey(key, ids) }))!.value)).toBe(key);
    }
    await client.admin("removeGroups", { groups: [ids[0]!] });
    await until("it is refused", async () => {
      const code = await client.get("k", { group: ids[0]! }).then(
        () => "there",
        (error: { readonly code: string }) => error.code,
      );
      return code === "unknown_group";
    });
    expect(text((await client.get("k", { group: ids[1]! }))!.value)).toBe(`${ids[1]}`);
    await until("the client has heard", () => !client.groups().includes(ids[0]!));

    // What people see of it.
    const status = async (...args: string[]): Promise<string> => {
      const {
        status: code,
        out,
        err,
      } = await barge(["status", "--endpoints", two.binary, ...args]);
      expect({ code, err }).toEqual({ code: 0, err: "" });
      return out;
    };
    await until("all have leaders", async () => (await status()).includes("all well"));
    const lines = (await status()).trimEnd().split("\n");
    expect(lines[0]).toMatch(/^id +address +groups +leads +log +state +disk +version +health$/);
    expect(lines.slice(1, 4).map((line) => line.trim().split(/ {2,}/)[2])).toEqual(["4", "4", "4"]);
    const list = JSON.parse(await status("--groups", "--json")) as {
      readonly groups: readonly { readonly id: number; readonly members: readonly number[] }[];
    };
    expect(list.groups.map(({ id }) => id)).toEqual([0, ...ids.slice(1), 0xffff_ffff]);
    expect(list.groups.every(({ members }) => members.length === 3)).toBe(true);
    expect(await status("--only", "no-leader")).toContain("none of that kind");
    expect(await status("--groups", "--limit", "2")).toContain("and 3 more");
    const named = await status("--group", `${ids[1]}`);
    expect(named).toMatch(/^id +address +role +term +leader +commit/);
    expect(named.split("\n").filter((line) => line.includes("leader")).length).toBe(2);

    // Every command takes the group.
    const group = ids[2]!;
    const run = async (...args: string[]): Promise<string> => {
      const flags = ["--group", `${group}`, "--endpoints", two.binary];
      const { status: code, out, err } = await barge([...args, ...flags]);
      expect({ args, code, err }).toEqual({ args, code: 0, err: "" });
      return out;
    };
    await run("put", "cli/k", "of the CLI");
    expect(await run("get", "cli/k")).toBe("of the CLI");
    expect(await run("range", "cli/")).toContain("cli/k");
    expect((await client.get("cli/k", { group }))!.revision).toBeGreaterThan(0);
    expect(await client.get("cli/k")).toBeUndefined();
    const { leader } = await client.group(group).members();
    const next = (leader % 3) + 1;
    expect(await run("transfer-leader", "--to", `${next}`)).toBe(`node ${next} leads now\n`);
    expect(await run("member", "list")).toContain("leader");
    expect((await run("snapshot", "--all")).trimEnd().split("\n").length).toBe(3);
    const file = join(cluster.nodes[0]!.dataDir, "..", "group.barge");
    await run("backup", file);
    expect(readFileSync(file).includes("of the CLI")).toBe(true);
    expect(await run("del", "cli/k")).toStartWith("revision");
    const txn = await fetch(`http://${two.http}/v1/txn?group=${group}`, {
      method: "POST",
      body: JSON.stringify({ success: [{ op: "get", key: btoa("cli/k") }] }),
    });
    expect(await txn.json()).toMatchObject({ succeeded: true, results: [null] });
  }));

/** Several groups over the same applications: each is called below its own path, has entries of its own, and comes and goes by itself. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { AppCluster } from "./app-cluster.ts";

setDefaultTimeout(60_000);

/** Asked again until it is granted: the registry begins a moment after the cluster. */
async function newShard(cluster: AppCluster, at: number, id: number): Promise<void> {
  await cluster.until(`group ${id} is made`, async () => {
    const body = JSON.stringify({ ShardID: id });
    const url = `${cluster.url(at)}/raft/new_shard`;
    return (await fetch(url, { method: "POST", body })).status === 202;
  });
}

async function serves(cluster: AppCluster, at: number, group: number): Promise<boolean> {
  return (await fetch(`${cluster.url(at)}/rc?group=${group}`)).ok;
}

async function allServe(cluster: AppCluster, groups: readonly number[]): Promise<void> {
  for (const group of groups) {
    for (let at = 0; at < cluster.nodes.length; at++) {
      await cluster.until(`node ${at + 1} serves group ${group}`, () => serves(cluster, at, group));
    }
  }
}

async function status(cluster: AppCluster, at: number, path: string, init?: RequestInit) {
  const response = await fetch(`${cluster.url(at)}${path}`, init);
  return [response.status, await response.text()] as const;
}

test("groups for applications beside a group of keys: each has its own entries, over a start of all nodes too", async () => {
  await using cluster = await AppCluster.of(3, false, "kv");
  await newShard(cluster, 0, 5);
  await newShard(cluster, 1, 6);
  await newShard(cluster, 2, 5);
  await allServe(cluster, [5, 6]);
  for (let i = 0; i < 6; i++) {
    expect(await cluster.write(i % 3, `five-${i}`, 5)).toBe(`did five-${i}`);
    expect(await cluster.write(i % 3, `six-${i}`, 6)).toBe(`did six-${i}`);
  }
  const read = { method: "POST", body: "how" };
  expect(await status(cluster, 1, "/raft/read?group=5", read)).toEqual([200, "6 how"]);
  expect((await status(cluster, 0, "/v1/kv/a", { method: "PUT", body: "b" }))[0]).toBe(200);
  expect(await status(cluster, 0, "/v1/kv/a")).toEqual([200, "b"]);
  const [code, text] = await status(cluster, 0, "/v1/kv/a?group=5");
  expect([code, text.includes("wrong_machine")]).toEqual([409, true]);
  await Promise.all(cluster.nodes.map((node) => node.stop()));
  await Promise.all([0, 1, 2].map((at) => cluster.restart(at)));
  await allServe(cluster, [5, 6]);
  expect(await cluster.write(2, "after", 5)).toBe("did after");
  for (const app of cluster.apps) {
    await cluster.until("it has everything", () => app.group(5).entries.length === 7);
    const count = (word: string): string[] => Array.from({ length: 6 }, (_, i) => `${word}-${i}`);
    expect(app.group(5).commands).toEqual([...count("five"), "after"]);
    expect(app.group(6).commands).toEqual(count("six"));
    expect(app.entries).toEqual([]);
  }
});

test("a group whose application is out on a node leads elsewhere, and the others go on there", async () => {
  await using cluster = await AppCluster.of(3, false, "kv");
  await newShard(cluster, 0, 5);
  await newShard(cluster, 0, 6);
  await allServe(cluster, [5, 6]);
  await cluster.write(0, "first", 5);
  const at = [0, 1, 2].find((each) => cluster.group(each, 5).role === "leader")!;
  const app = cluster.apps[at]!;
  app.group(5).fails = true;
  await cluster.until("another leads", () =>
    [0, 1, 2].some((each) => each !== at && cluster.group(each, 5).role === "leader"),
  );
  expect(await serves(cluster, at, 5)).toBe(false);
  expect(await serves(cluster, at, 6)).toBe(true);
  expect(await cluster.isReady(at)).toBe(true);
  expect(await cluster.write(at, "meanwhile", 6)).toBe("did meanwhile");
  const other = (at + 1) % 3;
  for (let i = 0; i < 5; i++) await cluster.write(other, `w${i}`, 5);
  app.group(5).fails = false;
  await cluster.until("it has everything", () => app.group(5).entries.length === 6);
  await cluster.until("it serves again", () => serves(cluster, at, 5));
});

test("a removed group is called no more, and its id makes no other one", async () => {
  await using cluster = await AppCluster.of(1);
  await newShard(cluster, 0, 5);
  await allServe(cluster, [5]);
  await cluster.write(0, "first", 5);
  await cluster.write(0, "first", 0);
  expect((await status(cluster, 0, "/v1/groups/5", { method: "DELETE" }))[0]).toBe(200);
  await cluster.until("it is gone", () => cluster.group(0, 5) === undefined);
  const [code, text] = await status(cluster, 0, "/raft/update?group=5", {
    method: "POST",
    body: "no",
  });
  expect([code, text.includes("unknown_group")]).toEqual([404, true]);
  const body = JSON.stringify({ ShardID: 5 });
  const [again] = await status(cluster, 0, "/raft/new_shard", { method: "POST", body });
  expect(again).toBe(409);
  const app = cluster.apps[0]!;
  const calls = app.group(5).count("Ready");
  await cluster.write(0, "second", 0);
  expect(app.commands).toEqual(["first", "second"]);
  expect(app.group(5).count("Ready")).toBe(calls);
});

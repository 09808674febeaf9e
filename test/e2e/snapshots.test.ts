/** Snapshots between real processes: who lags past the retained log gets one, who lags less gets none, and the log stays short. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { GroupStatus } from "../../src/server/groups.ts";
import type { SessionAnswer } from "../../src/wire/admin.ts";
import { encodeControl } from "../../src/wire/client-messages.ts";
import { encodeKvCompareAndPut } from "../../src/wire/kv.ts";
import { layOutSection, SectionKind } from "../../src/wire/section.ts";
import { clientHello, frameOf, RawClient, writeFrame } from "../misuse/raw-client.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";

const testMsMax = 60_000;
/** Cut early: by the kilobyte, not by the hundred megabytes. */
const flags = [
  "--compact-entries",
  "0",
  "--compact-bytes",
  "60000",
  "--compact-tail-bytes",
  "20000",
];

async function post(
  node: TestNode,
  path: string,
  body: object = {},
): Promise<Record<string, number>> {
  const response = await node.fetch(path, { method: "POST", body: JSON.stringify(body) }, 10_000);
  const answer = (await response.json()) as Record<string, number>;
  expect({ path, status: response.status, answer }).toMatchObject({ status: 200 });
  return answer;
}

/** On a crowded machine another node may come to lead meanwhile. */
async function put(node: TestNode, key: string, bytes: number): Promise<void> {
  const init = { method: "PUT", body: Buffer.alloc(bytes, key) };
  await until(`node ${node.id} takes ${key}`, async () => {
    return (await node.fetch(`/v1/kv/${key}`, init, 10_000)).status === 200;
  });
}

/** Some keys, again and again; their newest values are `round`'s. */
async function fill(node: TestNode, from: number, to: number): Promise<void> {
  for (let i = from; i < to; i++) await put(node, `key-${i % 40}`, 1_000 + i);
}

/** Until the log of these nodes begins beyond an index: for a while it is kept for a member that was there a moment ago. */
async function cut(nodes: readonly TestNode[], beyond: number): Promise<void> {
  for (const node of nodes) {
    await until(`the log of node ${node.id} is cut`, async () => {
      return (await post(node, "/v1/snapshot"))["firstIndex"]! > beyond + 1;
    });
  }
}

async function metric(node: TestNode, name: string): Promise<number> {
  const text = await (await node.fetch("/metrics")).text();
  const line = text.split("\n").find((each) => each.startsWith(name));
  return Number(line?.split(" ").at(-1));
}

function machineFiles(node: TestNode): string[] {
  const folder = join(node.dataDir, "machine/0");
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".db"))
    .map((name) => name.split("/").at(-1)!);
}

async function lagging(
  cluster: TestCluster,
): Promise<{ leader: TestNode; lagging: TestNode; up: TestNode[] }> {
  const leader = await cluster.leader();
  const [behind] = await cluster.followers();
  return { leader, lagging: behind!, up: cluster.nodes.filter((node) => node !== behind) };
}

async function same(cluster: TestCluster): Promise<GroupStatus> {
  const group = await cluster.converged();
  const hashes = await Promise.all(
    cluster.nodes.map(async (node) => (await node.group()).stateHash),
  );
  expect(new Set(hashes).size).toBe(1);
  return group;
}

test(
  "a follower that was away past the retained log gets a snapshot, also one that was emptied of what it had",
  () =>
    withCluster({ flags }, async (cluster) => {
      const { leader, lagging: behind, up } = await lagging(cluster);
      await fill(leader, 0, 20);
      await cluster.converged();
      const { lastIndex } = await behind.group();
      await behind.kill();
      await fill(leader, 20, 150);
      await cut(up, lastIndex);
      behind.start();
      await behind.ready();
      await same(cluster);
      expect(await metric(behind, "barge_group_snapshots_installed")).toBe(1);
      expect(machineFiles(behind)).toEqual(["kv-1.db"]);
      // What came with it is what is served, and it goes on from there, also after another crash.
      await fill(leader, 150, 170);
      await same(cluster);
      await behind.kill();
      await fill(leader, 170, 180);
      behind.start();
      await behind.ready();
      await same(cluster);
      const response = await behind.fetch("/v1/kv/key-19?consistency=local");
      expect((await response.arrayBuffer()).byteLength).toBe(1_000 + 179);
    }),
  testMsMax,
);

/** Under a request id; returns the revision. */
async function putOnce(node: TestNode, id: string): Promise<number> {
  const headers = { "barge-request-id": id };
  const response = await node.fetch("/v1/kv/once", { method: "PUT", body: id, headers }, 10_000);
  const answer = (await response.json()) as { revision?: number };
  expect({ status: response.status, answer }).toMatchObject({ status: 200 });
  return answer.revision!;
}

test(
  "what is known of sessions and request ids comes with a snapshot: whoever got it leads, and answers as it was answered before",
  () =>
    withCluster({ flags }, async (cluster) => {
      const { leader, lagging: behind, up } = await lagging(cluster);
      await until(
        "there are sessions",
        async () => (await behind.group()).applyVersion === applyVersionMax,
      );
      const { lastIndex } = await behind.group();
      await behind.kill();
      const revision = await putOnce(leader, "one");
      using raw = await RawClient.connect(leader.binary, { hello: clientHello });
      raw.send(frameOf((out) => encodeControl(out, 1, "sessionOpen", {})));
      await raw.waitReplies(1);
      const { session } = (raw.replies[0] as { body: SessionAnswer }).body;
      const identity = { kind: SectionKind.session, session, firstSeq: 1, doneUpTo: 0 };
      const command = encodeKvCompareAndPut(Buffer.from("created"), Buffer.from("once"), 0);
      const section = layOutSection([command], identity);
      raw.send(writeFrame(2, section));
      await raw.waitReplies(2);
      await fill(leader, 0, 150);
      await cut(up, lastIndex + 4);
      behind.start();
      await behind.ready();
      await same(cluster);
      expect(await metric(behind, "barge_group_snapshots_installed")).toBe(1);
      // The leader hears a moment later that it has caught up.
      await until("it leads", async () => {
        await post(behind, "/v1/transfer-leader", { to: behind.id });
        return true;
      });
      expect(await putOnce(behind, "one")).toBe(revision);
      using again = await RawClient.connect(behind.binary, { hello: clientHello });
      again.send(writeFrame(2, section));
      await again.waitReplies(1);
      expect(again.replies[0]).toEqual(raw.replies[1]!);
      expect((await behind.group()).sessions).toMatchObject({ open: 1, requestIds: 1 });
      await same(cluster);
    }),
  testMsMax,
);

test(
  "a follower that was away for less than the retained tail gets none",
  () =>
    withCluster({ flags }, async (cluster) => {
      const { leader, lagging: behind, up } = await lagging(cluster);
      await fill(leader, 0, 100);
      await cluster.converged();
      await behind.kill();
      // Some 10 of the 20 kilobytes that are kept.
      await fill(leader, 100, 109);
      for (const node of up) await post(node, "/v1/snapshot");
      behind.start();
      await behind.ready();
      await same(cluster);
      expect(await metric(behind, "barge_group_snapshots_installed")).toBe(0);
      expect(machineFiles(behind)).not.toContain("kv-1.db");
    }),
  testMsMax,
);

test(
  "with a member down the log is cut by itself, and stays short under writes without end",
  () =>
    withCluster({ flags }, async (cluster) => {
      const { leader, lagging: behind, up } = await lagging(cluster);
      await behind.kill();
      let from = 0;
      let logBytesMax = 0;
      await until("both logs are cut", async () => {
        await fill(leader, from, (from += 20));
        const groups = await Promise.all(up.map((node) => node.group()));
        logBytesMax = Math.max(logBytesMax, ...groups.map(({ logBytes }) => logBytes));
        return groups.every(({ firstIndex }) => firstIndex > 1);
      });
      // What is not durable yet is kept beside what the policy keeps.
      expect(logBytesMax).toBeLessThan(2_000_000);
      behind.start();
      await behind.ready();
      await same(cluster);
    }),
  testMsMax,
);

test(
  "when the log is cut can be asked, and changed while the node runs",
  () =>
    withCluster({ nodes: 1, flags }, async (cluster) => {
      const [node] = cluster.nodes as [TestNode];
      const ask = async (init: RequestInit = {}): Promise<unknown> =>
        (await node.fetch("/v1/compaction", init)).json();
      expect(await ask()).toMatchObject({ node: 1, entries: 0, bytes: 60_000, tailBytes: 20_000 });
      const body = JSON.stringify({ entries: 10, bytes: 0, tailBytes: 0 });
      expect(await ask({ method: "PATCH", body })).toMatchObject({ entries: 10, bytes: 0 });
      const odd = await node.fetch("/v1/compaction", { method: "PATCH", body: '{"entries":-1}' });
      expect(odd.status).toBe(400);
      await fill(node, 0, 30);
      await post(node, "/v1/snapshot");
      await until("the log is cut", async () => (await node.group()).firstIndex > 25);
    }),
  testMsMax,
);

/** The cluster beside applications changes, by the API of raftd: a recruit gets all data, before or after it is started; one that is removed is out for good; and a node that is told to stop loses nothing. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TestApplication, typescript } from "../apps/applications.ts";
import { barge } from "../cli/program.ts";
import { loopbackPlace, TestCluster, TestNode, until } from "./cluster.ts";

setDefaultTimeout(120_000);

const folder = mkdtempSync(join(tmpdir(), "barge-application-members-"));

class Beside implements AsyncDisposable {
  readonly apps = new Map<number, TestApplication>();
  readonly cluster: TestCluster;

  constructor() {
    const place = (id: number): ReturnType<typeof loopbackPlace> => {
      const app = new TestApplication(typescript, join(folder, `app${id}-${performance.now()}`));
      this.apps.set(id, app);
      return { ...loopbackPlace(), environment: { BARGE_APP_URL: app.url } };
    };
    this.cluster = new TestCluster({ place });
  }

  async start(): Promise<this> {
    await Promise.all([...this.apps.values()].map((app) => app.start()));
    await this.cluster.start();
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
    await Promise.all([...this.apps.values()].map((app) => app.kill()));
    rmSync(folder, { recursive: true, force: true });
  }
}

async function post(node: TestNode, path: string, body: string, id?: string): Promise<Response> {
  const headers: Record<string, string> = id === undefined ? {} : { "barge-request-id": id };
  return node.fetch(path, { method: "POST", body, headers }, 15_000);
}

const read = async (node: TestNode, key: string): Promise<string> =>
  (await post(node, "/raft/read", `get ${key}`)).text();

test("recruit before and after the start, the list of members, removal for good", async () => {
  await using beside = await new Beside().start();
  const { cluster, apps } = beside;
  const [first] = cluster.nodes as [TestNode];
  for (let i = 1; i <= 30; i++) {
    expect((await post(first, "/raft/update", `append k ${i}`)).status).toBe(200);
  }
  const whole = await read(first, "k");
  // Started first: it asks to be added by itself; to recruit it then, and again, changes nothing.
  const recruit = cluster.join();
  await apps.get(recruit.id)!.start();
  recruit.start();
  await recruit.ready();
  const wish = JSON.stringify({
    ReplicaID: recruit.id,
    ReplicaAddr: recruit.binary,
    ShardID: 0,
  });
  for (let i = 0; i < 2; i++) {
    expect((await post(first, "/raft/recruit_replica", wish)).status).toBe(202);
  }
  expect(await read(recruit, "k")).toBe(whole);
  await until("it votes", async () => {
    const { members } = (await (await first.fetch("/raft/membership_info")).json()) as {
      members: { nodeID: number; role: string }[];
    };
    return members.some(({ nodeID, role }) => nodeID === recruit.id && role === "voter");
  });
  // Recruited first, and started then.
  const second = cluster.join();
  const early = JSON.stringify({ ReplicaID: second.id, ReplicaAddr: second.binary });
  expect((await post(first, "/raft/recruit_replica", early)).status).toBe(202);
  await apps.get(second.id)!.start();
  second.start();
  await second.ready();
  expect(await read(second, "k")).toBe(whole);
  // Out for good.
  second.mayEnd = true;
  const remove = JSON.stringify({ ReplicaID: second.id, ShardID: 0 });
  expect((await post(first, "/raft/remove_replica", remove)).status).toBe(202);
  expect((await second.ended()).status).toBe(29);
  cluster.leave(second);
  const refused = await post(first, "/raft/recruit_replica", early);
  expect([refused.status, await refused.json()]).toMatchObject([
    410,
    { error: { code: "member_removed" } },
  ]);
  expect((await post(first, "/raft/update", "append k last")).status).toBe(200);
});

test("an exported snapshot makes a new cluster, whose application is given it at the first start", async () => {
  await using beside = await new Beside().start();
  const [first] = beside.cluster.nodes as [TestNode];
  for (let i = 1; i <= 30; i++) await post(first, "/raft/update", `append k ${i}`, `id-${i}`);
  const whole = await read(first, "k");
  const file = join(folder, "exported.barge");
  const response = await first.fetch("/raft/snapshot", {}, 20_000);
  await Bun.write(file, await response.arrayBuffer());
  const place = loopbackPlace();
  const dataDir = join(folder, "restored");
  const flags = [file, "--data-dir", dataDir, "--advertise", place.advertise];
  const restored = await barge(["restore", ...flags]);
  expect([restored.status, restored.out]).toEqual([
    0,
    expect.stringContaining("what the application is to be given at its first start"),
  ]);
  await using app = new TestApplication(typescript, join(folder, "restored-app"));
  await app.start();
  const node = new TestNode({
    id: 1,
    ...place,
    environment: { BARGE_APP_URL: app.url },
    dataDir,
    logFile: join(folder, "restored.log"),
    flags: [],
  });
  try {
    node.start();
    await node.ready();
    expect(await read(node, "k")).toBe(whole);
    // Request ids came along.
    await post(node, "/raft/update", "append k 30", "id-30");
    expect(await read(node, "k")).toBe(whole);
  } finally {
    await node.kill();
  }
});

test("a node that is told to stop under load loses nothing that was acknowledged, and stops in time", async () => {
  await using beside = await new Beside().start();
  const { cluster } = beside;
  const acknowledged: string[] = [];
  let isOver = false;
  const writing = Promise.all(
    cluster.nodes.map(async (_, client) => {
      for (let i = 0; !isOver; i++) {
        const value = `c${client}-${i}`;
        for (let at = client; !isOver; at++) {
          const node = cluster.nodes[at % 3]!;
          try {
            const answer = await post(node, "/raft/update", `append k${client} ${value}`, value);
            if (!answer.ok) continue;
            acknowledged.push(value);
            break;
          } catch {
            // It is the one that stops.
          }
        }
      }
    }),
  );
  await until("there is load", () => acknowledged.length > 50);
  const leader = await cluster.leader();
  const beginMs = performance.now();
  expect((await leader.terminate()).status).toBe(0);
  expect(performance.now() - beginMs).toBeLessThan(10_000);
  const before = acknowledged.length;
  await until("others go on", () => acknowledged.length > before + 20);
  isOver = true;
  await writing;
  leader.start();
  await leader.ready();
  for (const node of cluster.nodes) {
    const lists = await Promise.all([0, 1, 2].map((client) => read(node, `k${client}`)));
    const found = lists.flatMap((list) => list.split(","));
    expect(acknowledged.filter((value) => !found.includes(value))).toEqual([]);
    expect(new Set(found).size).toBe(found.length - 2);
  }
});

/**
 * Real daemons, each beside a real application: the API of raftd on any node, what comes of writes and reads while applications and daemons are killed, and that nothing is
 * applied twice.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Language, TestApplication, typescript } from "../apps/applications.ts";
import { loopbackPlace, TestCluster, type TestNode, until } from "./cluster.ts";

setDefaultTimeout(120_000);

/** What the options of a node need beside the application's URL. */
type Environment = Readonly<Record<string, string>>;

interface Beside {
  readonly cluster: TestCluster;
  /** By position of their nodes. */
  readonly apps: readonly TestApplication[];
}

async function withApplications(
  language: Language,
  body: (beside: Beside) => Promise<void>,
  more: Environment = {},
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "barge-applications-"));
  const apps: TestApplication[] = [];
  const place = (): ReturnType<typeof loopbackPlace> => {
    const app = new TestApplication(language, join(dir, `app${apps.length + 1}`));
    apps.push(app);
    return { ...loopbackPlace(), environment: { BARGE_APP_URL: app.url, ...more } };
  };
  await using cluster = new TestCluster({ place });
  try {
    await Promise.all(apps.map((app) => app.start()));
    await cluster.start();
    await body({ cluster, apps });
  } catch (error) {
    process.stderr.write(cluster.logTails());
    throw error;
  } finally {
    await Promise.all(apps.map((app) => app.kill()));
    rmSync(dir, { recursive: true, force: true });
  }
}

async function update(node: TestNode, command: string, id?: string): Promise<[number, string]> {
  const headers: Record<string, string> = id === undefined ? {} : { "barge-request-id": id };
  const init = { method: "POST", body: command, headers };
  const response = await node.fetch("/raft/update?timeoutMs=8000", init, 10_000);
  return [response.status, await response.text()];
}

async function read(node: TestNode, query: string, more = ""): Promise<[number, string]> {
  const init = { method: "POST", body: query };
  const response = await node.fetch(`/raft/read?timeoutMs=8000${more}`, init, 10_000);
  return [response.status, await response.text()];
}

test("updates and reads through any node, with the application's own answers", () =>
  withApplications(typescript, async ({ cluster }) => {
    const [a, b, c] = cluster.nodes as [TestNode, TestNode, TestNode];
    expect(await update(a, "append k 1")).toEqual([200, "1,"]);
    expect(await update(b, "append k 2")).toEqual([200, "1,2,"]);
    expect(await update(c, "cas k 1,2, 9")).toEqual([200, "ok"]);
    for (const node of cluster.nodes) expect(await read(node, "get k")).toEqual([200, "9"]);
    // The same request twice, to different nodes: once.
    expect(await update(a, "append once x", "request-1")).toEqual([200, "x,"]);
    expect((await update(b, "append once x", "request-1"))[0]).not.toBe(500);
    expect(await read(c, "get once")).toEqual([200, "x,"]);
    // 64 at once: each hears of its own.
    const all = Array.from({ length: 64 }, (_, i) =>
      update(cluster.nodes[i % 3]!, `append own${i} v${i}`),
    );
    expect(await Promise.all(all)).toEqual(all.map((_, i) => [200, `v${i},`]));
    const members = await (await a.fetch("/raft/membership_info")).json();
    expect(members).toMatchObject({ ShardID: 0, members: [{ nodeID: 1 }, { nodeID: 2 }, {}] });
    expect((await a.fetch("/rc")).status).toBe(200);
    const kv = await a.fetch("/v1/kv/a", { method: "PUT", body: "x" });
    expect([kv.status, await kv.json()]).toMatchObject([409, { error: { code: "wrong_machine" } }]);
  }));

test("an application that is killed: its node hands over and is not ready, others go on, and it catches up", () =>
  withApplications(typescript, async ({ cluster, apps }) => {
    const leader = await cluster.leader();
    const [other] = cluster.nodes.filter((node) => node !== leader) as [TestNode];
    expect(await update(leader, "append k 1")).toEqual([200, "1,"]);
    const app = apps[leader.id - 1]!;
    await app.kill();
    await until("another node leads", async () => {
      const status = await other.group();
      return status.leader !== 0 && status.leader !== leader.id;
    });
    await until("its node says that it waits", async () => {
      const response = await leader.fetch("/rc");
      return response.status === 503 && /application/.test(await response.text());
    });
    expect(await update(other, "append k 2", "second")).toEqual([200, "1,2,"]);
    await app.start();
    await until("its node is ready again", async () => (await leader.fetch("/rc")).ok);
    expect(await read(leader, "get k")).toEqual([200, "1,2,"]);
  }));

test("all killed at once: what was answered is there on every node", () =>
  withApplications(typescript, async ({ cluster, apps }) => {
    for (let i = 1; i <= 20; i++) {
      expect((await update(cluster.nodes[i % 3]!, `append k ${i}`))[0]).toBe(200);
    }
    await Promise.all([...cluster.nodes.map((n) => n.kill()), ...apps.map((app) => app.kill())]);
    await Promise.all(apps.map((app) => app.start()));
    await cluster.start();
    const whole = Array.from({ length: 20 }, (_, i) => `${i + 1},`).join("");
    for (const node of cluster.nodes) expect(await read(node, "get k")).toEqual([200, whole]);
  }));

test("with --app-exit-ms a node ends once its application is gone, and says so; one that waits for its first start does not", () =>
  withApplications(
    typescript,
    async ({ cluster, apps }) => {
      const leader = await cluster.leader();
      expect(await update(leader, "append k 1")).toEqual([200, "1,"]);
      leader.mayEnd = true;
      await apps[leader.id - 1]!.kill();
      const { status, stderr } = await leader.ended();
      expect([status, stderr]).toEqual([46, expect.stringContaining("application_lost")]);
      leader.start();
      await until("it waits for its application", async () => {
        return /waits for its application/.test(await (await leader.fetch("/rc")).text());
      });
      await apps[leader.id - 1]!.start();
      await until("it is ready", async () => (await leader.fetch("/rc")).ok);
      expect(await read(leader, "get k")).toEqual([200, "1,"]);
    },
    { BARGE_APP_EXIT_MS: "1500" },
  ));

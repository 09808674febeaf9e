/** `barge recover` where an application keeps the state: the survivor's is given what its log has beyond it, keeps its data, and goes on with the new cluster. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TestApplication, typescript } from "../apps/applications.ts";
import { barge } from "../cli/program.ts";
import { loopbackPlace, TestCluster, TestNode, until } from "./cluster.ts";

setDefaultTimeout(60_000);

async function append(node: TestNode, value: string, id: string): Promise<[number, string]> {
  const init = {
    method: "POST",
    body: `append k ${value}`,
    headers: { "barge-request-id": id },
  };
  const response = await node.fetch("/raft/update?timeoutMs=8000", init, 10_000);
  return [response.status, await response.text()];
}

async function read(node: TestNode): Promise<string> {
  return (await node.fetch("/raft/read", { method: "POST", body: "get k" }, 10_000)).text();
}

test("the survivor's application gets what it lacks, and all of it is there", async () => {
  const dir = mkdtempSync(join(tmpdir(), "barge-application-recover-"));
  const apps: TestApplication[] = [];
  const place = (): ReturnType<typeof loopbackPlace> => {
    const app = new TestApplication(typescript, join(dir, `app${apps.length + 1}`));
    apps.push(app);
    return { ...loopbackPlace(), environment: { BARGE_APP_URL: app.url } };
  };
  try {
    await using cluster = new TestCluster({ place });
    await Promise.all(apps.map((app) => app.start()));
    await cluster.start();
    const [survivor, ...lost] = cluster.nodes as [TestNode, ...TestNode[]];
    const [app, ...otherApps] = apps as [TestApplication, ...TestApplication[]];
    for (let i = 0; i < 10; i++) await append(survivor, `a${i}`, `a${i}`);
    const [own] = lost as [TestNode];
    // What follows its application does not have, and its log does.
    await app.kill();
    await until("others lead", async () => (await append(own, "b0", "b0"))[0] === 200);
    for (let i = 1; i < 10; i++) expect((await append(own, `b${i}`, `b${i}`))[0]).toBe(200);
    const whole = await read(own);
    const { commitIndex } = await own.group();
    await until(
      "it is in the survivor's log",
      async () => (await survivor.group()).lastIndex >= commitIndex,
    );
    for (const node of cluster.nodes) await node.kill();
    for (const other of otherApps) await other.kill();

    const without = await barge(["recover", survivor.dataDir, "--yes"]);
    expect([without.status, without.err]).toEqual([2, expect.stringContaining("give --app-url")]);
    const words = ["recover", survivor.dataDir, "--yes", "--app-url", app.url];
    await app.start();
    const done = await barge(words);
    expect([done.status, done.err]).toEqual([0, expect.any(String)]);
    expect(done.out).toContain("--app-url …");
    // To do it again comes to the same.
    expect((await barge(words)).status).toBe(0);

    const alone = new TestNode({
      id: survivor.id,
      dataDir: survivor.dataDir,
      advertise: survivor.binary,
      listen: survivor.listen,
      http: survivor.http,
      environment: { BARGE_APP_URL: app.url },
      logFile: join(dir, "alone.log"),
      flags: [],
    });
    try {
      alone.start();
      await alone.ready();
      expect(await read(alone)).toBe(whole);
      // Request ids came along.
      await append(alone, "b9", "b9");
      expect(await read(alone)).toBe(whole);
      expect(await append(alone, "c", "c")).toEqual([200, `${whole}c,`]);
      expect((await alone.group()).members.map(({ id }) => id)).toEqual([1]);
    } finally {
      await alone.kill();
    }
  } finally {
    await Promise.all(apps.map((app) => app.kill()));
    rmSync(dir, { recursive: true, force: true });
  }
});

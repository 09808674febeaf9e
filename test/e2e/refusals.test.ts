/**
 * What a node refuses to start with, on real processes: each reason has its exit status and says what to do, and nothing in the data
 * folder has changed afterwards.
 */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  renameSync,
} from "node:fs";
import { join } from "node:path";
import { type FatalReason, fatalTable } from "../../src/fatal.ts";
import { type TestCluster, TestNode, until, withCluster } from "./cluster.ts";
import { HttpDoor } from "./doors.ts";
import { mounted } from "./mount.ts";

const testMsMax = 60_000;
const value = "value".repeat(100);

/** Starts it with these flags and expects that it ends with this reason, and with nothing changed in its folder. */
async function refuses(
  node: TestNode,
  reason: FatalReason,
  words: RegExp,
  flags: readonly string[] = [],
  folder = node.dataDir,
): Promise<void> {
  const before = contentOf(folder);
  node.start(flags);
  const { status, stderr } = await node.ended();
  expect(stderr).toContain(`barge: ${reason}: `);
  expect(stderr).toMatch(words);
  expect(status).toBe(fatalTable[reason].status);
  expect(contentOf(folder)).toEqual(before);
}

/** Hash of each file, but for what SQLite rebuilds whenever a database is opened, and the logs of the test. */
function contentOf(folder: string): Record<string, string> {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) return {};
  const files: Record<string, string> = {};
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || /(-shm|\.log)$/.test(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    files[path] = Bun.hash(readFileSync(path)).toString(16);
  }
  return files;
}

/** Three nodes with some writes, all stopped. */
async function withHistory(body: (cluster: TestCluster) => Promise<void>): Promise<void> {
  await withCluster({}, async (cluster) => {
    await write(cluster, 50);
    await Promise.all(cluster.nodes.map((node) => node.terminate()));
    await body(cluster);
  });
}

/** On a crowded machine another node may come to lead meanwhile. */
async function write(cluster: TestCluster, count: number): Promise<void> {
  const door = new HttpDoor(cluster.nodes[0]!);
  for (let i = 0; i < count; i++) {
    await until(`key${i} is written`, async () => (await door.put(`key${i}`, value, 5_000)) > 0);
  }
  await cluster.converged();
}

test(
  "the folder of another node, or of another cluster",
  () =>
    withHistory(async ({ nodes, members }) => {
      const [one, two] = nodes;
      const other = [`--data-dir=${two!.dataDir}`];
      await refuses(one!, "wrong_data_dir", /belongs to node 2.*--node-id 2/s, other, two!.dataDir);
      const cluster = ["--cluster-token=another"];
      await refuses(one!, "wrong_data_dir", /belongs to cluster .*token/s, cluster);
      const fewer = [`--initial-members=${members.split(",").slice(0, 2).join(",")}`];
      await refuses(one!, "wrong_data_dir", /belongs to cluster .*initial members/s, fewer);
      await Promise.all(nodes.map((node) => (node.start(), node.ready())));
    }),
  testMsMax,
);

test(
  "a folder or a port that is in use",
  () =>
    withCluster({ nodes: 1 }, async ({ dir, nodes: [running] }) => {
      const second = (name: string, dataDir: string, binary: string, http: string): TestNode =>
        new TestNode({
          id: 1,
          dataDir,
          listen: binary,
          advertise: binary,
          http,
          logFile: join(dir, `${name}.log`),
          flags: [],
        });
      const any = "127.0.0.1:0";
      const same = second("same", running!.dataDir, any, any);
      const { status, stderr } = await (same.start(), same.ended());
      expect(status).toBe(fatalTable.data_dir_locked.status);
      expect(stderr).toMatch(/barge: data_dir_locked: .* in use by another process/);

      const taken: [string, string, string][] = [
        ["binary", running!.binary, any],
        ["http", any, running!.http],
        ["http-is-binary", any, running!.binary],
      ];
      for (const [name, binary, http] of taken) {
        const node = second(name, join(dir, name), binary, http);
        const ended = await (node.start(), node.ended());
        expect(ended.stderr).toMatch(/barge: port_in_use: .*127\.0\.0\.1:\d+/);
        expect(ended.status).toBe(fatalTable.port_in_use.status);
        // Not bound to a cluster whose member list names the wrong port.
        expect(readdirSync(join(dir, name))).toEqual(["lock.db"]);
      }
      expect((await running!.fetch("/readyz")).status).toBe(200);
      await running!.terminate();
      using stranger = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data(): void {} } });
      const flags = [`--http-listen=127.0.0.1:${stranger.port}`];
      await refuses(running!, "port_in_use", /is already in use/, flags);
    }),
  testMsMax,
);

test(
  "a folder that cannot be written",
  () =>
    withCluster({ nodes: 1 }, async ({ dir, nodes: [node] }) => {
      await node!.terminate();
      const file = join(dir, "file");
      writeFileSync(file, "not a folder");
      const flags = [`--data-dir=${file}`];
      await refuses(
        node!,
        "data_dir_not_writable",
        /cannot be used as the data folder/,
        flags,
        dir,
      );
      const below = [`--data-dir=${join(file, "below")}`];
      await refuses(
        node!,
        "data_dir_not_writable",
        /cannot be used as the data folder/,
        below,
        dir,
      );

      using mount = mounted(join(dir, "mount"), "size=32m");
      if (mount === undefined) return;
      const inside = [`--data-dir=${join(mount.path, "data")}`];
      mkdirSync(join(mount.path, "data"));
      mount.remount("ro");
      await refuses(node!, "data_dir_not_writable", /cannot be used as the data folder/, inside);
      mount.remount("rw");
      node!.start(inside);
      await node!.ready();
      await node!.terminate();
      mount.remount("ro");
      await refuses(node!, "data_dir_not_writable", /cannot be used as the data folder/, inside);
    }),
  testMsMax,
);

/** Path of the newest file of log records that has any. */
function newestLog(node: TestNode): string {
  const folder = join(node.dataDir, "segments");
  const logs = readdirSync(folder).filter((name) => name.endsWith("-wal"));
  const longest = logs.sort().findLast((name) => statSync(join(folder, name)).size > 20_000);
  return join(folder, longest!);
}

test(
  "a log that ends before what was acknowledged, where nobody else has it",
  () =>
    withCluster({ nodes: 1 }, async (cluster) => {
      await write(cluster, 50);
      const [node] = cluster.nodes;
      await node!.terminate();
      const wal = newestLog(node!);
      truncateSync(wal, Math.floor(statSync(wal).size / 2));
      const words = /group 0: have index \d+ .* need index \d+ .*no other member/s;
      await refuses(node!, "below_watermark", words);
    }),
  testMsMax,
);

test(
  "a state that is gone, where nobody else has it and the log does not go back to the beginning",
  () =>
    withCluster({ nodes: 1, flags: ["--compact-tail-bytes=1000"] }, async (cluster) => {
      await write(cluster, 50);
      const [node] = cluster.nodes;
      const cut = await node!.fetch("/v1/snapshot", { method: "POST" }, 20_000);
      expect(cut.status).toBe(200);
      await node!.terminate();
      const state = join(node!.dataDir, "machine", "0");
      const elsewhere = join(cluster.dir, "state");
      renameSync(state, elsewhere);
      node!.start();
      const { status, stderr } = await node!.ended();
      expect(status).toBe(fatalTable.below_watermark.status);
      expect(stderr).toMatch(
        /state of group 0 ends at index 0, and its log begins behind \d+: files are missing in machine\/0/,
      );
      rmSync(state, { recursive: true, force: true });
      renameSync(elsewhere, state);
      await cluster.start();
      await write(cluster, 1);
    }),
  testMsMax,
);

test(
  "a log that another program has opened",
  () =>
    withHistory(async (cluster) => {
      const [node] = cluster.nodes;
      const database = new Database(newestLog(node!).replace(/-wal$/, ""));
      database.run("INSERT INTO stamp VALUES (1000000)");
      database.close(true);
      await refuses(node!, "corrupt_data", /was opened by another program/);
    }),
  testMsMax,
);

test(
  "an empty folder in the place of one that the others know",
  () =>
    withHistory(async (cluster) => {
      const [node, ...rest] = cluster.nodes;
      rmSync(node!.dataDir, { recursive: true });
      await cluster.start(rest);
      node!.start();
      const { status, stderr } = await node!.ended();
      expect(stderr).toContain("barge: replaced_data_dir: ");
      expect(status).toBe(fatalTable.replaced_data_dir.status);
      expect((await new HttpDoor(rest[0]!).get("key25", 5_000))?.value).toBe(value);
    }),
  testMsMax,
);

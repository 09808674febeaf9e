/**
 * Backup and restore as README.md says, on real processes: from any node, while clients write; into a new cluster, which has all that was acknowledged
 * before, takes new nodes, and has nothing to do with the old one.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import type { BackupHeader } from "../../src/node/backup-files.ts";
import type { Restored } from "../../src/node/restore.ts";
import { barge } from "../cli/program.ts";
import { loopbackPlace, type TestCluster, TestNode, until, withCluster } from "./cluster.ts";
import { HttpDoor } from "./doors.ts";

setDefaultTimeout(60_000);

const writes = 100;
const valueOf = (i: number): string => `value${i}`.repeat(50);

async function filled(cluster: TestCluster): Promise<void> {
  const [node] = cluster.nodes;
  await using client = connect({ endpoints: node!.binary });
  await Promise.all(Array.from({ length: writes }, (_, i) => client.put(`key${i}`, valueOf(i))));
  await client.delete("key7");
}

async function expectAll(node: TestNode): Promise<void> {
  const door = new HttpDoor(node);
  for (const i of [0, 1, 50, writes - 1]) {
    expect((await door.get(`key${i}`, 5_000))?.value).toBe(valueOf(i));
  }
  expect(await door.get("key7", 5_000)).toBeUndefined();
}

/** A node on a folder that is there already. */
function nodeOn(
  cluster: TestCluster,
  dataDir: string,
  id: number,
  flags: readonly string[] = [],
): TestNode {
  const place = loopbackPlace();
  const name = `more${cluster.nodes.length}-${id}`;
  const node = new TestNode({ ...place, id, dataDir, logFile: join(cluster.dir, name), flags });
  cluster.nodes.push(node);
  return node;
}

test("a backup of a follower under load starts a new cluster, which grows, and which the old nodes have no part in", () =>
  withCluster({}, async (cluster) => {
    await filled(cluster);
    const old = [...cluster.nodes];
    const [follower] = await cluster.followers();
    const file = join(cluster.dir, "{cluster}-{index}-of-{node}-{date}.barge");
    let written = 0;
    let stop = false;
    const load = (async () => {
      await using client = connect({ endpoints: cluster.endpoints });
      while (!stop) await client.put("counter", String(++written));
    })();
    await until("the load runs", () => written > 20);
    const acknowledged = written - 1;
    const taken = await barge(["backup", file, "--json", "--endpoints", follower!.binary]);
    stop = true;
    await load;
    expect(taken).toMatchObject({ status: 0, err: "" });
    const header = JSON.parse(taken.out) as BackupHeader & { readonly file: string };
    expect(header).toMatchObject({ nodeId: follower!.id, machine: "kv", group: 0 });
    const { clusterId, index, created } = header;
    const name = `${clusterId}-${index}-of-${follower!.id}-${created.slice(0, 10)}.barge`;
    expect(header.file).toBe(join(cluster.dir, name));
    const again = await barge(["backup", header.file, "--endpoints", follower!.binary]);
    expect(again.status).toBe(1);
    expect(again.err).toMatch(/is there already/);

    // In the place of a node of the old cluster, whose others go on and dial it.
    const dataDir = join(cluster.dir, "restored");
    const [gone, ...rest] = old;
    await gone!.terminate();
    const place = { listen: gone!.binary, advertise: gone!.binary, http: gone!.http };
    const own = `--node-id=1 --advertise=${place.listen} --json`.split(" ");
    const restored = await barge(["restore", header.file, "--data-dir", dataDir, ...own]);
    expect(restored).toMatchObject({ status: 0, err: "" });
    const made = JSON.parse(restored.out) as Restored;
    expect(made).toMatchObject({
      index: header.index,
      nodeId: 1,
      backup: { clusterId: header.clusterId },
    });
    expect(made.clusterId).not.toBe(header.clusterId);
    expect(existsSync(`${dataDir}.restoring`)).toBe(false);
    expect((await barge(["verify", dataDir])).status).toBe(0);

    const logFile = join(cluster.dir, "restored.log");
    const first = new TestNode({ ...place, id: 1, dataDir, logFile, flags: [] });
    cluster.nodes.push(first);
    first.start();
    await first.ready();
    await expectAll(first);
    const counter = Number((await new HttpDoor(first).get("counter", 5_000))?.value);
    expect(counter).toBeGreaterThanOrEqual(acknowledged);
    // Revisions go on above those that clients may remember.
    const status = await first.status();
    expect(status.clusterId).toBe(made.clusterId);
    expect(status.groups[0]!.firstIndex).toBe(header.index + 1);
    for (const node of rest) {
      await until("it is sent away", () =>
        /peer.*belongs to cluster|unauthorised/.test(node.log()),
      );
    }

    for (const id of [2, 3]) {
      const flags = [`--join=${first.binary}`];
      const joining = nodeOn(cluster, join(cluster.dir, `new${id}`), id, flags);
      joining.start();
      await joining.ready();
      await expectAll(joining);
    }
    const members = (await first.group()).members.map(({ id }) => id);
    expect(members.sort()).toEqual([1, 2, 3]);
    expect((await first.status()).clusterId).toBe(made.clusterId);
    expect((await rest[0]!.status()).clusterId).toBe(header.clusterId);
  }));

test("over HTTP it is the same file; cut off or damaged anywhere it is refused before anything is written", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    await filled(cluster);
    const [node] = cluster.nodes;
    const response = await node!.fetch("/v1/backup", {}, 10_000);
    expect(response.status).toBe(200);
    const bytes = Buffer.from(await response.arrayBuffer());
    const file = join(cluster.dir, "http.barge");
    writeFileSync(file, bytes);
    const dataDir = join(cluster.dir, "restored");
    const restore = (from: string): ReturnType<typeof barge> =>
      barge(["restore", from, "--data-dir", dataDir]);

    const bad = join(cluster.dir, "bad.barge");
    const refused = async (what: RegExp): Promise<void> => {
      expect((await barge(["verify", bad])).status).not.toBe(0);
      const { status, err } = await restore(bad);
      expect(err).toMatch(what);
      expect(err).toMatch(/Nothing was changed/);
      expect(status).toBe(1);
      expect(readdirSync(cluster.dir).filter((name) => name.startsWith("restored"))).toEqual([]);
    };
    await refused(/is not there/);
    writeFileSync(bad, "");
    await refused(/no backup of Barge/);
    for (const length of [30, Math.floor(bytes.byteLength / 2), bytes.byteLength - 1]) {
      copyFileSync(file, bad);
      truncateSync(bad, length);
      await refused(/cut off at byte/);
    }
    for (const at of [25, 5_000, bytes.byteLength - 3]) {
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 16;
      writeFileSync(bad, damaged);
      await refused(/damaged|does not fit/);
    }
    writeFileSync(bad, Buffer.concat([bytes, Buffer.from("more")]));
    await refused(/goes on behind its end/);

    expect(await barge(["verify", file])).toMatchObject({
      status: 0,
      out: expect.stringMatching(/a backup of cluster [0-9a-f]{32} as of \d+, .* whole\n$/),
    });
    expect((await restore(file)).status).toBe(0);
    // Never over a folder that has something in it.
    const second = await restore(file);
    expect(second.status).toBe(fatalTable.wrong_data_dir.status);
    const said = await barge(["restore", bad, "--data-dir", `${dataDir}2`, "--json"]);
    expect(JSON.parse(said.out)).toMatchObject({ error: { code: "check_failed" } });
    const restored = nodeOn(cluster, dataDir, 1);
    restored.start();
    await restored.ready();
    await expectAll(restored);
    mkdirSync(join(cluster.dir, "empty"));
    expect((await barge(["restore", file, "--data-dir", join(cluster.dir, "empty")])).status).toBe(
      0,
    );
  }));

test("without a leader only what that node has can be backed up, when that is asked for", () =>
  withCluster({}, async (cluster) => {
    await filled(cluster);
    await cluster.converged();
    const [first, ...others] = cluster.nodes;
    await Promise.all(others.map((node) => node.kill()));
    await until("no leader", async () => (await first!.group()).leader === 0);
    const file = join(cluster.dir, "local.barge");
    await using client = connect({ endpoints: first!.binary });
    const none = client.backup({ timeoutMs: 1_500 });
    await expect(none).rejects.toMatchObject({ code: expect.stringMatching(/no_leader|timeout/) });
    const local = await barge(["backup", file, "--local", "--endpoints", first!.binary]);
    expect(local).toMatchObject({ status: 0, err: "" });
    expect(readdirSync(cluster.dir)).not.toContain("local.barge.partial");
    const dataDir = join(cluster.dir, "restored");
    expect((await barge(["restore", file, "--data-dir", dataDir])).status).toBe(0);
    const restored = nodeOn(cluster, dataDir, 1);
    restored.start();
    await restored.ready();
    await expectAll(restored);
    expect(readFileSync(file).byteLength).toBeGreaterThan(4_096);
  }));

/**
 * `barge verify` on folders of real nodes: it says what is whole and what is damaged, what it says of the next start is what that start does, and not
 * a byte or a time of the folder is changed.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  cpSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import type { FolderReport } from "../../src/node/verify.ts";
import { barge } from "../cli/program.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { halve, newestLog, sessionsIn } from "./damage.ts";
import { HttpDoor } from "./doors.ts";
import { damageWal } from "./wal.ts";

setDefaultTimeout(60_000);

const value = "value".repeat(100);
const writes = 50;

/** Names, sizes, times and bytes of all files and folders. */
function fingerprint(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .concat("")
    .sort()
    .map((name) => {
      const stat = statSync(join(folder, name), { bigint: true });
      const bytes = stat.isFile() ? readFileSync(join(folder, name)) : "";
      const digest = createHash("sha1").update(bytes).digest("hex");
      return `${name} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs} ${stat.mode} ${digest}`;
    });
}

interface Verified {
  readonly status: number | null;
  readonly report: FolderReport;
  readonly text: string;
}

async function verified(folder: string): Promise<Verified> {
  const before = fingerprint(folder);
  const json = await barge(["verify", folder, "--json"]);
  const text = await barge(["verify", folder]);
  expect(json.err).toBe("");
  expect(fingerprint(folder)).toEqual(before);
  expect(text.status).toBe(json.status);
  const report = JSON.parse(json.out) as FolderReport;
  expect(report.whole).toBe(json.status === 0);
  return { status: json.status, report, text: text.out };
}

async function filled(cluster: TestCluster): Promise<TestNode> {
  const [node] = cluster.nodes;
  const door = new HttpDoor(node!);
  for (let i = 0; i < writes; i++) await door.put(`key${i}`, value, 5_000);
  return node!;
}

async function stopped(cluster: TestCluster): Promise<TestNode> {
  const node = await filled(cluster);
  await cluster.converged();
  await Promise.all(cluster.nodes.map((each) => each.terminate()));
  return node;
}

const lines = (text: string): string[] => text.trimEnd().split("\n");

test("a node that runs is left alone; once it has stopped, all is whole, and it starts as it was told", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const node = await filled(cluster);
    const running = await barge(["verify", node.dataDir]);
    expect(running.status).toBe(fatalTable.data_dir_locked.status);
    expect(running.err).toMatch(/in use by another process/);

    await barge(["snapshot", "--endpoints", node.binary]);
    await new HttpDoor(node).put("after", value, 5_000);
    for (const how of ["kill", "terminate"] as const) {
      await node[how]();
      const { status, report, text } = await verified(node.dataDir);
      expect(status).toBe(0);
      expect(report).toMatchObject({ whole: true, damage: [], nextStart: { outcome: "serves" } });
      const [group] = report.groups;
      expect(group!.voters).toEqual([1]);
      expect(group!.machine).toMatchObject({ keys: writes, kind: "kv" });
      expect(report.log.durableTo).toBeLessThanOrEqual(report.log.lastRecord);
      expect(lines(text).at(-1)).toMatch(/^next start {2}serves group 0, once it has applied/);
      node.start();
      await node.ready();
      // Its last life left exactly this; leading adds to it.
      await until("all of it is committed", async () => {
        const { commitIndex } = await node.group();
        return commitIndex >= group!.lastIndex;
      });
    }
  }));

test("the content of nodes that stand at the same index is told as the same; a value that is another, as another", () =>
  withCluster({}, async (cluster) => {
    const node = await filled(cluster);
    await cluster.converged();
    await barge(["snapshot", "--all", "--endpoints", node.binary]);
    await Promise.all(cluster.nodes.map((each) => each.kill()));
    const machines = await Promise.all(
      cluster.nodes.map(
        async ({ dataDir }) => (await verified(dataDir)).report.groups[0]!.machine!,
      ),
    );
    expect(new Set(machines.map(({ appliedIndex }) => appliedIndex)).size).toBe(1);
    expect(new Set(machines.map(({ contentHash }) => contentHash)).size).toBe(1);
    damageWal(join(node.dataDir, "machine/0/kv.db-wal"), "valuevaluevalue", { reseal: true });
    const other = await verified(node.dataDir);
    expect(other.report.groups[0]!.machine!.contentHash).not.toBe(machines[0]!.contentHash);
  }));

test("a folder that is none, or new, or without its identity", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const node = await stopped(cluster);
    const missing = await barge(["verify", join(cluster.dir, "nowhere")]);
    expect(missing.status).toBe(fatalTable.data_dir_not_writable.status);
    expect(missing.err).toMatch(/is no folder/);
    expect((await barge(["verify"])).status).toBe(2);

    const log = join(node.dataDir, "identity.json");
    const text = readFileSync(log, "utf8");
    rmSync(log);
    expect((await verified(node.dataDir)).report.damage).toEqual([
      expect.stringMatching(/identity\.json is gone/),
    ]);
    writeFileSync(log, text.slice(0, 40));
    const refused = await verified(node.dataDir);
    expect(refused.report.nextStart).toMatchObject({ outcome: "refused", status: 20 });
  }));

/** Changes one byte. */
function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 2;
  writeFileSync(path, bytes);
}

interface Damage {
  readonly what: string;
  readonly apply: (node: TestNode) => void;
  /** For a node alone; and for one of three. */
  readonly alone: FolderReport["nextStart"]["outcome"];
  readonly three: FolderReport["nextStart"]["outcome"];
  readonly says: RegExp;
}

const damages: readonly Damage[] = [
  {
    what: "a log that lost its end",
    apply: (node) => halve(newestLog(node)),
    alone: "refused",
    three: "heals",
    says: /the log ends at record \d+, but was known durable up to/,
  },
  {
    what: "a bit that SQLite sees",
    apply: (node) => damageWal(newestLog(node), "key25", { reseal: false }),
    alone: "refused",
    three: "heals",
    says: /known durable up to/,
  },
  {
    what: "a bit that SQLite does not see",
    apply: (node) => damageWal(newestLog(node), "key25", { reseal: true }),
    alone: "refused",
    three: "heals",
    says: /record \d+ in segment \d+ fails its check/,
  },
  {
    what: "a watermark that is gone",
    apply: (node) => rmSync(join(node.dataDir, "watermark")),
    alone: "serves",
    three: "serves",
    says: /the file `watermark` is gone/,
  },
  {
    what: "a log that is gone",
    apply: (node) => {
      const folder = join(node.dataDir, "segments");
      for (const name of readdirSync(folder)) rmSync(join(folder, name));
    },
    alone: "refused",
    three: "heals",
    says: /known durable up to/,
  },
  {
    what: "the header of the log's main file, beside a log that has it too",
    apply: (node) => flip(newestLog(node).replace(/-wal$/, ""), 17),
    alone: "serves",
    three: "serves",
    says: /^$/,
  },
  {
    what: "a log that another program has opened",
    apply: (node) => {
      const wal = newestLog(node);
      cpSync(wal, wal.replace(/-wal$/, ""));
    },
    alone: "refused",
    three: "refused",
    says: /was opened by another program/,
  },
];

for (const { what, apply, alone, three, says } of damages) {
  test(`${what}: what is said of the next start is what it does`, async () => {
    for (const nodes of [1, 3]) {
      await withCluster({ nodes }, async (cluster) => {
        const node = await stopped(cluster);
        apply(node);
        const { report } = await verified(node.dataDir);
        expect(report.damage.join("\n")).toMatch(says);
        const { outcome, status = 0 } = report.nextStart;
        expect(outcome).toBe(nodes === 1 ? alone : three);
        node.start();
        if (outcome === "refused") {
          expect((await node.ended()).status).toBe(status);
          return;
        }
        const health = outcome === "heals" ? "wounded" : nodes === 1 ? "ok" : "no_leader";
        await until("it is as it was said", async () => (await node.status()).health === health);
        if (outcome !== "heals") return;
        // It remembers, and so does the folder.
        await node.kill();
        const later = (await verified(node.dataDir)).report;
        expect(later).toMatchObject({ whole: false, nextStart: { outcome: "heals" } });
      });
    }
  });
}

const machineFolder = (node: TestNode): string => join(node.dataDir, "machine/0");

/** Its state is on disk, and its log no longer begins at 1. */
async function cut(cluster: TestCluster): Promise<TestNode> {
  const node = await filled(cluster);
  await cluster.converged();
  for (const { binary } of cluster.nodes) {
    await barge(["snapshot", "--tail-bytes", "0", "--endpoints", binary]);
  }
  await node.terminate();
  const { report } = await verified(node.dataDir);
  expect(report.groups[0]!.firstIndex).toBeGreaterThan(writes);
  expect(report.groups[0]!.machine).toMatchObject({ file: "kv.db", keys: writes });
  return node;
}

test("a damaged file of the state machine is told, with what to do; and that does it", () =>
  withCluster({}, async (cluster) => {
    const node = await cut(cluster);
    damageWal(join(machineFolder(node), "kv.db-wal"), "key25", { reseal: true });
    const damaged = await verified(node.dataDir);
    expect(damaged.status).toBe(1);
    expect(damaged.report.damage.join("\n")).toContain("move that folder away");
    expect(damaged.report.nextStart.outcome).toBe("serves");

    renameSync(machineFolder(node), join(cluster.dir, "away"));
    const { nextStart } = (await verified(node.dataDir)).report;
    expect(nextStart).toMatchObject({ outcome: "heals" });
    expect(nextStart.text).toMatch(/the state of group 0 is lost, .* all of it comes again/);
    node.start();
    await cluster.converged();
    await node.ready();
    expect((await node.status()).health).toBe("ok");
    expect((await new HttpDoor(node).get("key25", 5_000))?.value).toBe(value);
  }));

test("the main file of the state, damaged where a start looks: refused in the same words", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const node = cluster.nodes[0]!;
    await using client = connect({ endpoints: node.binary });
    for (let i = 0; i < writes; i++) await client.put(`key${i}`, value);
    // A backup moves the state into the main file.
    const backup = join(cluster.dir, "a.barge");
    expect((await barge(["backup", backup, "--endpoints", node.binary])).status).toBe(0);
    await node.kill();
    const file = join(machineFolder(node), "kv.db");
    const main = readFileSync(file);
    const whole = await verified(node.dataDir);
    expect(whole.report).toMatchObject({ whole: true, nextStart: { outcome: "serves" } });
    // Its first page is in its main file alone; and so are the sessions.
    const sessions = main.indexOf(sessionsIn(file, join(cluster.dir, "copy.db")));
    expect(sessions).toBeGreaterThan(0);
    const places = [17, 30, 52, main.indexOf("CREATE TABLE kv"), sessions + 6, sessions + 12];
    for (const at of places) {
      flip(file, at);
      const { nextStart, damage } = (await verified(node.dataDir)).report;
      expect({ at, ...nextStart }).toMatchObject({
        at,
        outcome: "refused",
        reason: "corrupt_data",
      });
      expect(damage).toHaveLength(1);
      node.start();
      const { status, stderr } = await node.ended();
      expect({ at, status }).toEqual({ at, status: nextStart.status! });
      expect(stderr).toMatch(/The state of group 0 cannot be read: .* move that folder away/);
      flip(file, at);
    }
    node.start();
    await node.ready();
  }));

test("a state that is lost comes from the leader, and says so until then", () =>
  withCluster({}, async (cluster) => {
    const node = await cut(cluster);
    for (const other of cluster.nodes) if (other !== node) await other.kill();
    rmSync(machineFolder(node), { recursive: true });
    for (let start = 0; start < 2; start++) {
      const { report } = await verified(node.dataDir);
      expect(report).toMatchObject({ whole: false, nextStart: { outcome: "heals" } });
      node.start();
      await until("it says so", async () => (await node.status()).health === "wounded");
      await node.kill();
    }
  }));

test("a state that is lost and that nobody else has, or that cannot be opened, is refused in the words of the start", async () => {
  for (const nodes of [1, 3]) {
    await withCluster({ nodes }, async (cluster) => {
      const node = await cut(cluster);
      const file = join(machineFolder(node), "kv.db");
      rmSync(`${file}-wal`);
      if (nodes === 1) rmSync(file);
      else writeFileSync(file, Buffer.alloc(32_768, 7));
      const reason = nodes === 1 ? "below_watermark" : "corrupt_data";
      const { nextStart, damage } = (await verified(node.dataDir)).report;
      expect(damage).toHaveLength(1);
      const { status } = fatalTable[reason];
      expect(nextStart).toMatchObject({ outcome: "refused", reason, status });
      node.start();
      const ended = await node.ended();
      expect(ended.status).toBe(status);
      const said =
        /The state of group 0 (ends at index \d+, and its log begins behind \d+|cannot be read)/;
      expect(ended.stderr).toMatch(said);
      expect(nextStart.text).toMatch(said);
    });
  }
});

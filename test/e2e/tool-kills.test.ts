/**
 * `barge recover` and `barge restore`, killed at each of their syncs in turn: the folder is never anything else than what it was, what it is to be, or
 * something that to run the command again completes; nothing of the data is lost on the way.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import type { FolderReport } from "../../src/node/verify.ts";
import { barge } from "../cli/program.ts";
import { hasStrace } from "../storage/strace.ts";
import { type TestCluster, type TestNode, withCluster } from "./cluster.ts";
import { HttpDoor } from "./doors.ts";

setDefaultTimeout(60_000);

const program = join(import.meta.dir, "../../src/main.ts");
const writes = 40;
const valueOf = (i: number): string => `value${i}`.repeat(30);
const killsMax = 40;

async function filled(cluster: TestCluster): Promise<TestNode> {
  await using client = connect({ endpoints: cluster.endpoints });
  await Promise.all(Array.from({ length: writes }, (_, i) => client.put(`key${i}`, valueOf(i))));
  await cluster.converged();
  return cluster.nodes[0]!;
}

/** Runs it until the n-th sync of any of its threads begins; false where it ended before by itself. */
async function killedAt(nth: number, args: readonly string[]): Promise<boolean> {
  const inject = `inject=fsync,fdatasync:signal=SIGKILL:when=${nth}`;
  const command = [
    "strace",
    "-f",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    "trace=fsync,fdatasync",
    "-e",
    inject,
  ];
  const child = Bun.spawn([...command, process.execPath, program, ...args], {
    stdout: "ignore",
    stderr: "ignore",
  });
  await child.exited;
  return child.exitCode !== 0;
}

async function reportOf(folder: string): Promise<FolderReport> {
  return JSON.parse((await barge(["verify", folder, "--json"])).out) as FolderReport;
}

async function expectAll(node: TestNode): Promise<void> {
  node.start();
  await node.ready();
  const door = new HttpDoor(node);
  for (let i = 0; i < writes; i += 7) {
    expect((await door.get(`key${i}`, 5_000))?.value).toBe(valueOf(i));
  }
  await node.kill();
}

test.skipIf(!hasStrace)("recover", () =>
  withCluster({}, async (cluster) => {
    const node = await filled(cluster);
    await Promise.all(cluster.nodes.map((each) => each.kill()));
    const before = await reportOf(node.dataDir);
    const kept = join(cluster.dir, "kept");
    cpSync(node.dataDir, kept, { recursive: true });
    const outcomes = new Set<string>();
    let nth = 1;
    for (; nth <= killsMax; nth++) {
      rmSync(node.dataDir, { recursive: true });
      cpSync(kept, node.dataDir, { recursive: true });
      if (!(await killedAt(nth, ["recover", node.dataDir, "--yes"]))) break;
      const { node: owner, groups, whole, damage } = await reportOf(node.dataDir);
      expect({ nth, whole, damage }).toEqual({ nth, whole: true, damage: [] });
      const isOld = owner!.clusterId === before.node!.clusterId;
      // The old configuration under the new name elects nobody; the new one never goes by the old name.
      const isAlone = groups[0]!.voters.length === 1;
      outcomes.add(`${isOld ? "old" : "new"} cluster, ${isAlone ? "alone" : "three"}`);
      expect({ nth, mixed: isOld && isAlone }).toEqual({ nth, mixed: false });
      expect(groups[0]!.lastIndex).toBeGreaterThanOrEqual(before.groups[0]!.lastIndex);
      expect((await barge(["recover", node.dataDir, "--yes"])).status).toBe(0);
      const after = await reportOf(node.dataDir);
      expect(after.whole).toBe(true);
      // That of the registry too, where the node had it by then.
      for (const { voters } of after.groups) expect(voters).toEqual([1]);
      if (nth % 4 === 1) await expectAll(node);
    }
    expect(nth).toBeGreaterThan(4);
    expect(nth).toBeLessThan(killsMax);
    // On both sides of the moment from which on nobody of the old cluster speaks to it.
    for (const cut of ["old cluster, three", "new cluster, three"]) {
      expect([...outcomes]).toContain(cut);
    }
    await expectAll(node);
  }),
);

test.skipIf(!hasStrace)("restore", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const node = await filled(cluster);
    const file = join(cluster.dir, "a.barge");
    expect((await barge(["backup", file, "--endpoints", node.binary])).status).toBe(0);
    await node.kill();
    rmSync(node.dataDir, { recursive: true });
    const restore = ["restore", file, "--data-dir", node.dataDir, "--advertise", node.binary];
    let nth = 1;
    for (; nth <= killsMax; nth++) {
      if (!(await killedAt(nth, restore))) break;
      if (existsSync(node.dataDir)) {
        // Killed behind the renaming: all of it is there.
        expect((await reportOf(node.dataDir)).whole).toBe(true);
        rmSync(node.dataDir, { recursive: true });
      }
    }
    expect(nth).toBeGreaterThan(4);
    expect(nth).toBeLessThan(killsMax);
    expect(readdirSync(cluster.dir).filter((name) => name.endsWith(".restoring"))).toEqual([]);
    await expectAll(node);
  }),
);

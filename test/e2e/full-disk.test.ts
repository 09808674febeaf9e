/**
 * Real file systems that run full under load: writes are refused as not applied while there is no space, the others go on without the one
 * node, and with space again it goes on by itself. Nothing is lost. Skips where nothing can be mounted.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestNode, until, withCluster } from "./cluster.ts";
import { failureOf, HttpDoor } from "./doors.ts";
import { type Mount, mounted } from "./mount.ts";
import { Workload } from "./workload.ts";

const testMsMax = 90_000;
const valueBytes = 8_192;
const ballastMiB = 40;
const size = "size=64m";

/** Runs `body` with a file system that has little space, and much once the ballast is dropped. */
async function onSmallDisk(body: (disk: Mount, dropBallast: () => void) => Promise<void>) {
  const dir = mkdtempSync(join(tmpdir(), "barge-disk-"));
  try {
    using disk = mounted(join(dir, "disk"), size);
    if (disk === undefined) return;
    const ballast = join(disk.path, "ballast");
    writeFileSync(ballast, new Uint8Array(ballastMiB * 1024 * 1024));
    await body(disk, () => rmSync(ballast));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function full(node: TestNode): Promise<void> {
  await until(`the disk of node ${node.id} is full`, async () => {
    return (await node.status()).health === "read_only";
  });
}

for (const who of ["leader", "follower"] as const) {
  test(
    `the disk of a ${who} is full: the others go on, and it comes back by itself`,
    () =>
      onSmallDisk((disk, dropBallast) =>
        withCluster({ dataDir: (id) => (id === 1 ? disk.path : undefined) }, async (cluster) => {
          const small = cluster.nodes[0]!;
          await using workload = new Workload(cluster, { valueBytes, timeoutMs: 2_000 });
          while (((await cluster.leader()) === small) !== (who === "leader")) {
            const leader = await cluster.leader();
            await leader.kill();
            await cluster.leader(cluster.nodes.filter((node) => node !== leader));
            await cluster.start();
          }
          workload.start();
          await full(small);
          const error = await failureOf(new HttpDoor(small).put("refused", "value", 1_000));
          expect({ code: error.code, outcome: error.outcome }).toEqual({
            code: "disk_full",
            outcome: "not-applied",
          });
          await workload.acknowledges(200);
          expect(await new HttpDoor(small).get("refused", 1_000, "local")).toBeUndefined();
          expect(small.running).toBe(true);

          dropBallast();
          await workload.acknowledges(200);
          await workload.stop();
          await cluster.converged();
          await workload.verify("all");
        }),
      ),
    testMsMax,
  );
}

test(
  "the disks of all are full: writes are refused until there is space",
  () =>
    onSmallDisk((disk, dropBallast) =>
      withCluster({ dataDir: (id) => join(disk.path, `node${id}`) }, async (cluster) => {
        await using workload = new Workload(cluster, { valueBytes, timeoutMs: 2_000 });
        workload.start();
        await until("no node has space", async () => {
          const all = await Promise.all(cluster.nodes.map((node) => node.status()));
          return all.filter(({ health }) => health !== "ok").length === 3;
        });
        const { notApplied } = workload.counts;
        await until("writes are refused", () => workload.counts.notApplied > notApplied + 10);
        // A crash in this state changes nothing.
        const leader = cluster.nodes[1]!;
        await leader.kill();

        dropBallast();
        leader.start();
        await workload.acknowledges(500);
        await workload.stop();
        await cluster.converged();
        await workload.verify("all");
      }),
    ),
  testMsMax,
);

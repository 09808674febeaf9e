/**
 * Real file systems that run full under load: writes are refused as not applied while there is no space, the others go on without the one
 * node, and with space again it goes on by itself. Nothing is lost. Skips where nothing can be mounted.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BargeError } from "../../src/errors.ts";
import { fatalTable } from "../../src/fatal.ts";
import { until, withCluster } from "./cluster.ts";
import { HttpDoor } from "./doors.ts";
import { fillWith, mounted } from "./mount.ts";
import { Workload } from "./workload.ts";

const testMsMax = 90_000;
const valueBytes = 8_192;
const ballastMiB = 40;
const size = "size=64m";

interface SmallDisk {
  readonly path: string;
  /** Takes what is left. */
  fill(): void;
  /** From now on there is space. */
  free(): void;
}

/** Runs `body` with a file system that has little space until it is freed. */
async function onSmallDisk(body: (disk: SmallDisk) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "barge-disk-"));
  try {
    using mount = mounted(join(dir, "disk"), size);
    if (mount === undefined) return;
    const [ballast, rest] = ["ballast", "rest"].map((name) => join(mount.path, name));
    writeFileSync(ballast!, new Uint8Array(ballastMiB * 1024 * 1024));
    await body({
      path: mount.path,
      fill: () => fillWith(rest!),
      free: () => [ballast!, rest!].forEach((path) => rmSync(path, { force: true })),
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

for (const who of ["leader", "follower"] as const) {
  test(
    `the disk of a ${who} is full: the others go on, and it comes back by itself`,
    () =>
      onSmallDisk((disk) =>
        withCluster(
          { dataDir: (id) => (id === 1 ? join(disk.path, "node1") : undefined) },
          async (cluster) => {
            const small = cluster.nodes[0]!;
            await using workload = new Workload(cluster, { valueBytes, timeoutMs: 2_000 });
            while (((await cluster.leader()) === small) !== (who === "leader")) {
              const leader = await cluster.leader();
              await leader.kill();
              await cluster.leader(cluster.nodes.filter((node) => node !== leader));
              await cluster.start();
            }
            workload.start();
            // Space can come back for a moment, when a segment that could not be filled is given up: another key each time.
            const door = new HttpDoor(small);
            let refused = "";
            let attempts = 0;
            await until("a write is refused for want of space", async () => {
              const key = `refused-${++attempts}`;
              const error = await door.put(key, "value", 1_000).then(
                () => undefined,
                (failure: unknown) => failure,
              );
              if (!(error instanceof BargeError) || error.code !== "disk_full") return false;
              expect(error.outcome).toBe("not-applied");
              refused = key;
              return true;
            });
            await workload.acknowledges(200);
            expect(await door.get(refused, 1_000, "local")).toBeUndefined();
            expect(small.running).toBe(true);

            disk.free();
            await workload.acknowledges(200);
            await workload.stop();
            await cluster.converged();
            await workload.verify("all");
          },
        ),
      ),
    testMsMax,
  );
}

test(
  "the disks of all are full: writes are refused until there is space",
  () =>
    onSmallDisk((disk) =>
      withCluster({ dataDir: (id) => join(disk.path, `node${id}`) }, async (cluster) => {
        await using workload = new Workload(cluster, { valueBytes, timeoutMs: 2_000 });
        workload.start();
        await until("no node has space", async () => {
          const all = await Promise.all(cluster.nodes.map((node) => node.status()));
          return all.filter(({ health }) => health !== "ok").length === 3;
        });
        const { notApplied } = workload.counts;
        await until("writes are refused", () => workload.counts.notApplied > notApplied + 10);
        // After a crash a node needs some space to begin again, and says so.
        const crashed = cluster.nodes[1]!;
        await crashed.kill();
        disk.fill();
        crashed.start();
        const { status, stderr } = await crashed.ended();
        expect(stderr).toMatch(/barge: data_dir_not_writable: .*no space left/);
        expect(status).toBe(fatalTable.data_dir_not_writable.status);

        disk.free();
        crashed.start();
        await workload.acknowledges(500);
        await workload.stop();
        await cluster.converged();
        await workload.verify("all");
      }),
    ),
  testMsMax,
);

/**
 * The disk reports an error, once, to the leader under load: at a sync or a write of each kind of file, on the event loop and in each Worker. The process
 * ends at once, having synced nothing after it; its next start says why; the others go on, and nothing is lost. Needs a C compiler (test/chaos/preload.c).
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fatalTable } from "../../src/fatal.ts";
import { readFailure } from "../../src/storage/failure-note.ts";
import { buildPreload, type DiskFault, Surroundings } from "../chaos/preload.ts";
import { loopbackPlace, type TestNode, until, withCluster } from "./cluster.ts";
import { Workload } from "./workload.ts";

const testMsMax = 60_000;
/** From the failed call to the end of the process, on a busy machine. */
const endMsMax = 2_000;

interface Case extends DiskFault {
  readonly what: string;
  /** Syncs of the same file that may come after it. */
  readonly mayFollow?: number;
  /** Before that: the file is there. SQLite undoes one that it fails to make, which takes syncs that nothing relies on. */
  prepare?(node: TestNode): Promise<unknown>;
  /** Brings the call about, where load alone does not. */
  provoke?(node: TestNode): Promise<unknown>;
}

const flush = (node: TestNode): Promise<unknown> =>
  node.fetch("/v1/snapshot", { method: "POST", body: "{}" }).catch(() => undefined);
const checkpoint = (node: TestNode): Promise<unknown> =>
  node
    .fetch("/v1/backup", {}, 5_000)
    .then((response) => response.arrayBuffer())
    .catch(() => undefined);

const cases: readonly Case[] = [
  { what: "a sync of the log", call: "sync", pattern: "*/segments/*-wal" },
  { what: "a write of the log", call: "write", pattern: "*/segments/*-wal" },
  { what: "a sync of the watermark", call: "sync", pattern: "*/watermark" },
  { what: "the folder's sync for a new segment", call: "sync", pattern: "*/segments" },
  {
    what: "the sync of flushed keys",
    call: "sync",
    pattern: "*/machine/0/kv.db-wal",
    provoke: flush,
  },
  { what: "a flush of keys", call: "write", pattern: "*/machine/0/kv.db-wal", provoke: flush },
  {
    what: "a checkpoint",
    call: "write",
    pattern: "*/machine/0/kv.db",
    prepare: flush,
    provoke: checkpoint,
  },
  {
    what: "the sync of a checkpoint",
    // Where it was the one of the thread beside, SQLite may be in the midst of its own; the log of the file is not begun anew after either.
    mayFollow: 1,
    call: "sync",
    pattern: "*/machine/0/kv.db",
    prepare: flush,
    provoke: checkpoint,
  },
];

const dir = mkdtempSync(join(tmpdir(), "barge-sync-faults-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const library = buildPreload(dir);
if (library === undefined) process.stderr.write("skip: no C compiler, so no disk can fail here\n");

for (const [number, { what, mayFollow = 0, prepare, provoke, ...fault }] of cases.entries()) {
  test.skipIf(library === undefined)(
    `${what} fails`,
    async () => {
      const around = new Map<number, Surroundings>();
      const place = (id: number): ReturnType<typeof loopbackPlace> => {
        const own = new Surroundings(library!, join(dir, `around-${number}-${id}`));
        around.set(id, own);
        return { ...loopbackPlace(), environment: own.environment };
      };
      await withCluster({ place }, async (cluster) => {
        await using workload = new Workload(cluster, { valueBytes: 2_048, timeoutMs: 3_000 });
        workload.start();
        // Less than the log holds before its second segment is made.
        await workload.acknowledges(100);
        const struck = await cluster.leader();
        const own = around.get(struck.id)!;
        await prepare?.(struck);
        const ended = struck.ended();
        own.failNext(fault);
        const provoked = provoke?.(struck);
        await until("the fault has come to pass", () => own.failures.failed === 1);
        const failedMs = performance.now();
        const { status, stderr } = await ended;
        expect(performance.now() - failedMs).toBeLessThan(endMsMax);
        expect(status).toBe(fatalTable.sync_failed.status);
        expect(stderr).toContain("barge: sync_failed: ");
        const { failed, after } = own.failures;
        expect(failed).toBe(1);
        expect(after).toBeLessThanOrEqual(mayFollow);
        await provoked;

        const failure = readFailure(struck.dataDir);
        expect(failure?.reason).toBe("sync_failed");
        await workload.acknowledges(100);
        struck.start();
        await struck.ready();
        const log = struck.log();
        expect(log).toContain("the last run ended by itself: ");
        expect(log).toContain(JSON.stringify(failure!.message).slice(1, -1));
        expect(readFailure(struck.dataDir)).toBeUndefined();
        await workload.acknowledges(100);
        await workload.stop();
        await cluster.converged();
        await workload.verify("all");
      });
      for (const each of around.values()) each[Symbol.dispose]();
    },
    testMsMax,
  );
}

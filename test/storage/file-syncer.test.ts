import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fatalTable } from "../../src/fatal.ts";
import { FileSyncer, syncDescriptorsMax } from "../../src/storage/file-syncer.ts";
import { hasStrace, isSync, trace } from "./strace.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-syncer-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const files = ["c", "a", "b"].map((name) => join(folder, name));
for (const file of files) writeFileSync(file, "x");

const fixture = join(import.meta.dir, "file-syncer-fixture.ts");

async function run(...args: string[]) {
  const child = Bun.spawn([process.execPath, fixture, ...args], {
    stdout: "pipe",
    stderr: "pipe",
    stdin: "ignore",
  });
  const [exitCode, stdout, stderr] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { exitCode, stdout, stderr };
}

describe("a syncer", () => {
  test("runs one round at a time, and tells of it later", async () => {
    const syncer = new FileSyncer();
    const descriptor = openSync(files[0]!, "r");
    for (let round = 0; round < 20; round++) {
      let isLater = false;
      const { promise, resolve } = Promise.withResolvers<void>();
      syncer.sync([descriptor, descriptor], () => {
        expect(isLater).toBe(true);
        // The next round may be asked for from here.
        expect(syncer.syncing).toBe(false);
        resolve();
      });
      isLater = true;
      expect(syncer.syncing).toBe(true);
      expect(() => syncer.sync([descriptor], () => {})).toThrow("under way");
      await promise;
    }
    const { count, p50Ms, p99Ms } = syncer.durations();
    expect(count).toBe(20);
    expect(p50Ms).toBeGreaterThan(0);
    expect(p99Ms).toBeGreaterThanOrEqual(p50Ms);
    syncer.close();
    closeSync(descriptor);
  });

  test("refuses more files than fit, and everything once closed", () => {
    const syncer = new FileSyncer();
    const tooMany = Array.from({ length: syncDescriptorsMax + 1 }, () => 1);
    expect(() => syncer.sync(tooMany, () => {})).toThrow("descriptors");
    expect(syncer.syncing).toBe(false);
    expect(syncer.durations()).toEqual({ count: 0, p50Ms: 0, p99Ms: 0 });
    syncer.close();
    expect(() => syncer.sync([], () => {})).toThrow("close");
  });

  test("waits at its end for the round that is under way, which then tells nobody", async () => {
    const syncer = new FileSyncer();
    const descriptor = openSync(files[0]!, "r");
    let isTold = false;
    syncer.sync([descriptor], () => (isTold = true));
    syncer.close();
    closeSync(descriptor);
    const other = new FileSyncer();
    await new Promise<void>((resolve) => other.sync([], resolve));
    other.close();
    expect(isTold).toBe(false);
  });
});

describe("a process", () => {
  test.concurrent("is not kept by a syncer that has nothing to do", async () => {
    expect(await run("idle")).toMatchObject({ exitCode: 0, stdout: "" });
  });

  test.concurrent("is kept by a round that is under way", async () => {
    expect(await run("sync", ...files)).toMatchObject({ exitCode: 0, stdout: "done" });
  });

  test.concurrent("may end at any moment", async () => {
    expect(await run("exit", ...files)).toMatchObject({ exitCode: 5 });
  });

  test.concurrent("ends when a round fails", async () => {
    const { exitCode, stdout, stderr } = await run("bad-descriptor");
    expect(stderr).toMatch(/sync_failed: .*EBADF/);
    expect(exitCode).toBe(fatalTable.sync_failed.status);
    expect(stdout).toBe("");
  });
});

describe.skipIf(!hasStrace)("system calls", () => {
  test.concurrent("come in the order asked for", async () => {
    const { calls, stdout } = await trace("file-syncer-fixture.ts", ["sync", ...files]);
    expect(stdout).toBe("done");
    const synced = calls.filter(isSync).map(({ name, file }) => `${name} ${file}`);
    expect(synced).toEqual(["fdatasync c", "fdatasync a", "fdatasync b"]);
  });

  test.concurrent("end with the first that fails, in all Workers", async () => {
    const { calls, stdout, exitCode } = await trace(
      "file-syncer-fixture.ts",
      ["second-syncer", ...files],
      "fdatasync:error=EIO",
    );
    expect(exitCode).toBe(fatalTable.sync_failed.status);
    expect(stdout).toBe("");
    expect(calls.filter(isSync)).toMatchObject([{ file: "c", failed: true }]);
  });
});

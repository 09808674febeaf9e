import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fatalTable } from "../../src/fatal.ts";
import { DiskFullError } from "../../src/storage/disk.ts";
import { lockFile, openDatabase, writeFailed } from "../../src/storage/sqlite.ts";
import { after, hasStrace, isSync, trace } from "./strace.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-sqlite-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const schema = "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, value)";

describe("a database", () => {
  test("is as the log needs it", () => {
    const database = openDatabase(join(folder, "pragmas.db"), { cacheKiB: 256, schema });
    const pragma = (name: string): unknown =>
      Object.values(database.prepare<Record<string, unknown>, []>(`PRAGMA ${name}`).get() ?? {})[0];
    expect(pragma("journal_mode")).toBe("wal");
    expect(pragma("synchronous")).toBe(1);
    expect(pragma("wal_autocheckpoint")).toBe(0);
    expect(pragma("page_size")).toBe(4096);
    expect(pragma("cache_size")).toBe(-256);
    database.leave();
  });

  test("keeps its WAL, and what is in it, over any number of openings", () => {
    const path = join(folder, "reopened.db");
    for (let i = 1; i <= 3; i++) {
      const database = openDatabase(path, { cacheKiB: 256, schema });
      database.prepare<unknown, []>("INSERT INTO rows (value) VALUES ('x')").run();
      const count = database.prepareRead<{ n: number }, []>("SELECT count(*) AS n FROM rows");
      expect(count.get()?.n).toBe(i);
      database.leave();
      database.leave();
      expect(statSync(path).size).toBe(4096);
      expect(statSync(`${path}-wal`).size).toBeGreaterThan(4096);
    }
  });

  test("is not checkpointed when the opening fails", () => {
    const path = join(folder, "failing.db");
    const first = openDatabase(path, { cacheKiB: 256, schema });
    first.prepare<unknown, []>("INSERT INTO rows (value) VALUES ('x')").run();
    first.leave();
    const walBytes = statSync(`${path}-wal`).size;
    expect(() => openDatabase(path, { cacheKiB: 256, schema: "no SQL" })).toThrow("syntax");
    expect(statSync(`${path}-wal`).size).toBe(walBytes);
    expect(statSync(path).size).toBe(4096);
  });

  test("that has no space left rolls back and works on", () => {
    const database = openDatabase(join(folder, "full.db"), { cacheKiB: 256, schema });
    const insert = database.prepare<unknown, [Uint8Array]>("INSERT INTO rows (value) VALUES (?1)");
    const count = database.prepareRead<{ n: number }, []>("SELECT count(*) AS n FROM rows");
    const write = (bytes: number): void => {
      try {
        database.begin();
        insert.run(new Uint8Array(10));
        insert.run(new Uint8Array(bytes));
        database.commit();
      } catch (error) {
        writeFailed(database, error);
      }
    };
    write(10);
    database.db.run("PRAGMA max_page_count = 10");
    expect(() => write(100_000)).toThrow(DiskFullError);
    expect(database.db.inTransaction).toBe(false);
    expect(count.get()?.n).toBe(2);
    write(10);
    expect(count.get()?.n).toBe(4);
    database.leave();
  });

  test("lock has one holder, in this process and among processes", async () => {
    const path = join(folder, "lock.db");
    const lock = lockFile(path);
    expect(lock).toBeDefined();
    expect(lockFile(path)).toBeUndefined();
    lock?.release();
    const again = lockFile(path);
    expect(again).toBeDefined();
    again?.release();
    expect(statSync(path).size).toBe(0);
  });
});

describe.skipIf(!hasStrace)("the way out takes no sync and no checkpoint", () => {
  for (const [ending, status] of [
    ["leave", 0],
    ["return", 0],
    ["exit", 3],
    ["throw", 1],
    ["exit-in-transaction", 3],
  ] as const) {
    test.concurrent(ending, async () => {
      const path = join(folder, `${ending}.db`);
      const { exitCode, stdout, calls } = await trace("sqlite-fixture.ts", [path, ending]);
      expect(exitCode).toBe(status);
      expect(stdout).toBe("50");
      // The trace works: making the database did sync.
      expect(calls.filter(isSync).length).toBeGreaterThan(0);
      const rest = after(calls, "ending").filter((call) => call.file.startsWith(`${ending}.db`));
      expect(rest).toEqual([]);
      expect(existsSync(`${path}-wal`)).toBe(true);
      expect(statSync(path).size).toBe(4096);
    });
  }
});

describe.skipIf(!hasStrace)("a failed sync", () => {
  test("ends the process with its status and not one sync more", async () => {
    const path = join(folder, "eio.db");
    const { exitCode, stdout, stderr, calls } = await trace(
      "sqlite-fixture.ts",
      [path, "sync"],
      "fdatasync:error=EIO",
    );
    expect(stderr).toContain("sync_failed");
    expect(exitCode).toBe(fatalTable.sync_failed.status);
    expect(stdout).toBe("50");
    const rest = after(calls, "ending");
    expect(rest.filter(isSync)).toMatchObject([
      { name: "fdatasync", file: "eio.db-wal", failed: true },
    ]);
    expect(rest.filter((call) => call.name === "pwrite64")).toEqual([]);
    expect(statSync(path).size).toBe(4096);
  });
});

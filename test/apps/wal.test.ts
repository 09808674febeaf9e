/**
 * The application whose snapshot is the main file of its database (wal/app.ts): it keeps to the contract with deferred Sync, and what makes its snapshots instant holds:
 * nothing but PrepareSnapshot folds the log (R-64 to R-68 of the seeds). `WAL_MEGABYTES=1000` makes its database as large as that row says.
 */
import { Database } from "bun:sqlite";
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Application } from "../../src/conform/application.ts";
import { conform } from "../../src/conform/conform.ts";
import { TestApplication, wal } from "./applications.ts";

setDefaultTimeout(120_000);

const megabytes = Number(process.env["WAL_MEGABYTES"] ?? 24);
/** At a thousand megabytes as many as R-65 wants. */
const writes = Math.max(20_000, 100 * megabytes);
const folder = mkdtempSync(join(tmpdir(), "barge-wal-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

class Running implements AsyncDisposable {
  readonly process: TestApplication;
  readonly app: Application;

  constructor(name: string) {
    this.process = new TestApplication(wal, join(folder, name));
    this.app = new Application({ url: this.process.url, group: 0, timeoutMs: 60_000 });
  }

  async start(): Promise<this> {
    await this.process.start();
    await this.app.lastLogIndex();
    return this;
  }

  /** So many updates more, in calls of a hundred. */
  async update(count: number, bytes = 100): Promise<void> {
    const value = "x".repeat(bytes);
    for (let left = count; left > 0; left -= 100) {
      const first = (this.app.index ?? 0) + 1;
      const entries = Array.from({ length: Math.min(left, 100) }, (_, i) => ({
        index: first + i,
        command: Buffer.from(`set k${first + i} ${value}`),
      }));
      await this.app.update(entries);
    }
  }

  get mainFile(): string {
    const { dataDir } = this.process;
    return join(
      dataDir,
      readdirSync(dataDir).find((file) => file.endsWith(".sqlite"))!,
    );
  }

  async hash(): Promise<string> {
    return new Bun.CryptoHasher("sha256")
      .update(await Bun.file(this.mainFile).bytes())
      .digest("hex");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.process.kill();
  }
}

test("it keeps to the contract with deferred Sync, whenever it is killed", async () => {
  const process = new TestApplication(wal, join(folder, "conform"));
  const words = wal.command.map((word) => `'${word}'`).join(" ");
  const findings = await conform(
    {
      url: process.url,
      group: 0,
      timeoutMs: 20_000,
      startMs: 20_000,
      start: `PORT=${process.port} DATA_DIR='${process.dataDir}' exec ${words}`,
      updates: ["append k {n}", "set k{n} {n}"],
      reads: ["get k", "get k{n}"],
      sync: true,
      random: Math.random,
    },
    () => {},
  );
  expect(findings.filter(({ verdict }) => verdict !== "ok")).toEqual([]);
});

test("R-64: PrepareSnapshot costs what was written since, and no space; the snapshot is a whole database of its index", async () => {
  await using running = await new Running("instant").start();
  await running.update(megabytes, 1_000_000);
  await running.app.prepareSnapshot();
  await running.update(1_000, 10_000);
  const beginMs = performance.now();
  const handle = await running.app.prepareSnapshot();
  expect(performance.now() - beginMs).toBeLessThan(1_000);
  const index = running.app.index!;
  const used = readdirSync(running.process.dataDir)
    .map((file) => statSync(join(running.process.dataDir, file)).size)
    .reduce((sum, each) => sum + each, 0);
  // SQLite's index of the log keeps what the longest one needed: 32 KiB for 16 MiB of it.
  expect(used).toBeLessThan(statSync(running.mainFile).size * (1 + 1 / 256) + 1e6);
  const copy = join(folder, "copy.sqlite");
  writeFileSync(copy, await running.app.saveSnapshot(handle));
  using db = new Database(copy, { readonly: true });
  expect(db.query("PRAGMA integrity_check").get()).toEqual({ integrity_check: "ok" });
  expect(db.query("SELECT idx FROM applied").get()).toEqual({ idx: index });
  expect(db.query("SELECT count(*) AS n FROM items").get()).toEqual({ n: megabytes + 1_000 });
});

test("R-65: the main file does not change between two PrepareSnapshots, whatever is written, and over a stop and a start", async () => {
  await using running = await new Running("stray").start();
  await running.update(100);
  await running.app.prepareSnapshot();
  const before = await running.hash();
  await running.update(writes);
  expect(await running.hash()).toBe(before);
  await running.app.sync();
  await running.process.terminate();
  await running.process.start();
  expect(await running.app.lastLogIndex()).toBe(100 + writes);
  expect(await running.hash()).toBe(before);
  await running.app.prepareSnapshot();
  expect(await running.hash()).not.toBe(before);
});

test("R-66: what is written while a snapshot is sent does not touch it, and is folded later", async () => {
  await using running = await new Running("beside").start();
  await running.update(5_000, 1_000);
  const handle = await running.app.prepareSnapshot();
  const file = await Bun.file(running.mainFile).bytes();
  const [sent] = await Promise.all([
    running.app.saveSnapshot(handle, true),
    running.update(10_000),
  ]);
  expect(Buffer.compare(sent, file)).toBe(0);
  expect(Buffer.compare(await running.app.saveSnapshot(handle), file)).toBe(0);
  await running.app.releaseSnapshot(handle);
  await running.app.prepareSnapshot();
  expect(statSync(running.mainFile).size).toBeGreaterThan(file.byteLength);
});

test("R-67: a reader in the way makes PrepareSnapshot refuse, to be asked again, and holds up nothing else", async () => {
  await using running = await new Running("busy").start();
  await running.update(100);
  const reader = new Database(running.mainFile, { readonly: true });
  reader.run("BEGIN");
  reader.query("SELECT count(*) FROM items").get();
  await running.update(100);
  await expect(running.app.prepareSnapshot()).rejects.toThrow("503");
  await running.update(100);
  reader.run("COMMIT");
  reader.close();
  await running.app.prepareSnapshot();
  expect(await running.app.lastLogIndex()).toBe(300);
});

test("R-68: a main file that somebody else has written to is not sent", async () => {
  await using running = await new Running("tampered").start();
  await running.update(100);
  const handle = await running.app.prepareSnapshot();
  await running.app.saveSnapshot(handle);
  appendFileSync(running.mainFile, "x");
  await expect(running.app.saveSnapshot(handle)).rejects.toThrow("somebody else");
});

/** The kv file in SQLite: the contract that its simulated twin keeps too, kill -9, checkpoints, and the bound on open files. */
import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkLimits, defaultLimits, type Limits } from "../../src/limits.ts";
import type { KvFile, KvMeta, KvRow } from "../../src/machine/kv-file.ts";
import { createMachine, KvFiles } from "../../src/machine/machines.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import { Memtable } from "../../src/machine/memtable.ts";
import type { SqliteKvFile } from "../../src/machine/sqlite-kv-file.ts";
import { encodeKvGet, encodeKvPut, readKvEntry } from "../../src/wire/kv.ts";
import { layOutSection, SectionKind } from "../../src/wire/section.ts";
import { sessionCommandSection } from "../../src/wire/session-commands.ts";
import { Random } from "../sim/random.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";
import { killLimits, nextBatch, writtenAt } from "./kv-writer.ts";
import { Answers, Results, TestLog } from "./log.ts";

/** Four processes start one after the other, on a machine that may be busy. */
const killTestMsMax = 60_000;

const root = mkdtempSync(join(tmpdir(), "barge-kv-"));
const shared: KvFiles[] = [];
afterAll(() => {
  for (const files of shared) files.close();
  rmSync(root, { recursive: true, force: true });
});

let directories = 0;
function newDirectory(): string {
  return mkdtempSync(join(root, `${++directories}-`));
}

function newFiles(limits: Limits = defaultLimits): KvFiles {
  const files = new KvFiles({ limits });
  shared.push(files);
  return files;
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const meta = (appliedIndex: number) => ({
  appliedIndex,
  stateHash: 0xffff_ffff,
  timeMs: 2 ** 52,
  applyVersion: 2,
  sessions: Uint8Array.of(appliedIndex, 0xff),
});

function rowsOf(file: KvFile, from?: Uint8Array): string[] {
  const rows: string[] = [];
  file.scan(from, ({ key, revision, value }: KvRow) => {
    rows.push(
      `${Buffer.from(key).toString("hex")} ${revision} ${Buffer.from(value).toString("hex")}`,
    );
    return true;
  });
  return rows;
}

type Change = readonly [key: Uint8Array, revision: number, value: Uint8Array | undefined];

function tableOf(changes: readonly Change[]): Memtable {
  const table = new Memtable();
  for (const [key, revision, value] of changes) {
    const bytes = Buffer.concat([key, value ?? new Uint8Array(0)]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { byteLength } = key;
    if (value === undefined) table.remove(bytes, view, 0, byteLength, revision);
    else table.put(bytes, view, 0, byteLength, byteLength, value.byteLength, revision);
  }
  return table;
}

/** Begins to write, and says when it is committed and when durable. */
function begin(
  file: KvFile,
  changes: readonly Change[],
  of: KvMeta,
): { readonly committed: Promise<void>; readonly durable: Promise<void> } {
  const committed = Promise.withResolvers<void>();
  const durable = Promise.withResolvers<void>();
  file.write(tableOf(changes), of, {
    committed: committed.resolve,
    durable: durable.resolve,
    diskFull: () => committed.reject(new Error("disk full")),
  });
  return { committed: committed.promise, durable: durable.promise };
}

const write = (file: KvFile, changes: readonly Change[], of: KvMeta): Promise<void> =>
  begin(file, changes, of).durable;

const kinds: Record<string, () => { file: KvFile; reopen: () => KvFile }> = {
  sqlite: () => {
    const files = newFiles();
    const path = join(newDirectory(), "kv.db");
    const file = files.file(path);
    return {
      file,
      reopen: () => {
        file.close();
        return files.file(path);
      },
    };
  },
  simulated: () => {
    const schedule = (_: number, run: () => void): void => void setImmediate(run);
    const file = new SimKvFile({ random: () => 0, schedule });
    return { file, reopen: () => file.crash("all") };
  },
};

for (const [kind, make] of Object.entries(kinds)) {
  describe(`kv file, ${kind}`, () => {
    test("is nothing before its first transaction", () => {
      const { file } = make();
      expect(file.open()).toBeUndefined();
      expect(file.get(text("a"))).toBeUndefined();
      expect(file.revision(text("a"))).toBe(0);
      expect(rowsOf(file)).toEqual([]);
      expect(file.walBytes).toBe(0);
      file.close();
    });

    test("a transaction is seen once it is committed, whole, and found again", async () => {
      const { file, reopen } = make();
      file.open();
      const first = begin(
        file,
        [
          [text("b"), 2 ** 53 - 1, new Uint8Array(0)],
          [text("a"), 3_000_000_000, text("one")],
          [text("absent"), 3_000_000_001, undefined],
        ],
        meta(1),
      );
      expect(file.get(text("a"))).toBeUndefined();
      await first.committed;
      expect(file.get(text("b"))).toEqual({ revision: 2 ** 53 - 1, value: new Uint8Array(0) });
      expect(file.revision(text("a"))).toBe(3_000_000_000);
      await first.durable;
      const second: Change[] = [
        [text("a"), 4, text("two")],
        [text("b"), 5, undefined],
      ];
      await write(file, second, meta(2));
      expect(rowsOf(file)).toEqual(["61 4 74776f"]);
      expect(file.walBytes).toBeGreaterThan(0);
      const next = reopen();
      expect(next.open()).toEqual(meta(2));
      expect(rowsOf(next)).toEqual(["61 4 74776f"]);
      next.close();
    });

    test("a scan begins at a key, goes in the order of bytes, and ends when told", async () => {
      const { file } = make();
      file.open();
      const keys = [[0], [0, 0], [1], [127, 255], [128], [255], [255, 255, 1]];
      const changes = keys.map((key): Change => [Uint8Array.from(key), 1, text("v")]);
      await write(file, changes.toReversed(), meta(1));
      const hex = keys.map((key) => `${Buffer.from(key).toString("hex")} 1 76`);
      expect(rowsOf(file)).toEqual(hex);
      expect(rowsOf(file, Uint8Array.of(0, 1))).toEqual(hex.slice(2));
      expect(rowsOf(file, Uint8Array.of(128))).toEqual(hex.slice(4));
      let visits = 0;
      file.scan(undefined, () => ++visits < 2);
      expect(visits).toBe(2);
      // The scan that ended early holds nothing.
      await write(file, [], meta(2));
      file.close();
    });

    test("a checkpoint keeps what there is and empties the write-ahead log", async () => {
      const { file, reopen } = make();
      file.open();
      const changes = Array.from({ length: 2_000 }, (_, i): Change => [
        text(`k${i}`),
        i + 1,
        Buffer.alloc(100, i),
      ]);
      await write(file, changes, meta(2_000));
      const before = file.walBytes;
      const { promise, resolve } = Promise.withResolvers<boolean>();
      file.checkpoint(resolve);
      // Reads go on meanwhile.
      expect(file.revision(text("k77"))).toBe(78);
      expect(await promise).toBe(true);
      expect(file.walBytes).toBeLessThan(before / 10);
      const rows = rowsOf(file);
      expect(rows).toHaveLength(2_000);
      await write(file, [[text("later"), 2_001, text("v")]], meta(2_001));
      const next = reopen();
      expect(next.open()).toEqual(meta(2_001));
      expect(rowsOf(next)).toHaveLength(2_001);
      next.close();
    });
  });
}

describe("kv files", () => {
  test("writes asked for at once are each answered", async () => {
    const files = newFiles();
    const directory = newDirectory();
    const all = ["a", "b", "c"].map((name) => files.file(join(directory, name)));
    for (const file of all) file.open();
    await Promise.all(all.map((file, i) => write(file, [[text("k"), i, text("v")]], meta(i + 1))));
    for (const [i, file] of all.entries()) expect(rowsOf(file)).toEqual([`6b ${i} 76`]);
    for (const file of all) file.close();
    expect(files.openFiles).toBe(0);
  });

  test("at most so many are open; the one used longest ago is left, and opened again when needed", async () => {
    const files = newFiles(checkLimits({ ...defaultLimits, kvOpenFilesMax: 2 }));
    const directory = newDirectory();
    const all = Array.from({ length: 5 }, (_, i) => files.file(join(directory, `${i}.db`)));
    for (const [i, file] of all.entries()) {
      file.open();
      await write(file, [[text("k"), i + 1, text("v")]], meta(1));
      expect(file.revision(text("k"))).toBe(i + 1);
      expect(files.openFiles).toBe(Math.min(i + 1, 2));
    }
    for (const [i, file] of all.entries()) expect(file.revision(text("k"))).toBe(i + 1);
    expect(files.openFiles).toBe(2);
    // A file that is being written is not left.
    const writing = begin(all[0]!, [[text("k"), 9, text("v")]], meta(2));
    for (const file of all) file.revision(text("k"));
    await writing.durable;
    expect(all[0]!.revision(text("k"))).toBe(9);
    for (const file of all) file.close();
  });

  test("a file closed while it is being written is left after it", async () => {
    const files = newFiles();
    const file: SqliteKvFile = files.file(join(newDirectory(), "kv.db"));
    file.open();
    await write(file, [[text("k"), 1, text("v")]], meta(1));
    const unreachable = (): never => expect.unreachable();
    file.write(new Memtable(), meta(2), {
      committed: unreachable,
      durable: unreachable,
      diskFull: unreachable,
    });
    file.close();
    expect(files.openFiles).toBe(1);
    while (files.openFiles > 0) await new Promise((resolve) => setImmediate(resolve));
  });

  test("leaving takes neither a checkpoint nor the write-ahead log away", async () => {
    const directory = newDirectory();
    const path = join(directory, "kv.db");
    const file = newFiles().file(path);
    file.open();
    await write(file, [[text("k"), 1, Buffer.alloc(10_000)]], meta(1));
    const { size } = statSync(path);
    file.close();
    expect(existsSync(`${path}-wal`)).toBe(true);
    expect(statSync(path).size).toBe(size);
  });
});

describe("machines on real files", () => {
  test("an idle machine creates nothing; a flushed one is found again", async () => {
    const directory = newDirectory();
    const files = newFiles();
    const limits = checkLimits({ ...defaultLimits, memtableFlushMs: 1, flushLogBytesMin: 1 });
    const options = { directory, files, limits, nowMs: () => performance.now() };
    for (const kind of ["kv", "null"] as const) {
      const machine = createMachine(kind, options);
      expect(machine.open()).toBe(0);
      machine.work(0);
      machine.work(100);
      expect(readdirSync(directory).filter((name) => name.startsWith(kind))).toEqual([]);
      const log = new TestLog();
      machine.apply([log.add([[encodeKvPut(text("k"), text("v"))]])], new Results());
      machine.allowDurable(1);
      machine.work(200);
      machine.work(300);
      while (machine.durableIndex < 1) await new Promise((resolve) => setImmediate(resolve));
      const { stateHash } = machine;
      machine.close();
      const next = createMachine(kind, options);
      expect(next.open()).toBe(1);
      expect(next.stateHash).toBe(stateHash);
      const answers = new Answers();
      next.read(encodeKvGet(text("k")), answers);
      expect(answers.code).toBe(kind === "kv" ? ResultCode.ok : ResultCode.notFound);
      next.close();
    }
  });

  test("what waits to be written in a folder is known", async () => {
    const [directory, other] = [newDirectory(), newDirectory()];
    const files = newFiles();
    const file = files.file(join(directory, "kv.db"));
    const later = files.file(join(other, "kv.db"));
    const first = write(file, [[text("k"), 1, text("v")]], meta(1));
    const second = write(later, [[text("k"), 1, text("v")]], meta(1));
    expect([directory, other].map((each) => files.isWriting(each))).toEqual([true, true]);
    await first;
    await second;
    expect([directory, other].map((each) => files.isWriting(each))).toEqual([false, false]);
    file.close();
    later.close();
  });

  test("sessions and request ids are found again with the data", async () => {
    const directory = newDirectory();
    const files = newFiles();
    const limits = checkLimits({ ...defaultLimits, memtableFlushMs: 1, flushLogBytesMin: 1 });
    const options = { directory, files, limits, nowMs: () => performance.now() };
    for (const kind of ["kv", "null"] as const) {
      const log = new TestLog();
      const command = [encodeKvPut(text("k"), text("v"))];
      const inSession = { kind: SectionKind.session, session: 2, firstSeq: 1, doneUpTo: 0 };
      const section = layOutSection(command, inSession);
      const keyed = layOutSection(command, { ...inSession, kind: SectionKind.keyed });
      const principal = text("nobody");
      const open = sessionCommandSection({ op: "open", ttlMs: 60_000, principal });
      log.raise(2);
      for (const each of [open, section, keyed]) log.addSections([each]);
      const machine = createMachine(kind, options);
      machine.open();
      machine.apply(log.batches, new Results());
      machine.allowDurable(log.lastIndex);
      machine.work(200);
      machine.work(300);
      while (machine.durableIndex < log.lastIndex) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      machine.close();
      const next = createMachine(kind, options);
      expect(next.open()).toBe(4);
      expect(next.applyVersion).toBe(2);
      expect(next.figures()).toMatchObject({ sessions: 1, requestIds: 1 });
      const results = new Results();
      next.apply([log.addSections([section]), log.addSections([keyed])], results);
      expect([...results.repeats].map(([index, { original }]) => [index, original])).toEqual([
        [5, 3],
        [6, 4],
      ]);
      next.close();
    }
  });

  test("a file of a build before sessions is read as one of apply version 1, and the build can go back", async () => {
    const directory = newDirectory();
    const old = new Database(join(directory, "kv.db"), { create: true });
    old.run("PRAGMA journal_mode = wal");
    old.run(`CREATE TABLE kv (key BLOB PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
      CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 0), appliedIndex INTEGER NOT NULL, stateHash INTEGER NOT NULL, timeMs INTEGER NOT NULL
  ) STRICT;
      CREATE TABLE restart (id INTEGER PRIMARY KEY CHECK (id = 0), count INTEGER NOT NULL) STRICT;`);
    old.run("INSERT INTO meta VALUES (0, 7, 8, 9)");
    old.close();
    const files = newFiles();
    const file = files.file(join(directory, "kv.db"));
    const read = { appliedIndex: 7, stateHash: 8, timeMs: 9 };
    expect(file.open()).toEqual({ ...read, applyVersion: 1, sessions: new Uint8Array(0) });
    const none = new Uint8Array(0);
    const next = { ...read, appliedIndex: 8, applyVersion: 1, sessions: none };
    await write(file, [[text("k"), 8, text("v")]], next);
    file.close();
    // What the older build asks.
    const again = new Database(join(directory, "kv.db"));
    expect(again.query("SELECT appliedIndex, stateHash, timeMs FROM meta").get()).toEqual({
      ...read,
      appliedIndex: 8,
    });
    again.run("UPDATE meta SET appliedIndex = 9");
    again.close();
    const last = files.file(join(directory, "kv.db"));
    expect(last.open()).toEqual({ ...next, appliedIndex: 9 });
    last.close();
  });

  test(
    "kill -9: what was said to be durable is there, and a replay gives the state of one that was not killed",
    async () => {
      const seed = Math.floor(Math.random() * 2 ** 32);
      const random = new Random(seed);
      const directory = newDirectory();
      let durable = 0;
      let checkpoints = 0;
      for (let life = 0; life < 4; life++) {
        const child = Bun.spawn(
          [process.execPath, join(import.meta.dir, "kv-writer.ts"), directory],
          {
            stdout: "pipe",
            stderr: "inherit",
          },
        );
        const lives = random.between(3, 20);
        let lines = 0;
        let rest = "";
        for await (const chunk of child.stdout) {
          const parts = (rest + new TextDecoder().decode(chunk)).split("\n");
          rest = parts.pop()!;
          for (const line of parts) {
            const [, index, count] = line.split(" ");
            if (lines === 0 && Number(index) < durable) {
              throw new Error(`seed ${seed}: ${durable} was durable, ${index} is there`);
            }
            durable = Math.max(durable, Number(index));
            checkpoints = Math.max(checkpoints, Number(count ?? 0));
            lines += 1;
          }
          if (lines >= lives) child.kill("SIGKILL");
        }
        await child.exited;
        expect(child.signalCode).toBe("SIGKILL");
      }
      const files = newFiles(killLimits);
      const nowMs = (): number => performance.now();
      const machine = createMachine("kv", { directory, files, limits: killLimits, nowMs });
      const applied = machine.open();
      expect(applied).toBeGreaterThanOrEqual(durable);
      const log = new TestLog();
      while (log.lastIndex < applied) nextBatch(log);
      const twin = createMachine("kv", {
        directory: newDirectory(),
        files,
        limits: checkLimits({ ...defaultLimits, memtableFlushMs: 1_000_000 }),
        nowMs,
      });
      twin.open();
      twin.apply(log.batches, new Results());
      expect(machine.stateHash).toBe(twin.stateHash);
      for (let index = Math.max(1, applied - 5_000); index <= applied; index++) {
        const { key } = writtenAt(index);
        const [one, other] = [new Answers(), new Answers()];
        machine.read(encodeKvGet(key), one);
        twin.read(encodeKvGet(key), other);
        if (one.code !== other.code || Buffer.compare(one.bytes, other.bytes) !== 0) {
          throw new Error(`seed ${seed}: ${readKvEntry(one.bytes)?.revision} at key of ${index}`);
        }
      }
      expect(checkpoints, `seed ${seed}`).toBeGreaterThan(0);
      machine.close();
      twin.close();
    },
    killTestMsMax,
  );
});

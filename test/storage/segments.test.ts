/** The files of segments: the order in which they are made, what a crash can leave of them, and how full they are said to be. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FatalError } from "../../src/fatal.ts";
import { RecordKind } from "../../src/storage/disk.ts";
import type { LogRecord, SegmentFile } from "../../src/storage/disk.ts";
import { segmentPath } from "../../src/storage/segment-files.ts";
import { openSqliteDisk } from "../../src/storage/sqlite-disk.ts";
import type { SqliteDisk } from "../../src/storage/sqlite-disk.ts";
import { after, hasStrace, isSync, trace } from "./strace.ts";
import type { Call } from "./strace.ts";

let folder = "";
let segmentsPath = "";
let disk: SqliteDisk | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "barge-segments-"));
  segmentsPath = join(folder, "segments");
});
afterEach(() => {
  disk?.close();
  disk = undefined;
  rmSync(folder, { recursive: true, force: true });
});

function open(segmentBytes = 0): SqliteDisk {
  disk?.close();
  disk = openSqliteDisk({ segmentsPath, watermarkPath: join(folder, "watermark"), segmentBytes });
  return disk;
}

function record(seq: number, bytes = 100): LogRecord {
  return { seq, kind: RecordKind.batch, group: 0, data: new Uint8Array(bytes).fill(seq) };
}

function seqsOf(segment: SegmentFile): number[] {
  const seqs: number[] = [];
  segment.scan(({ seq }) => seqs.push(seq), 8);
  return seqs;
}

function found(): Record<number, number[]> {
  const segments: Record<number, number[]> = {};
  for (const segment of open().segments) segments[segment.number] = seqsOf(segment);
  return segments;
}

const path = (number: number, suffix: "" | "-wal" | "-shm" = ""): string =>
  segmentPath(segmentsPath, number, suffix);

async function until(holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error("waited in vain");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe.skipIf(!hasStrace)("the order of system calls", () => {
  const shown = ({ name, file, to }: Call): string =>
    to === undefined ? `${name} ${file}` : `${name} ${file} ${to}`;
  const between = (calls: readonly Call[], from: string, to: string): Call[] => {
    const rest = after(calls, from);
    return rest.slice(0, rest.indexOf(after(rest, to)[0]!) - 1);
  };

  test("of making, syncing, recycling and leaving segments", async () => {
    const { calls, stderr, exitCode } = await trace("segment-fixture.ts", [folder]);
    expect(stderr).not.toContain("error");
    expect(exitCode).toBe(0);
    const ours = calls.filter((call) => call.name !== "write" || call.file.startsWith("0"));

    const create = between(ours, "create", "append").map(shown);
    const firstSteps = ["pwrite64 00000001.db", "fsync 00000001.db", "fsync segments"];
    expect(create.slice(0, 3)).toEqual(firstSteps);
    expect(create.at(-1)).toBe("fdatasync 00000001.db-wal");

    // Appending takes no sync; a sync takes one, of the WAL alone.
    expect(between(ours, "append", "sync").filter(isSync)).toEqual([]);
    expect(between(ours, "append", "sync").length).toBeGreaterThan(20);

    const recycle = between(ours, "recycle", "overwrite");
    const zeroed = recycle.findIndex((call) => call.file === "00000001.db-wal");
    expect(recycle[zeroed]).toMatchObject({ name: "pwrite64", bytes: 32 });
    expect(recycle.slice(0, 8).map(shown)).toEqual([
      "pwrite64 00000003.db",
      "fsync 00000003.db",
      "pwrite64 00000001.db-wal",
      "fdatasync 00000001.db-wal",
      "unlink 00000001.db",
      "unlink 00000001.db-shm",
      "rename 00000001.db-wal 00000003.db-wal",
      "fsync segments",
    ]);
    // Then the stamp: SQLite writes the new header, syncs it and once more the folder, the frame follows, and our own sync is the last.
    const stamp = recycle.slice(8).filter((call) => !call.file.endsWith("-shm"));
    expect(new Set(stamp.map((call) => call.file))).toEqual(
      new Set(["00000003.db-wal", "segments"]),
    );
    expect(shown(stamp.at(-1)!)).toBe("fdatasync 00000003.db-wal");

    const overwrite = between(ours, "overwrite", "sync-both");
    expect(overwrite.filter(isSync)).toEqual([]);
    expect(overwrite.length).toBeGreaterThan(0);
    expect(between(ours, "sync-both", "close").map(shown)).toEqual([
      "fdatasync 00000002.db-wal",
      "fdatasync 00000003.db-wal",
    ]);
    const leaving = after(ours, "close").filter((call) => call.name !== "mark");
    expect(leaving.map(shown)).toEqual([]);
  });
});

describe("what a crash leaves", () => {
  beforeEach(() => {
    const fresh = open();
    for (const number of [1, 2, 3]) {
      const segment = fresh.create(number);
      segment.append([record(number * 10), record(number * 10 + 1)]);
    }
    fresh.close();
  });
  const whole = { 1: [10, 11], 2: [20, 21], 3: [30, 31] };

  test("nothing, after all was left properly", () => {
    expect(found()).toEqual(whole);
  });

  test("a main file without WAL is dropped, once a new segment is made", () => {
    copyFileSync(path(1), path(4));
    expect(found()).toEqual(whole);
    expect(existsSync(path(4))).toBe(true);
    const segment = open().create(4);
    segment.append([record(40)]);
    expect(found()).toEqual({ ...whole, 4: [40] });
  });

  test("a main file that was cut short is dropped", () => {
    for (const bytes of [0, 100, 4_096]) {
      copyFileSync(path(1), path(4));
      truncateSync(path(4), bytes);
      writeFileSync(path(4, "-wal"), "");
      expect(found()).toEqual(whole);
    }
    open().create(4);
    expect(found()).toEqual({ ...whole, 4: [] });
  });

  test("a main file of zeros, never synced, is dropped", () => {
    writeFileSync(path(4), new Uint8Array(statSync(path(1)).size));
    for (const wal of [new Uint8Array(0), readFileSync(path(3, "-wal"))]) {
      writeFileSync(path(4, "-wal"), wal);
      expect(found()).toEqual(whole);
    }
  });

  test("a segment without stamp is dropped", () => {
    copyFileSync(path(1), path(4));
    writeFileSync(path(4, "-wal"), "");
    expect(found()).toEqual(whole);
    open().prepare(5);
    expect(readdirSync(segmentsPath).filter((name) => name.startsWith("00000004"))).toEqual([]);
  });

  test("a whole WAL under another name is not taken for that segment", () => {
    copyFileSync(path(3), path(4));
    copyFileSync(path(3, "-wal"), path(4, "-wal"));
    expect(found()).toEqual(whole);
  });

  test("a retired WAL with a zeroed header is empty, before and after its renaming", () => {
    const wal = openSync(path(1, "-wal"), "r+");
    writeSync(wal, new Uint8Array(32), 0, 32, 0);
    closeSync(wal);
    expect(found()).toEqual({ 2: [20, 21], 3: [30, 31] });
    disk?.close();
    // The main file of 4 is there, that of 1 is unlinked, and now the WAL is renamed.
    copyFileSync(path(1), path(4));
    rmSync(path(1));
    expect(found()).toEqual({ 2: [20, 21], 3: [30, 31] });
    disk?.close();
    copyFileSync(path(1, "-wal"), path(4, "-wal"));
    rmSync(path(1, "-wal"));
    expect(found()).toEqual({ 2: [20, 21], 3: [30, 31] });
    const segment = open().create(4);
    segment.append([record(40)]);
    expect(found()).toEqual({ 2: [20, 21], 3: [30, 31], 4: [40] });
  });

  test("a WAL or an index alone is dropped", () => {
    rmSync(path(1));
    rmSync(path(2));
    rmSync(path(2, "-wal"));
    expect(found()).toEqual({ 3: [30, 31] });
    open().create(4);
    expect(readdirSync(segmentsPath).filter((name) => /^0000000[12]/.test(name))).toEqual([]);
  });

  test("other files in the folder are left alone", () => {
    writeFileSync(join(segmentsPath, "notes.txt"), "mine");
    writeFileSync(join(segmentsPath, "1.db"), "mine");
    expect(found()).toEqual(whole);
    open().create(4);
    expect(readdirSync(segmentsPath)).toContain("notes.txt");
    expect(readdirSync(segmentsPath)).toContain("1.db");
  });

  test("a segment that another program checkpointed is refused, untouched", () => {
    writeFileSync(path(2), new Uint8Array(100_000));
    rmSync(path(2, "-wal"));
    const before = readdirSync(segmentsPath).sort();
    expect(() => open()).toThrow(FatalError);
    disk = undefined;
    expect(readdirSync(segmentsPath).sort()).toEqual(before);
  });
});

describe("filling", () => {
  test("a prepared segment is overwritten in place, and reads as empty before", async () => {
    const bytes = 400_000;
    open(bytes).prepare(1);
    let segment: SegmentFile | undefined;
    await until(() => (segment = disk!.takePrepared(1)) !== undefined);
    expect(segment!.growing).toBe(false);
    const size = statSync(path(1, "-wal")).size;
    expect(size).toBe(bytes);
    for (let seq = 1; seq <= 5; seq++) segment!.append([record(seq, 50_000)]);
    expect(statSync(path(1, "-wal")).size).toBe(size);
    expect(segment!.bytes).toBeLessThan(size);
    expect(found()).toEqual({ 1: [1, 2, 3, 4, 5] });
  });

  test("past what was filled it grows", async () => {
    open(100_000).prepare(1);
    let segment: SegmentFile | undefined;
    await until(() => (segment = disk!.takePrepared(1)) !== undefined);
    for (let seq = 1; seq <= 5; seq++) segment!.append([record(seq, 50_000)]);
    expect(statSync(path(1, "-wal")).size).toBeGreaterThan(250_000);
    expect(found()).toEqual({ 1: [1, 2, 3, 4, 5] });
  });

  test("a crash while it is filled leaves something that is dropped", () => {
    const fresh = open(100_000);
    fresh.create(1).append([record(10)]);
    fresh.close();
    copyFileSync(path(1), path(2));
    writeFileSync(path(2, "-wal"), new Uint8Array(50_000));
    expect(found()).toEqual({ 1: [10] });
  });
});

describe("recycling", () => {
  const rotate = async (current: SegmentFile, number: number): Promise<SegmentFile> => {
    const target = disk!;
    target.prepare(number);
    let next: SegmentFile | undefined;
    await until(() => (next = target.takePrepared(number)) !== undefined);
    target.retire(current);
    return next!;
  };

  test("reuses the WAL in place: the same file, the same size, none of its old rows", async () => {
    open();
    let segment: SegmentFile = disk!.create(1);
    for (let seq = 1; seq <= 10; seq++) segment.append([record(seq, 50_000)]);
    const { ino, size } = statSync(path(1, "-wal"));
    segment = await rotate(segment, 2);
    segment = await rotate(segment, 3);
    expect(statSync(path(3, "-wal"))).toMatchObject({ ino, size });
    expect(seqsOf(segment)).toEqual([]);
    segment.append([record(100, 50_000)]);
    segment.append([record(101, 7)]);
    expect(statSync(path(3, "-wal"))).toMatchObject({ ino, size });
    expect(found()).toEqual({ 2: [], 3: [100, 101] });
  });

  test("keeps two WALs spare at most", async () => {
    open();
    const segments = [1, 2, 3, 4, 5, 6].map((number) => disk!.create(number));
    for (const segment of segments.slice(0, 5)) disk!.retire(segment);
    await until(
      () => readdirSync(segmentsPath).filter((name) => name.endsWith("-wal")).length === 3,
    );
    expect(found()).toEqual({ 4: [], 5: [], 6: [] });
  });

  test("a segment that is retired during its sync is closed after it", async () => {
    open();
    const first = disk!.create(1);
    disk!.create(2);
    first.append([record(1)]);
    let done = false;
    disk!.sync([first], () => (done = true));
    disk!.retire(first);
    expect(() => disk!.sync([first], () => {})).toThrow("not live");
    await until(() => done);
    expect(() => first.read(1)).toThrow();
  });

  test("the loop may wait for the segment that is being prepared", () => {
    open();
    disk!.prepare(1);
    disk!.create(1).append([record(1)]);
    disk!.prepare(2);
    disk!.create(3);
    expect(found()).toEqual({ 1: [1], 2: [], 3: [] });
  });
});

describe("the used part of the WAL", () => {
  for (const bytes of [0, 16, 300, 512, 1_000, 4_000, 4_100, 8_000, 16_384, 70_000, 262_144]) {
    test(`is never understated, nor overstated much, with rows of ${bytes} bytes`, () => {
      const count = Math.min(3_000, Math.ceil(8_000_000 / (bytes + 1_000)));
      const segment = open().create(1);
      let seq = 0;
      for (let i = 0; i < count; i++) segment.append([record(++seq, bytes)]);
      for (let i = 0; i < count / 20; i++) {
        const run: LogRecord[] = [];
        for (let j = 0; j < 20; j++) run.push(record(++seq, bytes));
        segment.append(run);
      }
      const used = statSync(path(1, "-wal")).size;
      expect(segment.bytes).toBeGreaterThanOrEqual(used);
      expect(segment.bytes).toBeLessThan(used * 1.4);
    });
  }
});

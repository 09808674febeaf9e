/** The model of a file system that crash images are made with: what it must keep, and that it loses what it may. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "../sim/random.ts";
import { FileSystem, type Kept, keptKinds } from "./file-system.ts";
import { hasStrace, record, type Trace, type TraceEvent } from "./trace.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-file-system-"));
afterAll(() => rmSync(folder, { recursive: true }));

const bytes = (fill: number, length: number): Uint8Array => new Uint8Array(length).fill(fill);
const write = (id: number, offset: number, data: Uint8Array): TraceEvent => ({
  kind: "write",
  id,
  offset,
  data,
});
let syncs = 0;
function sync(id: number): TraceEvent[] {
  const number = ++syncs;
  return [
    { kind: "syncBegins", id, sync: number },
    { kind: "syncEnds", id, sync: number },
  ];
}
const create = (id: number, name: string): TraceEvent => ({ kind: "create", folder: 0, name, id });

/** The files of one image. */
function imageOf(events: readonly TraceEvent[], kept: Kept, seed = 1): Map<string, Buffer> {
  const trace: Trace = { found: new Map(), directories: new Set([0]), events };
  const fileSystem = new FileSystem(trace);
  for (const event of events) fileSystem.step(event);
  const path = mkdtempSync(join(folder, "image-"));
  fileSystem.image(kept, new Random(seed)).save(path);
  return new Map(readdirSync(path).map((name) => [name, readFileSync(join(path, name))]));
}

const seeds = Array.from({ length: 40 }, (_, seed) => seed);

describe("an image", () => {
  test("keeps what was synced, whatever else it keeps", () => {
    const events = [create(1, "a"), write(1, 0, bytes(7, 1_500)), ...sync(1), ...sync(0)];
    for (const kept of keptKinds) {
      for (const seed of seeds) {
        expect(
          imageOf([...events, write(1, 1_500, bytes(8, 9_000))], kept, seed)
            .get("a")
            ?.subarray(0, 1_500),
        ).toEqual(Buffer.alloc(1_500, 7));
      }
    }
  });

  test("of a file whose name was never synced has none, or has it without its bytes", () => {
    const events = [create(1, "a"), write(1, 0, bytes(7, 10)), ...sync(1)];
    expect(imageOf(events, "none").has("a")).toBe(false);
    expect(imageOf(events, "contents").has("a")).toBe(false);
    const unsynced = [create(1, "a"), write(1, 0, bytes(7, 10)), ...sync(0)];
    expect(imageOf(unsynced, "none").get("a")?.byteLength).toBe(0);
    expect(imageOf(unsynced, "all").get("a")).toEqual(Buffer.alloc(10, 7));
  });

  test("has nothing for sure of what was written while a sync ran", () => {
    const [begins, ends] = sync(1) as [TraceEvent, TraceEvent];
    const events = [create(1, "a"), ...sync(0), begins, write(1, 0, bytes(7, 10)), ends];
    expect(imageOf(events, "none").get("a")?.byteLength).toBe(0);
  });

  test("may have a file under its old name, its new one, and with other bytes", () => {
    const events: TraceEvent[] = [
      create(1, "live"),
      write(1, 0, bytes(1, 10)),
      ...sync(1),
      create(2, "new"),
      ...sync(0),
      write(2, 0, bytes(2, 10)),
      { kind: "rename", folder: 0, name: "new", toFolder: 0, toName: "live", id: 2 },
    ];
    expect([...imageOf(events, "none").keys()].toSorted()).toEqual(["live", "new"]);
    // The classic: the name is there before the bytes are.
    const names = imageOf(events, "names");
    expect([...names.keys()]).toEqual(["live"]);
    expect(names.get("live")?.byteLength).toBe(0);
    expect(imageOf(events, "all").get("live")).toEqual(Buffer.alloc(10, 2));
  });

  test("is torn between sectors, never within one", () => {
    const events = [create(1, "a"), write(1, 0, bytes(1, 4_096)), ...sync(1), ...sync(0)];
    const found = new Set<string>();
    for (const seed of seeds) {
      const file = imageOf([...events, write(1, 0, bytes(2, 4_096))], "torn", seed).get("a")!;
      const sectors = Array.from({ length: 8 }, (_, at) => file.subarray(at * 512, at * 512 + 512));
      for (const sector of sectors) expect(new Set(sector).size).toBe(1);
      found.add(sectors.map((sector) => sector[0]).join(""));
    }
    expect(found.size).toBeGreaterThan(10);
  });

  test("has names in their order, unless they are scattered", () => {
    const events = [create(1, "a"), create(2, "b")];
    const namesOf = (kept: Kept, seed: number): string =>
      [...imageOf(events, kept, seed).keys()].toSorted().join();
    const found = new Set<string>();
    for (const seed of seeds) found.add(namesOf("subset", seed));
    expect([...found].toSorted()).toEqual(["", "a", "a,b"]);
    for (const seed of seeds) found.add(namesOf("scattered", seed));
    expect([...found].toSorted()).toEqual(["", "a", "a,b", "b"]);
  });
});

test.skipIf(!hasStrace)("a trace tells what a program did, in order", async () => {
  const root = join(folder, "traced");
  const program = `
    const fs = require("node:fs"), [, root] = process.argv;
    fs.mkdirSync(root + "/sub", { recursive: true });
    const file = fs.openSync(root + "/sub/a", "w");
    fs.writeSync(file, "one");
    fs.writeSync(file, new Uint8Array([1, 2]), 0, 2, 700);
    fs.ftruncateSync(file, 701);
    fs.fdatasyncSync(file);
    fs.closeSync(file);
    fs.renameSync(root + "/sub/a", root + "/sub/b");
    fs.writeSync(1, "mark here\\n");
    const directory = fs.openSync(root + "/sub", "r");
    fs.fsyncSync(directory);
    fs.rmSync(root + "/sub/b");
  `;
  mkdirSync(root);
  const { trace, exitCode } = await record([process.execPath, "-e", program, root], root);
  expect(exitCode).toBe(0);
  expect(existsSync(join(root, "sub/b"))).toBe(false);
  expect(trace.events.map(({ kind }) => kind)).toEqual([
    "create",
    "create",
    "write",
    "write",
    "truncate",
    "syncBegins",
    "syncEnds",
    "rename",
    "mark",
    "syncBegins",
    "syncEnds",
    "unlink",
  ]);
  expect(trace.events[3]).toMatchObject({ offset: 700, data: Buffer.from([1, 2]) });
  expect(trace.events[7]).toMatchObject({ name: "a", toName: "b" });
});

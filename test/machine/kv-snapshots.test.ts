/** Snapshots of machines over real files: what is sent is the state at one index while writes go on, and what is received takes its place [25, 29]. */
import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { checkLimits, defaultLimits } from "../../src/limits.ts";
import {
  ResultCode,
  type IncomingSnapshot,
  type MachineSnapshot,
  type SnapshotOpening,
  type StateMachine,
} from "../../src/machine/machine.ts";
import { createMachine, KvFiles } from "../../src/machine/machines.ts";
import { seal } from "../../src/wire/sealed-bytes.ts";
import { encodeKvGet, encodeKvPut, readKvEntry } from "../../src/wire/kv.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import { fillWith, mounted } from "../e2e/mount.ts";
import { Answers, Results, TestLog } from "./log.ts";

const limits = checkLimits({ ...defaultLimits, kvWalBytesMax: 100_000 });
const chunkBytes = 10_000;
const root = mkdtempSync(join(tmpdir(), "barge-kv-snapshots-"));
const files = new KvFiles({ limits });
const text = (word: string): Uint8Array => new TextEncoder().encode(word);

afterAll(() => {
  files.close();
  rmSync(root, { recursive: true });
});

/** A machine in a folder, and what drives it. */
class World {
  readonly directory: string;
  machine: StateMachine;

  constructor(directory = join(root, crypto.randomUUID()), generation = 0) {
    this.directory = directory;
    mkdirSync(join(directory, "0"), { recursive: true });
    this.machine = this.open(generation);
  }

  open(generation: number): StateMachine {
    const nowMs = (): number => performance.now();
    const directory = join(this.directory, "0");
    this.machine = createMachine("kv", { directory, generation, files, limits, nowMs });
    this.machine.open();
    return this.machine;
  }

  apply(log: TestLog): void {
    this.machine.apply(log.from(this.machine.appliedIndex), new Results());
    this.machine.allowDurable(log.lastIndex);
  }

  /** Works until something is so. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) {
      this.machine.work(performance.now());
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async flush(): Promise<void> {
    const { appliedIndex } = this.machine;
    this.machine.flush();
    await this.until(() => this.machine.durableIndex >= appliedIndex);
  }

  async prepare(): Promise<MachineSnapshot | undefined> {
    let found: MachineSnapshot | null | undefined;
    this.machine.prepareSnapshot((snapshot) => (found = snapshot ?? null));
    await this.until(() => found !== undefined);
    return found ?? undefined;
  }

  get(key: string): string | undefined {
    const answers = new Answers();
    this.machine.read(encodeKvGet(text(key)), answers);
    if (answers.code !== ResultCode.ok) return undefined;
    return new TextDecoder().decode(readKvEntry(answers.bytes)!.value);
  }

  get names(): string[] {
    const names = readdirSync(join(this.directory, "0"));
    return names.filter((name) => name.endsWith(".db")).toSorted();
  }
}

function put(log: TestLog, from: number, to: number, value: string): void {
  for (let i = from; i < to; i++) {
    log.add([[encodeKvPut(text(`key-${i}`), text(`${value}-${i}`.padEnd(500)))]]);
  }
}

/** A snapshot of 50 keys whose file somebody has changed, sent as if it were sound. */
async function forge(change: (db: Database) => void): Promise<Uint8Array> {
  const log = new TestLog();
  const world = new World();
  log.raise(2);
  put(log, 0, 50, "value");
  world.apply(log);
  await world.flush();
  (await world.prepare())!.release();
  world.machine.close();
  const path = join(world.directory, "0", "kv.db");
  const db = new Database(path);
  change(db);
  db.run("PRAGMA wal_checkpoint(TRUNCATE)");
  db.close();
  return new Uint8Array(readFileSync(path));
}

/** What becomes of these bytes as a snapshot at `index`. */
async function send(whole: Uint8Array, to: World, index: number): Promise<SnapshotOpening | false> {
  const bytes = whole.byteLength;
  const incoming = to.machine.receiveSnapshot(bytes)!;
  await new Promise((done) => incoming.write(0, new Uint8Array(whole), done));
  const proof = { index, bytes, chunkBytes: bytes, digest: nextDigest(0, crc32(whole)) };
  const ok = await new Promise<boolean>((done) =>
    incoming.finish({ ...proof, applyVersionMax: 2 }, done),
  );
  const opening = ok && incoming.open();
  incoming.discard();
  return opening;
}

async function transfer(
  snapshot: MachineSnapshot,
  to: World,
  spoil = false,
): Promise<{ incoming: IncomingSnapshot; ok: boolean }> {
  const incoming = to.machine.receiveSnapshot(snapshot.bytes)!;
  let digest = 0;
  for (let offset = 0; offset < snapshot.bytes; offset += chunkBytes) {
    const length = Math.min(chunkBytes, snapshot.bytes - offset);
    const part = await new Promise<Uint8Array>((done) =>
      snapshot.read(offset, length, (bytes) => done(bytes!)),
    );
    digest = nextDigest(digest, crc32(part));
    if (spoil && offset === 0) part[5_000]! ^= 1;
    expect(await new Promise((done) => incoming.write(offset, new Uint8Array(part), done))).toBe(
      true,
    );
  }
  const { index, bytes } = snapshot;
  const proof = { index, bytes, chunkBytes, digest, applyVersionMax: 2 };
  return { incoming, ok: await new Promise((done) => incoming.finish(proof, done)) };
}

describe("kv snapshots", () => {
  test("the state at one index, while writes, flushes and other snapshots go on", async () => {
    const log = new TestLog();
    const sender = new World();
    put(log, 0, 300, "old");
    sender.apply(log);
    const { stateHash } = sender.machine;
    await sender.flush();
    const snapshot = (await sender.prepare())!;
    expect(snapshot.index).toBe(300);
    const { checkpoints } = sender.machine.figures();

    // Enough for some checkpoints, of which none may run.
    for (let round = 0; round < 3; round++) {
      put(log, 100, 400, `new${round}`);
      sender.apply(log);
      await sender.flush();
    }
    const shared = (await sender.prepare())!;
    expect([shared.index, shared.bytes]).toEqual([300, snapshot.bytes]);
    expect(sender.machine.figures()).toMatchObject({ checkpoints });

    const receiver = new World();
    const { incoming, ok } = await transfer(snapshot, receiver);
    expect(ok).toBe(true);
    receiver.machine.recoverFromSnapshot(incoming);
    expect([receiver.machine.appliedIndex, receiver.machine.stateHash]).toEqual([300, stateHash]);
    expect(receiver.get("key-150")?.trim()).toBe("old-150");
    expect(receiver.get("key-350")).toBeUndefined();
    receiver.apply(log);
    expect(receiver.machine.stateHash).toBe(sender.machine.stateHash);
    expect(receiver.get("key-350")?.trim()).toBe("new2-350");

    snapshot.release();
    shared.release();
    await sender.until(() => sender.machine.figures()["checkpoints"]! > checkpoints!);
    expect(() => shared.release()).toThrow(/twice/);
    sender.machine.close();
    receiver.machine.close();
  });

  test("what was there before goes once nobody can come back to it, and at a start", async () => {
    const log = new TestLog();
    const sender = new World();
    const receiver = new World();
    put(log, 0, 50, "value");
    sender.apply(log);
    await sender.flush();
    const before = new TestLog();
    put(before, 0, 10, "before");
    receiver.apply(before);
    await receiver.flush();
    const snapshot = (await sender.prepare())!;
    const { incoming } = await transfer(snapshot, receiver);
    receiver.machine.recoverFromSnapshot(incoming);
    expect(receiver.names).toEqual(["kv-1.db", "kv.db"]);

    // A crash before the pointer is durable brings back what was; the other is unknown then, and goes.
    receiver.machine.close();
    receiver.open(0);
    expect(receiver.machine.appliedIndex).toBe(10);
    expect(receiver.get("key-3")?.trim()).toBe("before-3");
    expect(receiver.names).toEqual(["kv.db"]);

    const again = await transfer(snapshot, receiver);
    receiver.machine.recoverFromSnapshot(again.incoming);
    receiver.machine.snapshotDurable();
    await receiver.until(() => !receiver.names.includes("kv.db"));
    receiver.machine.close();
    receiver.open(again.incoming.generation);
    expect(receiver.machine.appliedIndex).toBe(50);
    snapshot.release();
    sender.machine.close();
    receiver.machine.close();
  });

  test("one that is spoilt, or given up, leaves everything as it was", async () => {
    const log = new TestLog();
    const sender = new World();
    const receiver = new World();
    put(log, 0, 50, "value");
    sender.apply(log);
    await sender.flush();
    const snapshot = (await sender.prepare())!;
    const { incoming, ok } = await transfer(snapshot, receiver, true);
    expect(ok).toBe(false);
    incoming.discard();
    await receiver.until(() => receiver.names.length === 0);
    const other = receiver.machine.receiveSnapshot(100)!;
    expect(other.generation).toBeGreaterThan(incoming.generation);
    let heard = 0;
    other.write(0, new Uint8Array(10), () => heard++);
    other.discard();
    const last = receiver.machine.receiveSnapshot(100)!;
    await new Promise((done) => last.write(0, new Uint8Array(10), done));
    expect(heard).toBe(0);
    last.discard();
    snapshot.release();
    sender.machine.close();
    receiver.machine.close();
  });

  const run =
    (sql: string, ...values: Uint8Array[]) =>
    (db: Database): void => {
      db.run(sql, values);
    };
  const setSessions = (bytes: number[]): ((db: Database) => void) =>
    run("UPDATE apply_state SET sessions = ?1", Uint8Array.from(bytes));
  const sealSessions = (bytes: number[]): ((db: Database) => void) => {
    const saved = Uint8Array.from([...safe(0), ...bytes]);
    seal(saved);
    return setSessions([...saved]);
  };
  const safe = (low: number): number[] => [low, 0, 0, 0, 0, 0, 0, 0];
  const u32 = (low: number): number[] => [low, 0, 0, 0];

  test.each([
    ["sessions that end too early", setSessions([1, 0, 0, 0, 9]), "unusable"],
    ["sessions of an unknown format", setSessions([7, 0, 0, 0, 0, 0, 0, 0]), "unusable"],
    ["sessions without their check", setSessions([2, 0, 0, 0, ...safe(9)]), "unusable"],
    ["four billion sessions", sealSessions([...safe(0), 255, 255, 255, 255]), "unusable"],
    [
      "a principal longer than all of it",
      sealSessions([...safe(0), ...u32(1), ...safe(3), ...u32(9), 255, 255, 255, 127]),
      "unusable",
    ],
    [
      "a number beyond the safe ones",
      sealSessions([...Array.from({ length: 8 }, () => 255), ...u32(0), ...u32(0)]),
      "unusable",
    ],
    [
      "request ids that are cut off",
      sealSessions([...safe(0), ...u32(0), ...u32(20), ...safe(1), ...safe(2), ...u32(3)]),
      "unusable",
    ],
    ["more than was saved", sealSessions([...safe(0), ...u32(0), ...u32(0), 1]), "unusable"],
    ["a state hash that is none", run("UPDATE meta SET stateHash = -1"), "unusable"],
    ["a time before all times", run("UPDATE meta SET timeMs = -1"), "unusable"],
    ["no apply version", run("UPDATE apply_state SET applyVersion = 0"), "unusable"],
    ["an apply version to come", run("UPDATE apply_state SET applyVersion = 3"), false],
    [
      "sessions as large as a file",
      run("UPDATE apply_state SET sessions = zeroblob(80000000)"),
      false,
    ],
    ["a key of no bytes", run("UPDATE kv SET key = x'' WHERE revision = 7"), false],
    ["a revision to come", run("UPDATE kv SET revision = 1000 WHERE revision = 7"), false],
    ["a view", run("CREATE VIEW own AS SELECT 1"), false],
  ] satisfies [string, (db: Database) => void, SnapshotOpening | false][])(
    "one with %s is refused before anything depends on it",
    async (_, change, found) => {
      const receiver = new World();
      expect(await send(await forge(change), receiver, 51)).toBe(found);
      expect(receiver.machine.appliedIndex).toBe(0);
      await receiver.until(() => receiver.names.length === 0);
      receiver.machine.close();
    },
  );

  test("one that nobody has changed is not", async () => {
    const receiver = new World();
    expect(await send(await forge(() => {}), receiver, 51)).toBe("opened");
    const empty = sealSessions([...safe(0), ...u32(0), ...u32(0)]);
    expect(await send(await forge(empty), receiver, 51)).toBe("opened");
    receiver.machine.close();
  });

  test("a disk that is full when one is to be opened: it is asked again, and nothing has changed", async () => {
    const log = new TestLog();
    const sender = new World();
    put(log, 0, 50, "value");
    sender.apply(log);
    await sender.flush();
    const snapshot = (await sender.prepare())!;
    using mount = mounted(join(root, "small"), "size=1m");
    if (mount === undefined) return;
    const receiver = new World(mount.path);
    const { incoming, ok } = await transfer(snapshot, receiver);
    expect(ok).toBe(true);
    // As when somebody else takes the space that SQLite gives back and asks for again.
    for (const name of ["kv-1.db-shm", "kv-1.db-wal"]) rmSync(join(mount.path, "0", name));
    const rest = join(mount.path, "rest");
    fillWith(rest);
    expect([incoming.open(), incoming.open()]).toEqual(["noSpace", "noSpace"]);
    expect(receiver.machine.appliedIndex).toBe(0);

    // Once it is open, going over to it takes no space.
    rmSync(rest);
    expect(incoming.open()).toBe("opened");
    fillWith(rest);
    expect(incoming.open()).toBe("opened");
    receiver.machine.recoverFromSnapshot(incoming);
    expect(receiver.machine.appliedIndex).toBe(50);
    expect(receiver.get("key-3")?.trim()).toBe("value-3");

    rmSync(rest);
    const unwanted = await transfer(snapshot, receiver);
    expect(unwanted.incoming.open()).toBe("opened");
    unwanted.incoming.discard();
    await receiver.until(() => !receiver.names.includes("kv-2.db"));
    snapshot.release();
    sender.machine.close();
    receiver.machine.close();
  });

  test("nothing durable, no snapshot; foreign files stay", async () => {
    const world = new World();
    writeFileSync(join(world.directory, "0", "notes.txt"), "mine");
    writeFileSync(join(world.directory, "0", "kv-7.db-wal"), "");
    expect(await world.prepare()).toBeUndefined();
    world.machine.close();
    world.open(0);
    expect(readdirSync(join(world.directory, "0"))).toEqual(["notes.txt"]);
    world.machine.close();
  });
});

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FatalError } from "../../src/fatal.ts";
import type { FatalReason } from "../../src/fatal.ts";
import { joiningIncarnation, openDataDir, storedIdentity } from "../../src/storage/data-dir.ts";
import { SnapshotFiles } from "../../src/storage/snapshot-files.ts";

const owner = { clusterId: "cluster", nodeId: 1 };
let parent = "";
let path = "";

beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), "barge-data-"));
  path = join(parent, "deep", "data");
});
afterEach(() => rmSync(parent, { recursive: true, force: true }));

/** The refusal's message, once its reason was checked. */
function refused(reason: FatalReason, run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (!(error instanceof FatalError)) throw error;
    expect(error.reason).toBe(reason);
    return error.message;
  }
  throw new Error("it was not refused");
}

function identity(): Record<string, unknown> {
  return JSON.parse(readFileSync(join(path, "identity.json"), "utf8")) as Record<string, unknown>;
}

describe("a data folder", () => {
  test("is made for its owner alone, and remembers itself", () => {
    const first = openDataDir(path, owner);
    expect(first.firstBoot).toBe(true);
    expect(first.incarnation).toMatch(/^[0-9a-f]{32}$/);
    expect(statSync(path).mode & 0o777).toBe(0o700);
    expect(statSync(join(path, "identity.json")).mode & 0o777).toBe(0o600);
    expect(identity()).toMatchObject({ format: 1, ...owner, incarnation: first.incarnation });
    first.close();

    const second = openDataDir(path, owner);
    expect(second.firstBoot).toBe(false);
    expect(second.incarnation).toBe(first.incarnation);
    second.close();

    rmSync(path, { recursive: true });
    const wiped = openDataDir(path, owner);
    expect(wiped.incarnation).not.toBe(first.incarnation);
    wiped.close();
  });

  test("gives each group a folder of its own", () => {
    const folder = openDataDir(path, owner);
    expect(statSync(folder.machinePath(0)).isDirectory()).toBe(true);
    expect(folder.machinePath(7)).not.toBe(folder.machinePath(0));
    expect(folder.machinePath(7)).toBe(folder.machinePath(7));
    folder.close();
  });

  test("sets the folder of a group that goes aside, so that its name is free, and tells of it until it is deleted", () => {
    const folder = openDataDir(path, owner);
    expect(folder.aside).toEqual([]);
    expect(folder.setMachineAside(7)).toBeUndefined();
    const aside = [1, 2].map((round) => {
      writeFileSync(join(folder.machinePath(7), "kv.db"), `of round ${round}`);
      return folder.setMachineAside(7)!;
    });
    expect(folder.machineIds()).toEqual([]);
    expect(readdirSync(folder.machinePath(7))).toEqual([]);
    expect(aside.map((each) => readFileSync(join(each, "kv.db"), "utf8"))).toEqual([
      "of round 1",
      "of round 2",
    ]);
    folder.close();
    rmSync(aside[0]!, { recursive: true });
    const again = openDataDir(path, owner);
    expect(again.aside).toEqual([aside[1]!]);
    again.close();
  });

  test("keeps a token that was drawn for it", () => {
    expect(storedIdentity(path)).toBeUndefined();
    expect(existsSync(path)).toBe(false);
    openDataDir(path, { ...owner, token: "secret" }).close();
    expect(storedIdentity(path)?.token).toBe("secret");
    const again = openDataDir(path, owner);
    expect(again.token).toBe("secret");
    again.close();
  });

  test("of a node that joins has the incarnation that it asked with, whatever crashed in between", () => {
    const incarnation = joiningIncarnation(path, 4);
    expect(joiningIncarnation(path, 4)).toBe(incarnation);
    expect(storedIdentity(path)).toBeUndefined();
    // Another id is another node.
    expect(joiningIncarnation(path, 5)).not.toBe(incarnation);
    const agreed = joiningIncarnation(path, 5);
    const contacts = { 1: "one:1", 2: "two:1" };
    const joined = { clusterId: "cluster", nodeId: 5, tokenHash: "hash", contacts };
    const dir = openDataDir(path, joined, () => {}, agreed);
    expect(dir.incarnation).toBe(agreed);
    expect(existsSync(join(path, "joining.json"))).toBe(false);
    dir.close();
    expect(storedIdentity(path)).toMatchObject({ ...joined, incarnation: agreed });
  });

  test("of another cluster or node is refused in words, untouched", () => {
    openDataDir(path, owner).close();
    const before = identity();
    const cluster = refused("wrong_data_dir", () =>
      openDataDir(path, { ...owner, clusterId: "elsewhere" }),
    );
    expect(cluster).toContain("cluster elsewhere");
    const node = refused("wrong_data_dir", () => openDataDir(path, { ...owner, nodeId: 2 }));
    expect(node).toContain("--node-id 1");
    expect(identity()).toEqual(before);
    // Neither refusal kept the lock.
    openDataDir(path, owner).close();
  });

  test("of an unknown format, or without a readable identity, is refused", () => {
    openDataDir(path, owner).close();
    const file = join(path, "identity.json");
    const good = readFileSync(file, "utf8");
    for (const bad of [
      good.replace('"format": 1', '"format": 3'),
      good.replace('"format": 1', '"applyVersion": 0, "format": 2'),
      good.replace('"format": 1', '"applyVersion": "2", "format": 2'),
      good.replace('"nodeId": 1', '"nodeId": "1"'),
      good.replace('"nodeId": 1', '"contacts": { "one": "host:1" }, "nodeId": 1'),
      good.slice(0, good.length / 2),
      "null",
      "",
    ]) {
      writeFileSync(file, bad);
      expect(refused("wrong_data_dir", () => openDataDir(path, owner))).toContain("identity.json");
      expect(readFileSync(file, "utf8")).toBe(bad);
    }
    writeFileSync(file, good);
    openDataDir(path, owner).close();
  });

  test("whose group has gone to another apply version says so to every build, in a format that those before refuse", () => {
    const folder = openDataDir(path, owner);
    expect(folder.applyVersion).toBe(1);
    folder.raiseApplyVersion(2);
    expect(folder.applyVersion).toBe(2);
    folder.close();
    const again = openDataDir(path, owner);
    expect(again.applyVersion).toBe(2);
    expect(again.incarnation).toBe(folder.incarnation);
    again.close();
    const identity = JSON.parse(readFileSync(join(path, "identity.json"), "utf8")) as object;
    expect(identity).toMatchObject({ format: 2, applyVersion: 2, incarnation: folder.incarnation });
  });

  test("says so once it is durable, where somebody else writes it, and is asked again where there was no space", async () => {
    const folder = openDataDir(path, owner);
    const files = new SnapshotFiles();
    const answers: ((ok: boolean) => void)[] = [];
    folder.raiseApplyVersion(2, (_file, _text, done) => void answers.push(done));
    expect(folder.applyVersion).toBe(1);
    answers[0]!(false);
    expect(folder.applyVersion).toBe(1);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    folder.raiseApplyVersion(3, (file, text, done) =>
      files.replace(file, text, (ok) => {
        done(ok);
        resolve(ok);
      }),
    );
    expect(folder.applyVersion).toBe(1);
    expect(await promise).toBe(true);
    expect(folder.applyVersion).toBe(3);
    files.close();
    folder.close();
    const again = openDataDir(path, owner);
    expect(again.applyVersion).toBe(3);
    again.close();
  });

  test("that has a log and no identity any more is refused: under a new one the node could vote twice", () => {
    openDataDir(path, owner).close();
    rmSync(join(path, "identity.json"));
    mkdirSync(join(path, "segments"));
    writeFileSync(join(path, "segments", "00000001.db"), "");
    const words = refused("wrong_data_dir", () => openDataDir(path, owner));
    expect(words).toContain("identity.json is gone, and the log is there");
    expect(existsSync(join(path, "identity.json"))).toBe(false);
  });

  test("whose making was cut short is made whole", () => {
    openDataDir(path, owner).close();
    const file = join(path, "identity.json");
    writeFileSync(`${file}.new`, readFileSync(file, "utf8").slice(0, 20));
    rmSync(file);
    const folder = openDataDir(path, owner);
    expect(folder.firstBoot).toBe(true);
    folder.close();
    expect(readdirSync(path)).not.toContain("identity.json.new");
  });

  test("that a check of the caller refuses is bound to nobody and not locked", () => {
    expect(() =>
      openDataDir(path, owner, () => {
        throw new FatalError("port_in_use", "taken");
      }),
    ).toThrow("taken");
    expect(existsSync(join(path, "identity.json"))).toBe(false);
    openDataDir(path, { ...owner, nodeId: 2 }).close();
  });

  test("is held by one at a time, until the holder ends, however it ends", async () => {
    const child = Bun.spawn(
      [process.execPath, join(import.meta.dir, "data-dir-fixture.ts"), path],
      { stdout: "pipe", stdin: "ignore" },
    );
    await child.stdout.getReader().read();
    expect(refused("data_dir_locked", () => openDataDir(path, owner))).toContain(path);
    child.kill("SIGKILL");
    await child.exited;
    const folder = openDataDir(path, owner);
    refused("data_dir_locked", () => openDataDir(path, owner));
    folder.close();
    openDataDir(path, owner).close();
  });

  test("that cannot be one is refused", () => {
    const file = join(parent, "file");
    writeFileSync(file, "mine");
    for (const unusable of [file, join(file, "below"), "/proc/barge", "/sys/barge"]) {
      const message = refused("data_dir_not_writable", () => openDataDir(unusable, owner));
      expect(message).toContain(unusable);
    }
    expect(readFileSync(file, "utf8")).toBe("mine");
  });
});

/** What a node may do as the space on its disk goes and comes back, and its ballast. On a small file system; skips where none can be mounted. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DiskSpace } from "../../src/storage/disk-space.ts";
import { until } from "../e2e/cluster.ts";
import { NodeDisk } from "../e2e/mount.ts";

const MiB = 1_048_576;
const dir = mkdtempSync(join(tmpdir(), "barge-space-"));
const small = NodeDisk.make(join(dir, "disk"), "64m");
if (small !== undefined) mkdirSync(small.folder);
afterAll(() => {
  small?.[Symbol.dispose]();
  rmSync(dir, { recursive: true, force: true });
});
const spaceTest = test.skipIf(small === undefined);

function open(minFreeBytes: number, ballastBytes: number): DiskSpace {
  return new DiskSpace({ folder: small!.folder, minFreeBytes, ballastBytes });
}

async function comesTo(space: DiskSpace, level: DiskSpace["level"]): Promise<void> {
  await until(`the level is ${level}`, () => {
    space.look();
    return space.level === level;
  });
}

/** To a page or two. */
async function sees(space: DiskSpace, freeBytes: number): Promise<void> {
  await until("it has looked", () => {
    space.look();
    return Math.abs(space.freeBytes - freeBytes) < MiB / 4;
  });
}

const ballast = (): string => join(small!.folder, "ballast");

spaceTest("plenty, low, and plenty again once there is somewhat more", async () => {
  small!.free();
  const space = open(16 * MiB, 4 * MiB);
  expect(space.level).toBe("plenty");
  expect(statSync(ballast()).size).toBe(4 * MiB);
  small!.leave(15 * MiB);
  await comesTo(space, "low");
  small!.leave(17 * MiB);
  await sees(space, 17 * MiB);
  expect(space.level).toBe("low");
  small!.leave(21 * MiB);
  await comesTo(space, "plenty");
});

spaceTest("the ballast is given up once, and made again where that leaves enough", async () => {
  small!.free();
  const space = open(16 * MiB, 4 * MiB);
  small!.leave(0);
  expect(space.release()).toBe(true);
  expect(space.level).toBe("out");
  expect(existsSync(ballast())).toBe(false);
  expect(space.release()).toBe(false);
  expect(space.hasRoomFor(MiB)).toBe(false);
  small!.leave(19 * MiB);
  await sees(space, 19 * MiB);
  expect(space.level).toBe("out");
  small!.free();
  await comesTo(space, "plenty");
  expect(statSync(ballast()).size).toBe(4 * MiB);
  expect(space.hasRoomFor(MiB)).toBe(true);
});

spaceTest("a start on a full disk gives up the ballast; without one it has nothing to give", () => {
  small!.free();
  open(16 * MiB, 4 * MiB);
  small!.leave(0);
  expect(open(16 * MiB, 4 * MiB).level).toBe("out");
  expect(existsSync(ballast())).toBe(false);
  small!.leave(0);
  const space = open(16 * MiB, 4 * MiB);
  expect(space.level).toBe("out");
  expect(space.release()).toBe(false);
});

spaceTest("without a bound only the end of the disk counts", async () => {
  small!.free();
  const space = open(0, 4 * MiB);
  small!.leave(4_096);
  await sees(space, 4_096);
  expect(space.level).toBe("plenty");
});

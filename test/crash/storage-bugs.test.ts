/** Each planted bug of the storage is found, from the seed on with which it was found before; find-bugs.ts records afresh. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NodeDisk } from "../e2e/mount.ts";
import { findBug } from "./buggy-tree.ts";
import { isStorageBugName, type StorageBug, storageBugs } from "./storage-bugs.ts";
import records from "./storage-bugs.json" with { type: "json" };
import { hasStrace } from "./trace.ts";

/** Threads make no two lives the same. */
const seedsMax = 6;
const testMsMax = 240_000;

const hasSmallDisk = ((): boolean => {
  const folder = mkdtempSync(join(tmpdir(), "barge-mount-"));
  const disk = NodeDisk.make(folder, "1m");
  disk?.[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
  return disk !== undefined;
})();

test("each planted bug of the storage has a record", () => {
  expect(Object.keys(records).toSorted()).toEqual(Object.keys(storageBugs).toSorted());
});

describe.skipIf(!hasStrace)("crash images and tests of the storage find", () => {
  for (const [name, { seed }] of Object.entries(records)) {
    if (!isStorageBugName(name)) continue;
    const bug: StorageBug = storageBugs[name];
    test.skipIf(bug.onSmallDisk === true && !hasSmallDisk)(
      `${name}: ${bug.what}`,
      async () => {
        let found: string | undefined;
        for (let at = seed; at < seed + seedsMax && found === undefined; at++) {
          found = await findBug(name, at);
        }
        expect(found, `${name} survives seeds ${seed} to ${seed + seedsMax - 1}`).toBeDefined();
      },
      testMsMax,
    );
  }
});

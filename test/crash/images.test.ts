/**
 * Power cuts as crash images: whatever a file system may have kept of what was not synced, the whole recovery finds all that was acknowledged, by
 * itself. `BARGE_CRASH_SEED` repeats the lives as far as threads allow; many more with run.ts.
 */
import { expect, test } from "bun:test";
import { keptKinds } from "./file-system.ts";
import { crashImages } from "./images.ts";
import { hasStrace } from "./trace.ts";

const images = 1_000;
const nodeImages = 200;
const testMsMax = 180_000;
const seed = Number(process.env["BARGE_CRASH_SEED"] ?? Date.now() % 1_000_000);

test.skipIf(!hasStrace)(
  `${images} crash images lose nothing (BARGE_CRASH_SEED=${seed})`,
  async () => {
    const report = await crashImages({ seed, images, rotEach: 12 });
    expect(report.findings).toEqual([]);
    expect(report.images).toBe(images);
    // The lives were long enough to mean something.
    for (const kind of keptKinds) expect(report.kept.get(kind)).toBeGreaterThan(50);
    expect(report.kept.get("all, with a bit turned")).toBeGreaterThan(50);
    for (const what of ["segment", "recycling", "compaction", "truncation", "vote"]) {
      expect(report.did.get(what), what).toBeGreaterThan(0);
    }
    expect(report.did.get("snapshot taken over")).toBeGreaterThan(0);
  },
  testMsMax,
);

test.skipIf(!hasStrace)(
  `${nodeImages} crash images of a whole daemon lose nothing (BARGE_CRASH_SEED=${seed})`,
  async () => {
    const report = await crashImages({ of: "node", seed, images: nodeImages });
    expect(report.findings).toEqual([]);
    expect(report.images).toBe(nodeImages);
    expect(report.did.get("recycling")).toBeGreaterThan(0);
  },
  testMsMax,
);

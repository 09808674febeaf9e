/**
 * The power of one, two or all of three nodes is cut at once, each on a disk of its own: under load, in their first moments, while a snapshot comes in and
 * while members change. Nothing acknowledged is lost, and they come back by themselves. `BARGE_POWER_SEED` repeats the choices; longer runs
 * with run.ts.
 */
import { test } from "bun:test";
import { Random } from "../sim/random.ts";
import { fileSystems, loopDisks } from "./loop-disk.ts";
import { powerCuts, powerScenes } from "./power-rounds.ts";

const seed = Number(process.env["BARGE_POWER_SEED"] ?? Date.now() % 1_000_000);

for (const [at, scene] of powerScenes.entries()) {
  const kind = fileSystems[(seed + at) % fileSystems.length]!;
  test(`power cuts of a cluster on ${kind}: ${scene} (BARGE_POWER_SEED=${seed})`, async () => {
    using disks = loopDisks(kind, scene === "members" ? 4 : 3);
    if (disks === undefined) return;
    const cuts = scene === "members" ? 1 : 2;
    await powerCuts({ disks: disks.all, nodes: 3, random: new Random(seed), scene, cuts });
  }, 180_000);
}

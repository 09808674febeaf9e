/**
 * The power of one node is cut under load, again and again, on ext4 and on xfs: all that was acknowledged is there when it starts again, which it
 * does by itself. `BARGE_POWER_SEED` repeats the choices; longer runs with run.ts. Skips where no loop device can be mounted.
 */
import { test } from "bun:test";
import { Random } from "../sim/random.ts";
import { fileSystems, loopDisks } from "./loop-disk.ts";
import { powerCuts } from "./power-rounds.ts";

const cuts = 20;
const seed = Number(process.env["BARGE_POWER_SEED"] ?? Date.now() % 1_000_000);

for (const kind of fileSystems) {
  test(`${cuts} power cuts of one node on ${kind} (BARGE_POWER_SEED=${seed})`, async () => {
    using disks = loopDisks(kind, 1);
    if (disks === undefined) return;
    const random = new Random(seed);
    const firstMoments = Math.floor(cuts / 4);
    const options = { disks: disks.all, nodes: 1, random };
    await powerCuts({ ...options, scene: "load", cuts: cuts - firstMoments });
    await powerCuts({ ...options, scene: "first boot", cuts: firstMoments });
  }, 180_000);
}

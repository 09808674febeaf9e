/** From a build that knows no groups to this one, under load; upgrade-groups.ts does it from a commit as it was. */
import { expect, test } from "bun:test";
import { changedBuild } from "./builds.ts";
import { upgradeToGroups } from "./upgrade-groups-round.ts";

test("mixed builds serve, hand over and send each other snapshots; with the last one upgraded there are groups, and no way back", async () => {
  const counts = await upgradeToGroups({ older: changedBuild("withoutGroups") });
  expect(counts.acknowledged).toBeGreaterThan(1_000);
}, 240_000);

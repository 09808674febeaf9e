/** A few breaks of a snapshot that is not large; snapshot-breaks.ts has more of both. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { Random } from "../sim/random.ts";
import { snapshotBreaks } from "./snapshot-breaks.ts";

setDefaultTimeout(180_000);

test("a snapshot over connections that break comes to the application as a whole, once", async () => {
  const seed = Date.now() % 1_000_000;
  const random = new Random(seed);
  const found = await snapshotBreaks({ megabytes: 96, breaks: 3, random }).catch(
    (error: unknown) => {
      throw new Error(`seed ${seed}`, { cause: error });
    },
  );
  expect(found.recovered).toBe(1);
  // It is some 12 of each; where what comes over sockets was left to the collector it was up to 45.
  expect(found.senderGrewMB).toBeLessThan(32);
  expect(found.receiverGrewMB).toBeLessThan(32);
  expect(found.senderDiskMB).toBeLessThan(40);
});

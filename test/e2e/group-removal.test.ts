/** A sample of group-removal.ts: groups that are removed while their state is being written or sent. */
import { test } from "bun:test";
import { withCluster } from "./cluster.ts";
import { endsClean, Failpoints, momentOf, prepare, round } from "./removal-round.ts";

test("a group that is removed in the middle of a flush, of a snapshot or of its removal leaves nothing, and never comes back", async () => {
  using failpoints = new Failpoints();
  await withCluster(failpoints.options, async (cluster) => {
    const options = { cluster, failpoints, bytes: 2e6 };
    await prepare(options);
    await round(options, momentOf("flush begun"), "goes on");
    await round(options, momentOf("tombstone written"), "killed");
    await round(options, momentOf("before its files go"), "killed");
    await round(options, momentOf("middle chunk taken"), "goes on");
    await endsClean(options);
  });
}, 240_000);

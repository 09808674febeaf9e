/** A leader whose process stands still again and again, each time too shortly for an election, hands over by itself. */
import { test } from "bun:test";
import { until, withCluster } from "./cluster.ts";
import { Workload } from "./workload.ts";

const testMsMax = 60_000;
/** Over the bound of a stall, and with a heartbeat on top under the shortest election time-out. */
const pauseMs = 240;
const betweenMs = 100;

test(
  "a leader whose loop stalls hands over, and nothing is lost",
  () =>
    withCluster({}, async (cluster) => {
      await using workload = new Workload(cluster);
      workload.start();
      await workload.acknowledges(100);
      await until("somebody hands over", async () => {
        const leader = await cluster.leader();
        leader.pause();
        await Bun.sleep(pauseMs);
        leader.resume();
        await Bun.sleep(betweenMs);
        return /"handing leadership over"/.test(leader.log()) && /stood still/.test(leader.log());
      });
      await workload.acknowledges(100);
      await workload.stop();
      await cluster.converged();
      await workload.verify("all");
    }),
  testMsMax,
);

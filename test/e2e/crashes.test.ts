/**
 * One node, killed again and again while clients count on it: its log and its file disagree by another suffix each time, and after each replay every
 * increment is there once [Z-15].
 */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { until, withCluster } from "./cluster.ts";

const crashes = 20;
const countedBetween = 25;
const counters = 4;
const testMsMax = 90_000;

test(
  `a counter over ${crashes} crashes is what was counted`,
  () =>
    withCluster({ nodes: 1 }, async (cluster) => {
      const [node] = cluster.nodes;
      await using client = connect({
        endpoints: cluster.endpoints,
        codec: "json",
        timeoutMs: 60_000,
        session: "required",
      });
      let counted = 0;
      let ends = false;
      const count = async (key: string): Promise<number> => {
        let own = 0;
        let revision = 0;
        for (; !ends; counted++) {
          const result = await client.compareAndSet(key, ++own, revision);
          // Nobody else writes it: were one done twice, or not at all, the next would not find the revision of the last.
          expect(result.swapped).toBe(true);
          revision = result.revision;
        }
        return own;
      };
      const running = Promise.all(Array.from({ length: counters }, (_, at) => count(`count${at}`)));
      for (let crash = 0; crash < crashes; crash++) {
        const due = counted + countedBetween;
        await Promise.race([until("it counts on", () => counted >= due), running]);
        await node!.kill();
        node!.start();
      }
      ends = true;
      const totals = await running;
      const found = await Promise.all(totals.map((_, at) => client.get(`count${at}`)));
      expect(found.map((entry) => entry?.value)).toEqual(totals);
    }),
  testMsMax,
);

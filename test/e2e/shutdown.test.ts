/** SIGTERM under load: gone in under 3 s with status 0, nothing acknowledged lost, back at once; and so for each node in turn. */
import { expect, test } from "bun:test";
import { type TestNode, withCluster } from "./cluster.ts";
import { Workload } from "./workload.ts";

const testMsMax = 60_000;
const stopMsMax = 3_000;

async function terminate(node: TestNode): Promise<void> {
  const beganMs = performance.now();
  const { status, signal, stderr } = await node.terminate();
  expect({ status, signal }).toEqual({ status: 0, signal: null });
  expect(performance.now() - beganMs).toBeLessThan(stopMsMax);
  expect(stderr).not.toContain('"level":"error"');
}

test(
  "a rolling restart of all nodes under load loses nothing",
  () =>
    withCluster({}, async (cluster) => {
      await using workload = new Workload(cluster);
      workload.start();
      for (const node of [...cluster.nodes, await cluster.leader()]) {
        await workload.acknowledges(200);
        await terminate(node);
        await workload.acknowledges(200);
        node.start();
        await node.ready();
      }
      await workload.acknowledges(200);
      await workload.stop();
      await cluster.converged();
      await workload.verify("all");
    }),
  testMsMax,
);

test(
  "all nodes stopped at once under load come back with everything",
  () =>
    withCluster({}, async (cluster) => {
      await using workload = new Workload(cluster, { timeoutMs: 1_000 });
      workload.start();
      await workload.acknowledges(500);
      await Promise.all(cluster.nodes.map(terminate));
      await cluster.start();
      await workload.acknowledges(200);
      await workload.stop();
      await cluster.converged();
      await workload.verify("all");
    }),
  testMsMax,
);

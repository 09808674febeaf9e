/** Two of three nodes are down: what needs a quorum fails in time, with an error that says what is known; local reads go on. */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { type BargeError } from "../../src/errors.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { type Door, failureOf, HttpDoor, SdkDoor } from "./doors.ts";
import { Workload } from "./workload.ts";

const testMsMax = 60_000;
const callMsMax = 800;
/** The machine may be busy; without a time-out the call would take far longer. */
const slackMs = 2_500;
/** What a client may hear: nobody leads, the time is over, or contact was lost. */
const codes = new Set(["no_leader", "timeout", "outcome_unknown"]);

async function timedFailure(call: () => Promise<unknown>): Promise<BargeError> {
  const beganMs = performance.now();
  const error = await failureOf(call());
  expect(performance.now() - beganMs).toBeLessThan(callMsMax + slackMs);
  expect(codes).toContain(error.code);
  return error;
}

async function checkDoor(door: Door, name: string): Promise<void> {
  const write = await timedFailure(() => door.put(`alone/${name}`, "value", callMsMax));
  expect(["not-applied", "unknown"]).toContain(write.outcome);
  const read = await timedFailure(() => door.get("before", callMsMax));
  expect(read.outcome).not.toBe("applied");
  expect((await door.get("before", callMsMax, "local"))?.value).toBe("kept");
}

async function leaveAlone(cluster: TestCluster, survivor: TestNode): Promise<void> {
  const others = cluster.nodes.filter((node) => node !== survivor);
  await Promise.all(others.map((node) => node.kill()));
}

for (const who of ["leader", "follower"] as const) {
  test(
    `the ${who} alone: typed errors in time, local reads, and nothing comes true that was denied`,
    () =>
      withCluster({}, async (cluster) => {
        await using client = connect({ endpoints: cluster.endpoints });
        await using workload = new Workload(cluster, { timeoutMs: callMsMax });
        await client.put("before", "kept");
        workload.start();
        await workload.acknowledges(100);
        const leader = await cluster.leader();
        const survivor = who === "leader" ? leader : (await cluster.followers())[0]!;
        await survivorHas(survivor, "before");

        await leaveAlone(cluster, survivor);
        // From the very first moment, when a leader does not yet know that it leads nobody.
        await Promise.all([
          checkDoor(new SdkDoor(client), "sdk"),
          checkDoor(new HttpDoor(survivor), "http"),
        ]);
        const { notApplied, acknowledged } = workload.counts;
        await until("writes are denied", () => workload.counts.notApplied > notApplied + 15);
        expect(workload.counts.acknowledged).toBe(acknowledged);
        await Promise.all([
          checkDoor(new SdkDoor(client), "sdk"),
          checkDoor(new HttpDoor(survivor), "http"),
        ]);

        await cluster.start();
        await workload.acknowledges(100);
        await workload.stop();
        await cluster.converged();
        await workload.verify("all");
      }),
    testMsMax,
  );
}

async function survivorHas(node: TestNode, key: string): Promise<void> {
  const door = new HttpDoor(node);
  await until(`node ${node.id} has applied it`, async () => {
    return (await door.get(key, callMsMax, "local")) !== undefined;
  });
}

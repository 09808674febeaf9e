/** A node that should lead does so soon after it could, also where it comes late, and stays the leader. On real processes. */
import { expect, test } from "bun:test";
import { until, withCluster } from "./cluster.ts";

/** Of its return; the delay against flapping is 10 s. */
const leadsWithinMs = 15_000;

test("a preferred node that comes late gets to lead, and nobody else after it", async () => {
  await withCluster({}, async (cluster) => {
    const late = (await cluster.followers())[0]!;
    await late.terminate();
    const before = await cluster.leader(cluster.nodes.filter((node) => node !== late));
    late.start(["--preferred-leader"]);
    await until("it leads", async () => (await cluster.leader()) === late, leadsWithinMs);
    expect(before).not.toBe(late);
    const { term } = await late.group();
    // Longer than any election would take.
    await Bun.sleep(1_500);
    expect(await late.group()).toMatchObject({ role: "leader", term });
  });
}, 60_000);

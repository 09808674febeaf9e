/** Builds of two versions in one cluster, as processes: mixed under load, one of them taken back, all upgraded, nothing lost [16]. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { changedBuild } from "./builds.ts";
import { type TestCluster, type TestNode, thisBuild, until, withCluster } from "./cluster.ts";
import { applyVersions, change, raisedTo, refusedStart } from "./upgrade-round.ts";
import { Workload } from "./workload.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";

setDefaultTimeout(60_000);

const older = changedBuild("older");
const acknowledgedBetween = 50;

async function waitsFor(cluster: TestCluster): Promise<readonly number[]> {
  const leader = await cluster.leader();
  return (await leader.group()).applyVersionWaitsFor ?? [];
}

test("a rolling upgrade under load, one node of it taken back on the way: nothing is lost, and then there is no way back", () =>
  withCluster({ build: older }, async (cluster) => {
    const [first, second, third] = cluster.nodes as [TestNode, TestNode, TestNode];
    await using workload = new Workload(cluster, { httpWritersPerNode: 0 });
    workload.start();
    const go = async (node: TestNode, build = thisBuild): Promise<void> => {
      await workload.acknowledges(acknowledgedBetween);
      await change(node, build);
      await workload.acknowledges(acknowledgedBetween);
    };
    await go(first);
    await go(second);
    await until("the leader, if it knows of more, waits for the third", async () => {
      const leader = await cluster.leader();
      return leader === third || (await waitsFor(cluster)).join() === "3";
    });
    await go(second, older);
    await go(second);
    expect(await applyVersions(cluster)).toEqual([1, 1, 1]);
    await go(third);
    await raisedTo(cluster, applyVersionMax);
    expect(await waitsFor(cluster)).toEqual([]);
    await workload.acknowledges(acknowledgedBetween);

    // From here on an older build is of no use, whatever it finds in its folder.
    await until("its folder says so too", () =>
      third.log().includes("the apply version is raised"),
    );
    await third.terminate();
    third.build = older;
    const words = `Node 3 runs barge older-0`;
    expect(await refusedStart(third)).toContain(words);
    third.build = thisBuild;
    expect(await refusedStart(third, ["--apply-version-max=1"])).toContain("with a newer build");
    await cluster.start();
    await workload.acknowledges(acknowledgedBetween);
    await workload.stop();
    await cluster.converged();
    await workload.verify("all");
    expect(workload.counts.notApplied + workload.counts.unknown).toBe(0);
  }));

/**
 * Builds of several versions in one cluster, as processes: mixed under load, one of them taken back, all upgraded, nothing lost; and who cannot
 * follow is told so, on both sides [16].
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { fatalTable } from "../../src/fatal.ts";
import { changedBuild } from "./builds.ts";
import { type TestCluster, type TestNode, thisBuild, until, withCluster } from "./cluster.ts";
import { applyVersions, change, raisedTo } from "./upgrade-round.ts";
import { Workload } from "./workload.ts";

setDefaultTimeout(60_000);

const older = changedBuild("older");
const acknowledgedBetween = 50;
const { status: buildTooOld } = fatalTable.build_too_old;

/** What it says when it is started and ends by itself. */
async function refusedStart(node: TestNode, flags: readonly string[] = []): Promise<string> {
  node.start(flags);
  const { status, stderr } = await node.ended();
  expect(status).toBe(buildTooOld);
  return stderr;
}

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
    await raisedTo(cluster, 2);
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

test("the raise waits for who is away, and for who holds it back; who joins with too old a build is refused", () =>
  withCluster({ flags: ["--apply-version-max=1"] }, async (cluster) => {
    const [first, second, third] = cluster.nodes as [TestNode, TestNode, TestNode];
    expect(await applyVersions(cluster)).toEqual([1, 1, 1]);
    await third.kill();
    for (const node of [first, second]) {
      await node.terminate();
      node.start(["--apply-version-max=2"]);
      await node.ready();
    }
    const leader = await cluster.leader([first, second]);
    expect((await leader.group()).applyVersionWaitsFor).toEqual([3]);
    expect((await leader.group()).applyVersion).toBe(1);
    third.start(["--apply-version-max=2"]);
    await third.ready();
    await raisedTo(cluster, 2);

    const joiner = cluster.join();
    joiner.build = older;
    expect(await refusedStart(joiner)).toContain("Node 4 runs barge older-0");
    cluster.leave(joiner);
    const status = await first.status();
    expect(status.groups[0]!.members).toHaveLength(3);
  }));

test("builds without a common protocol version part with words, in logs, status and readiness of both", () =>
  withCluster({}, async (cluster) => {
    const [first, , third] = cluster.nodes as [TestNode, TestNode, TestNode];
    await raisedTo(cluster, 2);
    await third.terminate();
    third.build = changedBuild("stranger");
    third.start();
    const words = "upgrade the older of the two";
    await until("both say so", async () => {
      const [ours, theirs] = await Promise.all([first.status(), third.status()]);
      const named = ours.incompatible?.some(({ nodeId, message }) => {
        return nodeId === 3 && message.includes(words);
      });
      return named === true && theirs.incompatible?.length === 2;
    });
    expect(first.log()).toContain(words);
    expect(third.log()).toContain(words);
    const ready = await third.fetch("/readyz");
    expect(ready.status).toBe(503);
    expect(await ready.text()).toContain(words);
    // The others go on without it, and once it is upgraded, or taken back, all is forgotten.
    expect((await first.fetch("/readyz")).ok).toBe(true);
    await change(third, changedBuild("newer"));
    await until("nobody is strange any more", async () => {
      const statuses = await Promise.all(cluster.nodes.map((node) => node.status()));
      return statuses.every(({ incompatible }) => incompatible === undefined);
    });
    await cluster.converged();
  }));

test("a folder that a newer build has raised is left alone", () =>
  withCluster({ nodes: 1, build: changedBuild("newer") }, async (cluster) => {
    const [node] = cluster.nodes as [TestNode];
    await raisedTo(cluster, 3);
    // Nothing has marked the folder or the machine's file yet, or all has: the log says so by itself.
    await node.kill();
    node.build = thisBuild;
    expect(await refusedStart(node)).toContain(
      "can apply versions up to 2; the cluster applies version 3",
    );
  }));

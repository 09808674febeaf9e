/** Who cannot follow is told so, on both sides, in words; what an older build holds back stays as it was [16]. upgrade.test.ts mixes builds under load. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { changedBuild } from "./builds.ts";
import { TestCluster, type TestNode, thisBuild, until, withCluster } from "./cluster.ts";
import { applyVersions, change, raisedTo, refusedStart } from "./upgrade-round.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";

setDefaultTimeout(60_000);

const older = changedBuild("older");

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
    await until("the leader waits for the third alone", async () => {
      const leader = await cluster.leader([first, second]);
      const { applyVersion, applyVersionWaitsFor } = await leader.group();
      return applyVersion === 1 && applyVersionWaitsFor?.join() === "3";
    });
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

test("a cluster that loses a member as soon as it has formed is raised without it", async () => {
  await using cluster = new TestCluster();
  const [first, second, third] = cluster.nodes as [TestNode, TestNode, TestNode];
  for (const node of cluster.nodes) node.start();
  // An election is still to come.
  await until("both others have met all", () =>
    [first, second].every((node) => node.log().includes("the cluster forms")),
  );
  await third.kill();
  await until("those that are left raise it", async () => {
    const groups = await Promise.all([first, second].map((node) => node.group()));
    return groups.every(({ applyVersion }) => applyVersion === applyVersionMax);
  });
  await using client = connect({ endpoints: cluster.endpoints, session: "required" });
  await client.put("without", "the third");
  third.start();
  await third.ready();
  await raisedTo(cluster, applyVersionMax);
});

test("builds without a common protocol version part with words, in logs, status and readiness of both", () =>
  withCluster({}, async (cluster) => {
    const [first, , third] = cluster.nodes as [TestNode, TestNode, TestNode];
    await raisedTo(cluster, applyVersionMax);
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
    await raisedTo(cluster, applyVersionMax + 1);
    // Nothing has marked the folder or the machine's file yet, or all has: the log says so by itself.
    await node.kill();
    node.build = thisBuild;
    expect(await refusedStart(node)).toContain(
      `can apply versions up to ${applyVersionMax}; the cluster applies version ${applyVersionMax + 1}`,
    );
  }));

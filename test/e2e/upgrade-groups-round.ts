/**
 * From a build without groups to this one, node by node under load [Z-98]: while builds are mixed nothing is lost, leadership and snapshots pass between
 * them both ways, a node can be taken back, and who asks for a group is told what it waits for. Once all are new there is a registry by itself, groups can be
 * made, and the older build refuses the folder.
 */
import { barge } from "../cli/program.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";
import { systemGroup } from "../../src/wire/registry.ts";
import {
  type Build,
  type TestCluster,
  type TestNode,
  thisBuild,
  until,
  withCluster,
} from "./cluster.ts";
import { createGroups, get, groupsOf, put, settled } from "./groups.ts";
import { applyVersions, change, raisedTo, refusedStart } from "./upgrade-round.ts";
import { Workload } from "./workload.ts";

export interface UpgradeToGroupsOptions {
  /** Knows apply version 2, and no groups. */
  readonly older: Build;
  readonly writersPerClient?: number;
  /** Writes that are acknowledged before and after each step. */
  readonly between?: number;
  /** What happens, for people. */
  readonly say?: (line: string) => void;
}

/** For a while a log is kept for a member that was there a moment ago. */
const cutMsMax = 60_000;

/** Resolves with what the clients saw; rejects where anything is not as it should be. */
export async function upgradeToGroups(
  options: UpgradeToGroupsOptions,
): Promise<Workload["counts"]> {
  const { older, writersPerClient = 4, between = 50, say = () => {} } = options;
  let counts: Workload["counts"] | undefined;
  // Logs are cut at once, so that whoever was away needs a snapshot.
  const flags = ["--compact-tail-bytes=65536"];
  await withCluster({ build: older, flags }, async (cluster) => {
    const [first, second, third] = cluster.nodes as [TestNode, TestNode, TestNode];
    await using workload = new Workload(cluster, {
      writersPerClient,
      httpWritersPerNode: 0,
      timeoutMs: 10_000,
    });
    await raisedTo(cluster, 2);
    workload.start();
    const go = async (node: TestNode, build: Build): Promise<void> => {
      await workload.acknowledges(between);
      await change(node, build);
      await workload.acknowledges(between);
      say(`node ${node.id} runs ${build.name}`);
    };
    const leads = async (node: TestNode): Promise<void> => {
      await transfer(cluster, node);
      await workload.acknowledges(between);
      say(`node ${node.id} (${node.build.name}) leads`);
    };
    /** It was away until the logs of the others began beyond what it has. */
    const fetches = async (node: TestNode, from: TestNode): Promise<void> => {
      await leads(from);
      await leftBehind(cluster, node, () => workload.acknowledges(between));
      await workload.acknowledges(between);
      say(`node ${node.id} (${node.build.name}) has a snapshot of ${from.build.name}`);
    };

    await go(first, thisBuild);
    await fetches(second, first);
    await fetches(first, third);
    await refusesGroups(first);
    await go(second, thisBuild);
    await leads(third);
    await leads(second);
    await fetches(third, second);
    await go(second, older);
    await go(second, thisBuild);
    await refusesGroups(second);
    same(await applyVersions(cluster), [2, 2, 2], "apply versions of mixed builds");
    for (const node of cluster.nodes) noTraceOfGroups(await groupsOf(node), node);

    await go(third, thisBuild);
    await raisedTo(cluster, applyVersionMax);
    await settled(cluster, systemGroup, [1, 2, 3]);
    say("there is a registry");
    const [group] = await createGroups(first, { name: "orders" });
    await settled(cluster, group!.id, [1, 2, 3]);
    await put(second, group!.id, "k", "of the group");
    for (const node of cluster.nodes) {
      await until("all nodes have it", async () => {
        return (await get(node, group!.id, "k")) === "of the group";
      });
    }

    await until("its folder says so too", () => third.log().includes("apply version is raised"));
    await third.terminate();
    third.build = older;
    const words = await refusedStart(third);
    if (!words.includes("the cluster applies version 3")) throw new Error(`refused with: ${words}`);
    say("the older build refuses the folder");
    third.build = thisBuild;
    await cluster.start();
    for (const node of cluster.nodes) await go(node, thisBuild);
    await workload.stop();
    await cluster.converged();
    await workload.verify("all");
    same(await get(first, group!.id, "k"), "of the group", "the value in the group");
    same(workload.counts.notApplied + workload.counts.unknown, 0, "writes that were not applied");
    counts = workload.counts;
  });
  return counts!;
}

/** Over HTTP and by the command, in words that say what to do. */
async function refusesGroups(node: TestNode): Promise<void> {
  const words = "every member runs a version that knows it";
  const response = await node.fetch("/v1/groups", { method: "POST", body: "{}" });
  const text = await response.text();
  if (response.status !== 409 || !text.includes(words)) throw new Error(`a group: ${text}`);
  const ran = await barge(["group", "create", "--endpoints", node.binary]);
  const { status, err } = ran;
  if (status === 0 || !err.includes("no_registry") || !err.includes("barge status")) {
    throw new Error(`barge group create ended with ${status}: ${err}`);
  }
  const listed = await barge(["status", "--endpoints", node.binary]);
  if (listed.status !== 0) throw new Error(`barge status ended with ${listed.status}`);
}

function noTraceOfGroups(groups: readonly { readonly id: number }[], node: TestNode): void {
  same(
    groups.map(({ id }) => id),
    [0],
    `groups of node ${node.id}`,
  );
}

async function transfer(cluster: TestCluster, to: TestNode): Promise<void> {
  await until(`node ${to.id} leads`, async () => {
    const leader = await cluster.leader();
    if (leader === to) return true;
    const body = JSON.stringify({ to: to.id });
    await leader.fetch("/v1/transfer-leader", { method: "POST", body }, 5_000);
    return false;
  });
}

async function leftBehind(
  cluster: TestCluster,
  node: TestNode,
  writes: () => Promise<void>,
): Promise<void> {
  const { lastIndex } = await node.group();
  await node.kill();
  await writes();
  const body = JSON.stringify({ tailBytes: 0, timeoutMs: 20_000 });
  for (const other of cluster.nodes) {
    if (other === node) continue;
    await until(
      `the log of node ${other.id} is cut`,
      async () => {
        const response = await other.fetch("/v1/snapshot", { method: "POST", body }, 20_000);
        if (!response.ok) throw new Error(await response.text());
        return ((await response.json()) as { firstIndex: number }).firstIndex > lastIndex + 1;
      },
      cutMsMax,
    );
  }
  node.start();
  await node.ready();
}

function same(found: unknown, wanted: unknown, what: string): void {
  if (!Bun.deepEquals(found, wanted)) {
    throw new Error(`${what}: ${JSON.stringify(found)}, and not ${JSON.stringify(wanted)}`);
  }
}

/** One round of `kill -9` under load, for the test in CI and for the soak: a random moment, random victims, started again at once. */
import type { Random } from "../sim/random.ts";
import type { TestCluster, TestNode } from "./cluster.ts";
import type { Workload } from "./workload.ts";

export interface KillRound {
  readonly what: string;
  /** From the kill to the moment when all nodes served again. */
  readonly servingMs: number;
}

const delayMsMax = 300;
/** Acknowledged after the kill, so that the cluster is known to go on. */
const acknowledgedAfter = 50;

const victimKinds = ["any node", "the leader", "all nodes", "the leader, twice"] as const;
const victimWeights = [4, 5, 2, 1];

export async function killRound(
  cluster: TestCluster,
  workload: Workload,
  random: Random,
): Promise<KillRound> {
  workload.start();
  await workload.acknowledges(1);
  await Bun.sleep(random.between(0, delayMsMax));
  const kind = victimKinds[random.weighted(victimWeights)]!;
  const killedMs = performance.now();
  const victims = await kill(cluster, random, kind);
  await cluster.start();
  const servingMs = Math.round(performance.now() - killedMs);
  await workload.acknowledges(acknowledgedAfter);
  await workload.stop();
  await cluster.converged();
  await workload.verify("recent");
  return { what: `${kind} (${victims.map(({ id }) => id).join(", ")})`, servingMs };
}

async function kill(
  cluster: TestCluster,
  random: Random,
  kind: (typeof victimKinds)[number],
): Promise<readonly TestNode[]> {
  const victims =
    kind === "all nodes"
      ? cluster.nodes
      : [kind === "any node" ? random.pick(cluster.nodes) : await cluster.leader()];
  await Promise.all(victims.map((node) => node.kill()));
  if (kind === "the leader, twice") {
    // Again in the middle of its recovery.
    for (const node of victims) node.start();
    await Bun.sleep(random.between(0, delayMsMax));
    await Promise.all(victims.map((node) => node.kill()));
  }
  return victims;
}

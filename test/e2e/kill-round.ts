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

const kinds = [
  "any node",
  "the leader",
  "the leader twice",
  "the leader, ahead of the others",
  "a majority",
  "all nodes",
] as const;
type Kind = (typeof kinds)[number];
/** In the order above. */
const weights = [4, 4, 1, 2, 1, 3];

export async function killRound(
  cluster: TestCluster,
  workload: Workload,
  random: Random,
): Promise<KillRound> {
  workload.start();
  await workload.acknowledges(1);
  await Bun.sleep(random.between(0, delayMsMax));
  const kind = kinds[random.weighted(weights)]!;
  const victims = await victimsOf(kind, cluster, random);
  const others = cluster.nodes.filter((node) => !victims.includes(node));
  if (kind === "the leader, ahead of the others") {
    // It can fill their sockets and its own log meanwhile, and must acknowledge nothing of that.
    for (const node of others) node.pause();
    await Bun.sleep(random.between(0, delayMsMax));
  }
  const killedMs = performance.now();
  await killAll(victims);
  for (const node of others) node.resume();
  if (kind === "the leader twice") {
    // Again in the middle of its recovery.
    for (const node of victims) node.start();
    await Bun.sleep(random.between(0, delayMsMax));
    await killAll(victims);
  }
  await cluster.start();
  const servingMs = Math.round(performance.now() - killedMs);
  await workload.acknowledges(acknowledgedAfter);
  await workload.stop();
  await cluster.converged();
  await workload.verify("recent");
  return { what: `${kind} (${victims.map(({ id }) => id).join(", ")})`, servingMs };
}

async function victimsOf(
  kind: Kind,
  cluster: TestCluster,
  random: Random,
): Promise<readonly TestNode[]> {
  const { nodes } = cluster;
  if (kind === "all nodes") return nodes;
  if (kind === "any node") return [random.pick(nodes)];
  if (kind === "a majority") {
    const spared = random.pick(nodes);
    return nodes.filter((node) => node !== spared);
  }
  return [await cluster.leader()];
}

async function killAll(nodes: readonly TestNode[]): Promise<void> {
  await Promise.all(nodes.map((node) => node.kill()));
}

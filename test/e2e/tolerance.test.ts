/** How many nodes a cluster can do without: of N = 1, 3, 5 the smaller half, whichever nodes those are, and not one more. */
import { describe, expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { Random } from "../sim/random.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { failureOf, HttpDoor } from "./doors.ts";

const testMsMax = 60_000;
/** Within it a majority has elected a leader, also on a crowded machine. */
const callMsMax = 15_000;
const deniedCallMsMax = 1_500;

async function put(cluster: TestCluster, key: string, timeoutMs = callMsMax): Promise<void> {
  const running = cluster.nodes.filter((node) => node.running).map(({ binary }) => binary);
  await using client = connect({ endpoints: running.join(","), timeoutMs });
  await client.put(key, key);
}

async function has(node: TestNode, key: string): Promise<boolean> {
  return (await new HttpDoor(node).get(key, callMsMax, "local")) !== undefined;
}

async function tolerates(cluster: TestCluster, random: Random): Promise<void> {
  const tolerated = Math.floor((cluster.nodes.length - 1) / 2);
  const kept = ["all"];
  await put(cluster, "all");
  const left = [...cluster.nodes];
  const gone: TestNode[] = [];
  const kill = async (): Promise<void> => {
    // The leader, or anybody.
    const node = random.chance(0.5) ? await cluster.leader(left) : random.pick(left);
    left.splice(left.indexOf(node), 1);
    gone.push(node);
    await node.kill();
  };
  for (let count = 1; count <= tolerated; count++) {
    await kill();
    await put(cluster, `without ${count}`);
    kept.push(`without ${count}`);
  }

  await kill();
  if (left.length > 0) {
    const { code, outcome } = await failureOf(put(cluster, "denied", deniedCallMsMax));
    expect(["no_leader", "timeout", "outcome_unknown"]).toContain(code);
    expect(outcome).not.toBe("applied");
    await until("nobody leads", async () => {
      const groups = await Promise.all(left.map((node) => node.group()));
      return groups.every((group) => group.role !== "leader" && group.leader === 0);
    });
    // What was acknowledged before is still there to be read.
    for (const node of left) {
      for (const key of kept) await until(`${key} is there`, () => has(node, key));
    }
  }

  // One is enough to go on, and nothing is lost.
  const back = random.pick(gone);
  back.start();
  await put(cluster, "one is back");
  kept.push("one is back");
  await cluster.start();
  await cluster.converged();
  for (const node of cluster.nodes) {
    for (const key of kept)
      expect({ node: node.id, key, has: await has(node, key) }).toMatchObject({ has: true });
  }
}

describe("without", () => {
  for (const nodes of [1, 3, 5]) {
    const tolerated = Math.floor((nodes - 1) / 2);
    test(
      `${tolerated} of ${nodes} nodes writes go on, without ${tolerated + 1} none is acknowledged`,
      async () => {
        const seed = Date.now() % 1_000_000;
        await withCluster({ nodes }, (cluster) => tolerates(cluster, new Random(seed))).catch(
          (error: unknown) => {
            throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
          },
        );
      },
      testMsMax,
    );
  }
});

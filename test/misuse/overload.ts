/**
 * Ten times the capacity for as long as one likes: `bun test/misuse/overload.ts [--nodes=3] [--seconds=30] [--commands=100] [--value-bytes=16]
 * [--connections=16] [--in-flight=512] [--groups=0]`. Prints one JSON object; ends with 1 when a criterion is missed.
 */
import { parseArgs } from "node:util";
import { type TestCluster, type TestNode, until, withCluster } from "../e2e/cluster.ts";
import { createGroups } from "../e2e/groups.ts";
import { missed, overload } from "./overload-round.ts";

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "3" },
    seconds: { type: "string", default: "30" },
    commands: { type: "string", default: "100" },
    "value-bytes": { type: "string", default: "16" },
    connections: { type: "string", default: "16" },
    "in-flight": { type: "string", default: "512" },
    /** Each with writers; 0: the default one alone. */
    groups: { type: "string", default: "0" },
  },
});

await withCluster({ nodes: Number(values.nodes) }, async (cluster) => {
  const count = Number(values.groups);
  const groups = count === 0 ? [] : await makeGroups(cluster, count);
  const plan = {
    connections: Number(values.connections),
    inFlight: Number(values["in-flight"]),
    commands: Number(values.commands),
    valueBytes: Number(values["value-bytes"]),
    factor: 10,
    capacitySeconds: 5,
    overloadSeconds: Number(values.seconds),
    recoverySeconds: 10,
  };
  const result = await overload(cluster, count === 0 ? plan : { ...plan, groups });
  const wrong = missed(result, { leadersMove: count > 0 });
  const rounded = (_: string, value: unknown): unknown =>
    typeof value === "number" ? Math.round(value * 100) / 100 : value;
  process.stdout.write(`${JSON.stringify({ plan, result, missed: wrong }, rounded)}\n`);
  if (wrong.length > 0) process.exitCode = 1;
});

/** Once all have leaders. */
async function makeGroups(cluster: TestCluster, count: number): Promise<number[]> {
  const made = await createGroups(cluster.nodes[0]!, { count });
  const summaryOf = async (node: TestNode): Promise<{ total: number; leaderless: number }> => {
    const status = await (await node.fetch("/v1/status?brief=true&limit=1")).json();
    return (status as { summary: { total: number; leaderless: number } }).summary;
  };
  await until(
    "all groups are led",
    async () => {
      const all = await Promise.all(cluster.nodes.map(summaryOf));
      return all.every(({ total, leaderless }) => total >= count + 1 && leaderless === 0);
    },
    60_000,
  );
  return made.map(({ id }) => id);
}

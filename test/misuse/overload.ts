/**
 * Ten times the capacity for as long as one likes: `bun test/misuse/overload.ts [--nodes=3] [--seconds=30] [--commands=100] [--value-bytes=16]
 * [--connections=16] [--in-flight=512]`. Prints one JSON object; ends with 1 when a criterion is missed.
 */
import { parseArgs } from "node:util";
import { withCluster } from "../e2e/cluster.ts";
import { missed, overload } from "./overload-round.ts";

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "3" },
    seconds: { type: "string", default: "30" },
    commands: { type: "string", default: "100" },
    "value-bytes": { type: "string", default: "16" },
    connections: { type: "string", default: "16" },
    "in-flight": { type: "string", default: "512" },
  },
});

await withCluster({ nodes: Number(values.nodes) }, async (cluster) => {
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
  const result = await overload(cluster, plan);
  const wrong = missed(result);
  const rounded = (_: string, value: unknown): unknown =>
    typeof value === "number" ? Math.round(value * 100) / 100 : value;
  process.stdout.write(`${JSON.stringify({ plan, result, missed: wrong }, rounded)}\n`);
  if (wrong.length > 0) process.exitCode = 1;
});

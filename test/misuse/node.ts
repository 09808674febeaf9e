/** One node within the test's own process, with bounds so small that a test meets them, and a neighbour: a client with manners that goes on. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Client, connect } from "../../src/client/index.ts";
import { checkLimits, defaultLimits, type Limits } from "../../src/limits.ts";
import { type RunningNode, startNode } from "../../src/node/index.ts";
import { until } from "../e2e/cluster.ts";

const host = "127.0.0.1";

export interface Misused {
  readonly node: RunningNode;
  readonly limits: Limits;
  /** `host:port`. */
  readonly binary: string;
  /** `http://host:port`. */
  readonly http: string;
  readonly neighbour: Client;
}

/** Whatever `body` does to the node, afterwards it must still serve its neighbour. */
export async function withNode(
  smaller: Partial<Limits>,
  body: (misused: Misused) => Promise<void>,
): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), "barge-misuse-"));
  const limits = checkLimits({ ...defaultLimits, ...smaller });
  const any = { host, port: 0 };
  const node = await startNode({
    nodeId: 1,
    dataDir,
    listen: any,
    advertise: `${host}:0`,
    httpListen: any,
    metricsListen: undefined,
    initialMembers: new Map([[1, `${host}:0`]]),
    machine: "kv",
    clusterToken: undefined,
    logLevel: "silent",
    limits,
  });
  const binary = `${host}:${node.binaryPort}`;
  const http = `http://${host}:${node.httpPort}`;
  const neighbour = connect({ endpoints: binary });
  try {
    await neighbour.put("neighbour", "before");
    await until("it is ready", async () => (await fetch(`${http}/readyz`)).ok);
    await body({ node, limits, binary, http, neighbour });
    await neighbour.put("neighbour", "after");
    const found = await neighbour.get("neighbour");
    if (Buffer.from(found?.value ?? []).toString() !== "after") throw new Error("not written");
  } finally {
    await neighbour.close();
    await node.stop();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

/** The value of a metric without labels, or with these. */
export function metric(text: string, name: string): number {
  const line = text.split("\n").find((each) => each.startsWith(`${name} `));
  if (line === undefined) throw new Error(`no metric ${name}`);
  return Number(line.slice(name.length + 1));
}

/** One whole node in this process, ready to serve, on free ports, in a temp folder that goes with it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import type { Limits } from "../../src/limits.ts";
import type { CompactionPolicy } from "../../src/node/compaction.ts";
import { startNode } from "../../src/node/node.ts";

export interface OneNode extends AsyncDisposable {
  /** `host:port` for the SDK. */
  readonly endpoint: string;
  /** Of the HTTP port, without a slash at the end. */
  readonly url: string;
  readonly dataDir: string;
}

export async function oneNode(limits?: Limits, compaction?: CompactionPolicy): Promise<OneNode> {
  const dataDir = mkdtempSync(join(tmpdir(), "barge-one-node-"));
  const anyPort = { host: "127.0.0.1", port: 0 };
  const node = await startNode({
    nodeId: 1,
    dataDir,
    listen: anyPort,
    advertise: "127.0.0.1:0",
    httpListen: anyPort,
    metricsListen: undefined,
    initialMembers: new Map([[1, "127.0.0.1:0"]]),
    machine: "kv",
    clusterToken: undefined,
    logLevel: "silent",
    ...(limits === undefined ? {} : { limits }),
    ...(compaction === undefined ? {} : { compaction }),
  });
  const endpoint = `127.0.0.1:${node.binaryPort}`;
  // Answered once it leads and has raised the apply version. From then on the log holds what a test writes, nothing else.
  await using client = connect({ endpoints: endpoint });
  await client.delete("any");
  return {
    endpoint,
    url: `http://127.0.0.1:${node.httpPort}`,
    dataDir,
    async [Symbol.asyncDispose]() {
      await node.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

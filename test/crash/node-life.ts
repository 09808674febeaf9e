/**
 * A life of a whole daemon, alone in its cluster, run under strace by crash images: `node-life.ts FOLDER SEED WRITES [kill]`. Clients in the same process
 * write through its port; each write that was acknowledged is said as a mark. With `kill` it ends in the midst of it all, for another one to go on.
 */
import { writeSync } from "node:fs";
import { connect } from "../../src/client/index.ts";
import { startNode } from "../../src/node/node.ts";
import { Random } from "../sim/random.ts";
import type { Mark } from "./promises.ts";
import { limits, nodeId } from "./storage-node.ts";

const writersAtOnce = 8;
const keys = 60;

const [folder = "", seedText = "1", writesText = "100", end] = process.argv.slice(2);
const random = new Random(Number(seedText));

function mark(said: Mark): void {
  writeSync(1, `mark ${JSON.stringify(said)}\n`);
}

const anyPort = { host: "127.0.0.1", port: 0 };
const address = "127.0.0.1:0";
const node = await startNode({
  nodeId,
  dataDir: folder,
  listen: anyPort,
  advertise: address,
  httpListen: anyPort,
  metricsListen: undefined,
  initialMembers: new Map([[nodeId, address]]),
  machine: "kv",
  clusterToken: undefined,
  compaction: { entries: 0, bytes: 60_000, tailBytes: 10_000 },
  logLevel: "silent",
  limits: {
    ...limits,
    // The machine is flushed by its own clock, and the ballast is no part of this.
    memtableFlushMs: 50,
    flushLogBytesMin: 1,
    ballastBytes: 4_096,
  },
});
const client = connect({ endpoints: `127.0.0.1:${node.binaryPort}`, timeoutMs: 20_000 });
let left = Number(writesText);

async function write(): Promise<void> {
  while (left > 0) {
    const number = left--;
    const key = `key-${random.below(keys)}`;
    const value = `${seedText}-${number}`;
    const bytes = random.pick([8, 100, 1_500, 6_000]);
    const { revision } = await client.put(key, value.padEnd(bytes, "."));
    mark({ kind: "written", key, value, revision });
    const { term } = node.status().groups[0]!;
    mark({ kind: "led", term });
  }
}

await Promise.all(Array.from({ length: writersAtOnce }, write));
if (end === "kill") process.kill(process.pid, "SIGKILL");
client.close();
await node.stop();
mark({ kind: "did", what: "end" });

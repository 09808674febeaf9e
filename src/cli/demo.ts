/**
 * `barge demo`: three nodes on this machine as three processes, a write through one, a read through another, then the words with which to
 * go on: write, read, kill the leader. Stays up until Ctrl-C.
 */
import { Command } from "commander";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { UsageError } from "../config.ts";
import { version } from "../version.ts";
import { wholeNumber } from "./client-options.ts";
import {
  choosePorts,
  LocalCluster,
  type LocalNode,
  type LocalPorts,
  programWords,
} from "./local-cluster.ts";

interface DemoFlags {
  readonly nodes: number;
  readonly dir?: string;
  readonly once?: boolean;
}

const nodesMax = 9;
const requestTimeoutMs = 10_000;
const retryMs = 20;
const key = "greeting";
const value = "hello from Barge";

const examples = `
Examples:
  barge demo
  barge demo --once
  barge demo --nodes 5 --dir ./my-cluster`;

export function demoCommand(): Command {
  return new Command("demo")
    .description("Runs a cluster on this machine, each node a process of its own.")
    .option("--nodes <n>", "how many", wholeNumber(1, nodesMax), 3)
    .option("--dir <dir>", "keep the data there, and pick it up again; else a folder in /tmp")
    .option("--once", "end after one write and one read")
    .addHelpText("after", examples)
    .action(demo);
}

async function demo(flags: DemoFlags): Promise<void> {
  const dir =
    flags.dir === undefined ? mkdtempSync(join(tmpdir(), "barge-demo-")) : resolve(flags.dir);
  const ports = portsOf(flags, dir);
  const cluster = new LocalCluster({ dir, ports, onDeath: (node, how) => tellDeath(node, how) });
  const interrupted = interruption();
  process.once("exit", () => {
    for (const node of cluster.nodes) node.kill();
  });
  const tellDeath = (node: LocalNode, how: string): void => {
    const left = cluster.nodes.filter(({ pid }) => pid !== undefined).length;
    say(`\nnode ${node.id} ended (${how}); ${left} of ${cluster.nodes.length} are left.`);
    if (flags.once === true) return;
    say(`Press Enter here to start it again, or run it in another terminal:\n  ${node.command}`);
    say(`Its log is ${node.logFile}`);
  };
  try {
    const run = showRound(cluster, dir, flags);
    const ended = await Promise.race([run, interrupted]);
    if (ended !== "interrupted" && flags.once !== true) await stayUp(cluster, interrupted);
  } finally {
    await cluster.stop();
    if (flags.dir === undefined) rmSync(dir, { recursive: true, force: true });
    else say(`The data is kept in ${dir}; barge demo --dir ${flags.dir} goes on with it.`);
  }
}

/** With a folder that is kept, the addresses are kept too: they belong to the identity of the cluster. */
function portsOf({ nodes, dir: kept }: DemoFlags, dir: string): LocalPorts[] {
  if (kept === undefined) return choosePorts(nodes);
  const file = join(dir, "demo.json");
  if (existsSync(file)) {
    const { ports } = JSON.parse(readFileSync(file, "utf8")) as { readonly ports: LocalPorts[] };
    if (ports.length === nodes) return ports;
    throw new UsageError(`--nodes ${nodes}: the cluster in ${dir} has ${ports.length} nodes`);
  }
  const ports = choosePorts(nodes);
  mkdirSync(dir, { recursive: true });
  writeFileSync(file, `${JSON.stringify({ ports })}\n`);
  return ports;
}

async function showRound(cluster: LocalCluster, dir: string, flags: DemoFlags): Promise<void> {
  const startMs = performance.now();
  const place = flags.dir === undefined ? `${dir}, which is removed at the end` : dir;
  const count = cluster.nodes.length;
  say(`Barge ${version}: ${count} ${count === 1 ? "node" : "nodes"} in ${place}`);
  await cluster.start();
  for (const node of cluster.nodes) {
    say(`  node ${node.id}   pid ${node.pid}   binary ${node.binary}   http http://${node.http}`);
  }
  const first = cluster.nodes[0]!;
  const last = cluster.nodes.at(-1)!;
  const leader = await leaderOf(cluster);
  say(`Node ${leader.id} leads, ${Math.round(performance.now() - startMs)} ms after the start.\n`);

  const path = `/v1/kv/${key}`;
  const put = await fetchFrom(first, path, { method: "PUT", body: value });
  const { revision } = put as { readonly revision: number };
  say(`wrote  ${key} = "${value}"  through node ${first.id}: revision ${revision}`);
  const read = await fetchFrom(last, path);
  if (read !== value) throw new Error(`node ${last.id} answered ${JSON.stringify(read)}`);
  say(`read   ${key} = "${value}"  through node ${last.id}: linearizable, it asked a quorum`);
  if (flags.once !== true) sayHowToGoOn(cluster, leader);
}

function sayHowToGoOn(cluster: LocalCluster, leader: LocalNode): void {
  const words = programWords();
  const first = cluster.nodes[0]!;
  const last = cluster.nodes.at(-1)!;
  say(`
Go on in another terminal, in ${process.cwd()}:

  curl -X PUT --data-binary 'a value' http://${first.http}/v1/kv/some-key
  curl http://${last.http}/v1/kv/some-key
  export BARGE_ENDPOINTS=${cluster.endpoints}
  ${words} put other-key 'another value'
  ${words} range
  ${words} status
  kill -9 ${leader.pid}    # node ${leader.id}, the leader: then write and read again

Ctrl-C ends all nodes.`);
}

/** Waits for Ctrl-C; a line on standard input starts again what has ended. */
async function stayUp(cluster: LocalCluster, interrupted: Promise<"interrupted">): Promise<void> {
  const lines = createInterface({ input: process.stdin });
  lines.on("line", () => {
    for (const node of cluster.nodes) {
      if (node.pid !== undefined) continue;
      node.start();
      node.ready().then(
        () => say(`node ${node.id} is back, pid ${node.pid}.`),
        (error: Error) => say(error.message),
      );
    }
  });
  await interrupted;
  lines.close();
  say("\nStopping.");
}

function interruption(): Promise<"interrupted"> {
  const { promise, resolve: interrupt } = Promise.withResolvers<"interrupted">();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => interrupt("interrupted"));
  }
  return promise;
}

async function leaderOf(cluster: LocalCluster): Promise<LocalNode> {
  const status = (await fetchFrom(cluster.nodes[0]!, "/v1/status")) as {
    readonly groups: readonly { readonly leader: number }[];
  };
  const leader = cluster.nodes.find(({ id }) => id === status.groups[0]?.leader);
  if (leader === undefined) throw new Error("the nodes are ready, but none of them leads");
  return leader;
}

/** Tries again what was refused while the nodes still get to know each other. */
async function fetchFrom(
  node: LocalNode,
  path: string,
  more: { readonly method?: string; readonly body?: string } = {},
): Promise<unknown> {
  const signal = AbortSignal.timeout(requestTimeoutMs);
  for (;;) {
    const response = await fetch(`http://${node.http}${path}`, { ...more, signal });
    const isJson = response.headers.get("content-type") === "application/json";
    const answer: unknown = isJson ? await response.json() : await response.text();
    if (response.ok) return answer;
    const { error } = answer as { readonly error: HttpError };
    if (!error.retryable || error.outcome !== "not-applied" || signal.aborted) {
      throw new Error(`node ${node.id}, ${path}: ${error.code}: ${error.message}`);
    }
    await Bun.sleep(retryMs);
  }
}

interface HttpError {
  readonly code: string;
  readonly message: string;
  readonly outcome: string;
  readonly retryable: boolean;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

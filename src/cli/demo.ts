/**
 * `barge demo`: three nodes on this machine as three processes, a write through one, a read through another, then the words with which to
 * go on: write, read, kill the leader. Stays up until Ctrl-C.
 */
import { Command } from "commander";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import * as v from "valibot";
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
  /** Undefined: as many as the folder holds, else three. */
  readonly nodes?: number;
  readonly dir?: string;
  readonly once?: boolean;
}

const nodesMax = 9;
const nodesDefault = 3;
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
    .option("--nodes <n>", `how many (default: ${nodesDefault})`, wholeNumber(1, nodesMax))
    .option("--dir <dir>", "keep the data there, and pick it up again; else a folder in /tmp")
    .option("--once", "end after one write and one read")
    .addHelpText("after", examples)
    .action(demo);
}

async function demo(flags: DemoFlags): Promise<void> {
  const { dir, ports } = flags.dir === undefined ? newPlace(flags) : keptPlace(flags, flags.dir);
  const cluster = new LocalCluster({ dir, ports, onDeath: (node, how) => tellDeath(node, how) });
  const interrupted = interruption();
  // Whatever ends this process: `demo | head` closes its output, for one.
  process.once("exit", () => {
    for (const node of cluster.nodes) node.kill();
    if (flags.dir === undefined) rmSync(dir, { recursive: true, force: true });
  });
  let serving = false;
  const tellDeath = (node: LocalNode, how: string): void => {
    // Before that, the start fails and says why.
    if (!serving) return;
    const left = cluster.nodes.filter(({ pid }) => pid !== undefined).length;
    say(`\nnode ${node.id} ended (${how}); ${left} of ${cluster.nodes.length} are left.`);
    if (flags.once === true) return;
    say(`Press Enter here to start it again, or run it in another terminal:\n  ${node.command}`);
    say(`Its log is ${node.logFile}`);
  };
  try {
    const run = showRound(cluster, dir, flags, () => (serving = true));
    const ended = await Promise.race([run, interrupted]);
    if (ended !== "interrupted" && flags.once !== true) await stayUp(cluster, interrupted);
  } finally {
    await cluster.stop();
    if (flags.dir !== undefined) {
      say(`\nThe data is kept; ${programWords()} demo --dir ${flags.dir} goes on with it.`);
    }
  }
}

/** Where the nodes keep their data, and where they listen. */
interface Place {
  readonly dir: string;
  readonly ports: readonly LocalPorts[];
}

function newPlace({ nodes = nodesDefault }: DemoFlags): Place {
  const ports = choosePorts(nodes);
  return { dir: mkdtempSync(join(tmpdir(), "barge-demo-")), ports };
}

/** With a folder that is kept, the addresses are kept too: they belong to the identity of the cluster. */
function keptPlace({ nodes }: DemoFlags, given: string): Place {
  const dir = resolve(given);
  const file = join(dir, "demo.json");
  try {
    if (existsSync(file)) {
      const { ports } = readKept(file);
      if (nodes === undefined || nodes === ports.length) return { dir, ports };
      throw new UsageError(`--nodes ${nodes}: the cluster in ${dir} has ${ports.length} nodes`);
    }
    const ports = choosePorts(nodes ?? nodesDefault);
    mkdirSync(dir, { recursive: true });
    writeFileSync(file, `${JSON.stringify({ ports })}\n`);
    return { dir, ports };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`--dir ${given} cannot be used: ${(error as Error).message}`);
  }
}

function readKept(file: string): v.InferOutput<typeof keptSchema> {
  const text = readFileSync(file, "utf8");
  try {
    return v.parse(keptSchema, JSON.parse(text));
  } catch (error) {
    throw new Error(`its demo.json is not as demo wrote it: ${(error as Error).message}`);
  }
}

const portSchema = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const keptSchema = v.object({
  ports: v.pipe(
    v.array(v.object({ binary: portSchema, http: portSchema })),
    v.minLength(1),
    v.maxLength(nodesMax),
  ),
});

async function showRound(
  cluster: LocalCluster,
  dir: string,
  flags: DemoFlags,
  started: () => void,
): Promise<void> {
  const startMs = performance.now();
  const place = flags.dir === undefined ? `${dir}, which is removed at the end` : dir;
  const count = cluster.nodes.length;
  say(`Barge ${version}: ${count} ${count === 1 ? "node" : "nodes"} in ${place}`);
  await cluster.start();
  started();
  for (const node of cluster.nodes) {
    say(`  node ${node.id}   pid ${node.pid}   binary ${node.binary}   http ${node.http}`);
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
  const then =
    last === first ? "Enter here starts it again, with its data" : "then write and read again";
  say(`
Go on in another terminal, in ${process.cwd()}:

  curl -X PUT --data-binary 'a value' http://${first.http}/v1/kv/some-key
  curl http://${last.http}/v1/kv/some-key
  export BARGE_ENDPOINTS=${cluster.endpoints}
  ${words} put other-key 'another value'
  ${words} range
  ${words} status
  kill -9 ${leader.pid}    # node ${leader.id}, the leader: ${then}

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

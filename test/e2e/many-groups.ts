/**
 * Many groups on three real nodes, and what they cost and withstand: how soon all have leaders, what idle ones take of processors and connections,
 * how long those of a killed node are without a leader, how soon a node serves all again, and whether the leaders are spread in the end.
 *
 *     bun test/e2e/many-groups.ts [--groups 1000] [--settle 0] [--idle 10] [--rounds 1]
 *
 * With `--settle` it waits for so many seconds before it measures what they cost, so that what they did to form is over. Prints one JSON object a line, as it finds out. What does not come to pass within a minute is an error.
 */
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { TestCluster, type TestNode, until } from "./cluster.ts";
import { createGroups } from "./groups.ts";
import { numberFlags } from "./script-flags.ts";

const flags = numberFlags({ groups: 1_000, settle: 0, idle: 10, rounds: 1 });
/** Nodes leave a difference of 2 as it is, and one of them leads the registry, which is not in what they say here. */
const differenceMax = 3;
/** Clock ticks of the kernel a second. */
const kernelTicks = 100;

interface Summary {
  readonly total: number;
  readonly leads: number;
  readonly leaderless: number;
}

async function summary(node: TestNode): Promise<Summary> {
  const status = await (await node.fetch("/v1/status?brief=true&limit=1")).json();
  return (status as { summary: Summary }).summary;
}

async function leads(nodes: readonly TestNode[]): Promise<number[]> {
  return (await Promise.all(nodes.map(summary))).map((each) => each.leads);
}

/** From now until all groups have a leader that all of these nodes know; the milliseconds it took. */
async function allLed(nodes: readonly TestNode[], total: number): Promise<number> {
  const fromMs = performance.now();
  await until(
    "all groups are led",
    async () => {
      // Asking costs the nodes something too.
      await Bun.sleep(100);
      const all = await Promise.all(nodes.map((node) => summary(node).catch(() => undefined)));
      const led = all.reduce((sum, each) => sum + (each?.leads ?? 0), 0);
      return led === total && all.every((each) => each?.total === total && each.leaderless === 0);
    },
    60_000,
  );
  return Math.round(performance.now() - fromMs);
}

interface Used {
  readonly cpuSeconds: number;
  readonly atMs: number;
  readonly frames: ReadonlyMap<string, number>;
}

/** Of the process, and of its connections to the other nodes. */
async function used(node: TestNode): Promise<Used> {
  const fields = readFileSync(`/proc/${node.pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  const cpuSeconds = (Number(fields[11]) + Number(fields[12])) / kernelTicks;
  const frames = new Map<string, number>();
  const metrics = await (await node.fetch("/metrics")).text();
  for (const [, direction, peer, count] of metrics.matchAll(
    /^barge_peer_frames_(sent|received)\{peer="(\d+)"\} (\d+)/gm,
  )) {
    frames.set(`${direction} ${peer}`, Number(count));
  }
  return { cpuSeconds, atMs: performance.now(), frames };
}

function residentMb(node: TestNode): number {
  const status = readFileSync(`/proc/${node.pid}/status`, "utf8");
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1_024);
}

async function idle(nodes: readonly TestNode[]): Promise<object> {
  const before = await Promise.all(nodes.map(used));
  await Bun.sleep(flags.idle * 1_000);
  const after = await Promise.all(nodes.map(used));
  return nodes.map((node, at) => {
    const seconds = (after[at]!.atMs - before[at]!.atMs) / 1_000;
    const cpu = after[at]!.cpuSeconds - before[at]!.cpuSeconds;
    const frames = [...after[at]!.frames].map(
      ([name, count]) => (count - (before[at]!.frames.get(name) ?? 0)) / seconds,
    );
    return {
      node: node.id,
      cpuPercent: Number(((cpu / seconds) * 100).toFixed(1)),
      framesPerSecondAndDirection: Number(Math.max(...frames).toFixed(1)),
      residentMb: residentMb(node),
    };
  });
}

/** The leaders are spread: how long that took, and what each leads. */
async function balanced(nodes: readonly TestNode[]): Promise<object> {
  const fromMs = performance.now();
  let last: number[] = [];
  await until(
    "leaders are spread",
    async () => {
      last = await leads(nodes);
      return Math.max(...last) - Math.min(...last) <= differenceMax;
    },
    60_000,
  );
  return { afterMs: Math.round(performance.now() - fromMs), leads: last };
}

await using cluster = new TestCluster();
try {
  await cluster.start();
  const tell = (found: object): void => console.log(JSON.stringify(found));
  tell({ groups: flags.groups, residentMbBefore: cluster.nodes.map(residentMb) });
  // And group 0; the registry's own is not counted.
  const total = flags.groups + 1;
  const fromMs = performance.now();
  for (let made = 0; made < flags.groups;) {
    const count = Math.min(flags.groups - made, 1_000);
    await createGroups(cluster.nodes[0]!, { count });
    made += count;
  }
  const createMs = Math.round(performance.now() - fromMs);
  await allLed(cluster.nodes, total);
  tell({ createMs, allLedMs: Math.round(performance.now() - fromMs) });
  tell({ spread: await balanced(cluster.nodes) });
  await Bun.sleep(flags.settle * 1_000);
  tell({ load: loadavg(), idle: await idle(cluster.nodes) });
  for (let round = 0; round < flags.rounds; round++) {
    const killed = cluster.nodes[round % cluster.nodes.length]!;
    const others = cluster.nodes.filter((node) => node !== killed);
    const before = await leads(cluster.nodes);
    await killed.kill();
    tell({ killed: killed.id, before, failoverMs: await allLed(others, total) });
    killed.start();
    const startedMs = performance.now();
    await killed.ready();
    const readyMs = Math.round(performance.now() - startedMs);
    await allLed(cluster.nodes, total);
    tell({ readyMs, servesAllMs: Math.round(performance.now() - startedMs) });
    tell({ spread: await balanced(cluster.nodes) });
  }
} catch (error) {
  process.stderr.write(cluster.logTails());
  throw error;
}

/**
 * What a group costs that has nothing to do: three nodes without processes and sockets, each with the same groups, in one loop.
 *
 *     bun bench/idle-groups.ts [--groups 1000] [--seconds 5]
 *
 * Prints, per node: memory per group, and the share of a core that it takes, in time of the processor, so that what else runs on the machine matters little. The processes and their heartbeats on real sockets are measured by
 * `barge bench --groups`.
 */
import { heapStats } from "bun:jsc";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { defaultLimits } from "../src/limits.ts";
import { createMachine, KvFiles } from "../src/machine/machines.ts";
import type { Transport } from "../src/net/transport.ts";
import {
  bootstrapGroup,
  createCore,
  initialConfiguration,
  seedCrcOf,
} from "../src/node/bootstrap.ts";
import { Group } from "../src/node/group.ts";
import { Shard } from "../src/node/shard.ts";
import { LogStore } from "../src/storage/log-store.ts";
import { openSqliteDisk } from "../src/storage/sqlite-disk.ts";
import type { PeerMessage } from "../src/wire/messages.ts";

const { values } = parseArgs({
  options: {
    groups: { type: "string", default: "1000" },
    seconds: { type: "string", default: "5" },
  },
});
const groups = Number(values.groups);
const seconds = Number(values.seconds);
const nodeIds = [1, 2, 3];
const members = new Map(nodeIds.map((id) => [id, `127.0.0.1:${7_000 + id}`]));
const seedCrc = seedCrcOf("bench");
const logger = { info: () => {}, error: console.error };

/** Messages of a node wait here for the receiver's next turn. */
const wires = new Map<number, PeerMessage[]>();

interface BenchNode {
  readonly id: number;
  readonly shard: Shard;
  readonly store: LogStore;
  frames: number;
  /** Asked for a turn. */
  readonly isDue: () => boolean;
}

function transportOf(node: { frames: number }): Transport {
  return {
    send: (message, batches) => {
      node.frames++;
      const whole = message.type === "append" ? { ...message, batches: batches ?? [] } : message;
      wires.get(message.to)!.push(whole);
    },
    connected: () => true,
    dialsIn: () => false,
    takesBeats: () => true,
    applyVersionMax: () => 2,
    flush: () => {},
  };
}

function memory(): { heap: number; rss: number } {
  Bun.gc(true);
  const { heapSize, extraMemorySize } = heapStats();
  return { heap: heapSize + extraMemorySize, rss: process.memoryUsage.rss() };
}

function open(folder: string, id: number): BenchNode {
  const counted = { frames: 0 };
  const limits = defaultLimits;
  const disk = openSqliteDisk({
    segmentsPath: join(folder, "segments"),
    watermarkPath: join(folder, "watermark"),
    segmentBytes: limits.segmentBytes,
  });
  const store = new LogStore(disk, { limits, bootId: 1, seedCrc });
  store.recover();
  const transport = transportOf(counted);
  const nowMs = performance.now();
  const files = new KvFiles({ limits });
  const given = { limits, store, transport };
  let isDue = true;
  const wake = (): void => void (isDue = true);
  const shard = new Shard({ ...given, groups: [], firstRequest: 1, wake }, nowMs);
  for (let group = 0; group < groups; group++) {
    const recovered = bootstrapGroup(store, group, initialConfiguration(members), seedCrc);
    const directory = mkdtempSync(join(folder, `${group}-`));
    const machine = createMachine("kv", {
      directory,
      files,
      limits,
      nowMs: () => performance.now(),
    });
    const appliedIndex = machine.open();
    const core = { group, nodeId: id, limits, random: Math.random, store, recovered, appliedIndex };
    const raft = createCore(core);
    const options = { id: group, nodeId: id, ...given, raft, machine, logger, firstRequest: 1 };
    shard.add(new Group({ ...options, wake }));
  }
  const take = (): boolean => {
    const was = isDue;
    isDue = false;
    return was;
  };
  return Object.assign(counted, { id, shard, store, isDue: take });
}

function turn(node: BenchNode): void {
  const arrived = wires.get(node.id)!;
  wires.set(node.id, []);
  for (const message of arrived) node.shard.deliver(message);
  node.shard.turn(performance.now());
}

async function run(nodes: readonly BenchNode[], forMs: number): Promise<void> {
  const untilMs = performance.now() + forMs;
  let tickedMs = 0;
  while (performance.now() < untilMs) {
    const nowMs = performance.now();
    const isTick = nowMs - tickedMs >= defaultLimits.tickMs;
    if (isTick) tickedMs = nowMs;
    for (const node of nodes) {
      if (isTick || wires.get(node.id)!.length > 0 || node.isDue()) turn(node);
    }
    await Bun.sleep(2);
  }
}

const folder = mkdtempSync(join(process.cwd(), ".bench-idle-"));
try {
  for (const id of nodeIds) wires.set(id, []);
  const before = memory();
  const startedMs = performance.now();
  const nodes = nodeIds.map((id) => open(mkdtempSync(join(folder, `${id}-`)), id));
  console.log(
    `${groups} groups on 3 nodes made in ${Math.round(performance.now() - startedMs)} ms`,
  );
  const led = (): number =>
    nodes.flatMap(({ shard }) => shard.status()).filter(({ role }) => role === "leader").length;
  for (const { id, shard } of nodes)
    for (const other of nodeIds) if (other !== id) shard.peerUp(other);
  while (led() < groups) await run(nodes, 100);
  console.log(`all led after ${Math.round(performance.now() - startedMs)} ms`);
  await run(nodes, 2_000);
  const after = memory();
  const perGroup = (bytes: number): string => `${(bytes / groups / 3 / 1_024).toFixed(1)} KiB`;
  console.log(
    `memory per group and node: heap ${perGroup(after.heap - before.heap)}, process ${perGroup(after.rss - before.rss)}`,
  );
  for (const node of nodes) node.frames = 0;
  const cpu = process.cpuUsage();
  await run(nodes, seconds * 1_000);
  const { user, system } = process.cpuUsage(cpu);
  const share = ((user + system) / 1e4 / seconds / nodes.length).toFixed(1);
  const frames = nodes.map((node) => Math.round(node.frames / seconds));
  console.log(`each node: ${share} % of a core; messages/s: ${frames.join(", ")}`);
} finally {
  rmSync(folder, { recursive: true });
}
process.exit(0);

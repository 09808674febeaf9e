/**
 * Power cuts on real daemons, each on a file system of its own: at a random moment under load, in the first moments of a folder, while a snapshot comes
 * in, while members change. Afterwards all start again by themselves, and nothing that was acknowledged is missing.
 */
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { TestCluster, type TestNode, until } from "../e2e/cluster.ts";
import { votes } from "../e2e/membership-walk.ts";
import { Workload } from "../e2e/workload.ts";
import type { Random } from "../sim/random.ts";
import type { LoopDisk } from "./loop-disk.ts";
import { smallBuild, smallFlags } from "./small-build.ts";

export const powerScenes = ["load", "first boot", "snapshot", "members"] as const;
export type PowerScene = (typeof powerScenes)[number];

export interface PowerOptions {
  /** One for each node, and one more where members change. */
  readonly disks: readonly LoopDisk[];
  readonly nodes: number;
  readonly cuts: number;
  readonly scene: PowerScene;
  readonly random: Random;
  /** Told of each cut. */
  readonly told?: (what: string) => void;
}

const valueBytes = 512;
const delayMsMax = 250;
const firstMomentsMsMax = 500;
/** Cuts that one cluster lives through before another takes its place on the same disks. */
const cutsPerCluster = 25;

/** Cuts the power so many times; throws where anything is lost or does not come back. Returns how many writes were acknowledged. */
export async function powerCuts(options: PowerOptions): Promise<number> {
  let acknowledged = 0;
  for (let left = options.cuts; left > 0;) {
    const share = options.scene === "first boot" ? 1 : Math.min(left, cutsPerCluster);
    acknowledged += await onCluster(options, share);
    left -= share;
  }
  return acknowledged;
}

async function onCluster(options: PowerOptions, cuts: number): Promise<number> {
  const { disks, nodes, scene, random } = options;
  for (const { path } of disks) {
    for (const name of readdirSync(path)) rmSync(join(path, name), { recursive: true });
  }
  // A name of its own: that the folders of before are gone may not be durable. Who joins has the last disk.
  const name = crypto.randomUUID();
  const dataDir = (id: number): string =>
    join((disks[id - 1] ?? disks.at(-1)!).path, name, `${id}`);
  await using cluster = new TestCluster({ nodes, flags: smallFlags, build: smallBuild, dataDir });
  try {
    if (scene === "first boot") await firstBoot(cluster, options);
    else await cluster.start();
    await using workload = new Workload(cluster, {
      clients: 1,
      writersPerClient: 6,
      valueBytes,
      timeoutMs: 5_000,
    });
    if (scene === "first boot") {
      workload.start();
      await workload.acknowledges(5);
    }
    for (let cut = 0; scene !== "first boot" && cut < cuts; cut++) {
      workload.start();
      await workload.acknowledges(random.between(1, 100));
      if (scene === "load") await underLoad(cluster, options);
      if (scene === "snapshot") await whileReceiving(cluster, workload, options);
      if (scene === "members") await whileMembersChange(cluster, workload, options);
      await workload.acknowledges(5);
      await workload.stop();
      await cluster.converged();
      await workload.verify("recent");
    }
    await workload.stop();
    await cluster.converged();
    await workload.verify("all");
    return workload.counts.acknowledged;
  } catch (error) {
    process.stderr.write(cluster.logTails());
    throw error;
  }
}

const pause = (random: Random, msMax: number): Promise<void> => Bun.sleep(random.between(0, msMax));

/** The power of these goes, at once; then it is there again, and they start. */
async function cutAndStart(
  cluster: TestCluster,
  victims: readonly TestNode[],
  { disks, told = () => {}, scene }: PowerOptions,
): Promise<void> {
  const cut = victims.map(({ id }) => disks[id - 1] ?? disks.at(-1)!);
  for (const disk of cut) disk.cut();
  await Promise.all(victims.map((node) => node.kill()));
  for (const disk of cut) disk.bringBack();
  told(`${scene}: cut ${victims.map(({ id }) => id).join(", ")}`);
  await cluster.start();
}

function victimsAmong(nodes: readonly TestNode[], random: Random): readonly TestNode[] {
  const count = random.between(1, nodes.length);
  const left = [...nodes];
  return Array.from({ length: count }, () => left.splice(random.below(left.length), 1)[0]!);
}

async function underLoad(cluster: TestCluster, options: PowerOptions): Promise<void> {
  const { random } = options;
  await pause(random, delayMsMax);
  await cutAndStart(cluster, victimsAmong(cluster.nodes, random), options);
}

async function firstBoot(cluster: TestCluster, options: PowerOptions): Promise<void> {
  const { random } = options;
  for (const node of cluster.nodes) node.start();
  await pause(random, firstMomentsMsMax);
  await cutAndStart(cluster, victimsAmong(cluster.nodes, random), options);
}

/** A follower is away until the log is cut above it; its power goes while it takes the snapshot, or just after. */
async function whileReceiving(
  cluster: TestCluster,
  workload: Workload,
  options: PowerOptions,
): Promise<void> {
  const { random } = options;
  const leader = await cluster.leader();
  const behind = random.pick(cluster.nodes.filter((node) => node !== leader));
  const { lastIndex } = await behind.group();
  await behind.kill();
  await until("the log is cut above it", async () => {
    await workload.acknowledges(20);
    const up = cluster.nodes.filter((node) => node !== behind);
    const all = await Promise.all(
      up.map(async (node) => {
        await node.fetch("/v1/snapshot", { method: "POST", body: "{}" });
        return node.group();
      }),
    );
    return all.every(({ firstIndex }) => firstIndex > lastIndex + 1);
  });
  behind.start();
  const received = (): boolean => {
    try {
      return readdirSync(join(behind.dataDir, "machine", "0")).some((name) =>
        /-\d+\.db$/.test(name),
      );
    } catch {
      return false;
    }
  };
  // Half of them at the very moment, the others around it.
  if (random.chance(0.5)) await until("a snapshot comes in", received);
  await pause(random, random.pick([5, 50, 500]));
  await cutAndStart(cluster, random.chance(0.7) ? [behind] : cluster.nodes, options);
}

/** A member joins and goes again; the power goes in the midst of each, wherever. */
async function whileMembersChange(
  cluster: TestCluster,
  workload: Workload,
  options: PowerOptions,
): Promise<void> {
  const { random } = options;
  const newcomer = cluster.join();
  newcomer.start();
  await pause(random, delayMsMax);
  await cutAndStart(cluster, victimsAmong(cluster.nodes, random), options);
  await votes(cluster, [newcomer]);
  await workload.acknowledges(5);
  const ended = newcomer.ended();
  await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
  cluster.leave(newcomer);
  const removed = client.changeMembers([{ op: "remove", id: newcomer.id }]);
  // It may be told that the outcome is unknown; then it is asked for again.
  removed.catch(() => {});
  await pause(random, 30);
  await cutAndStart(cluster, victimsAmong(cluster.nodes, random), options);
  await until("the member is gone", async () => {
    const { members, joint } = await client.members();
    if (!members.some(({ id }) => id === newcomer.id)) return !joint;
    await client.changeMembers([{ op: "remove", id: newcomer.id }]);
    return false;
  });
  await ended;
}

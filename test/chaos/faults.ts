/**
 * What is done to a cluster under chaos: one entry for each kind of fault. `begin` brings it on and says how it is healed; what may stay
 * behind when it is healed, and must then come right by itself, is waited for in `settle`, once all faults are healed.
 */
import { connect } from "../../src/client/index.ts";
import { BargeError } from "../../src/errors.ts";
import type { TestCluster, TestNode } from "../e2e/cluster.ts";
import type { Random } from "../sim/random.ts";
import { defaultGroup } from "../../src/wire/registry.ts";
import {
  clientsPlace,
  type Link,
  linksAcross,
  linksBetween,
  type LinkFault,
  type Network,
} from "./network.ts";
import { fatalTable } from "../../src/fatal.ts";
import type { NodeDisk } from "../e2e/mount.ts";
import type { Patience } from "./patience.ts";
import type { DiskFault, Surroundings } from "./preload.ts";

/** Of all nodes: what is little space. */
export const minFreeBytes = 33_554_432;

/** What faults are done to. */
export interface World {
  readonly cluster: TestCluster;
  readonly network: Network;
  readonly random: Random;
  /** Clocks and disks of the nodes, where they can be reached. */
  readonly surroundings: ReadonlyMap<number, Surroundings>;
  /** Small ones, where the run has them. */
  readonly disks: ReadonlyMap<number, NodeDisk>;
  /** Those that clients use besides the default one. */
  readonly groups: readonly number[];
  readonly patience: Patience;
  /** What a fault saw that must not be. */
  readonly seen: string[];
}

export interface Healing {
  heal(): Promise<void> | void;
  settle?(): Promise<void>;
}

export interface Fault {
  readonly what: string;
  /** What must be there to bring it on. */
  readonly needs?: "delay" | "reset" | "surroundings" | "disks" | "groups";
  /** Until it is healed; by default some seconds. */
  readonly holdMsMax?: number;
  begin(world: World): Promise<Healing> | Healing;
}

const flapMsMax = 700;
const adminTimeoutMs = 3_000;
const membersMsMax = 40_000;
const slowSyncMsMax = 120;
const stalledSyncMsMin = 500;
const stalledSyncMsMax = 5_000;
const clockJumpMsMax = 7 * 24 * 3_600_000;

export const faults = {
  "kill one": {
    what: "kill -9 of one node, started again",
    begin: (world) => kill(world, [anyNode(world)]),
  },
  "kill leader": {
    what: "kill -9 of the leader, started again",
    begin: async (world) => kill(world, [await leaderOf(world)]),
  },
  "kill majority": {
    what: "kill -9 of all nodes but a minority",
    begin: (world) => kill(world, someNodes(world, majority(world))),
  },
  "kill all": {
    what: "kill -9 of all nodes at once",
    holdMsMax: 500,
    begin: (world) => kill(world, world.cluster.nodes),
  },
  "pause one": {
    what: "SIGSTOP of one node",
    begin: (world) => pause([anyNode(world)]),
  },
  "pause leader": {
    what: "SIGSTOP of the leader, which thinks that it still leads when it goes on",
    begin: async (world) => pause([await leaderOf(world)]),
  },
  "pause all": {
    what: "SIGSTOP of all nodes",
    begin: ({ cluster }) => pause([...cluster.nodes]),
  },
  "rolling restart": {
    what: "SIGTERM of one node after the other, each started again",
    holdMsMax: 0,
    begin: rollingRestart,
  },
  "leader alone": {
    what: "the leader is cut off from the other nodes, not from clients",
    begin: async (world) => {
      const { id } = await leaderOf(world);
      return cut(world, linksAcross([id], ids(world)));
    },
  },
  "leader gone": {
    what: "the leader is cut off from everybody",
    begin: async (world) => {
      const { id } = await leaderOf(world);
      return cut(world, linksAcross([id], [...ids(world), clientsPlace]));
    },
  },
  halves: {
    what: "a majority on one side, the rest on the other, clients reach both",
    begin: (world) => {
      const some = someNodes(world, majority(world)).map(({ id }) => id);
      const rest = ids(world).filter((id) => !some.includes(id));
      return cut(world, linksAcross(some, rest));
    },
  },
  "one way in": {
    what: "nothing reaches the leader, all hear it",
    begin: async (world) => {
      const { id } = await leaderOf(world);
      return cut(world, linksBetween(ids(world), [id]));
    },
  },
  "one way out": {
    what: "nobody hears the leader, it hears all",
    begin: async (world) => {
      const { id } = await leaderOf(world);
      return cut(world, linksBetween([id], ids(world)));
    },
  },
  bridge: {
    what: "two halves that do not hear each other, with one node that hears both",
    begin: (world) => {
      const [, ...rest] = someNodes(world, world.cluster.nodes.length).map(({ id }) => id);
      const half = Math.floor(rest.length / 2);
      return cut(world, linksAcross(rest.slice(0, half), rest.slice(half)));
    },
  },
  flapping: {
    what: "a node that is cut off and reached again in quick succession",
    begin: flap,
  },
  "clients cut": {
    what: "clients do not reach one node, or do not hear it",
    begin: (world) => {
      const { id } = anyNode(world);
      const links = [
        { from: clientsPlace, to: id },
        { from: id, to: clientsPlace },
      ];
      return cut(world, world.random.chance(0.5) ? links : [world.random.pick(links)]);
    },
  },
  resets: {
    what: "all connections of clients break again and again, with what is on its way",
    needs: "reset",
    begin: ({ network, random }) => again(random, () => network.reset(clientsPlace)),
  },
  "peer resets": {
    what: "all connections of a node break again and again, with what is on its way",
    needs: "reset",
    begin: (world) => again(world.random, () => world.network.reset(anyNode(world).id)),
  },
  loss: {
    what: "5 to 30 % of the packets between all are lost",
    needs: "delay",
    begin: (world) => everywhere(world, { loss: world.random.between(5, 30) / 100 }),
  },
  delay: {
    what: "all links are slow, by up to 150 ms each way",
    needs: "delay",
    begin: (world) => everywhere(world, { delayMs: world.random.between(10, 150) }),
  },
  reordering: {
    what: "each packet takes up to 300 ms: connections overtake each other",
    needs: "delay",
    begin: (world) => everywhere(world, { jitterMs: world.random.between(50, 300) }),
  },
  "slow disk": {
    what: "each sync of one node, or of all, takes up to 120 ms longer",
    needs: "surroundings",
    begin: (world) =>
      surround(
        world,
        (each) => (each.syncDelayMs = world.random.between(10, slowSyncMsMax)),
        (each) => (each.syncDelayMs = 0),
      ),
  },
  "stalled disk": {
    what: "each sync of one node, or of all, takes 0.5 to 5 s longer",
    needs: "surroundings",
    begin: (world) =>
      surround(
        world,
        (each) => (each.syncDelayMs = world.random.between(stalledSyncMsMin, stalledSyncMsMax)),
        (each) => (each.syncDelayMs = 0),
      ),
  },
  "failing disk": {
    what: "a sync or a write of one node fails: it ends by itself, and is started again",
    needs: "surroundings",
    begin: failDisk,
  },
  "full disk": {
    what: "the disk of one node, or of all, has little space or none",
    needs: "disks",
    begin: fillDisks,
  },
  "clock jumps": {
    what: "the wall clock of one node, or of all, jumps by up to a week, again and again",
    needs: "surroundings",
    begin: ({ surroundings, random }) =>
      again(random, () => {
        const all = [...surroundings.values()];
        const jumping = random.chance(0.3) ? all : [random.pick(all)];
        const offsetMs = random.between(-clockJumpMsMax, clockJumpMsMax);
        for (const each of jumping) each.clockOffsetMs = offsetMs;
      }),
  },
  snapshots: {
    what: "nodes make snapshots and cut their logs to the end, again and again",
    begin: (world) => again(world.random, () => void snapshot(world)),
  },
  "left behind": {
    what: "a node is cut off from the others until they have cut their logs above what it has: it needs a snapshot",
    begin: (world) => {
      const { id } = anyNode(world);
      const others = ids(world).filter((other) => other !== id);
      const { heal } = cut(world, linksAcross([id], others));
      return {
        heal: async () => {
          const there = world.cluster.nodes.filter((node) => others.includes(node.id));
          const groups = [defaultGroup, ...world.groups];
          await Promise.all(
            there.flatMap((node) => groups.map((group) => snapshot(world, node, group))),
          );
          await heal();
        },
      };
    },
  },
  transfer: {
    what: "leadership is handed to another node, again and again",
    begin: (world) =>
      again(
        world.random,
        () =>
          void admin(world, async (client) => {
            await client.group(anyGroup(world)).transferLeader(anyNode(world).id);
          }),
      ),
  },
  members: {
    what: "a node joins, and one is removed, by chance the leader",
    begin: changeMembers,
  },
  "group moves": {
    what: "groups get other members among the nodes, again and again",
    needs: "groups",
    begin: (world) => again(world.random, () => void moveGroup(world)),
  },
  "groups come and go": {
    what: "groups are made, written to and removed, again and again",
    needs: "groups",
    begin: (world) => again(world.random, () => void passingGroup(world)),
  },
} as const satisfies Record<string, Fault>;

export type FaultKind = keyof typeof faults;
export const faultKinds = Object.keys(faults) as FaultKind[];

/** Whether it can be brought on here. */
export function isPossible(
  kind: FaultKind,
  { network, surroundings, disks }: World,
  withGroups: boolean,
): boolean {
  const { needs }: Fault = faults[kind];
  if (needs === undefined) return true;
  if (needs === "disks") return disks.size > 0;
  if (needs === "groups") return withGroups;
  return needs === "surroundings" ? surroundings.size > 0 : network.can[needs];
}

/* ------------------------------------------------------------------ whom */

function ids({ cluster }: World): number[] {
  return cluster.nodes.map(({ id }) => id);
}

function anyNode({ cluster, random }: World): TestNode {
  return random.pick(cluster.nodes);
}

function anyGroup({ groups, random }: World): number {
  return groups.length === 0 ? defaultGroup : random.pick([defaultGroup, ...groups]);
}

function majority({ cluster }: World): number {
  return Math.floor(cluster.nodes.length / 2) + 1;
}

function someNodes({ cluster, random }: World, count: number): TestNode[] {
  const left = [...cluster.nodes];
  return Array.from({ length: count }, () => left.splice(random.below(left.length), 1)[0]!);
}

/** Who leads now as far as somebody knows, else anybody. */
async function leaderOf(world: World): Promise<TestNode> {
  const groups = await Promise.all(
    world.cluster.nodes.map((node) => node.group().catch(() => undefined)),
  );
  let found: { readonly term: number; readonly node: TestNode } | undefined;
  for (const [at, group] of groups.entries()) {
    if (group?.role !== "leader" || group.term < (found?.term ?? 0)) continue;
    found = { term: group.term, node: world.cluster.nodes[at]! };
  }
  return found?.node ?? anyNode(world);
}

/* ------------------------------------------------------------------ processes */

async function kill({ cluster }: World, victims: readonly TestNode[]): Promise<Healing> {
  const all = [...victims];
  await Promise.all(all.map((node) => node.kill()));
  return {
    heal: () => {
      for (const node of all) if (cluster.nodes.includes(node)) node.start();
    },
  };
}

function pause(nodes: readonly TestNode[]): Healing {
  for (const node of nodes) node.pause();
  return {
    heal: () => {
      for (const node of nodes) node.resume();
    },
  };
}

async function rollingRestart({ cluster }: World): Promise<Healing> {
  for (const node of cluster.nodes.slice()) {
    // Another fault may hold it.
    if (!node.running || node.paused) continue;
    await node.terminate().catch(() => undefined);
    if (cluster.nodes.includes(node)) node.start();
    await node.ready().catch(() => undefined);
  }
  return { heal: () => undefined };
}

/* ------------------------------------------------------------------ network */

function cut({ network }: World, links: readonly Link[]): Healing {
  return { heal: network.spoil(links, { cut: true }) };
}

function everywhere(world: World, fault: LinkFault): Healing {
  const all = [...ids(world), clientsPlace];
  return { heal: world.network.spoil(linksBetween(all, all), fault) };
}

function flap(world: World): Healing {
  const { network, random } = world;
  const { id } = anyNode(world);
  const links = linksAcross([id], ids(world));
  let mend: (() => void) | undefined;
  const flapping = again(random, () => {
    if (mend === undefined) mend = network.spoil(links, { cut: true });
    else mend = void mend();
  });
  return {
    heal: async () => {
      await flapping.heal();
      mend?.();
    },
  };
}

/** Does something at once and then again and again until it is healed. */
function again(random: Random, act: () => void): Healing {
  let timer: Timer | undefined;
  const next = (): void => {
    act();
    timer = setTimeout(next, random.between(0, flapMsMax));
  };
  next();
  return { heal: () => clearTimeout(timer) };
}

/* ------------------------------------------------------------------ clocks and disks */

function surround(
  { surroundings, random }: World,
  spoil: (each: Surroundings) => void,
  mend: (each: Surroundings) => void,
): Healing {
  const all = [...surroundings.values()];
  const some = random.chance(0.3) ? all : [random.pick(all)];
  for (const each of some) spoil(each);
  return {
    heal: () => {
      for (const each of some) mend(each);
    },
  };
}

const diskFaults: readonly DiskFault[] = [
  { call: "sync", pattern: "*/segments/*-wal" },
  { call: "write", pattern: "*/segments/*-wal" },
  { call: "sync", pattern: "*/segments" },
  { call: "sync", pattern: "*/watermark" },
  { call: "sync", pattern: "*/machine/*/kv*.db*" },
  { call: "write", pattern: "*/machine/*/kv*.db*" },
];

/** What does not come to be used fails nothing. */
async function failDisk(world: World): Promise<Healing> {
  const { random, surroundings, cluster } = world;
  const node = random.chance(0.5) ? await leaderOf(world) : anyNode(world);
  const own = surroundings.get(node.id);
  if (own === undefined || !node.running) return { heal: () => undefined };
  node.mayEnd = true;
  const ended = node.ended();
  own.failNext(random.pick(diskFaults));
  return {
    heal: async () => {
      own.failNothing();
      const { failed, after } = own.failures;
      if (failed === 0) {
        if (node.running) node.mayEnd = false;
        return;
      }
      own.forgetFailures();
      if (after > 0) throw new Error(`node ${node.id} syncs after its disk has failed`);
      // Another fault may have killed or stopped it first.
      if (!node.paused) {
        const { status, signal } = await ended;
        if (status !== fatalTable.sync_failed.status && signal === null)
          throw new Error(`node ${node.id} ended with ${status} as its disk failed`);
      }
      if (cluster.nodes.includes(node)) node.start();
    },
  };
}

function fillDisks({ disks, random, cluster }: World): Healing {
  const all = cluster.nodes.map(({ id }) => disks.get(id)).filter((disk) => disk !== undefined);
  const some = random.chance(0.3) ? all : [random.pick(all)];
  for (const disk of some) {
    disk.leave(minFreeBytes / random.between(2, 8));
    if (random.chance(0.5)) disk.fill();
  }
  return {
    heal: () => {
      for (const disk of some) disk.free();
    },
  };
}

/* ------------------------------------------------------------------ administration */

type Asked = Parameters<Parameters<typeof admin>[1]>[0];

/** Asks once; under faults that may fail in any way that the table of errors has: how it did. */
async function admin(
  { cluster }: World,
  ask: (client: ReturnType<typeof connect>) => Promise<void>,
): Promise<BargeError | undefined> {
  const client = connect({ endpoints: cluster.endpoints, timeoutMs: adminTimeoutMs });
  try {
    await ask(client);
    return undefined;
  } catch (error) {
    if (!(error instanceof BargeError)) throw error;
    return error;
  } finally {
    client.close();
  }
}

/** Two at least stay or come, so that each kind of fault leaves a majority at times. */
async function moveGroup(world: World): Promise<void> {
  const { groups, random } = world;
  const id = random.pick(groups);
  const members = ids(world);
  const count = random.between(Math.min(2, members.length), Math.min(3, members.length));
  while (members.length > count) members.splice(random.below(members.length), 1);
  await admin(world, async (client) => void (await client.admin("moveGroup", { id, members })));
}

/** Groups that would be without a majority when that node has left. */
async function moveAway(world: World, client: Asked, leaves: number): Promise<void> {
  const others = ids(world).filter((id) => id !== leaves);
  for (const { id, members } of await client.listGroups()) {
    const stay = members.filter((member) => member !== leaves);
    if (stay.length === members.length || stay.length * 2 > members.length) continue;
    await client.moveGroup(id, [...new Set([...stay, ...others])].slice(0, 3));
  }
}

/** It must hold what was written to it, wherever it is by then, and nothing else. */
async function passingGroup(world: World): Promise<void> {
  const { random, seen } = world;
  const request = `passing ${random.u32()} ${random.u32()}`;
  const movesTo = random.chance(0.5) ? someNodes(world, 2).map(({ id }) => id) : undefined;
  await admin(world, async (client) => {
    const { groups } = await client.admin("createGroups", { request });
    for (const { id } of groups) {
      const value = `of group ${id}`;
      await client.group(id).put("key", value);
      if (movesTo !== undefined) await client.admin("moveGroup", { id, members: movesTo });
      const found = await client.group(id).get("key");
      const text = found === undefined ? "nothing" : String(Buffer.from(found.value as Uint8Array));
      if (text !== value) seen.push(`group ${id}, which has just been made, holds ${text}`);
      await client.admin("removeGroups", { groups: [id] });
    }
  });
}

async function snapshot(
  world: World,
  node: TestNode = anyNode(world),
  group: number = anyGroup(world),
): Promise<void> {
  const endpoint = node.binary;
  await admin(world, async (client) => {
    await client.admin("snapshot", { tailBytes: 0 }, { endpoint, group });
  });
}

/** One more joins, and when all is healed and it votes, one is removed: there are as many as before. */
async function changeMembers(world: World): Promise<Healing> {
  const { cluster, random, patience } = world;
  const newcomer = cluster.join();
  newcomer.build = cluster.nodes[0]!.build;
  newcomer.start();
  const voters = async (client: Asked): Promise<number[]> => {
    const { members } = await client.members();
    return members.filter(({ role }) => role === "voter").map(({ id }) => id);
  };
  const repeat = (what: string, ask: (client: Asked) => Promise<boolean>): Promise<void> =>
    patience.until(
      what,
      async () => {
        let done = false;
        const refused = await admin(world, async (client) => void (done = await ask(client)));
        if (refused !== undefined) throw refused;
        return done;
      },
      membersMsMax,
    );
  return {
    heal: () => newcomer.start(),
    settle: async () => {
      await repeat(`node ${newcomer.id}, which joined, votes`, async (client) => {
        newcomer.start();
        return (await voters(client)).includes(newcomer.id);
      });
      const leaves = random.chance(0.4) ? await leaderOf(world) : anyNode(world);
      await repeat(`node ${leaves.id} is removed`, async (client) => {
        if (!(await voters(client)).includes(leaves.id)) return true;
        if (world.groups.length > 0) await moveAway(world, client, leaves.id);
        await client.changeMembers([{ op: "remove", id: leaves.id }]);
        return true;
      });
      cluster.leave(leaves);
      await leaves.kill();
    },
  };
}

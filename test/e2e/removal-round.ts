/**
 * Groups that are removed while their state is being written or sent, with kill -9 at each moment: nothing of them stays, nothing comes back, and what other
 * groups have is as it was. A round makes a group, fills it, brings one node to the failpoint, where it stands still, has the group removed, and either kills
 * that node or lets it go on.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Client, connect } from "../../src/client/index.ts";
import {
  type ClusterOptions,
  loopbackPlace,
  type TestCluster,
  type TestNode,
  thisBuild,
  until,
} from "./cluster.ts";
import {
  ask,
  createGroups,
  get,
  groupOf,
  groupsOf,
  machineFolders,
  put,
  settled,
} from "./groups.ts";
import {
  machinesVariable,
  ofGroup,
  type RemovalFailpoint,
  removalFailpoints,
} from "./removal-failpoints.ts";
import { failpoints, failpointVariable, reachedSuffix } from "./snapshot-failpoints.ts";

const valueBytes = 65_536;
const putsAtOnce = 16;
const arrivesMsMax = 60_000;
const cutMsMax = 60_000;
/** It is there all the time, with one key. */
export const neighbour = 1;

export type Ending = "killed" | "goes on";
/** What happens to a group while it is removed. */
export type Moment =
  | { readonly kind: "removal"; readonly failpoint: RemovalFailpoint }
  | { readonly kind: "snapshot"; readonly failpoint: string; readonly side: "sender" | "receiver" };

export const moments: readonly Moment[] = [
  ...removalFailpoints.map((failpoint) => ({ kind: "removal", failpoint }) as const),
  ...failpoints.map(
    ({ name: failpoint, side }) => ({ kind: "snapshot", failpoint, side }) as const,
  ),
];

export function momentOf(failpoint: string): Moment {
  const found = moments.find((moment) => moment.failpoint === failpoint);
  if (found === undefined) throw new Error(`there is no failpoint "${failpoint}"`);
  return found;
}

/** Where each node is told at which failpoint to stand still. */
export class Failpoints implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "barge-removal-"));

  /** For a cluster whose nodes obey. */
  get options(): ClusterOptions {
    const preloads = ["snapshot-failpoints.ts", "removal-failpoints.ts"].flatMap((name) => [
      "--preload",
      join(import.meta.dir, name),
    ]);
    const dataDir = (id: number): string => join(this.#folder, `node${id}`);
    return {
      // Logs are cut as far as they can be, so that whoever was away needs a snapshot.
      flags: ["--compact-tail-bytes=65536"],
      dataDir,
      build: { ...thisBuild, bunArguments: [...preloads, ...thisBuild.bunArguments] },
      place: (id) => ({
        ...loopbackPlace(),
        environment: {
          [failpointVariable]: this.#file(id),
          [machinesVariable]: join(dataDir(id), "machine"),
        },
      }),
    };
  }

  arm({ id }: TestNode, name: string): void {
    this.disarm(id);
    writeFileSync(this.#file(id), name);
  }

  disarm(id: number): void {
    rmSync(this.#file(id), { force: true });
    rmSync(`${this.#file(id)}${reachedSuffix}`, { force: true });
  }

  /** The node stands still there. */
  isReached(node: TestNode): boolean {
    if (!existsSync(`${this.#file(node.id)}${reachedSuffix}`)) return false;
    return readFileSync(`/proc/${node.pid}/stat`, "utf8").split(") ")[1]!.startsWith("T");
  }

  #file(id: number): string {
    return join(this.#folder, `failpoint-${id}`);
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export interface RoundOptions {
  readonly cluster: TestCluster;
  readonly failpoints: Failpoints;
  /** Of the group that is removed. */
  readonly bytes: number;
}

/** Once, before the rounds. */
export async function prepare({ cluster }: RoundOptions): Promise<void> {
  await createGroups(cluster.nodes[0]!, { id: neighbour });
  await settled(cluster, neighbour, [1, 2, 3]);
  await put(cluster.nodes[0]!, neighbour, "k", "stays");
}

/** Says what it did. */
export async function round(
  options: RoundOptions,
  moment: Moment,
  ending: Ending,
): Promise<string> {
  const { cluster, failpoints: points } = options;
  const [one] = cluster.nodes as [TestNode];
  const [made] = await createGroups(one);
  const { id } = made!;
  await settled(cluster, id, [1, 2, 3]);
  await fill(cluster, id, options.bytes);
  const struck =
    moment.kind === "removal"
      ? await strikeRemoval(options, id, moment.failpoint)
      : await strikeSnapshot(options, id, moment);
  const others = cluster.nodes.filter((node) => node !== struck && node.running);
  await remove(others, id);
  if (ending === "killed") await struck.kill();
  else process.kill(struck.pid, "SIGCONT");
  for (const node of cluster.nodes) points.disarm(node.id);
  await cluster.start();
  await settled(cluster, id, []);
  await nothingLeft(cluster, id);
  const again = ask(one, "POST", "/v1/groups", { id });
  const refusal = await again.then(
    () => "it was made again",
    (error: Error) => error.message,
  );
  if (!refusal.includes("never used again")) throw new Error(`group ${id}: ${refusal}`);
  const kept = await get(struck, neighbour, "k");
  if (kept !== "stays") throw new Error(`the neighbour has ${kept}`);
  return `${moment.failpoint}: node ${struck.id} ${ending}; nothing is left of group ${id}`;
}

/** After all rounds: also whoever reads the registry from its first word on makes none of them again. */
export async function endsClean({ cluster }: RoundOptions): Promise<void> {
  for (const node of cluster.nodes) await node.kill();
  const [one] = cluster.nodes as [TestNode];
  rmSync(join(one.dataDir, "machine", String(0xffff_ffff)), { recursive: true });
  await cluster.start();
  for (const node of cluster.nodes) {
    await until("there are the groups that are to be", async () => {
      const ids = (await groupsOf(node)).map(({ id }) => id).toSorted((a, b) => a - b);
      return ids.join() === [0, neighbour, 0xffff_ffff].join();
    });
  }
}

/** The group's state is being written, or it is going: the node is brought there by what is done to it. */
async function strikeRemoval(
  { cluster, failpoints: points }: RoundOptions,
  id: number,
  failpoint: RemovalFailpoint,
): Promise<TestNode> {
  const struck = cluster.nodes[id % cluster.nodes.length]!;
  points.arm(struck, ofGroup(failpoint, id));
  // Nobody waits for it: it may be in the middle of that when the group goes.
  const asked =
    failpoint === "checkpoint begun"
      ? struck.fetch(`/v1/backup?group=${id}`, {}, arrivesMsMax)
      : struck.fetch(`/v1/snapshot?group=${id}`, { method: "POST" }, arrivesMsMax);
  void asked.catch(() => undefined);
  if (!isBeforeRemoval(failpoint)) {
    const others = cluster.nodes.filter((node) => node !== struck);
    await remove(others, id);
  }
  await reached(points, struck, failpoint);
  return struck;
}

function isBeforeRemoval(failpoint: RemovalFailpoint): boolean {
  return ["flush begun", "flush committed", "checkpoint begun"].includes(failpoint);
}

/** A follower was away until the logs of the others began beyond what it has. */
async function strikeSnapshot(
  { cluster, failpoints: points, bytes }: RoundOptions,
  id: number,
  { failpoint, side }: Extract<Moment, { kind: "snapshot" }>,
): Promise<TestNode> {
  const leader = await leaderOf(cluster, id);
  const away = cluster.nodes.find((node) => node !== leader)!;
  const others = cluster.nodes.filter((node) => node !== away);
  const { lastIndex } = (await groupOf(away, id))!;
  await away.kill();
  await fill(cluster, id, bytes / 4);
  for (const node of others) await cut(node, id, lastIndex);
  const struck = side === "sender" ? await leaderOf(cluster, id) : away;
  points.arm(struck, failpoint);
  away.start();
  await reached(points, struck, failpoint);
  return struck;
}

async function leaderOf(cluster: TestCluster, id: number): Promise<TestNode> {
  let found: TestNode | undefined;
  await until(`group ${id} has a leader`, async () => {
    for (const node of cluster.nodes) {
      if (!node.running) continue;
      if ((await groupOf(node, id))?.role === "leader") found = node;
    }
    return found !== undefined;
  });
  return found!;
}

async function cut(node: TestNode, id: number, beyond: number): Promise<void> {
  const body = JSON.stringify({ tailBytes: 0, timeoutMs: cutMsMax });
  await until(
    `the log of group ${id} on node ${node.id} is cut`,
    async () => {
      const init = { method: "POST", body };
      const response = await node.fetch(`/v1/snapshot?group=${id}`, init, cutMsMax);
      if (!response.ok) throw new Error(await response.text());
      return ((await response.json()) as { firstIndex: number }).firstIndex > beyond + 1;
    },
    cutMsMax,
  );
}

async function reached(points: Failpoints, node: TestNode, failpoint: string): Promise<void> {
  await until(`"${failpoint}" is reached`, () => points.isReached(node), arrivesMsMax);
}

/** Through whoever does not stand still. */
async function remove(nodes: readonly TestNode[], id: number): Promise<void> {
  await until(`group ${id} is removed`, async () => {
    for (const node of nodes) {
      const response = await node.fetch(`/v1/groups/${id}`, { method: "DELETE" }, 5_000);
      if (response.ok) return true;
    }
    return false;
  });
}

async function fill(cluster: TestCluster, group: number, bytes: number): Promise<void> {
  const running = cluster.nodes.filter((node) => node.running);
  await using client: Client = connect({
    endpoints: running.map(({ binary }) => binary).join(","),
    timeoutMs: 20_000,
  });
  const value = Buffer.alloc(valueBytes, group);
  let left = Math.ceil(bytes / valueBytes);
  const one = async (): Promise<void> => {
    while (left > 0) await client.put(`key-${left--}`, value, { group });
  };
  await Promise.all(Array.from({ length: putsAtOnce }, one));
}

/** No folder of it, and no file in those of others that a stream has left. */
async function nothingLeft(cluster: TestCluster, id: number): Promise<void> {
  const folders = new Set([0, neighbour, 0xffff_ffff]);
  for (const node of cluster.nodes) {
    await until(`node ${node.id} keeps nothing of group ${id}`, () => {
      const stray = machineFolders(node).filter((each) => !folders.has(each));
      if (stray.length > 0) {
        const names = stray.map((each) => readdirSync(join(node.dataDir, `machine/${each}`)));
        throw new Error(`there are ${stray.join()} with ${names.join()}`);
      }
      const aside = join(node.dataDir, "removed");
      return !existsSync(aside) || readdirSync(aside).length === 0;
    });
  }
}

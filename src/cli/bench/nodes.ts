/** The nodes under test: those of the user, or three of our own that are started beside the current folder and removed afterwards. */
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Client, connect, type NodeStatus } from "../../client/index.ts";
import { UsageError } from "../../config.ts";
import { BargeError } from "../../errors.ts";
import type { LoadPlan } from "./plan.ts";
import { freePorts, LocalCluster } from "../local-cluster.ts";

const nodeCount = 3;
/** For leadership to come to rest after groups were made; and so evenly it is spread then. */
const spreadMs = 15_000;
const lookMs = 250;
const calmLooks = 4;
const leadsApart = 2;
const leadsApartShare = 0.02;
/** To make the groups, and how often that is tried. */
const makeMs = 30_000;
const makeTries = 20;

export interface TestedNodes extends AsyncDisposable {
  readonly endpoints: string;
  /** Folder of the data; undefined where the nodes are not ours. */
  readonly dir: string | undefined;
}

export async function testedNodes(
  endpoints: string | undefined,
  dir: string | undefined,
  machine: string,
): Promise<TestedNodes> {
  if (endpoints !== undefined) {
    return { endpoints, dir: undefined, [Symbol.asyncDispose]: async () => {} };
  }
  return startNodes(dir, machine);
}

async function startNodes(dir: string | undefined, machine: string): Promise<TestedNodes> {
  const folder = benchFolder(dir);
  const died: string[] = [];
  const cluster = new LocalCluster({
    dir: folder,
    ports: freePorts(nodeCount),
    flags: [`--machine=${machine}`],
    onDeath: (node, how) => {
      died.push(`node ${node.id}: ${how}`);
      process.stderr.write(`barge: node ${node.id} ended (${how}):\n${node.logTail()}\n`);
    },
  });
  // Whatever ends this process, nothing is left behind.
  const remove = (): void => {
    for (const node of cluster.nodes) node.kill();
    rmSync(folder, { recursive: true, force: true });
  };
  const interrupted = (): void => process.exit(130);
  process.once("exit", remove);
  process.once("SIGINT", interrupted);
  process.once("SIGTERM", interrupted);
  const dispose = async (): Promise<void> => {
    await cluster.stop();
    rmSync(folder, { recursive: true, force: true });
    process.removeListener("exit", remove);
    process.removeListener("SIGINT", interrupted);
    process.removeListener("SIGTERM", interrupted);
    if (died.length > 0) throw new Error(`nodes ended during the benchmark: ${died.join(", ")}`);
  };
  try {
    await cluster.start();
  } catch (error) {
    await dispose().catch(() => {});
    throw error;
  }
  return { endpoints: cluster.endpoints, dir: folder, [Symbol.asyncDispose]: dispose };
}

/** A new folder under `dir`, else beside the current one: on the disk that the user works on, not on a /tmp that may be memory. */
export function benchFolder(dir: string | undefined): string {
  const here = process.cwd();
  const place = dir ?? (writable(dirname(here)) ? dirname(here) : here);
  try {
    mkdirSync(place, { recursive: true });
    return mkdtempSync(join(resolve(place), "barge-bench-"));
  } catch (error) {
    throw new UsageError(`--dir ${place} cannot be used: ${(error as Error).message}`);
  }
}

function writable(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** What the nodes say of themselves, in the order of their ids. */
export async function statusOfAll(client: Client): Promise<NodeStatus[]> {
  // The first answer names all members.
  await client.status();
  const endpoints = new Set(client.endpoints());
  const replies = await Promise.allSettled(
    [...endpoints].map((endpoint) => client.status(endpoint)),
  );
  const byId = new Map<number, NodeStatus>();
  for (const reply of replies) {
    if (reply.status === "fulfilled") byId.set(reply.value.nodeId, reply.value);
  }
  return [...byId.values()].toSorted((a, b) => a.nodeId - b.nodeId);
}

/** A client for each connection, so that they share nothing. */
export function connectAll(
  endpoints: string,
  { connections, inFlight, session }: Pick<LoadPlan, "connections" | "inFlight" | "session">,
): Client[] {
  return Array.from({ length: connections }, () =>
    connect({
      endpoints,
      session,
      timeoutMs: 10_000,
      maxInFlightRequests: Math.max(65_536, inFlight),
      maxInFlightBytes: 1024 * 1024 * 1024,
    }),
  );
}

/** The ids of the groups to load: group 0 where one is enough, else as many of the others, of which our own nodes get what they need. */
export async function testedGroups(
  client: Client,
  { groups }: Pick<LoadPlan, "groups">,
  { dir }: Pick<TestedNodes, "dir">,
  machine: string,
): Promise<number[]> {
  if (groups === 1) return [0];
  if (dir !== undefined) return makeGroups(client, groups, machine);
  const { groups: found } = await client.admin("groups", {});
  if (found.length < groups) {
    throw new UsageError(
      `--groups ${groups}: the cluster has ${found.length} beside group 0; make them: barge group create --count ${groups - found.length}`,
    );
  }
  return found.slice(0, groups).map(({ id }) => id);
}

async function makeGroups(client: Client, count: number, machine: string): Promise<number[]> {
  for (let tries = 1; ; tries++) {
    try {
      const kind = machine === "null" ? "null" : "kv";
      const body = { request: crypto.randomUUID(), count, machine: kind } as const;
      const { groups } = await client.admin("createGroups", body, { timeoutMs: makeMs });
      return groups.map(({ id }) => id);
    } catch (error) {
      // The registry begins a moment after the cluster.
      if (tries === makeTries || !(error instanceof BargeError)) throw error;
      await Bun.sleep(makeMs / makeTries);
    }
  }
}

/**
 * New groups are led by whoever was elected first, and handed over until all nodes lead alike. Waits for that, so that no hand-over falls into what is measured; but
 * not forever, for nothing says that a cluster has to come to it.
 */
export async function untilSpread(groups: readonly Client[]): Promise<void> {
  const apart = leadsApart + groups.length * leadsApartShare;
  let last = "";
  let calm = 0;
  for (let left = spreadMs / lookMs; left > 0 && calm < calmLooks; left--) {
    const leaders = groups.map((group) => group.leader() ?? "");
    const leads = new Map<string, number>();
    for (const leader of leaders) leads.set(leader, (leads.get(leader) ?? 0) + 1);
    const counts = [...leads.values()];
    const isEven =
      counts.length === Math.min(nodeCount, groups.length) &&
      Math.max(...counts) - Math.min(...counts) <= apart;
    const now = leaders.join();
    calm = isEven && now === last ? calm + 1 : 0;
    last = now;
    await Bun.sleep(lookMs);
  }
}

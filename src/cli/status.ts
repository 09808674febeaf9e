/** `barge status`: one table over all nodes of a cluster, those included that do not answer. */
import type { Command } from "commander";
import { BargeError, type Client, type NodeStatus } from "../client/index.ts";
import {
  clientCommand,
  type ClientFlags,
  printJson,
  printLine,
  withClient,
} from "./client-options.ts";
import { exitStatus } from "./exit-status.ts";
import { notesOn } from "./status-notes.ts";
import { alignColumns } from "./table.ts";

type Group = NodeStatus["groups"][number];

interface StatusFlags extends ClientFlags {
  readonly watch?: boolean;
}

/** One node as it was found. */
interface Found {
  readonly address: string;
  readonly nodeId: number | undefined;
  readonly status: NodeStatus | undefined;
  readonly error: string | undefined;
}

const examples = `  barge status --endpoints 127.0.0.1:9091
  barge status --watch`;

const watchMs = 1_000;
/** A node that is down must not keep the table waiting for the whole time-out. */
const nodeTimeoutMs = 1_500;

export function statusCommand(): Command {
  return clientCommand(
    "status",
    "Shows every node of the cluster, and what is under way: transfers of leadership, snapshots, healing. Ends with 3 when no node answers.",
    examples,
  )
    .option("--watch", "show it again every second, until Ctrl-C")
    .action(status);
}

async function status(flags: StatusFlags): Promise<void> {
  await withClient(flags, async (client, answered) => {
    for (;;) {
      const found = await findAll(client, Math.min(flags.timeout, nodeTimeoutMs));
      answered();
      process.exitCode = statusOf(found, flags.group);
      if (flags.json === true) await printJson({ nodes: found.map(asJson) });
      else await printTable(found, flags);
      if (flags.watch !== true) return;
      await Bun.sleep(watchMs);
    }
  });
}

function statusOf(found: readonly Found[], group: number): number {
  if (found.some((node) => groupOf(node, group) !== undefined)) return exitStatus.ok;
  const reached = found.some((node) => node.status !== undefined);
  return reached ? exitStatus.usage : exitStatus.unreachable;
}

/** Asks the nodes that were given, then those that they name. */
async function findAll(client: Client, timeoutMs: number): Promise<Found[]> {
  const asked = new Map<string, Promise<Found>>();
  const ask = (address: string): void => {
    if (!asked.has(address)) asked.set(address, askOne(client, address, timeoutMs));
  };
  for (const endpoint of client.endpoints()) ask(endpoint);
  const ids = new Map<string, number>();
  for (const { status: known } of await Promise.all(asked.values())) {
    for (const { id, address } of known?.groups.flatMap((group) => group.members) ?? []) {
      ids.set(address, id);
    }
  }
  const first = await Promise.all(asked.values());
  const reachedIds = new Set(first.map((found) => found.nodeId));
  for (const [address, id] of ids) if (!reachedIds.has(id)) ask(address);
  const all = await Promise.all(asked.values());
  const named = all.map((found) => ({ ...found, nodeId: found.nodeId ?? ids.get(found.address) }));
  return withoutRepeats(named).sort((a, b) => (a.nodeId ?? Infinity) - (b.nodeId ?? Infinity));
}

/** A node may have been asked under two names: one row for it, an answer before a failure. */
function withoutRepeats(found: readonly Found[]): Found[] {
  const answered = new Set<number>();
  return found
    .toSorted((a, b) => Number(b.status !== undefined) - Number(a.status !== undefined))
    .filter(({ nodeId }) => {
      if (nodeId === undefined) return true;
      const isNew = !answered.has(nodeId);
      answered.add(nodeId);
      return isNew;
    });
}

async function askOne(client: Client, address: string, timeoutMs: number): Promise<Found> {
  try {
    const reply = await client.status(address, { timeoutMs });
    return { address, nodeId: reply.nodeId, status: reply, error: undefined };
  } catch (error) {
    if (!(error instanceof BargeError)) throw error;
    return { address, nodeId: undefined, status: undefined, error: error.message };
  }
}

function asJson({ address, nodeId, status: reply, error }: Found): object {
  return reply === undefined
    ? { address, nodeId, reachable: false, error }
    : { address, reachable: true, ...reply };
}

const titles = ["id", "address", "role", "term", "leader", "commit", "applied", "lag"] as const;
const moreTitles = ["log", "disk", "version", "health"] as const;
/** Columns of text; the others are numbers and stand at the right. */
const leftColumns = new Set(["address", "role", "version", "health"]);

async function printTable(found: readonly Found[], flags: StatusFlags): Promise<void> {
  const group = flags.group;
  const commits = found.map((node) => groupOf(node, group)?.commitIndex ?? 0);
  const commit = Math.max(0, ...commits);
  const rows = found.map((node) => cells(node, group, commit));
  const text = alignColumns([[...titles, ...moreTitles], ...rows], leftColumns);
  const clear = flags.watch === true && process.stdout.isTTY === true ? "\u001b[H\u001b[2J" : "";
  const below = found.flatMap((node) => notes(node, group)).map((note) => `\n${note}`);
  await printLine(clear + text + below.join(""));
}

function notes(node: Found, groupId: number): readonly string[] {
  const { nodeId, error } = node;
  if (error !== undefined) return [error];
  const group = groupOf(node, groupId);
  const notes = group === undefined || nodeId === undefined ? [] : notesOn(nodeId, group, sizeText);
  const strangers =
    node.status?.incompatible?.map((each) => `node ${nodeId}: ${each.message}`) ?? [];
  const findings = node.status?.scrub?.findings.map((found) => `node ${nodeId}: ${found}`) ?? [];
  return [...notes, ...strangers, ...findings];
}

/** A learner follows too, but that is not what one wants to know of it. */
function roleOf(nodeId: number | undefined, { role, members }: Group): string {
  const isLearner = members.some(({ id, voter }) => id === nodeId && !voter);
  return role === "follower" && isLearner ? "learner" : role;
}

function groupOf({ status: reply }: Found, id: number): Group | undefined {
  return reply?.groups.find((group) => group.id === id);
}

function cells(node: Found, groupId: number, commit: number): string[] {
  const id = node.nodeId === undefined ? "?" : String(node.nodeId);
  const reply = node.status;
  if (reply === undefined) return [id, node.address, "unreachable"];
  const group = groupOf(node, groupId);
  if (group === undefined) return [id, node.address, `no group ${groupId}`];
  return [
    id,
    node.address,
    roleOf(node.nodeId, group),
    String(group.term),
    group.leader === 0 ? "none" : String(group.leader),
    String(group.commitIndex),
    String(group.appliedIndex),
    String(Math.max(0, commit - group.appliedIndex)),
    sizeText(group.logBytes),
    sizeText(reply.diskBytes),
    reply.version,
    reply.health,
  ];
}

const units = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1_024 && unit < units.length - 1) {
    value /= 1_024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

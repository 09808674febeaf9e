/**
 * `barge status`: one table over all nodes of a cluster, those included that do not answer. With one group, how each node stands in it; with many, how many of them each
 * node has and leads, and those that need a look (status-groups.ts).
 */
import { type Command, Option } from "commander";
import { BargeError, type Client, type GroupBrief, type NodeStatus } from "../client/index.ts";
import {
  clientCommand,
  type ClientFlags,
  printJson,
  nodeIdMax,
  printLine,
  wholeNumber,
  withClient,
} from "./client-options.ts";
import { exitStatus } from "./exit-status.ts";
import {
  type Choice,
  choose,
  type GroupLine,
  hasMany,
  linesOf,
  orders,
  summaryText,
  tableOf,
  troubles,
} from "./status-groups.ts";
import { notesOn } from "./status-notes.ts";
import { alignColumns } from "./table.ts";

type Group = NodeStatus["groups"][number];

interface StatusFlags extends ClientFlags, Choice {
  readonly watch?: boolean;
  readonly groups?: boolean;
  readonly all?: boolean;
}

/** What is to be shown. */
interface View extends StatusFlags {
  /** Somebody named the group: how the nodes stand in it is asked for. */
  readonly isNamed: boolean;
}

/** One node as it was found. */
interface Found {
  readonly address: string;
  readonly nodeId: number | undefined;
  readonly status: NodeStatus | undefined;
  readonly error: string | undefined;
}

const examples = `  barge status --endpoints 127.0.0.1:9091
  barge status --watch
  barge status --group 17                 how the nodes stand in group 17
  barge status --groups                   a line of each group
  barge status --only no-leader           those that have none
  barge status --groups --sort state      the largest first`;

const watchMs = 1_000;
/** A node that is down must not keep the table waiting for the whole time-out. */
const nodeTimeoutMs = 1_500;
/** Groups in a list that nobody asked all of, and below the table of the nodes. */
const linesUsual = 40;
const suspectsMax = 10;

export function statusCommand(): Command {
  return clientCommand(
    "status",
    "Shows every node of the cluster, and what is under way: transfers of leadership, snapshots, healing. Ends with 3 when no node answers.",
    examples,
  )
    .option("--watch", "show it again every second, until Ctrl-C")
    .option("--groups", "a line of each group instead of the nodes")
    .addOption(new Option("--only <trouble>", "groups with that trouble").choices(troubles))
    .option("--led-by <id>", "groups that this node leads", wholeNumber(1, nodeIdMax))
    .option("--on <id>", "groups that this node has a copy of", wholeNumber(1, nodeIdMax))
    .addOption(
      new Option("--sort <by>", "groups with the most first, or by id")
        .choices(orders)
        .default("id"),
    )
    .option("--limit <n>", "so many groups", wholeNumber(1, 1_000_000), linesUsual)
    .option("--all", "all groups that there are")
    .action(status);
}

async function status(flags: StatusFlags, command: Command): Promise<void> {
  const view = { ...flags, isNamed: command.getOptionValueSource("group") !== "default" };
  const isOfGroups =
    flags.groups ?? [flags.only, flags.ledBy, flags.on].some((it) => it !== undefined);
  await withClient(flags, async (client, answered) => {
    for (;;) {
      const timeoutMs = Math.min(flags.timeout, nodeTimeoutMs);
      const found = await findAll(client, view, timeoutMs);
      answered();
      process.exitCode = statusOf(found, flags.group);
      if (isOfGroups) await printGroups(await askBriefs(client, found, timeoutMs), found, view);
      else if (flags.json === true) await printJson({ nodes: found.map(asJson) });
      else if (view.isNamed || !hasMany(found.map((node) => node.status))) {
        await printTable(found, flags);
      } else await printNodes(found, await askBriefs(client, found, timeoutMs), view);
      if (flags.watch !== true) return;
      await Bun.sleep(watchMs);
    }
  });
}

/** What all nodes that answer say of their groups, a line of each. */
async function askBriefs(
  client: Client,
  found: readonly Found[],
  timeoutMs: number,
): Promise<GroupLine[]> {
  const ask = async ({ address, status: known, nodeId }: Found) => {
    // A build that knows no lines has one group.
    if (known?.summary === undefined || nodeId === undefined) return { nodeId: 0, briefs: [] };
    const briefs: GroupBrief[] = [];
    for (let more = true; more;) {
      const after: number | undefined = briefs.at(-1)?.id;
      const page: NodeStatus | undefined = await client
        .status(address, { brief: true, after, timeoutMs })
        .catch(() => undefined);
      briefs.push(...(page?.briefs ?? []));
      more = page?.more === true;
    }
    return { nodeId, briefs };
  };
  const largeBytes = Math.max(0, ...found.map((node) => node.status?.groupWarnBytes ?? 0));
  return linesOf(await Promise.all(found.map(ask)), largeBytes);
}

async function printGroups(
  lines: readonly GroupLine[],
  found: readonly Found[],
  view: View,
): Promise<void> {
  const chosen = choose(lines, view);
  if (view.json === true) return printJson({ groups: chosen });
  const shown = view.all === true ? chosen : chosen.slice(0, view.limit);
  const left = chosen.length - shown.length;
  const away = found.filter((node) => node.status === undefined);
  const text = [
    summaryText(lines, sizeText),
    ...(shown.length > 0 ? [tableOf(shown, sizeText)] : ["none of that kind"]),
    ...(left > 0 ? [`and ${left} more: --all`] : []),
    ...away.map(({ address, error }) => `${address} does not answer: ${error}`),
  ];
  await printLine(clearText(view) + text.join("\n"));
}

const nodeTitles = [
  "id",
  "address",
  "groups",
  "leads",
  "log",
  "state",
  "disk",
  "version",
  "health",
];

/** The nodes first, then what is not well. */
async function printNodes(
  found: readonly Found[],
  lines: readonly GroupLine[],
  view: View,
): Promise<void> {
  const rows = found.map(({ nodeId, address, status: reply }) => {
    const id = nodeId === undefined ? "?" : String(nodeId);
    if (reply === undefined) return [id, address, "unreachable"];
    const { total = 1, leads = 0, logBytes = 0, stateBytes = 0 } = reply.summary ?? {};
    const sizes = [logBytes, stateBytes, reply.diskBytes].map(sizeText);
    return [id, address, String(total), String(leads), ...sizes, reply.version, reply.health];
  });
  const suspects = lines.filter(({ trouble }) => trouble.length > 0);
  const left = suspects.length - suspectsMax;
  const text = [
    alignColumns([nodeTitles, ...rows], leftColumns),
    ...found.flatMap((node) => notes(node, view.group)),
    `${summaryText(lines, sizeText)}; a line of each: barge status --groups`,
    ...(suspects.length > 0 ? [tableOf(suspects.slice(0, suspectsMax), sizeText)] : []),
    ...(left > 0 ? [`and ${left} more: barge status --groups --only …`] : []),
  ];
  await printLine(clearText(view) + text.join("\n"));
}

/** Where it is shown again and again, at the top. */
function clearText({ watch }: StatusFlags): string {
  return watch === true && process.stdout.isTTY === true ? "\u001b[H\u001b[2J" : "";
}

function statusOf(found: readonly Found[], group: number): number {
  if (found.some((node) => groupOf(node, group) !== undefined)) return exitStatus.ok;
  const reached = found.some((node) => node.status !== undefined);
  return reached ? exitStatus.usage : exitStatus.unreachable;
}

/** Asks the nodes that were given, then those that they name. */
async function findAll(client: Client, view: View, timeoutMs: number): Promise<Found[]> {
  const asked = new Map<string, Promise<Found>>();
  // Group 0 knows where the nodes are.
  const groups = view.isNamed ? [...new Set([0, view.group])] : undefined;
  const ask = (address: string): void => {
    if (!asked.has(address)) asked.set(address, askOne(client, address, groups, timeoutMs));
  };
  for (const endpoint of client.endpoints()) ask(endpoint);
  const ids = new Map<string, number>();
  for (const { status: known } of await Promise.all(asked.values())) {
    const cluster = known?.groups.find((group) => group.id === 0);
    for (const { id, address } of cluster?.members ?? []) ids.set(address, id);
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

async function askOne(
  client: Client,
  address: string,
  groups: readonly number[] | undefined,
  timeoutMs: number,
): Promise<Found> {
  try {
    const reply = await client.status(address, { groups, timeoutMs });
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
  const below = found.flatMap((node) => notes(node, group)).map((note) => `\n${note}`);
  await printLine(clearText(flags) + text + below.join(""));
}

function notes(node: Found, groupId: number): readonly string[] {
  const { nodeId, error } = node;
  if (error !== undefined) return [error];
  const group = groupOf(node, groupId);
  const notes = group === undefined || nodeId === undefined ? [] : notesOn(nodeId, group, sizeText);
  const strangers =
    node.status?.incompatible?.map((each) => `node ${nodeId}: ${each.message}`) ?? [];
  const unopened =
    node.status?.unopened?.map(
      ({ group: id, message }) => `node ${nodeId} cannot open group ${id}: ${message}`,
    ) ?? [];
  const findings = node.status?.scrub?.findings.map((found) => `node ${nodeId}: ${found}`) ?? [];
  return [...notes, ...largeNote(node, group), ...strangers, ...unopened, ...findings];
}

/** One node's word is enough, as all have the same state. */
function largeNote({ nodeId, status: reply }: Found, group: Group | undefined): readonly string[] {
  const { groupWarnBytes = 0 } = reply ?? {};
  const bytes = group?.stateBytes ?? 0;
  if (group?.leader !== nodeId || groupWarnBytes === 0 || bytes <= groupWarnBytes) return [];
  return [
    `group ${group!.id} is large, ${sizeText(bytes)}: it is sent whole to who needs it; several smaller groups serve better`,
  ];
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

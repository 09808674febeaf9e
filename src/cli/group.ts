/** `barge group`: which groups there are, and changes of them. Any node may be asked; to repeat a change does no harm. */
import { Command, InvalidArgumentError, Option } from "commander";
import { type Client, type CreateGroupsOptions, type GroupEntry } from "../client/index.ts";
import {
  clientCommand,
  type ClientFlags,
  groupIdMax,
  groupIdOf,
  idOrName,
  nodeIdMax,
  printJson,
  printLine,
  wholeNumber,
  withClient,
} from "./client-options.ts";
import { alignColumns } from "./table.ts";

interface ListFlags extends ClientFlags {
  readonly all?: boolean;
  readonly member?: number;
}

interface CreateFlags extends ClientFlags {
  readonly count?: number;
  readonly id?: number;
  readonly name?: string;
  readonly members?: readonly number[];
  readonly replicas?: number;
  readonly machine?: "kv" | "http" | "null";
  readonly logBytesMax?: number;
}

interface MoveFlags extends ClientFlags {
  readonly members: readonly number[];
  readonly wait?: boolean;
}

const countMax = 10_000;
const membersMax = 9;
const logBytesMin = 1024 * 1024;
/** Rows of a list that nobody asked all of. */
const rowsUsual = 40;
const pollMs = 250;

export function groupCommand(): Command {
  const command = new Command("group").description(
    "Shows, makes, moves and removes groups: each is a log and a set of keys of its own, on some of the nodes.",
  );
  for (const sub of [list(), create(), move(), remove()]) command.addCommand(sub);
  return command.addHelpText("after", `\nExamples:\n${examples}`);
}

const examples = `  barge group create --name orders
  barge group create --count 100
  barge group list
  barge group move orders --members 1,2,4
  barge group remove 17`;

function list(): Command {
  return clientCommand(
    "list",
    "Lists the groups, and the nodes that are to host them. Who leads them, and how they are: barge status.",
    `  barge group list --member 3
  barge group list --json`,
  )
    .option("--all", `all of them, also where they are more than ${rowsUsual}`)
    .option("--member <id>", "those that this node hosts", wholeNumber(1, nodeIdMax))
    .action(async (flags: ListFlags) => {
      const groups = await withClient(flags, (client) => client.listGroups());
      const { member } = flags;
      const chosen = groups.filter(
        ({ members, leaving }) =>
          member === undefined || members.includes(member) || leaving.includes(member),
      );
      if (flags.json === true) return printJson({ groups: chosen });
      await printLine(summaryOf(groups));
      const shown = flags.all === true ? chosen : chosen.slice(0, rowsUsual);
      if (shown.length > 0) await printLine(tableOf(shown));
      const left = chosen.length - shown.length;
      if (left > 0) await printLine(`and ${left} more: barge group list --all`);
    });
}

function create(): Command {
  return clientCommand(
    "create",
    "Makes groups. Each gets an id that no group ever had.",
    `  barge group create --name orders --members 1,2,3
  barge group create --count 1000`,
  )
    .option("--count <n>", "so many", wholeNumber(1, countMax))
    .option("--id <id>", "of the first one; the others follow on it", wholeNumber(1, groupIdMax))
    .option("--name <name>", "to call it by on the command line; programs use the id")
    .option(
      "--members <ids>",
      "nodes that host them, such as 1,2,4; else those that host the fewest",
      nodeIds,
    )
    .option(
      "--replicas <n>",
      "so many nodes host each: 3, or all there are",
      wholeNumber(1, membersMax),
    )
    .addOption(
      new Option(
        "--machine <kind>",
        "kv keeps keys, http is the application beside the nodes, null counts commands and forgets them; else that of group 0",
      ).choices(["kv", "http", "null"]),
    )
    .option(
      "--log-bytes-max <bytes>",
      "refuse writes while its log is larger",
      wholeNumber(logBytesMin, Number.MAX_SAFE_INTEGER),
    )
    .action(async (flags: CreateFlags) => {
      const groups = await withClient(flags, (client) => client.createGroups(chosen(flags)));
      if (flags.json === true) return printJson({ groups });
      if (groups.length > rowsUsual) return printLine(`${groups.length} groups: ${runsOf(groups)}`);
      await printLine(tableOf(groups));
    });
}

/** But for what is the client's. */
function chosen(flags: CreateFlags): CreateGroupsOptions {
  const { count, id, name, members, replicas, machine, logBytesMax } = flags;
  return { count, id, name, members, replicas, machine, logBytesMax };
}

function move(): Command {
  return clientCommand(
    "move",
    "Has a group hosted by these nodes. New ones get all of it before they vote, and only then the others drop it.",
    `  barge group move 5 --members 1,2,4 --wait
  barge group move orders --members 2,3,4`,
  )
    .argument("<group>", "id or name", idOrName(1))
    .requiredOption("--members <ids>", "nodes that are to host it, such as 1,2,4", nodeIds)
    .option("--wait", "until it is there, however long that takes")
    .action(async (group: number | string, flags: MoveFlags) => {
      const moved = await withClient(flags, async (client, answered) => {
        const id = await groupIdOf(client, group);
        const done = await client.moveGroup(id, flags.members);
        answered();
        return flags.wait === true ? untilMoved(client, done) : done;
      });
      await (flags.json === true ? printJson(moved) : printLine(tableOf([moved])));
    });
}

function remove(): Command {
  return clientCommand(
    "remove",
    "Removes groups with all that they hold, for good: their ids are never used again.",
    "  barge group remove 17 18",
  )
    .argument("<group...>", "ids or names", idsOrNames)
    .action(async (given: readonly (number | string)[], flags: ClientFlags) => {
      const removed = await withClient(flags, async (client) => {
        const groups: number[] = [];
        for (const group of given) groups.push(await groupIdOf(client, group));
        return client.removeGroups(groups);
      });
      if (flags.json === true) return printJson({ removed });
      await printLine(removed.length === 0 ? "removed before" : `removed ${removed.join(", ")}`);
    });
}

/** The old members drop it once the group's leader has said that it is without them. */
async function untilMoved(client: Client, first: GroupEntry): Promise<GroupEntry> {
  let entry = first;
  while (entry.leaving.length > 0) {
    await Bun.sleep(pollMs);
    const groups = await client.listGroups();
    const found = groups.find(({ id }) => id === first.id);
    if (found === undefined) return entry;
    entry = found;
  }
  return entry;
}

/* ------------------------------------------------------------------ arguments and tables */

function idsOrNames(
  text: string,
  before: readonly (number | string)[] | undefined,
): readonly (number | string)[] {
  return [...(before ?? []), idOrName(1)(text)];
}

function nodeIds(text: string): readonly number[] {
  const ids = text.split(",").map(wholeNumber(1, nodeIdMax));
  if (ids.length <= membersMax && new Set(ids).size === ids.length) return ids;
  throw new InvalidArgumentError(
    `It must be at most ${membersMax} nodes, each once, such as 1,2,4.`,
  );
}

const titles = ["group", "name", "machine", "members", "leaving"] as const;
const leftColumns = new Set<string>(["name", "machine", "members", "leaving"]);

function tableOf(groups: readonly GroupEntry[]): string {
  const rows = groups.map(({ id, name, machine, members, leaving }) => [
    String(id),
    name ?? "-",
    machine,
    members.join(","),
    leaving.length === 0 ? "-" : leaving.join(","),
  ]);
  return alignColumns([titles, ...rows], leftColumns);
}

/** How many there are, how many each node hosts, and what is under way. */
function summaryOf(groups: readonly GroupEntry[]): string {
  if (groups.length === 0) return "group 0 alone; barge group create makes more";
  const loads = new Map<number, number>();
  for (const { members } of groups) {
    for (const id of members) loads.set(id, (loads.get(id) ?? 0) + 1);
  }
  const moving = groups.filter(({ leaving }) => leaving.length > 0).length;
  const shares = [...loads].sort(([a], [b]) => a - b).map(([id, load]) => `node ${id}: ${load}`);
  const count = groups.length === 1 ? "1 group" : `${groups.length} groups`;
  return `${count} besides group 0; ${shares.join(", ")}${moving === 0 ? "" : `; ${moving} on the way`}`;
}

/** `1-1000`, or `3, 5-9`. */
function runsOf(groups: readonly GroupEntry[]): string {
  const runs: [number, number][] = [];
  for (const id of groups.map((group) => group.id).toSorted((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] + 1 === id) last[1] = id;
    else runs.push([id, id]);
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ");
}

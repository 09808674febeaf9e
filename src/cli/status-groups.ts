/** Many groups for people: what all nodes say of each, put together; a line of each, those that need a look first to be found. Pure. */
import type { GroupBrief, NodeStatus } from "../client/index.ts";
import { alignColumns } from "./table.ts";

/** A group as all nodes together have it. */
export interface GroupLine {
  readonly id: number;
  /** Node id; 0 = none. */
  readonly leader: number;
  readonly term: number;
  readonly members: readonly number[];
  readonly commitIndex: number;
  /** Of the member that is furthest behind, among those that answered. */
  readonly lag: number;
  /** Of the largest copy. */
  readonly logBytes: number;
  readonly stateBytes: number;
  readonly trouble: readonly Trouble[];
}

export const troubles = [
  "no-leader",
  "stopped",
  "wounded",
  "no-application",
  "lagging",
  "large",
] as const;
export type Trouble = (typeof troubles)[number];

export const orders = ["id", "lag", "log", "state", "commit"] as const;
export type Order = (typeof orders)[number];

export interface Choice {
  readonly only?: Trouble | undefined;
  readonly ledBy?: number | undefined;
  readonly on?: number | undefined;
  readonly sort: Order;
  readonly limit: number;
}

/** Commands that a member may be behind without being worth a look. */
const lagUsual = 1_000;
/** The nodes' own group. */
const systemGroup = 0xffff_ffff;

export interface Said {
  readonly nodeId: number;
  readonly briefs: readonly GroupBrief[];
}

/** `largeBytes`: more state than that is large; 0 = none is. */
export function linesOf(said: readonly Said[], largeBytes: number): GroupLine[] {
  const copies = new Map<number, GroupBrief[]>();
  for (const { briefs } of said) {
    for (const brief of briefs) {
      const known = copies.get(brief.id);
      if (known === undefined) copies.set(brief.id, [brief]);
      else known.push(brief);
    }
  }
  return [...copies.values()].map((each) => lineOf(each, largeBytes)).sort((a, b) => a.id - b.id);
}

function lineOf(copies: readonly GroupBrief[], largeBytes: number): GroupLine {
  const newest = copies.reduce((best, copy) => (isNewer(copy, best) ? copy : best));
  const { id, leader, term, members } = newest;
  const commitIndex = Math.max(...copies.map((copy) => copy.commitIndex));
  const lag = Math.max(...copies.map((copy) => commitIndex - copy.appliedIndex));
  const stateBytes = Math.max(...copies.map((copy) => copy.stateBytes));
  const trouble: Trouble[] = [];
  if (leader === 0) trouble.push("no-leader");
  if (copies.some(({ role }) => role === "stopped")) trouble.push("stopped");
  if (copies.some(({ wounded }) => wounded === true)) trouble.push("wounded");
  if (copies.some(({ waits }) => waits === true)) trouble.push("no-application");
  if (lag > lagUsual) trouble.push("lagging");
  if (largeBytes > 0 && stateBytes > largeBytes) trouble.push("large");
  const logBytes = Math.max(...copies.map((copy) => copy.logBytes));
  return { id, leader, term, members, commitIndex, lag, logBytes, stateBytes, trouble };
}

/** A node that is cut off may believe in a leader of an old term. */
function isNewer(copy: GroupBrief, than: GroupBrief): boolean {
  if (copy.term !== than.term) return copy.term > than.term;
  return copy.leader !== 0 && than.leader === 0;
}

/** Those that were asked for, all of them: the limit is for who prints. */
export function choose(
  lines: readonly GroupLine[],
  { only, ledBy, on, sort }: Choice,
): GroupLine[] {
  const key = keys[sort];
  return lines
    .filter(({ trouble }) => only === undefined || trouble.includes(only))
    .filter(({ leader }) => ledBy === undefined || leader === ledBy)
    .filter(({ members }) => on === undefined || members.includes(on))
    .sort((a, b) => (sort === "id" ? a.id - b.id : key(b) - key(a) || a.id - b.id));
}

const keys: { readonly [O in Order]: (line: GroupLine) => number } = {
  id: ({ id }) => id,
  lag: ({ lag }) => lag,
  log: ({ logBytes }) => logBytes,
  state: ({ stateBytes }) => stateBytes,
  commit: ({ commitIndex }) => commitIndex,
};

const titles = ["group", "leader", "term", "members", "commit", "lag", "log", "state", ""] as const;
const leftColumns = new Set<string>(["members", ""]);

/** `size`: bytes for people. */
export function tableOf(lines: readonly GroupLine[], size: (bytes: number) => string): string {
  const rows = lines.map((line) => [
    line.id === systemGroup ? "system" : String(line.id),
    line.leader === 0 ? "none" : String(line.leader),
    String(line.term),
    line.members.join(","),
    String(line.commitIndex),
    String(line.lag),
    size(line.logBytes),
    size(line.stateBytes),
    line.trouble.join(", "),
  ]);
  return alignColumns([titles, ...rows], leftColumns);
}

/** How many there are of each kind, in a line. */
export function summaryText(lines: readonly GroupLine[], size: (bytes: number) => string): string {
  const own = lines.filter(({ id }) => id !== systemGroup);
  const parts = troubles.flatMap((trouble) => {
    const count = lines.filter((line) => line.trouble.includes(trouble)).length;
    return count === 0 ? [] : [`${count} ${trouble}`];
  });
  const bytes = own.reduce((sum, { stateBytes }) => sum + stateBytes, 0);
  const how = parts.length === 0 ? "all well" : parts.join(", ");
  return `${own.length} ${own.length === 1 ? "group" : "groups"}, ${size(bytes)}: ${how}`;
}

/** More groups than the one that there is at first, on some node. */
export function hasMany(found: readonly (NodeStatus | undefined)[]): boolean {
  return found.some((status) => (status?.summary?.total ?? 1) > 1);
}

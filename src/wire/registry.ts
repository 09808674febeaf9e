/**
 * The registry: which groups there are, on which nodes. It is what the group `system` keeps under its keys, written by its leader in transactions that compare
 * what they change, and followed by every node. Pure.
 *
 *     group/<id>    one group: RegistryEntry
 *     name/<name>   its id, where it has a name
 *     ids           the ids that were ever given: one that was removed never comes back
 *     going         the nodes that leave the cluster: GoingNode, in the order in which that was noted
 */
import * as v from "valibot";
import { isRecord, packControl, unpackControl } from "./control-codec.ts";

/** The one group that is there from the beginning, on all nodes: its members are those of the cluster. */
export const defaultGroup = 0;
/** The group that keeps the registry. It is on all nodes as well. */
export const systemGroup = 0xffff_ffff;
/** Ids that groups may have. */
export const groupIdMin = 1;
export const groupIdMax = 0xffff_fffe;
/** Of one group. */
export const groupMembersMax = 9;
export const groupNameCharactersMax = 128;
/** Of one group, as decoded. Each node is among them at most once, and none that the cluster is without: there are never more than it has members. */
export const lingeringMax = 16_384;
/** Nodes that leave the cluster at once, as decoded; there are never more than it has members. */
const goingMax = 16_384;
/** Runs of ids; one more comes with each id that is chosen apart from all others. */
export const idRunsMax = 4_096;

/** A node that has, or is to have, a replica. */
export interface GroupMember {
  readonly id: number;
  /** Its data folder: a replica in another one never votes in its name. */
  readonly incarnation: string;
  /** The version of the entry with which it became a member. From the first one on, it begins with the group's first log; later ones get theirs from the leader. */
  readonly since: number;
  /** It was a member before, up to that term: only a later one takes it in again, so that nothing that it said then counts now. */
  readonly aboveTerm?: number | undefined;
}

export interface Founder {
  readonly id: number;
  readonly incarnation: string;
}

/** A former member, and the term up to which it may have been heard. */
export interface FormerMember {
  readonly id: number;
  readonly term: number;
}

/**
 * A node that is no member any more, and has not said yet that it has dropped its replica: it may answer for it still. An older build knows nothing of it: on the
 * leader of `system` it takes such a node back at once.
 */
export interface LingeringMember {
  readonly id: number;
  /** The version of the entry with which it left: what is said of an earlier stay means nothing for this one. */
  readonly left: number;
}

/**
 * A node that leaves the cluster, as a leader of group 0 has it: before it lets the node go. What places replicas compares these, so none that was thought out before
 * comes to it afterwards.
 */
export interface GoingNode {
  readonly id: number;
  /** Of group 0, in which its leader said so, and the how manieth word of it that was: a later word of the same or a later leader takes it back, no earlier one. */
  readonly term: number;
  readonly word: number;
  /** What is lost with it may be. */
  readonly forced?: true | undefined;
}

/** One group, as it is to be: its leader sees to it that it is. */
export interface RegistryEntry {
  readonly id: number;
  readonly name?: string | undefined;
  /** Kind of its state machine. */
  readonly machine: string;
  /** From its first log on. */
  readonly applyVersion: number;
  /** Above it writes are refused; the nodes' own bound, if nothing is said. */
  readonly logBytesMax?: number | undefined;
  /** How many members it is to have: where a node is removed from the cluster, another takes its place as long as there is one. */
  readonly replicas: number;
  /** Its voters. */
  readonly members: readonly GroupMember[];
  /** They are not to be members any more, and are until the group's leader says that its configuration is without them. */
  readonly leaving: readonly GroupMember[];
  /** The voters of its first log: the same bytes on each of them. */
  readonly founders: readonly Founder[];
  readonly former?: readonly FormerMember[] | undefined;
  /** They do not come back before they have dropped what they had. */
  readonly lingering?: readonly LingeringMember[] | undefined;
  /** Of who asked for it: asked again, it is not made twice. */
  readonly request?: string | undefined;
  /** Rises by one with each change. */
  readonly version: number;
}

/** First and last of a run of ids. */
export type IdRun = readonly [number, number];

const textEncoder = new TextEncoder();
const u32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
const nodeId = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0xffff_fffe));
const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const text = v.pipe(v.string(), v.maxLength(128));

export const groupId = v.pipe(
  v.number(),
  v.integer(),
  v.minValue(groupIdMin),
  v.maxValue(groupIdMax, `ids of groups go from ${groupIdMin} to ${groupIdMax}`),
);
export const groupName = v.pipe(
  v.string(),
  v.maxLength(groupNameCharactersMax),
  v.regex(
    /^[A-Za-z_][A-Za-z0-9_.-]*$/,
    "a name is letters, digits, _ . and -, and begins with a letter or _",
  ),
);

const member = v.object({
  id: nodeId,
  incarnation: text,
  since: whole,
  aboveTerm: v.optional(whole),
});
const members = v.pipe(v.array(member), v.maxLength(2 * groupMembersMax));

/** A newer build may add to it. */
const entry = v.object({
  id: groupId,
  name: v.optional(groupName),
  machine: text,
  applyVersion: u32,
  logBytesMax: v.optional(whole),
  replicas: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(groupMembersMax)),
  members: v.pipe(members, v.minLength(1)),
  leaving: members,
  founders: v.pipe(
    v.array(v.strictObject({ id: nodeId, incarnation: text })),
    v.minLength(1),
    v.maxLength(groupMembersMax),
  ),
  former: v.optional(
    v.pipe(v.array(v.strictObject({ id: nodeId, term: whole })), v.maxLength(1_024)),
  ),
  lingering: v.optional(
    v.pipe(v.array(v.strictObject({ id: nodeId, left: whole })), v.maxLength(lingeringMax)),
  ),
  request: v.optional(text),
  version: v.pipe(whole, v.minValue(1)),
});

export const groupPrefix: Uint8Array = textEncoder.encode("group/");
export const idsKey: Uint8Array = textEncoder.encode("ids");
export const goingKey: Uint8Array = textEncoder.encode("going");

export function groupKey(id: number): Uint8Array {
  return textEncoder.encode(`group/${String(id).padStart(10, "0")}`);
}

export function nameKey(name: string): Uint8Array {
  return textEncoder.encode(`name/${name}`);
}

export function encodeEntry(value: RegistryEntry): Uint8Array {
  const { name, logBytesMax, former, lingering, request, members: all, leaving, ...rest } = value;
  return packControl({
    ...rest,
    members: all.map(plainMember),
    leaving: leaving.map(plainMember),
    ...(name === undefined ? {} : { name }),
    ...(logBytesMax === undefined ? {} : { logBytesMax }),
    ...(request === undefined ? {} : { request }),
    ...(former === undefined || former.length === 0 ? {} : { former }),
    ...(lingering === undefined || lingering.length === 0 ? {} : { lingering }),
  });
}

function plainMember({ aboveTerm, ...rest }: GroupMember): object {
  return aboveTerm === undefined ? rest : { ...rest, aboveTerm };
}

/** Undefined where the bytes are no entry. */
export function decodeEntry(bytes: Uint8Array): RegistryEntry | undefined {
  const result = v.safeParse(entry, unpackControl(bytes));
  return result.success ? result.output : undefined;
}

export function encodeIds(runs: readonly IdRun[]): Uint8Array {
  return packControl({ runs: runs.map((run) => [...run]) });
}

/** Undefined where the bytes are no runs of ids, ascending and apart. */
export function decodeIds(bytes: Uint8Array): IdRun[] | undefined {
  const value = unpackControl(bytes);
  if (!isRecord(value) || !Array.isArray(value["runs"])) return undefined;
  const runs: IdRun[] = [];
  let above = 0;
  for (const run of value["runs"] as unknown[]) {
    if (!Array.isArray(run) || run.length !== 2) return undefined;
    const [first, last] = run as [unknown, unknown];
    if (!isId(first) || !isId(last) || first <= above || last < first) return undefined;
    // Runs that touch are one.
    if (above > 0 && first === above + 1) return undefined;
    runs.push([first, last]);
    above = last;
  }
  return runs;
}

const goingNodes = v.pipe(
  v.array(v.object({ id: nodeId, term: whole, word: whole, forced: v.optional(v.literal(true)) })),
  v.maxLength(goingMax),
);

export function encodeGoing(nodes: readonly GoingNode[]): Uint8Array {
  return packControl(
    nodes.map(({ forced, ...rest }) => (forced === true ? { ...rest, forced } : rest)),
  );
}

/** Undefined where the bytes are no such nodes. */
export function decodeGoing(bytes: Uint8Array): GoingNode[] | undefined {
  const result = v.safeParse(goingNodes, unpackControl(bytes));
  return result.success ? result.output : undefined;
}

function isId(value: unknown): value is number {
  return (
    Number.isInteger(value) && (value as number) >= groupIdMin && (value as number) <= groupIdMax
  );
}

export function wasGiven(runs: readonly IdRun[], id: number): boolean {
  return runs.some(([first, last]) => first <= id && id <= last);
}

/** With one more id. */
export function withId(runs: readonly IdRun[], id: number): IdRun[] {
  const all: IdRun[] = [];
  let [first, last] = [id, id];
  for (const run of runs) {
    if (run[1] + 1 < first || run[0] > last + 1) all.push(run);
    else [first, last] = [Math.min(first, run[0]), Math.max(last, run[1])];
  }
  all.push([first, last]);
  return all.sort(([a], [b]) => a - b);
}

/** The lowest id above all that were ever given; the lowest free one where there is none above; undefined where all were. */
export function nextId(runs: readonly IdRun[]): number | undefined {
  const [, highest] = runs.at(-1) ?? [0, 0];
  if (highest < groupIdMax) return highest + 1;
  let free = groupIdMin;
  for (const [first, last] of runs) {
    if (first > free) return free;
    free = last + 1;
  }
  return free <= groupIdMax ? free : undefined;
}

/* ------------------------------------------------------------------ how `system` begins */

/**
 * The first members of `system`: carried by the entry of group 0 that raises the apply version, and kept with its state, so that each node makes the same first log
 * of it. Of another cluster's it is void: the state may have come from a backup.
 */
export interface SystemSeed {
  readonly clusterId: string;
  /** Canonical bytes, see raft/configuration.ts. */
  readonly configuration: Uint8Array;
}

const clusterIdCharacters = 32;
export const systemSeedBytesMax: number = 64 * 1024;

/** 32 characters, then the configuration. */
export function encodeSystemSeed({ clusterId, configuration }: SystemSeed): Uint8Array {
  const bytes = new Uint8Array(clusterIdCharacters + configuration.byteLength);
  bytes.set(textEncoder.encode(clusterId.padEnd(clusterIdCharacters)));
  bytes.set(configuration, clusterIdCharacters);
  return bytes;
}

export function decodeSystemSeed(bytes: Uint8Array): SystemSeed | undefined {
  if (bytes.byteLength <= clusterIdCharacters || bytes.byteLength > systemSeedBytesMax)
    return undefined;
  const clusterId = new TextDecoder().decode(bytes.subarray(0, clusterIdCharacters)).trimEnd();
  return { clusterId, configuration: bytes.subarray(clusterIdCharacters) };
}

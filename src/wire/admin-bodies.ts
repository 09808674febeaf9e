/** The bodies of the operations of administration: their shapes, by which a node checks what it is sent. Pure. */
import * as v from "valibot";
import type { AdminBodies, AdminOperation } from "./admin.ts";
import { groupId, groupMembersMax, groupName } from "./registry.ts";

const u32Max = 0xffff_ffff;
const nodeIdMax = 0xffff_fffe;
const textCharactersMax = 512;
/** Wishes in one request. */
const changesMax = 64;

const nodeId = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(nodeIdMax));
const nodes = v.pipe(v.array(nodeId), v.minLength(1), v.maxLength(changesMax));
const address = v.pipe(
  v.string(),
  v.maxLength(textCharactersMax),
  v.regex(/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$/, "it must be HOST:PORT"),
);
const token = v.pipe(v.string(), v.maxLength(textCharactersMax));

/** What every body may say besides its own: the group, and how long the answer may take. */
const common = {
  group: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(u32Max)), 0),
  /** 0 = the node's own bound. */
  timeoutMs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(u32Max)), 0),
};

const u32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(u32Max));
const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
/** Of a leader of group 0, about nodes that leave the cluster. */
const word = { nodes, term: whole, word: whole };

/** Each once. */
const nodeIds = v.pipe(
  v.array(nodeId),
  v.minLength(1),
  v.maxLength(groupMembersMax),
  v.check((ids) => new Set(ids).size === ids.length, "a node is named twice"),
);
const groupsPerRequestMax = 10_000;
/** Less could not hold what a few clients write at once. */
const logBytesMin = 1024 * 1024;

const memberChange = v.variant("op", [
  v.strictObject({
    op: v.literal("add"),
    id: nodeId,
    address,
    /** It stays a learner; else it becomes a voter once it has caught up. */
    learner: v.optional(v.boolean(), false),
  }),
  v.strictObject({ op: v.literal("promote"), id: nodeId }),
  v.strictObject({ op: v.literal("demote"), id: nodeId }),
  v.strictObject({ op: v.literal("move"), id: nodeId, address }),
  v.strictObject({ op: v.literal("remove"), id: nodeId }),
  v.strictObject({ op: v.literal("replace"), id: nodeId, by: nodeId, address }),
]);

export const adminBodies = {
  members: v.strictObject(common),
  changeMembers: v.strictObject({
    ...common,
    changes: v.pipe(v.array(memberChange), v.minLength(1), v.maxLength(changesMax)),
    /** Also where the voters that would be left do not answer in their majority. */
    force: v.optional(v.boolean(), false),
  }),
  join: v.strictObject({
    ...common,
    id: nodeId,
    address,
    incarnation: token,
    clusterId: token,
    /** Of the cluster token; not a secret, but a sign that this cluster is meant. */
    tokenHash: token,
    /** Stay a learner. */
    learner: v.optional(v.boolean(), false),
  }),
  transferLeader: v.strictObject({ ...common, to: v.optional(nodeId), from: v.optional(nodeId) }),
  snapshot: v.strictObject({
    ...common,
    /** Kept of the log's end; the policy's where it is not said. */
    tailBytes: v.optional(whole),
  }),
  compaction: v.strictObject({
    ...common,
    entries: v.optional(whole),
    bytes: v.optional(whole),
    tailBytes: v.optional(whole),
  }),
  scrub: v.strictObject({
    ...common,
    bytesPerSecond: v.optional(whole),
    paused: v.optional(v.boolean()),
    now: v.optional(v.boolean(), false),
  }),
  backupOpen: v.strictObject({ ...common, backup: whole, local: v.optional(v.boolean(), false) }),
  backupRead: v.strictObject({ ...common, backup: whole, offset: whole }),
  backupClose: v.strictObject({ ...common, backup: whole }),
  /** The node's own time where none is given; else within its bounds. */
  sessionOpen: v.strictObject({ ...common, ttlMs: v.optional(u32) }),
  sessionKeepAlive: v.strictObject({ ...common, session: whole }),
  sessionClose: v.strictObject({ ...common, session: whole }),
  groups: v.strictObject(common),
  createGroups: v.pipe(
    v.strictObject({
      ...common,
      request: v.pipe(v.string(), v.minLength(8), v.maxLength(64)),
      count: v.optional(
        v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(groupsPerRequestMax)),
        1,
      ),
      id: v.optional(groupId),
      name: v.optional(groupName),
      machine: v.optional(v.picklist(["kv", "http", "null"])),
      replicas: v.optional(
        v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(groupMembersMax)),
      ),
      members: v.optional(nodeIds),
      logBytesMax: v.optional(v.pipe(whole, v.minValue(logBytesMin))),
    }),
    v.check(({ name, count }) => name === undefined || count === 1, "a name is for one group"),
  ),
  removeGroups: v.strictObject({
    ...common,
    groups: v.pipe(v.array(groupId), v.minLength(1), v.maxLength(groupsPerRequestMax)),
  }),
  moveGroup: v.strictObject({
    ...common,
    id: groupId,
    members: v.optional(nodeIds),
    add: v.optional(nodeIds),
    remove: v.optional(nodeIds),
  }),
  settleGroups: v.strictObject({
    ...common,
    settled: v.pipe(
      v.array(v.strictObject({ id: groupId, version: whole, term: whole })),
      v.minLength(1),
      v.maxLength(changesMax),
    ),
  }),
  dropGroups: v.strictObject({
    ...common,
    node: nodeId,
    dropped: v.pipe(
      v.array(v.strictObject({ id: groupId, left: whole })),
      v.minLength(1),
      v.maxLength(changesMax),
    ),
  }),
  releaseNodes: v.strictObject({
    ...common,
    ...word,
    replaced: v.optional(v.boolean(), false),
    force: v.optional(v.boolean(), false),
  }),
  keepNodes: v.strictObject({ ...common, ...word }),
} as const satisfies { readonly [O in AdminOperation]: v.GenericSchema<AdminBodies[O]> };

/** As a handler gets it. */
export type CheckedAdminBody<O extends AdminOperation> = v.InferOutput<(typeof adminBodies)[O]>;

/** The body in its full shape, or what is wrong with it, in words. */
export function checkAdminBody<O extends AdminOperation>(
  operation: O,
  body: unknown,
): { readonly body: CheckedAdminBody<O> } | { readonly problem: string } {
  const result = v.safeParse(adminBodies[operation], body ?? {});
  if (result.success) return { body: result.output as CheckedAdminBody<O> };
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  return { problem: `${path === null ? "" : `${path}: `}${issue.message}` };
}

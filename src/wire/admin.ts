/**
 * Administration: requests that are rare, and ask about or change the cluster rather than its data. A client sends one to any node (frame
 * `control`, by the name of the operation); the node checks its shape, and hands it on to the leader where the row says so. Pure.
 *
 * To add one: a row in `adminOperations`, with the shape of its body; its answer in `AdminAnswers`; a handler of the same name in
 * node/admin.ts. Command, HTTP path and method of the SDK then call it by its name, `client.admin(name, body)`.
 */
import * as v from "valibot";

const u32Max = 0xffff_ffff;
const nodeIdMax = 0xffff_fffe;
const textCharactersMax = 512;
/** Wishes in one request. */
const changesMax = 64;

const nodeId = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(nodeIdMax));
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
  v.strictObject({ op: v.literal("remove"), id: nodeId }),
  v.strictObject({ op: v.literal("replace"), id: nodeId, by: nodeId, address }),
]);

export type AdminMemberChange = v.InferInput<typeof memberChange>;

export interface AdminRow {
  /** Who answers: the leader of the group, or the node that was asked. */
  readonly at: "leader" | "here";
  /** It may have changed something when its answer is lost. */
  readonly changes: boolean;
  readonly body: v.GenericSchema;
}

export const adminOperations = {
  /** The members in force, linearizably. */
  members: { at: "leader", changes: false, body: v.strictObject(common) },
  /** All wishes take effect together. Answered once the new configuration is committed and no longer joint. */
  changeMembers: {
    at: "leader",
    changes: true,
    body: v.strictObject({
      ...common,
      changes: v.pipe(v.array(memberChange), v.minLength(1), v.maxLength(changesMax)),
      /** Also where the voters that would be left do not answer in their majority. */
      force: v.optional(v.boolean(), false),
    }),
  },
  /** A new node asks to be added, or to have the data folder bound under whose id it was added. */
  join: {
    at: "leader",
    changes: true,
    body: v.strictObject({
      ...common,
      id: nodeId,
      address,
      incarnation: token,
      clusterId: token,
      /** Of the cluster token; not a secret, but a sign that this cluster is meant. */
      tokenHash: token,
      learner: v.optional(v.boolean(), false),
    }),
  },
  /** Another voter leads: `to`, or who fits best. Answered once it does; nothing changes where it does already. */
  transferLeader: {
    at: "leader",
    changes: true,
    body: v.strictObject({ ...common, to: v.optional(nodeId) }),
  },
} as const satisfies Record<string, AdminRow>;

export type AdminOperation = keyof typeof adminOperations;

/** As a client gives it. */
export type AdminBody<O extends AdminOperation> = v.InferInput<(typeof adminOperations)[O]["body"]>;

/** As a handler gets it. */
export type CheckedAdminBody<O extends AdminOperation> = v.InferOutput<
  (typeof adminOperations)[O]["body"]
>;

export interface MemberEntry {
  readonly id: number;
  readonly address: string;
  /** `leaving`: a voter until the change under way is done. */
  readonly role: "voter" | "learner" | "leaving";
  /** A learner that becomes a voter once it has caught up. */
  readonly promotion?: true;
  readonly leader: boolean;
  /** The leader has a connection to it. */
  readonly connected: boolean;
  /** Its log equals the leader's, durably, up to here. */
  readonly matchIndex: number;
  /** The data folder that speaks for it is known to the cluster: false for one that was added and has not joined yet. */
  readonly bound: boolean;
}

export interface MembersAnswer {
  readonly group: number;
  readonly term: number;
  readonly leader: number;
  readonly commitIndex: number;
  /** Log index that the configuration came with: it changes with every change and with nothing else. */
  readonly configurationIndex: number;
  /** A change is under way. */
  readonly joint: boolean;
  readonly members: readonly MemberEntry[];
  /** Ids that are never used again. */
  readonly removed: readonly number[];
}

export interface LeaderAnswer {
  readonly group: number;
  /** Who leads now. */
  readonly leader: number;
  /** False: it led already. */
  readonly changed: boolean;
}

export interface AdminAnswers {
  readonly members: MembersAnswer;
  /** `changed` false: all of it held already. */
  readonly changeMembers: MembersAnswer & { readonly changed: boolean };
  readonly join: MembersAnswer & { readonly changed: boolean };
  readonly transferLeader: LeaderAnswer;
}

export function isAdminOperation(name: string): name is AdminOperation {
  return Object.hasOwn(adminOperations, name);
}

/** The body in its full shape, or what is wrong with it, in words. */
export function checkAdminBody<O extends AdminOperation>(
  operation: O,
  body: unknown,
): { readonly body: CheckedAdminBody<O> } | { readonly problem: string } {
  const result = v.safeParse(adminOperations[operation].body, body ?? {});
  if (result.success) return { body: result.output as CheckedAdminBody<O> };
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  return { problem: `${path === null ? "" : `${path}: `}${issue.message}` };
}

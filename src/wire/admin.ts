/**
 * Administration: requests that are rare, and ask about or change the cluster rather than its data. A client sends one to any node (frame
 * `control`, by the name of the operation); the node checks its body, and hands it on to the leader where the row says so. Pure.
 *
 * To add one: a row in `adminOperations`; its body in `AdminBodies`, and how that is checked in admin-bodies.ts; its answer in `AdminAnswers`; a
 * handler of the same name in node/admin.ts. Command, HTTP path and SDK then call it by its name, `client.admin(name, body)`.
 */
import type { ScrubStatus } from "./status.ts";

export interface AdminRow {
  /** Who answers: the leader of the group, the node that was asked, or the leader of the registry, whatever group is named. */
  readonly at: "leader" | "here" | "registry";
  /** It may have changed something when its answer is lost. */
  readonly changes: boolean;
}

export const adminOperations = {
  /** The members in force, linearizably. */
  members: { at: "leader", changes: false },
  /** All wishes take effect together. Answered once the new configuration is committed and no longer joint. */
  changeMembers: { at: "leader", changes: true },
  /** A new node asks to be added, or to have the data folder bound under whose id it was added. */
  join: { at: "leader", changes: true },
  /**
   * Another voter leads: `to`, or who fits best. Answered once it does; nothing changes where it does already. With `from`, nothing changes
   * either where another leads than that node: so to ask again for any other leader does no harm.
   */
  transferLeader: { at: "leader", changes: true },
  /** The node that is asked makes what it has applied durable and cuts its log. Answered once that is done. */
  snapshot: { at: "here", changes: false },
  /** When the node that is asked cuts its log by itself; what is given is changed, until the node starts anew. */
  compaction: { at: "here", changes: false },
  /** How the node that is asked reads its disk through; what is given is changed, until the node starts anew. */
  scrub: { at: "here", changes: false },
  /**
   * The state of the node that is asked, at one index: first open, then read part by part, in any order, then close. Answered once the state holds all
   * that was acknowledged before; `local`: all that this node has applied.
   */
  backupOpen: { at: "here", changes: false },
  backupRead: { at: "here", changes: false },
  backupClose: { at: "here", changes: false },
  /** The node that is asked puts these into the log as commands, like any write. */
  sessionOpen: { at: "here", changes: true },
  sessionKeepAlive: { at: "here", changes: true },
  sessionClose: { at: "here", changes: true },
  /** All groups as they are to be, linearizably. */
  groups: { at: "registry", changes: false },
  /** Makes groups. Answered once the registry has them; their members make them a moment later. */
  createGroups: { at: "registry", changes: true },
  /** For good: their ids are never used again. Answered once the registry has it; their members drop all they have of them a moment later. */
  removeGroups: { at: "registry", changes: true },
  /** Other nodes are to be the members of a group: either all are named, or those that come and go. */
  moveGroup: { at: "registry", changes: true },
  /** Among nodes: leaders tell that the members of groups are what they are to be. */
  settleGroups: { at: "registry", changes: true },
  /** Among nodes: that one has dropped its replicas of groups whose member it is no more, so it may become one again. */
  dropGroups: { at: "registry", changes: true },
  /** Among nodes: these are about to leave the cluster, so neither `system` nor any group is to be lost with them. */
  releaseNodes: { at: "registry", changes: true },
  /** Among nodes: these stay in the cluster after all. */
  keepNodes: { at: "registry", changes: true },
} as const satisfies Record<string, AdminRow>;

export type AdminOperation = keyof typeof adminOperations;

/** What every body may say besides its own. */
interface CommonBody {
  /** @default 0 */
  group?: number | undefined;
  /** How long the answer may take; 0 = the node's own bound. @default 0 */
  timeoutMs?: number | undefined;
}

/** As a client gives them; admin-bodies.ts says what is in bounds. */
export interface AdminBodies {
  members: CommonBody;
  changeMembers: CommonBody & {
    changes: MemberWish[];
    /** Also where the voters that would be left do not answer in their majority. @default false */
    force?: boolean | undefined;
  };
  join: CommonBody & {
    id: number;
    address: string;
    incarnation: string;
    clusterId: string;
    /** Of the cluster token; not a secret, but a sign that this cluster is meant. */
    tokenHash: string;
    /** Stay a learner. @default false */
    learner?: boolean | undefined;
  };
  transferLeader: CommonBody & { to?: number | undefined; from?: number | undefined };
  snapshot: CommonBody & {
    /** Kept of the log's end. @default what the policy says */
    tailBytes?: number | undefined;
  };
  compaction: CommonBody & {
    entries?: number | undefined;
    bytes?: number | undefined;
    tailBytes?: number | undefined;
  };
  scrub: CommonBody & {
    /** 0 = not at all. */
    bytesPerSecond?: number | undefined;
    paused?: boolean | undefined;
    /** Begin at once; what is under way begins anew. @default false */
    now?: boolean | undefined;
  };
  backupOpen: CommonBody & {
    /** Drawn by who asks, at random, so that to ask again opens no other. */
    backup: number;
    /** Also without a leader. @default false */
    local?: boolean | undefined;
  };
  backupRead: CommonBody & { backup: number; offset: number };
  backupClose: CommonBody & { backup: number };
  sessionOpen: CommonBody & {
    /** @default the node's own */
    ttlMs?: number | undefined;
  };
  sessionKeepAlive: CommonBody & { session: number };
  sessionClose: CommonBody & { session: number };
  groups: CommonBody;
  createGroups: CommonBody & {
    /** Drawn by who asks, at random: asked again with the same one, what is there already is not made twice. */
    request: string;
    /** @default 1 */
    count?: number | undefined;
    /** Of the first one; the others follow on it. @default the next ones that were never used */
    id?: number | undefined;
    /** Only of one group. */
    name?: string | undefined;
    /** Kind of its state machine. @default that of group 0 */
    machine?: "kv" | "http" | "null" | undefined;
    /** How many nodes host it. @default 3, or as many as there are */
    replicas?: number | undefined;
    /** Which. @default those that host the fewest groups */
    members?: number[] | undefined;
    /** Above it writes are refused. @default the bound of each node */
    logBytesMax?: number | undefined;
  };
  removeGroups: CommonBody & { groups: number[] };
  moveGroup: CommonBody & {
    id: number;
    members?: number[] | undefined;
    add?: number[] | undefined;
    remove?: number[] | undefined;
  };
  settleGroups: CommonBody & { settled: { id: number; version: number; term: number }[] };
  dropGroups: CommonBody & { node: number; dropped: { id: number; left: number }[] };
  releaseNodes: CommonBody & {
    nodes: number[];
    /** See GoingNode in wire/registry.ts. */
    term: number;
    word: number;
    /** They keep their places until others can take them: what has to be done before that is answered, and not waited for. @default false */
    replaced?: boolean | undefined;
    /** Also where groups are lost with them. @default false */
    force?: boolean | undefined;
  };
  keepNodes: CommonBody & { nodes: number[]; term: number; word: number };
}

export type AdminBody<O extends AdminOperation> = AdminBodies[O];

/** One change of the members that is wanted. Ids from 1; addresses as `host:port`. */
export type MemberWish =
  | {
      op: "add";
      id: number;
      address: string;
      /** It stays a learner; else it becomes a voter once it has caught up. @default false */
      learner?: boolean | undefined;
    }
  | { op: "promote"; id: number }
  | { op: "demote"; id: number }
  /** It is the same member, reached elsewhere from now on. */
  | { op: "move"; id: number; address: string }
  | { op: "remove"; id: number }
  /** `by` comes for `id`, which goes. */
  | { op: "replace"; id: number; by: number; address: string };

export interface MemberEntry {
  readonly id: number;
  readonly address: string;
  /** `leaving`: a voter until the change under way is done. */
  readonly role: "voter" | "learner" | "leaving";
  /** A learner that becomes a voter once it has caught up. */
  readonly promotion?: true;
  /** Then, in the place of that voter, which goes. */
  readonly replaces?: number;
  /**
   * That place is kept, caught up or not, while a group would be lost with its holder, or is being moved off it (`groups`), and then until the group `system` does without
   * it: one that ended before would take the vote along that `system` needs.
   */
  readonly promotionWaitsFor?: "system" | "groups";
  readonly leader: boolean;
  /** The leader has a connection to it. */
  readonly connected: boolean;
  /** Only over connections that it made itself: nobody answers at its address. */
  readonly dialsIn?: true;
  /** Its log equals the leader's, durably, up to here. Absent where whoever answers has just given up leadership. */
  readonly matchIndex?: number;
  /** The leader sends it a snapshot; `bytes` 0 = that is being prepared. Its log goes on from there. */
  readonly snapshot?: { readonly sentBytes: number; readonly bytes: number };
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

/** A new member at whose address nobody answers yet. */
export interface SilentMember {
  readonly id: number;
  readonly address: string;
  /** For people. */
  readonly why: string;
}

export interface ChangedMembersAnswer extends MembersAnswer {
  /** False: all of it held already. */
  readonly changed: boolean;
  /** Absent where there is none, or nobody looked. */
  readonly silent?: readonly SilentMember[];
}

export interface LeaderAnswer {
  readonly group: number;
  /** Who leads now. */
  readonly leader: number;
  /** False: it led already. */
  readonly changed: boolean;
}

export interface SnapshotAnswer {
  readonly group: number;
  /** The node that did it. */
  readonly node: number;
  /** Durable in the state machine up to here. */
  readonly index: number;
  /** What the log still holds. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly logBytes: number;
}

export interface CompactionAnswer {
  readonly group: number;
  readonly node: number;
  /** The log is cut once so many commands can go; 0 = not by commands. */
  readonly entries: number;
  /** The log is cut once it holds so many bytes; 0 = not by bytes. */
  readonly bytes: number;
  /** Kept of its end. */
  readonly tailBytes: number;
}

export interface ScrubAnswer extends ScrubStatus {
  readonly node: number;
}

export interface BackupOpenedAnswer {
  readonly group: number;
  readonly node: number;
  readonly clusterId: string;
  /** Kind of the state machine. */
  readonly machine: string;
  /** All commands up to here are in the state, and none after. */
  readonly index: number;
  readonly term: number;
  readonly applyVersion: number;
  /** Of the state, and of each part but the last. */
  readonly bytes: number;
  readonly chunkBytes: number;
  readonly software: string;
}

export interface BackupPartAnswer {
  readonly bytes: Uint8Array;
}

/** A session, and what its client may rely on. */
export interface SessionAnswer {
  /** Log index of the entry that opened it. */
  readonly session: number;
  /** It ends when so much of the cluster's time has passed since it was last used. */
  readonly ttlMs: number;
  /** Results that the client has not confirmed are kept for so many sections, and so many bytes. */
  readonly windowSections: number;
  readonly windowBytes: number;
}

/** One group of the registry. */
export interface GroupEntry {
  readonly id: number;
  readonly name?: string;
  /** Kind of its state machine. */
  readonly machine: string;
  /** The nodes that are to host it. */
  readonly members: readonly number[];
  /** Nodes that are to host it no longer, and still do. */
  readonly leaving: readonly number[];
  /** How many it is to have, also once one of them has left the cluster. */
  readonly replicas: number;
  readonly logBytesMax?: number;
  /** Rises with each change. */
  readonly version: number;
}

export interface GroupsAnswer {
  readonly groups: readonly GroupEntry[];
}

export interface RemovedGroupsAnswer {
  /** Those that were there. */
  readonly removed: readonly number[];
}

export interface MovedGroupAnswer extends GroupEntry {
  /** False: they were its members already. */
  readonly changed: boolean;
}

export interface ReleasedAnswer {
  /** Of nodes that are replaced; see MemberEntry. Absent once they can go. */
  readonly waitsFor?: "system" | "groups";
}

export interface AdminAnswers {
  readonly members: MembersAnswer;
  readonly changeMembers: ChangedMembersAnswer;
  readonly join: ChangedMembersAnswer;
  readonly transferLeader: LeaderAnswer;
  readonly snapshot: SnapshotAnswer;
  readonly compaction: CompactionAnswer;
  readonly scrub: ScrubAnswer;
  readonly backupOpen: BackupOpenedAnswer;
  readonly backupRead: BackupPartAnswer;
  readonly backupClose: Record<never, never>;
  readonly sessionOpen: SessionAnswer;
  readonly sessionKeepAlive: Record<never, never>;
  readonly sessionClose: Record<never, never>;
  readonly groups: GroupsAnswer;
  readonly createGroups: GroupsAnswer;
  readonly removeGroups: RemovedGroupsAnswer;
  readonly moveGroup: MovedGroupAnswer;
  readonly settleGroups: Record<never, never>;
  readonly dropGroups: Record<never, never>;
  readonly releaseNodes: ReleasedAnswer;
  readonly keepNodes: Record<never, never>;
}

export function isAdminOperation(name: string): name is AdminOperation {
  return Object.hasOwn(adminOperations, name);
}

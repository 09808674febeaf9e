/**
 * What frames mean: the messages between nodes and between clients and nodes. Types only; peer-messages.ts and
 * client-messages.ts encode and decode them.
 */
import type { Batch, LogStart } from "./batch.ts";
import type { BeatMessage } from "./beat-message.ts";

/**
 * Frame types, append-only. 1 to 15 open a connection, 16 to 63 only on peer connections, 64 to 127 only on client
 * connections: a client can never carry a peer's message [38].
 */
export const FrameType = {
  hello: 1,
  helloReply: 2,
  ping: 3,
  pong: 4,

  preVote: 16,
  preVoteReply: 17,
  vote: 18,
  voteReply: 19,
  append: 20,
  appendReply: 21,
  heartbeat: 22,
  heartbeatReply: 23,
  readIndex: 24,
  readIndexReply: 25,
  forward: 26,
  forwardReply: 27,
  snapshotOffer: 28,
  snapshotChunk: 29,
  snapshotReply: 30,
  timeoutNow: 34,
  adminRequest: 36,
  adminReply: 37,
  accepted: 48,
  beat: 60,

  write: 64,
  writeReply: 65,
  read: 66,
  readReply: 67,
  errorReply: 68,
  control: 69,
  controlReply: 70,
  notice: 71,
  watch: 72,
  watchCredit: 73,
  watchStop: 74,
  watchChanges: 75,
  watchEnded: 76,

  followGroups: 90,
  groupLeaders: 91,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/* ------------------------------------------------------------------ between the Raft cores of two nodes */

interface Peer {
  readonly group: number;
  readonly from: number;
  readonly to: number;
  /** Term of the sender (for a pre-vote: the term it would campaign in). */
  readonly term: number;
}

export interface VoteMessage extends Peer {
  readonly type: "preVote" | "vote";
  /** The leader itself asked for this candidacy, so that it deposes nobody who does not want it; never in a pre-vote. */
  readonly transfer: boolean;
  readonly lastIndex: number;
  readonly lastTerm: number;
}

export interface VoteReplyMessage extends Peer {
  readonly type: "preVoteReply" | "voteReply";
  readonly granted: boolean;
}

/**
 * AppendEntries. `prevIndex` is a batch end; `prevCrc` is the crc of the batch that ends there (0 at the log's start is
 * the cluster's seed crc). Without batches it is a probe. As an outgoing effect of the core the bodies are absent and
 * [fromIndex, toIndex] says which batches the shell attaches [8].
 */
export interface AppendMessage extends Peer {
  readonly type: "append";
  readonly prevIndex: number;
  readonly prevTerm: number;
  readonly prevCrc: number;
  /** The leader's commit index; the receiver takes min(commit, last verified). */
  readonly commit: number;
  /** First and last index of the attached batches; fromIndex > toIndex when there is none. */
  readonly fromIndex: number;
  readonly toIndex: number;
  /** Present on arrival, in order, contiguous; each one whole and with its crc checked. */
  readonly batches: readonly Batch[];
}

/**
 * Answer to an append. Accepted: `index` is the highest index that is durable here and verified to match the leader of `term` [D4].
 * Rejected: `index` echoes the refused prevIndex, and (hintIndex, hintTerm) say where to go on: the receiver's log may match at
 * or before hintIndex, whose term there is hintTerm.
 */
export interface AppendReplyMessage extends Peer {
  readonly type: "appendReply";
  readonly accepted: boolean;
  readonly index: number;
  /** Of a rejection: the highest position at which the logs can meet. Of a wounded node: where its log ends. */
  readonly hintIndex: number;
  readonly hintTerm: number;
  /** It has lost durable data: `index` is all that it has, whatever it said before [22]. */
  readonly wounded: boolean;
}

export interface HeartbeatMessage extends Peer {
  readonly type: "heartbeat";
  /** min(leader's commit, receiver's match): never beyond what the leader knows to match [C2]. */
  readonly commit: number;
  /** Newest read round; an answer confirms all rounds up to it [34]. */
  readonly readSeq: number;
  /**
   * For bounded staleness [35]: the `stamp` of the newest answer of the receiver that came before a moment at which this leader surely led
   * and had committed nothing above `commit`. The receiver's own time, so no delay and no other clock can make it look later; 0 = none.
   */
  readonly freshStamp: number;
  /**
   * Lowest durable match over all members as the leader knows it: every member holds the log up to here, so a follower may retire
   * its own log below. Never falls within a term; 0 = not known.
   */
  readonly minMatch: number;
}

export interface HeartbeatReplyMessage extends Peer {
  readonly type: "heartbeatReply";
  readonly readSeq: number;
  /** The sender's ticks, from a random start: what later heartbeats bring back to it. */
  readonly stamp: number;
  /** The sender should lead rather than a node that does not say so. */
  readonly preferred: boolean;
}

/** The leader hands over: the receiver, whose log is that of the leader to the end and durable, is to campaign at once. */
export interface TimeoutNowMessage extends Peer {
  readonly type: "timeoutNow";
  /** End of the leader's log: a receiver whose own log ends elsewhere ignores the message, which is late then. */
  readonly lastIndex: number;
  readonly lastTerm: number;
}

/** A follower asks the leader for a read index on behalf of all its waiting reads. */
export interface ReadIndexMessage extends Peer {
  readonly type: "readIndex";
  readonly context: number;
}

/** `index` is safe to read at once applied; `ok` false: not the leader, ask again later. */
export interface ReadIndexReplyMessage extends Peer {
  readonly type: "readIndexReply";
  readonly context: number;
  readonly index: number;
  readonly ok: boolean;
}

export type RaftMessage =
  | VoteMessage
  | VoteReplyMessage
  | AppendMessage
  | AppendReplyMessage
  | HeartbeatMessage
  | HeartbeatReplyMessage
  | ReadIndexMessage
  | ReadIndexReplyMessage
  | TimeoutNowMessage;

/* ------------------------------------------------------------------ between the shells of two nodes */

/** A section that a follower passes on to the leader [14]. Travels on the bulk connection. */
export interface ForwardMessage {
  readonly type: "forward";
  readonly group: number;
  readonly from: number;
  readonly to: number;
  readonly request: number;
  readonly section: Uint8Array;
}

/**
 * The leader's answer as soon as the section is appended, on the bulk connection before the append itself. `error` 0: the section
 * begins at (firstIndex, term), and the follower completes the request from its own apply; else an error number.
 */
export interface ForwardReplyMessage {
  readonly type: "forwardReply";
  readonly group: number;
  readonly from: number;
  readonly to: number;
  readonly request: number;
  readonly error: number;
  readonly firstIndex: number;
  readonly term: number;
}

interface Snapshot extends Peer {
  /** Names the stream among all of its sender's: after a broken connection it goes on only with chunks of the same one. */
  readonly snapshot: number;
}

/**
 * InstallSnapshot, first part: the leader offers its state machine as of `start`. Again after each reconnection; the answer says from where
 * on the chunks are wanted. On the bulk connection.
 */
export interface SnapshotOfferMessage extends Snapshot {
  readonly type: "snapshotOffer";
  readonly start: LogStart;
  /** Of the whole snapshot. */
  readonly bytes: number;
  /** Body of the configuration in force at `start`. */
  readonly configuration: Uint8Array;
}

/** The next part. On the bulk connection, no more of them than the receiver's answers make room for. */
export interface SnapshotChunkMessage extends Snapshot {
  readonly type: "snapshotChunk";
  readonly offset: number;
  /** Over the crcs of all chunks up to this one; see snapshot-messages.ts. */
  readonly digest: number;
  readonly crc: number;
  /** A view, crc checked on arrival. */
  readonly body: Uint8Array;
}

/** receiving: everything below `offset` is written. done: it is taken over, or not needed. failed: it cannot be used; it may be sent again. */
export interface SnapshotReplyMessage extends Snapshot {
  readonly type: "snapshotReply";
  readonly state: "receiving" | "done" | "failed";
  readonly offset: number;
}

/** A request of administration that a node passes on to the leader; see admin.ts. On the bulk connection. */
export interface AdminRequestMessage {
  readonly type: "adminRequest";
  readonly group: number;
  readonly from: number;
  readonly to: number;
  readonly request: number;
  readonly timeoutMs: number;
  readonly operation: string;
  readonly body: unknown;
}

/** `error` 0: `body` is the answer; else an error number, with what became of the change and what to do. */
export interface AdminReplyMessage {
  readonly type: "adminReply";
  readonly group: number;
  readonly from: number;
  readonly to: number;
  readonly request: number;
  readonly error: number;
  readonly outcome: ErrorReply["outcome"];
  readonly message: string;
  readonly body: unknown;
}

export type PeerMessage =
  | RaftMessage
  | ForwardMessage
  | ForwardReplyMessage
  | AdminRequestMessage
  | AdminReplyMessage
  | SnapshotOfferMessage
  | SnapshotChunkMessage
  | SnapshotReplyMessage
  | BeatMessage;

/* ------------------------------------------------------------------ hello (msgpack) */

export interface Hello {
  readonly role: "peer-control" | "peer-bulk" | "client";
  readonly versionMin: number;
  readonly versionMax: number;
  readonly features: number;
  /** Software version, for people. */
  readonly software: string;
  /** Peers only. */
  readonly clusterId?: string;
  readonly nodeId?: number;
  readonly incarnation?: string;
  /** `host:port` under which the dialler is reached: who has not heard of it yet can answer all the same. */
  readonly address?: string;
  /** `host:port` of its HTTP door, where others reach it. */
  readonly http?: string;
  /** Log index of the dialler's configuration: who has an older one may not know a member of it yet. */
  readonly configurationIndex?: number;
  /** Highest apply version that the dialler can, and the one in force there; absent = 1 [16]. */
  readonly applyVersionMax?: number;
  readonly applyVersion?: number;
  /** The id that the dialler expects at the other end. */
  readonly expectNodeId?: number;
}

export interface HelloReply {
  /** The one that both speak on this connection; 0 where there is none. */
  readonly version: number;
  /** Those that both know. */
  readonly features: number;
  readonly software: string;
  readonly clusterId: string;
  readonly nodeId: number;
  readonly incarnation: string;
  /** Bounds that a client must keep. */
  readonly frameBytesMax: number;
  readonly sectionBytesMax: number;
  /** Members as `host:port` by node id, so that a client given one endpoint learns all. */
  readonly members: Record<string, string>;
  /** Leader of group 0 if known, else 0. */
  readonly leader: number;
  /** `host:port` of this node's HTTP door, where others reach it. */
  readonly http?: string;
  /** Highest apply version that this node can, and the one in force; absent = 1 [16]. */
  readonly applyVersionMax?: number;
  readonly applyVersion?: number;
  /** A refusal: the connection is closed after it. */
  readonly error?: { readonly code: string; readonly message: string };
}

/* ------------------------------------------------------------------ between a client and a node */

export const Consistency = { linearizable: 0, lease: 1, local: 2 } as const;
export type Consistency = (typeof Consistency)[keyof typeof Consistency];

export interface WriteRequest {
  readonly type: "write";
  readonly request: number;
  readonly group: number;
  readonly timeoutMs: number;
  /** One section, verbatim; its header is well formed and its crc checked on arrival. */
  readonly section: Uint8Array;
}

/**
 * All commands of the section were applied, beginning at `firstIndex`. `results` lists the exceptions: commands whose result is not
 * the plain ok without bytes, by position; see section-results.ts for the layout [32].
 */
export interface WriteReply {
  readonly type: "writeReply";
  readonly request: number;
  readonly firstIndex: number;
  readonly results: Uint8Array;
}

/** Queries of one turn of a client: count × (length u32, bytes). */
export interface ReadRequest {
  readonly type: "read";
  readonly request: number;
  readonly group: number;
  readonly timeoutMs: number;
  readonly consistency: Consistency;
  /** For local reads: refuse rather than answer older than this; 0 = any. */
  readonly maxStalenessMs: number;
  readonly count: number;
  readonly queries: Uint8Array;
}

/** Answers in the order of the queries: count × (code u32, length u32, bytes), all read at `appliedIndex`. */
export interface ReadReply {
  readonly type: "readReply";
  readonly request: number;
  readonly appliedIndex: number;
  readonly count: number;
  readonly answers: Uint8Array;
}

/** A whole request failed. Layout: fixed numbers, then the message as UTF-8. */
export interface ErrorReply {
  readonly type: "errorReply";
  readonly request: number;
  /** Number in errors.ts. */
  readonly error: number;
  readonly outcome: "applied" | "not-applied" | "unknown";
  readonly message: string;
  /** `host:port` of the leader, or empty. */
  readonly leaderHint: string;
}

/** Rare requests as msgpack maps: `status`, and the operations of admin.ts. */
export interface ControlRequest {
  readonly type: "control";
  readonly request: number;
  readonly operation: string;
  readonly body: unknown;
}

export interface ControlReply {
  readonly type: "controlReply";
  readonly request: number;
  readonly body: unknown;
}

/** A node tells its clients of a change; see notice.ts. */
export interface Notice {
  readonly type: "notice";
  readonly group: number;
  /** Of the leader that is named: who is told of several believes the highest. */
  readonly term: number;
  readonly leader: number;
  /** Log index of the configuration: the same for the members. */
  readonly configurationIndex: number;
  /** `host:port` by node id. */
  readonly members: Record<string, string>;
}

export type ClientRequest = WriteRequest | ReadRequest | ControlRequest;
export type ServerReply = WriteReply | ReadReply | ErrorReply | ControlReply;

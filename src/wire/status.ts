/** What a node says of itself: the answer to `status`, over the binary protocol and HTTP alike. Types, and bounds. */

export interface MemberStatus {
  readonly id: number;
  readonly address: string;
  readonly voter: boolean;
  readonly connected: boolean;
  /** Only over connections that it made itself: nobody answers at its address. */
  readonly dialsIn?: true;
  /** Known on the leader only. */
  readonly matchIndex?: number;
}

/** The last transfer of leadership that a node began, while it led. */
export interface HandOverStatus {
  readonly to: number;
  readonly reason: string;
  readonly state: "under way" | "done" | "failed";
  readonly secondsAgo: number;
}

/** Snapshots on their way; bytes are those that the receiver has written. */
export interface SnapshotStatus {
  readonly sending: readonly {
    readonly to: number;
    readonly index: number;
    readonly sentBytes: number;
    readonly bytes: number;
  }[];
  readonly receiving?: {
    readonly from: number;
    readonly index: number;
    readonly receivedBytes: number;
    readonly bytes: number;
  };
}

/** What a group knows of its clients. */
export interface SessionStatus {
  /** Sessions that are open. */
  readonly open: number;
  /** Request ids that are remembered. */
  readonly requestIds: number;
  /** Results that are kept for both, in bytes. */
  readonly bytes: number;
}

/** The application that is a group's state machine, while it is not there. */
export interface ApplicationStatus {
  /** What is waited for, for people. */
  readonly waitsFor: string;
  /** Absent where it was never there. */
  readonly forSeconds?: number;
}

export interface GroupStatus {
  /** Of the state machine: its file, and what is in memory. Absent in the answer of an older build. */
  readonly stateBytes?: number;
  readonly id: number;
  readonly role: string;
  /** Node id; 0 = unknown. */
  readonly leader: number;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly durableIndex: number;
  readonly machineDurableIndex: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly logBytes: number;
  /** Eight hex digits: equal on all nodes at equal appliedIndex. */
  readonly stateHash: string;
  /** How commands take effect here [16]: 1, or from 2 on with sessions. Absent in the answer of an older build: 1. */
  readonly applyVersion?: number;
  /** On the leader, where a higher one is possible: the members that cannot yet, or are not connected. */
  readonly applyVersionWaitsFor?: readonly number[];
  /** Absent in the answer of an older build. */
  readonly sessions?: SessionStatus;
  readonly members: readonly MemberStatus[];
  /** Log index that the configuration in force came with. */
  readonly configurationIndex: number;
  /** A change of the voters is under way. */
  readonly joint: boolean;
  /** Absent where there is nothing to wait for. */
  readonly application?: ApplicationStatus;
  /** Absent while none is on its way. */
  readonly snapshots?: SnapshotStatus;
  /** Absent where this node handed nothing over in the last minute. */
  readonly handOver?: HandOverStatus;
  /** Present while this node is wounded: what its log has to come to before it votes again. */
  readonly wounded?: { readonly term: number; readonly index: number };
}

/** How far the disk of a node was read through in the background, and what was found. */
export interface ScrubStatus {
  readonly state: "off" | "paused" | "waiting" | "running";
  readonly bytesPerSecond: number;
  /** Since the start of the process. */
  readonly passes: number;
  readonly bytes: number;
  readonly damages: number;
  /** Of the pass that is under way. */
  readonly at?: string;
  readonly passBytes?: number;
  /** Since the last pass ended. */
  readonly passedSecondsAgo?: number;
  /** What the last pass has found, and what to do. */
  readonly findings: readonly string[];
}

/** How often the event loop was held for how long: a count of ticks per bound, and one for all that is above the last. */
export interface LoopGaps {
  readonly boundsMs: readonly number[];
  readonly counts: readonly number[];
  /** Of all of them. */
  readonly sumMs: number;
}

/** One line of a group: enough to find those that need a look. */
export interface GroupBrief {
  readonly id: number;
  readonly role: string;
  /** Node id; 0 = unknown. */
  readonly leader: number;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly logBytes: number;
  /** Of the state machine: its file, and what is in memory. */
  readonly stateBytes: number;
  /** Nodes that have a copy. */
  readonly members: readonly number[];
  readonly wounded?: true;
  /** This copy waits for its application. */
  readonly waits?: true;
}

/** All groups of a node together. */
export interface GroupsSummary {
  readonly total: number;
  /** Led by this node; without a leader as far as it knows; stopped; wounded. */
  readonly leads: number;
  readonly leaderless: number;
  readonly stopped: number;
  readonly wounded: number;
  /** Larger than a group should be. */
  readonly large: number;
  readonly logBytes: number;
  readonly stateBytes: number;
  /** Ids of some that are leaderless, stopped, wounded or large, or wait for their application: the lowest ones. */
  readonly suspects: readonly number[];
}

/** Which groups a status is to have; without anything the first ones, in full. */
export interface StatusRequest {
  /** These, in full. */
  readonly groups?: readonly number[] | undefined;
  /** Those with a higher id than this, by rising id; at most so many. */
  readonly after?: number | undefined;
  readonly limit?: number | undefined;
  /** As `briefs` in place of `groups`. */
  readonly brief?: boolean | undefined;
}

/** Of one answer, where nothing else is asked for; and at the most. An answer is at most a control message. */
export const statusGroups = { usual: 64, max: 256, briefsMax: 4_096 } as const;

export interface NodeStatus {
  readonly nodeId: number;
  readonly clusterId: string;
  readonly version: string;
  /** Protocol versions that this node speaks, and the highest apply version that it takes part in. Absent in the answer of an older build. */
  readonly protocolVersions?: { readonly versionMin: number; readonly versionMax: number };
  readonly applyVersionMax?: number;
  /** Nodes that this one does not understand, and what to do; absent where there is none. */
  readonly incompatible?: readonly { readonly nodeId: number; readonly message: string }[];
  /** Groups that are to be on this node, and that it could not open: some of them, where there are any. */
  readonly unopened?: readonly { readonly group: number; readonly message: string }[];
  readonly uptimeSeconds: number;
  readonly diskBytes: number;
  /** Left on the disk of the data folder. Absent in the answer of an older build. */
  readonly freeBytes?: number;
  /** `low_space`: too little to lead; `read_only`: none. */
  readonly health:
    "ok" | "low_space" | "no_leader" | "stopping" | "read_only" | "wounded" | "removed";
  /** Those that were asked for. */
  readonly groups: readonly GroupStatus[];
  readonly briefs?: readonly GroupBrief[];
  /** There are more groups: ask for those after the last one. */
  readonly more?: true;
  /** Absent in the answer of an older build. */
  readonly summary?: GroupsSummary;
  /** A group with more state than this is larger than it should be; 0 = none is. */
  readonly groupWarnBytes?: number;
  /** Absent in the answer of an older build. */
  readonly scrub?: ScrubStatus;
  /** Log syncs since the start, for benchmarks: count, and milliseconds at percentiles. */
  readonly syncs: { readonly count: number; readonly p50Ms: number; readonly p99Ms: number };
  /** Since the start. */
  readonly loopGaps: LoopGaps;
  readonly cpuSeconds: number;
  readonly peakRssBytes: number;
}

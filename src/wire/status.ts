/** What a node says of itself: the answer to `status`, over the binary protocol and HTTP alike. Types only. */

export interface MemberStatus {
  readonly id: number;
  readonly address: string;
  readonly voter: boolean;
  readonly connected: boolean;
  /** Known on the leader only. */
  readonly matchIndex?: number;
}

export interface GroupStatus {
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
  readonly members: readonly MemberStatus[];
}

/** How often the event loop was held for how long: a count of ticks per bound, and one for all that is above the last. */
export interface LoopGaps {
  readonly boundsMs: readonly number[];
  readonly counts: readonly number[];
}

export interface NodeStatus {
  readonly nodeId: number;
  readonly clusterId: string;
  readonly version: string;
  readonly uptimeSeconds: number;
  readonly diskBytes: number;
  readonly health: "ok" | "no_leader" | "stopping" | "read_only";
  readonly groups: readonly GroupStatus[];
  /** Log syncs since the start, for benchmarks: count, and milliseconds at percentiles. */
  readonly syncs: { readonly count: number; readonly p50Ms: number; readonly p99Ms: number };
  /** Since the start. */
  readonly loopGaps: LoopGaps;
  readonly cpuSeconds: number;
  readonly peakRssBytes: number;
}

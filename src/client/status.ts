/** What `status` answers: the node's own words, checked only as far as their shape. The twin of `NodeStatus` in server/groups.ts. */
import { BargeError } from "../errors.ts";

export interface MemberStatusReply {
  readonly id: number;
  readonly address: string;
  readonly voter: boolean;
  readonly connected: boolean;
  /** Known on the leader only. */
  readonly matchIndex?: number;
}

export interface GroupStatusReply {
  readonly id: number;
  readonly role: string;
  /** Node id, 0 = unknown. */
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
  readonly members: readonly MemberStatusReply[];
}

export interface NodeStatusReply {
  readonly nodeId: number;
  readonly clusterId: string;
  readonly version: string;
  readonly uptimeSeconds: number;
  readonly diskBytes: number;
  readonly health: string;
  readonly groups: readonly GroupStatusReply[];
  readonly syncs: { readonly count: number; readonly p50Ms: number; readonly p99Ms: number };
  readonly cpuSeconds: number;
  readonly peakRssBytes: number;
}

/** Checks the shape as far as the SDK and its users rely on it. */
export function checkStatus(body: unknown): NodeStatusReply | BargeError {
  const status = body as NodeStatusReply | null | undefined;
  const wellFormed =
    typeof status === "object" &&
    status !== null &&
    Number.isSafeInteger(status.nodeId) &&
    typeof status.clusterId === "string" &&
    Array.isArray(status.groups) &&
    status.groups.every(isGroup);
  if (wellFormed) return status;
  return new BargeError("internal", "the node's status is malformed", { outcome: "not-applied" });
}

function isGroup(value: unknown): boolean {
  const group = value as GroupStatusReply | null | undefined;
  return (
    typeof group === "object" &&
    group !== null &&
    Number.isSafeInteger(group.id) &&
    Number.isSafeInteger(group.leader) &&
    Array.isArray(group.members)
  );
}

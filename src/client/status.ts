/** What `status` answers: the node's own words, checked only as far as their shape. */
import { BargeError } from "../errors.ts";
import type { GroupStatus, NodeStatus } from "../wire/status.ts";

/** Checks the shape as far as the SDK and its users rely on it. */
export function checkStatus(body: unknown): NodeStatus | BargeError {
  const status = body as NodeStatus | null | undefined;
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
  const group = value as GroupStatus | null | undefined;
  return (
    typeof group === "object" &&
    group !== null &&
    Number.isSafeInteger(group.id) &&
    Number.isSafeInteger(group.leader) &&
    Array.isArray(group.members)
  );
}

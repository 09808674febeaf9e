/** What a node holds for others has bounds, however much they ask of it: the queues of a group against the limits that name them. */
import { frameOverheadBytes, type Limits } from "../../src/limits.ts";
import type { GroupQueues } from "../../src/telemetry/group-metrics.ts";

/** The first queue that is over its bound, or undefined. */
export function brokenCap(
  queues: GroupQueues,
  limits: Limits,
  /** Of its commands: some are larger than what a batch may have. */
  commandBytesMax = 0,
): string | undefined {
  const over = (name: string, value: number, bound: number): string | undefined =>
    value > bound ? `${name} is ${value}, its bound ${bound}` : undefined;
  // One batch may be the section alone that no bound could split.
  const batchBytes = Math.max(limits.batchBytesMax, commandBytesMax) + frameOverheadBytes;
  return (
    over("inboxBytes", queues.inboxBytes, limits.inboxBytesMax) ??
    over("waiters and forwards", queues.waiters + queues.forwards, limits.waitersMax) ??
    over("readWaiters", queues.readWaiters, limits.readWaitersMax) ??
    over("forwards", queues.forwards, limits.forwardsMax) ??
    over("tailCacheBytes", queues.tailCacheBytes, limits.tailCacheBytes + batchBytes) ??
    over("memtableBytes", queues.memtableBytes, 2 * (limits.memtableBytes + 2 * batchBytes))
  );
}

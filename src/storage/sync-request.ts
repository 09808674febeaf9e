/** What file-syncer.ts and its Worker, sync-worker.ts, say to each other. */

export interface SyncWorkerData {
  readonly control: SharedArrayBuffer;
  readonly latch: SharedArrayBuffer;
}

/** Positions in the control memory, as 32-bit words. */
export const SyncWord = {
  /** Counts requests; the Worker sleeps while it has not changed. */
  request: 0,
  /** The last request that is answered. */
  answered: 1,
  /** Descriptors of the request, from `descriptors` on. */
  count: 2,
  descriptors: 3,
} as const;

/** The Worker's answer to a request: its milliseconds, or why it failed. */
export type SyncReply = number | string;

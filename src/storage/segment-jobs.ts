/** What sqlite-disk.ts and its Worker, segment-worker.ts, say to each other. */

export interface SegmentWorkerData {
  readonly directory: string;
  /** How far the Worker has come, for those who cannot wait for a message. */
  readonly progress: SharedArrayBuffer;
  readonly latch: SharedArrayBuffer;
}

/** Positions in the progress memory, as 32-bit words. */
export const ProgressWord = {
  doneJobs: 0,
  /** Number of the last segment that was prepared. */
  prepared: 1,
} as const;

export type SegmentJob =
  /** Make segment `number`, out of the WAL of `recycled` where there is one, else with one filled with zeros. */
  | {
      readonly kind: "prepare";
      readonly number: number;
      readonly recycled: number | undefined;
      readonly filledBytes: number;
    }
  | { readonly kind: "unlink"; readonly number: number };

/** `failed` says why; where `isFull` it was for want of space, and nothing is left of the new segment. */
export interface SegmentJobDone {
  readonly job: SegmentJob;
  readonly failed?: string;
  readonly isFull?: boolean;
}

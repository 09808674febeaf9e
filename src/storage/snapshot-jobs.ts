/** What snapshot-files.ts and its Worker, snapshot-worker.ts, say to each other. */

/** A number that a database may have and that must not be above `max`. */
export interface NumberBound {
  /** Selects it in one row, as `value`. Where there is no such table the file passes. */
  readonly query: string;
  readonly max: number;
}

/** What a file must be: these bytes. */
export interface BytesProof {
  readonly bytes: number;
  /** Of each chunk but the last, and the digest over all of them (wire/snapshot-messages.ts). */
  readonly chunkBytes: number;
  readonly digest: number;
}

/** And a sound database that says it is at this index. */
export interface FileProof extends BytesProof {
  readonly index: number;
  /** Creates all that may be in it. */
  readonly schema: string;
  /** Selects the index, in one row, as `value`. */
  readonly indexQuery: string;
  readonly bounds: readonly NumberBound[];
}

export type SnapshotJob =
  | {
      readonly kind: "read";
      readonly descriptor: number;
      readonly offset: number;
      /** To be filled. */
      readonly bytes: Uint8Array<ArrayBuffer>;
    }
  | {
      readonly kind: "write";
      readonly path: string;
      readonly offset: number;
      readonly bytes: Uint8Array<ArrayBuffer>;
    }
  | { readonly kind: "replace"; readonly path: string; readonly text: string }
  | { readonly kind: "finish"; readonly path: string; readonly proof: FileProof | BytesProof }
  | { readonly kind: "remove"; readonly path: string }
  | { readonly kind: "removeFolder"; readonly path: string };

/** Jobs are answered in the order in which they were given. */
export interface SnapshotJobDone {
  /** Those of the job, of a read or a write: they travel to the Worker and back. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /** False: the disk is full, or the file is not what it should be. */
  readonly ok: boolean;
  /** The disk reported an error: the process has to end. */
  readonly failed?: string;
}

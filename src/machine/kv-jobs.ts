/** What kv-files.ts and its Worker, kv-worker.ts, say to each other. One job at a time; a write is answered twice. */
import type { KvMeta } from "./kv-file.ts";
import type { SharedMemtable } from "./memtable.ts";

export type KvJob =
  | {
      readonly kind: "write";
      readonly path: string;
      readonly table: SharedMemtable;
      readonly meta: KvMeta;
    }
  | { readonly kind: "checkpoint"; readonly path: string };

/** What both Workers of kv files are given. */
export interface KvWorkerData {
  readonly latch: SharedArrayBuffer;
  readonly pace: SharedArrayBuffer;
}

export interface KvJobFailure {
  /** Nothing is broken: it can be tried again once there is space. */
  readonly diskFull: boolean;
  readonly reason: string;
}

export type KvReply =
  /** Of a write: visible from now on, and its memory is not read any more. */
  | { readonly kind: "committed"; readonly walBytes: number }
  | { readonly kind: "done"; readonly walBytes: number }
  | { readonly kind: "failed"; readonly failure: KvJobFailure };

/** What the front doors need of the node: declared here, implemented by node/ [45]. Types only. */
import type { BargeError } from "../errors.ts";
import type { Consistency } from "../wire/messages.ts";
import type { SectionHeader } from "../wire/section.ts";
import type { NodeStatus, StatusRequest } from "../wire/status.ts";
import type { KnownGroups } from "./group-followers.ts";
import type { ChangeSource } from "../wire/watch-messages.ts";

export type {
  GroupBrief,
  GroupStatus,
  MemberStatus,
  NodeStatus,
  StatusRequest,
} from "../wire/status.ts";

/** One write section that waits for its result. Exactly one of the two is called, once. */
export interface WriteWaiter {
  /** Applied on this node, beginning at `firstIndex`. `results` as in wire/section-results.ts; a view, valid during the call. */
  applied(firstIndex: number, results: Uint8Array): void;
  failed(error: BargeError): void;
}

export interface ReadSource {
  /** Reads at the applied index of this node; `answer` is called once per query, within the call unless it `answersLater`. */
  read(query: Uint8Array, sink: ReadSink): void;
  /** Answers come from an application, in later turns and in any order. */
  readonly answersLater?: true;
}

export interface ReadSink {
  /** `bytes` is valid during the call. */
  answer(code: number, bytes: Uint8Array | undefined): void;
}

/** One read request that waits for its read index. Exactly one of the two is called, once. */
export interface ReadWaiter {
  /** The moment to read has come: call `source.read` for each query now, within the call. */
  ready(source: ReadSource, appliedIndex: number): void;
  failed(error: BargeError): void;
}

/** One request of administration. Exactly one of the two is called, once. */
export interface AdminWaiter {
  /** What wire/admin.ts says for the operation. */
  answered(body: unknown): void;
  failed(error: BargeError): void;
}

/** Changes that a watch is to be told, one after the other: valid during the call that hands them over. */
export interface Changes extends ChangeSource {
  readonly count: number;
  /** Of their keys and values together. */
  readonly byteLength: number;
}

/** Who is told the changes of a watch. */
export interface Watcher {
  /** False while it cannot take more: it is asked again, and the log keeps what it misses meanwhile. */
  readonly hasRoom: boolean;
  /** All changes up to `revision` are these, after those of the call before. */
  changed(revision: number, changes: Changes): void;
  /** There is none up to `revision`, after those that were told. The first call says where the watch begins: above `revision`. */
  progressed(revision: number): void;
  /** The last call: a watch may go on elsewhere, or later, above `revision`. Not where its owner closed it. */
  ended(revision: number, error: BargeError): void;
}

export interface WatchRequest {
  readonly prefix: Uint8Array;
  /** The prefix is a whole key: no other is watched. */
  readonly exact: boolean;
  /** Changes from this revision on; 0 = from now on. */
  readonly from: number;
}

export interface WatchHandle {
  /** The watcher has room again; it would be noticed a moment later anyway. */
  resume(): void;
  /** It is told nothing any more. */
  close(): void;
}

export interface Groups {
  /** `section` is one whole section, well formed and with its crc checked; it is kept until the waiter is called, never copied. */
  write(
    group: number,
    section: Uint8Array,
    header: SectionHeader,
    timeoutMs: number,
    waiter: WriteWaiter,
  ): void;
  read(
    group: number,
    consistency: Consistency,
    maxStalenessMs: number,
    timeoutMs: number,
    waiter: ReadWaiter,
  ): void;
  /** Throws a BargeError where there can be no such watch. The watcher is called within the call, and from turns. */
  watch(group: number, request: WatchRequest, watcher: Watcher): WatchHandle;
  /** The kind of state machine that a group has: `kv`, `http`…; undefined where there is no such group. */
  machineKind(group: number): string | undefined;
  /** `operation` is one of wire/admin.ts; its body is checked by the node. */
  admin(operation: string, body: unknown, waiter: AdminWaiter): void;
  /** Of the groups those that are asked for: the first ones, where nothing is. */
  status(request?: StatusRequest): NodeStatus;
  /** Which groups there are, and who leads them. */
  readonly known: KnownGroups;
  /** What is missing before this node serves, as text; empty when it is ready. With `group`: before it serves that one. */
  notReady(group?: number): string[];
  /** This node stops, or is no member any more: it never serves again. */
  readonly isLeaving: boolean;
  /** `host:port` by node id, and the leader of group 0 (0 = unknown), for the hello reply. */
  members(): { readonly addresses: Record<string, string>; readonly leader: number };
  /** `host:port` of the HTTP door of the node whose binary port that is; undefined where it is not known. */
  httpOf(address: string): string | undefined;
}

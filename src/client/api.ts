/**
 * Everything that a program sees of the SDK: options, results and the `Client`, as types. Imports nothing of the implementation,
 * so this one page is the whole contract. Sizes are in bytes, times in milliseconds.
 *
 * What a client promises: a call either resolves, or rejects with a `BargeError` whose `outcome` says whether the write happened.
 * `applied`: it did, though its result is not at hand. `not-applied`: it did not and will not. `unknown`: it may have, or may still; only where
 * this client gave up, at `timeoutMs` or an abort or `close()`, or had its session taken away while it could reach nobody.
 *
 * Writes of one client go in a session: each is applied at most once, however often it had to be sent, and in the order of the calls, those whose
 * outcome is unknown among them. Not promised: that several writes are applied together (that is a `txn`), the order between two clients,
 * and the order of reads and writes that are in flight together: await one to order it before the next. With `session: false`, or where the
 * cluster is too old (see `session`), a write is sent once, its outcome is unknown whenever the connection is lost, and writes in flight
 * together have no order.
 */
import type {
  AdminAnswers,
  AdminBody,
  AdminOperation,
  GroupEntry,
  LeaderAnswer,
  MembersAnswer,
  MemberWish,
  MovedGroupAnswer,
} from "../wire/admin.ts";
import type { Backup, BackupOptions } from "./backup.ts";
import type { NodeStatus } from "../wire/status.ts";
import type { Watch, WatchOptions } from "./watch-api.ts";

/** How values are turned into bytes and back. The server never looks inside a value. */
export type CodecName = "bytes" | "json" | "msgpack";

/** What `put` accepts: with `bytes`, bytes or a string that is stored as UTF-8; else anything that the codec can write. */
export type ValueInput<C extends CodecName> = C extends "bytes" ? Uint8Array | string : unknown;

/** What `get` returns: with `bytes` a `Uint8Array` of the caller's own, else what the codec read. */
export type ValueOutput<C extends CodecName> = C extends "bytes" ? Uint8Array : unknown;

/** A string stands for its UTF-8 bytes. 1 to 4,096 bytes. */
export type Key = Uint8Array | string;

/**
 * How fresh a read is. `linearizable`: sees every write that was acknowledged before the read began; costs a round to a quorum,
 * shared by all reads that wait. `lease`: as linearizable while the leader's clock keeps its promise; only where the cluster allows
 * it. `local`: what the asked node has applied, however old; bound it with `maxStalenessMs`.
 */
export type ConsistencyName = "linearizable" | "lease" | "local";

/** Where a client may write its diagnostics; pino's and the console's shapes fit. Nothing is printed without one. */
export interface ClientLogger {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

export interface ClientOptions<C extends CodecName = CodecName> {
  /**
   * Nodes to begin with: `"host:port,host:port"` or a list. One reachable node is enough, the others are learned from it.
   * @default "127.0.0.1:9091"
   */
  readonly endpoints?: string | readonly string[] | undefined;
  /** The group that calls go to where they name no other. @default 0 */
  readonly group?: number | undefined;
  /** Time for a whole call, retries and waiting for room included. At most 60,000. @default 5000 */
  readonly timeoutMs?: number | undefined;
  /**
   * How long one try may take: to connect, or to answer a read, which is then asked elsewhere. Also how long a node may be silent,
   * not even answering a ping, before its connection is given up; after half of it others are asked instead. Writes are sent again elsewhere
   * after so long without any answer, at first; where there is no session they wait for theirs until `timeoutMs`, as long as the node lives. @default 1000
   */
  readonly attemptTimeoutMs?: number | undefined;
  /** Calls that await their answer, over all groups; further ones wait for room, in order. @default 65536 */
  readonly maxInFlightRequests?: number | undefined;
  /** Bytes of commands and queries that await their answer; further calls wait for room. @default 67108864 (64 MiB) */
  readonly maxInFlightBytes?: number | undefined;
  /** Calls that may wait for room, shared among the groups; further ones are refused at once with `overloaded`, not applied. @default 65536 */
  readonly maxWaitingRequests?: number | undefined;
  /** Connections to each node in use, for reads; writes of a session keep to one. One is best unless a single event loop is not the bottleneck. @default 1 */
  readonly connectionsPerNode?: number | undefined;
  /**
   * Writes go in a session, which makes each of them happen at most once and in the order of the calls, whatever is tried again: `true` where
   * the cluster can, `"required"` where it must (writes are refused with `version_mismatch` by one that is too old), `false` never.
   * `"request-ids"`: each request has an id of its own instead, for a client that writes a time or two: at most once too, for one entry in the log
   * instead of three, but without an order; a group remembers 100,000 ids, for ten minutes, and refuses more (`request_ids_full`).
   * @default true
   */
  readonly session?: boolean | "required" | "request-ids" | undefined;
  /** The session ends once the client was not used for so long; a new one is opened when it is needed. At most 3,600,000. @default what the cluster says, 10 minutes */
  readonly sessionTtlMs?: number | undefined;
  /** @default "bytes" */
  readonly codec?: C | undefined;
  /** @default none: nothing is printed */
  readonly logger?: ClientLogger | undefined;
}

export interface CallOptions {
  /** The group that the call goes to: the same as `client.group(id)` and the call there. @default the client's */
  readonly group?: number | undefined;
  /** Overrides the client's `timeoutMs` for this call. */
  readonly timeoutMs?: number | undefined;
  /**
   * Gives the call up: it rejects with `aborted`, outcome `not-applied` where nothing was sent yet, else `unknown`. A call with a
   * signal travels in a section of its own, so at high rates prefer `timeoutMs`.
   */
  readonly signal?: AbortSignal | undefined;
}

/** What is not given is for the cluster to choose. */
export interface CreateGroupsOptions extends CallOptions {
  /** @default 1 */
  readonly count?: number | undefined;
  /** Of the first one; the others follow on it. */
  readonly id?: number | undefined;
  /** For people; only of one group. */
  readonly name?: string | undefined;
  /** `http`: the application beside each of its nodes. @default that of group 0 */
  readonly machine?: "kv" | "http" | "null" | undefined;
  /** How many nodes host each. @default 3, or as many as there are */
  readonly replicas?: number | undefined;
  /** Which. @default those that host the fewest */
  readonly members?: readonly number[] | undefined;
  /** Writes are refused while the log of one is larger. @default the bound of its nodes */
  readonly logBytesMax?: number | undefined;
}

export interface ChangeOptions extends CallOptions {
  /** Also where the voters that would be left do not answer in their majority, which may stop the group. @default false */
  readonly force?: boolean | undefined;
}

export interface ReadOptions extends CallOptions {
  /** @default "linearizable" */
  readonly consistency?: ConsistencyName | undefined;
  /**
   * For `local` reads: refuse rather than answer from a state that may lack something older than this, on the node's own clock. A follower learns
   * from heartbeats how old its state may be at most: 225 to 325 ms while all is well. For less, read linearizably. @default any age
   */
  readonly maxStalenessMs?: number | undefined;
}

/** A part of what a node says about itself; its other figures are always there. */
export interface StatusOptions extends CallOptions {
  /** These groups in full. @default the first of all there are */
  readonly groups?: readonly number[] | undefined;
  /** Groups with higher ids than this, by rising id: the last one of the page before. */
  readonly after?: number | undefined;
  /** Groups on one page, at most 256 in full, 4,096 in brief. @default 64 in full, 4096 in brief */
  readonly limit?: number | undefined;
  /** The groups as `briefs` instead: a line of each. @default false */
  readonly brief?: boolean | undefined;
}

export interface PutResult {
  /** Log index of this write: the key's new revision, unique and rising over all keys of the group. */
  readonly revision: number;
}

export interface DeleteResult {
  /** Log index of this delete. */
  readonly revision: number;
  /** False when the key was absent. */
  readonly deleted: boolean;
}

export interface CompareResult {
  /** True: the revision matched and the value was written. False: nothing was changed. */
  readonly swapped: boolean;
  /** The key's revision now: of this write, or of what is there instead (0 = absent). */
  readonly revision: number;
}

export interface Entry<C extends CodecName = "bytes"> {
  readonly value: ValueOutput<C>;
  /** Log index of the write that put this value. */
  readonly revision: number;
}

export interface RangeItem<C extends CodecName = "bytes"> extends Entry<C> {
  readonly key: Uint8Array;
}

/** Keys in bytewise order: all that begin with `prefix`, or all in [`from`, `to`), or all. */
export interface RangeOptions extends ReadOptions {
  readonly prefix?: Key | undefined;
  readonly from?: Key | undefined;
  readonly to?: Key | undefined;
  /** Only keys strictly after this one: the last key of the page before. */
  readonly after?: Key | undefined;
  /** Items on one page, at most 1,000; a page also ends at about 1 MiB. @default 1000 */
  readonly limit?: number | undefined;
  /** Leave the values out: each is empty, or undefined with another codec than `bytes`. @default false */
  readonly keysOnly?: boolean | undefined;
}

/** As for `range`, all pages of it. */
export interface ScanOptions extends Omit<RangeOptions, "limit"> {
  /** Items in all. @default all there are */
  readonly limit?: number | undefined;
}

export interface RangePage<C extends CodecName = "bytes"> {
  readonly items: readonly RangeItem<C>[];
  /** There is more: ask again with `after` set to the last item's key. */
  readonly more: boolean;
  /** Log index at which the page was read. */
  readonly revision: number;
}

/** What must hold for a key before a transaction. An absent key has revision 0 and no value, which equals none. */
export type TxnCompare<C extends CodecName = "bytes"> =
  | {
      readonly key: Key;
      /** The key's revision is `operator` than or to this one. */
      readonly revision: number;
      /** @default "equal" */
      readonly operator?: "equal" | "notEqual" | "less" | "greater" | undefined;
    }
  | {
      readonly key: Key;
      /** Compared as the bytes that the codec writes. */
      readonly value: ValueInput<C>;
      /** `notEqual` holds exactly where `equal` does not, so for an absent key too. @default "equal" */
      readonly operator?: "equal" | "notEqual" | undefined;
    }
  | { readonly key: Key; readonly exists: boolean };

/** One operation of a transaction, with the fields of the call of the same name. */
export type TxnOperation<C extends CodecName = "bytes"> =
  | { readonly op: "put"; readonly key: Key; readonly value: ValueInput<C> }
  | { readonly op: "delete"; readonly key: Key }
  | { readonly op: "get"; readonly key: Key }
  | ({ readonly op: "range" } & Pick<
      RangeOptions,
      "prefix" | "from" | "to" | "after" | "limit" | "keysOnly"
    >);

/** What an operation gives: the same as the call of its name. */
export type TxnOperationResult<C extends CodecName, O> = O extends { readonly op: "put" }
  ? PutResult
  : O extends { readonly op: "delete" }
    ? DeleteResult
    : O extends { readonly op: "get" }
      ? Entry<C> | undefined
      : RangePage<C>;

export type TxnResults<C extends CodecName, L extends readonly unknown[]> = {
  readonly [P in keyof L]: TxnOperationResult<C, L[P]>;
};

/** What became of a transaction that was applied. `results` are those of the list that was run, by position. */
export type TxnResult<
  C extends CodecName,
  S extends readonly unknown[],
  F extends readonly unknown[],
> =
  | {
      readonly succeeded: true;
      /** Log index of the transaction: the revision of every key that it wrote. */
      readonly revision: number;
      readonly results: TxnResults<C, S>;
    }
  | {
      /** The compares did not hold. */
      readonly succeeded: false;
      readonly revision: number;
      readonly results: TxnResults<C, F>;
    };

/**
 * A transaction: compares, and one list of operations for when all of them hold, one for when not. It is one command: applied as a
 * whole or not at all, at one revision, and nothing comes between.
 *
 * The compares look at the state before it. The operations run in order, and each sees what those before it did; a key that is written
 * twice keeps the last value. At most 128 compares and operations and 4 MiB in all; the results at most 1 MiB, and a range that
 * would not fit them ends early with `more`.
 *
 * Immutable: each method gives a new one, so that a part may be used for several. What is wrong is named by its place when it is
 * committed, as in `success[3].key: must not be empty`, and then nothing was applied.
 *
 *     const { succeeded, results } = await client
 *       .txn()
 *       .compare({ key: "lock", exists: false })
 *       .onSuccess({ op: "put", key: "lock", value: "me" })
 *       .onFailure({ op: "get", key: "lock" })
 *       .commit();
 */
export interface Txn<
  C extends CodecName = "bytes",
  S extends readonly unknown[] = readonly [],
  F extends readonly unknown[] = readonly [],
> {
  /** Adds compares. All must hold; without any the success list is run. */
  compare(...compares: readonly TxnCompare<C>[]): Txn<C, S, F>;
  /** Adds operations for when all compares hold. */
  onSuccess<const O extends readonly TxnOperation<C>[]>(
    ...operations: O
  ): Txn<C, readonly [...S, ...O], F>;
  /** Adds operations for when one of the compares does not hold. */
  onFailure<const O extends readonly TxnOperation<C>[]>(
    ...operations: O
  ): Txn<C, S, readonly [...F, ...O]>;
  /** Sends it, once. Failed compares are no error: see `succeeded`. */
  commit(options?: CallOptions): Promise<TxnResult<C, S, F>>;
}

/** Result of one command: `code` 0 is plain ok; the rest is the state machine's (see machine/machine.ts). */
export interface WriteResult {
  /** Log index of the command. */
  readonly index: number;
  readonly code: number;
  readonly bytes: Uint8Array;
}

/** Result of the commands of one section, applied at `firstIndex`, `firstIndex + 1`, … in the order given. */
export interface WriteManyResult {
  readonly firstIndex: number;
  readonly count: number;
  /** Only the commands whose result is not plain ok, by rising position. Empty when all went well. */
  readonly exceptions: readonly CommandException[];
}

export interface CommandException {
  /** Position of the command among those given, from 0. */
  readonly position: number;
  readonly code: number;
  readonly bytes: Uint8Array;
}

/**
 * A section that the caller fills itself: the quickest way to write much. Commands are laid out straight into the buffer that is
 * sent. Each `put`, `delete` and `command` returns false, and adds nothing, when the section is full: send it and take another.
 * `send` is called once; a batch that is never sent is merely dropped.
 */
export interface WriteBatch<C extends CodecName = "bytes"> {
  readonly count: number;
  /** Bytes laid out so far. */
  readonly byteLength: number;
  put(key: Key, value: ValueInput<C>): boolean;
  delete(key: Key): boolean;
  /** One opaque command, for a state machine of your own. */
  command(bytes: Uint8Array): boolean;
  /** Sends all as one section: one promise however many commands. Commands are not atomic as a whole. */
  send(options?: CallOptions): Promise<WriteManyResult>;
}

/**
 * A client of one group, and the way to those of others. Lazy: it connects at the first call. Calls of one turn of the event loop travel together. Use it with
 * `await using`, or call `drain()`.
 *
 * Every call rejects with a `BargeError`, whatever fails; a wrong argument rejects with `bad_request` or `too_large`, not applied.
 */
export interface Client<C extends CodecName = "bytes"> extends AsyncDisposable {
  /** Writes a value. */
  put(key: Key, value: ValueInput<C>, options?: CallOptions): Promise<PutResult>;
  /** The value of a key, or undefined when it is absent. */
  get(key: Key, options?: ReadOptions): Promise<Entry<C> | undefined>;
  delete(key: Key, options?: CallOptions): Promise<DeleteResult>;
  /** Writes only if the key's revision is `prevRevision`; 0 = only if the key is absent. */
  compareAndSet(
    key: Key,
    value: ValueInput<C>,
    prevRevision: number,
    options?: CallOptions,
  ): Promise<CompareResult>;
  /** Deletes only if the key's revision is `prevRevision`. */
  compareAndDelete(key: Key, prevRevision: number, options?: CallOptions): Promise<CompareResult>;
  /** One page of keys in order. */
  range(options?: RangeOptions): Promise<RangePage<C>>;
  /**
   * All keys of a range, in order, each once: page after page, the next one read when it is needed and with a time-out of its own. Each page is
   * what was there when it was read; to have all as of one moment, compare the revisions, or watch from the first page's on.
   *
   *     for await (const { key, value } of client.scan({ prefix: "user/" })) …
   */
  scan(options?: ScanOptions): AsyncIterable<RangeItem<C>>;
  /** An empty transaction, to be filled and committed. */
  txn(): Txn<C>;

  /**
   * One opaque command. A thin wrapper over a section shared with the other calls of this turn; it costs about 60 ns more than the
   * same command in `writeMany` or a `batch` (its own promise).
   */
  write(command: Uint8Array, options?: CallOptions): Promise<WriteResult>;
  /** Opaque commands as one section, with one promise. All must fit one section (256 KiB by default), or `too_large`. */
  writeMany(commands: readonly Uint8Array[], options?: CallOptions): Promise<WriteManyResult>;
  /** A section to fill by hand. */
  batch(): WriteBatch<C>;
  /** One opaque query to the state machine. */
  read(query: Uint8Array, options?: ReadOptions): Promise<ReadAnswer>;

  /**
   * The changes of some keys, from any revision that the nodes still know, as they happen: see `Watch`. Throws `bad_request` or `too_large` at once
   * where an option is wrong. Watches have a connection of their own, and end with the client.
   */
  watch(options?: WatchOptions): Watch<C>;

  /** The group that calls go to where they name no other. */
  readonly groupId: number;
  /**
   * The client of another group, over the same connections: always the same one for the same id. Each has its own session, and waits for no other.
   * What it is asked to `close` or `drain` is itself; to close the client that `connect` gave closes all.
   *
   *     await client.group(groupOfKey(key, 16)).put(key, value);
   */
  group(group: number): Client<C>;
  /** The groups that this client has been told of by now: of all of them, once it uses more than one. */
  groups(): number[];
  /** What a node says about itself: the given one, or any. */
  status(endpoint?: string, options?: StatusOptions): Promise<NodeStatus>;
  /** The members in force, linearizably: voters and learners, the leader, and how far each has come. */
  members(options?: CallOptions): Promise<MembersAnswer>;
  /**
   * Changes the members. All wishes take effect together: resolves once the new members are committed. A new voter is a learner until it has
   * caught up, which may take long after that: see `promotion` in the list. To ask for what holds already changes nothing, so a call
   * whose outcome is unknown may be repeated, and is, while there is time.
   */
  changeMembers(
    changes: readonly MemberWish[],
    options?: ChangeOptions,
  ): Promise<AdminAnswers["changeMembers"]>;
  /** All groups as they are to be, linearizably, but for group 0. */
  listGroups(options?: CallOptions): Promise<readonly GroupEntry[]>;
  /** Makes groups, each under an id that none ever had. Resolves once the cluster has decided it: the first calls to one may wait for its first leader. */
  createGroups(options?: CreateGroupsOptions): Promise<readonly GroupEntry[]>;
  /** Other nodes are to host a group: they get all of it, and only then the others drop it. Resolves once that is decided. */
  moveGroup(
    id: number,
    members: readonly number[],
    options?: CallOptions,
  ): Promise<MovedGroupAnswer>;
  /** Removes groups with all that they hold, for good: resolves to the ids of those that were there. */
  removeGroups(ids: readonly number[], options?: CallOptions): Promise<readonly number[]>;
  /**
   * Has another voter lead: the one with that id, or the one that fits best. Resolves once it does; nothing changes where it does already.
   * Writes wait for a moment meanwhile, and none is lost. Refused for who could not lead; without effect where he does not take over in time.
   */
  transferLeader(to?: number, options?: CallOptions): Promise<LeaderAnswer>;
  /**
   * The state of the group at one index, from one node, while the cluster goes on. Iterate over it for the bytes of a file that `barge restore` makes a
   * new cluster of; a backup that is cut short is noticed there.
   */
  backup(options?: BackupOptions): Promise<Backup>;
  /** One operation of administration, by its name in wire/admin.ts; asked of any node, or of `endpoint`. */
  admin<O extends AdminOperation>(
    operation: O,
    body: Omit<AdminBody<O>, "group" | "timeoutMs">,
    options?: CallOptions & { readonly endpoint?: string | undefined },
  ): Promise<AdminAnswers[O]>;
  /** `host:port` of the nodes known so far: those given, then those learned. */
  endpoints(): string[];
  /** The id of the session that writes go in: the log index at which it was opened. Undefined while there is none. */
  session(): number | undefined;
  /** `host:port` of the node that leads as far as this client knows. */
  leader(): string | undefined;

  /** Takes no more calls, lets those in flight finish, then closes. Idempotent. The same as disposal. */
  drain(): Promise<void>;
  /** Closes at once: calls not yet sent reject with `shutting_down` (not applied), sent ones with `outcome_unknown`. Idempotent. */
  close(): void;
}

/** Answer to an opaque query: `code` 0 is ok. */
export interface ReadAnswer {
  readonly code: number;
  readonly bytes: Uint8Array;
  /** Log index at which the query was answered. */
  readonly appliedIndex: number;
}

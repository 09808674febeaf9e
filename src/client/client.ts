/**
 * The client of one group: calls in, promises out. Lays the calls of one turn of the event loop into as few requests as they fit into, and keeps the
 * bounds on what is in flight. Where requests go is the router's business; what the groups of one client share is core.ts.
 *
 * Per command it makes the promise that it returns and what resolves that, nothing else [39]: commands are laid out straight into the
 * section, whose parallel arrays hold who waits.
 */
import { BargeError } from "../errors.ts";
import { KvOp } from "../wire/kv.ts";
import { Consistency } from "../wire/messages.ts";
import type {
  CallOptions,
  ChangeOptions,
  CreateGroupsOptions,
  Client,
  CodecName,
  CompareResult,
  DeleteResult,
  Entry,
  Key,
  PutResult,
  RangeOptions,
  RangeItem,
  RangePage,
  ReadAnswer,
  ReadOptions,
  ScanOptions,
  StatusOptions,
  Txn,
  ValueInput,
  WriteBatch,
  WriteManyResult,
  WriteResult,
} from "./api.ts";
import { AdminCall } from "./admin-call.ts";
import { type AskNode, type Backup, type BackupOptions, openBackup } from "./backup.ts";
import { Batch } from "./batch.ts";
import { ControlCall } from "./control-call.ts";
import type { ClientCore, GroupClient } from "./core.ts";
import { deferred, type Deferred } from "./deferred.ts";
import type { NodeLink } from "./node-link.ts";
import { checkEndpoint, checkGroup, checkTimeout, isGroup, type Settings } from "./options.ts";
import type { Outgoing, Reject, Resolve } from "./outgoing.ts";
import { keyBytes } from "./text.ts";
import { Ask, ReadBatch } from "./read-batch.ts";
import { closedError, Router, type RouterEvents } from "./router.ts";
import { checkStatus } from "./status.ts";
import type {
  AdminAnswers,
  AdminBody,
  AdminOperation,
  MembersAnswer,
  MemberWish,
  LeaderAnswer,
  GroupEntry,
  MovedGroupAnswer,
} from "../wire/admin.ts";
import type { NodeStatus, StatusRequest } from "../wire/status.ts";
import { TxnBuilder } from "./txn.ts";
import { type ValueCodec, valueCodec } from "./value-codec.ts";
import { WaitingCalls } from "./waiting-calls.ts";
import type { Watch, WatchOptions } from "./watch-api.ts";
import { openWatch } from "./watch-call.ts";
import { resultCode, type SectionBounds, Want, WriteSection } from "./write-section.ts";

/** Calls that may wait for room in any group, whatever waits in others. */
const waitingCallsMin = 64;
/** Groups that one client may use at once. */
const groupsUsedMax = 16_384;
/** From here on a section is full enough: what it costs itself is little beside its commands. */
const gatheredBytesMax = 32 * 1024;
/** A section is held open no longer, or, while it gathers, for no larger a share of its calls' time: their deadlines, which are one, are near enough to each other's then. */
const sectionHeldMsMax = 50;
const sectionHeldShareMax = 1 / 16;
const nothing: readonly Outgoing[] = [];
/** Of one page of a scan: the bound of the nodes. */
const scanPageItems = 1_000;
const maxStalenessMsMax = 0xffff_ffff;

/** One executor for all promises: taking the two functions out of it costs no closure per call. */
let takenResolve: Resolve;
let takenReject: Reject;
function take(resolve: (value: never) => void, reject: Reject): void {
  takenResolve = resolve;
  takenReject = reject;
}

/** A section or a batch of reads, which notes of what kind the call is that waits for what was added last. */
interface Waitable<K> extends Outgoing {
  waitFor(kind: K, resolve: Resolve, reject: Reject): void;
}

export class BargeClient<C extends CodecName> implements Client<C>, GroupClient, RouterEvents {
  readonly #settings: Settings;
  readonly #core: ClientCore<BargeClient<C>>;
  /** The one that connect() gave: closing it closes all. */
  readonly #isFirst: boolean;
  readonly #codec: ValueCodec;
  readonly #bounds: SectionBounds;
  readonly #router: Router;
  #state: "open" | "draining" | "closed" = "open";

  /** The section and the reads that this turn's calls still go into, and the requests of this turn that are complete. */
  #section: WriteSection | undefined;
  /** Since when the open section waits for more; undefined while it goes with its turn. */
  #heldSinceMs: number | undefined;
  #reads: ReadBatch[] = [];
  #turn: Outgoing[] = [];
  #turnEnds = false;

  /** Requests of earlier turns that are not settled, and the sections among them. */
  #outstanding = 0;
  #sectionsOut = 0;
  callsInFlight = 0;
  bytesInFlight = 0;
  readonly #waiting = new WaitingCalls();

  #drained: Deferred<void> | undefined;

  /** `settings` name the group. */
  constructor(settings: Settings, core: ClientCore<BargeClient<C>>, isFirst: boolean) {
    this.#settings = settings;
    this.#core = core;
    this.#isFirst = isFirst;
    this.#codec = valueCodec(settings.codec);
    this.#bounds = core.bounds;
    this.#router = new Router(settings, core.nodes, this);
    core.add(settings.group, this);
  }

  /* ---------------------------------------------------------------- groups */

  get groupId(): number {
    return this.#settings.group;
  }

  group(group: number): BargeClient<C> {
    return this.#client(checkGroup(group));
  }

  #client(group: number): BargeClient<C> {
    const known = this.#core.client(group);
    if (known !== undefined) return known;
    if (this.#core.size >= groupsUsedMax) {
      const text = `this client uses ${groupsUsedMax} groups already; drain() those that are done`;
      throw new BargeError("overloaded", text);
    }
    const client = new BargeClient<C>({ ...this.#settings, group }, this.#core, false);
    if (this.#core.closed) client.close();
    return client;
  }

  /** The client of the group that the call names; a wrong one is refused where the other options are checked. */
  #of(options: CallOptions | undefined): BargeClient<C> {
    const group = options?.group;
    if (group === undefined || group === this.#settings.group || !isGroup(group)) return this;
    return this.#client(group);
  }

  /* ---------------------------------------------------------------- key-value */

  put(key: Key, value: ValueInput<C>, options?: CallOptions): Promise<PutResult> {
    return this.#of(options).#kv(Want.put, KvOp.put, key, value, 0, options);
  }

  delete(key: Key, options?: CallOptions): Promise<DeleteResult> {
    return this.#of(options).#kv(Want.delete, KvOp.delete, key, undefined, 0, options);
  }

  compareAndSet(
    key: Key,
    value: ValueInput<C>,
    prevRevision: number,
    options?: CallOptions,
  ): Promise<CompareResult> {
    return this.#of(options).#kv(
      Want.compare,
      KvOp.compareAndPut,
      key,
      value,
      prevRevision,
      options,
    );
  }

  compareAndDelete(key: Key, prevRevision: number, options?: CallOptions): Promise<CompareResult> {
    return this.#of(options).#kv(
      Want.compare,
      KvOp.compareAndDelete,
      key,
      undefined,
      prevRevision,
      options,
    );
  }

  get(key: Key, options?: ReadOptions): Promise<Entry<C> | undefined> {
    const to = this.#of(options);
    if (to.#full) return to.#later(options, (late) => to.#get(key, late));
    return to.#get(key, options);
  }

  range(options?: RangeOptions): Promise<RangePage<C>> {
    const to = this.#of(options);
    if (to.#full) return to.#later(options, (late) => to.#range({ ...options, ...late }));
    return to.#range(options ?? {});
  }

  async *scan(options: ScanOptions = {}): AsyncGenerator<RangeItem<C>, void> {
    let left = options.limit === undefined ? Infinity : checkLimit(options.limit);
    let { after } = options;
    for (let more = true; more && left > 0;) {
      const limit = Math.min(left, scanPageItems);
      const page = await this.range({ ...options, after, limit });
      // Taken before the caller has the items, whose bytes are the caller's own then.
      after = page.items.at(-1)?.key.slice() ?? after;
      yield* page.items;
      left -= page.items.length;
      more = page.more && page.items.length > 0;
    }
  }

  txn(): Txn<C> {
    const context = {
      codecName: this.#settings.codec,
      codec: this.#codec,
      send: (command: Uint8Array, alone: boolean, options: CallOptions | undefined) =>
        alone ? this.#writeAlone(command, options) : this.write(command, options),
    };
    return new TxnBuilder<C, readonly [], readonly []>(context, [], [], []);
  }

  /* ---------------------------------------------------------------- opaque commands and queries */

  write(command: Uint8Array, options?: CallOptions): Promise<WriteResult> {
    const to = this.#of(options);
    if (to.#full) return to.#later(options, (late) => to.#write(command, late));
    return to.#write(command, options);
  }

  async writeMany(
    commands: readonly Uint8Array[],
    options?: CallOptions,
  ): Promise<WriteManyResult> {
    const batch = this.batch();
    for (const command of commands) {
      if (!batch.command(command)) {
        throw new BargeError(
          "too_large",
          `${commands.length} commands do not fit one section of ${this.#bounds.sectionBytesMax} bytes`,
        );
      }
    }
    return batch.send(options);
  }

  batch(): WriteBatch<C> {
    const section = this.#core.takeSection();
    return new Batch(section, this.#bounds, this.#codec, (filled, options) => {
      const to = this.#of(options);
      return to.#full
        ? to.#later(options, (late) => to.#sendBatch(filled, late))
        : to.#sendBatch(filled, options);
    });
  }

  read(query: Uint8Array, options?: ReadOptions): Promise<ReadAnswer> {
    const to = this.#of(options);
    if (to.#full) return to.#later(options, (late) => to.#read(query, late));
    return to.#read(query, options);
  }

  /* ---------------------------------------------------------------- the client itself */

  status(endpoint?: string, options?: StatusOptions): Promise<NodeStatus> {
    if (this.#state !== "open") return Promise.reject(closedError());
    const { promise, resolve, reject } = deferred<NodeStatus>();
    try {
      const target = endpoint === undefined ? undefined : checkEndpoint(endpoint);
      const taken = (body: unknown): void => {
        const status = checkStatus(body);
        if (status instanceof BargeError) reject(status);
        else resolve(status);
      };
      checkSignal(options);
      const call = new ControlCall("status", statusBody(options), target, taken, reject);
      call.timeoutMs = this.#timeoutMs(options);
      this.#begin(call, options);
    } catch (error) {
      reject(error);
    }
    return promise;
  }

  members(options?: CallOptions): Promise<MembersAnswer> {
    return this.admin("members", {}, options);
  }

  changeMembers(
    changes: readonly MemberWish[],
    options?: ChangeOptions,
  ): Promise<AdminAnswers["changeMembers"]> {
    const body = { changes: [...changes], force: options?.force ?? false };
    return this.admin("changeMembers", body, options);
  }

  async listGroups(options?: CallOptions): Promise<readonly GroupEntry[]> {
    return (await this.admin("groups", {}, options)).groups;
  }

  async createGroups(options: CreateGroupsOptions = {}): Promise<readonly GroupEntry[]> {
    const { count, id, name, machine, replicas, members, logBytesMax } = options;
    const wanted = {
      // Asked again where the answer is lost, it is the same request.
      request: crypto.randomUUID(),
      ...(count === undefined ? {} : { count }),
      ...(id === undefined ? {} : { id }),
      ...(name === undefined ? {} : { name }),
      ...(machine === undefined ? {} : { machine }),
      ...(replicas === undefined ? {} : { replicas }),
      ...(members === undefined ? {} : { members: [...members] }),
      ...(logBytesMax === undefined ? {} : { logBytesMax }),
    };
    return (await this.admin("createGroups", wanted, options)).groups;
  }

  moveGroup(
    id: number,
    members: readonly number[],
    options?: CallOptions,
  ): Promise<MovedGroupAnswer> {
    return this.admin("moveGroup", { id, members: [...members] }, options);
  }

  async removeGroups(ids: readonly number[], options?: CallOptions): Promise<readonly number[]> {
    return (await this.admin("removeGroups", { groups: [...ids] }, options)).removed;
  }

  async transferLeader(to?: number, options?: CallOptions): Promise<LeaderAnswer> {
    if (to !== undefined) return this.admin("transferLeader", { to }, options);
    const { leader: from } = await this.members(options);
    return this.admin("transferLeader", { from }, options);
  }

  async admin<O extends AdminOperation>(
    operation: O,
    body: Omit<AdminBody<O>, "group" | "timeoutMs">,
    options?: CallOptions & { readonly endpoint?: string | undefined },
  ): Promise<AdminAnswers[O]> {
    const untilMs = performance.now() + this.#timeoutMs(options);
    for (;;) {
      const timeoutMs = Math.max(1, Math.ceil(untilMs - performance.now()));
      try {
        return await this.#of(options).#adminOnce(operation, body, { ...options, timeoutMs });
      } catch (error) {
        // What holds already is not changed again, so to ask once more tells whether it does.
        const isLost = error instanceof BargeError && error.code === "outcome_unknown";
        if (!isLost || performance.now() >= untilMs) throw error;
      }
    }
  }

  #adminOnce<O extends AdminOperation>(
    operation: O,
    body: object,
    options: CallOptions & { readonly endpoint?: string | undefined },
  ): Promise<AdminAnswers[O]> {
    if (this.#state !== "open") return Promise.reject(closedError());
    const { promise, resolve, reject } = deferred<AdminAnswers[O]>();
    try {
      const { endpoint } = options;
      const target = endpoint === undefined ? undefined : checkEndpoint(endpoint);
      checkSignal(options);
      // The node answers with what wire/admin.ts says for the operation.
      const taken = (answer: unknown): void => resolve(answer as AdminAnswers[O]);
      const call = new AdminCall(operation, body, target, taken, reject);
      call.timeoutMs = options.timeoutMs!;
      this.#begin(call, options);
    } catch (error) {
      reject(error);
    }
    return promise;
  }

  async backup(options: BackupOptions = {}): Promise<Backup> {
    const { endpoint: only, group } = options;
    const nodes = this.#core.nodes.endpointsFor(group ?? this.#settings.group);
    const endpoints = only === undefined ? nodes : [only];
    let failure: unknown;
    for (const endpoint of endpoints) {
      // All of it from one node.
      const ask: AskNode = (operation, body, timeoutMs) =>
        this.admin(operation, body, { endpoint, timeoutMs, group });
      try {
        return await openBackup(ask, options);
      } catch (error) {
        failure ??= error;
      }
    }
    throw failure;
  }

  watch(options?: WatchOptions): Watch<C> {
    if (this.#state !== "open") throw closedError();
    const group = checkGroup(options?.group ?? this.#settings.group);
    return openWatch<C>(this.#core.watches, group, this.#codec, options);
  }

  endpoints(): string[] {
    return this.#core.nodes.endpoints;
  }

  session(): number | undefined {
    return this.#router.keeper?.id;
  }

  leader(): string | undefined {
    return this.#router.leader;
  }

  groups(): number[] {
    // The group `system` is the nodes' own.
    return this.#core.nodes.directory.ids.filter(isGroup);
  }

  drain(): Promise<void> {
    if (this.#isFirst) {
      for (const client of this.#core.clients) if (client !== this) void client.drain();
    }
    if (this.#state === "closed") return this.#drained?.promise ?? Promise.resolve();
    this.#drained ??= deferred<void>();
    this.#state = "draining";
    this.#core.closeWatches(this.#settings.group);
    this.endTurn(performance.now());
    this.#core.nodes.flush();
    this.#closeIfDrained();
    return this.#drained.promise;
  }

  close(): void {
    if (this.#isFirst) {
      this.#core.isClosing = true;
      for (const client of this.#core.clients) if (client !== this) client.close();
    }
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#core.closeWatches(this.#settings.group);
    this.#waiting.rejectAll(closedError());
    for (const outgoing of this.#takeTurn(false)) {
      if (outgoing.phase === "settled") continue;
      outgoing.fail(closedError());
      this.#uncount(outgoing);
      outgoing.phase = "settled";
    }
    this.#router.close();
    // What is in flight ends with the connections, where they are closed too.
    if (this.#isFirst) this.#core.close();
    else if (!this.#core.isClosing) {
      this.#router.closeInFlight();
      this.#core.nodes.flush();
    }
    this.#core.remove(this.#settings.group, this);
    this.#drained?.resolve();
    this.#core.first?.otherClosed();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain();
  }

  /* ---------------------------------------------------------------- what the router says */

  settled(outgoing: Outgoing, reusable: boolean): void {
    this.#outstanding--;
    this.#uncount(outgoing);
    if (outgoing instanceof WriteSection) this.#sectionSettled(outgoing, reusable);
    if (this.#core.crowded.size > 0) this.#core.admit();
    if (this.#state === "draining") this.#closeIfDrained();
  }

  #sectionSettled(section: WriteSection, reusable: boolean): void {
    this.#sectionsOut--;
    // It may have been held for this one.
    if (this.#section !== undefined) this.#scheduleTurn();
    if (reusable) this.#core.recycle(section);
  }

  leftOver(rest: Outgoing): void {
    this.#take(rest.countedCalls, rest.countedBytes);
    this.#turn.push(rest);
    this.#scheduleTurn();
  }

  pumpWanted(): void {
    this.#scheduleTurn();
  }

  /* ---------------------------------------------------------------- calls into requests */

  #kv<T>(
    want: Want,
    op: KvOp,
    key: Key,
    value: unknown,
    prevRevision: number,
    options: CallOptions | undefined,
  ): Promise<T> {
    if (this.#full) {
      return this.#later(options, (late) => this.#kvNow(want, op, key, value, prevRevision, late));
    }
    return this.#kvNow(want, op, key, value, prevRevision, options);
  }

  #kvNow<T>(
    want: Want,
    op: KvOp,
    key: Key,
    value: unknown,
    prevRevision: number,
    options: CallOptions | undefined,
  ): Promise<T> {
    try {
      const deletes = op === KvOp.delete || op === KvOp.compareAndDelete;
      const stored = deletes ? undefined : this.#codec.encode(value);
      let section = this.#sectionFor(options);
      let before = section.byteLength;
      if (!section.addKv(this.#bounds, op, key, stored, prevRevision)) {
        section = this.#nextSection(options);
        before = section.byteLength;
        section.addKv(this.#bounds, op, key, stored, prevRevision);
      }
      return this.#wait(section, section.byteLength - before, want, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #write(command: Uint8Array, options: CallOptions | undefined): Promise<WriteResult> {
    try {
      let section = this.#sectionFor(options);
      let before = section.byteLength;
      if (!section.addCommand(this.#bounds, command)) {
        section = this.#nextSection(options);
        before = section.byteLength;
        section.addCommand(this.#bounds, command);
      }
      return this.#wait(section, section.byteLength - before, Want.opaque, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** In a section of its own. */
  async #writeAlone(command: Uint8Array, options: CallOptions | undefined): Promise<WriteResult> {
    const { firstIndex, exceptions } = await this.writeMany([command], options);
    const { code, bytes } = exceptions[0] ?? { code: resultCode.ok, bytes: new Uint8Array(0) };
    return { index: firstIndex, code, bytes };
  }

  #get(key: Key, options: ReadOptions | undefined): Promise<Entry<C> | undefined> {
    try {
      let batch = this.#readsFor(options, false);
      let before = batch.byteLength;
      if (!batch.addGet(key)) {
        batch = this.#readsFor(options, true);
        before = batch.byteLength;
        batch.addGet(key);
      }
      return this.#wait(batch, batch.byteLength - before, Ask.get, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** A page may fill a frame, so each travels alone. */
  #range(options: RangeOptions): Promise<RangePage<C>> {
    try {
      const batch = this.#newReads(options);
      batch.addRange({
        prefix: optionalKey(options.prefix),
        from: optionalKey(options.from),
        to: optionalKey(options.to),
        after: optionalKey(options.after),
        limit: checkLimit(options.limit),
        keysOnly: options.keysOnly,
      });
      const ask = options.keysOnly === true ? Ask.keys : Ask.range;
      const page = this.#waitOnly<RangePage<C>, Ask>(batch, batch.byteLength, ask);
      this.#begin(batch, options);
      return page;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #read(query: Uint8Array, options: ReadOptions | undefined): Promise<ReadAnswer> {
    try {
      let batch = this.#readsFor(options, false);
      let before = batch.byteLength;
      if (!batch.addQuery(query)) {
        batch = this.#readsFor(options, true);
        before = batch.byteLength;
        batch.addQuery(query);
      }
      return this.#wait(batch, batch.byteLength - before, Ask.opaque, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #sendBatch(section: WriteSection, options: CallOptions | undefined): Promise<WriteManyResult> {
    const { promise, resolve, reject } = deferred<WriteManyResult>();
    try {
      checkSignal(options);
      section.timeoutMs = this.#timeoutMs(options);
      section.many = { resolve: resolve as Resolve, reject };
      this.#count(section, section.byteLength);
      this.#begin(section, options);
    } catch (error) {
      reject(error);
    }
    return promise;
  }

  /** The promise of the call whose bytes were added last; what waits for it begins its way at the end of this turn. */
  #wait<T, K>(
    request: Waitable<K>,
    bytes: number,
    kind: K,
    options: CallOptions | undefined,
  ): Promise<T> {
    const promise = this.#waitOnly<T, K>(request, bytes, kind);
    if (options?.signal !== undefined) this.#begin(request, options);
    else this.#scheduleTurn();
    return promise;
  }

  #waitOnly<T, K>(request: Waitable<K>, bytes: number, kind: K): Promise<T> {
    const promise = new Promise<T>(take);
    request.waitFor(kind, takenResolve, takenReject);
    this.#count(request, bytes);
    return promise;
  }

  #count(outgoing: Outgoing, bytes: number): void {
    outgoing.countedCalls++;
    outgoing.countedBytes += bytes;
    this.#take(1, bytes);
  }

  #take(calls: number, bytes: number): void {
    this.#core.room.take(calls, bytes, this.callsInFlight === 0);
    this.callsInFlight += calls;
    this.bytesInFlight += bytes;
  }

  /** The open section, or a fresh one where that asks for another time-out or the call must travel alone. */
  #sectionFor(options: CallOptions | undefined): WriteSection {
    const timeoutMs = this.#timeoutMs(options);
    if (options?.signal !== undefined) {
      checkSignal(options);
      return this.#newSection(timeoutMs);
    }
    if (this.#section?.timeoutMs === timeoutMs) return this.#section;
    return this.#nextSection(options);
  }

  #nextSection(options: CallOptions | undefined): WriteSection {
    this.#endSection();
    this.#section = this.#newSection(this.#timeoutMs(options));
    return this.#section;
  }

  /** The open section is complete. */
  #endSection(): void {
    const section = this.#section;
    if (section === undefined) return;
    this.#section = undefined;
    this.#heldSinceMs = undefined;
    // A command that was refused before it was laid out leaves an empty one.
    if (section.count > 0) this.#turn.push(section);
    else this.#core.recycle(section);
  }

  #newSection(timeoutMs: number): WriteSection {
    const section = this.#core.takeSection();
    section.timeoutMs = timeoutMs;
    return section;
  }

  /** The open batch of reads that asks for the same, or a fresh one. */
  #readsFor(options: ReadOptions | undefined, fresh: boolean): ReadBatch {
    if (options?.signal !== undefined) {
      checkSignal(options);
      return this.#newReads(options);
    }
    const timeoutMs = this.#timeoutMs(options);
    const consistency = consistencyOf(options);
    const maxStalenessMs = stalenessOf(options);
    for (let i = 0; i < this.#reads.length; i++) {
      const batch = this.#reads[i]!;
      const same =
        batch.timeoutMs === timeoutMs &&
        batch.consistency === consistency &&
        batch.maxStalenessMs === maxStalenessMs;
      if (!same) continue;
      if (!fresh) return batch;
      this.#turn.push(batch);
      this.#reads.splice(i, 1);
      break;
    }
    const batch = this.#newReads(options);
    this.#reads.push(batch);
    return batch;
  }

  #newReads(options: ReadOptions | undefined): ReadBatch {
    const batch = new ReadBatch(this.#codec, consistencyOf(options), stalenessOf(options));
    batch.timeoutMs = this.#timeoutMs(options);
    return batch;
  }

  /** Every call asks for it, and has its group checked by the way. */
  #timeoutMs(options: CallOptions | undefined): number {
    if (options?.group !== undefined) checkGroup(options.group);
    const timeoutMs = options?.timeoutMs;
    return timeoutMs === undefined ? this.#settings.timeoutMs : checkTimeout(timeoutMs);
  }

  /* ---------------------------------------------------------------- turns */

  /** A request of its own: a batch, a control call, a call with a signal. */
  #begin(outgoing: Outgoing, options: CallOptions | undefined): void {
    const signal = options?.signal;
    if (signal !== undefined) {
      const abandon = (): void => this.#abandon(outgoing, signal.reason);
      signal.addEventListener("abort", abandon, { once: true });
      outgoing.whenSettled = () => signal.removeEventListener("abort", abandon);
    }
    // Writes keep the order of the calls.
    if (outgoing instanceof WriteSection) this.#endSection();
    this.#turn.push(outgoing);
    this.#scheduleTurn();
  }

  #scheduleTurn(): void {
    if (this.#turnEnds) return;
    this.#turnEnds = true;
    this.#core.endsTurn(this);
  }

  /** Everything that this turn's calls laid out goes on its way. */
  endTurn(nowMs: number): void {
    this.#turnEnds = false;
    if (this.#state === "closed") return;
    this.#router.pump(nowMs);
    for (const outgoing of this.#takeTurn(this.#holdsSection(nowMs))) {
      if (outgoing.phase === "settled") continue;
      // What is left of an answered batch has its deadline already.
      if (outgoing.deadlineMs === 0) outgoing.deadlineMs = nowMs + outgoing.timeoutMs;
      this.#outstanding++;
      if (outgoing instanceof WriteSection) this.#sectionsOut++;
      this.#router.submit(outgoing, nowMs);
    }
    this.#core.wakes(this);
    if (this.#state === "draining") this.#closeIfDrained();
  }

  /**
   * While others wait before it for room in the session, the open section may as well take more: it would only wait behind them. So it does while one of its group is
   * on its way, where calls go to many groups at once.
   */
  #holdsSection(nowMs: number): boolean {
    const section = this.#section;
    if (section === undefined || this.#state !== "open") return false;
    const gathers =
      this.#sectionsOut > 0 && this.#core.isSpread && section.byteLength < gatheredBytesMax;
    if (!gathers && this.#router.keeper?.isCrowded !== true) return false;
    this.#heldSinceMs ??= nowMs;
    const shareMs = gathers ? section.timeoutMs * sectionHeldShareMax : 0;
    return nowMs - this.#heldSinceMs < Math.max(sectionHeldMsMax, shareMs);
  }

  #takeTurn(holdsSection: boolean): readonly Outgoing[] {
    if (!holdsSection) this.#endSection();
    if (this.#turn.length === 0 && this.#reads.length === 0) return nothing;
    const turn = this.#turn;
    this.#turn = [];
    for (const batch of this.#reads) if (batch.count > 0) turn.push(batch);
    this.#reads = [];
    return turn;
  }

  #abandon(outgoing: Outgoing, reason: unknown): void {
    if (outgoing.phase !== "filling") return this.#router.abandon(outgoing, reason);
    outgoing.fail(abortedError(reason));
    this.#uncount(outgoing);
    outgoing.phase = "settled";
  }

  #uncount(outgoing: Outgoing): void {
    const { countedCalls: calls, countedBytes: bytes } = outgoing;
    this.callsInFlight -= calls;
    this.bytesInFlight -= bytes;
    this.#core.room.give(calls, bytes, calls > 0 && this.callsInFlight === 0);
    outgoing.countedCalls = 0;
    outgoing.countedBytes = 0;
    outgoing.whenSettled?.();
    outgoing.whenSettled = undefined;
  }

  /* ---------------------------------------------------------------- bounds, time, the end */

  /** A call must wait for room, or be refused. */
  get #full(): boolean {
    return this.#waiting.length > 0 || this.#state !== "open" || this.#core.room.isFullFor(this);
  }

  /** Waits for room, in order, on the call's own time. */
  #later<T, O extends CallOptions>(
    options: O | undefined,
    call: (options: O) => Promise<T>,
  ): Promise<T> {
    if (this.#state !== "open") return Promise.reject(closedError());
    try {
      checkSignal(options);
      const timeoutMs = this.#timeoutMs(options);
      this.#core.wakes(this);
      this.#core.crowded.add(this);
      return this.#waiting.add(
        this.#waitingMax,
        performance.now() + timeoutMs,
        options?.signal,
        (leftMs) => call({ ...(options as O), timeoutMs: leftMs }),
      );
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Of the calls that may wait, a share for each group that has some, but a few in any case. */
  get #waitingMax(): number {
    const max = this.#settings.maxWaitingRequests;
    return Math.min(max, Math.max(waitingCallsMin, max / this.#core.crowded.size));
  }

  admit(): void {
    const nowMs = performance.now();
    while (this.#waiting.length > 0 && !this.#core.room.isFullFor(this)) this.#waiting.admit(nowMs);
    if (this.#waiting.length === 0) this.#core.crowded.delete(this);
  }

  pump(nowMs: number): void {
    this.#router.pump(nowMs);
  }

  learned(): void {
    this.#router.learned();
    this.#scheduleTurn();
  }

  nodeLost(node: NodeLink): void {
    this.#router.nodeLost(node);
  }

  sweep(nowMs: number): boolean {
    this.#waiting.expire(nowMs);
    if (this.#waiting.length === 0) this.#core.crowded.delete(this);
    this.#router.sweep(nowMs);
    if (this.#section !== undefined && !this.#holdsSection(nowMs)) this.#scheduleTurn();
    return this.#outstanding > 0 || this.#waiting.length > 0;
  }

  /** The first one goes last. */
  otherClosed(): void {
    if (this.#state === "draining") this.#closeIfDrained();
  }

  #closeIfDrained(): void {
    if (this.#isFirst && this.#core.size > 1) return;
    if (this.#outstanding === 0 && this.#waiting.length === 0 && !this.#turnEnds) this.close();
  }
}

function statusBody(options: StatusOptions | undefined): StatusRequest {
  const { groups, after, limit, brief } = options ?? {};
  return {
    ...(groups === undefined ? {} : { groups: groups.map(checkGroup) }),
    ...(after === undefined ? {} : { after }),
    ...(limit === undefined ? {} : { limit }),
    ...(brief === undefined ? {} : { brief }),
  };
}

function abortedError(reason: unknown): BargeError {
  return new BargeError("aborted", "the caller gave up before anything was sent", {
    outcome: "not-applied",
    cause: reason,
  });
}

function checkSignal(options: CallOptions | undefined): void {
  if (options?.signal?.aborted === true) throw abortedError(options.signal.reason);
}

function consistencyOf(options: ReadOptions | undefined): Consistency {
  const name = options?.consistency;
  if (name === undefined) return Consistency.linearizable;
  const consistency = Object.hasOwn(Consistency, name) ? Consistency[name] : undefined;
  if (consistency !== undefined) return consistency;
  throw new BargeError(
    "bad_request",
    `consistency "${String(name)}" is none of linearizable, lease, local`,
  );
}

function stalenessOf(options: ReadOptions | undefined): number {
  const ms = options?.maxStalenessMs;
  if (ms === undefined) return 0;
  if (Number.isSafeInteger(ms) && ms >= 1 && ms <= maxStalenessMsMax) return ms;
  throw new BargeError("bad_request", "maxStalenessMs must be a positive integer");
}

function checkLimit(limit: number | undefined): number {
  if (limit === undefined) return 0;
  if (Number.isSafeInteger(limit) && limit >= 1 && limit <= 0xffff_ffff) return limit;
  throw new BargeError("bad_request", "limit must be a positive integer");
}

function optionalKey(key: Key | undefined): Uint8Array | undefined {
  return key === undefined ? undefined : keyBytes(key);
}

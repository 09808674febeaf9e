/**
 * The state machine that is an application in any language, called back over HTTP (README.md, [30]). The application owns the data; this owns what stands before
 * it: sessions and request ids, and how far the application is.
 *
 * Updates, Sync, PrepareSnapshot and RecoverFromSnapshot exclude each other: one of them is under way at a time, chosen in `#step`. Whatever fails closes the
 * link; opened again, the application says what it has, and that decides where to go on: after what is applied, or, where it has forgotten what was not
 * synced, from the state saved last, so that it is applied anew.
 */
import type { Limits } from "../../limits.ts";
import { type Batch, lastIndexOf } from "../../wire/batch.ts";
import { applyVersionFirst } from "../../wire/versions.ts";
import type {
  Absence,
  AnswerSink,
  IncomingSnapshot,
  MachineSnapshot,
  ResultSink,
  StateMachine,
} from "../machine.ts";
import type { AppCalls } from "./app-calls.ts";
import type { AppFolder, ReceivedSnapshot } from "./app-folder.ts";
import { AppLink, type AppLinkOwner, type AppLogger, type AppReply } from "./app-link.ts";
import { AppReads } from "./app-reads.ts";
import { AppRestore } from "./app-restore.ts";
import type { AppTraffic } from "./app-traffic.ts";
import { AppSnapshots } from "./app-snapshots.ts";
import { ContractError, readLastLogIndex } from "./contract.ts";
import { encodeState, type SavedState } from "./saved-state.ts";
import { type UpdateCall, UpdatePipeline } from "./update-pipeline.ts";
import { readResults } from "./update-results.ts";

export interface HttpMachineOptions {
  readonly group: number;
  readonly nodeId: number;
  readonly calls: AppCalls;
  /** Shared by all groups of a node. */
  readonly traffic: AppTraffic;
  readonly folder: AppFolder;
  /** The snapshot that the log says is live; 0 = none. */
  readonly generation: number;
  readonly limits: Limits;
  readonly logger: AppLogger;
  /** Asks for a turn. */
  readonly wake: () => void;
  readonly sync: boolean;
  /** The log begins behind that index. */
  readonly logStart: () => number;
  /** Where this node's own log ended at its start: the application can have nothing beyond that. */
  readonly logIndex: number;
  /** That log has lost something, so the application may well be ahead of it [22]. */
  readonly isWounded: boolean;
}

interface Restoring {
  readonly number: number;
  readonly snapshot: ReceivedSnapshot;
  /** That it is to be given is durable. */
  isDurable: boolean;
  /** The application has it, and that is still to be saved. */
  isGiven: boolean;
  transfer: AppRestore | undefined;
}

const veryStart: SavedState = {
  snapshot: 0,
  restores: false,
  appliedIndex: 0,
  appIndex: 0,
  stateHash: 0,
  timeMs: 0,
  applyVersion: applyVersionFirst,
  sessions: new Uint8Array(0),
};

export class HttpMachine implements StateMachine, AppLinkOwner {
  readonly answersLater = true;
  readonly #options: HttpMachineOptions;
  readonly #limits: Limits;
  readonly #folder: AppFolder;
  readonly #link: AppLink;
  readonly #pipeline: UpdatePipeline;
  readonly #reads: AppReads;
  readonly #snapshots: AppSnapshots;

  /** The newest that is durable, and which the application cannot be behind of. */
  #saved = veryStart;
  #allowedIndex = 0;
  /** Highest entry that was sent in this life. */
  #sentIndex = 0;
  #previousIndex = 0;
  /** The callback that excludes others, which is under way. */
  #busy: string | undefined;
  #restoring: Restoring | undefined;
  /** Received snapshots that go once the newest is known to be live. */
  #former: number[] = [];
  /** The application lacks what the log has dropped: another member's state is needed. */
  #isBehind = false;
  /** Which has come, and waits for this node's log; 0 = none. */
  #refill = 0;

  #saving = false;
  /** A state that is being saved counts for nothing after it. */
  #epoch = 0;
  #saveAgainMs = -Infinity;
  /** When `work` first saw something applied since the last save, and how many bytes of log that is. */
  #dirtySinceMs: number | undefined;
  #logBytes = 0;
  #flushWanted = false;
  #flushAt = Infinity;
  #entriesPrepared = 0;
  #later: (() => void)[] = [];
  #nowMs = 0;
  /** Since the process began. */
  #miscounted = 0;
  #restores = 0;

  constructor(options: HttpMachineOptions) {
    const { group, limits, logger, folder, wake } = options;
    this.#options = options;
    this.#limits = limits;
    this.#folder = folder;
    this.#link = new AppLink(options, this);
    const link = this.#link;
    this.#pipeline = new UpdatePipeline(limits);
    this.#reads = new AppReads(link, limits, options.traffic);
    const later = (action: () => void): void => {
      this.#later.push(action);
      wake();
    };
    this.#snapshots = new AppSnapshots({ group, link, limits, logger, later });
  }

  /* ---------------------------------------------------------------- what it is */

  open(): number {
    const { generation, group, logger } = this.#options;
    // One of before the log went over to a snapshot is of no use.
    const saved = this.#folder.load().find(({ snapshot }) => snapshot >= generation);
    const state = saved ?? (generation > 0 ? this.#received(generation) : veryStart);
    this.#folder.keepOnly(state.restores ? state.snapshot : 0, generation);
    if (state.restores) {
      const snapshot = this.#folder.open(state.snapshot);
      if (snapshot === undefined) throw new Error(`snapshot-${state.snapshot} is not there`);
      const { snapshot: number } = state;
      this.#restoring = {
        number,
        snapshot,
        isDurable: true,
        isGiven: false,
        transfer: undefined,
      };
      logger.info(
        { group, index: state.appliedIndex },
        "the application is to be given a snapshot",
      );
    }
    this.#adopt(state);
    // So that the folder tells from the first day on whose it is.
    if (saved === undefined && generation === 0) this.#save(veryStart);
    return state.appliedIndex;
  }

  #received(number: number): SavedState {
    const received = this.#folder.open(number);
    if (received === undefined) throw new Error(`snapshot-${number} is not there, or is damaged`);
    return { ...received.state, snapshot: number, restores: true };
  }

  #adopt(state: SavedState): void {
    this.#epoch++;
    this.#saved = state;
    this.#pipeline.load(state);
    this.#allowedIndex = Math.max(this.#allowedIndex, state.appliedIndex);
    this.#clean();
  }

  #clean(): void {
    this.#logBytes = 0;
    this.#dirtySinceMs = undefined;
    this.#flushWanted = false;
  }

  get appliedIndex(): number {
    return this.#pipeline.appliedIndex;
  }

  get durableIndex(): number {
    return this.#saved.appliedIndex;
  }

  get stateHash(): number {
    return this.#pipeline.stateHash;
  }

  get applyVersion(): number {
    return this.#pipeline.applyVersion;
  }

  get systemSeed(): Uint8Array {
    return this.#pipeline.systemSeed;
  }

  get previousIndex(): number {
    return this.#previousIndex;
  }

  get absence(): Absence | undefined {
    if (this.#restoring !== undefined && this.#link.isOpen) {
      const { index, bytes } = this.#restored(this.#restoring);
      const reason = `it is being given a snapshot as of index ${index}, of ${bytes} bytes`;
      return { reason, forMs: 0, isLong: true };
    }
    const reason = this.#link.waitsFor;
    if (reason === undefined) return undefined;
    const forMs = this.#link.outMs;
    return { reason, forMs, isLong: forMs >= this.#limits.appParkMs };
  }

  #restored({ snapshot }: Restoring): { index: number; bytes: number } {
    return { index: snapshot.state.appliedIndex, bytes: snapshot.appBytes };
  }

  figures(): Record<string, number> {
    const { calls, entries, timeMs, sessionFigures } = this.#pipeline;
    return {
      ...sessionFigures,
      clusterTimeMs: timeMs,
      appCalls: calls,
      appEntries: entries,
      appFailures: this.#link.failures,
      appUnderWay: this.#link.underWay,
      appMiscounted: this.#miscounted,
      appReadWaiters: this.#reads.size,
      appReads: this.#reads.answered,
      appReadsFailed: this.#reads.failed,
      appSnapshots: this.#snapshots.size,
      appSnapshotsPrepared: this.#snapshots.prepared,
      appRestores: this.#restores,
    };
  }

  /* ---------------------------------------------------------------- updates */

  get takesBatches(): boolean {
    const pipeline = this.#pipeline;
    if (pipeline.hasResults) return true;
    const isOpen = this.#link.isOpen && this.#restoring === undefined;
    return isOpen && pipeline.hasRoom && pipeline.plannedIndex < this.#allowedIndex;
  }

  apply(batches: readonly Batch[], results: ResultSink): number {
    const pipeline = this.#pipeline;
    let taken = 0;
    for (const batch of batches) {
      if (lastIndexOf(batch) > pipeline.appliedIndex && !this.#deliver(batch, results)) break;
      taken++;
    }
    for (const batch of batches.slice(taken)) {
      if (!this.#plan(batch)) break;
    }
    this.#step();
    // What has nothing for the application is answered at once.
    while (taken < batches.length && this.#deliver(batches[taken]!, results)) taken++;
    return taken;
  }

  #deliver(batch: Batch, results: ResultSink): boolean {
    if (!this.#pipeline.deliver(batch, results)) return false;
    this.#logBytes += batch.bytes.byteLength;
    return true;
  }

  /** False where no more can be. */
  #plan(batch: Batch): boolean {
    const pipeline = this.#pipeline;
    const last = lastIndexOf(batch);
    if (last <= pipeline.plannedIndex) return true;
    if (!this.#link.isOpen || this.#restoring !== undefined) return false;
    // It may make it durable at once, so the node's own log must be durable there [23].
    if (!pipeline.hasRoom || last > this.#allowedIndex) return false;
    if (batch.firstIndex > pipeline.plannedIndex + 1) {
      throw new Error(
        `http: batch at ${batch.firstIndex} where ${pipeline.plannedIndex + 1} was due`,
      );
    }
    pipeline.plan(batch);
    return true;
  }

  allowDurable(index: number): void {
    this.#allowedIndex = Math.max(this.#allowedIndex, index);
  }

  /** Begins what is due of what excludes each other. */
  #step(): void {
    if (this.#busy !== undefined || !this.#link.isOpen) return;
    if (this.#restoring !== undefined) return this.#restore(this.#restoring);
    const pipeline = this.#pipeline;
    const syncs = this.#options.sync && this.#isFlushDue;
    // Its snapshot would hold more than is applied.
    const prepares = this.#isPrepareDue && pipeline.hasAllStored;
    if (syncs || prepares) {
      // Updates wait, so that what is applied is what the application has.
      if (!pipeline.isEven) return;
      return syncs ? this.#sync() : this.#prepare();
    }
    const call = pipeline.take();
    if (call !== undefined) this.#update(call);
  }

  #update(call: UpdateCall): void {
    const { contentType, entries } = call.body;
    const { shape } = this.#link.ready;
    this.#sentIndex = Math.max(this.#sentIndex, call.lastEntry);
    this.#previousIndex = call.previousEntry;
    const body = call.body.end();
    this.#ask({ name: "UpdateEntries", contentType, body }, (reply) => {
      const results = readResults(shape, reply.contentType, reply.body, entries);
      if (results.isMiscounted) this.#tellMiscounted(entries);
      this.#previousIndex = call.lastEntry;
      this.#pipeline.answered(results);
    });
  }

  #tellMiscounted(entries: number): void {
    if (this.#miscounted++ > 0) return;
    const { group, logger } = this.#options;
    logger.warn(
      { group, entries },
      "UpdateEntries: the application gives another number of results than there were entries, so all of them are empty",
    );
  }

  /** Something that excludes the others. What is wrong with its answer, or that there is none, closes the link. */
  #ask(
    asking: { name: string; contentType?: string; body?: Uint8Array },
    replied: (reply: AppReply) => void,
  ): void {
    const { name } = asking;
    this.#busy = name;
    this.#link.ask(asking, {
      replied: (reply) => {
        this.#busy = undefined;
        replied(reply);
        this.#link.succeeded();
      },
      failed: (reason) => this.#link.failedTo(`${name}: ${reason}`),
    });
  }

  /* ---------------------------------------------------------------- the application comes and goes */

  opening(storedIndex: number): string | undefined {
    this.#isBehind = false;
    if (this.#restoring !== undefined) return undefined;
    const ahead = this.#aheadText(storedIndex);
    if (ahead !== undefined) return ahead;
    const pipeline = this.#pipeline;
    if (storedIndex < this.#saved.appIndex && this.#options.logStart() === 0) {
      const { group, logger } = this.#options;
      logger.warn(
        { group, storedIndex },
        "the application has lost what was durable: all of the log is given again",
      );
      this.#adopt(veryStart);
    } else if (storedIndex < this.#saved.appIndex) {
      this.#isBehind = true;
      return `it has entries up to ${storedIndex}, and the log goes on behind ${this.#saved.appliedIndex}: its state has to come from another member`;
    }
    if (storedIndex < pipeline.appIndex) {
      const { group, logger } = this.#options;
      logger.info(
        { group, storedIndex, appliedIndex: pipeline.appliedIndex },
        "the application has forgotten entries that were not synced: they are given again",
      );
      pipeline.load(this.#saved);
      this.#clean();
    }
    pipeline.begin(storedIndex, this.#link.ready.shape);
    this.#previousIndex = storedIndex;
    return undefined;
  }

  #aheadText(storedIndex: number): string | undefined {
    const { logIndex, isWounded } = this.#options;
    const known = Math.max(logIndex, this.#sentIndex, this.#saved.appIndex);
    if (storedIndex <= known) return undefined;
    if (isWounded) {
      if (storedIndex <= this.#allowedIndex) return undefined;
      return `it has entries up to ${storedIndex}, and the log of this node has lost what lay there; that comes back from a leader`;
    }
    return `it has entries up to ${storedIndex}, and this node never gave it any beyond ${known}: its data is of another node or cluster, or this node's --data-dir is. Bring the two together that belong together; or empty the application's data, and it gets all of it again`;
  }

  closed(): void {
    this.#busy = undefined;
    this.#pipeline.close();
    this.#reads.closed();
    this.#snapshots.closed();
    this.#restoring?.transfer?.stop();
  }

  read(query: Uint8Array, answers: AnswerSink): void {
    this.#reads.add(query, this.appliedIndex, answers);
  }

  /* ---------------------------------------------------------------- how far it is, durably */

  work(nowMs: number): boolean {
    this.#nowMs = nowMs;
    for (const action of this.#later.splice(0)) action();
    this.#link.work(nowMs);
    this.#reads.work(nowMs, this.#restoring === undefined ? this.appliedIndex : -1);
    this.#snapshots.work();
    this.#snapshots.share(this.durableIndex);
    const hasNone = this.appliedIndex === 0 || this.absence?.isLong === true;
    if (hasNone && this.#snapshots.wanted) this.#snapshots.refuse();
    if (this.appliedIndex > this.#saved.appliedIndex) this.#dirtySinceMs ??= nowMs;
    if (!this.#options.sync && this.#isFlushDue) this.#save(this.#state());
    this.#takeRefill();
    const restoring = this.#restoring;
    if (restoring?.isGiven === true && !this.#saving && nowMs >= this.#saveAgainMs) {
      this.#given(restoring);
    }
    this.#step();
    const isIdle = this.#busy === undefined && this.appliedIndex >= this.#allowedIndex;
    if (isIdle && this.#link.isOpen) this.#link.succeeded();
    return false;
  }

  /** Whatever is under way wakes its group when it ends; what is left is done by time. */
  get resting(): boolean {
    if (this.#later.length > 0 || this.#busy !== undefined || this.#reads.size > 0) return false;
    if (this.#restoring !== undefined || this.#snapshots.wanted) return false;
    return !this.#flushWanted && !this.#isFlushDue;
  }

  get #isFlushDue(): boolean {
    if (this.#saving || this.#nowMs < this.#saveAgainMs || this.#restoring !== undefined)
      return false;
    if (this.appliedIndex <= this.#saved.appliedIndex) return false;
    const { memtableFlushMs, appFlushLogBytes } = this.#limits;
    const isOld = this.#nowMs - (this.#dirtySinceMs ?? this.#nowMs) >= memtableFlushMs;
    const isLarge = this.#logBytes >= appFlushLogBytes;
    const isReached = this.appliedIndex >= this.#flushAt && this.durableIndex < this.#flushAt;
    return isOld || isLarge || this.#flushWanted || isReached;
  }

  /** What is applied, which the application has. */
  #state(): SavedState {
    return { ...this.#pipeline.save(), snapshot: this.#saved.snapshot, restores: false };
  }

  #sync(): void {
    const state = this.#state();
    this.#ask({ name: "Sync" }, () => this.#save(state));
  }

  #save(state: SavedState, saved: () => void = () => {}): void {
    const epoch = this.#epoch;
    this.#saving = true;
    this.#clean();
    this.#folder.save(state, (ok) => {
      this.#saving = false;
      if (epoch !== this.#epoch) return;
      if (ok) {
        this.#saved = state;
        saved();
      } else {
        this.#saveAgainMs = this.#nowMs + this.#limits.diskFullRetryMs;
        this.#flushWanted = true;
      }
      this.#options.wake();
    });
  }

  flush(): void {
    this.#flushWanted = this.appliedIndex > this.#saved.appliedIndex;
  }

  flushAt(index: number): void {
    this.#flushAt = index;
  }

  /* ---------------------------------------------------------------- snapshots of it */

  prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void {
    this.#snapshots.want(done);
    this.#options.wake();
  }

  get #isPrepareDue(): boolean {
    if (this.#snapshots.wanted) return true;
    const { prepareEvery } = this.#link.ready;
    const entries = this.#pipeline.entries - this.#entriesPrepared;
    return prepareEvery > 0 && entries >= prepareEvery && this.#snapshots.size === 0;
  }

  #prepare(): void {
    const index = this.appliedIndex;
    const head = encodeState(this.#state());
    this.#busy = "PrepareSnapshot";
    this.#entriesPrepared = this.#pipeline.entries;
    this.#snapshots.prepare(index, head, (problem, status) => {
      this.#busy = undefined;
      if (problem === undefined) return this.#link.succeeded();
      // Not now, it says, as something is being read: nobody gets a snapshot, and updates go on.
      if (status > 0) this.#options.logger.warn({ group: this.#options.group }, problem);
      else this.#link.failedTo(problem);
    });
  }

  /* ---------------------------------------------------------------- another's snapshot */

  receiveSnapshot(bytes: number): IncomingSnapshot | undefined {
    const incoming = this.#folder.receive(bytes);
    if (incoming === undefined) return undefined;
    const { number: generation, write, discard } = incoming;
    let index = 0;
    let versionMax = 0;
    return {
      generation,
      write,
      discard,
      finish: (proof, done) => {
        index = proof.index;
        versionMax = proof.applyVersionMax;
        incoming.finish(proof, done);
      },
      open: () => {
        const state = this.#folder.open(generation)?.state;
        const isSound = state?.appliedIndex === index && state.applyVersion <= versionMax;
        return isSound ? "opened" : "unusable";
      },
    };
  }

  recoverFromSnapshot({ generation }: IncomingSnapshot): void {
    this.#goOver(generation);
  }

  get storedIndex(): number | undefined {
    return this.#link.isOpen && this.#restoring === undefined ? this.#link.storedIndex : undefined;
  }

  get lacksStateAt(): number | undefined {
    return this.#isBehind && this.#refill === 0 ? this.#saved.appliedIndex : undefined;
  }

  refill({ generation }: IncomingSnapshot): void {
    this.#refill = generation;
    this.#takeRefill();
  }

  /** Once this node's own log has come to it: started anew, it must not find a state beyond its log. */
  #takeRefill(): void {
    const number = this.#refill;
    if (number === 0 || this.#folder.open(number)!.state.appliedIndex > this.#allowedIndex) return;
    this.#refill = 0;
    if (!this.#isBehind) return this.#folder.remove(number);
    this.#goOver(number);
    this.#mark();
  }

  /** It is not in the log that this snapshot is live, so it has to be saved here. */
  #mark(): void {
    if (this.#saving) return void this.#later.push(() => this.#mark());
    const epoch = this.#epoch;
    this.#saving = true;
    this.#folder.save(this.#saved, (ok) => {
      this.#saving = false;
      if (epoch !== this.#epoch) return;
      if (ok) this.snapshotDurable();
      else this.#later.push(() => this.#mark());
      this.#options.wake();
    });
  }

  #goOver(number: number): void {
    const before = this.#restoring;
    if (before !== undefined) {
      before.transfer?.stop();
      this.#former.push(before.number);
    }
    const state = this.#received(number);
    const snapshot = this.#folder.open(number)!;
    this.#restoring = { number, snapshot, isDurable: false, isGiven: false, transfer: undefined };
    this.#isBehind = false;
    this.#link.fail("another member's state has come, for it to take over");
    this.#adopt(state);
  }

  snapshotDurable(): void {
    if (this.#restoring !== undefined) this.#restoring.isDurable = true;
    for (const number of this.#former.splice(0)) this.#folder.remove(number);
  }

  /** Gives it to the application: the mark that it is to be given is durable, and stays until that is done, however often it takes [30]. */
  #restore(restoring: Restoring): void {
    const { number, snapshot } = restoring;
    const { index, bytes } = this.#restored(restoring);
    // With a log that is wounded: nothing that it makes durable may pass that [23].
    if (!restoring.isDurable || restoring.isGiven || this.#allowedIndex < index) return;
    const { group, logger } = this.#options;
    this.#busy = "RecoverFromSnapshot";
    this.#previousIndex = snapshot.state.appIndex;
    restoring.transfer = new AppRestore(number, snapshot, this.#folder, this.#limits);
    logger.info({ group, index, bytes }, "giving the application a snapshot");
    restoring.transfer.begin(this.#link, this.#limits.appSnapshotStallMs, (problem) => {
      if (problem !== undefined) this.#link.failedTo(problem);
      else if (this.#options.sync) this.#ask({ name: "Sync" }, () => this.#compare(restoring));
      else this.#compare(restoring);
    });
  }

  #compare(restoring: Restoring): void {
    const { appIndex } = restoring.snapshot.state;
    this.#link.ask(
      { name: "LastLogIndex" },
      {
        failed: (reason) => this.#link.failedTo(`LastLogIndex: ${reason}`),
        replied: ({ body }) => {
          const storedIndex = readLastLogIndex(body);
          if (storedIndex !== appIndex) {
            throw new ContractError(
              `after RecoverFromSnapshot it says ${storedIndex}, and ${appIndex} is what was stored with the data of the snapshot`,
            );
          }
          this.#busy = undefined;
          this.#link.succeeded();
          restoring.isGiven = true;
          this.#given(restoring);
        },
      },
    );
    this.#busy = "RecoverFromSnapshot";
  }

  #given({ number }: Restoring): void {
    const state: SavedState = { ...this.#pipeline.save(), snapshot: number, restores: false };
    this.#save(state, () => {
      const { group, logger } = this.#options;
      const index = state.appliedIndex;
      this.#restores++;
      this.#restoring = undefined;
      this.#folder.remove(number);
      logger.info({ group, index }, "the application has taken the snapshot over");
      if (this.#link.isOpen) this.#pipeline.begin(state.appIndex, this.#link.ready.shape);
    });
  }

  close(): void {
    this.#epoch++;
    this.#link.close();
    this.#reads.close();
    this.#folder.close();
  }
}

/** A state machine as the shell sees it, with an observer in between: what is applied, in which order, and with which results. */
import type { ErrorCode } from "../../src/errors.ts";
import type {
  Absence,
  AnswerSink,
  ChangeHistory,
  IncomingSnapshot,
  MachineSnapshot,
  ResultCode,
  ResultSink,
  StateMachine,
} from "../../src/machine/machine.ts";
import { lastIndexOf, type Batch } from "../../src/wire/batch.ts";
import type { HttpMachine } from "../../src/machine/http/http-machine.ts";
import { plainResult } from "./drafts.ts";
import { Violation, type Invariants } from "./invariants.ts";
import type { Spared } from "./oracle.ts";
import type { Tally } from "./tally.ts";

/** One that tells what it would save of sessions, where that is the same on all nodes. */
export interface Observable extends StateMachine {
  savedSessions?(): Uint8Array;
}

export class ObservedMachine implements StateMachine, ResultSink {
  readonly #inner: Observable;
  readonly #nodeId: number;
  readonly #invariants: Invariants;
  readonly #tally: Tally;
  #sink: ResultSink | undefined;
  /** What the model says of the batches that are being applied: sections that must not run, in order. */
  #spared: readonly Spared[] = [];
  #sparedSoFar = 0;

  /** Throws where the state cannot be gone on with. */
  readonly #opened: () => void;

  constructor(
    inner: Observable,
    nodeId: number,
    invariants: Invariants,
    tally: Tally,
    opened: () => void,
  ) {
    this.#opened = opened;
    this.#tally = tally;
    this.#inner = inner;
    this.#nodeId = nodeId;
    this.#invariants = invariants;
  }

  get appliedIndex(): number {
    return this.#inner.appliedIndex;
  }
  get durableIndex(): number {
    return this.#inner.durableIndex;
  }
  get stateHash(): number {
    return this.#inner.stateHash;
  }
  get history(): ChangeHistory | undefined {
    return this.#inner.history;
  }
  get applyVersion(): number {
    return this.#inner.applyVersion;
  }
  get systemSeed(): Uint8Array | undefined {
    return this.#inner.systemSeed;
  }
  get resting(): boolean {
    return this.#inner.resting;
  }

  open(): number {
    const applied = this.#inner.open();
    if (applied > 0) this.#shows(applied);
    this.#opened();
    return applied;
  }

  apply(batches: readonly Batch[], results: ResultSink): number {
    const before = this.appliedIndex;
    // History first: a result is compared with the model's while it is given.
    for (const batch of batches) this.#invariants.applied(this.#nodeId, batch);
    this.#sink = results;
    this.#spared = batches
      .filter((batch) => lastIndexOf(batch) > before)
      .flatMap((batch) => this.#invariants.oracle.sparedIn(batch));
    this.#sparedSoFar = 0;
    const taken = this.#inner.apply(batches, this);
    this.#sink = undefined;
    const last = taken === 0 ? before : lastIndexOf(batches[taken - 1]!);
    if (this.appliedIndex !== Math.max(before, last)) {
      throw new Violation(
        `node ${this.#nodeId} took batches to ${last}, applied ${this.appliedIndex}`,
      );
    }
    const due = this.#spared.filter(({ index }) => index <= last).length;
    if (this.#sparedSoFar !== due) {
      const { index, verdict } = this.#spared[this.#sparedSoFar]!;
      throw new Violation(
        `node ${this.#nodeId} runs the section at ${index}, of which the model says ${JSON.stringify(verdict)}`,
      );
    }
    if (taken > 0) this.#shows(last);
    return taken;
  }

  /** What it holds is what every node holds at that index. */
  #shows(index: number): void {
    const { oracle } = this.#invariants;
    oracle.hash(this.#nodeId, index, this.stateHash);
    const saved = this.#inner.savedSessions?.();
    if (saved !== undefined) oracle.savedSessions(this.#nodeId, index, saved);
  }

  result(index: number, code: ResultCode, bytes: Uint8Array | undefined): void {
    const { oracle } = this.#invariants;
    const told = plainResult(oracle, { code, bytes: bytes ?? new Uint8Array(0) });
    oracle.result(this.#nodeId, index, told.code);
    this.#sink!.result(index, code, bytes);
  }

  repeated(index: number, count: number, originalIndex: number, results: Uint8Array): void {
    this.#tally.repeated++;
    this.#spare(index, count, { original: originalIndex });
    this.#sink!.repeated(index, count, originalIndex, results);
  }

  refused(index: number, count: number, code: ErrorCode): void {
    if (code === "session_expired") this.#tally.expired++;
    if (!this.#isLost(index, code)) this.#spare(index, count, { code });
    this.#sink!.refused(index, count, code);
  }

  /** It ran, now or before, and what the application answered is lost on this node. */
  #isLost(index: number, code: ErrorCode): boolean {
    if (!this.#invariants.oracle.isOfApplication || code !== "result_forgotten") return false;
    const due = this.#spared[this.#sparedSoFar];
    if (due?.index === index) {
      if ("code" in due.verdict) return false;
      this.#sparedSoFar++;
    } else if (!this.#invariants.oracle.commands.has(index)) return false;
    this.#tally.resultsLost++;
    return true;
  }

  #spare(index: number, count: number, verdict: Spared["verdict"]): void {
    const due = this.#spared[this.#sparedSoFar++];
    const told = JSON.stringify({ index, count, verdict });
    if (told !== JSON.stringify(due)) {
      throw new Violation(`node ${this.#nodeId} says ${told}, the model ${JSON.stringify(due)}`);
    }
  }

  read(query: Uint8Array, answers: AnswerSink): void {
    this.#inner.read(query, answers);
  }
  allowDurable(index: number): void {
    this.#invariants.allowedDurable(this.#nodeId, index);
    this.#inner.allowDurable(index);
  }
  work(nowMs: number): boolean {
    return this.#inner.work(nowMs);
  }
  flush(): void {
    this.#inner.flush();
  }
  flushAt(index: number): void {
    this.#inner.flushAt(index);
  }
  prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void {
    this.#inner.prepareSnapshot(done);
  }
  receiveSnapshot(bytes: number): IncomingSnapshot | undefined {
    return this.#inner.receiveSnapshot(bytes);
  }
  recoverFromSnapshot(incoming: IncomingSnapshot): void {
    this.#inner.recoverFromSnapshot(incoming);
    this.#tally.snapshots++;
    this.#shows(this.appliedIndex);
  }
  snapshotDurable(): void {
    this.#inner.snapshotDurable();
  }
  figures(): Record<string, number> {
    return this.#inner.figures();
  }
  close(): void {
    this.#inner.close();
  }
}

/** One that is an application. */
export class ObservedApplication extends ObservedMachine {
  readonly answersLater = true;
  readonly #inner: HttpMachine;
  /** After each turn. */
  readonly worked: () => void;

  constructor(
    inner: HttpMachine,
    nodeId: number,
    invariants: Invariants,
    tally: Tally,
    { opened, worked }: { readonly opened: () => void; readonly worked: () => void },
  ) {
    super(inner, nodeId, invariants, tally, opened);
    this.#inner = inner;
    this.worked = worked;
  }

  get takesBatches(): boolean {
    return this.#inner.takesBatches;
  }
  get absence(): Absence | undefined {
    return this.#inner.absence;
  }
  get storedIndex(): number | undefined {
    return this.#inner.storedIndex;
  }
  get lacksStateAt(): number | undefined {
    return this.#inner.lacksStateAt;
  }
  refill(incoming: IncomingSnapshot): void {
    this.#inner.refill(incoming);
  }
  override work(nowMs: number): boolean {
    const more = super.work(nowMs);
    this.worked();
    return more;
  }
}

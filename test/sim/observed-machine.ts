/** A state machine as the shell sees it, with an observer in between: what is applied, in which order, and with which results. */
import type { ErrorCode } from "../../src/errors.ts";
import type {
  AnswerSink,
  IncomingSnapshot,
  MachineSnapshot,
  ResultCode,
  ResultSink,
  StateMachine,
} from "../../src/machine/machine.ts";
import { lastIndexOf, type Batch } from "../../src/wire/batch.ts";
import { Violation, type Invariants } from "./invariants.ts";
import type { Tally } from "./tally.ts";

export class ObservedMachine implements StateMachine, ResultSink {
  readonly #inner: StateMachine;
  readonly #nodeId: number;
  readonly #invariants: Invariants;
  readonly #tally: Tally;
  #sink: ResultSink | undefined;

  constructor(inner: StateMachine, nodeId: number, invariants: Invariants, tally: Tally) {
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
  get applyVersion(): number {
    return this.#inner.applyVersion;
  }

  open(): number {
    const applied = this.#inner.open();
    if (applied > 0) this.#invariants.oracle.hash(this.#nodeId, applied, this.#inner.stateHash);
    return applied;
  }

  apply(batches: readonly Batch[], results: ResultSink): number {
    const before = this.appliedIndex;
    // History first: a result is compared with the model's while it is given.
    for (const batch of batches) this.#invariants.applied(this.#nodeId, batch);
    this.#sink = results;
    const taken = this.#inner.apply(batches, this);
    this.#sink = undefined;
    const last = taken === 0 ? before : lastIndexOf(batches[taken - 1]!);
    if (this.appliedIndex !== Math.max(before, last)) {
      throw new Violation(
        `node ${this.#nodeId} took batches to ${last}, applied ${this.appliedIndex}`,
      );
    }
    if (taken > 0) this.#invariants.oracle.hash(this.#nodeId, last, this.stateHash);
    return taken;
  }

  result(index: number, code: ResultCode, bytes: Uint8Array | undefined): void {
    this.#invariants.oracle.result(this.#nodeId, index, code);
    this.#sink!.result(index, code, bytes);
  }

  repeated(index: number, count: number, originalIndex: number, results: Uint8Array): void {
    this.#sink!.repeated(index, count, originalIndex, results);
  }

  refused(index: number, count: number, code: ErrorCode): void {
    this.#sink!.refused(index, count, code);
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
  prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void {
    this.#inner.prepareSnapshot(done);
  }
  receiveSnapshot(bytes: number): IncomingSnapshot | undefined {
    return this.#inner.receiveSnapshot(bytes);
  }
  recoverFromSnapshot(incoming: IncomingSnapshot): void {
    this.#inner.recoverFromSnapshot(incoming);
    this.#tally.snapshots++;
    this.#invariants.oracle.hash(this.#nodeId, this.appliedIndex, this.stateHash);
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

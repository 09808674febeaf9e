/**
 * From committed batches to calls of UpdateEntries and back. What is ahead decides what is sent: it runs the sessions over batches as they come and collects
 * the commands that are to run. What is behind follows with the results: it runs the same sessions over the same batches once the application has them, and so
 * stands for what is applied. Both decide alike, as nothing that is decided depends on a result [15].
 *
 *     batches → ahead → next ──one at a time──▶ flying → done → behind → results, appliedIndex
 */
import type { Limits } from "../../limits.ts";
import { type Batch, BatchKind, lastIndexOf } from "../../wire/batch.ts";
import { applyVersionFirst } from "../../wire/versions.ts";
import { lengthsFit } from "../kv-apply.ts";
import { ResultCode, type ResultSink } from "../machine.ts";
import { type SectionRunner, Sessions } from "../sessions.ts";
import { StateHash } from "../state-hash.ts";
import type { UpdateShape } from "./contract.ts";
import type { SavedState } from "./saved-state.ts";
import { createUpdateBody, type UpdateBody } from "./update-body.ts";
import type { UpdateResults } from "./update-results.ts";

/** Whole batches, as one call. */
export interface UpdateCall {
  readonly body: UpdateBody;
  /** End of its last batch. */
  readonly through: number;
  /** Index of the last entry that the application has after it, and before it. */
  readonly lastEntry: number;
  readonly previousEntry: number;
}

interface DoneCall {
  readonly through: number;
  readonly entries: number;
  readonly results: UpdateResults;
}

/** What a state is, but for where it is saved. */
export type PipelineState = Omit<SavedState, "snapshot" | "restores">;

const nobody: ResultSink = {
  result: () => {},
  repeated: () => {},
  refused: () => {},
};
const resultsDiffer = { resultsDiffer: true };

export class UpdatePipeline {
  readonly #limits: Limits;
  readonly #hash = new StateHash();
  readonly #deliverer = new Deliverer();
  readonly #sessions: Sessions;
  #appliedIndex = 0;
  #appIndex = 0;
  #timeMs = 0;
  #ahead: Ahead | undefined;
  #flying: UpdateCall | undefined;
  readonly #done: DoneCall[] = [];
  /** Since the process began. */
  calls = 0;
  entries = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
    this.#sessions = new Sessions(this.#deliverer, limits, applyVersionFirst, resultsDiffer);
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  /** Of the last entry at or below it. */
  get appIndex(): number {
    return this.#appIndex;
  }

  get stateHash(): number {
    return this.#hash.value;
  }

  get timeMs(): number {
    return this.#timeMs;
  }

  get applyVersion(): number {
    return this.#sessions.version;
  }

  get systemSeed(): Uint8Array {
    return this.#sessions.systemSeed;
  }

  get sessionFigures(): Record<string, number> {
    return this.#sessions.figures();
  }

  /** Everything that was sent is answered, and delivered. */
  get isEven(): boolean {
    return this.#flying === undefined && this.#done.length === 0;
  }

  /** What is applied is all that the application has: as it is opened it may have entries whose answer was lost. */
  get hasAllStored(): boolean {
    return this.#appIndex >= this.#deliverer.storedIndex;
  }

  get hasResults(): boolean {
    return this.#done.length > 0;
  }

  get plannedIndex(): number {
    return this.#ahead?.index ?? this.#appliedIndex;
  }

  /** A batch could be planned. */
  get hasRoom(): boolean {
    const { appUpdateBytesMax, appUpdateEntriesMax } = this.#limits;
    const body = this.#ahead?.body;
    if (body === undefined) return this.#ahead !== undefined;
    return body.commandBytes < appUpdateBytesMax && body.entries < appUpdateEntriesMax;
  }

  load(state: PipelineState): void {
    this.close();
    this.#done.length = 0;
    this.#appliedIndex = state.appliedIndex;
    this.#appIndex = state.appIndex;
    // What was delivered after that is forgotten, too.
    this.#deliverer.lastEntry = state.appIndex;
    this.#hash.value = state.stateHash;
    this.#timeMs = state.timeMs;
    this.#sessions.load(state.applyVersion, state.sessions);
  }

  save(): PipelineState {
    return {
      appliedIndex: this.#appliedIndex,
      appIndex: this.#appIndex,
      stateHash: this.#hash.value,
      timeMs: this.#timeMs,
      applyVersion: this.applyVersion,
      sessions: this.#sessions.save(),
    };
  }

  /** Plans from what is applied on. Entries up to `storedIndex` the application has already, and what it answered to those nobody knows. */
  begin(storedIndex: number, shape: UpdateShape): void {
    this.#done.length = 0;
    this.#flying = undefined;
    this.#deliverer.storedIndex = storedIndex;
    const { applyVersion } = this;
    this.#ahead = new Ahead(this.#limits, shape, storedIndex, this.#appliedIndex);
    this.#ahead.sessions.load(applyVersion, this.#sessions.save());
  }

  /** What was sent and is not answered is void, and nothing is planned. */
  close(): void {
    this.#ahead = undefined;
    this.#flying = undefined;
  }

  /** The one at `plannedIndex` + 1. */
  plan(batch: Batch): void {
    this.#ahead!.plan(batch);
  }

  /** The call that is to be made now: nothing else is under way. One without any entry needs no call, and is done at once. */
  take(): UpdateCall | undefined {
    const ahead = this.#ahead;
    if (ahead === undefined || this.#flying !== undefined || this.#done.length > 1)
      return undefined;
    const call = ahead.take();
    if (call === undefined) return undefined;
    this.#flying = call;
    if (call.body.entries > 0) {
      this.calls++;
      this.entries += call.body.entries;
      return call;
    }
    this.answered(nothing);
    return undefined;
  }

  answered(results: UpdateResults): void {
    const { through, body } = this.#flying!;
    this.#flying = undefined;
    this.#done.push({ through, entries: body.entries, results });
  }

  /** Hands over the results of a batch, in order; false where the application has not answered for it yet. */
  deliver(batch: Batch, sink: ResultSink): boolean {
    const call = this.#done[0];
    const last = lastIndexOf(batch);
    if (call === undefined || last > call.through) return false;
    const deliverer = this.#deliverer;
    deliverer.results = call.results;
    this.#hash.begin(batch, nobody);
    if (batch.kind === BatchKind.commands) {
      this.#sessions.apply(batch, this.#appliedIndex + 1, sink);
    } else if (batch.kind === BatchKind.applyVersion) this.#sessions.raise(batch);
    this.#hash.end();
    this.#appIndex = Math.max(this.#appIndex, deliverer.lastEntry);
    this.#appliedIndex = last;
    this.#timeMs = batch.timeMs;
    if (last === call.through) {
      if (deliverer.taken !== call.entries) {
        throw new Error(
          `http: ${call.entries} entries were sent up to index ${last}, and ${deliverer.taken} are delivered`,
        );
      }
      deliverer.taken = 0;
      this.#done.shift();
    }
    return true;
  }
}

const nothing: UpdateResults = { isMiscounted: false, next: () => undefined };

/** Collects commands. */
class Ahead implements SectionRunner {
  readonly sessions: Sessions;
  readonly #shape: UpdateShape;
  readonly #storedIndex: number;
  index: number;
  body: UpdateBody | undefined;
  /** The last entry there is up to `index`, and that the application has before what is in `body`. */
  #lastEntry: number;
  #previousEntry: number;

  constructor(limits: Limits, shape: UpdateShape, storedIndex: number, appliedIndex: number) {
    this.sessions = new Sessions(this, limits, applyVersionFirst, resultsDiffer);
    this.#shape = shape;
    this.#storedIndex = storedIndex;
    this.#lastEntry = storedIndex;
    this.#previousEntry = storedIndex;
    this.index = appliedIndex;
  }

  plan(batch: Batch): void {
    this.body ??= createUpdateBody(this.#shape);
    if (batch.kind === BatchKind.commands) this.sessions.apply(batch, this.index + 1, nobody);
    else if (batch.kind === BatchKind.applyVersion) this.sessions.raise(batch);
    this.index = lastIndexOf(batch);
  }

  take(): UpdateCall | undefined {
    const { body, index: through } = this;
    if (body === undefined) return undefined;
    const lastEntry = this.#lastEntry;
    const previousEntry = this.#previousEntry;
    this.body = undefined;
    this.#previousEntry = lastEntry;
    return { body, through, lastEntry, previousEntry };
  }

  run(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    from: number,
  ): false {
    if (!lengthsFit(view, at, last - first + 1, end)) return false;
    const begin = Math.max(first, from, this.#storedIndex + 1);
    if (begin > last) return false;
    let commandAt = at;
    for (let index = first; index < begin; index++) {
      commandAt += 4 + view.getUint32(commandAt, true);
    }
    this.body!.add(bytes, view, commandAt, end, last - begin + 1, begin);
    this.#lastEntry = last;
    return false;
  }
}

/** Takes what the application answered, entry by entry. */
class Deliverer implements SectionRunner {
  storedIndex = 0;
  results: UpdateResults = nothing;
  lastEntry = 0;
  /** Of the results of the call at hand. */
  taken = 0;

  run(
    _bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    from: number,
    sink: ResultSink,
  ): void | false {
    const begin = Math.max(first, from);
    if (!lengthsFit(view, at, last - first + 1, end)) {
      for (let index = begin; index <= last; index++) {
        sink.result(index, ResultCode.malformed, undefined);
      }
      return undefined;
    }
    this.lastEntry = last;
    const isKnown = begin > this.storedIndex;
    for (let index = Math.max(begin, this.storedIndex + 1); index <= last; index++) {
      const bytes = this.results.next();
      this.taken++;
      if (isKnown && bytes !== undefined) sink.result(index, ResultCode.ok, bytes);
    }
    return isKnown ? undefined : false;
  }
}

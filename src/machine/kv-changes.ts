/**
 * Tells again what committed batches changed, key by key. The log is the history: a batch says what its commands wanted, and the outcomes that are kept
 * here what became of them. So nothing is copied on the way of a write, and a plain put costs nothing at all.
 *
 * A transaction tells each key that it wrote once, as it left it. Where it wrote a key and then deleted it, that is a deletion, whether the
 * key was there before or not.
 */
import type { ErrorCode } from "../errors.ts";
import type { Limits } from "../limits.ts";
import { BatchKind, batchHeaderBytes, lastIndexOf, type Batch } from "../wire/batch.ts";
import { KvCommandReader, KvOp } from "../wire/kv.ts";
import { KvTxnReader, kvTxnOp, operationEnd, operationStart } from "../wire/kv-txn.ts";
import { resultHeadBytes } from "../wire/section-results.ts";
import { SectionKind, SectionReader, sectionHeaderBytes } from "../wire/section.ts";
import { lengthsFit } from "./kv-apply.ts";
import { type ChangeHistory, type ChangeSink, ResultCode, type ResultSink } from "./machine.ts";
import { Outcomes } from "./outcomes.ts";

/** For whoever tells changes: made with the first watch. */
class Readers {
  readonly section = new SectionReader();
  readonly command = new KvCommandReader();
  readonly txn = new KvTxnReader();
}

export class KvChanges implements ChangeHistory, ResultSink {
  readonly #limits: Limits;
  readonly #outcomes: Outcomes;
  #readers: Readers | undefined;
  /** Who else wants the results of the batch that is being applied. */
  #results: ResultSink | undefined;

  constructor(limits: Limits) {
    this.#limits = limits;
    this.#outcomes = new Outcomes(limits.outcomeBytesMax);
  }

  get floor(): number {
    return this.#outcomes.floor;
  }

  get bytes(): number {
    return this.#outcomes.bytes;
  }

  /** The machine begins anew at `index`: how it came there is not known. */
  reset(index: number): void {
    this.#outcomes.reset(index);
  }

  /* ---------------------------------------------------------------- while a batch is applied */

  /** Stands between the machine and `results`. */
  noting(results: ResultSink): this {
    this.#results = results;
    return this;
  }

  result(index: number, code: ResultCode, bytes: Uint8Array | undefined): void {
    if (code !== ResultCode.ok) this.#outcomes.code(index, code);
    const ran = code === ResultCode.ok || code === ResultCode.failureList;
    if (ran && bytes !== undefined) this.#noteMissing(index, bytes);
    this.#results!.result(index, code, bytes);
  }

  repeated(index: number, count: number, originalIndex: number, results: Uint8Array): void {
    this.#outcomes.skipped(index, count);
    this.#results!.repeated(index, count, originalIndex, results);
  }

  refused(index: number, count: number, code: ErrorCode): void {
    this.#outcomes.skipped(index, count);
    this.#results!.refused(index, count, code);
  }

  /** Results of a transaction's operations: which of them found no key. */
  #noteMissing(index: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (at + resultHeadBytes <= bytes.byteLength) {
      if (view.getUint32(at + 4, true) === ResultCode.notFound) {
        this.#outcomes.missing(index, view.getUint32(at, true));
      }
      at += resultHeadBytes + view.getUint32(at + 8, true);
    }
  }

  /* ---------------------------------------------------------------- later, for whoever watches */

  tell(batch: Batch, from: number, sink: ChangeSink): number {
    const last = lastIndexOf(batch);
    if (batch.kind !== BatchKind.commands) return last;
    const { bytes } = batch;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { section } = this.#reading;
    this.#outcomes.seek(Math.max(from, batch.firstIndex));
    let index = batch.firstIndex;
    let at = batchHeaderBytes;
    while (index <= last) {
      // What is malformed was not applied, and the rest of the batch neither: as in sessions.ts.
      if (!section.read(view, at) || section.count > last - index + 1) return last;
      const bodyAt = at + sectionHeaderBytes;
      at = bodyAt + section.bodyBytes;
      const end = index + section.count;
      const holdsCommands = section.kind !== SectionKind.control;
      if (holdsCommands && end > from && lengthsFit(view, bodyAt, section.count, at)) {
        const through = this.#tellSection(bytes, view, bodyAt, index, end, from, sink);
        if (through < end - 1) return through;
      }
      index = end;
    }
    return last;
  }

  /** Returns the index up to which the sink took them. */
  #tellSection(
    bytes: Uint8Array,
    view: DataView,
    bodyAt: number,
    first: number,
    end: number,
    from: number,
    sink: ChangeSink,
  ): number {
    const { command } = this.#reading;
    let at = bodyAt;
    for (let index = first; index < end; index++) {
      const length = view.getUint32(at, true);
      const start = at + 4;
      at = start + length;
      if (index < from) continue;
      // At least one index is taken at a time.
      if (index > from && sink.isFull) return index - 1;
      const code = this.#outcomes.codeAt(index);
      if (code !== ResultCode.ok && code !== ResultCode.failureList) continue;
      if (command.read(view, start, length)) {
        const { op, keyAt, keyLength, valueLength } = command;
        const deletes = op === KvOp.delete || op === KvOp.compareAndDelete;
        sink.change(index, deletes, bytes, keyAt, keyLength, valueLength);
      } else if (length > 0 && view.getUint8(start) === kvTxnOp) {
        this.#tellTxn(bytes, view, start, length, index, code, sink);
      }
    }
    return end - 1;
  }

  #tellTxn(
    bytes: Uint8Array,
    view: DataView,
    start: number,
    length: number,
    index: number,
    code: number,
    sink: ChangeSink,
  ): void {
    const { txn, command } = this.#reading;
    if (!txn.read(bytes, view, start, length, this.#limits)) return;
    const success = code === ResultCode.ok;
    const count = success ? txn.successCount : txn.failureCount;
    let at = success ? txn.successAt : txn.failureAt;
    for (let position = 0; position < count; position++) {
      const from = operationStart(at);
      at = operationEnd(view, at);
      if (!this.#takesEffect(view, from, at, index, position)) continue;
      const { op, keyAt, keyLength, valueLength } = command;
      if (this.#isWrittenAgain(bytes, view, at, position + 1, count, index, keyAt, keyLength)) {
        continue;
      }
      sink.change(index, op === KvOp.delete, bytes, keyAt, keyLength, valueLength);
    }
  }

  get #reading(): Readers {
    this.#readers ??= new Readers();
    return this.#readers;
  }

  /** True where the operation in [from, end) wrote something; the reader of commands has it then. */
  #takesEffect(
    view: DataView,
    from: number,
    end: number,
    index: number,
    position: number,
  ): boolean {
    const op = view.getUint8(from);
    if (op !== KvOp.put && op !== KvOp.delete) return false;
    if (!this.#reading.command.read(view, from, end - from)) return false;
    return op === KvOp.put || !this.#outcomes.isMissing(index, position);
  }

  /** A later operation of the transaction has the last word on that key. */
  #isWrittenAgain(
    bytes: Uint8Array,
    view: DataView,
    next: number,
    position: number,
    count: number,
    index: number,
    keyAt: number,
    keyLength: number,
  ): boolean {
    const { command: other } = this.#reading;
    let at = next;
    for (let later = position; later < count; later++) {
      const from = operationStart(at);
      at = operationEnd(view, at);
      if (!this.#takesEffect(view, from, at, index, later)) continue;
      if (other.keyLength !== keyLength) continue;
      const same = Buffer.compare(
        bytes.subarray(keyAt, keyAt + keyLength),
        bytes.subarray(other.keyAt, other.keyAt + keyLength),
      );
      if (same === 0) return true;
    }
    return false;
  }
}

/**
 * Applies transactions: all or nothing. Everything is checked before anything runs; the list that is taken then runs over the other layers,
 * on an overlay that reads see and the state does not, and only when its results are known to be within their bound is it written for good.
 */
import type { Limits } from "../limits.ts";
import { KvCommandReader, KvOp } from "../wire/kv.ts";
import {
  encodeKvTxnFault,
  KvCompareReader,
  KvOperator,
  KvTarget,
  KvTxnList,
  KvTxnProblem,
  KvTxnReader,
  operationEnd,
  operationStart,
} from "../wire/kv-txn.ts";
import { resultHeadBytes, SectionResults } from "../wire/section-results.ts";
import type { KvLayers } from "./kv-layers.ts";
import type { KvRead } from "./kv-read.ts";
import { type AnswerSink, ResultCode, type ResultSink } from "./machine.ts";
import type { Memtable } from "./memtable.ts";

export class KvTxn implements AnswerSink {
  readonly #layers: KvLayers;
  readonly #read: KvRead;
  readonly #limits: Limits;
  readonly #txn = new KvTxnReader();
  readonly #compare = new KvCompareReader();
  readonly #command = new KvCommandReader();
  /** Of the list that runs: its results, and where it is. */
  #results = new SectionResults();
  #position = 0;
  /** Bytes that the answer at `#position` may have, so that the results behind it fit as well. */
  #room = 0;
  #overflows = false;

  constructor(layers: KvLayers, read: KvRead, limits: Limits) {
    this.#layers = layers;
    this.#read = read;
    this.#limits = limits;
  }

  /** The transaction is the `length` bytes at `at`; `bytes` and `view` are over the same memory. */
  apply(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    length: number,
    index: number,
    results: ResultSink,
  ): void {
    const txn = this.#txn;
    if (!txn.read(bytes, view, at, length, this.#limits)) {
      return refuse(index, txn.list, txn.position, txn.problem, results);
    }
    const holds = this.#compareAll(bytes, view, txn.comparesAt, txn.compareCount);
    const list = holds ? KvTxnList.success : KvTxnList.failure;
    const start = holds ? txn.successAt : txn.failureAt;
    const count = holds ? txn.successCount : txn.failureCount;

    this.#run(bytes, view, start, count, index);
    if (this.#overflows) {
      refuse(index, list, this.#position, KvTxnProblem.resultTooLarge, results);
    } else {
      this.#publish(bytes, view, start, count, index);
      const code = holds ? ResultCode.ok : ResultCode.failureList;
      const some = this.#results.byteLength > 0;
      if (some || !holds) results.result(index, code, some ? this.#results.view() : undefined);
    }
    if (this.#results.byteLength > keptBytesMax) this.#results = new SectionResults();
  }

  /* ---------------------------------------------------------------- compares */

  #compareAll(bytes: Uint8Array, view: DataView, start: number, count: number): boolean {
    let at = start;
    for (let i = 0; i < count; i++) {
      at = this.#compare.read(view, at, bytes.byteLength);
      if (!this.#compareOne(bytes, view)) return false;
    }
    return true;
  }

  #compareOne(bytes: Uint8Array, view: DataView): boolean {
    const { target, operator, keyAt, keyLength } = this.#compare;
    if (target === KvTarget.value) {
      const { operandAt, operandLength } = this.#compare;
      const value = this.#layers.value(bytes, view, keyAt, keyLength);
      const operand = bytes.subarray(operandAt, operandAt + operandLength);
      const equal = value !== undefined && Buffer.compare(value, operand) === 0;
      return equal === (operator === KvOperator.equal);
    }
    const revision = this.#layers.revision(bytes, view, keyAt, keyLength);
    if (target === KvTarget.exists) return (revision !== 0) === (operator === KvOperator.equal);
    if (operator === KvOperator.less) return revision < this.#compare.revision;
    if (operator === KvOperator.greater) return revision > this.#compare.revision;
    return (revision === this.#compare.revision) === (operator === KvOperator.equal);
  }

  /* ---------------------------------------------------------------- operations */

  /** Runs a list on the overlay; stops where the results overflow. */
  #run(bytes: Uint8Array, view: DataView, start: number, count: number, index: number): void {
    // The whole must fit as one result of its section.
    const bytesMax = this.#limits.resultBytesMax - resultHeadBytes;
    this.#results.reset();
    this.#overflows = false;
    const overlay = this.#layers.openOverlay();
    let at = start;
    for (let position = 0; position < count; position++) {
      this.#position = position;
      this.#room = bytesMax - this.#results.byteLength - (count - position) * resultHeadBytes;
      const end = operationEnd(view, at);
      this.#runOne(bytes, view, operationStart(at), end, overlay, index);
      if (this.#overflows) break;
      at = end;
    }
    this.#layers.dropOverlay();
  }

  #runOne(
    bytes: Uint8Array,
    view: DataView,
    start: number,
    end: number,
    overlay: Memtable,
    index: number,
  ): void {
    const op = view.getUint8(start);
    if (op !== KvOp.put && op !== KvOp.delete) {
      return this.#read.read(bytes.subarray(start, end), index, this, this.#room);
    }
    const command = this.#command;
    command.read(view, start, end - start);
    const { keyAt, keyLength, valueAt, valueLength } = command;
    if (op === KvOp.put) {
      return overlay.put(bytes, view, keyAt, keyLength, valueAt, valueLength, index);
    }
    const entry = overlay.find(view, keyAt, keyLength);
    const found =
      entry === 0
        ? this.#layers.revision(bytes, view, keyAt, keyLength) !== 0
        : !overlay.isDeleted(entry);
    if (found) overlay.remove(bytes, view, keyAt, keyLength, index);
    else this.answer(ResultCode.notFound, undefined);
  }

  /** Takes the answer to a get or a range of the list. */
  answer(code: ResultCode, bytes: Uint8Array | undefined): void {
    this.#overflows = (bytes?.byteLength ?? 0) > this.#room;
    if (!this.#overflows) this.#results.add(this.#position, code, bytes);
  }

  /** Writes what the list wrote on the overlay into the active memtable. */
  #publish(bytes: Uint8Array, view: DataView, start: number, count: number, index: number): void {
    const { active } = this.#layers;
    const command = this.#command;
    let at = start;
    for (let position = 0; position < count; position++) {
      const from = operationStart(at);
      at = operationEnd(view, at);
      const op = view.getUint8(from);
      if (op !== KvOp.put && op !== KvOp.delete) continue;
      command.read(view, from, at - from);
      const { keyAt, keyLength, valueAt, valueLength } = command;
      if (op === KvOp.put) {
        active.put(bytes, view, keyAt, keyLength, valueAt, valueLength, index);
      } else {
        // Also where there was no such key: that leaves a mark in the memtable until the flush, and says nothing.
        active.remove(bytes, view, keyAt, keyLength, index);
      }
    }
  }
}

/** Memory for results is kept up to this size. */
const keptBytesMax = 65_536;

function refuse(
  index: number,
  list: KvTxnList,
  position: number,
  problem: KvTxnProblem,
  results: ResultSink,
): void {
  const code = problem === KvTxnProblem.malformed ? ResultCode.malformed : ResultCode.tooLarge;
  results.result(index, code, encodeKvTxnFault(list, position, problem));
}

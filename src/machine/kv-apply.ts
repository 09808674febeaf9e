/**
 * Applies the commands of a section to the memtable, in place: nothing is allocated per command [39], except where a compare or a delete has to
 * ask the file. Total: whatever the bytes are, each command gets a result, the same on all nodes [C9].
 */
import type { Limits } from "../limits.ts";
import { writeSafe } from "../wire/batch.ts";
import { KvCommandReader, KvOp } from "../wire/kv.ts";
import { kvTxnOp } from "../wire/kv-txn.ts";
import type { KvLayers } from "./kv-layers.ts";
import type { KvRead } from "./kv-read.ts";
import { KvTxn } from "./kv-txn.ts";
import { ResultCode, type ResultSink } from "./machine.ts";
import type { SectionRunner } from "./sessions.ts";

/** What a compare that failed answers. */
class RevisionBytes {
  readonly bytes = new Uint8Array(8);
  readonly view = new DataView(this.bytes.buffer);
}

export class KvApply implements SectionRunner {
  readonly #layers: KvLayers;
  readonly #keyBytesMax: number;
  readonly #valueBytesMax: number;
  readonly #limits: Limits;
  readonly #read: KvRead;
  readonly #command = new KvCommandReader();
  /** Each made when it is first needed: a group may never need them. */
  #txn: KvTxn | undefined;
  #revision: RevisionBytes | undefined;

  constructor(layers: KvLayers, read: KvRead, limits: Limits) {
    this.#layers = layers;
    this.#read = read;
    this.#limits = limits;
    this.#keyBytesMax = limits.keyBytesMax;
    this.#valueBytesMax = limits.valueBytesMax;
  }

  run(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    from: number,
    results: ResultSink,
  ): void {
    if (!lengthsFit(view, at, last - first + 1, end)) {
      for (let index = Math.max(first, from); index <= last; index++) {
        results.result(index, ResultCode.malformed, undefined);
      }
      return;
    }
    let commandAt = at;
    for (let index = first; index <= last; index++) {
      const length = view.getUint32(commandAt, true);
      if (index >= from) this.#applyCommand(bytes, view, commandAt + 4, length, index, results);
      commandAt += 4 + length;
    }
  }

  #applyCommand(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    length: number,
    index: number,
    results: ResultSink,
  ): void {
    const command = this.#command;
    if (!command.read(view, at, length)) {
      if (length > 0 && view.getUint8(at) === kvTxnOp) {
        this.#txn ??= new KvTxn(this.#layers, this.#read, this.#limits);
        return this.#txn.apply(bytes, view, at, length, index, results);
      }
      results.result(index, ResultCode.malformed, undefined);
      return;
    }
    const { op, keyAt, keyLength, valueAt, valueLength } = command;
    if (keyLength > this.#keyBytesMax || valueLength > this.#valueBytesMax) {
      results.result(index, ResultCode.tooLarge, undefined);
      return;
    }
    if (op !== KvOp.put) {
      const revision = this.#layers.revision(bytes, view, keyAt, keyLength);
      if (op !== KvOp.delete && revision !== command.prevRevision) {
        return this.#compareFailed(index, revision, results);
      }
      if (op !== KvOp.compareAndPut) {
        if (revision === 0) results.result(index, ResultCode.notFound, undefined);
        else this.#layers.active.remove(bytes, view, keyAt, keyLength, index);
        return;
      }
    }
    this.#layers.active.put(bytes, view, keyAt, keyLength, valueAt, valueLength, index);
  }

  #compareFailed(index: number, revision: number, results: ResultSink): void {
    this.#revision ??= new RevisionBytes();
    writeSafe(this.#revision.view, 0, revision);
    results.result(index, ResultCode.compareFailed, this.#revision.bytes);
  }
}

/** True when `count` commands with the lengths before them fill the bytes up to `end` exactly. */
export function lengthsFit(view: DataView, bodyAt: number, count: number, end: number): boolean {
  let at = bodyAt;
  for (let i = 0; i < count; i++) {
    if (at + 4 > end) return false;
    at += 4 + view.getUint32(at, true);
  }
  return at === end;
}

/**
 * The chain over everything applied [32]: crc(previous, crc of the batch, results that are not plain ok). Two nodes that applied the
 * same log have equal values at equal indexes, so a machine that is not deterministic, or bytes that differ, are seen.
 *
 * It stands between a machine and the shell's sink while a batch is applied. A batch of which only the rest is applied, after a restart in its
 * midst, would hash only the results of the rest; kv never makes an index durable that is no batch end.
 */
import { crc32 } from "node:zlib";
import { errorTable, type ErrorCode } from "../errors.ts";
import { writeSafe, type Batch } from "../wire/batch.ts";
import { SectionResults } from "../wire/section-results.ts";
import type { ResultSink } from "./machine.ts";

const nobody: ResultSink = {
  result: () => undefined,
  repeated: () => undefined,
  refused: () => undefined,
};
/** Codes in the chain for sections that changed nothing; no result of a machine has them. */
const repeatedCode = 0x8000_0000;
const refusedCode = 0x8000_0001;

/** What is needed while a batch is applied, and not between two: all machines of a shard can share one. */
export class HashScratch {
  readonly head = new Uint8Array(8);
  readonly view = new DataView(this.head.buffer);
  readonly results = new SectionResults();
}

export class StateHash implements ResultSink {
  value = 0;
  readonly #head: Uint8Array;
  readonly #view: DataView;
  readonly #results: SectionResults;
  #batchCrc = 0;
  #firstIndex = 0;
  #sink = nobody;

  constructor({ head, view, results } = new HashScratch()) {
    this.#head = head;
    this.#view = view;
    this.#results = results;
  }

  begin(batch: Batch, sink: ResultSink): void {
    // A machine that failed in the midst of a batch may have left some.
    this.#results.reset();
    this.#batchCrc = batch.crc;
    this.#firstIndex = batch.firstIndex;
    this.#sink = sink;
  }

  result(index: number, code: number, bytes: Uint8Array | undefined): void {
    this.#results.add(index - this.#firstIndex, code, bytes);
    this.#sink.result(index, code, bytes);
  }

  repeated(index: number, count: number, originalIndex: number, results: Uint8Array): void {
    writeSafe(this.#view, 0, originalIndex);
    this.#results.add(index - this.#firstIndex, repeatedCode, this.#head);
    this.#sink.repeated(index, count, originalIndex, results);
  }

  refused(index: number, count: number, code: ErrorCode): void {
    writeSafe(this.#view, 0, errorTable[code].number);
    this.#results.add(index - this.#firstIndex, refusedCode, this.#head);
    this.#sink.refused(index, count, code);
  }

  end(): void {
    this.#view.setUint32(0, this.value, true);
    this.#view.setUint32(4, this.#batchCrc, true);
    this.value = crc32(this.#head);
    if (this.#results.byteLength > 0) this.value = crc32(this.#results.view(), this.value);
    this.#results.reset();
    this.#sink = nobody;
  }
}

/** A log of sealed batches for tests of state machines, and sinks that keep what they are told. */
import type { ErrorCode } from "../../src/errors.ts";
import {
  applyVersionBytes,
  BatchKind,
  batchHeaderBytes,
  sealBatch,
  type Batch,
} from "../../src/wire/batch.ts";
import { plainSection, readSectionHeader } from "../../src/wire/section.ts";
import type { AnswerSink, ResultSink } from "../../src/machine/machine.ts";

export class TestLog {
  readonly batches: Batch[] = [];
  #next = 1;
  #crc = 0;

  get lastIndex(): number {
    return this.#next - 1;
  }

  /** Seals whole commands, as sections of one batch. */
  add(sections: readonly (readonly Uint8Array[])[]): Batch {
    const count = sections.reduce((sum, commands) => sum + commands.length, 0);
    return this.addBody(Buffer.concat(sections.map(plainSection)), count, BatchKind.commands);
  }

  /** Whole sections as they are, in one batch, at that cluster time. */
  addSections(sections: readonly Uint8Array[], timeMs?: number): Batch {
    const count = sections.reduce((sum, each) => sum + readSectionHeader(each, 0)!.count, 0);
    return this.addBody(Buffer.concat(sections), count, BatchKind.commands, timeMs);
  }

  raise(applyVersion: number): Batch {
    const body = applyVersionBytes(applyVersion).subarray(batchHeaderBytes);
    return this.addBody(body, 1, BatchKind.applyVersion);
  }

  addBody(
    body: Uint8Array,
    count: number,
    kind: BatchKind,
    timeMs: number = this.#next * 10,
  ): Batch {
    const bytes = new Uint8Array(batchHeaderBytes + body.byteLength);
    bytes.set(body, batchHeaderBytes);
    const header = { group: 0, kind, firstIndex: this.#next, count, term: 1, prevCrc: this.#crc };
    const batch = sealBatch({ ...header, timeMs }, bytes);
    this.batches.push(batch);
    this.#next += count;
    this.#crc = batch.crc;
    return batch;
  }

  /** The batches from the one on that holds `index`. */
  from(index: number): Batch[] {
    return this.batches.filter(({ firstIndex, count }) => firstIndex + count > index);
  }
}

export class Results implements ResultSink {
  readonly all = new Map<number, { code: number; bytes: Uint8Array | undefined }>();
  readonly repeats = new Map<number, { count: number; original: number; bytes: Uint8Array }>();
  readonly refusals = new Map<number, { count: number; code: ErrorCode }>();

  result(index: number, code: number, bytes: Uint8Array | undefined): void {
    this.all.set(index, { code, bytes: bytes?.slice() });
  }

  repeated(index: number, count: number, original: number, results: Uint8Array): void {
    this.repeats.set(index, { count, original, bytes: results.slice() });
  }

  refused(index: number, count: number, code: ErrorCode): void {
    this.refusals.set(index, { count, code });
  }
}

export class Answers implements AnswerSink {
  code = -1;
  bytes: Uint8Array = new Uint8Array(0);

  answer(code: number, bytes: Uint8Array | undefined): void {
    this.code = code;
    this.bytes = bytes?.slice() ?? new Uint8Array(0);
  }
}

/** Batches for tests of storage: chained, of any size, told apart by a tag in the body. */
import { batchHeaderBytes, BatchKind, sealBatch, type Batch } from "../../src/wire/batch.ts";

export interface BatchPlan {
  readonly group?: number;
  readonly firstIndex: number;
  readonly count?: number;
  readonly term: number;
  readonly prevCrc: number;
  readonly kind?: BatchKind;
  readonly bodyBytes?: number;
  readonly tag?: number;
}

export function makeBatch(plan: BatchPlan): Batch {
  const bytes = new Uint8Array(batchHeaderBytes + (plan.bodyBytes ?? 16));
  bytes.fill((plan.tag ?? plan.firstIndex) & 0xff, batchHeaderBytes);
  return sealBatch(
    {
      group: plan.group ?? 0,
      kind: plan.kind ?? BatchKind.commands,
      firstIndex: plan.firstIndex,
      count: plan.count ?? 1,
      term: plan.term,
      timeMs: plan.firstIndex * 10,
      prevCrc: plan.prevCrc,
    },
    bytes,
  );
}

/** A run of batches, `counts` long each, that continues (index, crc). */
export function makeRun(
  after: { readonly index: number; readonly crc: number },
  term: number,
  counts: readonly number[],
  plan: { readonly group?: number; readonly bodyBytes?: number; readonly tag?: number } = {},
): Batch[] {
  const run: Batch[] = [];
  let { index, crc } = after;
  for (const count of counts) {
    const batch = makeBatch({ ...plan, firstIndex: index + 1, count, term, prevCrc: crc });
    run.push(batch);
    index += count;
    crc = batch.crc;
  }
  return run;
}

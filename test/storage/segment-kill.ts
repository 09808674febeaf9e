/** What the killed process and the test that kills it agree on. */

import { RecordKind } from "../../src/storage/disk.ts";
import type { LogRecord } from "../../src/storage/disk.ts";

export const segmentBytes = 150_000;
/** Full segments that are not retired yet. */
export const segmentsKept = 2;

/** The record that a life writes at a place: told apart from any other, in every byte. */
export function lifeRecord(life: number, seq: number): LogRecord {
  const data = new Uint8Array(16 + ((seq * 7_919) % 9_000));
  const view = new DataView(data.buffer);
  data.fill((life * 31 + seq) & 0xff);
  view.setUint32(0, life);
  view.setFloat64(4, seq);
  return { seq, kind: RecordKind.batch, group: life, data };
}

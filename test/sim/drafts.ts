/** What simulated clients write, from the draft to the answer: shared by those with sessions and those without. */
import { ResultCode } from "../../src/machine/machine.ts";
import {
  encodeKvCompareAndPut,
  encodeKvDelete,
  encodeKvPut,
  readKvRevision,
} from "../../src/wire/kv.ts";
import { readSectionResults } from "../../src/wire/section-results.ts";
import type { Operation } from "../checker/history.ts";
import { Violation } from "./invariants.ts";
import type { Oracle } from "./oracle.ts";

/** One operation of the history, which is filled in as it becomes known. */
export type Draft = { -readonly [Field in keyof Operation]: Operation[Field] };

const encoder = new TextEncoder();

export function commandOf({ kind, key, value, expected }: Draft): Uint8Array {
  const name = encoder.encode(key);
  if (kind === "put") return encodeKvPut(name, encoder.encode(value));
  if (kind === "delete") return encodeKvDelete(name);
  return encodeKvCompareAndPut(name, encoder.encode(value), expected);
}

/** What one write came to. */
export interface Done {
  readonly index: number;
  readonly code: number;
  /** Of a failed compare: the revision that it met. */
  readonly met: number;
}

/** What an application answers begins with the code that the key-value machine would have given. */
export function plainResult(
  { isOfApplication }: Oracle,
  result: { readonly code: number; readonly bytes: Uint8Array } | undefined,
): { readonly code: number; readonly bytes: Uint8Array } {
  const { code, bytes } = result ?? { code: ResultCode.ok, bytes: new Uint8Array(0) };
  const isCoded = isOfApplication && code === ResultCode.ok && bytes.byteLength > 0;
  return isCoded ? { code: bytes[0]!, bytes: bytes.subarray(1) } : { code, bytes };
}

/** Reads the answer to a section and compares it with the log: these very commands are at these very indexes, and came to that. */
export function answersOf(
  nodeId: number,
  drafts: readonly Draft[],
  firstIndex: number,
  bytes: Uint8Array,
  oracle: Oracle,
): readonly Done[] {
  const results = readSectionResults(bytes, drafts.length);
  if (results === undefined) throw new Violation(`node ${nodeId} gives malformed results`);
  return drafts.map(({ kind, key, value }, position) => {
    const index = firstIndex + position;
    const result = results.find((other) => other.position === position);
    const { code, bytes: told } = plainResult(oracle, result);
    const truth = oracle.commands.get(index);
    if (truth === undefined || truth.key !== key || truth.value !== value) {
      throw new Violation(
        `node ${nodeId} acknowledges ${kind} ${value} at ${index}, where the log has ${truth?.value}`,
      );
    }
    if (truth.code !== code) {
      throw new Violation(
        `node ${nodeId} answers ${code} for index ${index}, the model ${truth.code}`,
      );
    }
    if (code !== ResultCode.compareFailed) return { index, code, met: 0 };
    const met = readKvRevision(told) ?? Number.NaN;
    if (met !== truth.met) {
      throw new Violation(`node ${nodeId}: compare at ${index} met ${met}, the model ${truth.met}`);
    }
    return { index, code, met };
  });
}

/** A node says that they are applied, and no more. */
export function mustBeApplied(
  { id }: { readonly id: number },
  drafts: readonly Draft[],
  oracle: Oracle,
): void {
  for (const { value } of drafts) {
    if (value === "" || oracle.indexOfValue.has(value)) continue;
    throw new Violation(`node ${id} says that ${value} is applied, which is not in the log`);
  }
}

/** Notes in the drafts what became of them, at that moment. */
export function settleDone(
  drafts: readonly Draft[],
  done: readonly Done[],
  moment: () => number,
): void {
  for (const [position, draft] of drafts.entries()) {
    const { index, code, met } = done[position]!;
    draft.outcome = "ok";
    draft.index = index;
    draft.success = code === ResultCode.ok;
    draft.seenRevision = met;
    draft.return = moment();
  }
}

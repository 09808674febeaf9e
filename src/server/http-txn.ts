/**
 * Transactions over HTTP: the JSON of a request into one command, its result into JSON. Keys and values are in base64. The shapes are those
 * of wire/kv-txn-object.ts; a result has the shape that the single request would answer with.
 */
import { BargeError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import {
  kvTxnCode,
  kvTxnFaultText,
  type KvOperationResult,
  type KvTxn,
  readKvTxnResults,
} from "../wire/kv-txn.ts";
import { type LaidOutTxn, layOutTxn, type TxnNotation } from "../wire/kv-txn-object.ts";
import type { CommandResult } from "../wire/section-results.ts";
import { base64, jsonAnswer, jsonItems } from "./http-answers.ts";

/** Of the JSON: base64 takes a third more than the bytes, and there are names and white space. */
export function txnBodyBytesMax({ txnBytesMax }: Limits): number {
  return 2 * txnBytesMax;
}

/** Names, numbers, brackets and white space, all that is not in a string: what makes JSON slow to parse is many small things. */
const outsideStringsMax = 262_144;

const quote = 0x22;
const none = new Uint8Array(0);

const notation: TxnNotation = { key: fromBase64, value: fromBase64 };

/** Throws a BargeError that names what is wrong. */
export function readTxn(body: Uint8Array, limits: Limits): LaidOutTxn {
  if (bytesOutsideStrings(body) > outsideStringsMax) {
    throw new BargeError("too_large", "The body has too many names, numbers or blanks.");
  }
  let given: unknown;
  try {
    given = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new BargeError("bad_request", "The body is not JSON.");
  }
  return layOutTxn(given, notation, limits);
}

/** A walk from quote to quote. It takes an escaped quote for one, which is wrong only where no base64 can be. */
function bytesOutsideStrings(body: Uint8Array): number {
  let outside = 0;
  let at = 0;
  while (at < body.byteLength) {
    const opening = body.indexOf(quote, at);
    if (opening < 0) return outside + body.byteLength - at;
    const closing = body.indexOf(quote, opening + 1);
    outside += opening - at + 2;
    if (closing < 0) return outside;
    at = closing + 1;
  }
  return outside;
}

function fromBase64(given: unknown): Uint8Array | string {
  if (typeof given !== "string") return "a string in base64";
  try {
    return Uint8Array.fromBase64(given);
  } catch {
    return "in base64";
  }
}

/** The answer to a transaction that was applied at `revision`; throws where it was refused. */
export function answerTxn(
  txn: KvTxn,
  revision: number,
  result: CommandResult | undefined,
): Response {
  const code = result?.code ?? kvTxnCode.ok;
  const bytes = result?.bytes ?? none;
  if (code === kvTxnCode.malformed || code === kvTxnCode.tooLarge) {
    const kind = code === kvTxnCode.tooLarge ? "too_large" : "bad_request";
    const text = kvTxnFaultText(bytes);
    if (text !== undefined) throw new BargeError(kind, text);
  }
  const succeeded = code === kvTxnCode.ok;
  const results =
    succeeded || code === kvTxnCode.failureList
      ? readKvTxnResults(succeeded ? txn.success : txn.failure, bytes)
      : undefined;
  if (results === undefined) {
    throw new BargeError("bad_request", "The state machine of this group did not understand it.");
  }
  return jsonAnswer({
    succeeded,
    revision,
    results: results.map((each) => jsonResult(each, revision)),
  });
}

function jsonResult(result: KvOperationResult, revision: number): unknown {
  switch (result.op) {
    case "put":
      return { revision };
    case "delete":
      return { revision, deleted: result.deleted };
    case "get": {
      const { entry } = result;
      return entry === undefined ? null : { value: base64(entry.value), revision: entry.revision };
    }
    case "range":
      return { items: jsonItems(result.page), more: result.page.more, revision };
  }
}

/**
 * What an application answers to UpdateEntries, read entry by entry in their order. Results are optional [README.md]: without any, or with another count than
 * there were entries, all are empty. Pure.
 */
import { ContractError, jsonType, type UpdateShape } from "./contract.ts";

export interface UpdateResults {
  /** The application gave a list that is not as long as it should be. */
  readonly isMiscounted: boolean;
  /** Of the next entry; undefined where it is empty. Valid until the next call. */
  next(): Uint8Array | undefined;
}

class NoResults implements UpdateResults {
  readonly isMiscounted: boolean;

  constructor(isMiscounted = false) {
    this.isMiscounted = isMiscounted;
  }

  next(): undefined {
    return undefined;
  }
}

export const noResults: UpdateResults = new NoResults();
const miscounted: UpdateResults = new NoResults(true);

/** Throws a ContractError where the reply is garbage, so that nobody can say what became of the call. */
export function readResults(
  shape: UpdateShape,
  contentType: string | undefined,
  body: Uint8Array,
  entries: number,
): UpdateResults {
  if (body.byteLength === 0) return noResults;
  if (contentType?.toLowerCase().startsWith(jsonType)) return jsonResults(body, entries);
  if (shape === "binary") return binaryResults(body, entries);
  return noResults;
}

function jsonResults(body: Uint8Array, entries: number): UpdateResults {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(body));
  } catch {
    throw new ContractError("UpdateEntries: the reply says that it is JSON, and is not");
  }
  const list: unknown = (value as { Results?: unknown } | null)?.Results;
  if (list === undefined || list === null) return noResults;
  if (!Array.isArray(list) || list.length !== entries) return miscounted;
  return new JsonResults(list as unknown[]);
}

class JsonResults implements UpdateResults {
  readonly isMiscounted = false;
  readonly #list: readonly unknown[];
  #at = 0;

  constructor(list: readonly unknown[]) {
    this.#list = list;
  }

  next(): Uint8Array | undefined {
    const element = this.#list[this.#at++] as { Result?: unknown; Data?: unknown } | null;
    const text = element?.Result ?? element?.Data;
    if (typeof text !== "string" || text === "") return undefined;
    return Buffer.from(text, "base64");
  }
}

function binaryResults(body: Uint8Array, entries: number): UpdateResults {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const count = body.byteLength < 4 ? -1 : view.getUint32(0, true);
  if (count === 0) return noResults;
  if (count !== entries) return miscounted;
  let at = 4;
  for (let position = 0; position < count; position++) {
    if (body.byteLength - at < 4) return miscounted;
    at += 4 + view.getUint32(at, true);
    if (at > body.byteLength) return miscounted;
  }
  return at === body.byteLength ? new BinaryResults(body, view) : miscounted;
}

/** Its lengths were checked. */
class BinaryResults implements UpdateResults {
  readonly isMiscounted = false;
  readonly #body: Uint8Array;
  readonly #view: DataView;
  #at = 4;

  constructor(body: Uint8Array, view: DataView) {
    this.#body = body;
    this.#view = view;
  }

  next(): Uint8Array | undefined {
    const length = this.#view.getUint32(this.#at, true);
    const from = this.#at + 4;
    this.#at = from + length;
    return length === 0 ? undefined : this.#body.subarray(from, this.#at);
  }
}

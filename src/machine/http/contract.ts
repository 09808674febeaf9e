/**
 * What an application answers, as README.md says it may: looked at here and nowhere else, and never trusted. A reply that cannot be meant is a
 * ContractError, with words for the application's author. Pure.
 */

/** The application does not keep to the contract. */
export class ContractError extends Error {
  override readonly name = "ContractError";
}

export type UpdateShape = "json" | "binary";

export const jsonType = "application/json";
export const bytesType = "application/octet-stream";

/** What stands in the reply to `Ready`. */
export interface ReadyReply {
  readonly shape: UpdateShape;
  /** PrepareSnapshot is wanted after so many entries; 0 = only when a snapshot is. */
  readonly prepareEvery: number;
}

const usual: ReadyReply = { shape: "json", prepareEvery: 0 };

/** Any body will do; where it is a JSON object it may say more. */
export function readReady(body: Uint8Array): ReadyReply {
  const { Shape, PrepareEvery } = objectIn(body) ?? {};
  if (Shape !== undefined && Shape !== "json" && Shape !== "binary") {
    throw new ContractError(`Ready: "Shape" is "json" or "binary", not ${said(Shape)}`);
  }
  if (PrepareEvery !== undefined && !isIndex(PrepareEvery)) {
    throw new ContractError(`Ready: "PrepareEvery" is a whole number, not ${said(PrepareEvery)}`);
  }
  return { shape: Shape ?? usual.shape, prepareEvery: PrepareEvery ?? usual.prepareEvery };
}

export function readLastLogIndex(body: Uint8Array): number {
  const { LastLogIndex } = objectIn(body) ?? {};
  if (isIndex(LastLogIndex)) return LastLogIndex;
  if (LastLogIndex === undefined) {
    throw new ContractError(
      `LastLogIndex: the reply is {"LastLogIndex":41}, not ${said(textOf(body))}`,
    );
  }
  const isLarge = typeof LastLogIndex === "number" && LastLogIndex > Number.MAX_SAFE_INTEGER;
  const why = isLarge ? "indexes end at 2^53-1" : "it is a whole number from 0 on";
  throw new ContractError(`LastLogIndex: ${why}, and ${said(LastLogIndex)} is not`);
}

/** The handle of a snapshot, as the application gets it back: its very bytes. */
export function readHandle(body: Uint8Array, bytesMax: number): Uint8Array {
  if (body.byteLength > bytesMax) {
    throw new ContractError(`PrepareSnapshot: a handle has up to ${bytesMax} bytes`);
  }
  try {
    JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new ContractError(
      `PrepareSnapshot: the reply is JSON, {} at the least, not ${said(textOf(body))}`,
    );
  }
  return body;
}

/** Undefined where a reply has none. */
export function readInstance(header: string | undefined): string | undefined {
  if (header === undefined || header === "") return undefined;
  if (/^[A-Za-z0-9._-]{1,64}$/.test(header)) return header;
  throw new ContractError("barge-instance has up to 64 characters of A-Z a-z 0-9 . _ -");
}

/** For people: an application's own words, shortened, on one line. */
export function errorText(status: number, body: Uint8Array): string {
  const words = textOf(body).trim();
  return words === "" ? `status ${status}` : `status ${status}: ${words}`;
}

const wordsMax = 200;

function textOf(body: Uint8Array): string {
  const text = new TextDecoder().decode(body.subarray(0, 4 * wordsMax));
  // eslint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u001f\u007f]+/g, " ").slice(0, wordsMax);
}

function objectIn(body: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(body));
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function isIndex(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function said(value: unknown): string {
  return typeof value === "string" ? `"${value}"` : String(JSON.stringify(value)).slice(0, 100);
}

/** Answers of the HTTP door: JSON, and errors in the one shape that interface.md names, with the status of errors.ts. */
import { type BargeError, errorTable } from "../errors.ts";
import type { KvPage } from "../wire/kv.ts";

export function jsonAnswer(
  body: unknown,
  status = 200,
  headers?: Record<string, string>,
): Response {
  return new Response(`${JSON.stringify(body)}\n`, {
    status,
    headers: { "content-type": "application/json", ...headers },
  });
}

export function textAnswer(text: string, status = 200): Response {
  return new Response(`${text}\n`, {
    status,
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
}

export function errorAnswer(error: BargeError): Response {
  return jsonAnswer(errorBody(error), errorTable[error.code].httpStatus);
}

export function errorBody(error: BargeError): { readonly error: object } {
  const { code, message, outcome, retryable, leaderHint } = error;
  const leader = leaderHint === undefined ? {} : { leader: leaderHint };
  return { error: { code, message, outcome, retryable, ...leader } };
}

/** An answer that is no, and has no number of its own on the wire: nothing there, compared and differs, no such path or method. */
export function refusal(
  status: number,
  code: string,
  message: string,
  more: { readonly body?: object; readonly headers?: Record<string, string> } = {},
): Response {
  return jsonAnswer(
    { error: { code, message, outcome: "not-applied", retryable: false }, ...more.body },
    status,
    more.headers,
  );
}

export function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

export interface JsonItem {
  readonly key: string;
  readonly value: string;
  readonly revision: number;
}

export function jsonItems({ items }: KvPage): JsonItem[] {
  return items.map(({ key, value, revision }) => ({
    key: base64(key),
    value: base64(value),
    revision,
  }));
}

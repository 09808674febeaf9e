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

/** `http`: where the node in the hint is asked over HTTP, as far as that is known. */
export function errorAnswer(error: BargeError, http?: string): Response {
  return jsonAnswer(errorBody(error, http), errorTable[error.code].httpStatus);
}

export function errorBody(error: BargeError, http?: string): { readonly error: object } {
  const { code, message, outcome, retryable, leaderHint } = error;
  const leader = leaderHint === undefined ? {} : { leader: leaderHint };
  const leaderHttp = http === undefined ? {} : { leaderHttp: http };
  return { error: { code, message, outcome, retryable, ...leader, ...leaderHttp } };
}

/** The same request is for that node. */
export function elsewhereAnswer(error: BargeError, http: string, url: string): Response {
  const { pathname, search } = new URL(url);
  const answer = errorAnswer(error, http);
  answer.headers.set("location", `http://${http}${pathname}${search}`);
  return answer;
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

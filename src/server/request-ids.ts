/**
 * Requests that say who they are: with the header `barge-request-id`, a write over HTTP is done once, however often it is sent, to whichever node
 * [12]. In the log there is a digest of the id in place of a session.
 */
import { createHash } from "node:crypto";
import { BargeError } from "../errors.ts";
import { layOutSection, plainSection, SectionKind } from "../wire/section.ts";

export const requestIdHeader = "barge-request-id";
const charactersMax = 256;
/** Of a digest's 64 bits, those that make a safe integer. */
const safeBits = 53;

/** The id that the request gives itself; undefined where it gives none. Throws a BargeError where it cannot be one. */
export function requestIdOf(headers: Headers): string | undefined {
  const id = headers.get(requestIdHeader);
  if (id === null) return undefined;
  if (id.length >= 1 && id.length <= charactersMax) return id;
  throw new BargeError(
    "bad_request",
    `${requestIdHeader} must have 1 to ${charactersMax} characters.`,
  );
}

/** One command as a section: under the id, or plain without one. */
export function requestSection(command: Uint8Array, requestId: string | undefined): Uint8Array {
  if (requestId === undefined) return plainSection([command]);
  const digest = createHash("sha256").update(requestId).digest();
  const part = (at: number): number => Number(BigInt.asUintN(safeBits, digest.readBigUInt64LE(at)));
  const identity = { session: part(0), firstSeq: part(8), doneUpTo: part(16) };
  return layOutSection([command], { kind: SectionKind.keyed, ...identity });
}

/** What went wrong with a request with an id. `isUnknown`: an attempt before may have been done. */
export function requestError(error: BargeError, isUnknown: boolean): BargeError {
  const { code, message, leaderHint } = error;
  if (code === "session_mismatch") {
    const text = `This ${requestIdHeader} was used with another request; give each request its own.`;
    return new BargeError(code, text);
  }
  if (!isUnknown || error.outcome === "unknown") return error;
  const hint = leaderHint === undefined ? {} : { leaderHint };
  return new BargeError(code, message, { outcome: "unknown", ...hint });
}

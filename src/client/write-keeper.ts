/**
 * What looks after writes until their fate is known: the session (session.ts), which keeps their order too, or an id for each of them
 * (identified-writes.ts). Both send the same bytes again whatever became of an earlier copy; and what they tell callers who give up.
 */
import { BargeError } from "../errors.ts";
import type { NodeLink } from "./node-link.ts";
import type { Outgoing } from "./outgoing.ts";
import type { WriteSection } from "./write-section.ts";

export interface WriteKeeper {
  /** Of the session, where it is one and is open. */
  readonly id: number | undefined;
  /** A section that comes now would have to wait for older ones. */
  readonly isCrowded: boolean;
  submit(section: WriteSection, nowMs: number): void;
  /** Sends what can be sent. */
  pump(nowMs: number): void;
  /** Time-outs. */
  sweep(nowMs: number): void;
  /** The commands were applied, by this copy or an earlier one. */
  applied(section: WriteSection): void;
  /** This copy came to nothing, or has come to something that cannot be told. */
  refused(section: WriteSection, node: NodeLink, error: BargeError, nowMs: number): void;
  /** The connection is gone. `sent`: its bytes had left. */
  lost(section: WriteSection, node: NodeLink, sent: boolean, nowMs: number): void;
  /** The caller gave up. */
  abandon(section: WriteSection, reason: unknown): void;
  /** Everybody who waits is told. */
  close(error: BargeError): void;
}

/** What a keeper needs of the router. */
export interface WriteRoutes {
  /** A node for writes that can be sent to now; else one is being dialled. */
  chooseForWrites(avoid: string | undefined, nowMs: number): NodeLink | undefined;
  /** Sends a request of the keeper itself. */
  submit(outgoing: Outgoing, nowMs: number): void;
  /** Without a keeper: sent once. */
  submitPlain(section: WriteSection, nowMs: number): void;
  /** What is to be told of a section that ran out of time with no copy of it left. */
  expiredError(section: WriteSection): BargeError;
  settled(section: WriteSection, reusable: boolean): void;
  /** When a caller last asked for something. */
  readonly activeMs: number;
  pumpWanted(): void;
}

/** Out of time, and some copy may have been applied. */
export function unansweredError({ refusal, timeoutMs, copies }: WriteSection): BargeError {
  const last = refusal === undefined ? "" : `; the last answer was: ${refusal.message}`;
  const text = `no answer within ${timeoutMs} ms, tried ${copies} times${last}; it may have been applied, or be applied yet`;
  return new BargeError("timeout", text, refusal === undefined ? {} : { cause: refusal });
}

/** `maybe`: some copy may have been applied. */
export function abandonedError(maybe: boolean, reason: unknown): BargeError {
  const when = maybe ? "after it was sent" : "before anything was applied";
  const outcome = maybe ? "unknown" : "not-applied";
  return new BargeError("aborted", `the caller gave up ${when}`, { outcome, cause: reason });
}

export function closedWhileSentError(): BargeError {
  const text = "this client was closed after the write was sent; it may have been applied";
  return new BargeError("outcome_unknown", text);
}

/** Jittered, and longer from time to time. */
export function pauseMs(pauses: number): number {
  const longest = Math.min(pauseMsMax, pauseMsMin * 2 ** Math.min(pauses, 10));
  return longest * (0.5 + Math.random() / 2);
}

const pauseMsMin = 10;
const pauseMsMax = 100;
/** A group that has just begun, or whose members were all renewed, is there and comes to know sessions and request ids within this time. */
export const graceMs = 500;
/** Having been told that the cluster knows none, ask again only after this long. */
export const plainMs = 1_000;
/** Patience with a node that gives no answer, in attempts, at the most. */
export const patienceAttemptsMax = 8;

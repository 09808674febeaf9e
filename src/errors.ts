/**
 * The one table of errors: number on the wire (append-only), code, HTTP status, whether a retry can help,
 * and whether the write may have happened. A leaf: anyone may import it.
 */

/** Did the write happen? `unknown` is an honest answer, never a disguise for `not-applied`. */
export type Outcome = "applied" | "not-applied" | "unknown";

export interface ErrorRow {
  readonly number: number;
  readonly httpStatus: number;
  readonly retryable: boolean;
  readonly outcome: Outcome;
  /** What it means and what to do, for the generated documentation. */
  readonly help: string;
}

const row = (
  number: number,
  httpStatus: number,
  retryable: boolean,
  outcome: Outcome,
  help: string,
): ErrorRow => ({ number, httpStatus, retryable, outcome, help });

export const errorTable = {
  not_leader: row(
    1,
    503,
    true,
    "not-applied",
    "This node does not lead; ask the node in the hint.",
  ),
  no_leader: row(
    2,
    503,
    true,
    "not-applied",
    "No leader is known; a majority may be down. Try again.",
  ),
  overloaded: row(3, 429, true, "not-applied", "A queue is full; slow down and try again."),
  timeout: row(4, 504, true, "unknown", "No answer in time; a write may still be applied later."),
  too_large: row(5, 413, false, "not-applied", "The request is over a bound; make it smaller."),
  bad_request: row(
    6,
    400,
    false,
    "not-applied",
    "The request is malformed; the message says where.",
  ),
  unknown_group: row(7, 404, false, "not-applied", "This node has no such group."),
  compacted: row(8, 410, false, "not-applied", "That part of the log is gone."),
  disk_full: row(9, 507, true, "not-applied", "The disk is full or a log is at its bound."),
  wounded: row(
    10,
    503,
    true,
    "not-applied",
    "This node lost durable data and knows no leader to fetch it from; ask another.",
  ),
  shutting_down: row(11, 503, true, "not-applied", "This node is stopping; ask another."),
  session_expired: row(12, 410, false, "unknown", "The session is gone; open a new one."),
  session_mismatch: row(13, 409, false, "not-applied", "Same sequence number, other bytes."),
  sequence_gap: row(
    14,
    409,
    true,
    "not-applied",
    "An earlier section is missing; resend in order.",
  ),
  result_forgotten: row(
    15,
    410,
    false,
    "applied",
    "Applied earlier; its result is no longer kept.",
  ),
  result_too_large: row(16, 413, false, "applied", "Applied; its result is over the bound."),
  version_mismatch: row(17, 400, false, "not-applied", "The two sides speak no common version."),
  unauthorised: row(18, 403, false, "not-applied", "The identity may not do this."),
  /** Lost leadership, a dropped connection: the write may be in the log of the next leader. */
  outcome_unknown: row(19, 503, true, "unknown", "Contact was lost after the write was sent."),
  /** The caller gave up. */
  aborted: row(20, 499, false, "unknown", "The caller aborted the request after it was sent."),
  internal: row(21, 500, false, "unknown", "A bug; the message says more. Please report it."),
  /** Only ever made by a client: no connection, so nothing was sent. */
  unreachable: row(22, 503, true, "not-applied", "No node answered; check endpoints and nodes."),
  change_in_progress: row(
    27,
    409,
    true,
    "not-applied",
    "Another change of the members is under way; try again when it is done.",
  ),
  no_live_majority: row(
    28,
    409,
    false,
    "not-applied",
    "The voters that would be left do not answer in their majority: start them first, or force it.",
  ),
  unknown_member: row(29, 404, false, "not-applied", "There is no such member."),
  member_exists: row(30, 409, false, "not-applied", "The id or address is that of another member."),
  member_removed: row(
    31,
    410,
    false,
    "not-applied",
    "That member was removed; its id is never used again. Take another id and an empty folder.",
  ),
  not_voter: row(
    33,
    409,
    false,
    "not-applied",
    "That member is not a voter and cannot lead: promote it first, or name a voter.",
  ),
  not_transferred: row(
    34,
    409,
    false,
    "not-applied",
    "Leadership was not handed over; the message says why. The leader goes on.",
  ),
  sessions_full: row(
    35,
    429,
    true,
    "not-applied",
    "The group has as many sessions as it may have: close some, or wait until idle ones expire.",
  ),
  request_ids_full: row(
    36,
    429,
    true,
    "not-applied",
    "The group remembers as many request ids as it may: slow down, or write through a session.",
  ),
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorTable;

const byNumber = new Map<number, ErrorCode>();
for (const [code, { number }] of Object.entries(errorTable))
  byNumber.set(number, code as ErrorCode);

/** The code of a number from the wire; a number from a newer version reads as `internal`. */
export function errorCodeOf(number: number): ErrorCode {
  return byNumber.get(number) ?? "internal";
}

export interface BargeErrorOptions {
  /** Overrides the table, e.g. a `timeout` of a read or of a request that was never sent. */
  readonly outcome?: Outcome;
  readonly leaderHint?: string;
  readonly cause?: unknown;
}

/** The error of every refused or failed request, in the server, the SDK and the CLI. */
export class BargeError extends Error {
  override readonly name: string = "BargeError";
  readonly code: ErrorCode;
  readonly outcome: Outcome;
  readonly retryable: boolean;
  /** `host:port` of the leader, where the refusing node knows it. */
  readonly leaderHint: string | undefined;

  constructor(code: ErrorCode, message: string, options: BargeErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.outcome = options.outcome ?? errorTable[code].outcome;
    this.retryable = errorTable[code].retryable;
    this.leaderHint = options.leaderHint;
  }
}

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
  /** For people, as in the generated documentation: what it means, and what to do. */
  readonly means: string;
  readonly todo: string;
  /** Both. */
  readonly help: string;
}

const row = (
  number: number,
  httpStatus: number,
  retryable: boolean,
  outcome: Outcome,
  means: string,
  todo: string,
): ErrorRow => ({
  number,
  httpStatus,
  retryable,
  outcome,
  means,
  todo,
  help: `${means} ${todo}`,
});

export const errorTable = {
  not_leader: row(
    1,
    503,
    true,
    "not-applied",
    "This node does not lead the group.",
    "Ask the node in the hint; the SDK does so by itself.",
  ),
  no_leader: row(
    2,
    503,
    true,
    "not-applied",
    "No leader is known: an election is under way, or a majority of the members is down or cut off.",
    "Try again; where it lasts, look at `barge status`.",
  ),
  overloaded: row(
    3,
    429,
    true,
    "not-applied",
    "A queue of this node is full.",
    "Slow down and try again; where it lasts, use fewer or larger requests.",
  ),
  timeout: row(
    4,
    504,
    true,
    "unknown",
    "There was no answer in time; a write may still be applied later.",
    "Try again under the same session or request id, or read what became of it.",
  ),
  too_large: row(
    5,
    413,
    false,
    "not-applied",
    "The request is over a bound.",
    "Make it smaller; the message names the bound.",
  ),
  bad_request: row(
    6,
    400,
    false,
    "not-applied",
    "The request is malformed.",
    "Mend it; the message says where.",
  ),
  unknown_group: row(
    7,
    404,
    false,
    "not-applied",
    "This node has no such group.",
    "Name a group that there is: `barge status` lists them.",
  ),
  compacted: row(
    8,
    410,
    false,
    "not-applied",
    "What was asked for is older than what is kept.",
    "Read the present state, and go on from its revision.",
  ),
  disk_full: row(
    9,
    507,
    true,
    "not-applied",
    "The disk of the leader, or of the node that was asked, is full or nearly so.",
    "Free some space; then try again.",
  ),
  wounded: row(
    10,
    503,
    true,
    "not-applied",
    "This node lost durable data and knows no leader to fetch it from.",
    "Ask another node; start the members that are whole.",
  ),
  shutting_down: row(
    11,
    503,
    true,
    "not-applied",
    "This node is stopping.",
    "Ask another one; the SDK does so by itself.",
  ),
  session_expired: row(
    12,
    410,
    false,
    "unknown",
    "The session was not used for too long, or was closed, and is forgotten: what it still had in flight may have been applied.",
    "Open a new one; before anything is repeated, read what became of it.",
  ),
  session_mismatch: row(
    13,
    409,
    false,
    "not-applied",
    "Another section was applied under this sequence number of the session.",
    "A bug in the caller, or two that share a session: give each its own.",
  ),
  sequence_gap: row(
    14,
    409,
    true,
    "not-applied",
    "An earlier section of the session was not applied.",
    "Send again from the first that was not, in order; the SDK does so by itself.",
  ),
  result_forgotten: row(
    15,
    410,
    false,
    "applied",
    "It was applied earlier, and its result is no longer kept.",
    "Read what became of it; repeat nothing.",
  ),
  result_too_large: row(
    16,
    413,
    false,
    "applied",
    "It was applied; its results are over the bound.",
    "Read what became of it; ask for less next time.",
  ),
  version_mismatch: row(
    17,
    400,
    false,
    "not-applied",
    "The two sides have no version in common, or a member of the cluster is too old for what is asked.",
    "Upgrade the older side; the message names it.",
  ),
  unauthorised: row(
    18,
    403,
    false,
    "not-applied",
    "This identity may not do this, or the two are of different clusters.",
    "Use one that may; compare the addresses, the members and the cluster token.",
  ),
  /** Lost leadership, a dropped connection: the write may be in the log of the next leader. */
  outcome_unknown: row(
    19,
    503,
    true,
    "unknown",
    "Contact was lost after the write was sent.",
    "Try again under the same session or request id, or read what became of it.",
  ),
  /** The caller gave up. */
  aborted: row(
    20,
    499,
    false,
    "unknown",
    "The caller gave up after the request was sent.",
    "Read what became of it, should that matter.",
  ),
  internal: row(
    21,
    500,
    false,
    "unknown",
    "A bug, or an error that this build does not know; the message says more.",
    "Please report it, with the message.",
  ),
  /** Only ever made by a client: no connection, so nothing was sent. */
  unreachable: row(
    22,
    503,
    true,
    "not-applied",
    "No node answered, so nothing was sent.",
    "Check the endpoints, and that the nodes run.",
  ),
  change_in_progress: row(
    27,
    409,
    true,
    "not-applied",
    "Another change of the members is under way.",
    "Try again when it is done.",
  ),
  no_live_majority: row(
    28,
    409,
    false,
    "not-applied",
    "The voters that would be left do not answer in their majority, so the group would stand still.",
    "Start them first, or force the change.",
  ),
  unknown_member: row(
    29,
    404,
    false,
    "not-applied",
    "There is no such member.",
    "Name one that there is: `barge member list`.",
  ),
  member_exists: row(
    30,
    409,
    false,
    "not-applied",
    "The id or the address is that of another member.",
    "Take one that is free, or replace the member.",
  ),
  member_removed: row(
    31,
    410,
    false,
    "not-applied",
    "That member was removed, and its id is never used again.",
    "Take another id and an empty folder.",
  ),
  not_voter: row(
    33,
    409,
    false,
    "not-applied",
    "That member is not a voter and cannot lead.",
    "Promote it first, or name a voter.",
  ),
  not_transferred: row(
    34,
    409,
    false,
    "not-applied",
    "Leadership was not handed over; the leader goes on.",
    "The message says why; try again, or name another member.",
  ),
  sessions_full: row(
    35,
    429,
    true,
    "not-applied",
    "The group, or this connection, has as many sessions as it may have.",
    "Close some, or wait until idle ones expire.",
  ),
  request_ids_full: row(
    36,
    429,
    true,
    "not-applied",
    "The group remembers as many request ids as it may.",
    "Slow down, or write through a session.",
  ),
  backup_gone: row(
    61,
    410,
    false,
    "not-applied",
    "The backup is not open any more: nobody read it for too long, it kept the state from being written for too long, or the node started anew.",
    "Begin another one; where that ends so too, read faster, or from a node that has less to do.",
  ),
  group_exists: row(
    71,
    409,
    false,
    "not-applied",
    "There is, or was, a group with that id or name.",
    "Take another one, or let the cluster choose the id.",
  ),
  too_many_groups: row(
    72,
    409,
    false,
    "not-applied",
    "There are as many groups as there may be.",
    "Remove some.",
  ),
  no_registry: row(
    73,
    409,
    false,
    "not-applied",
    "The cluster has no registry of groups yet: it begins once every member runs a version that knows it.",
    "Look whom it waits for in `barge status`, and upgrade that node, or start it.",
  ),
  registry_behind: row(
    74,
    503,
    true,
    "not-applied",
    "This node has no such group and cannot tell whether there is one: it has just started or joined, or reaches no leader of the registry.",
    "Try again, or ask another node; the SDK does so by itself.",
  ),
  group_log_full: row(
    75,
    507,
    true,
    "not-applied",
    "The log of the group is at its bound, as something keeps it from being cut; other groups go on.",
    "Start the members that it waits for, or see in `barge status` why its state is not written; then try again.",
  ),
  group_elsewhere: row(
    78,
    421,
    true,
    "not-applied",
    "This node has no copy of the group.",
    "Ask one of its members, such as the one in the hint; the SDK does so by itself.",
  ),
  application_failed: row(
    86,
    502,
    true,
    "not-applied",
    "The application beside the node that was asked did not answer a read, or refused it; the message holds its words.",
    "Ask another node, or try again; where it lasts, look at that application, and at `barge status`.",
  ),
  wrong_machine: row(
    87,
    409,
    false,
    "not-applied",
    "The group has another state machine than the request is for.",
    "Keys and values go through /v1/kv to a group of the machine kv, everything for an application through /raft/update and /raft/read.",
  ),
  application_unavailable: row(
    81,
    503,
    true,
    "not-applied",
    "The application of this node does not answer, or is not ready.",
    "Ask another node; start the application: `barge status` says what it waits for.",
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

  /** What to do about errors of this code. */
  get todo(): string {
    return errorTable[this.code].todo;
  }

  constructor(code: ErrorCode, message: string, options: BargeErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.outcome = options.outcome ?? errorTable[code].outcome;
    this.retryable = errorTable[code].retryable;
    this.leaderHint = options.leaderHint;
  }
}

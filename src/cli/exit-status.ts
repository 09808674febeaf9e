/** What the process ends with, and how an error is told: one line on standard error, with `--json` also one document on standard output. */
import { CommanderError } from "commander";
import { UsageError } from "../config.ts";
import { BargeError, type ErrorCode } from "../errors.ts";
import { FatalError, fatalTable } from "../fatal.ts";

export const exitStatus = {
  ok: 0,
  /** The answer is no: key not found, compare failed. */
  no: 1,
  usage: 2,
  /** The cluster cannot be reached, or did not answer in time. */
  unreachable: 3,
  /** The write may have happened or not. */
  unknown: 4,
} as const;

/** What was to be checked does not hold: the answer is no. */
export class CheckFailed extends Error {
  override readonly name: string = "CheckFailed";
}

/** Errors that are an answer: no, as things stand. */
const noCodes: readonly ErrorCode[] = [
  "compacted",
  "unknown_member",
  "member_exists",
  "member_removed",
  "no_live_majority",
  "not_voter",
  "not_transferred",
  "unauthorised",
  "version_mismatch",
];

/** Errors that come from what was asked, not from the state of the cluster. */
const usageCodes: readonly ErrorCode[] = ["bad_request", "too_large", "unknown_group"];

export interface ReportOptions {
  /** Also one document on standard output. */
  readonly json: boolean;
  /** The command writes: tell whether it did. */
  readonly writes: boolean;
}

/** Tells the error and returns the exit status for it. */
export function reportError(error: unknown, { json, writes }: ReportOptions): number {
  // Commander has printed its own words, or the help that was asked for.
  if (error instanceof CommanderError)
    return error.exitCode === 0 ? exitStatus.ok : exitStatus.usage;
  // Nobody reads any more, as with `barge range | head`.
  if ((error as { readonly code?: unknown } | null)?.code === "EPIPE") return exitStatus.ok;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof BargeError) {
    const { code, outcome, retryable } = error;
    const sentence = message.endsWith(".") ? message : `${message}.`;
    const changed = writes ? ` ${outcomeWords[outcome]}` : "";
    process.stderr.write(`barge: ${code}: ${sentence}${changed}\n${hints[code] ?? ""}`);
    if (json) {
      const body = { error: { code, message, outcome, retryable } };
      process.stdout.write(`${JSON.stringify(body)}\n`);
    }
    return statusOf(error);
  }
  const reason = error instanceof FatalError ? `${error.reason}: ` : "";
  process.stderr.write(`barge: ${reason}${message}\n`);
  // Of a data folder or a backup: the statuses are those of a daemon, and 1 where what was checked does not hold.
  if (error instanceof FatalError) {
    if (json) printError(error.reason, message);
    return fatalTable[error.reason].status;
  }
  if (error instanceof CheckFailed) {
    if (json) printError("check_failed", message);
    return exitStatus.no;
  }
  return error instanceof UsageError ? exitStatus.usage : exitStatus.unreachable;
}

function printError(code: string, message: string): void {
  process.stdout.write(`${JSON.stringify({ error: { code, message } })}\n`);
}

const outcomeWords = {
  applied: "It was applied.",
  "not-applied": "Nothing was changed.",
  unknown: "It may have been applied or not.",
} as const;

/** What to try, where the message alone leaves a new user alone. */
const hints: Partial<Record<ErrorCode, string>> = {
  unreachable: "(barge serve runs a node here; --endpoints or BARGE_ENDPOINTS names others)\n",
};

function statusOf({ code, outcome }: BargeError): number {
  if (noCodes.includes(code)) return exitStatus.no;
  if (usageCodes.includes(code)) return exitStatus.usage;
  return outcome === "unknown" ? exitStatus.unknown : exitStatus.unreachable;
}

/**
 * Opening, keeping alive and closing sessions for clients of this node: each is one command of a `control` section that goes through the log like
 * any write, so that all members know of it at the same index [10].
 */
import { BargeError, type ErrorCode, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import { sessionsVersion } from "../machine/sessions.ts";
import type { SessionAnswer } from "../wire/admin.ts";
import { readSectionHeader, SectionKind } from "../wire/section.ts";
import { type SessionCommand, sessionCommandSection } from "../wire/session-commands.ts";
import type { Group } from "./group.ts";

interface Call<Answer> {
  readonly deadlineMs: number;
  answer(answer: Answer): void;
  fail(error: BargeError): void;
}

/** Nobody has an identity yet. */
const nobody = new Uint8Array(0);

/** Without a time that the client asks for, the usual one. */
export function openSession(
  group: Group,
  limits: Limits,
  ttlMs: number | undefined,
  call: Call<SessionAnswer>,
): void {
  const { sessionTtlMsMin, sessionTtlMsMax, sessionWindowSections, sessionWindowBytes } = limits;
  const wanted = ttlMs ?? limits.sessionTtlMs;
  if (wanted < sessionTtlMsMin || wanted > sessionTtlMsMax) {
    const text = `ttlMs must be from ${sessionTtlMsMin} to ${sessionTtlMsMax}.`;
    return call.fail(new BargeError("bad_request", text));
  }
  run(group, { op: "open", ttlMs: wanted, principal: nobody }, call, (session) => ({
    session,
    ttlMs: wanted,
    windowSections: sessionWindowSections,
    windowBytes: sessionWindowBytes,
  }));
}

export function useSession(
  group: Group,
  op: "keepAlive" | "close",
  session: number,
  call: Call<Record<never, never>>,
): void {
  run(group, { op, session }, call, () => ({}));
}

function run<Answer>(
  group: Group,
  command: SessionCommand,
  call: Call<Answer>,
  answerAt: (index: number) => Answer,
): void {
  const section = sessionCommandSection(command);
  group.write(section, readSectionHeader(section, 0)!, call.deadlineMs, {
    applied: (index) => call.answer(answerAt(index)),
    failed: (error) => {
      const isBehind = error.code === "version_mismatch" && command.op !== "open";
      call.fail(isBehind ? new BargeError("no_leader", errorTable.no_leader.help) : error);
    },
  });
}

/**
 * Why a section that is not plain is refused where the group has no sessions as far as this node knows. Where one names its session, others have
 * them: this node lags behind, or leads nobody any more, and another will know better.
 */
export function unservedCode(kind: SectionKind): ErrorCode {
  return kind === SectionKind.session ? "no_leader" : "version_mismatch";
}

/** There are no sessions and no request ids in a group at that apply version. */
export function sessionsProblem(applyVersion: number): BargeError {
  return new BargeError(
    "version_mismatch",
    `Sessions and request ids need apply version ${sessionsVersion}, and this group is at ${applyVersion}: it is raised once every member is there and runs a version that knows them.`,
  );
}

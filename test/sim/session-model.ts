/**
 * Sessions and request ids in a few lines: what has to become of a section, given those before it in the log. Results are not forgotten for their
 * size here: a simulated run never has so many.
 */
import type { ErrorCode } from "../../src/errors.ts";
import type { Limits } from "../../src/limits.ts";
import { type SectionHeader, SectionKind } from "../../src/wire/section.ts";
import type { SessionCommand } from "../../src/wire/session-commands.ts";

/** It runs; or it ran at an index, and its results of then are due; or it is refused. */
export type Verdict = "runs" | { readonly original: number } | { readonly code: ErrorCode };

interface Known {
  readonly firstSeq: number;
  readonly count: number;
  readonly crc: number;
  readonly index: number;
}

interface Session {
  readonly ttlMs: number;
  usedMs: number;
  next: number;
  /** All that is not confirmed, within the window. */
  kept: Known[];
}

export class SessionModel {
  readonly #limits: Limits;
  readonly #sessions = new Map<number, Session>();
  readonly #requests = new Map<string, Known & { readonly timeMs: number }>();

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  judge(header: SectionHeader, index: number, timeMs: number): Verdict {
    if (header.kind === SectionKind.keyed) return this.#request(header, index, timeMs);
    const session = this.#used(header.session, timeMs);
    if (session === undefined) return { code: "session_expired" };
    const { firstSeq, count, crc, doneUpTo } = header;
    session.kept = session.kept.filter((each) => each.firstSeq + each.count - 1 > doneUpTo);
    if (firstSeq > session.next) return { code: "sequence_gap" };
    if (firstSeq < session.next) {
      const same = session.kept.find((each) => each.firstSeq === firstSeq);
      if (same !== undefined) return again(same, header);
      const oldest = session.kept[0]?.firstSeq ?? session.next;
      return { code: firstSeq + count <= oldest ? "result_forgotten" : "session_mismatch" };
    }
    session.next += count;
    session.kept.push({ firstSeq, count, crc, index });
    if (session.kept.length > this.#limits.sessionWindowSections) session.kept.shift();
    return "runs";
  }

  control(command: SessionCommand, index: number, timeMs: number): Verdict {
    if (command.op === "open") {
      const { ttlMs } = command;
      for (const id of this.#sessions.keys()) this.#unlessIdle(id, timeMs);
      if (this.#sessions.size >= this.#limits.sessionsMax) return { code: "sessions_full" };
      this.#sessions.set(index, { ttlMs, usedMs: timeMs, next: 1, kept: [] });
    } else if (command.op === "close") this.#sessions.delete(command.session);
    else if (this.#used(command.session, timeMs) === undefined) return { code: "session_expired" };
    return "runs";
  }

  #request(header: SectionHeader, index: number, timeMs: number): Verdict {
    const { session, firstSeq, doneUpTo, count, crc } = header;
    const { requestIdTtlMs, requestIdsMax } = this.#limits;
    for (const [name, known] of this.#requests) {
      if (timeMs - known.timeMs > requestIdTtlMs) this.#requests.delete(name);
    }
    const name = `${session}/${firstSeq}/${doneUpTo}`;
    const known = this.#requests.get(name);
    if (known !== undefined) return again(known, header);
    if (this.#requests.size >= requestIdsMax) return { code: "request_ids_full" };
    this.#requests.set(name, { firstSeq, count, crc, index, timeMs });
    return "runs";
  }

  #used(id: number, timeMs: number): Session | undefined {
    const session = this.#unlessIdle(id, timeMs);
    if (session !== undefined) session.usedMs = timeMs;
    return session;
  }

  #unlessIdle(id: number, timeMs: number): Session | undefined {
    const session = this.#sessions.get(id);
    if (session === undefined || timeMs - session.usedMs <= session.ttlMs) return session;
    this.#sessions.delete(id);
    return undefined;
  }
}

function again({ count, crc, index }: Known, header: SectionHeader): Verdict {
  const isSame = count === header.count && crc === header.crc;
  return isSame ? { original: index } : { code: "session_mismatch" };
}

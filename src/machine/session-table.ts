/**
 * The sessions of one group: for each, what comes next, and the results that its client may ask for again [10]. A function of the log alone: bounds are
 * equal on all nodes, and time is cluster time, so that a session ends at the same command everywhere [5].
 *
 * Bounded: a session is never evicted, its opening is refused instead [11]. Results are forgotten, the oldest first: beyond a window of sections,
 * and of bytes, of which each session has a share that nobody can take from it.
 */
import type { Limits } from "../limits.ts";
import type { BytesReader, BytesWriter } from "./saved-bytes.ts";

/** A section that was applied. */
export interface AppliedSection {
  readonly firstSeq: number;
  readonly count: number;
  readonly crc: number;
  /** Log index of its first command. */
  readonly firstIndex: number;
  /** As in wire/section-results.ts; undefined once forgotten. */
  results: Uint8Array | undefined;
}

export interface Session {
  /** Log index of the entry that opened it. */
  readonly id: number;
  readonly ttlMs: number;
  /** Who may use it; "" until there are identities. */
  readonly principal: Uint8Array;
  /** Cluster time of the last section that named it. */
  lastMs: number;
  /** Number of the command that is due. */
  nextSeq: number;
  /** By rising number, the client has not confirmed any of them. */
  readonly window: AppliedSection[];
  resultBytes: number;
}

export type SessionLimits = Pick<
  Limits,
  | "sessionsMax"
  | "sessionTtlMsMin"
  | "sessionTtlMsMax"
  | "sessionSweepMs"
  | "sessionWindowSections"
  | "sessionWindowBytes"
  | "sessionResultBytesMax"
>;

const forgotten = 0xffff_ffff;

export class SessionTable {
  readonly #limits: SessionLimits;
  /** In the order in which they were opened. */
  readonly #sessions = new Map<number, Session>();
  #resultBytes = 0;
  /** Not before this cluster time are idle sessions looked for. */
  #sweepAtMs = 0;

  constructor(limits: SessionLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#sessions.size;
  }

  /** Results that are kept, in bytes. */
  get resultBytes(): number {
    return this.#resultBytes;
  }

  /** False where there are as many as there may be. */
  open(id: number, ttlMs: number, principal: Uint8Array, timeMs: number): boolean {
    const { sessionsMax, sessionTtlMsMin, sessionTtlMsMax } = this.#limits;
    if (this.#sessions.size >= sessionsMax) this.#dropIdle(timeMs);
    if (this.#sessions.size >= sessionsMax) return false;
    const bounded = Math.min(Math.max(ttlMs, sessionTtlMsMin), sessionTtlMsMax);
    this.#sweepAtMs = Math.min(this.#sweepAtMs, this.#sweepTime(timeMs, timeMs + bounded + 1));
    this.#sessions.set(id, {
      id,
      ttlMs: bounded,
      principal,
      lastMs: timeMs,
      nextSeq: 1,
      window: [],
      resultBytes: 0,
    });
    return true;
  }

  /** The session, used at that time; undefined where there is none any more. */
  use(id: number, timeMs: number): Session | undefined {
    const session = this.#sessions.get(id);
    if (session === undefined) return undefined;
    if (isIdle(session, timeMs)) {
      this.#drop(session);
      return undefined;
    }
    session.lastMs = timeMs;
    return session;
  }

  close(id: number): void {
    const session = this.#sessions.get(id);
    if (session !== undefined) this.#drop(session);
  }

  /** The client has the results up to there. */
  confirm(session: Session, doneUpTo: number): void {
    const { window } = session;
    while (window.length > 0 && window[0]!.firstSeq + window[0]!.count - 1 <= doneUpTo) {
      this.#forget(session, window.shift()!);
    }
  }

  /** The session's next section was applied. `results` is the table's to keep. */
  applied(session: Session, section: AppliedSection): void {
    const { sessionWindowSections } = this.#limits;
    session.nextSeq = section.firstSeq + section.count;
    session.window.push(section);
    if (session.window.length > sessionWindowSections) {
      this.#forget(session, session.window.shift()!);
    }
    const bytes = section.results?.byteLength ?? 0;
    if (bytes === 0) return;
    for (const older of session.window) {
      if (older === section || this.#hasRoom(session, bytes)) break;
      this.#forget(session, older);
    }
    if (this.#hasRoom(session, bytes)) {
      session.resultBytes += bytes;
      this.#resultBytes += bytes;
    } else section.results = undefined;
  }

  /** Of the window; undefined where it has none with that number. */
  find({ window }: Session, firstSeq: number): AppliedSection | undefined {
    return window.find((section) => section.firstSeq === firstSeq);
  }

  /** Once per batch, before its commands: drops what has been idle for too long. */
  sweep(timeMs: number): void {
    if (timeMs >= this.#sweepAtMs && this.#sessions.size > 0) this.#dropIdle(timeMs);
  }

  /** Its share is a session's own; beyond it, what nobody has taken yet. */
  #hasRoom({ resultBytes }: Session, bytes: number): boolean {
    const { sessionsMax, sessionWindowBytes, sessionResultBytesMax } = this.#limits;
    if (resultBytes + bytes > sessionWindowBytes) return false;
    const share = Math.floor(sessionResultBytesMax / sessionsMax);
    return resultBytes + bytes <= share || this.#resultBytes + bytes <= sessionResultBytesMax;
  }

  #dropIdle(timeMs: number): void {
    let nextMs = Infinity;
    for (const session of this.#sessions.values()) {
      if (isIdle(session, timeMs)) this.#drop(session);
      else nextMs = Math.min(nextMs, session.lastMs + session.ttlMs + 1);
    }
    this.#sweepAtMs = this.#sweepTime(timeMs, nextMs === Infinity ? 0 : nextMs);
  }

  /** When the first session can be idle, and not too soon after the last time. One that is used lives longer than was seen then. */
  #sweepTime(nowMs: number, firstIdleMs: number): number {
    const sweepMs = Math.max(nowMs + this.#limits.sessionSweepMs, firstIdleMs);
    // It is saved as a safe integer, also where the cluster's time has come to the end of those.
    return Math.min(sweepMs, Number.MAX_SAFE_INTEGER);
  }

  #drop(session: Session): void {
    this.#resultBytes -= session.resultBytes;
    this.#sessions.delete(session.id);
  }

  #forget(session: Session, section: AppliedSection): void {
    const bytes = section.results?.byteLength ?? 0;
    section.results = undefined;
    session.resultBytes -= bytes;
    this.#resultBytes -= bytes;
  }

  save(out: BytesWriter): void {
    out.safe(this.#sweepAtMs);
    out.u32(this.#sessions.size);
    for (const session of this.#sessions.values()) {
      out.safe(session.id);
      out.u32(session.ttlMs);
      out.u32(session.principal.byteLength);
      out.bytes(session.principal);
      out.safe(session.lastMs);
      out.safe(session.nextSeq);
      out.u32(session.window.length);
      for (const { firstSeq, count, crc, firstIndex, results } of session.window) {
        out.safe(firstSeq);
        out.u32(count);
        out.u32(crc);
        out.safe(firstIndex);
        out.u32(results === undefined ? forgotten : results.byteLength);
        if (results !== undefined) out.bytes(results);
      }
    }
  }

  load(saved: BytesReader): void {
    this.#sessions.clear();
    this.#resultBytes = 0;
    this.#sweepAtMs = saved.safe();
    for (let left = saved.u32(); left > 0; left--) {
      const id = saved.safe();
      const ttlMs = saved.u32();
      const principal = saved.bytes(saved.u32());
      const lastMs = saved.safe();
      const nextSeq = saved.safe();
      const window: AppliedSection[] = [];
      let resultBytes = 0;
      for (let sections = saved.u32(); sections > 0; sections--) {
        const section = readSection(saved);
        resultBytes += section.results?.byteLength ?? 0;
        window.push(section);
      }
      const session = { id, ttlMs, principal, lastMs, nextSeq, window, resultBytes };
      this.#sessions.set(id, session);
      this.#resultBytes += resultBytes;
    }
  }

  clear(): void {
    this.#sessions.clear();
    this.#resultBytes = 0;
    this.#sweepAtMs = 0;
  }
}

function readSection(saved: BytesReader): AppliedSection {
  const firstSeq = saved.safe();
  const count = saved.u32();
  const crc = saved.u32();
  const firstIndex = saved.safe();
  const length = saved.u32();
  const results = length === forgotten ? undefined : saved.bytes(length);
  return { firstSeq, count, crc, firstIndex, results };
}

function isIdle({ lastMs, ttlMs }: Session, timeMs: number): boolean {
  return timeMs - lastMs > ttlMs;
}

/**
 * The client's session: what makes each write happen at most once, in order, whatever becomes of connections, leaders and nodes [10, 11].
 *
 * Sections get their numbers when they are first sent, stay in the window until their fate is known, and are sent again, the same bytes,
 * whenever it is not: a copy that comes too late finds its result in the session's table. All copies travel on one connection at a time, in
 * order; when it is left for another, what is open goes again from the oldest on. A section whose callers gave up while a copy may be
 * on its way stays in the window and is sent again too, so that what comes behind it keeps its order.
 *
 * Only what no copy of can be applied any more gets other numbers, or goes over to a new session.
 */
import { BargeError } from "../errors.ts";
import type { Channel } from "./channel.ts";
import type { NodeLink } from "./node-link.ts";
import type { Settings } from "./options.ts";
import { type OpenedSession, SessionCall } from "./session-call.ts";
import { SessionWindow } from "./session-window.ts";
import {
  abandonedError,
  closedWhileSentError,
  graceMs,
  patienceAttemptsMax,
  pauseMs,
  plainMs,
  unansweredError,
  type WriteKeeper,
  type WriteRoutes,
} from "./write-keeper.ts";
import type { WriteSection } from "./write-section.ts";

/** What follows from a refusal or a silence, besides that what is open is sent again. */
interface Setback {
  /** The node to send to next is known. */
  readonly hinted?: boolean;
  /** The connection is of no use: another node is to be asked, and all that is open goes there. */
  readonly leave?: boolean;
}

/** Refusals that are followed at once to the node in the hint, before a pause. */
const hopsMax = 4;
const gapsMax = 4;

export class Session implements WriteKeeper {
  readonly #settings: Settings;
  readonly #routes: WriteRoutes;
  /** Sections that have no numbers yet. */
  #queue: WriteSection[] = [];
  /** The session, while there is one. */
  #window: SessionWindow | undefined;
  #opening: SessionCall | undefined;
  #plainUntilMs = Number.NEGATIVE_INFINITY;
  /** When the cluster first said that it serves none; undefined once it did. */
  #unservedMs: number | undefined;

  #channel: Channel | undefined;
  #inFlight = 0;
  #avoid: string | undefined;
  /** Something was refused or lost since what is open was last sent. */
  #isSetBack = false;
  #leaves = false;
  #notBeforeMs = 0;
  #hops = 0;
  #pauses = 0;
  /** How often in a row the oldest section was said to lack an earlier one. A connection may say so once, of what it saw before. */
  #gaps = 0;
  /** The last refusal since something was applied: why those that wait do. */
  #refusal: BargeError | undefined;
  /** The node says that there is no such session. */
  #expired = false;

  /** Sections whose fate became known. What is merely refused is no progress: it may be so because an older one has no answer. */
  #answers = 0;
  #answersAtSweep = 0;
  #progressMs = 0;
  #patienceMs: number;
  /** When the nodes last heard of the session. */
  #usedMs = 0;
  #closed = false;

  constructor(settings: Settings, routes: WriteRoutes) {
    this.#settings = settings;
    this.#routes = routes;
    this.#patienceMs = settings.attemptTimeoutMs;
  }

  /** Log index of the entry that opened it; undefined while there is none. */
  get id(): number | undefined {
    return this.#window?.id;
  }

  /** A section that comes now would have to wait for older ones. */
  get isCrowded(): boolean {
    return this.#queue.length > 0;
  }

  submit(section: WriteSection, nowMs: number): void {
    if (nowMs < this.#plainUntilMs) return this.#routes.submitPlain(section, nowMs);
    section.isKept = true;
    section.phase = "waiting";
    this.#queue.push(section);
    this.pump(nowMs);
  }

  /* ---------------------------------------------------------------- sending */

  /** Sends what can be sent, in order. */
  pump(nowMs: number): void {
    if (this.#closed || (this.#queue.length === 0 && this.#isSettled)) return;
    if (this.#expired || this.#window?.isBroken === true) this.#leaveSession();
    if (nowMs < this.#notBeforeMs) return;
    this.#isSetBack = false;
    const window = this.#window;
    if (window === undefined || (window.isEmpty && this.#isForgotten(window, nowMs))) {
      this.#window = undefined;
      return this.#open(nowMs);
    }
    this.#takeBack(window);
    const channel = this.#route(nowMs);
    if (channel === undefined) return;
    if (this.#inFlight === 0) this.#progressMs = nowMs;
    for (const section of window.sections) {
      // Behind one that was given up nothing can be applied.
      if (section.fate === "void") return;
      if (section.fate === "done" || section.channel !== undefined) continue;
      if (!this.#send(section, channel, nowMs)) return;
    }
    let sent = 0;
    while (sent < this.#queue.length && !window.isFull && channel.hasRoom) {
      const section = this.#queue[sent]!;
      window.place(section);
      sent++;
      if (!this.#send(section, channel, nowMs)) break;
    }
    if (sent > 0) this.#queue.splice(0, sent);
  }

  get #isSettled(): boolean {
    return this.#window === undefined || this.#window.isEmpty;
  }

  /** So long unused that the nodes surely know it no more: a new one costs less than to be told. */
  #isForgotten({ ttlMs }: SessionWindow, nowMs: number): boolean {
    return nowMs - this.#usedMs >= ttlMs;
  }

  #send(section: WriteSection, channel: Channel, nowMs: number): boolean {
    const { group, attemptTimeoutMs } = this.#settings;
    const leftMs = Math.ceil(section.deadlineMs - nowMs);
    if (!channel.send(section, group, leftMs > 0 ? leftMs : attemptTimeoutMs)) return false;
    section.channel = channel;
    section.copies++;
    section.sentMs = nowMs;
    if (section.phase !== "settled") section.phase = "sent";
    this.#inFlight++;
    this.#usedMs = nowMs;
    return true;
  }

  /** The connection to send on. While answers are due on one, another is gone over to only where that one is of no use any more. */
  #route(nowMs: number): Channel | undefined {
    const node = this.#routes.chooseForWrites(this.#avoid, nowMs);
    const current = this.#channel?.ready === true ? this.#channel : undefined;
    if (node === undefined) return undefined;
    if (current?.node === node) return current.hasRoom ? current : undefined;
    const next = node.channel();
    if (next === undefined) return undefined;
    if (current !== undefined && this.#inFlight > 0) {
      if (!this.#leaves && !current.quiet) return undefined;
      this.#detachAll();
    }
    this.#leaves = false;
    this.#channel = next;
    return next;
  }

  /** Gives up waiting for answers: copies may still arrive, so nobody knows. */
  #detachAll(): void {
    for (const section of this.#window?.sections ?? []) {
      if (section.channel === undefined) continue;
      section.maybeApplied = true;
      this.#detach(section);
    }
  }

  #detach(section: WriteSection): void {
    section.channel?.inFlight.sweep((other) => other === section);
    this.#landed(section);
  }

  /** It is not in flight any more. */
  #landed(section: WriteSection): void {
    if (section.channel === undefined) return;
    section.channel = undefined;
    this.#inFlight--;
    if (section.phase === "sent") section.phase = "waiting";
  }

  #takeBack(window: SessionWindow): void {
    const taken = window.takeBack();
    if (taken.length === 0) return;
    // Those whose callers have their answer are dropped with this.
    const wanted = taken.filter(({ phase }) => phase !== "settled");
    if (wanted.length > 0) this.#queue.unshift(...wanted);
  }

  /* ---------------------------------------------------------------- what becomes of sections */

  /** The commands were applied, by this copy or an earlier one. */
  applied(section: WriteSection): void {
    this.#answers++;
    this.#hops = 0;
    this.#pauses = 0;
    this.#gaps = 0;
    this.#refusal = undefined;
    this.#avoid = undefined;
    this.#leaves = false;
    this.#patienceMs = this.#settings.attemptTimeoutMs;
    this.#landed(section);
    const isForgotten = this.#window?.resolve(section) === true;
    const isReusable = isForgotten && section.copies === 1;
    if (section.phase !== "settled") this.#routes.settled(section, isReusable);
    this.#goOn();
  }

  /** This copy came to nothing, or has come to something that cannot be told. */
  refused(section: WriteSection, node: NodeLink, error: BargeError, nowMs: number): void {
    this.#landed(section);
    const { code, outcome } = error;
    if (outcome === "applied") return this.#end(section, error);
    // These say what follows from other sections' fate: the reason to give is theirs.
    if (code !== "sequence_gap" && code !== "session_expired") this.#refusal = error;
    section.refusal = this.#refusal;
    if (code === "session_expired") this.#expired = true;
    else if (outcome === "unknown") {
      section.maybeApplied = true;
      this.#setBack(node, {}, nowMs);
    } else if (code === "sequence_gap") {
      // With nothing open before it, what the nodes have is not what this client was told: that session is of no use.
      const isOldest = this.#window?.sections[0] === section;
      if (isOldest && ++this.#gaps >= gapsMax) this.#expired = true;
      this.#setBack(node, {}, nowMs);
    } else if (error.retryable) {
      const { leaderHint } = error;
      const hinted = leaderHint !== undefined && leaderHint !== node.endpoint;
      this.#setBack(node, { hinted, leave: code !== "overloaded" }, nowMs);
    } else if (code === "session_mismatch") {
      // Other bytes have its numbers, so none of its copies was applied: a bug, or somebody who knows the session's id.
      this.#expired = true;
      return this.#end(section, error);
    } else if (section.maybeApplied || code === "internal" || code === "version_mismatch") {
      // It says nothing of the earlier copies, or is the trouble of that node alone: one that lags may not know yet that there are sessions.
      this.#setBack(node, { leave: true }, nowMs);
    } else this.#giveUp(section, error);
    this.#goOn();
  }

  /** The connection is gone. `sent`: its bytes had left. */
  lost(section: WriteSection, node: NodeLink, sent: boolean, nowMs: number): void {
    this.#landed(section);
    if (sent) section.maybeApplied = true;
    this.#setBack(node, { leave: true }, nowMs);
  }

  /** Its fate is known, and it is an error. */
  #end(section: WriteSection, error: BargeError): void {
    this.#answers++;
    this.#window?.resolve(section);
    this.#tell(section, error);
    this.#goOn();
  }

  /** It will not be sent any more: no copy of it is left. */
  #giveUp(section: WriteSection, error: BargeError): void {
    section.fate = "void";
    this.#tell(section, error);
    if (this.#window !== undefined) this.#takeBack(this.#window);
  }

  #tell(section: WriteSection, error: BargeError): void {
    if (section.phase === "settled") return;
    section.fail(error);
    this.#routes.settled(section, false);
  }

  #setBack(node: NodeLink, setback: Setback, nowMs: number): void {
    if (setback.leave === true) {
      this.#avoid = node.endpoint;
      this.#leaves = true;
    }
    // Sections are refused in a row: that is one setback.
    if (this.#isSetBack) return;
    this.#isSetBack = true;
    this.#hops++;
    const mayHop = this.#hops <= (setback.hinted === true ? hopsMax : 1);
    this.#notBeforeMs = mayHop ? 0 : nowMs + pauseMs(this.#pauses++);
  }

  #goOn(): void {
    const wanted = this.#queue.length > 0 || this.#isSetBack || this.#expired;
    if (wanted || this.#window?.isBroken === true) this.#routes.pumpWanted();
  }

  /* ---------------------------------------------------------------- time, and callers that give up */

  sweep(nowMs: number): void {
    this.#expire(nowMs);
    const isHeard = this.#answers !== this.#answersAtSweep || this.#inFlight === 0;
    this.#answersAtSweep = this.#answers;
    if (isHeard || this.#channel?.isSending === true) this.#progressMs = nowMs;
    else if (nowMs - this.#progressMs >= this.#patienceMs) this.#stalled(nowMs);
    this.#keepAlive(nowMs);
  }

  /** No answers, though the node lives: its leader may be cut off. */
  #stalled(nowMs: number): void {
    const { attemptTimeoutMs } = this.#settings;
    this.#patienceMs = Math.min(this.#patienceMs * 2, attemptTimeoutMs * patienceAttemptsMax);
    const node = this.#channel?.node;
    this.#detachAll();
    if (node !== undefined) this.#setBack(node, { leave: true }, nowMs);
  }

  #expire(nowMs: number): void {
    if (this.#window?.isEmpty === false) this.#takeBack(this.#window);
    if (this.#queue.length > 0) this.#expireQueue(nowMs);
    for (const section of this.#window?.sections ?? []) {
      if (section.phase === "settled" || nowMs < section.deadlineMs) continue;
      if (section.channel === undefined && !section.maybeApplied) {
        section.fate = "void";
        this.#tell(section, this.#routes.expiredError(section));
      } else this.#tell(section, unansweredError(section));
    }
  }

  #expireQueue(nowMs: number): void {
    this.#queue = this.#queue.filter((section) => {
      if (section.phase === "settled") return false;
      if (nowMs < section.deadlineMs) return true;
      section.refusal ??= this.#refusal ?? this.#opening?.refusal;
      this.#tell(section, this.#routes.expiredError(section));
      return false;
    });
  }

  /** The caller gave up. */
  abandon(section: WriteSection, reason: unknown): void {
    const isQueued = this.#queue.includes(section);
    const maybe = !isQueued && (section.channel !== undefined || section.maybeApplied);
    if (!isQueued && !maybe) section.fate = "void";
    if (isQueued) this.#queue.splice(this.#queue.indexOf(section), 1);
    this.#tell(section, abandonedError(maybe, reason));
    this.#goOn();
  }

  /* ---------------------------------------------------------------- the life of the session */

  #open(nowMs: number): void {
    if (this.#opening !== undefined || this.#queue.length === 0) return;
    const { timeoutMs, attemptTimeoutMs, sessionTtlMs } = this.#settings;
    const call = new SessionCall(
      "sessionOpen",
      sessionTtlMs === undefined ? {} : { ttlMs: sessionTtlMs },
      (opened) => this.#opened(opened),
      (error) => this.#notOpened(error),
    );
    call.timeoutMs = timeoutMs;
    call.deadlineMs = nowMs + timeoutMs;
    // Each copy that arrives opens one, and a cluster that is slow must not be filled with sessions that nobody uses.
    call.attemptMs = Math.max(attemptTimeoutMs, Math.min(timeoutMs / 2, attemptTimeoutMs * 3));
    this.#opening = call;
    this.#routes.submit(call, nowMs);
  }

  #opened({ session, ttlMs, windowSections }: OpenedSession): void {
    this.#opening = undefined;
    if (this.#closed) return;
    this.#settings.logger.debug(`session ${session} opened`);
    this.#unservedMs = undefined;
    this.#plainUntilMs = Number.NEGATIVE_INFINITY;
    this.#window = new SessionWindow(session, ttlMs, windowSections);
    this.#usedMs = performance.now();
    this.#routes.pumpWanted();
  }

  #notOpened(error: BargeError): void {
    this.#opening = undefined;
    if (this.#closed) return;
    const nowMs = performance.now();
    const { code, message } = error;
    // A node that is older than sessions does not know the word.
    const isUnserved = code === "version_mismatch" || code === "bad_request";
    this.#unservedMs ??= nowMs;
    const mayBeServed = code === "version_mismatch" && nowMs - this.#unservedMs < graceMs;
    if (isUnserved && !mayBeServed && this.#settings.session === "preferred") {
      return this.#goPlain(message, nowMs);
    }
    const isFinal = !error.retryable && !mayBeServed;
    const refusal = new BargeError(code, message, { outcome: "not-applied", cause: error });
    for (const section of this.#queue) {
      section.refusal = refusal;
      if (isFinal) this.#tell(section, refusal);
    }
    if (isFinal) this.#queue = [];
    this.#notBeforeMs = nowMs + pauseMs(this.#pauses++);
  }

  /** There are no sessions, and the user would rather go without. */
  #goPlain(why: string, nowMs: number): void {
    // Once, not each time that it is asked again.
    if (this.#plainUntilMs === Number.NEGATIVE_INFINITY) {
      this.#settings.logger.warn(`writes go without a session: ${why}`);
    }
    this.#plainUntilMs = nowMs + plainMs;
    const queue = this.#queue;
    this.#queue = [];
    for (const section of queue) {
      if (section.phase !== "settled") this.#routes.submitPlain(section, nowMs);
    }
    this.#routes.pumpWanted();
  }

  /**
   * Goes over to a new session. What was surely not applied goes along; of the rest nobody can tell. In order as they are, once one is
   * surely not applied, none behind it is.
   */
  #leaveSession(): void {
    const window = this.#window;
    this.#window = undefined;
    const wasBroken = !this.#expired;
    this.#expired = false;
    this.#gaps = 0;
    if (window === undefined) return;
    let surelyNot = false;
    const again: WriteSection[] = [];
    for (const section of window.sections) {
      const maybe = section.channel !== undefined || section.maybeApplied;
      this.#detach(section);
      surelyNot ||= section.fate !== "done" && !maybe;
      if (section.phase === "settled") continue;
      if (surelyNot) again.push(section);
      else this.#tell(section, sessionLostError(section.refusal));
    }
    this.#queue.unshift(...again);
    this.#settings.logger.info(`session ${window.id} is ${wasBroken ? "given up" : "gone"}`);
    if (wasBroken) this.#sendClose(window.id);
  }

  /** A client that is in use keeps its session; one that is not lets it go, and opens another when it needs one. */
  #keepAlive(nowMs: number): void {
    const window = this.#window;
    if (window === undefined || nowMs - this.#usedMs < window.ttlMs / 3) return;
    if (this.#isForgotten(window, nowMs)) return;
    if (this.#routes.activeMs <= this.#usedMs) return;
    this.#usedMs = nowMs;
    const call = new SessionCall("sessionKeepAlive", { session: window.id }, () => {}, ignore);
    this.#submitOwn(call, nowMs);
  }

  #submitOwn(call: SessionCall, nowMs: number): void {
    call.timeoutMs = this.#settings.timeoutMs;
    call.deadlineMs = nowMs + call.timeoutMs;
    this.#routes.submit(call, nowMs);
  }

  #sendClose(session: number): void {
    const call = new SessionCall("sessionClose", { session }, () => {}, ignore);
    this.#submitOwn(call, performance.now());
  }

  /** Everybody who waits is told; the nodes are, too, without waiting for their answer. */
  close(error: BargeError): void {
    if (this.#closed) return;
    for (const section of this.#queue) this.#tell(section, error);
    for (const section of this.#window?.sections ?? []) {
      const maybe = section.channel !== undefined || section.maybeApplied;
      this.#tell(section, maybe ? closedWhileSentError() : error);
    }
    this.#queue = [];
    if (this.#window !== undefined) this.#sendClose(this.#window.id);
    this.#closed = true;
  }
}

function ignore(): void {}

function sessionLostError(cause: BargeError | undefined): BargeError {
  const text =
    "the session ended before the outcome was known; read back what it wrote before trying again";
  return new BargeError("session_expired", text, cause === undefined ? {} : { cause });
}

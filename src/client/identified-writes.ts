/**
 * Writes that each have an id of their own, for a client that writes a time or two: at most once as in a session, at the price of one entry in the
 * log instead of three, but in no order [12]. A section is sent again, the same bytes under the same id, until somebody says what came of it;
 * the nodes remember ids for ten minutes, and no call lasts that long.
 *
 * Only a node that knows request ids is sent one: an older build would take each copy for a write of its own.
 */
import { BargeError } from "../errors.ts";
import { SectionKind } from "../wire/section.ts";
import type { NodeLink } from "./node-link.ts";
import type { Settings } from "./options.ts";
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

export class IdentifiedWrites implements WriteKeeper {
  readonly id = undefined;
  readonly isCrowded = false;
  readonly #settings: Settings;
  readonly #routes: WriteRoutes;
  /** Those whose fate is open. */
  readonly #sections = new Set<WriteSection>();
  #plainUntilMs = Number.NEGATIVE_INFINITY;
  /** When the cluster first said that it knows no ids; undefined once it did. */
  #unservedMs: number | undefined;

  constructor(settings: Settings, routes: WriteRoutes) {
    this.#settings = settings;
    this.#routes = routes;
  }

  submit(section: WriteSection, nowMs: number): void {
    if (nowMs < this.#plainUntilMs) return this.#routes.submitPlain(section, nowMs);
    section.isKept = true;
    section.phase = "waiting";
    section.maybeApplied = false;
    section.copies = 0;
    const [session, firstSeq, doneUpTo] = drawId();
    section.seal({ kind: SectionKind.keyed, session, firstSeq, doneUpTo });
    this.#sections.add(section);
    this.#send(section, nowMs);
  }

  pump(nowMs: number): void {
    for (const section of this.#sections) {
      if (section.phase === "waiting" && nowMs >= section.notBeforeMs) this.#send(section, nowMs);
    }
  }

  #send(section: WriteSection, nowMs: number): void {
    const node = this.#routes.chooseForWrites(section.avoid, nowMs);
    const channel = node?.channel();
    if (channel === undefined) return;
    if (!channel.knowsSessions) {
      if (!section.maybeApplied) this.#goPlain(section, "it runs an older version", nowMs);
      return;
    }
    const { group } = this.#settings;
    const leftMs = Math.max(1, Math.ceil(section.deadlineMs - nowMs));
    const timeoutMs = Math.min(leftMs, this.#patienceMs(section.copies));
    if (!channel.send(section, group, timeoutMs)) return;
    section.channel = channel;
    section.copies++;
    section.sentMs = nowMs;
    section.phase = "sent";
  }

  /** Each copy has more time than the one before: where all is slow, more copies would make it slower. */
  #patienceMs(copies: number): number {
    return this.#settings.attemptTimeoutMs * Math.min(2 ** copies, patienceAttemptsMax);
  }

  /* ---------------------------------------------------------------- what becomes of them */

  applied(section: WriteSection): void {
    this.#unservedMs = undefined;
    this.#settled(section, section.copies === 1);
  }

  refused(section: WriteSection, node: NodeLink, error: BargeError, nowMs: number): void {
    section.channel = undefined;
    const { code, outcome, retryable } = error;
    if (outcome === "applied") return this.#fail(section, error);
    section.refusal = error;
    section.maybeApplied ||= outcome === "unknown";
    if (code === "version_mismatch") return this.#unserved(section, node, error, nowMs);
    if (retryable) return this.#again(section, code === "overloaded" ? undefined : node, nowMs);
    // It says nothing of the earlier copies.
    this.#fail(section, section.maybeApplied ? asUnknown(error) : error);
  }

  /** As far as that node knows there are no request ids: it may lag behind, or the group may be about to have them. */
  #unserved(section: WriteSection, node: NodeLink, error: BargeError, nowMs: number): void {
    this.#unservedMs ??= nowMs;
    const mayComeYet = nowMs - this.#unservedMs < graceMs;
    if (section.maybeApplied || mayComeYet) return this.#again(section, node, nowMs);
    this.#goPlain(section, error.message, nowMs);
  }

  lost(section: WriteSection, node: NodeLink, sent: boolean, nowMs: number): void {
    section.channel = undefined;
    section.maybeApplied ||= sent;
    this.#again(section, node, nowMs);
  }

  #again(section: WriteSection, avoid: NodeLink | undefined, nowMs: number): void {
    section.phase = "waiting";
    section.avoid = avoid?.endpoint;
    section.notBeforeMs = section.hops++ === 0 ? 0 : nowMs + pauseMs(section.pauses++);
    this.#routes.pumpWanted();
  }

  /** No copy of it can be applied. There are no ids, and the user would rather go without. */
  #goPlain(section: WriteSection, why: string, nowMs: number): void {
    if (this.#plainUntilMs === Number.NEGATIVE_INFINITY) {
      this.#settings.logger.warn(`writes go without an id: ${why}`);
    }
    this.#plainUntilMs = nowMs + plainMs;
    this.#sections.delete(section);
    this.#routes.submitPlain(section, nowMs);
  }

  #fail(section: WriteSection, error: BargeError): void {
    section.fail(error);
    this.#settled(section, false);
  }

  #settled(section: WriteSection, reusable: boolean): void {
    section.channel?.inFlight.sweep((other) => other === section);
    section.channel = undefined;
    this.#sections.delete(section);
    this.#routes.settled(section, reusable);
  }

  /* ---------------------------------------------------------------- time, and callers that give up */

  sweep(nowMs: number): void {
    for (const section of this.#sections) {
      const { channel, sentMs, copies } = section;
      if (nowMs >= section.deadlineMs) {
        const maybe = maybeApplied(section);
        this.#fail(section, maybe ? unansweredError(section) : this.#routes.expiredError(section));
      } else if (channel !== undefined && nowMs - sentMs >= this.#patienceMs(copies - 1)) {
        channel.inFlight.sweep((other) => other === section);
        this.lost(section, channel.node, true, nowMs);
      }
    }
  }

  abandon(section: WriteSection, reason: unknown): void {
    this.#fail(section, abandonedError(maybeApplied(section), reason));
  }

  close(error: BargeError): void {
    for (const section of this.#sections) {
      this.#fail(section, maybeApplied(section) ? closedWhileSentError() : error);
    }
  }
}

function maybeApplied(section: WriteSection): boolean {
  return section.channel !== undefined || section.maybeApplied;
}

function asUnknown({ code, message, leaderHint }: BargeError): BargeError {
  const hint = leaderHint === undefined ? {} : { leaderHint };
  return new BargeError(code, message, { outcome: "unknown", ...hint });
}

/** Three numbers of 53 bits, as the wire has room for: nobody draws the same. */
function drawId(): [number, number, number] {
  const bits = crypto.getRandomValues(new BigUint64Array(3));
  const part = (at: number): number => Number(BigInt.asUintN(53, bits[at]!));
  return [part(0), part(1), part(2)];
}

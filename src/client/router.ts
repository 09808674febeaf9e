/**
 * Where the requests of one group go: finds and follows its leader, sends again what may be sent again, gives up what ran out of time. Any node that
 * has the group takes any request, so a write goes to whatever such node is connected while the leader is being looked for. The nodes and the
 * connections to them are those of all groups that the client uses (nodes.ts).
 *
 * Writes have a keeper, which knows what to send again (write-keeper.ts): the session, or an id for each. Without one a write is sent again only when
 * a node refused it as not applied, or when not all of its bytes left this process; once sent, it is answered or fails as `unknown`. Reads and control
 * calls are sent again freely. All within the deadline of the call.
 */
import { BargeError, type ErrorCode, errorCodeOf } from "../errors.ts";
import type { ErrorReply, ServerReply } from "../wire/messages.ts";
import { ControlCall } from "./control-call.ts";
import { IdentifiedWrites } from "./identified-writes.ts";
import type { NodeLink } from "./node-link.ts";
import type { Nodes } from "./nodes.ts";
import type { Settings } from "./options.ts";
import type { Outgoing, Sender } from "./outgoing.ts";
import { Session } from "./session.ts";
import type { NodeStatus } from "../wire/status.ts";
import { SectionKind } from "../wire/section.ts";
import { graceMs, type WriteKeeper, type WriteRoutes } from "./write-keeper.ts";
import { WriteSection } from "./write-section.ts";

/** Refusals that are followed at once to the node in the hint, before a pause. */
const hopsMax = 4;
const pauseMsMin = 10;
const pauseMsMax = 100;
/** A node that is stopping or wounded is passed over for this long. */
const leavingMs = 1_000;
/** The leader may change without a refusal, since any node takes any request: ask now and then who it is. */
const leaderProbeMs = 1_000;
/** Having been told that there is no such group, believe it for so long; then it may have been made. */
const unknownAgainMs = 5_000;

export interface RouterEvents {
  /** Settled, well or not. `reusable`: answered, so its bytes are no longer needed by any connection. */
  settled(outgoing: Outgoing, reusable: boolean): void;
  /** A part of an answered request that must be asked again by itself. */
  leftOver(rest: Outgoing): void;
  /** Something may be sent now: `pump` is wanted at the end of this turn. */
  pumpWanted(): void;
}

const plain = { kind: SectionKind.plain, session: 0, firstSeq: 0, doneUpTo: 0 };

export class Router implements Sender, WriteRoutes {
  readonly #settings: Settings;
  readonly #group: number;
  readonly #nodes: Nodes;
  readonly #events: RouterEvents;
  /** Undefined where the user wants none: writes are sent once then. */
  readonly keeper: WriteKeeper | undefined;
  /** When a caller last asked for something. */
  activeMs = 0;
  #leader: string | undefined;
  /** Requests that wait for a connection or for the end of a pause, in order. */
  #waiting: Outgoing[] = [];
  #nextProbeMs = 0;
  #probe: ControlCall | undefined;
  #sentSinceProbe = false;
  /** When a node first said that there is no such group. */
  #unknownMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  /** `settings` name the group. */
  constructor(settings: Settings, nodes: Nodes, events: RouterEvents) {
    this.#settings = settings;
    this.#group = settings.group;
    this.#nodes = nodes;
    this.#events = events;
    this.keeper = this.#keeperOf(settings);
    this.learned();
  }

  #keeperOf(settings: Settings): WriteKeeper | undefined {
    if (settings.session === "off") return undefined;
    return settings.session === "request-ids"
      ? new IdentifiedWrites(settings, this)
      : new Session(settings, this);
  }

  get leader(): string | undefined {
    return this.#leader;
  }

  /** Sends it now, or when there is a way. Its bytes do not change any more. */
  submit(outgoing: Outgoing, nowMs: number): void {
    outgoing.sender = this;
    if (!outgoing.internal) this.activeMs = nowMs;
    if (outgoing instanceof WriteSection) {
      if (this.keeper === undefined) this.submitPlain(outgoing, nowMs);
      else this.keeper.submit(outgoing, nowMs);
      return;
    }
    this.#submit(outgoing, nowMs);
  }

  submitPlain(section: WriteSection, nowMs: number): void {
    section.isKept = false;
    section.seal(plain);
    this.#submit(section, nowMs);
  }

  #submit(outgoing: Outgoing, nowMs: number): void {
    outgoing.phase = "waiting";
    if (!this.#trySend(outgoing, nowMs)) this.#waiting.push(outgoing);
  }

  pumpWanted(): void {
    this.#events.pumpWanted();
  }

  /** The caller gave up: fails the request as not applied, or as unknown where it was sent. */
  abandon(outgoing: Outgoing, reason: unknown): void {
    if (outgoing.phase === "settled") return;
    if (isKept(outgoing)) return this.keeper!.abandon(outgoing, reason);
    const sent = outgoing.phase === "sent" && !outgoing.repeatable;
    const outcome = sent ? "unknown" : "not-applied";
    const when = sent ? "after it was sent" : "before anything was applied";
    this.#drop(outgoing);
    this.#fail(
      outgoing,
      new BargeError("aborted", `the caller gave up ${when}`, { outcome, cause: reason }),
    );
  }

  /** Time-outs and pauses that end: called each few milliseconds while anything is under way. */
  sweep(nowMs: number): void {
    this.keeper?.sweep(nowMs);
    this.pump(nowMs);
    if (!this.#sentSinceProbe || nowMs < this.#nextProbeMs || this.#probe !== undefined) return;
    this.#nextProbeMs = nowMs + leaderProbeMs;
    this.#sentSinceProbe = false;
    if (this.#isTold) this.#returnToLeader(nowMs);
    else this.#probeLeader(nowMs);
  }

  /** Some node says by itself who leads the group. */
  get #isTold(): boolean {
    return this.#nodes.list.some((node) => (this.#group === 0 ? node.tells : node.tellsGroups));
  }

  close(): void {
    this.keeper?.close(closedError());
    this.#closed = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const outgoing of waiting) this.#fail(outgoing, closedError());
  }

  /** What is in flight, as the connections are about to be closed over it: each has its answer before that. */
  closeInFlight(): void {
    for (const node of this.#nodes.list) {
      for (const channel of node.channels) {
        channel.inFlight.sweep((outgoing) => {
          if (outgoing.sender !== this) return false;
          if (!outgoing.internal) this.#failClosed(outgoing, node);
          return !outgoing.internal;
        });
      }
    }
  }

  #failClosed(outgoing: Outgoing, node: NodeLink): void {
    const error = outgoing.repeatable ? closedError() : lostError(node.endpoint, "closed here");
    this.#fail(outgoing, error);
  }

  /* ---------------------------------------------------------------- what connections say */

  /** The directory knows more of the group. */
  learned(): void {
    const endpoint = this.#toldLeader;
    if (endpoint !== undefined) this.#follow(endpoint);
  }

  /** By the directory's word. */
  get #toldLeader(): string | undefined {
    const leader = this.#nodes.directory.leaderOf(this.#group);
    return leader === 0 ? undefined : this.#nodes.endpointOf(leader);
  }

  /** There is no connection to the node any more, or it is no member any more. */
  nodeLost(node: NodeLink): void {
    if (this.#leader === node.endpoint) this.#leader = undefined;
    this.#failPinned(node);
  }

  lost(outgoing: Outgoing, node: NodeLink, reason: string, sent: boolean, nowMs: number): void {
    if (isKept(outgoing)) this.keeper!.lost(outgoing, node, sent, nowMs);
    else if (!sent || outgoing.repeatable) this.#again(outgoing, node, nowMs);
    else this.#fail(outgoing, lostError(node.endpoint, reason));
  }

  answered(outgoing: Outgoing, node: NodeLink, reply: ServerReply): boolean {
    if (reply.type === "errorReply") {
      this.#refused(node, outgoing, reply, performance.now());
    } else {
      if (!outgoing.accept(reply)) return false;
      for (const rest of outgoing.takeLeftovers()) this.#events.leftOver(rest);
      if (isKept(outgoing)) this.keeper!.applied(outgoing);
      else this.settled(outgoing, true);
    }
    // What waits for room on a connection, or has just been refused, goes with the next turn.
    if (this.#waiting.length > 0) this.#events.pumpWanted();
    return true;
  }

  /* ---------------------------------------------------------------- sending */

  /** Sends what waits and can be sent. */
  pump(nowMs: number): void {
    this.keeper?.pump(nowMs);
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    let kept: Outgoing[] | undefined;
    for (const outgoing of waiting) {
      if (outgoing.phase === "settled") continue;
      if (nowMs >= outgoing.deadlineMs) this.#expire(outgoing);
      else if (nowMs < outgoing.notBeforeMs || !this.#trySend(outgoing, nowMs)) {
        (kept ??= []).push(outgoing);
      }
    }
    // What was pushed meanwhile comes after.
    if (kept !== undefined) this.#waiting = kept.concat(this.#waiting);
  }

  #trySend(outgoing: Outgoing, nowMs: number): boolean {
    if (this.#closed) {
      this.#fail(outgoing, closedError());
      return true;
    }
    const node = this.#choose(outgoing, nowMs);
    const channel = node?.channel();
    if (channel === undefined) return false;
    const leftMs = Math.max(1, Math.ceil(outgoing.deadlineMs - nowMs));
    const timeoutMs = outgoing.repeatable ? Math.min(leftMs, this.#attemptMs(outgoing)) : leftMs;
    if (!channel.send(outgoing, this.#group, timeoutMs)) return false;
    outgoing.phase = "sent";
    outgoing.sentMs = nowMs;
    this.#sentSinceProbe = true;
    return true;
  }

  #attemptMs({ attemptMs }: Outgoing): number {
    return attemptMs ?? this.#settings.attemptTimeoutMs;
  }

  /** A node to send to now; undefined where none is ready, and then whatever helps is being dialled. */
  #choose(outgoing: Outgoing, nowMs: number): NodeLink | undefined {
    if (outgoing.endpoint !== undefined) return this.#chooseOne(outgoing.endpoint, nowMs);
    if (outgoing.local) return this.#chooseInOrder(outgoing, nowMs);
    return this.chooseForWrites(outgoing.avoid, nowMs);
  }

  chooseForWrites(avoid: string | undefined, nowMs: number): NodeLink | undefined {
    const group = this.#group;
    this.#sentSinceProbe = true;
    const leader = this.#nodes.find(this.#leader);
    if (leader !== undefined && leader.endpoint !== avoid) {
      if (leader.lively) return leader;
      leader.connect(nowMs);
    }
    let second: NodeLink | undefined;
    for (const node of this.#nodes.list) {
      if (!node.usable || node.retired) continue;
      const good = node.lively && nowMs >= node.passOverUntilMs && this.#nodes.serves(group, node);
      if (good && node.endpoint !== avoid) return node;
      second ??= node;
    }
    // Others may be better than one that has just refused, answers no ping or does not have the group.
    this.#nodes.dialMore(group, nowMs);
    return second;
  }

  #chooseOne(endpoint: string, nowMs: number): NodeLink | undefined {
    const node = this.#nodes.findOrAdd(endpoint);
    if (node === undefined || node.usable) return node;
    node.connect(nowMs);
    return undefined;
  }

  /** The first node that can be reached, in the order of the user's list, among those that have the group. */
  #chooseInOrder(outgoing: Outgoing, nowMs: number): NodeLink | undefined {
    const all = this.#nodes.list;
    const there = all.filter((node) => this.#nodes.serves(this.#group, node));
    const nodes = there.length === 0 ? all : there;
    for (const node of nodes) {
      if (node.usable && node.endpoint !== outgoing.avoid) return node;
      node.connect(nowMs);
      if (node.dialling && !node.slow(nowMs)) return undefined;
    }
    return nodes.find((node) => node.usable);
  }

  /* ---------------------------------------------------------------- sending again, giving up */

  #refused(node: NodeLink, outgoing: Outgoing, reply: ErrorReply, nowMs: number): void {
    const code = this.#codeOf(reply, nowMs);
    const leaderHint = reply.leaderHint === "" ? undefined : reply.leaderHint;
    const error = new BargeError(code, reply.message, {
      outcome: outgoing.repeatable ? "not-applied" : reply.outcome,
      ...(leaderHint === undefined ? {} : { leaderHint }),
    });
    const again = error.retryable && error.outcome === "not-applied" && outgoing !== this.#probe;
    if (again) this.#heed(node, error, nowMs);
    if (isKept(outgoing)) return this.keeper!.refused(outgoing, node, error, nowMs);
    if (!again) return this.#fail(outgoing, error);
    outgoing.refusal = error;
    if (code !== "overloaded") outgoing.avoid = node.endpoint;
    const hinted = leaderHint !== undefined && leaderHint !== node.endpoint;
    outgoing.hops++;
    if (hinted && outgoing.hops <= hopsMax) outgoing.notBeforeMs = 0;
    else this.#pause(outgoing, nowMs);
    outgoing.phase = "waiting";
    this.#waiting.push(outgoing);
  }

  /** A node that lags may not have heard yet of a group that another one has told of, or that has just been made. */
  #codeOf({ error }: ErrorReply, nowMs: number): ErrorCode {
    const code = errorCodeOf(error);
    if (code !== "unknown_group") return code;
    if (nowMs - this.#unknownMs > unknownAgainMs) this.#unknownMs = nowMs;
    const mayComeYet = nowMs - this.#unknownMs < graceMs;
    return mayComeYet || this.#nodes.directory.isListed(this.#group) ? "group_elsewhere" : code;
  }

  /** What a refusal says of the node and of the leader. */
  #heed(node: NodeLink, { code, leaderHint }: BargeError, nowMs: number): void {
    if (code === "shutting_down" || code === "wounded") node.passOverUntilMs = nowMs + leavingMs;
    const isElsewhere = code !== "overloaded" && code !== "sequence_gap";
    if (isElsewhere && this.#leader === node.endpoint) this.#leader = undefined;
    if (leaderHint !== undefined && leaderHint !== node.endpoint) this.#follow(leaderHint);
  }

  /** Not refused, merely not answered or not sent. */
  #again(outgoing: Outgoing, node: NodeLink, nowMs: number): void {
    if (this.#closed || outgoing === this.#probe) return this.#fail(outgoing, closedError());
    outgoing.avoid = node.endpoint;
    outgoing.phase = "waiting";
    outgoing.notBeforeMs = 0;
    // A node that accepts and drops connections must not make this spin.
    if (++outgoing.hops > 1) this.#pause(outgoing, nowMs);
    this.#waiting.push(outgoing);
  }

  #pause(outgoing: Outgoing, nowMs: number): void {
    outgoing.hops = 0;
    const longest = Math.min(pauseMsMax, pauseMsMin * 2 ** Math.min(outgoing.pauses++, 10));
    outgoing.notBeforeMs = nowMs + longest * (0.5 + Math.random() / 2);
  }

  overdue(outgoing: Outgoing, node: NodeLink, nowMs: number): boolean {
    if (isKept(outgoing)) return false;
    if (nowMs >= outgoing.deadlineMs) {
      // What it was refused for before says more than that nobody answered the last time.
      if (outgoing.repeatable && outgoing.refusal !== undefined) {
        this.#expire(outgoing);
        return true;
      }
      const outcome = outgoing.repeatable ? "not-applied" : "unknown";
      const text = `${node.endpoint} did not answer within ${outgoing.timeoutMs} ms`;
      this.#fail(outgoing, new BargeError("timeout", text, { outcome }));
      return true;
    }
    if (!outgoing.repeatable || nowMs - outgoing.sentMs < this.#attemptMs(outgoing)) {
      return false;
    }
    this.#again(outgoing, node, nowMs);
    return true;
  }

  /** Time ran out before it was sent, or after it was refused: either way it was not applied. */
  #expire(outgoing: Outgoing): void {
    this.#fail(outgoing, this.expiredError(outgoing));
  }

  expiredError(outgoing: Outgoing): BargeError {
    const cause = outgoing.refusal;
    const limit = `within ${outgoing.timeoutMs} ms`;
    if (cause !== undefined) {
      const text = `${cause.message} (tried again ${limit})`;
      const { code, leaderHint } = cause;
      const hint = leaderHint === undefined ? {} : { leaderHint };
      return new BargeError(code, text, { outcome: "not-applied", cause, ...hint });
    }
    const reasons = this.#nodes.list.flatMap((node) =>
      node.lastError === undefined ? [] : [`${node.endpoint}: ${node.lastError}`],
    );
    if (this.#nodes.list.some((node) => node.usable)) {
      const text = `not sent ${limit}`;
      return new BargeError("timeout", text, { outcome: "not-applied" });
    }
    const why = reasons.length === 0 ? "" : ` (${reasons.join("; ")})`;
    return new BargeError("unreachable", `no node answered ${limit}${why}`);
  }

  /** Calls for this very node do not wait for it to come back. */
  #failPinned(node: NodeLink): void {
    if (node.usable || node.dialling) return;
    for (const outgoing of this.#waiting) {
      if (outgoing.endpoint !== node.endpoint) continue;
      const text = `${node.endpoint}: ${node.lastError ?? "no connection"}`;
      this.#fail(outgoing, new BargeError("unreachable", text));
    }
  }

  #drop(outgoing: Outgoing): void {
    if (outgoing.phase !== "sent") return;
    for (const node of this.#nodes.list) {
      for (const channel of node.channels) {
        channel.inFlight.sweep((other) => other === outgoing);
      }
    }
  }

  #fail(outgoing: Outgoing, error: BargeError): void {
    if (outgoing.phase === "settled") return;
    outgoing.fail(error);
    this.settled(outgoing, false);
  }

  settled(outgoing: Outgoing, reusable: boolean): void {
    outgoing.phase = "settled";
    if (outgoing === this.#probe) this.#probe = undefined;
    else if (!outgoing.internal) this.#events.settled(outgoing, reusable);
  }

  /* ---------------------------------------------------------------- the leader */

  #follow(endpoint: string): void {
    if (this.#leader === endpoint || this.#nodes.findOrAdd(endpoint) === undefined) return;
    this.#leader = endpoint;
    const of = this.#group === 0 ? "" : ` of group ${this.#group}`;
    this.#settings.logger.debug(`leader${of} is ${endpoint}`);
  }

  /** It refused once, or its connection was lost, or a node that lags named an older one: where it still leads there is no news that would say so. */
  #returnToLeader(nowMs: number): void {
    const node = this.#nodes.find(this.#toldLeader);
    if (node === undefined || nowMs >= node.passOverUntilMs) this.learned();
  }

  /** Of a node that does not tell by itself. */
  #probeLeader(nowMs: number): void {
    const take = (body: unknown): void => {
      const groups = (body as NodeStatus | null)?.groups;
      if (!Array.isArray(groups)) return;
      const group = (groups as NodeStatus["groups"]).find(({ id }) => id === this.#group);
      if (group === undefined || !(group.leader > 0) || !Array.isArray(group.members)) return;
      // Members may all be replaced while one connection lives.
      this.#nodes.learn(Object.fromEntries(group.members.map(({ id, address }) => [id, address])));
      const endpoint = this.#nodes.endpointOf(group.leader);
      if (typeof endpoint === "string") this.#follow(endpoint);
    };
    const probe = new ControlCall("status", {}, undefined, take, () => {});
    probe.sender = this;
    this.#probe = probe;
    probe.timeoutMs = this.#settings.attemptTimeoutMs;
    probe.deadlineMs = nowMs + probe.timeoutMs;
    if (!this.#trySend(probe, nowMs)) this.#probe = undefined;
    this.#sentSinceProbe = false;
  }
}

function isKept(outgoing: Outgoing): outgoing is WriteSection {
  return outgoing instanceof WriteSection && outgoing.isKept;
}

export function closedError(): BargeError {
  return new BargeError("shutting_down", "this client is closed; make another with connect()");
}

function lostError(endpoint: string, reason: string): BargeError {
  return new BargeError(
    "outcome_unknown",
    `lost ${endpoint} after the write was sent (${reason}); read back what it wrote before trying again`,
  );
}

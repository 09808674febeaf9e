/**
 * Where requests go: finds and follows the leader, sends again what may be sent again, gives up what ran out of time. Any node takes any
 * request, so a write goes to whatever node is connected while the leader is being looked for.
 *
 * Writes have a keeper, which knows what to send again (write-keeper.ts): the session, or an id for each. Without one a write is sent again only when
 * a node refused it as not applied, or when not all of its bytes left this process; once sent, it is answered or fails as `unknown`. Reads and control
 * calls are sent again freely. All within the deadline of the call.
 */
import { BargeError, errorCodeOf } from "../errors.ts";
import { defaultLimits } from "../limits.ts";
import { parseAddress } from "../net/address.ts";
import type { Dial } from "../net/socket.ts";
import type { ErrorReply, HelloReply, Notice, ServerReply } from "../wire/messages.ts";
import { Channel, type ChannelEvents, type ChannelOptions } from "./channel.ts";
import { ControlCall } from "./control-call.ts";
import { IdentifiedWrites } from "./identified-writes.ts";
import { NodeLink } from "./node-link.ts";
import type { Settings } from "./options.ts";
import type { Outgoing } from "./outgoing.ts";
import { Session } from "./session.ts";
import type { NodeStatus } from "../wire/status.ts";
import { SectionKind } from "../wire/section.ts";
import type { WriteKeeper, WriteRoutes } from "./write-keeper.ts";
import { type SectionBounds, WriteSection } from "./write-section.ts";

/** Refusals that are followed at once to the node in the hint, before a pause. */
const hopsMax = 4;
const pauseMsMin = 10;
const pauseMsMax = 100;
/** A node that is stopping or wounded is passed over for this long. */
const leavingMs = 1_000;
/** The leader may change without a refusal, since any node takes any request: ask now and then who it is. */
const leaderProbeMs = 1_000;
/**
 * A connection stops reading above this much unsent. Never reached: little is laid out ahead, and a client that does not read while the
 * node waits to be read would stand still with it.
 */
const clientSendQueueBytesMax = 16 * 1024 * 1024;
/** Members that a node names beyond this are not learned. */
const nodesMax = 64;

export interface RouterEvents {
  /** Settled, well or not. `reusable`: answered, so its bytes are no longer needed by any connection. */
  settled(outgoing: Outgoing, reusable: boolean): void;
  /** A part of an answered request that must be asked again by itself. */
  leftOver(rest: Outgoing): void;
  /** Something may be sent now: `pump` is wanted at the end of this turn. */
  pumpWanted(): void;
}

const plain = { kind: SectionKind.plain, session: 0, firstSeq: 0, doneUpTo: 0 };

export class Router implements ChannelEvents, WriteRoutes {
  readonly #settings: Settings;
  readonly #bounds: SectionBounds;
  readonly #channelOptions: ChannelOptions;
  readonly #events: RouterEvents;
  readonly #nodes: NodeLink[] = [];
  /** Undefined where the user wants none: writes are sent once then. */
  readonly keeper: WriteKeeper | undefined;
  /** When a caller last asked for something. */
  activeMs = 0;
  #leader: string | undefined;
  /** What the newest notices were about. */
  #term = 0;
  #configurationIndex = 0;
  /** Requests that wait for a connection or for the end of a pause, in order. */
  #waiting: Outgoing[] = [];
  #nextProbeMs = 0;
  #probe: ControlCall | undefined;
  #sentSinceProbe = false;
  #closed = false;

  constructor(settings: Settings, bounds: SectionBounds, dial: Dial, events: RouterEvents) {
    this.#settings = settings;
    this.#bounds = bounds;
    const { attemptTimeoutMs } = settings;
    const limits = {
      ...defaultLimits,
      helloTimeoutMs: attemptTimeoutMs,
      sendQueueBytesMax: clientSendQueueBytesMax,
    };
    this.#channelOptions = { dial, limits, attemptTimeoutMs, events: this };
    this.#events = events;
    this.keeper = this.#keeperOf(settings);
    for (const endpoint of settings.endpoints) this.#nodes.push(this.#link(endpoint));
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

  get endpoints(): string[] {
    return this.#nodes.map((node) => node.endpoint);
  }

  /** Sends it now, or when there is a way. Its bytes do not change any more. */
  submit(outgoing: Outgoing, nowMs: number): void {
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

  /** Hands what was submitted to the sockets: once per turn. */
  flush(): void {
    for (const node of this.#nodes) node.flush();
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

  /** Time-outs, pauses that end, silent connections, dials: called each few milliseconds while anything is under way. */
  sweep(nowMs: number): void {
    for (const node of this.#nodes) node.sweep(nowMs);
    for (const node of this.#nodes) {
      for (const channel of node.channels) {
        channel.inFlight.sweep((outgoing) => this.#overdue(outgoing, node, nowMs));
      }
    }
    this.keeper?.sweep(nowMs);
    this.pump(nowMs);
    this.#dropRetired();
    const probeDue = this.#sentSinceProbe && nowMs >= this.#nextProbeMs;
    if (probeDue && this.#probe === undefined && !this.#nodes.some((node) => node.tells)) {
      this.#probeLeader(nowMs);
    }
    this.flush();
  }

  close(): void {
    this.keeper?.close(closedError());
    this.#closed = true;
    for (const node of this.#nodes) node.close();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const outgoing of waiting) this.#fail(outgoing, closedError());
  }

  /* ---------------------------------------------------------------- what connections say */

  ready(channel: Channel, hello: HelloReply): void {
    const node = channel.node;
    const nowMs = performance.now();
    node.connected(hello.nodeId);
    this.#bounds.frameBytesMax = hello.frameBytesMax;
    this.#bounds.sectionBytesMax = hello.sectionBytesMax;
    this.learn(hello.members);
    // Hello knows the leader of group 0 only.
    if (this.#settings.group === 0 && hello.leader !== 0) {
      const leader = this.#endpointOf(hello.leader, hello.members);
      if (this.#leader === undefined && leader !== undefined) this.#follow(leader);
    }
    this.#settings.logger.debug(`connected to node ${hello.nodeId} at ${node.endpoint}`);
    node.connect(nowMs);
    this.pump(nowMs);
    this.flush();
  }

  /** Nodes may be behind each other: only what is newer than all before counts. */
  noticed({ group, term, leader, configurationIndex, members }: Notice): void {
    if (group !== this.#settings.group) return;
    if (configurationIndex >= this.#configurationIndex) {
      this.#configurationIndex = configurationIndex;
      this.learn(members);
      this.#retireAllBut(members);
    }
    if (term < this.#term) return;
    this.#term = term;
    const endpoint = this.#endpointOf(leader, members);
    if (endpoint !== undefined) this.#follow(endpoint);
    this.#events.pumpWanted();
  }

  /** `unsent`: not all of their bytes left. `sent`: they did, and no answer came. */
  closed(
    channel: Channel,
    reason: string,
    unsent: readonly Outgoing[],
    sent: readonly Outgoing[],
  ): void {
    const nowMs = performance.now();
    const { node } = channel;
    node.disconnected(channel, reason, nowMs);
    if (this.#leader === node.endpoint && !node.usable) this.#leader = undefined;
    if (!this.#closed) this.#settings.logger.info(`lost ${node.endpoint}: ${reason}`);
    for (const outgoing of sent) {
      if (isKept(outgoing)) this.keeper!.lost(outgoing, node, true, nowMs);
      else if (outgoing.repeatable) this.#again(outgoing, node, nowMs);
      else this.#fail(outgoing, lostError(node.endpoint, reason));
    }
    for (const outgoing of unsent) {
      if (isKept(outgoing)) this.keeper!.lost(outgoing, node, false, nowMs);
      else this.#again(outgoing, node, nowMs);
    }
    this.#failPinned(node);
    this.pump(nowMs);
    this.flush();
  }

  /** False where the reply makes no sense: the connection is closed then. */
  answered(channel: Channel, outgoing: Outgoing, reply: ServerReply): boolean {
    if (reply.type === "errorReply") {
      this.#refused(channel.node, outgoing, reply, performance.now());
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
    if (!channel.send(outgoing, this.#settings.group, timeoutMs)) return false;
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
    const leader = this.#find(this.#leader);
    if (leader !== undefined && leader.endpoint !== avoid) {
      if (leader.lively) return leader;
      leader.connect(nowMs);
    }
    let second: NodeLink | undefined;
    for (const node of this.#nodes) {
      if (!node.usable || node.retired) continue;
      const good = node.lively && nowMs >= node.passOverUntilMs;
      if (good && node.endpoint !== avoid) return node;
      second ??= node;
    }
    // Others may be better than one that has just refused, or answers no ping.
    this.#dialMore(nowMs);
    return second;
  }

  #chooseOne(endpoint: string, nowMs: number): NodeLink | undefined {
    let node = this.#find(endpoint);
    if (node === undefined) {
      node = this.#link(endpoint);
      this.#nodes.push(node);
    }
    if (node.usable) return node;
    node.connect(nowMs);
    return undefined;
  }

  /** The first node that can be reached, in the order of the user's list. */
  #chooseInOrder(outgoing: Outgoing, nowMs: number): NodeLink | undefined {
    for (const node of this.#nodes) {
      if (node.usable && node.endpoint !== outgoing.avoid) return node;
      node.connect(nowMs);
      if (node.dialling && !node.slow(nowMs)) return undefined;
    }
    return this.#nodes.find((node) => node.usable);
  }

  /** Dials the next node unless one is being dialled that is not slow about it. */
  #dialMore(nowMs: number): void {
    if (this.#nodes.some((node) => node.dialling && !node.slow(nowMs))) return;
    for (const node of this.#nodes) {
      if (!node.retired && !node.usable && !node.dialling && node.connect(nowMs)) return;
    }
  }

  /* ---------------------------------------------------------------- sending again, giving up */

  #refused(node: NodeLink, outgoing: Outgoing, reply: ErrorReply, nowMs: number): void {
    const code = errorCodeOf(reply.error);
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

  /** True where the request in flight is over for this connection. */
  #overdue(outgoing: Outgoing, node: NodeLink, nowMs: number): boolean {
    if (isKept(outgoing)) return false;
    if (nowMs >= outgoing.deadlineMs) {
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
    const reasons = this.#nodes.flatMap((node) =>
      node.lastError === undefined ? [] : [`${node.endpoint}: ${node.lastError}`],
    );
    if (this.#nodes.some((node) => node.usable)) {
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
    for (const node of this.#nodes) {
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

  /* ---------------------------------------------------------------- nodes and the leader */

  #link(endpoint: string): NodeLink {
    const { connectionsPerNode, attemptTimeoutMs } = this.#settings;
    return new NodeLink(
      endpoint,
      connectionsPerNode,
      attemptTimeoutMs,
      (node, nowMs) => new Channel(node, this.#channelOptions, nowMs),
    );
  }

  #find(endpoint: string | undefined): NodeLink | undefined {
    if (endpoint === undefined) return undefined;
    return this.#nodes.find((node) => node.endpoint === endpoint);
  }

  #follow(endpoint: string): void {
    if (this.#leader === endpoint) return;
    if (this.#find(endpoint) === undefined) {
      if (this.#nodes.length >= nodesMax || parseAddress(endpoint) === undefined) return;
      this.#nodes.push(this.#link(endpoint));
    }
    this.#leader = endpoint;
    this.#settings.logger.debug(`leader is ${endpoint}`);
  }

  /** `members`: `host:port` by the ids of nodes, as one of them names them. */
  learn(members: Record<string, string>): void {
    for (const [id, endpoint] of Object.entries(members)) {
      // The same node may be reached by another name already.
      const known = this.#nodes.some(
        (node) => node.endpoint === endpoint || (node.nodeId === Number(id) && node.usable),
      );
      if (known || this.#nodes.length >= nodesMax || parseAddress(endpoint) === undefined) continue;
      this.#nodes.push(this.#link(endpoint));
    }
  }

  /** Those that the user named are tried again and again, members or not. */
  #retireAllBut(members: Record<string, string>): void {
    const endpoints = new Set([...Object.values(members), ...this.#settings.endpoints]);
    for (const node of this.#nodes) {
      node.retired = !endpoints.has(node.endpoint) && !(String(node.nodeId) in members);
    }
  }

  #dropRetired(): void {
    if (!this.#nodes.some(({ retired }) => retired)) return;
    const gone = this.#nodes.filter(({ retired, inFlight }) => retired && inFlight === 0);
    for (const node of gone) {
      this.#nodes.splice(this.#nodes.indexOf(node), 1);
      if (this.#leader === node.endpoint) this.#leader = undefined;
      node.close();
    }
  }

  #endpointOf(nodeId: number, members: Record<string, string>): string | undefined {
    const node = this.#nodes.find((each) => each.nodeId === nodeId && each.usable);
    return node?.endpoint ?? members[String(nodeId)];
  }

  #probeLeader(nowMs: number): void {
    this.#sentSinceProbe = false;
    this.#nextProbeMs = nowMs + leaderProbeMs;
    const take = (body: unknown): void => {
      const groups = (body as NodeStatus | null)?.groups;
      if (!Array.isArray(groups)) return;
      const group = (groups as NodeStatus["groups"]).find(({ id }) => id === this.#settings.group);
      if (group === undefined || !(group.leader > 0) || !Array.isArray(group.members)) return;
      // Members may all be replaced while one connection lives.
      this.learn(Object.fromEntries(group.members.map(({ id, address }) => [id, address])));
      const member = group.members.find(({ id }) => id === group.leader);
      const known = this.#nodes.find((each) => each.nodeId === group.leader);
      const endpoint = known?.endpoint ?? member?.address;
      if (typeof endpoint === "string") this.#follow(endpoint);
    };
    const probe = new ControlCall("status", undefined, take, () => {});
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

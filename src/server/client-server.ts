/**
 * The binary door for clients: requests in, replies out, on connections whose hello is done. A request costs one small waiter and never a
 * promise or a closure; its reply is encoded straight into the connection's send buffer and leaves with all others of the turn [39].
 *
 * Bounded: requests of one connection that wait, in number and in bytes (then its socket is not read), the size of sections and replies,
 * and by the connection itself the bytes that a client does not read. Answering is work and memory, so it has a budget per turn: reads
 * beyond it, and those of a client that does not take its replies, are held until there is time and room.
 *
 * More than the node can take is refused before it is decoded. While the sections that wait for their reply are over a bound, a connection and a group
 * with more than their share of them are told `overloaded` (section-shares.ts), and a connection that has no other group is not read until there is room:
 * refusing costs less than reading does.
 */
import { BargeError, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { CloseReason, Connection, ConnectionHandler } from "../net/connection.ts";
import type { Tallies } from "../telemetry/metrics.ts";
import type { AdminBody, SessionAnswer } from "../wire/admin.ts";
import {
  answerHeadBytes,
  decodeClientRequest,
  groupOfWrite,
  requestOf,
  encodeControlReply,
  encodeErrorReply,
  encodeWriteReply,
  queryHeadBytes,
  ReadReplyWriter,
} from "../wire/client-messages.ts";
import { frameHeaderBytes } from "../wire/frame.ts";
import { decodeFollowGroups, type FollowGroups } from "../wire/group-leaders.ts";
import { Feature } from "../wire/versions.ts";
import { isWatchFrame } from "../wire/watch-messages.ts";
import { ClientWatches } from "./client-watches.ts";
import { ConnectionSessions } from "./connection-sessions.ts";
import { GroupFollowers } from "./group-followers.ts";
import {
  Consistency,
  type ControlRequest,
  FrameType,
  type Notice,
  type ReadRequest,
  type WriteRequest,
} from "../wire/messages.ts";
import { encodeNotice } from "../wire/notice.ts";
import { checkStatusRequest } from "../wire/status-request.ts";
import { readSectionHeader, type SectionHeader, SectionKind } from "../wire/section.ts";
import { type GroupShare, type SectionShare, SectionShares } from "./section-shares.ts";
import { type LaterAnswer, LaterAnswers } from "./later-answers.ts";
import { SessionGaps } from "./session-gaps.ts";
import type {
  AdminWaiter,
  Groups,
  ReadSink,
  ReadSource,
  ReadWaiter,
  WriteWaiter,
} from "./groups.ts";

export interface ClientServerOptions {
  readonly groups: Groups;
  readonly limits: Limits;
  readonly tallies: Tallies;
  /** Asks for a turn, at whose end `flush` is called; may be called any number of times. */
  readonly wake: () => void;
}

/** Fields of a read reply and some room, when its answers are bounded by the longest frame. */
const replyOverheadBytes = 1_024;
/** Code of an answer that does not fit: machine.ResultCode.tooLarge, which the server may not import. */
const answerTooLarge = 4;
/** Queries between two looks at the clock. */
const queriesPerCheck = 64;

export class ClientServer {
  readonly #groups: Groups;
  readonly #limits: Limits;
  readonly #tallies: Tallies;
  readonly #wake: () => void;
  readonly #served = new Set<ServedConnection>();
  /** Connections with replies that have not been handed to their sockets. */
  #dirty: ServedConnection[] = [];
  /** Connections with requests that are held, in the order of their turns. */
  readonly #holding = new Set<ServedConnection>();
  /** Connections whose requests wait for the next turn. */
  #stalled: ServedConnection[] = [];
  /** Connections that were refused and are not read. */
  readonly #shedding = new Set<ServedConnection>();
  readonly #shares: SectionShares;
  readonly #followers: GroupFollowers<ServedConnection>;
  /** What is left for taking in, and for answering, in this turn of the loop. */
  #turnRequests: number;
  #turnRequestBytes: number;
  #turnMs: number;
  #turnBytes: number;
  /** The last change of members or leader; undefined while nobody was told of any. */
  #notice: Notice | undefined;
  #stopping = false;
  readonly replyWriter = new ReadReplyWriter();
  readonly answerBytesMax: number;
  readonly readRequestMsMax: number;

  constructor({ groups, limits, tallies, wake }: ClientServerOptions) {
    this.#groups = groups;
    this.#limits = limits;
    this.#tallies = tallies;
    this.#wake = wake;
    this.answerBytesMax = limits.frameBytesMax - frameHeaderBytes - replyOverheadBytes;
    this.readRequestMsMax = limits.readRequestMsMax;
    this.#shares = new SectionShares(limits.inboxBytesMax);
    this.#followers = new GroupFollowers({
      known: () => groups.known,
      hasRoom: (connection) => this.#queueHasRoom(connection),
      sent: (served) => this.sent(served),
    });
    this.#turnRequests = limits.requestsPerTurn;
    this.#turnRequestBytes = limits.requestBytesPerTurn;
    this.#turnMs = limits.readMsPerTurn;
    this.#turnBytes = limits.readBytesPerTurn;
  }

  /** Takes over a connection whose hello named a client and is answered. */
  accept(connection: Connection): void {
    const served = new ServedConnection(this, connection);
    connection.handler = served;
    this.#served.add(served);
    this.#tallies.clientConnections = this.#served.size;
    this.#tallies.clientConnectionsTotal++;
  }

  get connectionCount(): number {
    return this.#served.size;
  }

  /** Requests that await their reply, over all connections. */
  get waiting(): number {
    return this.#tallies.requestsWaiting;
  }

  /** The end of a turn: hands its replies to the sockets, and goes on with what was held. */
  flush(): void {
    this.#followers.flush();
    const dirty = this.#dirty;
    this.#dirty = [];
    for (const served of dirty) {
      served.dirty = false;
      served.connection.flush();
    }
    const { requestsPerTurn, requestBytesPerTurn, readMsPerTurn, readBytesPerTurn } = this.#limits;
    this.#turnRequests = requestsPerTurn;
    this.#turnRequestBytes = requestBytesPerTurn;
    this.#turnMs = readMsPerTurn;
    this.#turnBytes = readBytesPerTurn;
    if (this.#holding.size > 0) this.#answerHeld();
    if (this.#shedding.size > 0) this.#readShed();
    if (this.#stalled.length > 0) this.#readStalled();
  }

  /** Tells all clients that understand it; those that do not read, once they do. */
  tell(notice: Notice): void {
    this.#notice = notice;
    for (const served of this.#served) this.#sendNotice(served);
  }

  /** Another leads the group, its members are others, it has come or gone: who follows it hears so with the end of the turn. */
  groupChanged(group: number): void {
    this.#followers.changed(group);
  }

  #sendNotice(served: ServedConnection): void {
    const { connection } = served;
    if (this.#notice === undefined || (connection.agreed.features & Feature.notice) === 0) return;
    served.noticeDue = !this.#queueHasRoom(connection);
    if (served.noticeDue) return;
    encodeNotice(connection.out, this.#notice);
    this.sent(served);
  }

  /** From now on requests are refused; those that wait still get their reply. */
  stop(): void {
    this.#stopping = true;
  }

  /** Sends what is ready and closes every connection. */
  close(): void {
    this.stop();
    for (const served of this.#served) served.connection.close("closed here");
  }

  /* ---------------------------------------------------------------- requests, from their connection */

  request(served: ServedConnection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    this.#tallies.framesReceived++;
    this.#take(served, payload.byteLength);
    if (isWatchFrame(type)) return this.#watch(served, type, payload, fieldsBytes);
    if (type === FrameType.followGroups) return this.#follow(served, payload, fieldsBytes);
    if (type === FrameType.write && this.#shares.isFullFor(payload.byteLength)) {
      const group = groupOfWrite(payload, fieldsBytes) ?? 0;
      if (this.#shares.isTooMuch(served, group, payload.byteLength)) {
        return this.#shed(served, group, payload, fieldsBytes);
      }
    }
    const message = decodeClientRequest(type, payload, fieldsBytes);
    if (message === undefined) return served.connection.close("malformed message");
    if (message.type === "write") {
      this.#admit(served, 0);
      return this.#write(served, message);
    }
    this.#admit(served, payload.byteLength);
    if (message.type === "read") this.#read(served, message, payload.byteLength);
    else new HeldControl(this, served, message, payload.byteLength).resume();
  }

  #watch(served: ServedConnection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    served.watches ??= new ClientWatches({
      groups: this.#groups,
      limits: this.#limits,
      connection: served.connection,
      sent: () => this.sent(served),
    });
    const { watches } = served;
    if (!watches.frame(type, payload, fieldsBytes)) served.connection.close("malformed message");
  }

  #follow(served: ServedConnection, payload: Uint8Array, fieldsBytes: number): void {
    const groups = decodeFollowGroups(payload, fieldsBytes);
    if (groups === undefined) return served.connection.close("malformed message");
    this.#followers.follow(served, groups);
    this.#tallies.groupFollowers = this.#followers.size;
  }

  #write(served: ServedConnection, message: WriteRequest): void {
    const { group, section } = message;
    const share = this.#admitSection(served, group, section.byteLength);
    const waiter = new SectionWaiter(this, served, message, share);
    const header = readSectionHeader(message.section, 0);
    const refused =
      header === undefined
        ? new BargeError("bad_request", "The section is malformed.")
        : (this.#refusal() ??
          this.#checkSection(message.section, header) ??
          waiter.ofSession(header));
    if (refused !== undefined || header === undefined) return waiter.failed(refused!);
    this.#tallies.writeRequests++;
    this.#tallies.writeCommands += header.count;
    const timeoutMs = this.#timeoutMs(message.timeoutMs);
    this.#groups.write(message.group, message.section, header, timeoutMs, waiter);
  }

  #read(served: ServedConnection, message: ReadRequest, payloadBytes: number): void {
    const { queries, count } = message;
    const waiter = new QueriesWaiter(this, served, message, payloadBytes);
    const refused = this.#refusal() ?? this.#checkQueries(queries.byteLength, count);
    if (refused !== undefined) return waiter.failed(refused);
    this.#tallies.readRequests++;
    this.#tallies.readQueries += count;
    const { group, consistency, maxStalenessMs } = message;
    const timeoutMs = this.#timeoutMs(message.timeoutMs);
    this.#groups.read(group, consistency, maxStalenessMs, timeoutMs, waiter);
  }

  /** The status of this node; or administration, which may take a while. */
  control(served: ServedConnection, message: ControlRequest, payloadBytes: number): void {
    const { request, operation, body } = message;
    if (operation !== "status") {
      const waiter = new ControlWaiter(this, served, message, payloadBytes);
      const refused = this.#checkSessions(served, message);
      if (refused === undefined) this.#groups.admin(operation, body, waiter);
      else waiter.refused(refused);
      return;
    }
    this.settle(served, payloadBytes);
    const asked = checkStatusRequest(body);
    if ("problem" in asked) {
      return this.sendError(served, request, new BargeError("bad_request", asked.problem));
    }
    this.sendControl(served, request, this.#groups.status(asked));
  }

  #checkSessions(
    served: ServedConnection,
    { operation, body }: ControlRequest,
  ): BargeError | undefined {
    if (operation !== "sessionOpen") return undefined;
    const { connectionSessionsMax: max } = this.#limits;
    if (served.sessionsOf(groupIn(body), max).open(performance.now())) return undefined;
    const text = `This connection has opened ${max} sessions in the group that it has not closed, as many as one may have.`;
    return new BargeError("sessions_full", text);
  }

  get sessionsMax(): number {
    return this.#limits.connectionSessionsMax;
  }

  get sessionTtlMs(): number {
    return this.#limits.sessionTtlMs;
  }

  sendControl(served: ServedConnection, request: number, body: unknown): void {
    try {
      encodeControlReply(served.connection.out, request, body);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return this.sendError(served, request, new BargeError("too_large", error.message));
    }
    this.sent(served);
  }

  #refusal(): BargeError | undefined {
    return this.#stopping
      ? new BargeError("shutting_down", "This node is stopping; ask another.")
      : undefined;
  }

  #checkSection(section: Uint8Array, header: SectionHeader): BargeError | undefined {
    if (header.kind === SectionKind.control) {
      return new BargeError("bad_request", "A section of that kind is laid out by nodes alone.");
    }
    const { sectionBytesMax, sectionCommandsMax } = this.#limits;
    // One command alone may be larger: the machine's own bounds decide, and the frame's.
    if (section.byteLength > sectionBytesMax && header.count > 1) {
      return new BargeError("too_large", `A section may be at most ${sectionBytesMax} bytes.`);
    }
    if (header.count > sectionCommandsMax) {
      return new BargeError("too_large", `A section holds at most ${sectionCommandsMax} commands.`);
    }
    return undefined;
  }

  /** The same bounds as for writes: what one request may ask of a turn. */
  #checkQueries(bytes: number, count: number): BargeError | undefined {
    const { sectionBytesMax, sectionCommandsMax } = this.#limits;
    if (count === 1 || (count <= sectionCommandsMax && bytes <= sectionBytesMax)) return undefined;
    return new BargeError(
      "too_large",
      `A request may hold at most ${sectionCommandsMax} queries and ${sectionBytesMax} bytes of them.`,
    );
  }

  #timeoutMs(asked: number): number {
    const { requestTimeoutMs, requestTimeoutMsMax } = this.#limits;
    return asked === 0 ? requestTimeoutMs : Math.min(asked, requestTimeoutMsMax);
  }

  /* ---------------------------------------------------------------- replies, from the waiters */

  sendWritten(
    served: ServedConnection,
    request: number,
    firstIndex: number,
    results: Uint8Array,
  ): void {
    if (results.byteLength > this.#limits.resultBytesMax) {
      const error = new BargeError("result_too_large", `Applied at ${firstIndex}; ask for less.`);
      return this.sendError(served, request, error);
    }
    encodeWriteReply(served.connection.out, request, firstIndex, results);
    this.sent(served);
  }

  sendError(served: ServedConnection, request: number, error: BargeError): void {
    const { code, outcome, message, leaderHint } = error;
    this.#tallies.refuse(code);
    const { out } = served.connection;
    encodeErrorReply(out, request, errorTable[code].number, outcome, message, leaderHint ?? "");
    this.sent(served);
  }

  /** A reply lies in the send buffer. */
  sent(served: ServedConnection): void {
    this.#tallies.framesSent++;
    if (served.dirty) return;
    served.dirty = true;
    this.#dirty.push(served);
    if (this.#dirty.length === 1) this.#wake();
  }

  /* ---------------------------------------------------------------- more than can be taken */

  /** Counts a request against the turn's budget; behind the last one, the connection waits for the next turn. */
  #take(served: ServedConnection, bytes: number): void {
    this.#turnRequests--;
    this.#turnRequestBytes -= bytes;
    if ((this.#turnRequests > 0 && this.#turnRequestBytes > 0) || served.stalled) return;
    served.stalled = true;
    served.updatePause();
    this.#stalled.push(served);
    this.#wake();
  }

  #readStalled(): void {
    const stalled = this.#stalled;
    this.#stalled = [];
    for (const served of stalled) {
      served.stalled = false;
      served.updatePause();
      served.connection.flush();
    }
  }

  #shed(served: ServedConnection, group: number, payload: Uint8Array, fieldsBytes: number): void {
    const request = requestOf(payload, fieldsBytes);
    if (request === undefined) return served.connection.close("malformed message");
    const { number, outcome, help } = errorTable.overloaded;
    this.#tallies.refuse("overloaded");
    served.gaps.refusedFrame(payload, fieldsBytes);
    encodeErrorReply(served.connection.out, request, number, outcome, help, "");
    this.sent(served);
    // What it has of other groups must not wait for this one.
    if (!this.#shares.isAllOf(served, group)) return;
    served.shed = true;
    this.#shedding.add(served);
    served.updatePause();
  }

  /** Goes on reading where there is room again, with some to spare. */
  #readShed(): void {
    for (const served of this.#shedding) {
      if (!this.#shares.hasRoomFor(served)) continue;
      this.#shedding.delete(served);
      served.shed = false;
      served.updatePause();
      served.connection.flush();
    }
  }

  #admitSection(served: ServedConnection, group: number, bytes: number): GroupShare {
    const share = this.#shares.add(served, group, bytes);
    this.#tallies.writeBytesWaiting = this.#shares.bytes;
    return share;
  }

  settleSection(served: ServedConnection, share: GroupShare, bytes: number): void {
    this.#shares.remove(served, share, bytes);
    this.#tallies.writeBytesWaiting = this.#shares.bytes;
  }

  /* ---------------------------------------------------------------- what has to wait for time and room */

  /** True where the request is kept: this turn has done enough, or the client has replies to take first. */
  hold(served: ServedConnection, held: Held): boolean {
    const behind = served.held.length > 0 && !served.answeringHeld;
    if (!behind && this.#turnHasRoom && this.#queueHasRoom(served.connection)) return false;
    served.held.push(held);
    this.#holding.add(served);
    this.#wake();
    return true;
  }

  get #turnHasRoom(): boolean {
    return this.#turnMs > 0 && this.#turnBytes > 0;
  }

  #queueHasRoom(connection: Connection): boolean {
    return connection.sendQueueBytes <= this.#limits.sendQueueBytesMax;
  }

  /** Counts what an answer took against the turn's budget. */
  spent(milliseconds: number, bytes: number): void {
    this.#turnMs -= milliseconds;
    this.#turnBytes -= bytes;
  }

  /** Each connection in its turn, one request at a time: who asks for much delays himself. */
  #answerHeld(): void {
    // A connection that has more stands at the end again, and the iteration comes by there too.
    for (const served of this.#holding) {
      // Another turn, at once. Whose queue is full wakes us when it drains.
      if (!this.#turnHasRoom) return this.#wake();
      if (!this.#queueHasRoom(served.connection)) continue;
      this.#holding.delete(served);
      this.#answerNext(served);
      if (served.held.length > 0) this.#holding.add(served);
    }
  }

  #answerNext(served: ServedConnection): void {
    served.answeringHeld = true;
    served.held.shift()!.resume();
    served.answeringHeld = false;
  }

  /** Reads that were held: the index that they waited for is applied, so the state of this node is new enough. */
  readHeld(group: number, waiter: ReadWaiter): void {
    this.#groups.read(group, Consistency.local, 0, this.#limits.requestTimeoutMs, waiter);
  }

  drained(served: ServedConnection): void {
    if (served.noticeDue) this.#sendNotice(served);
    if (served.leadersDue) this.#followers.tellAll(served);
    if (served.held.length > 0) this.#wake();
  }

  /* ---------------------------------------------------------------- how many wait */

  #admit(served: ServedConnection, bytes: number): void {
    this.#tallies.requestsWaiting++;
    this.#tallies.requestBytesWaiting += bytes;
    served.waiting++;
    served.connection.requestBytes += bytes;
    const { connectionRequestsMax, connectionRequestBytesMax } = this.#limits;
    const full =
      served.waiting >= connectionRequestsMax ||
      served.connection.requestBytes >= connectionRequestBytesMax;
    if (!full || served.full) return;
    served.full = true;
    served.updatePause();
  }

  /** A request has its answer. False when nobody is there to read it. */
  settle(served: ServedConnection, bytes: number): boolean {
    if (served.gone) return false;
    this.#tallies.requestsWaiting--;
    this.#tallies.requestBytesWaiting -= bytes;
    served.waiting--;
    served.connection.requestBytes -= bytes;
    const { connectionRequestsMax, connectionRequestBytesMax } = this.#limits;
    const calm =
      served.waiting * 2 <= connectionRequestsMax &&
      served.connection.requestBytes * 2 <= connectionRequestBytesMax;
    if (served.full && calm) {
      served.full = false;
      served.updatePause();
    }
    return true;
  }

  forget(served: ServedConnection, reason: CloseReason): void {
    this.#served.delete(served);
    this.#tallies.clientConnections = this.#served.size;
    this.#tallies.requestsWaiting -= served.waiting;
    this.#tallies.requestBytesWaiting -= served.connection.requestBytes;
    this.#shares.removeAll(served);
    this.#tallies.writeBytesWaiting = this.#shares.bytes;
    this.#followers.forget(served);
    this.#tallies.groupFollowers = this.#followers.size;
    this.#holding.delete(served);
    this.#shedding.delete(served);
    served.held.length = 0;
    served.watches?.closeAll();
    if (reason !== "closed by the other side" && reason !== "closed here") {
      this.#tallies.clientConnectionsCut++;
    }
  }
}

/** A request that waits for time and room. */
interface Held {
  /** Answers now, or is held again. */
  resume(): void;
}

/** What the door keeps of one connection. */
class ServedConnection implements ConnectionHandler, SectionShare {
  readonly #server: ClientServer;
  readonly connection: Connection;
  waiting = 0;
  /** Bytes of sections that await their reply. */
  sectionBytes = 0;
  readonly groupShares = new Map<number, GroupShare>();
  lastGroup: GroupShare | undefined;
  /** Why it is not read: too much waits; it had its share of this turn; it was refused for want of room. */
  full = false;
  stalled = false;
  shed = false;
  #paused = false;
  dirty = false;
  /** It could not be told of the last change yet. */
  noticeDue = false;
  /** The groups that it wants to be told of. */
  follows: FollowGroups | undefined;
  leadersDue = false;
  /** Of the sessions that write here. */
  readonly gaps = new SessionGaps();
  readonly held: Held[] = [];
  /** By group, made with its first session. */
  readonly #sessions = new Map<number, ConnectionSessions>();
  /** Made with the first watch. */
  watches: ClientWatches | undefined;
  answeringHeld = false;
  /** Nobody is there any more: waiters say nothing. */
  gone = false;

  constructor(server: ClientServer, connection: Connection) {
    this.#server = server;
    this.connection = connection;
  }

  sessionsOf(group: number, max: number): ConnectionSessions {
    let sessions = this.#sessions.get(group);
    if (sessions === undefined) {
      sessions = new ConnectionSessions(max);
      this.#sessions.set(group, sessions);
    }
    return sessions;
  }

  /** Nothing is kept of groups without one: a client may name any number of them. */
  forgetSessions(body: unknown): void {
    const group = groupIn(body);
    if (this.#sessions.get(group)?.isEmpty === true) this.#sessions.delete(group);
  }

  frame(_connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    this.#server.request(this, type, payload, fieldsBytes);
  }

  closed(_connection: Connection, reason: CloseReason): void {
    this.gone = true;
    this.#server.forget(this, reason);
  }

  drained(): void {
    this.#server.drained(this);
  }

  updatePause(): void {
    const pause = this.full || this.stalled || this.shed;
    if (pause === this.#paused) return;
    this.#paused = pause;
    if (pause) this.connection.pause();
    else this.connection.resume();
  }
}

class SectionWaiter implements WriteWaiter {
  readonly #server: ClientServer;
  readonly #served: ServedConnection;
  readonly #request: number;
  readonly #bytes: number;
  readonly #share: GroupShare;
  /** Where it is one of a session: its place in there. */
  #session = 0;
  #firstSeq = 0;

  constructor(
    server: ClientServer,
    served: ServedConnection,
    message: WriteRequest,
    share: GroupShare,
  ) {
    this.#server = server;
    this.#served = served;
    this.#request = message.request;
    this.#bytes = message.section.byteLength;
    this.#share = share;
  }

  /** Why it may not enter the log: one before it was refused. Undefined where it may. */
  ofSession({ kind, session, firstSeq }: SectionHeader): BargeError | undefined {
    if (kind !== SectionKind.session) return undefined;
    this.#session = session;
    this.#firstSeq = firstSeq;
    if (this.#served.gaps.lets(this.#share.group, session, firstSeq)) return undefined;
    return new BargeError("sequence_gap", errorTable.sequence_gap.help);
  }

  applied(firstIndex: number, results: Uint8Array): void {
    if (!this.#settle()) return;
    this.#server.sendWritten(this.#served, this.#request, firstIndex, results);
  }

  failed(error: BargeError): void {
    if (!this.#settle()) return;
    if (this.#firstSeq > 0 && error.outcome === "not-applied" && error.retryable) {
      this.#served.gaps.refused(this.#share.group, this.#session, this.#firstSeq);
    }
    this.#server.sendError(this.#served, this.#request, error);
  }

  #settle(): boolean {
    if (!this.#server.settle(this.#served, 0)) return false;
    this.#server.settleSection(this.#served, this.#share, this.#bytes);
    return true;
  }
}

class QueriesWaiter implements ReadWaiter, ReadSink, Held {
  readonly #server: ClientServer;
  readonly #served: ServedConnection;
  readonly #message: ReadRequest;
  readonly #payloadBytes: number;
  /** Queries without an answer, the present one among them. */
  #left = 0;
  /** Bytes of answers that found no room. */
  #wasted = 0;

  constructor(
    server: ClientServer,
    served: ServedConnection,
    message: ReadRequest,
    payloadBytes: number,
  ) {
    this.#server = server;
    this.#served = served;
    this.#message = message;
    this.#payloadBytes = payloadBytes;
  }

  ready(source: ReadSource, appliedIndex: number): void {
    if (source.answersLater === true) return this.#askAll(source, appliedIndex);
    if (this.#served.gone || this.#server.hold(this.#served, this)) return;
    this.#server.settle(this.#served, this.#payloadBytes);
    const { replyWriter } = this.#server;
    const beginMs = performance.now();
    replyWriter.begin(this.#served.connection.out, this.#message.request, appliedIndex);
    this.#readAll(source, beginMs + this.#server.readRequestMsMax);
    this.#server.spent(performance.now() - beginMs, replyWriter.bodyBytes);
    replyWriter.end();
    this.#server.sent(this.#served);
  }

  /** It counts as waiting until the last answer is there. */
  #askAll(source: ReadSource, appliedIndex: number): void {
    if (this.#served.gone) return;
    const { queries, count } = this.#message;
    const room = this.#server.answerBytesMax - count * answerHeadBytes;
    const answers = new LaterAnswers(count, room, answerTooLarge, (all) =>
      this.#reply(all, appliedIndex),
    );
    const view = new DataView(queries.buffer, queries.byteOffset, queries.byteLength);
    let at = 0;
    for (let i = 0; i < count; i++) {
      const queryAt = at + queryHeadBytes;
      at = queryAt + view.getUint32(at, true);
      source.read(queries.subarray(queryAt, at), answers.sink(i));
    }
  }

  #reply(answers: readonly LaterAnswer[], appliedIndex: number): void {
    if (!this.#server.settle(this.#served, this.#payloadBytes)) return;
    const { replyWriter } = this.#server;
    replyWriter.begin(this.#served.connection.out, this.#message.request, appliedIndex);
    for (const { code, bytes } of answers) replyWriter.answer(code, bytes);
    replyWriter.end();
    this.#server.sent(this.#served);
  }

  /** The first query is always read; those for which no time is left, or long no room, are answered as too large unread. */
  #readAll(source: ReadSource, untilMs: number): void {
    const { queries, count } = this.#message;
    const view = new DataView(queries.buffer, queries.byteOffset, queries.byteLength);
    let at = 0;
    let late = false;
    for (let i = 0; i < count; i++) {
      this.#left = count - i;
      const queryAt = at + queryHeadBytes;
      at = queryAt + view.getUint32(at, true);
      if (i > 0 && i % queriesPerCheck === 0) late ||= performance.now() > untilMs;
      late ||= this.#wasted > this.#server.answerBytesMax;
      if (late) this.#server.replyWriter.answer(answerTooLarge, undefined);
      else source.read(queries.subarray(queryAt, at), this);
    }
  }

  /** An answer that does not fit the frame any more is answered as too large; asked alone it fits. */
  answer(code: number, bytes: Uint8Array | undefined): void {
    const { replyWriter, answerBytesMax } = this.#server;
    const size = bytes === undefined ? 0 : bytes.byteLength;
    const end = replyWriter.bodyBytes + size + this.#left * answerHeadBytes;
    if (end <= answerBytesMax) return replyWriter.answer(code, bytes);
    this.#wasted += size;
    replyWriter.answer(answerTooLarge, undefined);
  }

  resume(): void {
    this.#server.readHeld(this.#message.group, this);
  }

  failed(error: BargeError): void {
    if (!this.#server.settle(this.#served, this.#payloadBytes)) return;
    this.#server.sendError(this.#served, this.#message.request, error);
  }
}

class HeldControl implements Held {
  readonly #server: ClientServer;
  readonly #served: ServedConnection;
  readonly #message: ControlRequest;
  readonly #payloadBytes: number;

  constructor(
    server: ClientServer,
    served: ServedConnection,
    message: ControlRequest,
    payloadBytes: number,
  ) {
    this.#server = server;
    this.#served = served;
    this.#message = message;
    this.#payloadBytes = payloadBytes;
  }

  resume(): void {
    if (this.#served.gone || this.#server.hold(this.#served, this)) return;
    const beginMs = performance.now();
    this.#server.control(this.#served, this.#message, this.#payloadBytes);
    this.#server.spent(performance.now() - beginMs, 0);
  }
}

class ControlWaiter implements AdminWaiter {
  readonly #server: ClientServer;
  readonly #served: ServedConnection;
  readonly #message: ControlRequest;
  readonly #payloadBytes: number;

  constructor(
    server: ClientServer,
    served: ServedConnection,
    message: ControlRequest,
    payloadBytes: number,
  ) {
    this.#server = server;
    this.#served = served;
    this.#message = message;
    this.#payloadBytes = payloadBytes;
  }

  answered(body: unknown): void {
    const { operation, body: asked } = this.#message;
    if (operation === "sessionOpen") {
      const { session, ttlMs } = body as SessionAnswer;
      this.#sessions.opened(session, ttlMs, performance.now());
    } else if (operation === "sessionClose") {
      this.#sessions.closed((asked as AdminBody<"sessionClose">).session);
    }
    this.#served.forgetSessions(this.#message.body);
    if (!this.#server.settle(this.#served, this.#payloadBytes)) return;
    this.#server.sendControl(this.#served, this.#message.request, body);
  }

  failed(error: BargeError): void {
    if (this.#message.operation === "sessionOpen") {
      const maybe = error.outcome !== "not-applied";
      this.#sessions.failed(maybe, this.#server.sessionTtlMs, performance.now());
    }
    this.#served.forgetSessions(this.#message.body);
    this.refused(error);
  }

  refused(error: BargeError): void {
    if (!this.#server.settle(this.#served, this.#payloadBytes)) return;
    this.#server.sendError(this.#served, this.#message.request, error);
  }

  get #sessions(): ConnectionSessions {
    return this.#served.sessionsOf(groupIn(this.#message.body), this.#server.sessionsMax);
  }
}

/** The group that the body of a request of administration names; 0 where it names none, or is none. */
function groupIn(body: unknown): number {
  const group = (body as { readonly group?: unknown } | null | undefined)?.group;
  return typeof group === "number" ? group : 0;
}

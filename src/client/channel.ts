/**
 * One connection to a node, from the dial to its end: hello, then requests and their answers by id. Anything that is not a
 * well-formed answer ends the connection.
 */
import type { Limits } from "../limits.ts";
import { parseAddress } from "../net/address.ts";
import type { CloseReason, Connection, ConnectionHandler } from "../net/connection.ts";
import type { ByteSocket, Dial } from "../net/socket.ts";
import { decodeServerReply } from "../wire/client-messages.ts";
import {
  decodeGroupLeaders,
  encodeFollowGroups,
  type GroupLeaders,
} from "../wire/group-leaders.ts";
import { FrameType, type HelloReply, type Notice, type ServerReply } from "../wire/messages.ts";
import { decodeNotice } from "../wire/notice.ts";
import { Feature, featuresKnown } from "../wire/versions.ts";
import { greet, readGreeting } from "./greeting.ts";
import { InFlight } from "./in-flight.ts";
import type { NodeLink } from "./node-link.ts";
import type { Interest } from "./nodes.ts";
import type { Outgoing } from "./outgoing.ts";

export interface ChannelOptions {
  readonly dial: Dial;
  readonly limits: Limits;
  /** To connect and be greeted; and how long the node may be silent afterwards, though it is pinged. */
  readonly attemptTimeoutMs: number;
  readonly events: ChannelEvents;
}

export interface ChannelEvents {
  ready(channel: Channel, hello: HelloReply): void;
  /** Once. `sent`: their bytes left this process, and no answer came. `unsent`: not all of their bytes did. */
  closed(
    channel: Channel,
    reason: string,
    unsent: readonly Outgoing[],
    sent: readonly Outgoing[],
  ): void;
  /** Members or leader have changed. */
  noticed(notice: Notice): void;
  /** Who leads the groups that were asked for. */
  told(leaders: GroupLeaders): void;
  /** False where the answer makes no sense for that request. */
  answered(channel: Channel, outgoing: Outgoing, reply: ServerReply): boolean;
}

/** Unsent bytes from which on requests wait in the router instead, where they can still go elsewhere. */
const unsentBytesMax = 1024 * 1024;
/** One sweep counts at most this much as silence. */
const stepMsMax = 100;
/** For people who look at the server's connections. */
const software = "barge-client/0.1.0";

export class Channel implements ConnectionHandler {
  readonly node: NodeLink;
  readonly inFlight = new InFlight();
  /** It was asked to tell of groups. */
  isFollowing = false;
  readonly #options: ChannelOptions;
  readonly #dialledMs: number;
  #state: "opening" | "ready" | "closed" = "opening";
  #connection: Connection | undefined;
  #refusal: string | undefined;
  /** For how long nothing came, counted by sweeps, so that a pause of this process or slow sweeps when idle do not count. */
  #quietMs = 0;
  #sweptMs = Number.NaN;
  #receivedAtSweep = 0;
  #sentAtSweep = 0;
  #isSending = false;

  constructor(node: NodeLink, options: ChannelOptions, nowMs: number) {
    this.node = node;
    this.#options = options;
    this.#dialledMs = nowMs;
    const address = parseAddress(node.endpoint);
    if (address === undefined) throw new Error(`"${node.endpoint}" is not host:port`);
    options.dial(address, {
      open: (socket) => this.#opened(socket),
      failed: (message) => this.#finish(message),
    });
  }

  get ready(): boolean {
    return this.#state === "ready";
  }

  /** The node tells of changes by itself. */
  get tells(): boolean {
    const features = this.#connection?.agreed.features ?? 0;
    return this.ready && (features & Feature.notice) !== 0;
  }

  /** The same of groups besides group 0, once it was asked to. */
  get tellsGroups(): boolean {
    const features = this.#connection?.agreed.features ?? 0;
    return this.ready && (features & Feature.groups) !== 0;
  }

  /** Sections of sessions, and those with an id, are what they are there: to an older build all are plain. */
  get knowsSessions(): boolean {
    return ((this.#connection?.agreed.features ?? 0) & Feature.sessions) !== 0;
  }

  get hasRoom(): boolean {
    return (this.#connection?.sendQueueBytes ?? unsentBytesMax) < unsentBytesMax;
  }

  /** Answers no ping: it may be stopped, though its connection is not given up yet. Better ask another, if there is one. */
  get quiet(): boolean {
    return this.#quietMs >= this.#options.attemptTimeoutMs / 2;
  }

  /** Much is still being sent, and the node takes it: no wonder that it does not answer yet. */
  get isSending(): boolean {
    return this.#isSending;
  }

  /** Lays the request out; `flush` sends it. False, with nothing done, when too many are in flight. */
  send(outgoing: Outgoing, group: number, timeoutMs: number): boolean {
    const connection = this.#connection;
    if (connection === undefined || this.#state !== "ready") return false;
    const request = this.inFlight.add(outgoing);
    if (request === 0) return false;
    outgoing.encode(connection.out, { request, group, timeoutMs });
    outgoing.endsAt = connection.figures.bytesSent + connection.out.byteLength;
    return true;
  }

  /** The node is to tell of these groups from now on, where it can. */
  follow(groups: Interest): void {
    if (this.#connection === undefined || !this.tellsGroups) return;
    this.isFollowing = true;
    encodeFollowGroups(this.#connection.out, groups);
    this.#connection.flush();
  }

  flush(): void {
    if (this.#connection !== undefined && this.#connection.sendQueueBytes > 0) {
      this.#connection.flush();
    }
  }

  /** Coarse time-outs and pings. */
  sweep(nowMs: number): void {
    if (this.#connection !== undefined) {
      const { bytesReceived, bytesSent, sendQueueBytes } = this.#connection.figures;
      this.#isSending = sendQueueBytes > 0 && bytesSent !== this.#sentAtSweep;
      this.#sentAtSweep = bytesSent;
      const stepMs = Math.min(nowMs - this.#sweptMs, stepMsMax) || 0;
      this.#quietMs = bytesReceived === this.#receivedAtSweep ? this.#quietMs + stepMs : 0;
      this.#receivedAtSweep = bytesReceived;
      this.#sweptMs = nowMs;
      return this.#connection.checkTimeouts(nowMs);
    }
    if (nowMs - this.#dialledMs >= this.#options.attemptTimeoutMs)
      this.#finish("no connection in time");
  }

  close(): void {
    if (this.#connection === undefined) this.#finish("closed here");
    else this.#connection.close("closed here");
  }

  frame(connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    if (this.#state === "opening") return this.#greeted(connection, type, payload, fieldsBytes);
    if (type === FrameType.notice) {
      const notice = decodeNotice(payload, fieldsBytes);
      if (notice === undefined) return connection.close("malformed message");
      return this.#options.events.noticed(notice);
    }
    if (type === FrameType.groupLeaders) {
      const leaders = decodeGroupLeaders(payload, fieldsBytes);
      if (leaders === undefined) return connection.close("malformed message");
      return this.#options.events.told(leaders);
    }
    const reply = decodeServerReply(type, payload, fieldsBytes);
    if (reply === undefined) return connection.close("malformed message");
    const outgoing = this.inFlight.get(reply.request);
    // It was given up here, and the answer came too late.
    if (outgoing === undefined) return;
    if (!this.#options.events.answered(this, outgoing, reply)) {
      return connection.close("malformed message");
    }
    this.inFlight.remove(reply.request);
  }

  closed(_connection: Connection, reason: CloseReason): void {
    this.#finish(this.#refusal ?? reason);
  }

  #opened(socket: ByteSocket): Connection | undefined {
    // Given up meanwhile.
    if (this.#state === "closed") return undefined;
    const { limits, attemptTimeoutMs } = this.#options;
    const connection = greet(socket, {
      limits,
      handler: this,
      attemptTimeoutMs,
      features: featuresKnown,
      software,
    });
    this.#connection = connection;
    connection.flush();
    return connection;
  }

  #greeted(connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    const refused = (why: string): void => void (this.#refusal = why);
    const hello = readGreeting(connection, type, payload, fieldsBytes, refused);
    if (hello === undefined) return;
    connection.expect("client");
    connection.agreed = { version: hello.version, features: hello.features & featuresKnown };
    this.#state = "ready";
    this.#options.events.ready(this, hello);
  }

  #finish(reason: string): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    const bytesSent = this.#connection?.figures.bytesSent ?? 0;
    const sent: Outgoing[] = [];
    const unsent: Outgoing[] = [];
    for (const outgoing of this.inFlight.takeAll()) {
      (outgoing.endsAt <= bytesSent ? sent : unsent).push(outgoing);
    }
    this.#options.events.closed(this, reason, unsent, sent);
  }
}

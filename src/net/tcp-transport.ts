/**
 * Messages to and from the other nodes over TCP. For each peer this node dials a pair of connections, control and bulk [33], so that a full bulk
 * socket never delays a heartbeat. What it sends travels over its pair, what the peer sends over the peer's, which the listener hands over: so
 * neither side has to agree on which connections to keep.
 *
 * A peer that cannot be dialled may still dial. Then what goes to it travels back over the pair that it dialled, for as long as that holds. Each
 * side has checked the other by then: we its hello, it our reply, upon which it sends `accepted`.
 */
import type { Limits } from "../limits.ts";
import type { Batch } from "../wire/batch.ts";
import { encodeAccepted, isAccepted } from "../wire/hello.ts";
import type { Hello, HelloReply, PeerMessage } from "../wire/messages.ts";
import { decodePeerMessage, encodePeerMessage } from "../wire/peer-messages.ts";
import { applyVersionFirst, Feature, featuresKnown, versionsSpoken } from "../wire/versions.ts";
import { parseAddress } from "./address.ts";
import type { CloseReason, Connection, ConnectionHandler } from "./connection.ts";
import { Dialer } from "./dialer.ts";
import type { Transport, TransportEvents } from "./transport.ts";

export interface TcpTransportOptions {
  readonly nodeId: number;
  readonly clusterId: string;
  readonly incarnation: string;
  readonly software: string;
  /** `host:port` by node id; this node's own is ignored. To be changed with `setMembers`. */
  readonly members: ReadonlyMap<number, string>;
  /** What this node says of itself to those that it dials, besides who it is. */
  readonly introduction?: () => Pick<
    Hello,
    "address" | "configurationIndex" | "applyVersion" | "applyVersionMax"
  >;
  readonly limits: Limits;
  readonly events: TransportEvents;
  /** In [0, 1), for the jitter of back-off. */
  readonly random: () => number;
  /** A peer that cannot be reached, refuses us, or sends what it must not; for the log. */
  readonly onProblem: (nodeId: number, message: string) => void;
  /** A peer answers our hello with an error. */
  readonly onRefused?: (nodeId: number, code: string, message: string) => void;
  /** A peer answers in a protocol version that this build does not speak. */
  readonly onMismatch?: (nodeId: number, message: string) => void;
  /** Why a peer that takes part must not be spoken to, e.g. because its incarnation is another; undefined when it may. */
  readonly refusePeer?: (peer: PeerIdentity) => string | undefined;
}

/** What a peer says of itself, in its hello or in its reply to ours. */
export type PeerIdentity = Pick<
  HelloReply,
  "nodeId" | "incarnation" | "software" | "applyVersion" | "applyVersionMax"
>;

export interface PeerFigures {
  readonly connected: boolean;
  /** Only over the pair that it dialled. */
  readonly dialsIn: boolean;
  readonly framesSent: number;
  readonly framesReceived: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** Dropped because the peer was not connected or its queue was full. */
  readonly framesDropped: number;
  readonly sendQueueBytes: number;
}

type Channel = "control" | "bulk";

type Pair = Readonly<Record<Channel, Connection>>;

/** A connection that the peer dialled. */
interface Incoming {
  readonly connection: Connection;
  readonly peer: PeerIdentity;
  /** The peer has accepted our reply, and listens. */
  isAccepted: boolean;
}

/** What may be large, or is no hurry. */
const bulkTypes: ReadonlySet<PeerMessage["type"]> = new Set<PeerMessage["type"]>([
  "append",
  "forward",
  "forwardReply",
  "adminRequest",
  "adminReply",
  "snapshotOffer",
  "snapshotChunk",
]);

/** So many connections from a peer that end badly are told one by one within that time, and the rest as a number. */
const incomingEndsToldMax = 5;
const incomingEndsEveryMs = 10_000;

export class TcpTransport implements Transport {
  readonly #options: TcpTransportOptions;
  readonly #peers = new Map<number, Peer>();

  /** Dials from the first `checkTimeouts` on. Throws where a member's address cannot be parsed. */
  constructor(options: TcpTransportOptions) {
    this.#options = options;
    for (const [id, address] of options.members) {
      if (id !== options.nodeId) this.#peers.set(id, new Peer(id, address, options));
    }
  }

  /**
   * Keeps one pair of connections to each of these, and to nobody else: closes those to who is gone, dials who is new, and dials anew where
   * an address changed. Those that stay notice nothing.
   */
  setMembers(members: ReadonlyMap<number, string>): void {
    for (const [id, peer] of this.#peers) {
      if (members.has(id)) continue;
      this.#peers.delete(id);
      const wasUp = peer.up;
      peer.close();
      if (wasUp) this.#options.events.peerDown(id);
    }
    for (const [id, address] of members) {
      if (id !== this.#options.nodeId) this.#setMember(id, address);
    }
  }

  #setMember(id: number, address: string): void {
    const peer = this.#peers.get(id);
    if (peer?.address === address) return;
    // Nobody can be reached there, but who is not dialled may still dial.
    if (parseAddress(address) === undefined) {
      return this.#options.onProblem(id, `its address "${address}" is not HOST:PORT`);
    }
    if (peer === undefined) this.#peers.set(id, new Peer(id, address, this.#options));
    else peer.moveTo(address);
  }

  /** The others, whether connected or not. */
  get peerIds(): number[] {
    return [...this.#peers.keys()];
  }

  send(message: PeerMessage, batches?: readonly Batch[]): void {
    this.#peers.get(message.to)?.send(message, batches);
  }

  connected(nodeId: number): boolean {
    return this.#peers.get(nodeId)?.up ?? false;
  }

  dialsIn(nodeId: number): boolean {
    return this.#peers.get(nodeId)?.dialsIn ?? false;
  }

  takesBeats(nodeId: number): boolean {
    return this.#peers.get(nodeId)?.takesBeats ?? false;
  }

  applyVersionMax(nodeId: number): number {
    return this.#peers.get(nodeId)?.applyVersionMax ?? 0;
  }

  hasUnsent(nodeId: number): boolean {
    return this.#peers.get(nodeId)?.hasUnsent ?? false;
  }

  giveBack(nodeId: number, memory: Uint8Array<ArrayBuffer>): void {
    this.#peers.get(nodeId)?.giveBack(memory);
  }

  flush(): void {
    for (const peer of this.#peers.values()) peer.flush();
  }

  /** Dials, pings and watches; every 100 ms or so, `nowMs` monotonic. */
  checkTimeouts(nowMs: number): void {
    for (const peer of this.#peers.values()) peer.checkTimeouts(nowMs);
  }

  /** Takes over a connection that a peer dialled; for the listener's `onConnection`. */
  accept(connection: Connection, hello: Hello): void {
    const peer = this.#peers.get(hello.nodeId ?? 0);
    if (peer === undefined || hello.role === "client") return connection.close("refused");
    peer.accept(connection, hello);
  }

  figures(nodeId: number): PeerFigures | undefined {
    return this.#peers.get(nodeId)?.figures;
  }

  /** Ends all connections to and from peers; no event follows. */
  close(): void {
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }
}

/** One other node: the pair of connections to it, and the pair from it. */
class Peer implements ConnectionHandler {
  readonly #id: number;
  readonly #options: TcpTransportOptions;
  #address: string;
  #dialers: Readonly<Record<Channel, Dialer>>;
  /** The newest that the peer dialled: an older one is dead, whatever TCP knows. */
  readonly #incoming: Record<Channel, Incoming | undefined> = {
    control: undefined,
    bulk: undefined,
  };
  /** What goes to the peer travels over it: one and the same while both of its connections hold, so that nothing is overtaken. */
  #pair: Pair | undefined;
  readonly #bulkBytesMax: number;
  #closed = false;
  /** As the peer said last. */
  #applyVersionMax = 0;
  /** Connections from it that ended badly, since `#endsTellMs` was set. */
  #incomingEnds = 0;
  #endsTellMs = 0;
  #framesSent = 0;
  #framesReceived = 0;
  #framesDropped = 0;
  /** Bytes of connections that are gone. */
  #bytesSent = 0;
  #bytesReceived = 0;

  constructor(id: number, address: string, options: TcpTransportOptions) {
    this.#id = id;
    this.#address = address;
    this.#options = options;
    const { inflightBytesMax, frameBytesMax } = options.limits;
    this.#bulkBytesMax = inflightBytesMax * 2 + frameBytesMax;
    this.#dialers = this.#dialersTo(address);
  }

  get up(): boolean {
    return this.#pair !== undefined;
  }

  get dialsIn(): boolean {
    return this.up && this.#dialledByUs === undefined;
  }

  get takesBeats(): boolean {
    const features = this.#pair?.control.agreed.features ?? 0;
    return (features & Feature.beats) !== 0;
  }

  get hasUnsent(): boolean {
    return this.#connections().some(({ sendQueueBytes }) => sendQueueBytes > 0);
  }

  get applyVersionMax(): number {
    return this.up ? this.#applyVersionMax : 0;
  }

  get address(): string {
    return this.#address;
  }

  /** It is dialled there from now on; what it has dialled itself stays. */
  moveTo(address: string): void {
    this.#address = address;
    const { control, bulk } = this.#dialers;
    this.#dialers = this.#dialersTo(address);
    control.close();
    bulk.close();
  }

  get figures(): PeerFigures {
    let bytesSent = this.#bytesSent;
    let bytesReceived = this.#bytesReceived;
    let sendQueueBytes = 0;
    for (const connection of this.#connections()) {
      const figures = connection.figures;
      bytesSent += figures.bytesSent;
      bytesReceived += figures.bytesReceived;
      sendQueueBytes += figures.sendQueueBytes;
    }
    return {
      connected: this.up,
      dialsIn: this.dialsIn,
      framesSent: this.#framesSent,
      framesReceived: this.#framesReceived,
      bytesSent,
      bytesReceived,
      framesDropped: this.#framesDropped,
      sendQueueBytes,
    };
  }

  send(message: PeerMessage, batches: readonly Batch[] | undefined): void {
    const isBulk = bulkTypes.has(message.type);
    const channel = isBulk ? "bulk" : "control";
    const connection = this.#pair?.[channel] ?? this.#dialers[channel].connection;
    const bytesMax = isBulk ? this.#bulkBytesMax : this.#options.limits.sendQueueBytesMax;
    if (connection === undefined || connection.sendQueueBytes > bytesMax) {
      this.#framesDropped++;
      return;
    }
    this.#framesSent++;
    encodePeerMessage(connection.out, message, batches);
  }

  flush(): void {
    (this.#pair?.control ?? this.#dialers.control.connection)?.flush();
    (this.#pair?.bulk ?? this.#dialers.bulk.connection)?.flush();
  }

  checkTimeouts(nowMs: number): void {
    this.#dialers.control.checkTimeouts(nowMs);
    this.#dialers.bulk.checkTimeouts(nowMs);
    // It may have turned out that it cannot be dialled.
    this.#choosePair();
    this.#tellUntoldEnds(nowMs);
  }

  accept(connection: Connection, hello: Hello): void {
    const channel = hello.role === "peer-control" ? "control" : "bulk";
    const older = this.#incoming[channel]?.connection;
    const peer = { ...hello, nodeId: this.#id, incarnation: hello.incarnation ?? "" };
    this.#incoming[channel] = { connection, peer, isAccepted: false };
    connection.handler = this;
    older?.close("replaced");
  }

  close(): void {
    this.#closed = true;
    this.#dialers.control.close();
    this.#dialers.bulk.close();
    for (const connection of this.#connections()) connection.close("closed here");
  }

  frame(connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    if (isAccepted(type, payload)) return this.#accepted(connection);
    const message = decodePeerMessage(type, payload, fieldsBytes);
    if (message === undefined) return connection.close("malformed message");
    const isOurs = message.from === this.#id && message.to === this.#options.nodeId;
    if (!isOurs) return connection.close("wrong sender");
    this.#framesReceived++;
    this.#options.events.message(message);
  }

  /** The peer has dialled us, and takes us for whom we are. */
  #accepted(connection: Connection): void {
    const { control, bulk } = this.#incoming;
    const incoming = [control, bulk].find((each) => each?.connection === connection);
    if (incoming === undefined || !goesBothWays(connection)) {
      return connection.close("frame not allowed");
    }
    const { peer } = incoming;
    const refusal = this.#options.refusePeer?.(peer);
    if (refusal !== undefined) {
      this.#problem(`connection from it: ${refusal}`);
      return connection.close("refused");
    }
    incoming.isAccepted = true;
    this.#applyVersionMax = peer.applyVersionMax ?? applyVersionFirst;
    // Whoever dials also pings: so its end is noticed as soon as that of what we dialled.
    connection.expectPings(this.#options.limits.peerSilenceMs);
    this.#choosePair();
  }

  giveBack(memory: Uint8Array<ArrayBuffer>): void {
    const incoming = this.#incoming.bulk?.connection;
    (incoming ?? this.#dialers.bulk.connection)?.giveBack(memory);
  }

  /** A connection that the peer dialled has ended. */
  closed(connection: Connection, reason: CloseReason): void {
    this.#count(connection);
    for (const channel of ["control", "bulk"] as const) {
      if (this.#incoming[channel]?.connection === connection) this.#incoming[channel] = undefined;
    }
    this.#choosePair();
    if (
      !this.#closed &&
      reason !== "closed by the other side" &&
      reason !== "closed here" &&
      reason !== "replaced"
    ) {
      this.#incomingEnded(reason);
    }
  }

  /** Whoever dials again and again must not fill the log. */
  #incomingEnded(reason: CloseReason): void {
    if (++this.#incomingEnds > incomingEndsToldMax) return;
    this.#options.onProblem(this.#id, `connection from it ended: ${reason}`);
  }

  #tellUntoldEnds(nowMs: number): void {
    if (nowMs < this.#endsTellMs) return;
    this.#endsTellMs = nowMs + incomingEndsEveryMs;
    const untold = this.#incomingEnds - incomingEndsToldMax;
    this.#incomingEnds = 0;
    if (untold > 0) this.#problem(`${untold} more connections from it ended so`);
  }

  #dialersTo(address: string): Record<Channel, Dialer> {
    return {
      control: this.#dialer(address, "peer-control"),
      bulk: this.#dialer(address, "peer-bulk"),
    };
  }

  #dialer(address: string, role: "peer-control" | "peer-bulk"): Dialer {
    const { nodeId, clusterId, incarnation, software, limits, random } = this.#options;
    const { introduction } = this.#options;
    const parsed = parseAddress(address);
    if (parsed === undefined) {
      throw new Error(`"${address}", the address of node ${this.#id}, is not HOST:PORT`);
    }
    let current: Connection | undefined;
    return new Dialer({
      address: parsed,
      limits,
      hello: () => ({
        role,
        ...versionsSpoken,
        features: featuresKnown,
        software,
        clusterId,
        nodeId,
        incarnation,
        ...introduction?.(),
        expectNodeId: this.#id,
      }),
      expectation: "nothing",
      refuse: (reply) => this.#refuse(reply),
      silenceMsMax: limits.peerSilenceMs,
      random,
      events: {
        up: (connection, reply) => {
          current = connection;
          this.#applyVersionMax = reply.applyVersionMax ?? applyVersionFirst;
          if (goesBothWays(connection)) this.#listenOn(connection);
          this.#choosePair();
        },
        down: (reason) => {
          if (current !== undefined) this.#count(current);
          current = undefined;
          this.#choosePair();
          if (reason !== "closed here") this.#problem(`${role} connection lost: ${reason}`);
        },
        refused: ({ code, message }, by) => {
          if (this.#isItself(by)) this.#options.onRefused?.(this.#id, code, message);
        },
        mismatch: (message) => this.#options.onMismatch?.(this.#id, message),
        problem: (message) => this.#problem(`${role} connection to ${address}: ${message}`),
        overdue: (message) => this.#problem(`${role} connection to ${address}: ${message}`),
      },
    });
  }

  #isItself({ nodeId, clusterId }: HelloReply): boolean {
    return nodeId === this.#id && clusterId === this.#options.clusterId;
  }

  #refuse(reply: HelloReply): string | undefined {
    if (reply.nodeId !== this.#id) return `node ${reply.nodeId} answers there`;
    if (reply.clusterId !== this.#options.clusterId) {
      return `it belongs to cluster ${reply.clusterId}, we to ${this.#options.clusterId}`;
    }
    return this.#options.refusePeer?.(reply);
  }

  /** The peer may have no other way to this node. */
  #listenOn(connection: Connection): void {
    connection.expect("peer");
    connection.handler = {
      frame: (from, type, payload, fieldsBytes) => this.frame(from, type, payload, fieldsBytes),
      // The dialler sees to it.
      closed: () => {},
    };
    encodeAccepted(connection.out);
    connection.flush();
  }

  /** Up means both of a pair: only then is everything that the core sends on its way. With a pair goes what it had in flight. */
  #choosePair(): void {
    const before = this.#pair;
    if (this.#closed || (before !== undefined && isWhole(before))) return;
    this.#pair = this.#dialledByUs ?? this.#dialledByIt;
    if (before !== undefined) this.#options.events.peerDown(this.#id);
    if (this.#pair !== undefined) this.#options.events.peerUp(this.#id);
  }

  get #dialledByUs(): Pair | undefined {
    const control = this.#dialers.control.connection;
    const bulk = this.#dialers.bulk.connection;
    return control === undefined || bulk === undefined ? undefined : { control, bulk };
  }

  /** Undefined as long as it may yet be dialled. */
  get #dialledByIt(): Pair | undefined {
    const { control, bulk } = this.#incoming;
    if (control?.isAccepted !== true || bulk?.isAccepted !== true) return undefined;
    if (!this.#dialers.control.unreachable && !this.#dialers.bulk.unreachable) return undefined;
    return { control: control.connection, bulk: bulk.connection };
  }

  #problem(message: string): void {
    if (!this.#closed) this.#options.onProblem(this.#id, message);
  }

  #count(connection: Connection): void {
    const { bytesSent, bytesReceived } = connection.figures;
    this.#bytesSent += bytesSent;
    this.#bytesReceived += bytesReceived;
  }

  #connections(): Connection[] {
    const { control, bulk } = this.#incoming;
    return [
      this.#dialers.control.connection,
      this.#dialers.bulk.connection,
      control?.connection,
      bulk?.connection,
    ].filter((connection) => connection !== undefined);
  }
}

function isWhole({ control, bulk }: Pair): boolean {
  return !control.closed && !bulk.closed;
}

function goesBothWays({ agreed }: Connection): boolean {
  return (agreed.features & Feature.bothWays) !== 0;
}

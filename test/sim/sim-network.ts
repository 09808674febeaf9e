/**
 * The simulated network: one control and one bulk connection between each two nodes, carrying the real frames. What TCP keeps, it keeps: bytes
 * of one connection arrive in order, whole or up to the point where the connection broke; nothing holds between two connections. A cut direction holds
 * its bytes back until it heals or the connection is reset; loss is a reset or a late arrival.
 */
import { crc32 } from "node:zlib";
import type { Transport, TransportEvents } from "../../src/net/transport.ts";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import type { PeerMessage } from "../../src/wire/messages.ts";
import { decodePeerMessage, encodePeerMessage } from "../../src/wire/peer-messages.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";

/** A node as the network sees it. What arrives while it is paused waits in the network. */
export interface NetworkNode {
  readonly id: number;
  readonly paused: boolean;
  /** What its hello says. */
  readonly applyVersionMax: number;
  /** In force there. */
  readonly applyVersion: number;
  /** Undefined while it is down. */
  readonly events: TransportEvents | undefined;
}

export interface NetworkOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly nodes: readonly NetworkNode[];
  readonly frameBytesMax: number;
  /** Usual one-way delay. */
  readonly delayMs: number;
  /** Chance of a delay of up to `slowMs`. */
  readonly slowChance: number;
  readonly slowMs: number;
  /** Chance that a chunk arrives in two pieces. */
  readonly splitChance: number;
  /** Chance that a byte of a chunk is flipped on the way. */
  readonly corruptChance: number;
  /** After damage that the receiver cannot see at once. */
  readonly frameTimeoutMs: number;
  /** Called before a message is encoded: what it says must be true at this moment. */
  readonly onSend: (life: number, message: PeerMessage) => void;
  readonly onBytes: (from: number, to: number, crc: number) => void;
}

/** Bytes on their way in one direction of one connection. */
interface Stream {
  readonly link: Link;
  readonly from: number;
  readonly to: number;
  readonly out: SendBuffer;
  /** Made when something arrives first, as most streams break before. */
  reader: FrameReader | undefined;
  queue: { readonly atMs: number; readonly bytes: Uint8Array }[];
  /** A pump event is scheduled. */
  pumping: boolean;
}

/** Both connections of a pair of nodes; they come and go together. */
interface Link {
  readonly a: number;
  readonly b: number;
  /** Raised by each reset; what belongs to an older one is void. */
  epoch: number;
  /** By node id: does that end believe that it is connected? */
  readonly up: Map<number, boolean>;
  /** By node id: what that end said of itself when it was connected. */
  readonly applyVersionMax: Map<number, number>;
  /** Ends that have not noticed a reset yet, with the life in which they have not. */
  readonly blind: Map<number, TransportEvents>;
  connecting: boolean;
  slow: boolean;
  /** Bytes were changed on the way. */
  damaged: boolean;
  readonly streams: Stream[];
}

const reconnectMs = 40;

export class SimNetwork {
  readonly #options: NetworkOptions;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #nodes: ReadonlyMap<number, NetworkNode>;
  /** Such messages do not arrive. */
  loses: ((message: PeerMessage) => boolean) | undefined;
  readonly #links: Link[] = [];
  #calm = false;
  /** How many cuts lie on a direction, by "from>to"; one with any carries nothing. */
  readonly #cuts = new Map<string, number>();

  constructor(options: NetworkOptions) {
    this.#options = options;
    this.#scheduler = options.scheduler;
    this.#random = options.random;
    this.#nodes = new Map(options.nodes.map((node) => [node.id, node]));
    const ids = [...this.#nodes.keys()];
    for (const [at, a] of ids.entries()) {
      for (const b of ids.slice(at + 1)) this.#links.push(this.#makeLink(a, b));
    }
  }

  /** What the node of that id sends through during one life; `effect` is called after each stream that was written to. */
  transportOf(nodeId: number, life: number, effect: () => void): Transport {
    const linkTo = new Map<number, Link>();
    for (const link of this.#links) {
      if (link.a === nodeId) linkTo.set(link.b, link);
      if (link.b === nodeId) linkTo.set(link.a, link);
    }
    const queued = new Set<Stream>();
    return {
      send: (message, batches) => {
        this.#options.onSend(life, message);
        const link = linkTo.get(message.to);
        if (link?.up.get(nodeId) !== true) return;
        const bulk =
          message.type === "append" ||
          message.type === "forward" ||
          message.type === "forwardReply" ||
          message.type === "snapshotOffer" ||
          message.type === "snapshotChunk";
        const stream = link.streams[(link.a === nodeId ? 0 : 2) + (bulk ? 1 : 0)]!;
        encodePeerMessage(stream.out, message, batches);
        queued.add(stream);
      },
      connected: (peer) => linkTo.get(peer)?.up.get(nodeId) === true,
      dialsIn: () => false,
      takesBeats: (peer) => linkTo.get(peer)?.up.get(nodeId) === true,
      applyVersionMax: (peer) => {
        const link = linkTo.get(peer);
        return link?.up.get(nodeId) === true ? link.applyVersionMax.get(peer)! : 0;
      },
      flush: () => {
        for (const stream of queued) {
          this.#ship(stream);
          effect();
        }
        queued.clear();
      },
    };
  }

  /* ---------------------------------------------------------------- faults */

  /** Connections between living nodes come up. */
  start(): void {
    for (const link of this.#links) this.#connectLater(link);
  }

  get pairs(): readonly (readonly [number, number])[] {
    return this.#links.map(({ a, b }) => [a, b] as const);
  }

  /** Nothing passes from one to the other, until `mend` or `heal`. */
  cut(from: number, to: number): void {
    const direction = `${from}>${to}`;
    this.#cuts.set(direction, (this.#cuts.get(direction) ?? 0) + 1);
  }

  /** Takes back one cut. What was held back arrives. */
  mend(from: number, to: number): void {
    const direction = `${from}>${to}`;
    const cuts = this.#cuts.get(direction);
    if (cuts === undefined) return;
    if (cuts > 1) {
      this.#cuts.set(direction, cuts - 1);
      return;
    }
    this.#cuts.delete(direction);
    const link = this.#linkOf(from, to);
    for (const stream of link.streams) this.#pump(stream);
    this.#connectLater(link);
  }

  hasten(a: number, b: number): void {
    this.#linkOf(a, b).slow = false;
  }

  heal(): void {
    this.#cuts.clear();
    for (const link of this.#links) {
      link.slow = false;
      for (const stream of link.streams) this.#pump(stream);
      this.#connectLater(link);
    }
  }

  /** Heals everything, and from now on nothing is slow or damaged; what is half broken breaks now, and is noticed now. */
  calm(): void {
    this.#calm = true;
    for (const link of this.#links) {
      if (link.damaged) this.#reset(link);
      for (const [id, events] of link.blind) {
        this.#scheduler.after(0, () => this.#notice(link, id, events));
      }
      for (const stream of link.streams) {
        stream.queue = stream.queue.map(({ bytes }) => ({ atMs: this.#scheduler.nowMs, bytes }));
        stream.pumping = false;
      }
    }
    this.heal();
  }

  slow(a: number, b: number): void {
    this.#linkOf(a, b).slow = true;
  }

  /** Both connections of the pair break: of what is on its way, a prefix may still arrive. */
  reset(a: number, b: number): void {
    this.#reset(this.#linkOf(a, b));
  }

  /** The node is gone. Its peers notice sooner or later. */
  crashed(nodeId: number): void {
    for (const link of this.#links) if (link.a === nodeId || link.b === nodeId) this.#reset(link);
  }

  /** The node is there again, or runs again: what waited for it goes on. */
  awake(nodeId: number): void {
    for (const link of this.#links) {
      if (link.a !== nodeId && link.b !== nodeId) continue;
      for (const stream of link.streams) if (stream.to === nodeId) this.#pump(stream);
      this.#connectLater(link);
    }
  }

  /* ---------------------------------------------------------------- connections */

  #makeLink(a: number, b: number): Link {
    const streams: Stream[] = [];
    const up = new Map([
      [a, false],
      [b, false],
    ]);
    const blind = new Map<number, TransportEvents>();
    const link: Link = {
      a,
      b,
      epoch: 0,
      up,
      applyVersionMax: new Map(),
      blind,
      connecting: false,
      slow: false,
      damaged: false,
      streams,
    };
    for (const [from, to] of [
      [a, b],
      [a, b],
      [b, a],
      [b, a],
    ] as const) {
      streams.push({
        link,
        from,
        to,
        out: new SendBuffer(),
        reader: undefined,
        queue: [],
        pumping: false,
      });
    }
    return link;
  }

  #reader({ link, to }: Stream, epoch: number): FrameReader {
    const reader = new FrameReader(this.#options.frameBytesMax, (type, payload, fieldsBytes) => {
      const message = decodePeerMessage(type, payload, fieldsBytes);
      // What does not decode closes the connection, as in the TCP transport.
      if (message === undefined || message.to !== to) {
        reader.stop();
        if (link.epoch === epoch) this.#reset(link);
        return;
      }
      if (this.loses?.(message) === true) return;
      this.#nodes.get(to)?.events?.message(message);
    });
    return reader;
  }

  #linkOf(a: number, b: number): Link {
    const link = this.#links.find((l) => (l.a === a && l.b === b) || (l.a === b && l.b === a));
    if (link === undefined) throw new Error(`no link ${a}-${b}`);
    return link;
  }

  #reset(link: Link): void {
    link.epoch++;
    link.damaged = false;
    for (const stream of link.streams) this.#breakOff(stream);
    for (const id of [link.a, link.b]) {
      const { events } = this.#nodes.get(id)!;
      if (events === undefined) {
        link.up.set(id, false);
        link.blind.delete(id);
      } else if (link.up.get(id) === true && !link.blind.has(id)) {
        // Bytes from now on go nowhere, but this end believes in the connection until it notices.
        link.blind.set(id, events);
        const late =
          this.#random.chance(0.3) && !this.#calm ? this.#random.below(600) : this.#random.float();
        this.#scheduler.after(late, () => this.#notice(link, id, events));
      }
    }
    this.#connectLater(link);
  }

  #notice(link: Link, id: number, events: TransportEvents): void {
    if (link.blind.get(id) !== events) return;
    if (this.#nodes.get(id)!.paused) {
      this.#scheduler.after(50, () => this.#notice(link, id, events));
      return;
    }
    link.blind.delete(id);
    link.up.set(id, false);
    events.peerDown(id === link.a ? link.b : link.a);
    this.#connectLater(link);
  }

  /** The receiver gets what had reached its machine; the rest is lost, possibly in the middle of a frame. */
  #breakOff(stream: Stream): void {
    const arrived = stream.queue.slice(0, this.#random.below(stream.queue.length + 1));
    const known = stream.reader;
    stream.queue = [];
    stream.out.clear();
    stream.reader = undefined;
    const node = this.#nodes.get(stream.to)!;
    if (arrived.length === 0 || node.events === undefined || this.#cut(stream)) return;
    const { events } = node;
    // Its connection is the one before.
    const reader = known ?? this.#reader(stream, stream.link.epoch - 1);
    this.#scheduler.after(0, () => {
      if (node.paused || node.events !== events) return;
      for (const { bytes } of arrived) reader.push(bytes);
    });
  }

  #connectLater(link: Link): void {
    if (link.connecting || link.up.get(link.a) === true || link.up.get(link.b) === true) return;
    link.connecting = true;
    const patienceMs = this.#calm ? reconnectMs / 10 : reconnectMs;
    this.#scheduler.after(patienceMs * (0.5 + this.#random.float()), () => {
      link.connecting = false;
      const [a, b] = [this.#nodes.get(link.a)!, this.#nodes.get(link.b)!];
      // Woken by `awake` and `heal` when that changes.
      if (a.events === undefined || b.events === undefined || a.paused || b.paused) return;
      if (this.#cuts.has(`${link.a}>${link.b}`) || this.#cuts.has(`${link.b}>${link.a}`)) return;
      // As two nodes of which one is too old for the other do.
      if (!understands(a, b) || !understands(b, a)) return this.#connectLater(link);
      for (const node of [a, b]) {
        link.up.set(node.id, true);
        link.applyVersionMax.set(node.id, node.applyVersionMax);
      }
      const [first, second] = this.#random.chance(0.5) ? [a, b] : [b, a];
      first.events?.peerUp(second.id);
      second.events?.peerUp(first.id);
    });
  }

  /* ---------------------------------------------------------------- bytes */

  #cut(stream: Stream): boolean {
    return this.#cuts.size > 0 && this.#cuts.has(`${stream.from}>${stream.to}`);
  }

  /** Hands what the sender queued to the network. */
  #ship(stream: Stream): void {
    const { out, link } = stream;
    const total = out.byteLength;
    if (total === 0) return;
    const bytes = new Uint8Array(total);
    let at = 0;
    for (let chunk = out.chunk(); chunk !== undefined; chunk = out.chunk()) {
      bytes.set(chunk, at);
      at += chunk.byteLength;
      out.consume(chunk.byteLength);
    }
    // The other end is gone and this one has not noticed.
    if (link.blind.size > 0) return;
    const random = this.#random;
    const { delayMs, slowChance, slowMs, splitChance, corruptChance } = this.#options;
    let delay = (this.#calm ? 0.1 : delayMs) * (0.3 - Math.log(1 - random.float()));
    if (!this.#calm && random.chance(slowChance)) delay += slowMs * random.float() * random.float();
    if (link.slow) delay += slowMs + total / 100;
    if (!this.#calm && random.chance(corruptChance)) this.#corrupt(link, bytes);
    this.#options.onBytes(stream.from, stream.to, crc32(bytes));
    const last = stream.queue.at(-1);
    const atMs = Math.max(this.#scheduler.nowMs + delay, last?.atMs ?? 0);
    if (total > 1 && random.chance(splitChance)) {
      const middle = random.between(1, total - 1);
      stream.queue.push({ atMs, bytes: bytes.subarray(0, middle) });
      stream.queue.push({ atMs: atMs + delay, bytes: bytes.subarray(middle) });
    } else {
      stream.queue.push({ atMs, bytes });
    }
    this.#pump(stream);
  }

  /** A damaged length lets the receiver wait for a frame that never ends: the time-out of the real transport ends that. */
  #corrupt(link: Link, bytes: Uint8Array): void {
    bytes[this.#random.below(bytes.byteLength)]! ^= 1 << this.#random.below(8);
    link.damaged = true;
    const { epoch } = link;
    this.#scheduler.after(this.#options.frameTimeoutMs, () => {
      if (link.epoch === epoch) this.#reset(link);
    });
  }

  /** Delivers what is due, in order, and comes back for the rest; stands still while cut or paused. */
  #pump(stream: Stream): void {
    const next = stream.queue[0];
    if (next === undefined || stream.pumping) return;
    stream.pumping = true;
    this.#scheduler.after(Math.max(0, next.atMs - this.#scheduler.nowMs), () => {
      stream.pumping = false;
      const head = stream.queue[0];
      const node = this.#nodes.get(stream.to)!;
      if (head === undefined || this.#cut(stream) || node.paused) return;
      if (head.atMs > this.#scheduler.nowMs) return this.#pump(stream);
      stream.queue.shift();
      stream.reader ??= this.#reader(stream, stream.link.epoch);
      const error = stream.reader.push(head.bytes);
      if (error !== undefined) this.#reset(stream.link);
      this.#pump(stream);
    });
  }
}

function understands(node: NetworkNode, other: NetworkNode): boolean {
  return node.applyVersionMax >= other.applyVersion;
}

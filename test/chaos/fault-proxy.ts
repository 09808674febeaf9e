/**
 * A network in user space: each node is reached through a port of ours, and what passes is cut, delayed, held back as loss does, or reset.
 * Who dialled is read from the hello that begins each connection, so each link between two nodes has faults of its own, in each
 * direction. As under TCP, bytes of one connection stay in order and what a cut held back arrives after it.
 */
import type { Socket, TCPSocketListener } from "bun";
import { frameHeaderBytes } from "../../src/wire/frame.ts";
import { decodeHello } from "../../src/wire/hello.ts";
import { FrameType } from "../../src/wire/messages.ts";
import { freePorts, type NodePlace } from "../e2e/cluster.ts";
import type { Random } from "../sim/random.ts";
import {
  clientsPlace,
  type Link,
  type LinkFault,
  LinkFaults,
  type Network,
  type Place,
} from "./network.ts";

const host = "127.0.0.1";
/** What one direction of a connection holds before its sender is not read any more. */
const heldBytesMax = 1 << 20;
/** A lost packet is sent again after so long, then after twice that. */
const resendMs = 200;
/** A first frame longer than this is no hello. */
const helloBytesMax = 64 * 1024;

export class FaultProxy implements Network {
  readonly name = "proxy";
  readonly can = { delay: true, reset: true };
  readonly #faults = new LinkFaults(() => this.#pump());
  readonly #listeners: TCPSocketListener<Side>[] = [];
  readonly #lines = new Set<Line>();
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  place(id: Place): NodePlace {
    const [listen, http, door] = freePorts(3).map((port) => `${host}:${port}`) as [
      string,
      string,
      string,
    ];
    const listener = Bun.listen<Side>({
      hostname: host,
      port: portOf(door),
      data: { pipe: undefined, toSelf: undefined },
      socket: {
        open: (socket) => {
          const line = new Line({ socket, to: id, address: listen, proxy: this });
          this.#lines.add(line);
        },
        data: (socket, bytes) => socket.data.pipe?.receive(bytes),
        drain: (socket) => socket.data.toSelf?.pump(),
        close: (socket) => socket.data.pipe?.end(),
        error: (socket) => socket.data.pipe?.end(),
      },
    });
    this.#listeners.push(listener);
    return { listen, advertise: door, http };
  }

  spoil(links: readonly Link[], fault: LinkFault): () => void {
    return this.#faults.add(links, fault);
  }

  reset(place: Place): void {
    for (const line of this.#lines) if (line.touches(place)) line.break();
  }

  faultOf(link: Link): Required<LinkFault> {
    return this.#faults.of(link);
  }

  /** When bytes that come now are to go on. */
  dueMs({ loss, delayMs, jitterMs }: Required<LinkFault>): number {
    let due = performance.now() + delayMs + this.#random.float() * jitterMs;
    for (let wait = resendMs; this.#random.chance(loss); wait *= 2) due += wait;
    return due;
  }

  forget(line: Line): void {
    this.#lines.delete(line);
  }

  #pump(): void {
    for (const line of this.#lines) line.pump();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const listener of this.#listeners) listener.stop(true);
    for (const line of this.#lines) line.break();
  }
}

/** What hangs at a socket: where its bytes go, and what writes into it. */
interface Side {
  pipe: Pipe | undefined;
  toSelf: Pipe | undefined;
}

interface LineOptions {
  readonly socket: Socket<Side>;
  readonly to: Place;
  /** Where the node itself listens. */
  readonly address: string;
  readonly proxy: FaultProxy;
}

/** One connection, dialled by somebody whom its first frame names. */
class Line {
  readonly #options: LineOptions;
  readonly #there: Pipe;
  readonly #back: Pipe;
  #from: Place | undefined;
  #dialled = false;
  #far: Socket<Side> | undefined;

  constructor(options: LineOptions) {
    this.#options = options;
    const { socket, proxy } = options;
    this.#there = new Pipe(this, proxy, () => ({
      from: this.#from ?? clientsPlace,
      to: options.to,
    }));
    this.#back = new Pipe(this, proxy, () => ({
      from: options.to,
      to: this.#from ?? clientsPlace,
    }));
    this.#there.source = socket;
    this.#back.sink = socket;
    socket.data = { pipe: this.#there, toSelf: this.#back };
  }

  touches(place: Place): boolean {
    return this.#from === place || this.#options.to === place;
  }

  /** Called with every chunk until the dialler is known. */
  learn(pipe: Pipe): void {
    if (pipe !== this.#there || this.#from !== undefined) return;
    this.#from = dialler(pipe.held());
  }

  pump(): void {
    this.#dial();
    this.#there.pump();
    this.#back.pump();
  }

  /** All that was on its way has arrived. */
  close(): void {
    this.#forget();
    this.#options.socket.end();
    this.#far?.end();
  }

  /** Both ways at once, with what is on its way. */
  break(): void {
    this.#forget();
    this.#options.socket.terminate();
    this.#far?.terminate();
  }

  #forget(): void {
    this.#options.proxy.forget(this);
    this.#there.drop();
    this.#back.drop();
  }

  /** A node is only reached while both directions hold. */
  #dial(): void {
    if (this.#dialled || this.#from === undefined) return;
    const { proxy, to, address } = this.#options;
    const isCut =
      proxy.faultOf({ from: this.#from, to }).cut ||
      proxy.faultOf({ from: to, to: this.#from }).cut;
    if (isCut) return;
    this.#dialled = true;
    Bun.connect<Side>({
      hostname: host,
      port: portOf(address),
      data: { pipe: this.#back, toSelf: this.#there },
      socket: {
        open: (socket) => {
          this.#far = socket;
          this.#back.source = socket;
          this.#there.sink = socket;
          this.#there.pump();
        },
        data: (_socket, bytes) => this.#back.receive(bytes),
        drain: () => this.#there.pump(),
        close: () => this.#back.end(),
        error: () => this.#back.end(),
        connectError: () => this.break(),
      },
    }).catch(() => this.break());
  }
}

/** One direction of a connection. */
class Pipe {
  source: Socket<Side> | undefined;
  sink: Socket<Side> | undefined;
  readonly #line: Line;
  readonly #proxy: FaultProxy;
  readonly #link: () => Link;
  #queue: { bytes: Uint8Array; readonly dueMs: number }[] = [];
  #heldBytes = 0;
  #ended = false;
  #timer: Timer | undefined;

  constructor(line: Line, proxy: FaultProxy, link: () => Link) {
    this.#line = line;
    this.#proxy = proxy;
    this.#link = link;
  }

  receive(bytes: Uint8Array): void {
    const earliestMs = this.#queue.at(-1)?.dueMs ?? 0;
    const dueMs = Math.max(earliestMs, this.#proxy.dueMs(this.#proxy.faultOf(this.#link())));
    this.#queue.push({ bytes, dueMs });
    this.#heldBytes += bytes.byteLength;
    if (this.#heldBytes > heldBytesMax) this.source?.pause();
    this.#line.learn(this);
    this.#line.pump();
  }

  /** Its sender is gone; what is on its way still arrives. */
  end(): void {
    this.#ended = true;
    if (this.sink === undefined) this.#line.break();
    else this.pump();
  }

  drop(): void {
    this.#queue = [];
    clearTimeout(this.#timer);
  }

  held(): Uint8Array {
    return Buffer.concat(this.#queue.map(({ bytes }) => bytes));
  }

  pump(): void {
    if (this.sink === undefined || this.#proxy.faultOf(this.#link()).cut) return;
    for (let head = this.#queue[0]; head !== undefined; head = this.#queue[0]) {
      const waitMs = head.dueMs - performance.now();
      if (waitMs > 0) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.pump(), waitMs);
        return;
      }
      const written = this.sink.write(head.bytes);
      if (written < 0) break;
      this.#heldBytes -= written;
      if (written < head.bytes.byteLength) {
        head.bytes = head.bytes.subarray(written);
        break;
      }
      this.#queue.shift();
    }
    if (this.#heldBytes <= heldBytesMax / 2) this.source?.resume();
    if (this.#ended && this.#queue.length === 0) this.#line.close();
  }
}

/** Who sent the frame that these bytes begin with; undefined while it is not complete. Whoever says no hello counts as a client. */
function dialler(bytes: Uint8Array): Place | undefined {
  if (bytes.byteLength < frameHeaderBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = view.getUint32(8, true);
  if (view.getUint8(3) !== FrameType.hello || length > helloBytesMax) return clientsPlace;
  if (bytes.byteLength < frameHeaderBytes + length) return undefined;
  const payload = bytes.subarray(frameHeaderBytes, frameHeaderBytes + length);
  return decodeHello(payload, view.getUint32(4, true))?.nodeId ?? clientsPlace;
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(":") + 1));
}

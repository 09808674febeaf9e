/**
 * A network between the nodes of a test cluster that can be slowed, cut and broken: each node's address among the members is one of this
 * process, which passes on to the node what comes. Who dialled is read from the hello, so that what is meant for peers touches no client.
 *
 * A link that is cut is silent, as behind a switch that lost power: nothing arrives, nobody is told, and what was under way comes late, once the
 * link is whole again. One that is reset ends for both sides at once, and what was under way is lost.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import { decodeHello } from "../../src/wire/hello.ts";
import { FrameType } from "../../src/wire/messages.ts";

const nodeHost = "127.0.0.1";
/** Where the nodes find each other: on the ports that each has itself, for another port would be taken for a slip. */
const networkHost = "127.0.0.2";
const helloBytesMax = 65_536;
/** What is sent ahead of the rate before the sender has to wait. */
const aheadMs = 4;

interface Link {
  /** Who dialled: a node, 0 = a client, undefined = it has not said hello yet. */
  from: number | undefined;
  readonly to: number;
  readonly dialled: Socket;
  readonly accepted: Socket;
  /** What came while it was cut, in order. */
  late: { readonly target: Socket; readonly bytes: Buffer }[];
}

export class PeerNetwork implements AsyncDisposable {
  readonly #servers: Server[] = [];
  readonly #links = new Set<Link>();
  readonly #cut = new Set<number>();
  /** By sender and receiver: when what was sent so far would have arrived at the rate. */
  readonly #busyUntilMs = new Map<string, number>();
  /** Of each node to each other one. */
  bytesPerSecond = Infinity;

  /** Takes connections for node `to`, which listens at `address` itself; returns where the others find it. */
  listen(to: number, address: string): string {
    const port = Number(address.split(":")[1]);
    const server = createServer((dialled) => {
      const accepted = connect({ host: nodeHost, port });
      const link: Link = { from: undefined, to, dialled, accepted, late: [] };
      this.#links.add(link);
      for (const socket of [dialled, accepted]) {
        socket.setNoDelay(true);
        // What becomes of it is told by `close`.
        socket.on("error", () => {});
        socket.on("close", () => this.#end(link));
      }
      this.#readHello(link);
      this.#passOn(link, dialled, accepted);
      this.#passOn(link, accepted, dialled);
      if (this.#cut.has(to)) this.#hold(link);
    });
    server.listen(port, networkHost);
    this.#servers.push(server);
    return `${networkHost}:${port}`;
  }

  /** Node `id` and the others hear nothing of each other from now on. */
  cut(id: number): void {
    this.#cut.add(id);
    for (const link of this.#links) if (this.#isCut(link)) this.#hold(link);
  }

  /** They do again; by the connections of before, or by new ones. */
  heal(id: number, { keep }: { keep: boolean }): void {
    if (!keep) this.reset((from, to) => from === id || to === id);
    this.#cut.delete(id);
    for (const link of this.#links) {
      if (this.#isCut(link)) continue;
      for (const { target, bytes } of link.late.splice(0)) target.write(bytes);
      link.dialled.resume();
      link.accepted.resume();
    }
  }

  /** Ends connections between nodes. */
  reset(which: (from: number, to: number) => boolean): number {
    let count = 0;
    for (const link of this.#links) {
      if (link.from === undefined || link.from === 0 || !which(link.from, link.to)) continue;
      count++;
      this.#end(link);
    }
    return count;
  }

  #isCut({ from, to }: Link): boolean {
    return from !== 0 && (this.#cut.has(to) || (from !== undefined && this.#cut.has(from)));
  }

  #hold({ dialled, accepted }: Link): void {
    dialled.pause();
    accepted.pause();
  }

  #end(link: Link): void {
    if (!this.#links.delete(link)) return;
    link.dialled.destroy();
    link.accepted.destroy();
  }

  #readHello(link: Link): void {
    const reader = new FrameReader(helloBytesMax, (type, payload, fieldsBytes) => {
      if (link.from !== undefined) return;
      const hello = type === FrameType.hello ? decodeHello(payload, fieldsBytes) : undefined;
      link.from = hello?.nodeId ?? 0;
    });
    link.dialled.on("data", function look(bytes: Buffer) {
      reader.push(new Uint8Array(bytes));
      if (reader.error !== undefined) link.from ??= 0;
      if (link.from !== undefined) link.dialled.off("data", look);
    });
  }

  #passOn(link: Link, source: Socket, target: Socket): void {
    source.on("data", (bytes: Buffer) => {
      if (this.#isCut(link)) {
        link.late.push({ target, bytes });
        return void source.pause();
      }
      const drained = target.write(bytes);
      const waitMs = this.#waitMs(link, source === link.dialled, bytes.byteLength);
      if (drained && waitMs < aheadMs) return;
      source.pause();
      const goOn = (): void => {
        if (this.#links.has(link) && !this.#isCut(link)) source.resume();
      };
      if (!drained) target.once("drain", goOn);
      else setTimeout(goOn, waitMs);
    });
    source.on("end", () => this.#end(link));
  }

  #waitMs({ from, to }: Link, fromDialler: boolean, bytes: number): number {
    if (from === undefined || from === 0 || this.bytesPerSecond === Infinity) return 0;
    const way = fromDialler ? `${from} ${to}` : `${to} ${from}`;
    const nowMs = performance.now();
    const untilMs =
      Math.max(nowMs, this.#busyUntilMs.get(way) ?? 0) + (bytes / this.bytesPerSecond) * 1_000;
    this.#busyUntilMs.set(way, untilMs);
    return untilMs - nowMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const link of this.#links) this.#end(link);
    await Promise.all(
      this.#servers.map((server) => new Promise<void>((done) => server.close(() => done()))),
    );
  }
}

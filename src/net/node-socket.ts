/**
 * Sockets of Node.js under connections: the twin of bun-socket.ts, for the SDK where there is no `Bun`. `node:net` takes whatever it is given
 * and keeps it, so this one takes nothing more until that is written: the queue with a bound is the connection's own.
 */
import { connect, type Socket } from "node:net";
import type { Address } from "./address.ts";
import type { Connection } from "./connection.ts";
import type { ByteSocket, DialEvents } from "./socket.ts";

const keepAliveMs = 10_000;

export function dialNodeSocket(address: Address, events: DialEvents): void {
  const socket = connect({ host: address.host, port: address.port, noDelay: true });
  let connection: Connection | undefined;
  let failed = false;
  socket.once("connect", () => {
    connection = events.open(new NodeSocket(socket));
    if (connection === undefined) socket.destroy();
    else socket.setKeepAlive(true, keepAliveMs);
  });
  socket.on("data", (chunk: Uint8Array) => connection?.received(chunk));
  socket.on("drain", () => connection?.drained());
  socket.on("error", (error: Error & { readonly code?: string }) => {
    failed = true;
    if (!socket.pending) return connection?.socketClosed("socket failed");
    // One that stands for several addresses that were tried has no message of its own.
    events.failed(error.message === "" ? (error.code ?? "cannot connect") : error.message);
  });
  socket.once("close", () => {
    if (!failed) connection?.socketClosed("closed by the other side");
  });
}

class NodeSocket implements ByteSocket {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  write(bytes: Uint8Array): number {
    const socket = this.#socket;
    if (socket.destroyed || !socket.writable) return -1;
    if (socket.writableNeedDrain) return 0;
    // A copy, as the caller uses its memory again at once.
    socket.write(Buffer.from(bytes));
    return bytes.byteLength;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.end();
  }

  terminate(): void {
    this.#socket.destroy();
  }

  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? "";
  }
}

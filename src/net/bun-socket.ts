/**
 * Bun's sockets under connections: the one place in net that names `Bun`. Its twin for Node.js is node-socket.ts.
 *
 * Names are looked up at each dialling. Left to itself Bun.connect keeps what it has found for half a minute, also where nobody answers any more: a
 * name that was given to another machine would lead to the old one for so long.
 */
import { isIP } from "node:net";
import type { Socket, SocketHandler, TCPSocketListener } from "bun";
import { freeMemory } from "../wire/free-memory.ts";
import type { Address } from "./address.ts";
import type { Connection } from "./connection.ts";
import type { ByteSocket, DialEvents } from "./socket.ts";

/** A name may stand for several addresses: no more of them are tried, the next one when one has failed or has not answered for so long. */
const addressesMax = 8;
const nextAddressMs = 250;

/** Connects; exactly one of the events follows. It cannot be cancelled: a socket not wanted any more is closed when it opens. */
export function dialSocket({ host, port }: Address, events: DialEvents): void {
  if (isIP(host) !== 0) return connectSocket({ host, port }, events);
  // As the system has it, /etc/hosts included.
  Bun.dns.lookup(host, { backend: "libc" }).then(
    (found) => {
      const hosts = [...new Set(found.map(({ address }) => address))].slice(0, addressesMax);
      if (hosts.length > 0) connectFirst(hosts, port, events);
      else events.failed(`${host} has no address`);
    },
    (error: Error) => events.failed(`${host} cannot be looked up: ${error.message}`),
  );
}

/** To whichever answers first. */
function connectFirst(hosts: readonly string[], port: number, events: DialEvents): void {
  let started = 0;
  let pending = 0;
  let isOver = false;
  let timer: Timer | undefined;
  const tryNext = (): void => {
    const host = hosts[started++]!;
    pending++;
    clearTimeout(timer);
    if (started < hosts.length) timer = setTimeout(tryNext, nextAddressMs);
    connectSocket({ host, port }, { open, failed });
  };
  const open = (socket: ByteSocket): Connection | undefined => {
    pending--;
    if (isOver) return undefined;
    isOver = true;
    clearTimeout(timer);
    return events.open(socket);
  };
  const failed = (message: string): void => {
    pending--;
    if (isOver) return;
    if (started < hosts.length) return tryNext();
    if (pending > 0) return;
    isOver = true;
    events.failed(message);
  };
  tryNext();
}

function connectSocket(address: Address, events: DialEvents): void {
  const socket = handlerOf((opened) => events.open(opened));
  let reported = false;
  const failed = (error: Error): void => {
    if (!reported) events.failed(error.message);
    reported = true;
  };
  Bun.connect<Attached>({
    hostname: address.host,
    port: address.port,
    data: { connection: undefined },
    socket: { ...socket, connectError: (_socket, error) => failed(error) },
  }).catch(failed);
}

export interface BoundSocket {
  readonly port: number;
  /** Accepts no more; connections stay. */
  stop(): void;
}

/** Throws where the address cannot be bound. */
export function listenSocket(
  address: Address,
  accept: (socket: ByteSocket) => Connection | undefined,
): BoundSocket {
  const listener: TCPSocketListener<Attached> = Bun.listen<Attached>({
    hostname: address.host,
    port: address.port,
    data: { connection: undefined },
    socket: handlerOf(accept),
  });
  return { port: listener.port, stop: () => listener.stop(false) };
}

interface Attached {
  connection: Connection | undefined;
}

function handlerOf(open: (socket: ByteSocket) => Connection | undefined): SocketHandler<Attached> {
  return {
    binaryType: "uint8array",
    open: (socket) => guard(() => attach(socket, open(socket))),
    data: (socket, chunk) =>
      guard(() => {
        if (socket.data.connection?.received(chunk) === true) freeMemory(chunk);
      }),
    drain: (socket) => guard(() => socket.data.connection?.drained()),
    error: (socket) => guard(() => socket.data.connection?.socketClosed("socket failed")),
    close: (socket, error) =>
      guard(() =>
        socket.data.connection?.socketClosed(
          error === undefined ? "closed by the other side" : "socket failed",
        ),
      ),
  };
}

function attach(socket: Socket<Attached>, connection: Connection | undefined): void {
  // A data object of its own: the listener's is shared by all its sockets.
  socket.data = { connection };
  if (connection === undefined) socket.terminate();
  else socket.setKeepAlive(true, 10_000);
}

/**
 * Bun takes what a handler throws for an error of the socket. An assertion that failed must not end as a closed connection, so it is
 * thrown again where the process sees it.
 */
function guard(handle: () => void): void {
  try {
    handle();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

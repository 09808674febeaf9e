/** The little that a connection needs of a socket, so that Bun's and node:net's can both carry one. Types only. */
import type { Address } from "./address.ts";
import type { Connection } from "./connection.ts";

export interface ByteSocket {
  /** Copies or sends at once. Returns the bytes taken: fewer than given, even 0, when full (`drained` follows); negative once closed. */
  write(bytes: Uint8Array): number;
  /** Stops and resumes delivery of received bytes. */
  pause(): void;
  resume(): void;
  /** Closes after what was taken is sent. */
  end(): void;
  /** Closes at once. */
  terminate(): void;
  readonly remoteAddress: string;
}

/** How connections are made: bun-socket.ts, node-socket.ts, or a simulated network. It cannot be cancelled. */
export type Dial = (address: Address, events: DialEvents) => void;

/** Exactly one of the two is called, once. */
export interface DialEvents {
  /** Connected: returns what takes the socket's events, or nothing when the socket is not wanted any more. */
  open(socket: ByteSocket): Connection | undefined;
  failed(message: string): void;
}

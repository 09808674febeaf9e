/** The little that a connection needs of a socket, so that Bun's and node:net's can both carry one. Types only. */

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

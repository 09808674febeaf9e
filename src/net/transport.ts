/** Messages to and from the other nodes. The TCP one is tcp-transport.ts; the simulated twin is in test/sim. Types only. */
import type { Batch } from "../wire/batch.ts";
import type { PeerMessage } from "../wire/messages.ts";

/** A message as it arrives, with the epoch of the connection that carried it [33]. */
export interface TransportEvents {
  message(message: PeerMessage): void;
  /** Both connections of a pair are up (again): whatever was in flight may be lost; go to probe [C5]. */
  peerUp(nodeId: number): void;
  peerDown(nodeId: number): void;
}

export interface Transport {
  /**
   * Encodes and queues a message; dropped where the peer is not connected (Raft sends again). For an append, `batches` are the bodies,
   * sent verbatim. Votes, heartbeats, replies and read indexes travel on the control connection; appends and forwards on the bulk one.
   */
  send(message: PeerMessage, batches?: readonly Batch[]): void;
  connected(nodeId: number): boolean;
  /** It is connected, yet only over connections that it dialled itself: nobody answers at its address. */
  dialsIn(nodeId: number): boolean;
  /** It is connected, and understands beats. */
  takesBeats(nodeId: number): boolean;
  /** Highest apply version that the peer can, as it says itself on the connection that is up; 0 while none is [16]. */
  applyVersionMax(nodeId: number): number;
  /** Something for it lies here that no socket has taken yet, or may: what was sent by reference is not to be changed. Where it is not there, always. */
  hasUnsent?(nodeId: number): boolean;
  /** Memory of a message that came from that node, which nobody looks at any more: it may serve for the next. */
  giveBack?(nodeId: number, memory: Uint8Array<ArrayBuffer>): void;
  /** Hands all queued bytes to the sockets: once per turn. */
  flush(): void;
}

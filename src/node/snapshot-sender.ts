/**
 * The leader's side of snapshots: streams of the state machine to members that are too far behind the log [29]. All streams share one handle
 * of the machine, opened when the first asks and given up with the last. Each has one read under way and some chunks beyond what the receiver
 * has written, so memory does not grow with the state. A stream outlives its connection: the offer is sent again, and the answer says where to go on.
 *
 * Called within turns only. What the machine's threads have done is left for the next turn by their callbacks.
 */
import { crc32 } from "node:zlib";
import type { MachineSnapshot } from "../machine/machine.ts";
import { encodeConfiguration } from "../raft/configuration.ts";
import type { SnapshotRequest } from "../raft/ready.ts";
import type { LogStart } from "../wire/batch.ts";
import type { SnapshotReplyMessage } from "../wire/messages.ts";
import { nextDigest } from "../wire/snapshot-messages.ts";
import type { SnapshotSideOptions } from "./snapshot-receiver.ts";

/** The machine's handle, and what every stream of it tells. */
interface Held {
  /** Names the snapshot in messages; unique in this term. */
  readonly id: number;
  readonly snapshot: MachineSnapshot;
  readonly start: LogStart;
  readonly configuration: Uint8Array;
  /** Digest through each chunk that was read so far, by whichever stream. */
  readonly digests: number[];
}

interface Stream {
  readonly to: number;
  /** Undefined while the machine prepares. */
  held: Held | undefined;
  /** The offer has left and is not answered, since when. */
  offeredMs: number | undefined;
  next: number;
  written: number;
  /** When it last got on; undefined before its first turn. */
  movedMs: number | undefined;
  reading: boolean;
  /** Read, and to be sent in this turn, unless the stream has gone elsewhere meanwhile; without a body it could not be read. */
  ready: { readonly offset: number; readonly body: Memory | undefined } | undefined;
  /** Of chunks that were sent by reference; and, once the sockets have taken all of them, for the next: left to the garbage collector, gigabytes would wait for it. */
  readonly lent: Memory[];
  readonly spare: Memory[];
}

type Memory = Uint8Array<ArrayBuffer>;

export interface SendingSnapshot {
  readonly to: number;
  readonly index: number;
  readonly sentBytes: number;
  readonly bytes: number;
}

/** An offer, or chunks that are not answered for so long, is followed by another offer. */
const offerEveryMs = 1_000;
/** Chunks whose memory is watched for being free again: more than there are in a window. */
const lentMax = 8;

export class SnapshotSender {
  readonly #options: SnapshotSideOptions;
  readonly #streams = new Map<number, Stream>();
  #held: Held | undefined;
  #preparing = false;
  /** While the machine prepares, or until what it prepared is held: it will not be older than this. */
  #preparedFrom: number | undefined;
  /** What the machine has prepared, until the next turn; null = it could not. */
  #prepared: MachineSnapshot | null | undefined;
  #lastId = 0;
  #nowMs = 0;
  /** Streams that ended with the receiver's "done", and those that were given up; bytes that were sent. */
  sent = 0;
  aborted = 0;
  /** How often in a row the log has gone past a snapshot before it was there: unless more of it is kept, none ever is. */
  outrun = 0;
  bytesSent = 0;

  constructor(options: SnapshotSideOptions) {
    this.#options = options;
  }

  get idle(): boolean {
    return this.#streams.size === 0 && !this.#preparing && this.#prepared === undefined;
  }

  /** The log from here on is needed to go on after a snapshot that is on its way; Infinity = none is. */
  get pinnedIndex(): number {
    return this.#held?.start.index ?? this.#preparedFrom ?? Infinity;
  }

  streams(): SendingSnapshot[] {
    return [...this.#streams.values()].map(({ to, held, written }) => ({
      to,
      index: held?.start.index ?? 0,
      sentBytes: written,
      bytes: held?.snapshot.bytes ?? 0,
    }));
  }

  /** The core wants one sent. */
  request({ to }: SnapshotRequest): void {
    if (this.#streams.has(to)) return;
    if (!this.#options.transport.connected(to)) return this.#options.raft.snapshotEnded(to);
    this.#streams.set(to, {
      to,
      held: undefined,
      offeredMs: undefined,
      next: 0,
      written: 0,
      movedMs: undefined,
      reading: false,
      ready: undefined,
      lent: [],
      spare: [],
    });
  }

  reply({ from, term, snapshot, state, offset }: SnapshotReplyMessage): void {
    const stream = this.#streams.get(from);
    const held = stream?.held;
    if (stream === undefined || held === undefined || held.id !== snapshot) return;
    if (term !== this.#options.raft.term) return;
    if (state === "done") {
      this.sent++;
      this.outrun = 0;
      return this.#end(stream, "taken over");
    }
    const { snapshotChunkBytes } = this.#options.limits;
    const isWhole = offset % snapshotChunkBytes === 0 || offset === held.snapshot.bytes;
    const isKnown = offset <= held.digests.length * snapshotChunkBytes;
    if (state === "failed" || offset > held.snapshot.bytes || !isWhole || !isKnown) {
      return this.#abort(stream, "the receiver cannot use it");
    }
    if (stream.offeredMs !== undefined) {
      stream.offeredMs = undefined;
      stream.next = stream.written = offset;
      stream.movedMs = this.#nowMs;
    } else if (offset > stream.written) {
      stream.written = offset;
      stream.next = Math.max(stream.next, offset);
      stream.movedMs = this.#nowMs;
    }
  }

  /** What is in flight is lost: as soon as it is back, it is asked how far it came. */
  peerDown(nodeId: number): void {
    const stream = this.#streams.get(nodeId);
    if (stream !== undefined) stream.offeredMs = -Infinity;
  }

  /** This node leads no more, or stops. */
  stop(): void {
    for (const stream of this.#streams.values()) stream.held = undefined;
    this.#streams.clear();
    this.outrun = 0;
    this.#release();
  }

  /** Within a turn: takes over what was prepared and read, sends what there is room for. */
  work(nowMs: number): void {
    this.#nowMs = nowMs;
    if (this.idle) return;
    const { raft } = this.#options;
    // Deposed in this very turn: an offer would pass this node off as the leader of the term that it has just met.
    if (raft.role !== "leader") this.stop();
    this.#takePrepared();
    // Whoever took this over could not go on.
    if (this.#held !== undefined && this.#held.start.index < raft.startIndex) {
      this.outrun++;
      this.#abortAll("the log has moved on");
    }
    for (const stream of this.#streams.values()) this.#work(stream);
    if (this.#streams.size === 0) this.#release();
  }

  #takePrepared(): void {
    const snapshot = this.#prepared;
    if (snapshot === undefined) return;
    this.#prepared = undefined;
    this.#preparedFrom = undefined;
    const waiting = [...this.#streams.values()].filter(({ held }) => held === undefined);
    if (snapshot === null) {
      for (const stream of waiting) this.#abort(stream, "the state machine has none");
      return;
    }
    const { raft } = this.#options;
    const start = raft.positionAt(snapshot.index);
    if (waiting.length === 0 || start === undefined) {
      snapshot.release();
      for (const stream of waiting) this.#abort(stream, "the log does not go on from it");
      return;
    }
    const configuration = encodeConfiguration(raft.configurationAt(start.index));
    this.#held = { id: ++this.#lastId, snapshot, start, configuration, digests: [] };
  }

  #work(stream: Stream): void {
    const { transport, limits, logger, group } = this.#options;
    if (stream.held === undefined) {
      const held = this.#held;
      if (held === undefined) return this.#prepare();
      stream.held = held;
      stream.offeredMs = -Infinity;
      const { bytes, index } = held.snapshot;
      logger.info({ group, to: stream.to, index, bytes }, "sending a snapshot");
    }
    stream.movedMs ??= this.#nowMs;
    if (this.#nowMs - stream.movedMs >= limits.snapshotStallMs) {
      return this.#abort(stream, "the receiver does not answer");
    }
    if (!transport.connected(stream.to)) {
      stream.offeredMs = -Infinity;
      return;
    }
    const { held, ready } = stream;
    if (ready !== undefined) {
      stream.ready = undefined;
      if (ready.body === undefined) {
        return this.#abortAll("the state machine cannot be read any more");
      }
      const isNext = ready.offset === stream.next;
      if (isNext && stream.offeredMs === undefined) this.#sendChunk(stream, held, ready.body);
    }
    const waitsSinceMs =
      stream.offeredMs ?? (stream.next > stream.written ? stream.movedMs : Infinity);
    if (this.#nowMs - waitsSinceMs >= offerEveryMs) this.#offer(stream, held);
    this.#read(stream, held);
  }

  #prepare(): void {
    if (this.#preparing || this.#prepared !== undefined) return;
    this.#preparing = true;
    this.#preparedFrom = this.#options.machine.durableIndex;
    this.#options.machine.prepareSnapshot((snapshot) => {
      this.#preparing = false;
      this.#prepared = snapshot ?? null;
      this.#options.wake();
    });
  }

  #offer(stream: Stream, { id, snapshot, start, configuration }: Held): void {
    const { group, nodeId, raft, transport } = this.#options;
    stream.offeredMs = this.#nowMs;
    transport.send({
      type: "snapshotOffer",
      group,
      from: nodeId,
      to: stream.to,
      term: raft.term,
      snapshot: id,
      start,
      bytes: snapshot.bytes,
      configuration,
    });
  }

  #read(stream: Stream, { snapshot }: Held): void {
    const { snapshotChunkBytes, snapshotWindowBytes } = this.#options.limits;
    if (stream.reading || stream.offeredMs !== undefined || stream.next >= snapshot.bytes) return;
    if (stream.next > stream.written && stream.next - stream.written >= snapshotWindowBytes) return;
    stream.reading = true;
    const offset = stream.next;
    const length = Math.min(snapshotChunkBytes, snapshot.bytes - offset);
    const read = (body: Memory | undefined): void => {
      this.#reclaim(stream);
      stream.reading = false;
      stream.ready = { offset, body };
      this.#options.wake();
    };
    snapshot.read(offset, length, read, stream.spare.pop());
  }

  /** Before anything else is sent in this turn. */
  #reclaim({ to, lent, spare }: Stream): void {
    if (this.#options.transport.hasUnsent?.(to) === false) spare.push(...lent.splice(0));
    else if (lent.length > lentMax) lent.shift();
  }

  #sendChunk(stream: Stream, held: Held, body: Memory): void {
    const { group, nodeId, raft, transport, limits } = this.#options;
    const offset = stream.next;
    const chunk = offset / limits.snapshotChunkBytes;
    const crc = crc32(body);
    const digest = nextDigest(chunk === 0 ? 0 : held.digests[chunk - 1]!, crc);
    held.digests[chunk] = digest;
    stream.next += body.byteLength;
    this.bytesSent += body.byteLength;
    transport.send({
      type: "snapshotChunk",
      group,
      from: nodeId,
      to: stream.to,
      term: raft.term,
      snapshot: held.id,
      offset,
      digest,
      crc,
      body,
    });
    stream.lent.push(body);
  }

  #abortAll(reason: string): void {
    for (const stream of this.#streams.values()) this.#abort(stream, reason);
    this.#release();
  }

  /** The handle has been in the way for too long: of compaction, or of checkpoints. */
  giveUp(reason: string): void {
    if (this.#held !== undefined) this.#abortAll(reason);
  }

  #abort(stream: Stream, reason: string): void {
    this.aborted++;
    this.#end(stream, reason);
  }

  /** The core asks again where the member still needs one. */
  #end(stream: Stream, why: string): void {
    const { logger, group, raft } = this.#options;
    this.#streams.delete(stream.to);
    const index = stream.held?.start.index;
    stream.held = undefined;
    logger.info({ group, to: stream.to, index }, `snapshot: ${why}`);
    raft.snapshotEnded(stream.to);
    if (this.#streams.size === 0) this.#release();
  }

  #release(): void {
    this.#held?.snapshot.release();
    this.#held = undefined;
    this.#prepared?.release();
    if (this.#prepared !== undefined) this.#prepared = undefined;
    if (!this.#preparing) this.#preparedFrom = undefined;
  }
}

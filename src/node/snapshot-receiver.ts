/**
 * The follower's side of snapshots: takes the chunks of one stream, in order, into a new file beside the live one, and once the whole is
 * verified and durable hands it over [25]. What comes twice or out of order is passed over; the answers say how much is written.
 *
 * Called within turns only. What the machine's threads have done is left for the next turn by their callbacks.
 */
import type { Limits } from "../limits.ts";
import type { IncomingSnapshot, StateMachine } from "../machine/machine.ts";
import type { Transport } from "../net/transport.ts";
import { decodeConfiguration } from "../raft/configuration.ts";
import type { Raft } from "../raft/raft.ts";
import type { Configuration } from "../raft/ready.ts";
import type { LogStart } from "../wire/batch.ts";
import type {
  SnapshotChunkMessage,
  SnapshotOfferMessage,
  SnapshotReplyMessage,
} from "../wire/messages.ts";
import { memoryOf, nextDigest } from "../wire/snapshot-messages.ts";

export interface SnapshotLogger {
  info(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

/** What both sides of snapshots are given. */
export interface SnapshotSideOptions {
  readonly group: number;
  readonly nodeId: number;
  readonly limits: Limits;
  readonly raft: Raft;
  readonly machine: StateMachine;
  readonly transport: Transport;
  /** Beyond it no snapshot is taken over [16]. */
  readonly applyVersionMax: number;
  readonly logger: SnapshotLogger;
  /** Asks for a turn. */
  readonly wake: () => void;
}

export interface SnapshotReceiverOptions extends SnapshotSideOptions {
  /** It is whole and durable: true when log and machine go over to it. */
  readonly install: (incoming: IncomingSnapshot, at: LogStart, members: Configuration) => boolean;
}

export interface ReceivingSnapshot {
  readonly from: number;
  readonly index: number;
  readonly receivedBytes: number;
  readonly bytes: number;
}

interface Receiving {
  readonly offer: SnapshotOfferMessage;
  readonly configuration: Configuration;
  readonly incoming: IncomingSnapshot;
  /** Of all chunks but the last; 0 before the first. */
  chunkBytes: number;
  digest: number;
  /** Taken from the stream; written; and of that answered. */
  taken: number;
  written: number;
  answered: number;
  /** When the last of it came; undefined until the turn sees to it. */
  movedMs: number | undefined;
  /** Verified and durable, or found unusable. */
  finished: boolean | undefined;
  finishing: boolean;
  failed: boolean;
  /** It is whole, but the disk too full to go over to it: when to look again. */
  waitsUntilMs: number;
  /** When it was last told how far it has come; undefined until the turn sees to it. */
  toldMs: number | undefined;
}

/** One that came whole and was of no use; who offers it again is put off. */
interface Unusable {
  readonly from: number;
  readonly index: number;
  readonly times: number;
  /** So many offers of it are declined before it is taken another time. */
  declines: number;
}

/** A large one takes long, and whoever has started the node watches. */
const tellEveryMs = 5_000;
/** Of unusable ones: there are some two offers a second, so in the end it is tried every few minutes. */
const declinesMax = 1_024;

export class SnapshotReceiver {
  readonly #options: SnapshotReceiverOptions;
  #receiving: Receiving | undefined;
  #unusable: Unusable | undefined;
  /** Taken over, and given up; bytes that were received. */
  installed = 0;
  discarded = 0;
  bytesReceived = 0;

  constructor(options: SnapshotReceiverOptions) {
    this.#options = options;
  }

  get idle(): boolean {
    return this.#receiving === undefined;
  }

  stream(): ReceivingSnapshot | undefined {
    if (this.#receiving === undefined) return undefined;
    const { offer, written } = this.#receiving;
    return {
      from: offer.from,
      index: offer.start.index,
      receivedBytes: written,
      bytes: offer.bytes,
    };
  }

  offered(offer: SnapshotOfferMessage): void {
    const { raft, machine, logger, group } = this.#options;
    const verdict = raft.snapshotOffered(offer.from, offer.term, offer.start);
    if (verdict === "refused") return;
    if (verdict === "held") {
      if (this.#isOf(offer)) this.discard("the log has it by now");
      return this.#reply(offer, "done", offer.bytes);
    }
    const current = this.#receiving;
    if (current !== undefined) {
      // It goes on where it was, or ends with what is under way already.
      if (this.#isOf(offer)) return this.#answer(current);
      this.discard("another one is offered");
    }
    if (this.#declines(offer)) return this.#reply(offer, "failed", 0);
    const configuration = decodeConfiguration(offer.configuration);
    const incoming = configuration && machine.receiveSnapshot(offer.bytes);
    if (configuration === undefined || incoming === undefined) {
      return this.#reply(offer, "failed", 0);
    }
    this.#receiving = {
      offer,
      configuration,
      incoming,
      chunkBytes: 0,
      digest: 0,
      taken: 0,
      written: 0,
      answered: 0,
      movedMs: undefined,
      finished: undefined,
      finishing: false,
      failed: false,
      waitsUntilMs: -Infinity,
      toldMs: undefined,
    };
    const { bytes, from } = offer;
    logger.info({ group, from, index: offer.start.index, bytes }, "receiving a snapshot");
    this.#reply(offer, "receiving", 0);
  }

  chunk(chunk: SnapshotChunkMessage): void {
    this.#take(chunk);
    const memory = memoryOf(chunk.body);
    if (memory !== undefined) this.#options.transport.giveBack?.(chunk.from, memory);
  }

  /** What is wanted of it is copied. */
  #take(chunk: SnapshotChunkMessage): void {
    const receiving = this.#receiving;
    if (receiving === undefined || !this.#isOf(chunk)) return;
    const { offset, body, crc, digest } = chunk;
    const { offer, incoming } = receiving;
    // One that is there already moves nothing: where the disk takes no more, what was begun ends in time.
    if (offset !== receiving.taken) return;
    receiving.movedMs = undefined;
    const end = offset + body.byteLength;
    if (receiving.chunkBytes === 0) receiving.chunkBytes = body.byteLength;
    const isLast = end === offer.bytes;
    const fits = isLast
      ? body.byteLength <= receiving.chunkBytes
      : body.byteLength === receiving.chunkBytes && end < offer.bytes;
    // More than any window: the sender does not wait for the answers.
    const hurried = end - receiving.written > this.#options.limits.snapshotReceiveBytesMax;
    const expected = nextDigest(receiving.digest, crc);
    if (!fits || hurried || expected !== digest) return this.#fail("its chunks do not fit");
    receiving.digest = digest;
    receiving.taken = end;
    this.bytesReceived += body.byteLength;
    incoming.write(offset, body, (ok) => {
      if (ok) receiving.written = end;
      else receiving.failed = true;
      this.#options.wake();
    });
  }

  /** Within a turn: answers for what was written, and ends what is finished. */
  work(nowMs: number): void {
    const receiving = this.#receiving;
    if (receiving === undefined) return;
    const { offer, incoming } = receiving;
    // What is whole is of use all the same.
    const isDeposed = offer.term < this.#options.raft.term && !receiving.finishing;
    if (isDeposed) return this.discard("the sender leads no more");
    if (receiving.failed) return this.#fail("the disk is full");
    if (receiving.written > receiving.answered) this.#answer(receiving);
    if (receiving.finished !== undefined) return this.#finished(receiving, nowMs);
    if (receiving.written === offer.bytes && !receiving.finishing) {
      receiving.finishing = true;
      const { chunkBytes, digest } = receiving;
      const { index } = offer.start;
      const { applyVersionMax } = this.#options;
      const { bytes } = offer;
      incoming.finish({ index, bytes, chunkBytes, digest, applyVersionMax }, (ok) => {
        receiving.finished = ok;
        this.#options.wake();
      });
    }
    receiving.toldMs ??= nowMs;
    if (nowMs - receiving.toldMs >= tellEveryMs) this.#tell(receiving, nowMs);
    receiving.movedMs ??= nowMs;
    const isLate = nowMs - receiving.movedMs >= this.#options.limits.snapshotStallMs;
    if (isLate && !receiving.finishing) this.discard("the sender is gone");
  }

  #finished(receiving: Receiving, nowMs: number): void {
    const { offer, incoming, configuration } = receiving;
    if (receiving.finished !== true) {
      return this.#refuse(
        "it is not what was sent, or no sound state, or beyond what this build can apply, or the disk is full",
      );
    }
    if (nowMs < receiving.waitsUntilMs) return;
    const opening = incoming.open();
    if (opening === "noSpace") return this.#waitForSpace(receiving, nowMs);
    if (opening === "unusable") return this.#refuse("it is no sound state");
    this.#receiving = undefined;
    this.#unusable = undefined;
    if (this.#options.install(incoming, offer.start, configuration)) this.installed++;
    else {
      this.discarded++;
      incoming.discard();
    }
    this.#reply(offer, "done", offer.bytes);
  }

  #tell(receiving: Receiving, nowMs: number): void {
    receiving.toldMs = nowMs;
    const { group, logger } = this.#options;
    const { from, start, bytes } = receiving.offer;
    const fields = { group, from, index: start.index, receivedBytes: receiving.written, bytes };
    const isWhole = receiving.written === bytes;
    logger.info(fields, isWhole ? "checking a snapshot" : "still receiving a snapshot");
  }

  #waitForSpace(receiving: Receiving, nowMs: number): void {
    const { group, logger, limits } = this.#options;
    const { from, start } = receiving.offer;
    if (receiving.waitsUntilMs === -Infinity) {
      const fields = { group, from, index: start.index };
      logger.error(fields, "the disk is too full to go over to the snapshot: free some space");
    }
    receiving.waitsUntilMs = nowMs + limits.diskFullRetryMs;
  }

  /** Gives up what has come so far. */
  discard(why: string): void {
    const receiving = this.#receiving;
    if (receiving === undefined) return;
    this.#receiving = undefined;
    this.discarded++;
    receiving.incoming.discard();
    const { group, logger } = this.#options;
    const { from, start } = receiving.offer;
    logger.info({ group, from, index: start.index }, `snapshot given up: ${why}`);
  }

  #fail(why: string): void {
    const { offer } = this.#receiving!;
    this.discard(why);
    this.#reply(offer, "failed", 0);
  }

  /** Nothing of it was installed. Whoever has sent it has damaged data, or means harm. */
  #refuse(why: string): void {
    const { offer } = this.#receiving!;
    const { from, start } = offer;
    const isAgain = this.#unusable?.from === from && this.#unusable.index === start.index;
    const times = isAgain ? this.#unusable!.times + 1 : 1;
    const declines = Math.min(2 ** times, declinesMax);
    this.#unusable = { from, index: start.index, times, declines };
    const { group, logger } = this.#options;
    logger.error({ group, from, index: start.index }, `snapshot refused: ${why}`);
    this.#fail(why);
  }

  #declines({ from, start }: SnapshotOfferMessage): boolean {
    const unusable = this.#unusable;
    if (unusable?.from !== from || unusable.index !== start.index) return false;
    return unusable.declines-- > 0;
  }

  #isOf({ from, term, snapshot }: SnapshotOfferMessage | SnapshotChunkMessage): boolean {
    const offer = this.#receiving?.offer;
    return offer?.from === from && offer.term === term && offer.snapshot === snapshot;
  }

  #answer(receiving: Receiving): void {
    receiving.answered = receiving.written;
    this.#reply(receiving.offer, "receiving", receiving.written);
  }

  #reply(
    { from, term, snapshot }: SnapshotOfferMessage,
    state: SnapshotReplyMessage["state"],
    offset: number,
  ): void {
    const { group, nodeId, transport } = this.#options;
    transport.send({
      type: "snapshotReply",
      group,
      from: nodeId,
      to: from,
      term,
      snapshot,
      state,
      offset,
    });
  }
}

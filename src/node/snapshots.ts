/**
 * Snapshots of one group: what it sends while it leads, what it receives while it follows, and the moment at which a received one takes the
 * place of log and machine. That moment is the transaction of the turn that writes log start and pointer [25]: machine and log go over once it is
 * visible, and what was there before stays on the disk until it is durable.
 */
import type { IncomingSnapshot } from "../machine/machine.ts";
import { encodeConfiguration } from "../raft/configuration.ts";
import type { Restore } from "../raft/ready.ts";
import type { StoreRestore } from "../storage/group-log.ts";
import type { SnapshotFigures } from "../telemetry/group-metrics.ts";
import type {
  SnapshotChunkMessage,
  SnapshotOfferMessage,
  SnapshotReplyMessage,
} from "../wire/messages.ts";
import type { SnapshotStatus } from "../wire/status.ts";
import { SnapshotReceiver, type SnapshotSideOptions } from "./snapshot-receiver.ts";
import { type SendingSnapshot, SnapshotSender } from "./snapshot-sender.ts";

export class Snapshots {
  readonly #options: SnapshotSideOptions;
  /** Each made when it is first needed: most groups never need them. */
  #sender: SnapshotSender | undefined;
  #receiver: SnapshotReceiver | undefined;
  /** Taken over by the core; its transaction is not visible yet. */
  #installing: IncomingSnapshot | undefined;
  /** The store's sequence number at which the newest pointer becomes durable; Infinity = it is. */
  #pointerSeq = Infinity;

  constructor(options: SnapshotSideOptions) {
    this.#options = options;
  }

  get sender(): SnapshotSender {
    this.#sender ??= new SnapshotSender(this.#options);
    return this.#sender;
  }

  get receiver(): SnapshotReceiver {
    this.#receiver ??= new SnapshotReceiver({
      ...this.#options,
      install: (incoming, start, configuration) => {
        // One at a time: the one before is not visible yet, as the disk is full.
        if (this.#installing !== undefined) return false;
        if (!this.#options.raft.restored(start, configuration)) return false;
        this.#installing = incoming;
        return true;
      },
    });
    return this.#receiver;
  }

  get idle(): boolean {
    return !this.sends && this.#receiver?.idle !== false;
  }

  /** One is on its way to another member, or prepared for that. */
  get sends(): boolean {
    return this.#sender?.idle === false;
  }

  /** How often in a row the log has gone past one that was prepared, before that was there. */
  get outrun(): number {
    return this.#sender?.outrun ?? 0;
  }

  /** The log from here on is needed to go on after one that is on its way; Infinity = none is. */
  get pinnedIndex(): number {
    return this.#sender?.pinnedIndex ?? Infinity;
  }

  streams(): SendingSnapshot[] {
    return this.#sender?.streams() ?? [];
  }

  step(message: SnapshotOfferMessage | SnapshotChunkMessage | SnapshotReplyMessage): void {
    if (message.type === "snapshotReply") this.sender.reply(message);
    else if (message.type === "snapshotChunk") this.receiver.chunk(message);
    else this.receiver.offered(message);
  }

  roleChanged(leads: boolean): void {
    if (leads) this.#receiver?.discard("this node leads");
    else this.#sender?.stop();
  }

  stop(): void {
    this.#sender?.stop();
    this.#receiver?.discard("the group stops");
  }

  work(nowMs: number): void {
    this.#sender?.work(nowMs);
    this.#receiver?.work(nowMs);
  }

  /** For the transaction of this turn. */
  write({ start, configuration }: Restore): StoreRestore {
    const machineGeneration = this.#installing!.generation;
    return { start, configuration: encodeConfiguration(configuration), machineGeneration };
  }

  /** That transaction is visible. */
  written({ start }: Restore, appendSeq: number): void {
    const { machine, logger, group } = this.#options;
    machine.recoverFromSnapshot(this.#installing!);
    this.#installing = undefined;
    this.#pointerSeq = appendSeq;
    logger.info({ group, index: start.index }, "snapshot installed");
  }

  synced(syncedSeq: number): void {
    if (syncedSeq < this.#pointerSeq) return;
    this.#pointerSeq = Infinity;
    this.#options.machine.snapshotDurable();
  }

  figures(): SnapshotFigures {
    const { sent = 0, aborted = 0, bytesSent = 0 } = this.#sender ?? {};
    const { installed = 0, discarded = 0, bytesReceived = 0 } = this.#receiver ?? {};
    return { sent, installed, givenUp: aborted + discarded, bytesSent, bytesReceived };
  }

  /** Nothing where none is on its way. */
  statusPart(): { readonly snapshots?: SnapshotStatus } {
    if (this.idle) return {};
    const receiving = this.#receiver?.stream();
    const sending = this.streams();
    return { snapshots: { sending, ...(receiving === undefined ? {} : { receiving }) } };
  }
}

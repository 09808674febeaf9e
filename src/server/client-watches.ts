/**
 * The watches of one client connection. Changes are encoded straight into its send buffer, as many as the client lets come and the connection takes;
 * the log keeps the others.
 */
import { BargeError, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { Connection } from "../net/connection.ts";
import {
  decodeWatchCommand,
  encodeWatchChanges,
  encodeWatchEnded,
  type WatchStart,
} from "../wire/watch-messages.ts";
import type { Changes, Groups, WatchHandle, Watcher } from "./groups.ts";

export interface ClientWatchesOptions {
  readonly groups: Groups;
  readonly limits: Limits;
  readonly connection: Connection;
  /** A frame lies in the send buffer. */
  readonly sent: () => void;
}

export class ClientWatches {
  readonly options: ClientWatchesOptions;
  readonly #watches = new Map<number, ClientWatch>();

  constructor(options: ClientWatchesOptions) {
    this.options = options;
  }

  /** False where the frame is malformed, or the number of a watch is taken. */
  frame(type: number, payload: Uint8Array, fieldsBytes: number): boolean {
    const command = decodeWatchCommand(type, payload, fieldsBytes);
    if (command === undefined) return false;
    const watch = this.#watches.get(command.watch);
    if (command.type === "watch") {
      if (watch !== undefined) return false;
      this.#start(command);
      return true;
    }
    // One that has ended here, which the client has not heard yet, is no error.
    if (watch === undefined) return true;
    if (command.type === "watchCredit") watch.credited(command.bytes);
    else this.#stop(watch);
    return true;
  }

  /** The connection is gone. */
  closeAll(): void {
    for (const watch of this.#watches.values()) watch.handle?.close();
    this.#watches.clear();
  }

  ended(watch: ClientWatch): void {
    this.#watches.delete(watch.id);
  }

  #start(start: WatchStart): void {
    const { groups, limits } = this.options;
    const watch = new ClientWatch(this, start);
    try {
      if (this.#watches.size >= limits.connectionWatchesMax) {
        const text = `A connection has at most ${limits.connectionWatchesMax} watches.`;
        throw new BargeError("overloaded", text);
      }
      if (start.prefix.byteLength > limits.keyBytesMax) {
        throw new BargeError("too_large", `A key has at most ${limits.keyBytesMax} bytes.`);
      }
      this.#watches.set(watch.id, watch);
      watch.handle = groups.watch(start.group, start, watch);
    } catch (error) {
      if (!(error instanceof BargeError)) throw error;
      watch.ended(Math.max(0, start.from - 1), error);
    }
  }

  #stop(watch: ClientWatch): void {
    watch.handle?.close();
    this.#watches.delete(watch.id);
  }
}

class ClientWatch implements Watcher {
  readonly id: number;
  handle: WatchHandle | undefined;
  readonly #watches: ClientWatches;
  readonly #windowBytesMax: number;
  readonly #queueBytesMax: number;
  /** Bytes that may still be sent; below zero where the last frame went over. */
  #credit: number;

  constructor(watches: ClientWatches, { watch, windowBytes }: WatchStart) {
    this.id = watch;
    this.#watches = watches;
    const { watchWindowBytesMax, watchQueueBytesMax } = watches.options.limits;
    this.#windowBytesMax = watchWindowBytesMax;
    this.#queueBytesMax = watchQueueBytesMax;
    this.#credit = Math.min(windowBytes, watchWindowBytesMax);
  }

  get hasRoom(): boolean {
    return this.#credit > 0 && this.#connection.sendQueueBytes <= this.#queueBytesMax;
  }

  get #connection(): Connection {
    return this.#watches.options.connection;
  }

  credited(bytes: number): void {
    this.#credit = Math.min(this.#credit + bytes, this.#windowBytesMax);
    this.handle?.resume();
  }

  changed(revision: number, changes: Changes): void {
    this.#credit -= encodeWatchChanges(this.#connection.out, this.id, revision, changes);
    this.#watches.options.sent();
  }

  progressed(revision: number): void {
    encodeWatchChanges(this.#connection.out, this.id, revision, undefined);
    this.#watches.options.sent();
  }

  ended(revision: number, error: BargeError): void {
    const { number } = errorTable[error.code];
    encodeWatchEnded(this.#connection.out, this.id, revision, number, error.message);
    this.#watches.ended(this);
    this.#watches.options.sent();
  }
}

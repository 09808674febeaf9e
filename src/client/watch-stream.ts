/**
 * One watch as its program iterates it: what has come and was not taken yet, and from where to go on when the connection to a node is lost. Which node
 * serves it is the business of watches.ts.
 */
import { BargeError } from "../errors.ts";
import { readWatchChanges, type WatchChanges } from "../wire/watch-messages.ts";
import type { CodecName } from "./api.ts";
import { type Deferred, deferred } from "./deferred.ts";
import type { ValueCodec } from "./value-codec.ts";
import type { Change, ChangeBatch, Watch } from "./watch-api.ts";

export interface WatchStreamOptions {
  readonly prefix: Uint8Array;
  readonly exact: boolean;
  /** 0 = from now on. */
  readonly from: number;
  readonly windowBytes: number;
  readonly giveUpMs: number;
  readonly codec: ValueCodec;
  /** So many bytes of changes were taken. */
  readonly taken: (stream: WatchStream<CodecName>, bytes: number) => void;
  /** The program has had enough. */
  readonly closed: (stream: WatchStream<CodecName>) => void;
}

export class WatchStream<C extends CodecName> implements Watch<C> {
  readonly options: WatchStreamOptions;
  /** Received, and not taken yet. */
  #batches: WatchChanges[] = [];
  #queuedBytes = 0;
  /** Up to here everything was received; -1 = nobody has said where the watch begins. */
  received: number;
  /** The node that serves it now has told something. */
  heard = false;
  #revision: number;
  #error: BargeError | undefined;
  #ended = false;
  #iterated = false;
  #wanted: Deferred<void> | undefined;

  constructor(options: WatchStreamOptions) {
    this.options = options;
    this.received = this.#revision = options.from - 1;
  }

  get revision(): number {
    return this.#revision;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** What a node may send before more is taken. */
  get roomBytes(): number {
    return Math.max(0, this.options.windowBytes - this.#queuedBytes);
  }

  /* ---------------------------------------------------------------- from a node */

  add(batch: WatchChanges): void {
    if (this.#ended || batch.revision < this.received) return;
    this.received = batch.revision;
    this.heard = true;
    const last = this.#batches.at(-1);
    // How far it has come replaces itself, so that nothing grows while nobody takes anything.
    if (batch.count === 0 && last?.count === 0) this.#batches[this.#batches.length - 1] = batch;
    else this.#batches.push(batch);
    this.#queuedBytes += batch.changes.byteLength;
    this.#wanted?.resolve();
  }

  /** The last word; what has come before is still handed out. */
  fail(error: BargeError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.options.closed(this as WatchStream<CodecName>);
    this.#wanted?.resolve();
  }

  /* ---------------------------------------------------------------- to the program */

  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#batches = [];
    this.options.closed(this as WatchStream<CodecName>);
    this.#wanted?.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Change<C>, void> {
    this.#begin();
    try {
      for (;;) {
        const batch = this.#batches.shift() ?? (await this.#next());
        if (batch === undefined) break;
        for (const change of this.#decode(batch)) {
          // Of the same revision there may be more to come.
          this.#revision = Math.max(this.#revision, change.revision - 1);
          yield change;
        }
        this.#took(batch);
      }
    } finally {
      this.close();
    }
    if (this.#error !== undefined) throw this.#error;
  }

  async *batches(): AsyncGenerator<ChangeBatch<C>, void> {
    this.#begin();
    try {
      for (;;) {
        const batch = this.#batches.shift() ?? (await this.#next());
        if (batch === undefined) break;
        yield { changes: this.#decode(batch), revision: batch.revision };
        this.#took(batch);
      }
    } finally {
      this.close();
    }
    if (this.#error !== undefined) throw this.#error;
  }

  #begin(): void {
    if (this.#iterated) throw new BargeError("bad_request", "a watch is iterated once");
    this.#iterated = true;
  }

  /** Waits for a batch; undefined where the watch has ended and there is none. */
  async #next(): Promise<WatchChanges | undefined> {
    while (this.#batches.length === 0 && !this.#ended) {
      this.#wanted = deferred();
      await this.#wanted.promise;
    }
    return this.#batches.shift();
  }

  /** The program asks for what comes after it. */
  #took({ revision, changes }: WatchChanges): void {
    this.#revision = revision;
    const { byteLength } = changes;
    this.#queuedBytes -= byteLength;
    if (byteLength > 0 && !this.#ended) {
      this.options.taken(this as WatchStream<CodecName>, byteLength);
    }
  }

  #decode(batch: WatchChanges): Change<C>[] {
    const { codec } = this.options;
    return readWatchChanges(batch).map(({ revision, key, value }): Change<C> => {
      if (value === undefined) return { type: "delete", key: key.slice(), revision };
      const decoded = codec.decode(value);
      return { type: "put", key: key.slice(), value: decoded, revision } as Change<C>;
    });
  }
}

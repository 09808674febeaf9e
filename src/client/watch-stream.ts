/**
 * One watch as its program iterates it: what has come and was not taken yet, and from where to go on when the connection to a node is lost. Which node
 * serves it is the business of watches.ts.
 */
import { BargeError } from "../errors.ts";
import { WatchChangeReader, type WatchChanges } from "../wire/watch-messages.ts";
import type { CodecName } from "./api.ts";
import { type Deferred, deferred } from "./deferred.ts";
import type { ValueCodec } from "./value-codec.ts";
import type { Change, ChangeBatch, Watch } from "./watch-api.ts";
import { ChangeIterator } from "./watch-iterator.ts";

export interface WatchStreamOptions {
  readonly group: number;
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
  /** Handed out: taken once the program asks for what comes after it. */
  #handed: WatchChanges | undefined;
  /** Who asked for a batch before there was one. */
  readonly #askers: Deferred<IteratorResult<ChangeBatch<C>, void>>[] = [];

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
    this.#queuedBytes += batch.changes.byteLength;
    const asker = this.#askers.shift();
    if (asker !== undefined) return this.#answer(asker, batch);
    const last = this.#batches.at(-1);
    // How far it has come replaces itself, so that nothing grows while nobody takes anything.
    if (batch.count === 0 && last?.count === 0) this.#batches[this.#batches.length - 1] = batch;
    else this.#batches.push(batch);
  }

  /** The last word; what has come before is still handed out. */
  fail(error: BargeError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.options.closed(this as WatchStream<CodecName>);
    this.#endAskers();
  }

  /* ---------------------------------------------------------------- to the program */

  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#batches = [];
    this.options.closed(this as WatchStream<CodecName>);
    this.#endAskers();
  }

  [Symbol.asyncIterator](): AsyncIterator<Change<C>, void> {
    return new ChangeIterator(this.#iterate(), (change) => {
      // Of the same revision there may be more to come.
      this.#revision = Math.max(this.#revision, change.revision - 1);
    });
  }

  batches(): AsyncIterable<ChangeBatch<C>> {
    return { [Symbol.asyncIterator]: () => this.#iterate() };
  }

  /** By hand: a thousand watches wake up for little each, and a generator costs several times as much. */
  #iterate(): AsyncIterator<ChangeBatch<C>, void> {
    if (this.#iterated) throw new BargeError("bad_request", "a watch is iterated once");
    this.#iterated = true;
    return {
      next: () => this.#next(),
      return: () => {
        this.close();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  #next(): Promise<IteratorResult<ChangeBatch<C>, void>> {
    this.#tookHanded();
    const asker = deferred<IteratorResult<ChangeBatch<C>, void>>();
    const batch = this.#batches.shift();
    if (batch !== undefined) this.#answer(asker, batch);
    else {
      this.#askers.push(asker);
      if (this.#ended) this.#endAskers();
    }
    return asker.promise;
  }

  #answer(asker: Deferred<IteratorResult<ChangeBatch<C>, void>>, batch: WatchChanges): void {
    // More than one may have been asked for at once.
    this.#tookHanded();
    this.#handed = batch;
    try {
      const changes = this.#decode(batch);
      asker.resolve({ done: false, value: { changes, revision: batch.revision } });
    } catch (error) {
      asker.reject(error);
      this.close();
    }
  }

  /** There will be no batch any more: the first hears why, where that is an error. */
  #endAskers(): void {
    for (const asker of this.#askers.splice(0)) {
      const error = this.#error;
      this.#error = undefined;
      if (error === undefined) asker.resolve({ done: true, value: undefined });
      else asker.reject(error);
    }
  }

  /** The program asks for what comes after it. */
  #tookHanded(): void {
    if (this.#handed === undefined) return;
    const { revision, changes } = this.#handed;
    this.#handed = undefined;
    this.#revision = revision;
    const { byteLength } = changes;
    this.#queuedBytes -= byteLength;
    if (byteLength > 0 && !this.#ended) {
      this.options.taken(this as WatchStream<CodecName>, byteLength);
    }
  }

  #decode(batch: WatchChanges): Change<C>[] {
    const { codec } = this.options;
    const { changes } = batch;
    const reader = new WatchChangeReader(batch);
    const found: Change<C>[] = [];
    while (reader.next()) {
      const { revision, keyAt, valueAt, end } = reader;
      const key = changes.slice(keyAt, valueAt);
      if (reader.deleted) found.push({ type: "delete", key, revision });
      else {
        const value = codec.decode(changes, valueAt, end);
        found.push({ type: "put", key, value, revision } as Change<C>);
      }
    }
    return found;
  }
}

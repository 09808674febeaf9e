/**
 * Snapshots of the application: each is a handle that it gave, and streams that it gives for the handle, as often as they are asked for. Nothing of them is
 * kept on this side but some chunks, and whoever reads slowly slows the application's stream.
 *
 * The bytes must be the same each time: their crc is known once one stream came to its end, and any other that ends differently is not handed out to
 * its end. Where a stream breaks off before that, or another instance of the application answers, the snapshot is lost.
 */
import { crc32 } from "node:zlib";
import type { Limits } from "../../limits.ts";
import type { MachineSnapshot } from "../machine.ts";
import type { AppExchange } from "./app-calls.ts";
import type { AppLink, AppLogger } from "./app-link.ts";
import { ByteRing } from "./byte-ring.ts";
import { errorText, jsonType, readHandle } from "./contract.ts";

type Prepared = (snapshot: MachineSnapshot | undefined) => void;
type Memory = Uint8Array<ArrayBuffer>;
type ReadDone = (bytes: Memory | undefined) => void;

export interface AppSnapshotsOptions {
  readonly group: number;
  readonly link: AppLink;
  readonly limits: Limits;
  readonly logger: AppLogger;
  /** Runs it in a later turn. */
  readonly later: (action: () => void) => void;
}

interface Unneeded {
  readonly handle: Uint8Array;
  /** Another one knows nothing of it. */
  readonly instance: string | undefined;
  attempts: number;
  asked: boolean;
}

const handleBytesMax = 65_536;
const releaseAttempts = 3;

export class AppSnapshots {
  readonly #options: AppSnapshotsOptions;
  #waiting: Prepared[] = [];
  readonly #handles = new Set<AppHandle>();
  /** Handles that the application should hear of that nobody needs them. */
  #unneeded: Unneeded[] = [];
  /** Refuses those for whom a handle is being asked for. */
  #preparing: () => void = () => {};
  /** Since the process began. */
  prepared = 0;

  constructor(options: AppSnapshotsOptions) {
    this.#options = options;
  }

  get wanted(): boolean {
    return this.#waiting.length > 0;
  }

  /** Handles that are held. */
  get size(): number {
    return this.#handles.size;
  }

  want(done: Prepared): void {
    this.#waiting.push(done);
  }

  /** Nobody gets one now. */
  refuse(): void {
    for (const done of this.#waiting.splice(0)) this.#options.later(() => done(undefined));
  }

  /** Serves from one that is held and not older than `index`. */
  share(index: number): void {
    if (!this.wanted) return;
    for (const handle of this.#handles) {
      if (!handle.isReady || handle.index < index) continue;
      for (const done of this.#waiting.splice(0)) handle.hand(done);
      return;
    }
  }

  /**
   * Asks the application for a handle on what it has now, which is the state at `index`; nothing else is asked of it meanwhile that excludes that. `head` goes
   * before its own bytes. `ended` runs with the answer.
   */
  prepare(
    index: number,
    head: Uint8Array,
    ended: (problem: string | undefined, status: number) => void,
  ): void {
    const waiting = this.#waiting.splice(0);
    const refuse = (): void => {
      for (const done of waiting.splice(0)) done(undefined);
    };
    this.#preparing = refuse;
    const events = {
      failed: (reason: string, status: number) => {
        refuse();
        ended(`PrepareSnapshot: ${reason}`, status);
      },
      replied: ({ body }: { readonly body: Uint8Array }) => {
        const bytes = readHandle(body, handleBytesMax);
        const { instance } = this.#options.link;
        this.prepared++;
        ended(undefined, 0);
        const handle = new AppHandle(index, head, bytes, this.#options, () => {
          this.#handles.delete(handle);
          this.#unneeded.push({ handle: bytes, instance, attempts: 0, asked: false });
        });
        this.#handles.add(handle);
        for (const done of waiting.splice(0)) handle.hand(done);
        handle.count();
      },
    };
    this.#options.link.ask({ name: "PrepareSnapshot" }, events);
  }

  work(): void {
    const { link } = this.#options;
    if (!link.isOpen) return;
    if (this.#unneeded.length === 0) return;
    this.#unneeded = this.#unneeded.filter(({ instance }) => instance === link.instance);
    for (const unneeded of this.#unneeded) {
      if (!unneeded.asked) this.#release(unneeded);
    }
  }

  #forget(unneeded: Unneeded): void {
    const at = this.#unneeded.indexOf(unneeded);
    if (at >= 0) this.#unneeded.splice(at, 1);
  }

  #release(unneeded: Unneeded): void {
    unneeded.asked = true;
    unneeded.attempts++;
    const ended = (): void => this.#forget(unneeded);
    const { handle: body } = unneeded;
    this.#options.link.ask(
      { name: "ReleaseSnapshot", contentType: jsonType, body },
      {
        replied: ended,
        failed: (_, status) => {
          // It has none such, or knows no such callback.
          if (status > 0 || unneeded.attempts >= releaseAttempts) ended();
          else unneeded.asked = false;
        },
      },
    );
  }

  /** What is under way is void, and whether the handles of before are known any more is not. */
  closed(): void {
    this.#preparing();
    this.#preparing = () => {};
    for (const handle of this.#handles) handle.lost("the application was lost meanwhile");
    for (const unneeded of this.#unneeded) unneeded.asked = false;
  }
}

class AppHandle {
  readonly index: number;
  readonly #head: Uint8Array;
  readonly #handle: Uint8Array;
  readonly #options: AppSnapshotsOptions;
  readonly #unneeded: () => void;
  readonly #streams = new Set<SaveStream>();
  #wanting: Prepared[] = [];
  #users = 0;
  /** Undefined until it is known. */
  #appBytes: number | undefined;
  #crc: number | undefined;
  #isLost = false;

  constructor(
    index: number,
    head: Uint8Array,
    handle: Uint8Array,
    options: AppSnapshotsOptions,
    unneeded: () => void,
  ) {
    this.index = index;
    this.#head = head;
    this.#handle = handle;
    this.#options = options;
    this.#unneeded = unneeded;
  }

  /** How long it is is known. */
  get isReady(): boolean {
    return this.#appBytes !== undefined && !this.#isLost;
  }

  hand(done: Prepared): void {
    this.#users++;
    if (this.isReady) this.#options.later(() => done(this.#snapshot()));
    else this.#wanting.push(done);
  }

  /** How long it is says either its first answer, or its end. */
  count(): void {
    if (this.#users === 0) return this.#unneeded();
    const stream = this.#open(0);
    stream.counts = true;
  }

  #counted(appBytes: number): void {
    this.#appBytes = appBytes;
    for (const done of this.#wanting.splice(0)) this.#options.later(() => done(this.#snapshot()));
  }

  #snapshot(): MachineSnapshot {
    let isReleased = false;
    return {
      index: this.index,
      bytes: this.#head.byteLength + (this.#appBytes ?? 0),
      read: (offset, length, done, memory) => this.#read(offset, length, done, memory),
      release: () => {
        if (isReleased) throw new Error("http: a snapshot is released twice");
        isReleased = true;
        this.#users--;
        if (this.#users === 0) this.#end();
      },
    };
  }

  #end(): void {
    for (const stream of this.#streams) stream.cancel();
    this.#streams.clear();
    if (this.#isLost) return;
    this.#isLost = true;
    this.#unneeded();
  }

  #read(offset: number, length: number, done: ReadDone, memory: Memory | undefined): void {
    const { byteLength } = this.#head;
    const head = this.#head.subarray(offset, offset + length);
    const rest = length - head.byteLength;
    if (rest === 0) return this.#options.later(() => done(head.slice()));
    if (head.byteLength === 0) return this.#readApp(offset - byteLength, rest, done, memory);
    const behindHead: ReadDone = (bytes) => done(bytes && Buffer.concat([head, bytes]));
    this.#readApp(0, rest, behindHead, undefined);
  }

  #readApp(offset: number, length: number, done: ReadDone, memory: Memory | undefined): void {
    if (this.#isLost) return this.#options.later(() => done(undefined));
    let stream: SaveStream | undefined;
    for (const open of this.#streams) {
      if (open.position === offset && !open.isWanted) stream = open;
    }
    stream ??= this.#openFor(offset);
    stream.want(memory?.byteLength === length ? memory : new Uint8Array(length), done);
  }

  #openFor(offset: number): SaveStream {
    for (const open of this.#streams) {
      if (this.#streams.size < this.#options.limits.appSnapshotStreamsMax) break;
      if (open.isWanted) continue;
      open.cancel();
      this.#streams.delete(open);
    }
    return this.#open(offset);
  }

  #open(offset: number): SaveStream {
    const { limits, link, later } = this.#options;
    const stream: SaveStream = new SaveStream(offset, limits.snapshotWindowBytes, later, {
      length: (bytes) => {
        if (stream.counts) this.#counted(bytes);
        else if (bytes !== this.#appBytes) this.lost(differs);
      },
      ended: (bytes, crc) => {
        this.#crc ??= crc;
        if (this.#appBytes === undefined) {
          this.#streams.delete(stream);
          this.#counted(bytes);
        } else if (bytes !== this.#appBytes || crc !== this.#crc) this.lost(differs);
      },
      failed: (reason) => {
        this.#streams.delete(stream);
        stream.cancel();
        // Without the crc nobody could tell whether the next stream goes on where this one was.
        this.lost(reason);
      },
    });
    this.#streams.add(stream);
    const asking = {
      name: "SaveSnapshot",
      contentType: jsonType,
      body: this.#handle,
      timeoutMs: limits.appSnapshotStallMs,
      isCopied: true,
    };
    stream.exchange = link.stream(asking, stream);
    return stream;
  }

  /** No more of it can be had. */
  lost(reason: string): void {
    if (this.#isLost) return;
    const { logger, group, later } = this.#options;
    const { index } = this;
    logger.warn({ group, index }, `a snapshot of the application is lost: ${reason}`);
    this.#isLost = true;
    for (const stream of this.#streams) stream.cancel();
    this.#streams.clear();
    for (const done of this.#wanting.splice(0)) later(() => done(undefined));
    this.#unneeded();
  }
}

const differs = "SaveSnapshot gave other bytes for the same handle";

interface SaveStreamEvents {
  /** It says so at its beginning. */
  length(bytes: number): void;
  /** What it had, all in all. What was wanted last is handed out only if that is right. */
  ended(bytes: number, crc: number): void;
  failed(reason: string): void;
}

class SaveStream {
  readonly #windowBytes: number;
  readonly #later: AppSnapshotsOptions["later"];
  readonly #events: SaveStreamEvents;
  exchange: AppExchange | undefined;
  /** Only to learn how long it is, unless it says so at once. */
  counts = false;
  /** What is handed out next. */
  position: number;
  #received = 0;
  #crc = 0;
  readonly #kept = new ByteRing();
  #wanted: { readonly into: Memory; readonly done: ReadDone } | undefined;
  #status = 0;
  #errorBody: Uint8Array = new Uint8Array(0);
  #paused = false;
  #ended = false;

  constructor(
    offset: number,
    windowBytes: number,
    later: AppSnapshotsOptions["later"],
    events: SaveStreamEvents,
  ) {
    this.position = offset;
    this.#windowBytes = windowBytes;
    this.#later = later;
    this.#events = events;
  }

  get isWanted(): boolean {
    return this.#wanted !== undefined || this.counts;
  }

  want(into: Memory, done: ReadDone): void {
    this.#wanted = { into, done };
    this.#serve();
  }

  head({
    status,
    headers,
  }: {
    readonly status: number;
    readonly headers: ReadonlyMap<string, string>;
  }): void {
    this.#status = status;
    const length = Number(headers.get("content-length") ?? Number.NaN);
    if (status > 299 || !Number.isSafeInteger(length)) return;
    this.#events.length(length);
    this.counts = false;
  }

  data(bytes: Uint8Array): void {
    if (this.#status > 299) {
      this.#errorBody = bytes.slice(0, 1_024);
      return;
    }
    this.#crc = crc32(bytes, this.#crc);
    const skipped = Math.max(0, Math.min(bytes.byteLength, this.position - this.#received));
    this.#received += bytes.byteLength;
    if (this.counts || skipped === bytes.byteLength) return;
    this.#kept.push(bytes.subarray(skipped));
    this.#serve();
  }

  end(): void {
    if (this.#status > 299) return this.failed(errorText(this.#status, this.#errorBody));
    this.#ended = true;
    this.#events.ended(this.#received, this.#crc);
    this.#serve();
  }

  failed(reason: string): void {
    this.#events.failed(`SaveSnapshot: ${reason}`);
  }

  cancel(): void {
    if (!this.#ended) this.exchange?.cancel();
    const wanted = this.#wanted;
    this.#wanted = undefined;
    this.#kept.clear();
    if (wanted !== undefined) this.#later(() => wanted.done(undefined));
  }

  /** The end of it is held back until it is known to be right. */
  #serve(): void {
    const wanted = this.#wanted;
    if (wanted !== undefined && this.#has(wanted.into.byteLength)) {
      const { into, done } = wanted;
      this.#wanted = undefined;
      this.#kept.take(into);
      this.position += into.byteLength;
      this.#later(() => done(into));
    }
    this.#pace();
  }

  #has(length: number): boolean {
    return this.#ended ? this.#kept.length >= length : this.#kept.length > length;
  }

  #pace(): void {
    const needed = this.#wanted?.into.byteLength ?? 0;
    const isFull = this.#kept.length > Math.max(this.#windowBytes, needed);
    if (isFull === this.#paused || this.#ended) return;
    this.#paused = isFull;
    if (isFull) this.exchange?.pause();
    else this.exchange?.resume();
  }
}

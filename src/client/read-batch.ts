/**
 * The queries of one turn that ask for the same consistency: laid out together, read at one index, answered in one frame. The twin
 * of a section for reads, though it may be sent again freely.
 */
import { BargeError } from "../errors.ts";
import { answerHeadBytes, encodeRead, queryHeadBytes } from "../wire/client-messages.ts";
import {
  encodeKvRange,
  type KvRange,
  kvGetBytes,
  readKvEntry,
  readKvPage,
  writeKvGetHead,
} from "../wire/kv.ts";
import type { Consistency, ReadReply, ServerReply } from "../wire/messages.ts";
import { Consistency as consistencies } from "../wire/messages.ts";
import type { SendBuffer } from "../wire/send-buffer.ts";
import type { Key } from "./api.ts";
import { Outgoing, type Reject, type RequestHead, type Resolve } from "./outgoing.ts";
import { put, roomFor } from "./text.ts";
import type { ValueCodec } from "./value-codec.ts";
import { commandError, resultCode } from "./write-section.ts";

/** What the query at a position resolves to. */
export const Ask = { get: 0, range: 1, keys: 2, opaque: 3 } as const;
export type Ask = (typeof Ask)[keyof typeof Ask];

/** Queries of one request stay below this, unless one alone is larger. */
const batchBytesMax = 256 * 1024;

export class ReadBatch extends Outgoing {
  readonly repeatable = true;
  override readonly local: boolean;
  readonly consistency: Consistency;
  readonly maxStalenessMs: number;
  readonly #codec: ValueCodec;

  #bytes: Buffer = Buffer.allocUnsafeSlow(1024);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  readonly #asks: Ask[] = [];
  readonly #resolves: Resolve[] = [];
  readonly #rejects: Reject[] = [];
  #leftovers: ReadBatch[] = [];

  constructor(codec: ValueCodec, consistency: Consistency, maxStalenessMs: number) {
    super();
    this.#codec = codec;
    this.consistency = consistency;
    this.maxStalenessMs = maxStalenessMs;
    this.local = consistency === consistencies.local;
  }

  get count(): number {
    return this.#asks.length;
  }

  get byteLength(): number {
    return this.#length;
  }

  /** False, with nothing added, when the batch is full. Throws on a bad key. */
  addGet(key: Key): boolean {
    const keyRoom = roomFor(key);
    if (keyRoom === 0) throw new BargeError("bad_request", "a key must not be empty");
    if (!this.#room(kvGetBytes(keyRoom))) return false;
    const start = this.#length + queryHeadBytes;
    const keyAt = start + kvGetBytes(0);
    const keyLength = put(this.#bytes, keyAt, key);
    if (keyLength > 0xffff) throw new BargeError("too_large", "a key is longer than 65,535 bytes");
    writeKvGetHead(this.#view, start, keyLength);
    this.#end(start, keyAt + keyLength);
    return true;
  }

  addRange(range: KvRange): boolean {
    return this.addQuery(encodeKvRange(range));
  }

  addQuery(query: Uint8Array): boolean {
    if (!this.#room(query.byteLength)) return false;
    const start = this.#length + queryHeadBytes;
    this.#bytes.set(query, start);
    this.#end(start, start + query.byteLength);
    return true;
  }

  /** Notes who waits for the query added last. */
  waitFor(ask: Ask, resolve: Resolve, reject: Reject): void {
    this.#asks.push(ask);
    this.#resolves.push(resolve);
    this.#rejects.push(reject);
  }

  encode(out: SendBuffer, head: RequestHead): void {
    encodeRead(
      out,
      head.request,
      head.group,
      head.timeoutMs,
      this.consistency,
      this.maxStalenessMs,
      this.#asks.length,
      this.#bytes.subarray(0, this.#length),
    );
  }

  accept(reply: ServerReply): boolean {
    if (reply.type !== "readReply" || reply.count !== this.#asks.length) return false;
    const { answers } = reply;
    const view = new DataView(answers.buffer, answers.byteOffset, answers.byteLength);
    let at = 0;
    for (let position = 0; position < reply.count; position++) {
      const start = at + answerHeadBytes;
      const end = start + view.getUint32(at + 4, true);
      this.#settle(position, view.getUint32(at, true), answers.subarray(start, end), reply);
      at = end;
    }
    return true;
  }

  fail(error: BargeError): void {
    for (const reject of this.#rejects) reject(error);
  }

  /** Answers that did not fit the frame beside the others. */
  override takeLeftovers(): readonly ReadBatch[] {
    const leftovers = this.#leftovers;
    this.#leftovers = [];
    return leftovers;
  }

  /** Moves the query at a position into a request of its own. */
  #leave(position: number): void {
    let at = 0;
    for (let i = 0; i < position; i++) at += queryHeadBytes + this.#view.getUint32(at, true);
    const start = at + queryHeadBytes;
    const alone = new ReadBatch(this.#codec, this.consistency, this.maxStalenessMs);
    alone.addQuery(this.#bytes.subarray(start, start + this.#view.getUint32(at, true)));
    alone.waitFor(this.#asks[position]!, this.#resolves[position]!, this.#rejects[position]!);
    alone.timeoutMs = this.timeoutMs;
    alone.deadlineMs = this.deadlineMs;
    alone.countedCalls = 1;
    alone.countedBytes = alone.byteLength;
    this.#leftovers.push(alone);
  }

  #settle(position: number, code: number, bytes: Uint8Array, reply: ReadReply): void {
    const fits = code !== resultCode.tooLarge || this.#asks.length === 1;
    if (!fits) return this.#leave(position);
    const resolve = this.#resolves[position] as (value: unknown) => void;
    const reject = this.#rejects[position]!;
    try {
      const result = this.#result(this.#asks[position]!, code, bytes, reply.appliedIndex);
      if (result instanceof BargeError) reject(result);
      else resolve(result);
    } catch (error) {
      // The value's codec could not read it: the fault of this one call only.
      reject(error as BargeError);
    }
  }

  #result(ask: Ask, code: number, bytes: Uint8Array, appliedIndex: number): unknown {
    if (ask === Ask.opaque) return { code, bytes: bytes.slice(), appliedIndex };
    if (ask === Ask.get && code === resultCode.notFound) return undefined;
    if (code !== resultCode.ok) return commandError(code);
    if (ask === Ask.get) {
      const entry = readKvEntry(bytes);
      if (entry === undefined) return malformedAnswer();
      return { value: this.#codec.decode(entry.value), revision: entry.revision };
    }
    // One copy for the page: its keys and values are views of that.
    const page = readKvPage(bytes.slice());
    if (page === undefined) return malformedAnswer();
    const items = page.items.map(({ key, value, revision }) => ({
      key,
      value: ask === Ask.keys ? this.#codec.leftOut : this.#codec.decode(value),
      revision,
    }));
    return { items, more: page.more, revision: page.revision };
  }

  #room(queryBytes: number): boolean {
    const needed = this.#length + queryHeadBytes + queryBytes;
    if (needed > batchBytesMax && this.#asks.length > 0) return false;
    if (needed > this.#bytes.byteLength) {
      let capacity = this.#bytes.byteLength * 2;
      while (capacity < needed) capacity *= 2;
      const bytes = Buffer.allocUnsafeSlow(capacity);
      bytes.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer);
    }
    return true;
  }

  #end(start: number, end: number): void {
    this.#view.setUint32(start - queryHeadBytes, end - start, true);
    this.#length = end;
  }
}

function malformedAnswer(): BargeError {
  return new BargeError("internal", "the answer of the state machine is malformed", {
    outcome: "not-applied",
  });
}

/**
 * A section being filled, sent and answered [9, 39]: the commands of one turn, laid out straight into the buffer that is sent, beside
 * parallel arrays of what each call wants. The bytes never change once they were sent, so a try may be repeated; the buffer
 * is used again after the answer.
 */
import { BargeError } from "../errors.ts";
import { encodeWrite } from "../wire/client-messages.ts";
import {
  KvOp,
  kvCommandBytes,
  kvCommandHeadBytes,
  kvPrevRevisionBytes,
  readKvRevision,
  writeKvCommandHead,
} from "../wire/kv.ts";
import type { ServerReply } from "../wire/messages.ts";
import { type CommandResult, readSectionResults } from "../wire/section-results.ts";
import { type SectionIdentity, sealSection, sectionHeaderBytes } from "../wire/section.ts";
import type { SendBuffer } from "../wire/send-buffer.ts";
import type { Key } from "./api.ts";
import type { Channel } from "./channel.ts";
import { Outgoing, type Reject, type RequestHead, type Resolve } from "./outgoing.ts";
import { put, roomFor } from "./text.ts";

/** What the call at a position resolves to. */
export const Want = { put: 0, delete: 1, compare: 2, opaque: 3 } as const;
export type Want = (typeof Want)[keyof typeof Want];

/** Result codes of machine/machine.ts that the SDK gives a meaning; others are the machine's own. */
export const resultCode = { ok: 0, malformed: 1, notFound: 2, compareFailed: 3, tooLarge: 4 };

/** Bounds that the server named in its hello; until then the defaults. */
export interface SectionBounds {
  sectionBytesMax: number;
  frameBytesMax: number;
}

const startBytes = 4 * 1024;
const commandsMax = 65_536;
/** Frame header and fields around the section, with much to spare. */
const frameOverheadBytes = 1_024;
const none = new Uint8Array(0);

export class WriteSection extends Outgoing {
  readonly repeatable = false;
  count = 0;
  /** One promise for all commands (writeMany, batch) instead of one for each. */
  many: { readonly resolve: Resolve; readonly reject: Reject } | undefined;

  /** A keeper (write-keeper.ts) sends it again whatever became of an earlier copy. */
  isKept = false;
  /** In the session: not known; known, whatever it is; never to be applied, since it was given up before any copy could be. */
  fate: "open" | "done" | "void" = "open";
  /** Which carries the copy that awaits its answer. */
  channel: Channel | undefined;
  /** The fate of some copy is not known. */
  maybeApplied = false;
  copies = 0;

  #bytes: Buffer = Buffer.allocUnsafeSlow(startBytes);
  #view = new DataView(this.#bytes.buffer);
  #length = sectionHeaderBytes;
  readonly #wants: Want[] = [];
  readonly #resolves: Resolve[] = [];
  readonly #rejects: Reject[] = [];

  get byteLength(): number {
    return this.#length;
  }

  get capacity(): number {
    return this.#bytes.byteLength;
  }

  /** Lays out a key-value command; false, with nothing added, when the section is full. Throws on a bad key or size. */
  addKv(
    bounds: SectionBounds,
    op: KvOp,
    key: Key,
    value: Uint8Array | string | undefined,
    prevRevision: number,
  ): boolean {
    const keyRoom = roomFor(key);
    const valueRoom = value === undefined ? 0 : roomFor(value);
    if (keyRoom === 0) throw new BargeError("bad_request", "a key must not be empty");
    if (!this.#room(bounds, kvCommandBytes(op, keyRoom, valueRoom))) return false;
    const start = this.#length + 4;
    const compares = op === KvOp.compareAndPut || op === KvOp.compareAndDelete;
    const keyAt = start + kvCommandHeadBytes + (compares ? kvPrevRevisionBytes : 0);
    const keyLength = put(this.#bytes, keyAt, key);
    // Longer keys have no form on the wire; the machine's own bound may be lower.
    if (keyLength > 0xffff) throw new BargeError("too_large", "a key is longer than 65,535 bytes");
    const valueAt = keyAt + keyLength;
    const valueLength = value === undefined ? 0 : put(this.#bytes, valueAt, value);
    writeKvCommandHead(this.#view, start, op, keyLength, valueLength, prevRevision);
    this.#end(start, valueAt + valueLength);
    return true;
  }

  /** Adds an opaque command; false, with nothing added, when the section is full. */
  addCommand(bounds: SectionBounds, command: Uint8Array): boolean {
    if (!this.#room(bounds, command.byteLength)) return false;
    const start = this.#length + 4;
    this.#bytes.set(command, start);
    this.#end(start, start + command.byteLength);
    return true;
  }

  /** Notes who waits for the command added last. */
  waitFor(want: Want, resolve: Resolve, reject: Reject): void {
    this.#wants.push(want);
    this.#resolves.push(resolve);
    this.#rejects.push(reject);
  }

  /** Nothing is added after this. Again only while no copy of it is left. */
  seal(identity: SectionIdentity): void {
    const bodyBytes = this.#length - sectionHeaderBytes;
    sealSection(this.#bytes, 0, { ...identity, count: this.count, bodyBytes });
  }

  /** Empties it for its next life. */
  reset(): void {
    this.phase = "filling";
    this.count = 0;
    this.hops = 0;
    this.pauses = 0;
    this.notBeforeMs = 0;
    this.deadlineMs = 0;
    this.refusal = undefined;
    this.avoid = undefined;
    this.many = undefined;
    this.isKept = false;
    this.#length = sectionHeaderBytes;
    this.#wants.length = 0;
    this.#resolves.length = 0;
    this.#rejects.length = 0;
  }

  encode(out: SendBuffer, head: RequestHead): void {
    const section = this.#bytes.subarray(0, this.#length);
    encodeWrite(out, head.request, head.group, head.timeoutMs, section);
  }

  accept(reply: ServerReply): boolean {
    if (reply.type !== "writeReply") return false;
    if (!Number.isSafeInteger(reply.firstIndex + this.count)) return false;
    const exceptions = readSectionResults(reply.results, this.count);
    if (exceptions === undefined) return false;
    if (this.many === undefined) this.#settleEach(reply.firstIndex, exceptions);
    else this.#settleMany(this.many.resolve, reply.firstIndex, exceptions);
    return true;
  }

  fail(error: BargeError): void {
    this.many?.reject(error);
    for (const reject of this.#rejects) reject(error);
  }

  #settleMany(resolve: Resolve, firstIndex: number, exceptions: readonly CommandResult[]): void {
    // The bytes are views of a received frame: the caller gets its own.
    const own = exceptions.map(({ position, code, bytes }) => ({
      position,
      code,
      bytes: bytes.slice(),
    }));
    const result = { firstIndex, count: this.count, exceptions: own };
    (resolve as (value: typeof result) => void)(result);
  }

  #settleEach(firstIndex: number, exceptions: readonly CommandResult[]): void {
    let next = 0;
    for (let position = 0; position < this.#wants.length; position++) {
      const exception = exceptions[next];
      const index = firstIndex + position;
      if (exception?.position !== position) {
        this.#settle(position, index, resultCode.ok, none);
      } else {
        this.#settle(position, index, exception.code, exception.bytes);
        next++;
      }
    }
  }

  #settle(position: number, index: number, code: number, bytes: Uint8Array): void {
    const want = this.#wants[position]!;
    const resolve = this.#resolves[position] as (value: unknown) => void;
    if (want === Want.opaque) return resolve({ index, code, bytes: bytes.slice() });
    if (code === resultCode.ok) {
      if (want === Want.put) return resolve({ revision: index });
      if (want === Want.delete) return resolve({ revision: index, deleted: true });
      return resolve({ swapped: true, revision: index });
    }
    if (code === resultCode.notFound && want === Want.delete) {
      return resolve({ revision: index, deleted: false });
    }
    if (code === resultCode.compareFailed && want === Want.compare) {
      const revision = readKvRevision(bytes);
      if (revision !== undefined) return resolve({ swapped: false, revision });
    }
    this.#rejects[position]!(commandError(code));
  }

  /** Makes room for one more command of `commandBytes`; false when it must go into another section. */
  #room(bounds: SectionBounds, commandBytes: number): boolean {
    const needed = this.#length + 4 + commandBytes;
    if (needed > bounds.sectionBytesMax || this.count === commandsMax) {
      if (this.count > 0) return false;
      if (needed > bounds.frameBytesMax - frameOverheadBytes) {
        throw new BargeError("too_large", "the command does not fit into one frame");
      }
    }
    if (needed > this.#bytes.byteLength) this.#grow(needed);
    return true;
  }

  #grow(needed: number): void {
    let capacity = this.#bytes.byteLength * 2;
    while (capacity < needed) capacity *= 2;
    const bytes = Buffer.allocUnsafeSlow(capacity);
    bytes.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }

  #end(start: number, end: number): void {
    this.#view.setUint32(start - 4, end - start, true);
    this.#length = end;
    this.count++;
  }
}

/** The error of one command that the state machine refused: nothing was changed by it. */
export function commandError(code: number): BargeError {
  if (code === resultCode.tooLarge) {
    return new BargeError("too_large", "the state machine refused it: over one of its bounds");
  }
  return new BargeError("bad_request", `the state machine refused it with code ${code}`, {
    outcome: "not-applied",
  });
}

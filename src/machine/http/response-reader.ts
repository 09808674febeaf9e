/**
 * Reads one HTTP/1.1 response from the bytes of a connection, as they come. Everything is bounded before it is kept; whatever the bytes are, it
 * ends in `end` or in a BadResponseError. Pure.
 */

/** What an application sent is no HTTP response, or is cut off. */
export class BadResponseError extends Error {
  override readonly name = "BadResponseError";
}

export interface ResponseHead {
  readonly status: number;
  /** Names in lower case; of several with one name the last. */
  readonly headers: ReadonlyMap<string, string>;
}

export interface ResponseEvents {
  head(head: ResponseHead): void;
  /** A view of what was pushed. */
  data(bytes: Uint8Array): void;
  end(): void;
}

const headBytesMax = 16_384;
const chunkLineBytesMax = 256;
const cr = 13;
const lf = 10;

type State =
  "head" | "length" | "chunkLine" | "chunk" | "chunkEnd" | "trailers" | "close" | "ended";

export class ResponseReader {
  readonly #events: ResponseEvents;
  #state: State = "head";
  /** A line, or the head, that is not complete. */
  #kept: Uint8Array = new Uint8Array(0);
  /** Of the body, or of the chunk at hand. */
  #left = 0;
  #trailerBytes = 0;
  #keepsAlive = false;

  constructor(events: ResponseEvents) {
    this.#events = events;
  }

  get ended(): boolean {
    return this.#state === "ended";
  }

  /** The connection serves for another request. */
  get keepsAlive(): boolean {
    return this.ended && this.#keepsAlive;
  }

  push(given: Uint8Array): void {
    let bytes = given;
    while (bytes.byteLength > 0) {
      if (this.#state === "ended") throw new BadResponseError("there is more than the response");
      bytes = this.#step(bytes);
    }
  }

  /** The connection has ended. */
  close(): void {
    if (this.#state === "close") this.#end();
    else if (this.#state !== "ended") throw new BadResponseError("the connection broke off");
  }

  /** Returns what it did not take. */
  #step(bytes: Uint8Array): Uint8Array {
    switch (this.#state) {
      case "head":
        return this.#head(bytes);
      case "length":
      case "chunk":
        return this.#body(bytes);
      case "close":
        this.#events.data(bytes);
        return bytes.subarray(bytes.byteLength);
      default:
        return this.#line(bytes);
    }
  }

  #body(bytes: Uint8Array): Uint8Array {
    const taken = Math.min(this.#left, bytes.byteLength);
    this.#left -= taken;
    this.#events.data(bytes.subarray(0, taken));
    if (this.#left === 0) {
      if (this.#state === "chunk") this.#state = "chunkEnd";
      else this.#end();
    }
    return bytes.subarray(taken);
  }

  #line(bytes: Uint8Array): Uint8Array {
    const at = bytes.indexOf(lf);
    const taken = at < 0 ? bytes.byteLength : at + 1;
    if (this.#kept.byteLength + taken > chunkLineBytesMax) {
      throw new BadResponseError("a line between chunks is too long");
    }
    const line = join(this.#kept, bytes.subarray(0, taken));
    if (at < 0) this.#kept = line;
    else {
      this.#kept = new Uint8Array(0);
      this.#ofLine(new TextDecoder("latin1").decode(line).replace(/\r?\n$/, ""));
    }
    return bytes.subarray(taken);
  }

  #ofLine(line: string): void {
    if (this.#state === "chunkEnd") {
      if (line !== "") throw new BadResponseError("a chunk is longer than it says");
      this.#state = "chunkLine";
    } else if (this.#state === "chunkLine") {
      const match = /^([0-9a-fA-F]{1,13})[ \t]*(?:;.*)?$/.exec(line);
      if (match === null) throw new BadResponseError("a chunk does not say how long it is");
      this.#left = Number.parseInt(match[1]!, 16);
      this.#state = this.#left === 0 ? "trailers" : "chunk";
    } else if (line === "") this.#end();
    else {
      this.#trailerBytes += line.length;
      if (this.#trailerBytes > headBytesMax)
        throw new BadResponseError("its trailers are too long");
    }
  }

  #head(bytes: Uint8Array): Uint8Array {
    const before = this.#kept.byteLength;
    const room = headBytesMax - before;
    const all = join(this.#kept, bytes.subarray(0, Math.max(0, room)));
    const end = endOfHead(all, Math.max(0, before - 3));
    if (end < 0) {
      if (bytes.byteLength > room) throw new BadResponseError("its head is too long");
      this.#kept = all;
      return bytes.subarray(bytes.byteLength);
    }
    this.#kept = new Uint8Array(0);
    this.#ofHead(new TextDecoder("latin1").decode(all.subarray(0, end)));
    return bytes.subarray(end - before);
  }

  #ofHead(text: string): void {
    const lines = text.split(/\r?\n/);
    const match = /^HTTP\/1\.([01]) ([1-5][0-9]{2})(?: |$)/.exec(lines[0]!);
    if (match === null) throw new BadResponseError("it does not begin as HTTP/1.1 does");
    const status = Number(match[2]);
    const headers = new Map<string, string>();
    for (const line of lines.slice(1)) {
      if (line === "") continue;
      const colon = line.indexOf(":");
      if (colon <= 0) throw new BadResponseError("a line of its head is no header");
      headers.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
    }
    // Go on, or early hints: the response comes after it.
    if (status < 200) {
      if (status === 101) throw new BadResponseError("it changes to another protocol");
      return;
    }
    this.#bodyOf(status, match[1] === "1", headers);
  }

  #bodyOf(status: number, isNew: boolean, headers: ReadonlyMap<string, string>): void {
    const connection = headers.get("connection")?.toLowerCase() ?? "";
    this.#keepsAlive = isNew ? !connection.includes("close") : connection.includes("keep-alive");
    const coding = headers.get("transfer-encoding")?.toLowerCase();
    const length = headers.get("content-length");
    if (coding !== undefined && coding !== "identity") {
      if (coding !== "chunked") throw new BadResponseError(`its coding is ${coding.slice(0, 40)}`);
      this.#state = "chunkLine";
    } else if (status === 204 || status === 304) this.#left = 0;
    else if (length === undefined) {
      this.#state = "close";
      this.#keepsAlive = false;
    } else {
      this.#left = Number(length);
      const isSafe = /^[0-9]{1,16}$/.test(length) && Number.isSafeInteger(this.#left);
      if (!isSafe) throw new BadResponseError("its content-length is no length");
      this.#state = "length";
    }
    const isEmpty = (this.#state === "head" || this.#state === "length") && this.#left === 0;
    this.#events.head({ status, headers });
    if (isEmpty) this.#end();
  }

  #end(): void {
    this.#state = "ended";
    this.#events.end();
  }
}

/** Where the empty line ends that ends a head; -1 where there is none yet. */
function endOfHead(bytes: Uint8Array, from: number): number {
  for (let at = bytes.indexOf(lf, from); at >= 0; at = bytes.indexOf(lf, at + 1)) {
    if (bytes[at + 1] === lf) return at + 2;
    if (bytes[at + 1] === cr && bytes[at + 2] === lf) return at + 3;
  }
  return -1;
}

function join(a: Uint8Array, b: Uint8Array): Uint8Array {
  if (a.byteLength === 0) return b.slice();
  const bytes = new Uint8Array(a.byteLength + b.byteLength);
  bytes.set(a);
  bytes.set(b, a.byteLength);
  return bytes;
}

/**
 * The application under test, called as the daemon calls it: the same paths, headers and shapes, each reply held to the contract of machine/http/README.md. What
 * breaks it is a Fault, in words for the application's author.
 */
import type { SocketHandler } from "bun";
import {
  bytesType,
  ContractError,
  errorText,
  jsonType,
  readHandle,
  readInstance,
  readLastLogIndex,
  readReady,
  type ReadyReply,
} from "../machine/http/contract.ts";
import { type AppAddress, appAddress } from "../machine/http/http-calls.ts";
import { createUpdateBody } from "../machine/http/update-body.ts";
import { readResults } from "../machine/http/update-results.ts";

/** The application does not do what the contract asks of it. */
export class Fault extends Error {
  override readonly name: string = "Fault";
  /** What its author should do. */
  readonly todo: string;

  constructor(message: string, todo: string) {
    super(message);
    this.todo = todo;
  }
}

/** Nobody answers: the application is not there, or broke the connection off. */
export class Unreachable extends Error {
  override readonly name: string = "Unreachable";
}

export interface Entry {
  readonly index: number;
  readonly command: Uint8Array;
}

interface Reply {
  readonly status: number;
  readonly contentType: string | undefined;
  readonly bytes: Uint8Array;
}

export interface ApplicationOptions {
  readonly url: string;
  readonly group: number;
  readonly timeoutMs: number;
}

/** Of a handle, as the daemon has it. */
const handleBytesMax = 65_536;
const snapshotBytesMax = 1024 * 1024 * 1024;
/** Where nothing listens the wait between two looks. */
const lookMs = 50;

export class Application {
  readonly #address: AppAddress;
  readonly #options: ApplicationOptions;
  #ready: ReadyReply = { shape: "json", prepareEvery: 0 };
  /** What it gave last. */
  instance: string | undefined;
  /** The index that it is to have stored, by all that it said; undefined before it was asked. */
  index: number | undefined;

  /** Throws an Error with words where the URL is none. */
  constructor(options: ApplicationOptions) {
    this.#options = options;
    this.#address = appAddress(options.url, options.group);
  }

  get shape(): ReadyReply["shape"] {
    return this.#ready.shape;
  }

  /** Asked until it says yes. */
  async ready(waitMs: number): Promise<void> {
    const untilMs = performance.now() + waitMs;
    for (;;) {
      const last = await this.#tryReady();
      if (last === undefined) return;
      if (performance.now() > untilMs) throw last;
      await Bun.sleep(lookMs);
    }
  }

  async #tryReady(): Promise<Error | undefined> {
    try {
      const reply = await this.#call("Ready");
      if (reply.status > 299) {
        const words = errorText(reply.status, reply.bytes);
        return new Fault(`Ready answers ${words}.`, "Answer 200 once the application can serve.");
      }
      this.#ready = readReady(reply.bytes);
      return undefined;
    } catch (error) {
      if (error instanceof Unreachable) return error;
      throw faultOf(error);
    }
  }

  async lastLogIndex(): Promise<number> {
    const { bytes } = await this.#must("LastLogIndex");
    this.index = held(() => readLastLogIndex(bytes));
    return this.index;
  }

  /** What the application answers to each; undefined where it gives no results. Throws a Fault where it refuses them. */
  async update(entries: readonly Entry[]): Promise<(Uint8Array | undefined)[] | undefined> {
    const reply = await this.tryUpdate(entries, this.index ?? 0);
    mustBeFine("UpdateEntries", reply);
    this.index = entries.at(-1)?.index ?? this.index;
    const { contentType, bytes } = reply;
    const results = held(() => readResults(this.shape, contentType, bytes, entries.length));
    if (results.isMiscounted) {
      throw new Fault(
        `UpdateEntries got ${entries.length} entries and answered with another number of results.`,
        "Give one element per entry, in their order, or no Results at all: a list of another length is thrown away, and whoever wrote hears nothing.",
      );
    }
    const list = entries.map(() => results.next()?.slice());
    return list.every((result) => result === undefined) ? undefined : list;
  }

  /** `previous`: the index that the application is said to have. */
  tryUpdate(entries: readonly Entry[], previous: number): Promise<Reply> {
    const body = createUpdateBody(this.shape);
    for (const { index, command } of entries) {
      const bytes = new Uint8Array(4 + command.byteLength);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, command.byteLength, true);
      bytes.set(command, 4);
      body.add(bytes, view, 0, bytes.byteLength, 1, index);
    }
    const sent = { bytes: body.end(), type: body.contentType };
    return this.#call("UpdateEntries", sent, previous);
  }

  async read(query: Uint8Array): Promise<Uint8Array> {
    return (await this.#must("Read", { bytes: query, type: bytesType })).bytes;
  }

  async sync(): Promise<void> {
    await this.#must("Sync");
  }

  async prepareSnapshot(): Promise<Uint8Array> {
    const { bytes } = await this.#must("PrepareSnapshot");
    return held(() => readHandle(bytes, handleBytesMax));
  }

  /** `slowly` reads it in parts with pauses between them. */
  async saveSnapshot(handle: Uint8Array, slowly = false): Promise<Uint8Array> {
    const response = await this.#fetch("SaveSnapshot", { bytes: handle, type: jsonType });
    const declared = response.headers.get("content-length");
    const chunks: Uint8Array[] = [];
    let size = 0;
    try {
      for await (const chunk of response.body ?? []) {
        chunks.push(chunk);
        size += chunk.byteLength;
        if (size > snapshotBytesMax) {
          const words = `a snapshot of over ${snapshotBytesMax} bytes is too large to be checked here`;
          throw new Fault(`SaveSnapshot: ${words}.`, "Check it with less data.");
        }
        if (slowly && chunks.length < 8) await Bun.sleep(25);
      }
    } catch (error) {
      if (error instanceof Fault) throw error;
      throw new Fault(
        `SaveSnapshot broke off after ${size} bytes: ${wordsOf(error)}.`,
        "Send the whole state of the handle, also while updates come.",
      );
    }
    const bytes = Buffer.concat(chunks);
    mustBeFine("SaveSnapshot", { status: response.status, contentType: undefined, bytes });
    if (declared !== null && Number(declared) !== size) {
      throw new Fault(
        `SaveSnapshot says content-length: ${declared}, and sends ${size} bytes.`,
        "Leave the header away, or say the very size.",
      );
    }
    return new Uint8Array(bytes);
  }

  async releaseSnapshot(handle: Uint8Array): Promise<void> {
    await this.#call("ReleaseSnapshot", { bytes: handle, type: jsonType });
  }

  async recoverFromSnapshot(snapshot: Uint8Array): Promise<void> {
    await this.#must("RecoverFromSnapshot", { bytes: snapshot, type: bytesType });
  }

  /** A connection that breaks off in the middle of the body, as where the daemon is killed. */
  async breakRecovery(snapshot: Uint8Array): Promise<void> {
    const { target, host, path } = this.#address;
    const head = `POST ${path}/RecoverFromSnapshot HTTP/1.1\r\nhost: ${host}\r\ncontent-type: ${bytesType}\r\ncontent-length: ${snapshot.byteLength}\r\n`;
    const headers = Object.entries(this.#headers(this.index)).map(([k, v]) => `${k}: ${v}\r\n`);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const half = snapshot.subarray(0, Math.ceil(snapshot.byteLength / 2) - 1);
    const socket: SocketHandler = {
      open: (opened) => {
        opened.write(`${head}${headers.join("")}\r\n`);
        opened.write(half);
        setTimeout(() => opened.terminate(), lookMs);
      },
      close: () => resolve(),
      data: () => {},
      error: (_socket, error) => reject(error),
      connectError: (_socket, error) => reject(new Unreachable(error.message)),
    };
    if ("unix" in target) await Bun.connect({ unix: target.unix, socket });
    else await Bun.connect({ ...target, socket });
    await promise;
  }

  async #must(name: string, body?: Body): Promise<Reply> {
    const reply = await this.#call(name, body);
    mustBeFine(name, reply);
    return reply;
  }

  async #call(name: string, body?: Body, previous?: number): Promise<Reply> {
    const response = await this.#fetch(name, body, previous);
    try {
      const bytes = await response.bytes();
      const contentType = response.headers.get("content-type") ?? undefined;
      return { status: response.status, contentType, bytes };
    } catch (error) {
      throw new Unreachable(`${name}: the reply broke off: ${wordsOf(error)}`);
    }
  }

  async #fetch(name: string, body?: Body, previous = this.index): Promise<Response> {
    const { target, host, path } = this.#address;
    const isPlain = name === "Ready" || name === "LastLogIndex";
    const headers = this.#headers(isPlain ? undefined : previous);
    if (body !== undefined) headers["content-type"] = body.type;
    let response: Response;
    try {
      response = await fetch(`http://${host}${path}/${name}`, {
        method: "POST",
        headers,
        ...("unix" in target ? { unix: target.unix } : {}),
        ...(body === undefined ? {} : { body: new Uint8Array(body.bytes) }),
        signal: AbortSignal.timeout(this.#options.timeoutMs),
      });
    } catch (error) {
      if (error instanceof DOMException && error.name === "TimeoutError") {
        throw new Fault(
          `${name} was not answered within ${this.#options.timeoutMs} ms.`,
          "Answer sooner, or give the daemon (and this command) a longer time-out.",
        );
      }
      throw new Unreachable(`${name}: ${wordsOf(error)}`);
    }
    const header = response.headers.get("barge-instance") ?? undefined;
    this.instance = held(() => readInstance(header)) ?? this.instance;
    return response;
  }

  #headers(previous: number | undefined): Record<string, string> {
    const headers: Record<string, string> = {
      "raftd-shard-id": String(this.#options.group),
      "raftd-replica-id": "1",
      "raftd-node-id": "1",
    };
    if (previous !== undefined) headers["barge-previous-index"] = String(previous);
    if (this.instance !== undefined) headers["barge-instance"] = this.instance;
    return headers;
  }
}

interface Body {
  readonly bytes: Uint8Array;
  readonly type: string;
}

function mustBeFine(name: string, { status, bytes }: Reply): void {
  if (status <= 299) return;
  const words = `${name} answers ${errorText(status, bytes)}.`;
  throw new Fault(
    words,
    "A status up to 299 is success; the daemon takes any other for a failure, and tries again for ever.",
  );
}

/** Runs `read`; what it finds against the contract is a Fault. */
function held<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw faultOf(error);
  }
}

function faultOf(error: unknown): unknown {
  if (!(error instanceof ContractError)) return error;
  return new Fault(`${error.message}.`, "See the contract in src/machine/http/README.md.");
}

function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // What it asks there helps nobody.
  const isNobody = "code" in error && error.code === "ECONNREFUSED";
  return isNobody ? "nobody listens at the URL that was given" : error.message;
}

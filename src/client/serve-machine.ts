/**
 * A state machine of your own as the application beside a node (`barge serve --app-url`): you store data, this speaks the contract of machine/http/README.md. It asks
 * for the binary shape, skips what you have, refuses what leaves something out, and tells restarts apart. For Bun and Node.js.
 */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { pipeline } from "node:stream/promises";

type Awaitable<T> = T | Promise<T>;
type Bytes = Uint8Array | string;

export interface MachineEntry {
  readonly index: number;
  /** As it was written; valid during the call. */
  readonly command: Uint8Array;
}

/** The state of one moment. */
export interface MachineMoment {
  /** All of it, its index included: the same bytes each time, while updates go on. */
  save(): AsyncIterable<Bytes> | Iterable<Bytes>;
  /** Nobody needs it any more. */
  release?(): void;
}

export interface Machine {
  /** Of the last entry that is stored; 0 when there is none. */
  lastIndex(): Awaitable<number>;
  /**
   * Applies entries in their order, none of which came before, and stores `lastIndex` with them, in one transaction. Returns when that is durable, or, with
   * `sync`, once it would survive the next `sync`. What is returned goes to whoever wrote, by position. Must not throw for a command that makes no sense: it
   * would come again for ever.
   */
  apply(
    entries: readonly MachineEntry[],
    lastIndex: number,
  ): Awaitable<readonly (Bytes | undefined)[] | void>;
  /** Runs beside anything else, and sees whole calls of `apply` alone. */
  read(query: Uint8Array): Awaitable<Bytes>;
  snapshot(): Awaitable<MachineMoment>;
  /** Replaces all there is by what `save` gave elsewhere, index included. */
  recover(chunks: AsyncIterable<Uint8Array>): Awaitable<void>;
  /** Only where the node has --app-sync: makes durable all that was applied. */
  sync?(): Awaitable<void>;
}

export interface ServeMachineOptions {
  /** 0 = any free one. @default 8080 */
  readonly port?: number;
  /** @default "127.0.0.1" */
  readonly host?: string;
  /** Of a Unix socket, in place of a port. */
  readonly socketPath?: string;
  /** That of group 0; or of each group that this keeps, asked for once: undefined where it does not. */
  readonly machine: Machine | ((group: number) => Machine | undefined);
  /** HTTP of the node, such as `http://127.0.0.1:9090`: watched from the first time that it has asked for something. */
  readonly nodeUrl?: string;
  /** Nobody answers there any more. @default the process ends with status 1, so that whoever watches over it starts it anew, beside a node. */
  readonly onNodeLost?: () => void;
}

export interface MachineServer {
  /** 0 on a Unix socket. */
  readonly port: number;
  close(): Promise<void>;
}

/** Longest body but that of a snapshot: a node sends far less. */
const bodyBytesMax = 64 * 1024 * 1024;

/** Resolves once it listens. */
export async function serveMachine(options: ServeMachineOptions): Promise<MachineServer> {
  const { port = 8080, host = "127.0.0.1", socketPath, machine } = options;
  const watch = options.nodeUrl === undefined ? undefined : new NodeWatch(options.nodeUrl, options);
  const callbacks = new GroupCallbacks(machine, () => watch?.begin());
  const server = createServer((request, response) => void callbacks.answer(request, response));
  // A snapshot takes its time, and the node keeps its connections.
  server.requestTimeout = 0;
  server.keepAliveTimeout = 60_000;
  await listening(server, socketPath === undefined ? { port, host } : { path: socketPath });
  const address = server.address();
  return {
    port: typeof address === "object" ? ((address as AddressInfo | null)?.port ?? 0) : 0,
    close: () =>
      new Promise((resolve) => {
        watch?.end();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listening(
  server: Server,
  at: { port: number; host: string } | { path: string },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(at, () => resolve());
  });
}

const watchMs = 1_000;
/** One that is missing may be a hiccup. */
const missesMax = 3;

/** Asks a node whether it lives. */
class NodeWatch {
  readonly #url: string;
  readonly #lost: () => void;
  #timer: ReturnType<typeof setInterval> | undefined;
  #misses = 0;

  constructor(url: string, { onNodeLost = () => process.exit(1) }: ServeMachineOptions) {
    this.#url = `${url.replace(/\/+$/, "")}/hc`;
    this.#lost = onNodeLost;
  }

  begin(): void {
    this.#timer ??= setInterval(() => void this.#look(), watchMs);
  }

  end(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    try {
      const { ok } = await fetch(this.#url, { signal: AbortSignal.timeout(watchMs) });
      this.#misses = ok ? 0 : this.#misses + 1;
    } catch {
      this.#misses++;
    }
    if (this.#misses < missesMax) return;
    this.end();
    this.#lost();
  }
}

/** An answer that is no, with words for the log of the node. */
class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

interface Reply {
  readonly type?: string;
  readonly body: Bytes;
}

const none: Reply = { body: "" };

/** Each group has a state machine of its own, and none is taken for another's. */
class GroupCallbacks {
  readonly #machineOf: (group: number) => Machine | undefined;
  readonly #asked: () => void;
  readonly #instance = randomUUID();
  readonly #callbacks = new Map<number, Callbacks>();

  constructor(machine: ServeMachineOptions["machine"], asked: () => void) {
    const ofFirst = (group: number) => (group === 0 ? (machine as Machine) : undefined);
    this.#machineOf = typeof machine === "function" ? machine : ofFirst;
    this.#asked = asked;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader("barge-instance", this.#instance);
    try {
      const group = Number(request.headers["raftd-shard-id"] ?? 0);
      const callbacks = this.#callbacksOf(group);
      if (callbacks !== undefined) return await callbacks.answer(request, response);
      throw new Refusal(404, `this application keeps nothing of group ${group}`);
    } catch (error) {
      if (response.headersSent) return void response.destroy();
      const isRefusal = error instanceof Refusal;
      response.statusCode = isRefusal ? error.status : 500;
      response.end(error instanceof Error ? error.message : String(error));
    }
  }

  #callbacksOf(group: number): Callbacks | undefined {
    const known = this.#callbacks.get(group);
    if (known !== undefined) return known;
    const machine = this.#machineOf(group);
    if (machine === undefined) return undefined;
    const made = new Callbacks(machine, this.#asked);
    this.#callbacks.set(group, made);
    return made;
  }
}

interface HeldMoment {
  readonly moment: MachineMoment;
  /** When it was read last; Infinity while it is. */
  usedMs: number;
}

/** Of a moment, before it is dropped (machine/http/README.md). */
const unusedMsMax = 10 * 60_000;

class Callbacks {
  readonly #machine: Machine;
  readonly #asked: () => void;
  readonly #moments = new Map<string, HeldMoment>();
  /** The last of those that exclude each other. */
  #turn: Promise<unknown> = Promise.resolve();

  /** `asked` is called with every Ready. */
  constructor(machine: Machine, asked: () => void) {
    this.#machine = machine;
    this.#asked = asked;
  }

  /** Throws a Refusal, or whatever the machine does. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const name = (request.url ?? "").split("?")[0]!.split("/").at(-1)!;
    if (name === "SaveSnapshot") return this.#save(request, response);
    const { type, body } = await this.#call(name, request);
    if (type !== undefined) response.setHeader("content-type", type);
    response.end(body);
  }

  async #call(name: string, request: IncomingMessage): Promise<Reply> {
    const machine = this.#machine;
    switch (name) {
      case "Ready":
        this.#asked();
        return json({ Shape: "binary" });
      case "LastLogIndex":
        return this.#alone(async () => json({ LastLogIndex: await machine.lastIndex() }));
      case "UpdateEntries":
        return this.#update(request);
      case "Read":
        return {
          type: "application/octet-stream",
          body: await machine.read(await bodyOf(request)),
        };
      case "Sync":
        return this.#alone(async () => (await machine.sync?.(), none));
      case "PrepareSnapshot":
        return this.#alone(async () => {
          const handle = randomUUID();
          this.#dropOld();
          const moment = await machine.snapshot();
          this.#moments.set(handle, { moment, usedMs: performance.now() });
          return json({ Handle: handle });
        });
      case "ReleaseSnapshot": {
        const handle = handleIn(await bodyOf(request));
        this.#drop(handle);
        return none;
      }
      case "RecoverFromSnapshot":
        return this.#alone(async () => (await machine.recover(wholeBody(request)), none));
      default:
        throw new Refusal(404, `there is no callback ${name}`);
    }
  }

  async #update(request: IncomingMessage): Promise<Reply> {
    const body = await bodyOf(request);
    const previous = request.headers["barge-previous-index"];
    return this.#alone(async () => {
      const stored = await this.#machine.lastIndex();
      if (previous !== undefined && Number(previous) !== stored) {
        throw new Refusal(
          409,
          `what is stored ends at ${stored}, and this follows ${String(previous)}`,
        );
      }
      const entries = entriesIn(body, request.headers["content-type"] ?? "");
      const fresh = entries.filter(({ index }) => index > stored);
      if (fresh.length === 0) return none;
      const results = (await this.#machine.apply(fresh, fresh.at(-1)!.index)) ?? [];
      if (results.length === 0) return none;
      const skipped = entries.length - fresh.length;
      const all = [...Array.from<undefined>({ length: skipped }), ...results];
      return { type: "application/octet-stream", body: resultsOf(all) };
    });
  }

  async #save(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const held = this.#moments.get(handleIn(await bodyOf(request)));
    if (held === undefined)
      throw new Refusal(404, "there is no such handle: it is of an earlier life");
    response.setHeader("content-type", "application/octet-stream");
    held.usedMs = Infinity;
    try {
      await pipeline(held.moment.save(), response);
    } finally {
      held.usedMs = performance.now();
    }
  }

  #drop(handle: string): void {
    this.#moments.get(handle)?.moment.release?.();
    this.#moments.delete(handle);
  }

  /** A node that was killed releases nothing. */
  #dropOld(): void {
    const oldMs = performance.now() - unusedMsMax;
    for (const [handle, { usedMs }] of this.#moments) if (usedMs < oldMs) this.#drop(handle);
  }

  /** One after the other, as if each were a single step. */
  #alone<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(step, step);
    this.#turn = done.catch(() => {});
    return done;
  }
}

function json(value: object): Reply {
  return { type: "application/json", body: JSON.stringify(value) };
}

async function bodyOf(request: IncomingMessage): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    size += chunk.byteLength;
    if (size > bodyBytesMax) throw new Refusal(413, `a body has at most ${bodyBytesMax} bytes`);
    chunks.push(chunk);
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}

/** Ends with an error where the connection broke off: what came was not the whole of it. */
async function* wholeBody(request: IncomingMessage): AsyncGenerator<Uint8Array> {
  const said = Number(request.headers["content-length"] ?? Number.NaN);
  let size = 0;
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    size += chunk.byteLength;
    yield chunk;
  }
  if (!Number.isNaN(said) && size !== said) throw new Error("the snapshot broke off");
}

function handleIn(body: Uint8Array): string {
  try {
    const { Handle } = JSON.parse(new TextDecoder().decode(body)) as { readonly Handle?: unknown };
    if (typeof Handle === "string") return Handle;
  } catch {
    // As below.
  }
  throw new Refusal(400, "the body is no handle");
}

/** The shapes of machine/http/README.md. */
function entriesIn(body: Uint8Array, type: string): MachineEntry[] {
  if (!type.startsWith("application/json")) return runsIn(body);
  const { Entries } = JSON.parse(new TextDecoder().decode(body)) as {
    readonly Entries: readonly { readonly Index: number; readonly Cmd: string }[];
  };
  return Entries.map(({ Index, Cmd }) => ({ index: Index, command: Buffer.from(Cmd, "base64") }));
}

function runsIn(body: Uint8Array): MachineEntry[] {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const entries: MachineEntry[] = [];
  let at = 4;
  for (let runs = view.getUint32(0, true); runs > 0; runs--) {
    const first = Number(view.getBigUint64(at, true));
    const count = view.getUint32(at + 8, true);
    at += 16;
    for (let i = 0; i < count; i++) {
      const from = at + 4;
      at = from + view.getUint32(at, true);
      if (at > body.byteLength) throw new Refusal(400, "the body ends within an entry");
      entries.push({ index: first + i, command: body.subarray(from, at) });
    }
  }
  return entries;
}

function resultsOf(results: readonly (Bytes | undefined)[]): Uint8Array {
  const parts = results.map((result) => Buffer.from(result ?? ""));
  const size = parts.reduce((sum, part) => sum + 4 + part.byteLength, 4);
  const body = Buffer.allocUnsafe(size);
  body.writeUInt32LE(results.length, 0);
  let at = 4;
  for (const part of parts) {
    body.writeUInt32LE(part.byteLength, at);
    body.set(part, at + 4);
    at += 4 + part.byteLength;
  }
  return body;
}

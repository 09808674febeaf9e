/**
 * Callbacks over HTTP/1.1: one at a time on a connection, connections kept for the next. Nothing is ever sent twice: whoever asked decides what follows when a
 * connection breaks off. How many are under way at once is bounded by who asks.
 */
import type { Socket, SocketHandler } from "bun";
import { freeMemory } from "../../wire/free-memory.ts";
import type { AppCalls, AppEvents, AppExchange, AppRequest } from "./app-calls.ts";
import { BadResponseError, ResponseReader } from "./response-reader.ts";

/** Where an application listens, and what stands before the names of its callbacks. */
export interface AppAddress {
  readonly target: { readonly hostname: string; readonly port: number } | { readonly unix: string };
  /** As the `host` header says it. */
  readonly host: string;
  /** Without a slash at its end. */
  readonly path: string;
}

/** The application shuts a connection that idles about as long as common servers let one idle; it is not used any more a little before. */
const idleMsMax = 4_000;
const connectionsKept = 32;

/**
 * Of one group: `{group}` in the URL is replaced by its id; where it is not in there, groups other than 0 have a path of their own. Throws an Error with
 * words for whoever gave it.
 */
export function appAddress(url: string, group: number): AppAddress {
  const isOwn = url.includes("{group}");
  const text = url.replaceAll("{group}", String(group));
  const suffix = isOwn || group === 0 ? "" : `/groups/${group}`;
  if (text.startsWith("unix:")) {
    const [unix = "", path = ""] = text.slice("unix:".length).split(":", 2);
    if (!unix.startsWith("/")) throw new Error("unix: is followed by the socket's absolute path");
    if (path !== "" && !path.startsWith("/")) throw new Error("its path begins with a slash");
    return { target: { unix }, host: "localhost", path: trimmed(path) + suffix };
  }
  const parsed = URL.parse(text);
  if (parsed === null || parsed.hostname === "") throw new Error("it is no URL");
  if (parsed.protocol !== "http:") throw new Error("it begins with http:// or unix:");
  if (parsed.username !== "" || parsed.search !== "" || parsed.hash !== "") {
    throw new Error("it has no user, no query and no fragment");
  }
  const hostname = parsed.hostname.replace(/^\[(.*)\]$/, "$1");
  const port = parsed.port === "" ? 80 : Number(parsed.port);
  return { target: { hostname, port }, host: parsed.host, path: trimmed(parsed.pathname) + suffix };
}

function trimmed(path: string): string {
  return path.replace(/\/+$/, "");
}

/** Connections that wait for their next callback: of all groups of a node together, as most of them are called at one address. */
export class HttpConnections {
  /** By address; the one used last at the end. */
  readonly #idle = new Map<string, HttpConnection[]>();

  take(address: AppAddress): HttpConnection {
    const idle = this.#idle.get(nameOf(address)) ?? [];
    const oldestMs = performance.now() - idleMsMax;
    for (;;) {
      const connection = idle.pop();
      if (connection === undefined) return this.#open(address);
      if (connection.idleSinceMs > oldestMs) return connection;
      connection.drop();
    }
  }

  #open(address: AppAddress): HttpConnection {
    const name = nameOf(address);
    let idle = this.#idle.get(name);
    if (idle === undefined) this.#idle.set(name, (idle = []));
    const own = idle;
    const connection: HttpConnection = new HttpConnection(address, {
      free: () => {
        if (own.length < connectionsKept) own.push(connection);
        else connection.drop();
      },
      gone: () => {
        const at = own.indexOf(connection);
        if (at >= 0) own.splice(at, 1);
      },
    });
    return connection;
  }

  close(): void {
    for (const idle of this.#idle.values()) for (const one of idle.splice(0)) one.drop();
  }
}

function nameOf({ target }: AppAddress): string {
  return "unix" in target ? target.unix : `${target.hostname} ${target.port}`;
}

/** The callbacks of one group. */
export class HttpCalls implements AppCalls {
  readonly #address: AppAddress;
  readonly #connections: HttpConnections;
  readonly #underWay = new Set<AppExchange>();

  constructor(address: AppAddress, connections: HttpConnections) {
    this.#address = address;
    this.#connections = connections;
  }

  begin(request: AppRequest, events: AppEvents): AppExchange {
    const head = headOf(this.#address, request);
    const connection = this.#connections.take(this.#address);
    const under = connection.begin(head, request, {
      head: (response) => events.head(response),
      data: (bytes) => events.data(bytes),
      drained: () => events.drained?.(),
      end: () => {
        this.#underWay.delete(exchange);
        events.end();
      },
      failed: (reason) => {
        this.#underWay.delete(exchange);
        events.failed(reason);
      },
    });
    const exchange: AppExchange = {
      ...under,
      cancel: () => {
        this.#underWay.delete(exchange);
        under.cancel();
      },
    };
    this.#underWay.add(exchange);
    return exchange;
  }

  close(): void {
    for (const exchange of this.#underWay) exchange.cancel();
  }
}

interface HttpConnectionOwner {
  /** It can be used again. */
  free(): void;
  /** It cannot. */
  gone(): void;
}

class HttpConnection {
  readonly #owner: HttpConnectionOwner;
  #socket: Socket<unknown> | undefined;
  #gone = false;
  #events: AppEvents | undefined;
  #reader: ResponseReader | undefined;
  /** To be written before anything else. */
  #unsent: Uint8Array[] = [];
  /** Of the body of the request, not given yet. */
  #bodyLeft = 0;
  #isCopied = false;
  #paused = false;
  idleSinceMs = 0;

  constructor(address: AppAddress, owner: HttpConnectionOwner) {
    this.#owner = owner;
    const { target } = address;
    const socket: SocketHandler<unknown> = {
      binaryType: "uint8array",
      open: (opened) => this.#opened(opened),
      data: (_, bytes) => this.#received(bytes),
      drain: () => this.#drained(),
      end: () => this.#ended(),
      close: () => this.#ended(),
      error: (_, error) => this.#failed(error.message),
      connectError: (_, error) => this.#failed(connectText(error)),
    };
    const connecting =
      "unix" in target
        ? Bun.connect({ unix: target.unix, socket })
        : Bun.connect({ ...target, socket });
    connecting.catch((error: Error) => this.#failed(connectText(error)));
  }

  begin(head: string, { body, isCopied = false }: AppRequest, events: AppEvents): AppExchange {
    this.#events = events;
    this.#isCopied = isCopied;
    this.#reader = new ResponseReader({
      head: (response) => this.#events?.head(response),
      data: (bytes) => this.#events?.data(bytes),
      end: () => {},
    });
    const bytes = new TextEncoder().encode(head);
    if (body instanceof Uint8Array && body.byteLength > 0) {
      const whole = new Uint8Array(bytes.byteLength + body.byteLength);
      whole.set(bytes);
      whole.set(body, bytes.byteLength);
      this.#unsent.push(whole);
    } else this.#unsent.push(bytes);
    this.#bodyLeft = typeof body === "number" ? body : 0;
    this.#flush();
    // What is told of an exchange that was cancelled, or of one before, concerns nobody.
    const isLive = (): boolean => this.#events === events;
    return {
      write: (part) => {
        if (!isLive()) return true;
        this.#bodyLeft -= part.byteLength;
        if (this.#bodyLeft < 0) throw new Error("http: more of a body than was announced");
        this.#unsent.push(part);
        this.#flush();
        return this.#unsent.length === 0;
      },
      pause: () => {
        if (isLive()) this.#pause(true);
      },
      resume: () => {
        if (isLive()) this.#pause(false);
      },
      cancel: () => {
        if (!isLive()) return;
        this.#events = undefined;
        this.drop();
      },
    };
  }

  drop(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#socket?.terminate();
    this.#owner.gone();
  }

  #pause(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (paused) this.#socket?.pause();
    else this.#socket?.resume();
  }

  #opened(socket: Socket<unknown>): void {
    this.#socket = socket;
    if (this.#gone) return void socket.terminate();
    socket.setNoDelay(true);
    this.#drained();
  }

  #flush(): void {
    if (this.#socket === undefined || this.#gone) return;
    for (let part = this.#unsent[0]; part !== undefined; part = this.#unsent[0]) {
      const written = Math.max(0, this.#socket.write(part));
      if (written < part.byteLength) {
        this.#unsent[0] = part.subarray(written);
        return;
      }
      this.#unsent.shift();
    }
  }

  #drained(): void {
    this.#flush();
    if (this.#unsent.length === 0 && this.#bodyLeft > 0) this.#events?.drained?.();
  }

  #received(bytes: Uint8Array): void {
    if (this.#gone) return;
    const reader = this.#reader;
    if (reader === undefined) return this.drop();
    try {
      reader.push(bytes);
    } catch (error) {
      if (!(error instanceof BadResponseError)) throw error;
      return this.#failed(error.message);
    }
    if (this.#isCopied) freeMemory(bytes);
    if (reader.ended) this.#answered(reader.keepsAlive);
  }

  #answered(keepsAlive: boolean): void {
    const events = this.#events;
    const isWhole = this.#unsent.length === 0 && this.#bodyLeft === 0;
    this.#events = undefined;
    this.#reader = undefined;
    this.#pause(false);
    if (this.#gone) return;
    if (keepsAlive && isWhole) {
      this.idleSinceMs = performance.now();
      this.#owner.free();
    } else this.drop();
    events?.end();
  }

  /** The other side sends nothing any more. */
  #ended(): void {
    if (this.#gone) return;
    const reader = this.#reader;
    if (reader === undefined) return this.drop();
    try {
      reader.close();
    } catch (error) {
      return this.#failed((error as Error).message);
    }
    this.#answered(false);
  }

  #failed(reason: string): void {
    if (this.#gone) return;
    const events = this.#events;
    this.#events = undefined;
    this.drop();
    events?.failed(reason);
  }
}

function connectText(error: Error): string {
  return `nobody answers there (${error.message.slice(0, 200)})`;
}

function headOf(
  { host, path }: AppAddress,
  { name, headers, contentType, body }: AppRequest,
): string {
  const length = typeof body === "number" ? body : (body?.byteLength ?? 0);
  const type = contentType === undefined ? "" : `content-type: ${contentType}\r\n`;
  let text = `POST ${path}/${name} HTTP/1.1\r\nhost: ${host}\r\n${type}content-length: ${length}\r\n`;
  for (const [header, value] of headers) text += `${header}: ${value}\r\n`;
  return `${text}\r\n`;
}

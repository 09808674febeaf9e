/**
 * The binary door for clients: requests in, replies out, on connections whose hello is done. A request costs one small waiter and never a
 * promise or a closure; its reply is encoded straight into the connection's send buffer and leaves with all others of the turn [39].
 *
 * Bounded: requests of one connection that wait (then its socket is not read), the size of sections and replies, and by the connection
 * itself the bytes that a client does not read.
 */
import { BargeError, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { CloseReason, Connection, ConnectionHandler } from "../net/connection.ts";
import type { Tallies } from "../telemetry/metrics.ts";
import {
  decodeClientRequest,
  encodeControlReply,
  encodeErrorReply,
  encodeWriteReply,
  queryHeadBytes,
  ReadReplyWriter,
} from "../wire/client-messages.ts";
import { frameHeaderBytes } from "../wire/frame.ts";
import type { ControlRequest, ReadRequest, WriteRequest } from "../wire/messages.ts";
import { readSectionHeader, type SectionHeader, SectionKind } from "../wire/section.ts";
import type { Groups, ReadSink, ReadSource, ReadWaiter, WriteWaiter } from "./groups.ts";

export interface ClientServerOptions {
  readonly groups: Groups;
  readonly limits: Limits;
  readonly tallies: Tallies;
  /** Asks for a turn, at whose end `flush` is called; may be called any number of times. */
  readonly wake: () => void;
}

/** Fields of a read reply and some room, when its answers are bounded by the longest frame. */
const replyOverheadBytes = 1_024;
/** Code of an answer that does not fit: machine.ResultCode.tooLarge, which the server may not import. */
const answerTooLarge = 4;

export class ClientServer {
  readonly #groups: Groups;
  readonly #limits: Limits;
  readonly #tallies: Tallies;
  readonly #wake: () => void;
  readonly #served = new Set<ServedConnection>();
  /** Connections with replies that have not been handed to their sockets. */
  #dirty: ServedConnection[] = [];
  #stopping = false;
  readonly replyWriter = new ReadReplyWriter();
  readonly answerBytesMax: number;

  constructor({ groups, limits, tallies, wake }: ClientServerOptions) {
    this.#groups = groups;
    this.#limits = limits;
    this.#tallies = tallies;
    this.#wake = wake;
    this.answerBytesMax = limits.frameBytesMax - frameHeaderBytes - replyOverheadBytes;
  }

  /** Takes over a connection whose hello named a client and is answered. */
  accept(connection: Connection): void {
    const served = new ServedConnection(this, connection);
    connection.handler = served;
    this.#served.add(served);
    this.#tallies.clientConnections = this.#served.size;
    this.#tallies.clientConnectionsTotal++;
  }

  get connectionCount(): number {
    return this.#served.size;
  }

  /** Requests that await their reply, over all connections. */
  get waiting(): number {
    return this.#tallies.requestsWaiting;
  }

  /** Hands the replies of a turn to the sockets. */
  flush(): void {
    if (this.#dirty.length === 0) return;
    const dirty = this.#dirty;
    this.#dirty = [];
    for (const served of dirty) {
      served.dirty = false;
      served.connection.flush();
    }
  }

  /** From now on requests are refused; those that wait still get their reply. */
  stop(): void {
    this.#stopping = true;
  }

  /** Sends what is ready and closes every connection. */
  close(): void {
    this.stop();
    for (const served of this.#served) served.connection.close("closed here");
  }

  /* ---------------------------------------------------------------- requests, from their connection */

  request(served: ServedConnection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    this.#tallies.framesReceived++;
    const message = decodeClientRequest(type, payload, fieldsBytes);
    if (message === undefined) return served.connection.close("malformed message");
    if (message.type === "control") return this.#control(served, message);
    this.#admit(served);
    if (message.type === "write") this.#write(served, message);
    else this.#read(served, message);
  }

  #write(served: ServedConnection, message: WriteRequest): void {
    const waiter = new SectionWaiter(this, served, message.request);
    const header = readSectionHeader(message.section, 0);
    const refused =
      header === undefined
        ? new BargeError("bad_request", "The section is malformed.")
        : (this.#refusal() ?? this.#checkSection(message.section, header));
    if (refused !== undefined || header === undefined) return waiter.failed(refused!);
    this.#tallies.writeRequests++;
    this.#tallies.writeCommands += header.count;
    const timeoutMs = this.#timeoutMs(message.timeoutMs);
    this.#groups.write(message.group, message.section, header, timeoutMs, waiter);
  }

  #read(served: ServedConnection, message: ReadRequest): void {
    const { request, queries, count } = message;
    const waiter = new QueriesWaiter(this, served, request, queries, count);
    const refused = this.#refusal();
    if (refused !== undefined) return waiter.failed(refused);
    this.#tallies.readRequests++;
    this.#tallies.readQueries += count;
    const { group, consistency, maxStalenessMs } = message;
    const timeoutMs = this.#timeoutMs(message.timeoutMs);
    this.#groups.read(group, consistency, maxStalenessMs, timeoutMs, waiter);
  }

  #control(served: ServedConnection, { request, operation }: ControlRequest): void {
    if (operation !== "status") {
      const error = new BargeError("bad_request", `This node knows no operation "${operation}".`);
      return this.sendError(served, request, error);
    }
    try {
      encodeControlReply(served.connection.out, request, this.#groups.status());
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return this.sendError(served, request, new BargeError("too_large", error.message));
    }
    this.sent(served);
  }

  #refusal(): BargeError | undefined {
    return this.#stopping
      ? new BargeError("shutting_down", "This node is stopping; ask another.")
      : undefined;
  }

  #checkSection(section: Uint8Array, header: SectionHeader): BargeError | undefined {
    if (header.kind !== SectionKind.plain) {
      return new BargeError(
        "bad_request",
        "This node serves no sessions yet: send a plain section.",
      );
    }
    const { sectionBytesMax, sectionCommandsMax } = this.#limits;
    // One command alone may be larger: the machine's own bounds decide, and the frame's.
    if (section.byteLength > sectionBytesMax && header.count > 1) {
      return new BargeError("too_large", `A section may be at most ${sectionBytesMax} bytes.`);
    }
    if (header.count > sectionCommandsMax) {
      return new BargeError("too_large", `A section holds at most ${sectionCommandsMax} commands.`);
    }
    return undefined;
  }

  #timeoutMs(asked: number): number {
    const { requestTimeoutMs, requestTimeoutMsMax } = this.#limits;
    return asked === 0 ? requestTimeoutMs : Math.min(asked, requestTimeoutMsMax);
  }

  /* ---------------------------------------------------------------- replies, from the waiters */

  sendWritten(
    served: ServedConnection,
    request: number,
    firstIndex: number,
    results: Uint8Array,
  ): void {
    if (results.byteLength > this.#limits.resultBytesMax) {
      const error = new BargeError("result_too_large", `Applied at ${firstIndex}; ask for less.`);
      return this.sendError(served, request, error);
    }
    encodeWriteReply(served.connection.out, request, firstIndex, results);
    this.sent(served);
  }

  sendError(served: ServedConnection, request: number, error: BargeError): void {
    const { code, outcome, message, leaderHint } = error;
    this.#tallies.refuse(code);
    const { out } = served.connection;
    encodeErrorReply(out, request, errorTable[code].number, outcome, message, leaderHint ?? "");
    this.sent(served);
  }

  /** A reply lies in the send buffer. */
  sent(served: ServedConnection): void {
    this.#tallies.framesSent++;
    if (served.dirty) return;
    served.dirty = true;
    this.#dirty.push(served);
    if (this.#dirty.length === 1) this.#wake();
  }

  /* ---------------------------------------------------------------- how many wait */

  #admit(served: ServedConnection): void {
    this.#tallies.requestsWaiting++;
    served.waiting++;
    if (served.paused || served.waiting < this.#limits.connectionRequestsMax) return;
    served.paused = true;
    served.connection.pause();
  }

  /** A request has its answer. False when nobody is there to read it. */
  settle(served: ServedConnection): boolean {
    if (served.gone) return false;
    this.#tallies.requestsWaiting--;
    served.waiting--;
    if (served.paused && served.waiting * 2 <= this.#limits.connectionRequestsMax) {
      served.paused = false;
      served.connection.resume();
    }
    return true;
  }

  forget(served: ServedConnection, reason: CloseReason): void {
    this.#served.delete(served);
    this.#tallies.clientConnections = this.#served.size;
    this.#tallies.requestsWaiting -= served.waiting;
    if (reason !== "closed by the other side" && reason !== "closed here") {
      this.#tallies.clientConnectionsCut++;
    }
  }
}

/** What the door keeps of one connection. */
class ServedConnection implements ConnectionHandler {
  readonly #server: ClientServer;
  readonly connection: Connection;
  waiting = 0;
  paused = false;
  dirty = false;
  /** Nobody is there any more: waiters say nothing. */
  gone = false;

  constructor(server: ClientServer, connection: Connection) {
    this.#server = server;
    this.connection = connection;
  }

  frame(_connection: Connection, type: number, payload: Uint8Array, fieldsBytes: number): void {
    this.#server.request(this, type, payload, fieldsBytes);
  }

  closed(_connection: Connection, reason: CloseReason): void {
    this.gone = true;
    this.#server.forget(this, reason);
  }
}

class SectionWaiter implements WriteWaiter {
  readonly #server: ClientServer;
  readonly #served: ServedConnection;
  readonly #request: number;

  constructor(server: ClientServer, served: ServedConnection, request: number) {
    this.#server = server;
    this.#served = served;
    this.#request = request;
  }

  applied(firstIndex: number, results: Uint8Array): void {
    if (!this.#server.settle(this.#served)) return;
    this.#server.sendWritten(this.#served, this.#request, firstIndex, results);
  }

  failed(error: BargeError): void {
    if (!this.#server.settle(this.#served)) return;
    this.#server.sendError(this.#served, this.#request, error);
  }
}

class QueriesWaiter implements ReadWaiter, ReadSink {
  readonly #server: ClientServer;
  readonly #served: ServedConnection;
  readonly #request: number;
  readonly #queries: Uint8Array;
  readonly #count: number;

  constructor(
    server: ClientServer,
    served: ServedConnection,
    request: number,
    queries: Uint8Array,
    count: number,
  ) {
    this.#server = server;
    this.#served = served;
    this.#request = request;
    this.#queries = queries;
    this.#count = count;
  }

  ready(source: ReadSource, appliedIndex: number): void {
    if (!this.#server.settle(this.#served)) return;
    const { replyWriter } = this.#server;
    replyWriter.begin(this.#served.connection.out, this.#request, appliedIndex);
    const { buffer, byteOffset, byteLength } = this.#queries;
    const view = new DataView(buffer, byteOffset, byteLength);
    let at = 0;
    for (let i = 0; i < this.#count; i++) {
      const queryAt = at + queryHeadBytes;
      at = queryAt + view.getUint32(at, true);
      source.read(this.#queries.subarray(queryAt, at), this);
    }
    replyWriter.end();
    this.#server.sent(this.#served);
  }

  /** An answer that does not fit the frame any more is answered as too large; asked alone it fits. */
  answer(code: number, bytes: Uint8Array | undefined): void {
    const { replyWriter, answerBytesMax } = this.#server;
    const size = bytes === undefined ? 0 : bytes.byteLength;
    if (replyWriter.bodyBytes + size <= answerBytesMax) replyWriter.answer(code, bytes);
    else replyWriter.answer(answerTooLarge, undefined);
  }

  failed(error: BargeError): void {
    if (!this.#server.settle(this.#served)) return;
    this.#server.sendError(this.#served, this.#request, error);
  }
}

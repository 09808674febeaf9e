/**
 * A node that does as it is told: speaks the real frames over a real socket, applies nothing, and answers only what and when a test says.
 */
import { BargeError, errorTable } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import type { Connection } from "../../src/net/connection.ts";
import { type Listener, listen } from "../../src/net/listener.ts";
import {
  decodeClientRequest,
  encodeControlReply,
  encodeErrorReply,
  encodeWriteReply,
  ReadReplyWriter,
} from "../../src/wire/client-messages.ts";
import {
  decodeFollowGroups,
  encodeGroupLeaders,
  type FollowGroups,
  type GroupLeader,
} from "../../src/wire/group-leaders.ts";
import { writeSafe } from "../../src/wire/batch.ts";
import {
  type ControlRequest,
  FrameType,
  type HelloReply,
  type ReadRequest,
  type WriteRequest,
} from "../../src/wire/messages.ts";
import { SectionResults } from "../../src/wire/section-results.ts";
import { readSectionHeader, sectionHeaderBytes } from "../../src/wire/section.ts";

export type Received = (WriteRequest | ReadRequest | ControlRequest) & {
  readonly connection: Connection;
};

export class FakeNode implements Disposable {
  readonly received: Received[] = [];
  readonly connections: Connection[] = [];
  /** What clients want to be told of. */
  readonly followed: (FollowGroups & { readonly connection: Connection })[] = [];
  /** Answers at once where set; else requests wait for the test. */
  answer: ((node: FakeNode, request: Received) => void) | undefined;
  /** Sessions are opened here and seen by no test; else there are none, and clients write without. */
  sessions: { ttlMs: number; windowSections: number } | undefined;
  sessionsOpened = 0;
  /** False: control requests are refused here and seen by no test. */
  answersControl = false;
  hello: Partial<HelloReply> = {};
  nextIndex = 1;
  readonly sessionCalls: string[] = [];
  readonly nodeId: number;
  readonly #listener: Listener;
  #wake: (() => void)[] = [];

  constructor(nodeId = 1, port = 0) {
    this.nodeId = nodeId;
    this.#listener = listen({
      host: "127.0.0.1",
      port,
      limits: defaultLimits,
      decideHello: () => ({
        version: 1,
        features: 0,
        software: "fake",
        clusterId: "fake",
        nodeId,
        incarnation: "fake",
        frameBytesMax: defaultLimits.frameBytesMax,
        sectionBytesMax: defaultLimits.sectionBytesMax,
        members: {},
        leader: 0,
        ...this.hello,
      }),
      onConnection: (connection) => {
        this.connections.push(connection);
        connection.handler = {
          frame: (_, type, payload, fieldsBytes) => {
            if (type === FrameType.followGroups) {
              this.followed.push({ ...decodeFollowGroups(payload, fieldsBytes)!, connection });
              return this.#woken();
            }
            const request = decodeClientRequest(type, payload, fieldsBytes);
            if (request === undefined) throw new Error(`fake node: malformed frame, type ${type}`);
            this.#take({ ...request, connection });
          },
          closed: () => this.#woken(),
        };
        this.#woken();
      },
    });
  }

  get endpoint(): string {
    return `127.0.0.1:${this.#listener.port}`;
  }

  get port(): number {
    return this.#listener.port;
  }

  get writes(): (WriteRequest & { readonly connection: Connection })[] {
    return this.received.filter((request) => request.type === "write");
  }

  get reads(): (ReadRequest & { readonly connection: Connection })[] {
    return this.received.filter((request) => request.type === "read");
  }

  /** Resolves once the condition holds; looked at whenever something happened here. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  /** Applies the section at the next index; `results` for what is not plain ok. */
  applied(request: Received, results: SectionResults = new SectionResults()): number {
    if (request.type !== "write") throw new Error("fake node: not a write");
    const firstIndex = this.nextIndex;
    this.nextIndex += readSectionHeader(request.section, 0)!.count;
    encodeWriteReply(request.connection.out, request.request, firstIndex, results.view());
    request.connection.flush();
    return firstIndex;
  }

  /** Answers every query with the same value, or with what `answerOf` says. */
  read(
    request: Received,
    answerOf: (position: number) => { code: number; bytes?: Uint8Array },
  ): void {
    if (request.type !== "read") throw new Error("fake node: not a read");
    const writer = new ReadReplyWriter();
    writer.begin(request.connection.out, request.request, 7);
    for (let i = 0; i < request.count; i++) {
      const { code, bytes } = answerOf(i);
      writer.answer(code, bytes);
    }
    writer.end();
    request.connection.flush();
  }

  refuse(request: Received, error: BargeError): void {
    const { code, outcome, message, leaderHint } = error;
    encodeErrorReply(
      request.connection.out,
      request.request,
      errorTable[code].number,
      outcome,
      message,
      leaderHint ?? "",
    );
    request.connection.flush();
  }

  control(request: Received, body: unknown): void {
    encodeControlReply(request.connection.out, request.request, body);
    request.connection.flush();
  }

  /** Tells all clients who leads. */
  tell(
    version: number,
    whole: boolean,
    groups: readonly (Partial<GroupLeader> & { group: number })[],
  ): void {
    const all = groups.map((each) => ({ leader: 0, term: 1, members: [], gone: false, ...each }));
    for (const connection of this.connections) {
      encodeGroupLeaders(connection.out, { version, whole, groups: all });
      connection.flush();
    }
  }

  /** Cuts every connection. */
  cut(): void {
    for (const connection of this.connections.splice(0)) connection.close("closed here");
  }

  [Symbol.dispose](): void {
    this.#listener.close();
  }

  #take(request: Received): void {
    if (request.type === "control" && this.sessions !== undefined && this.#session(request)) return;
    // The client asks now and then who leads: no business of most tests.
    if (request.type === "control" && !this.answersControl) {
      return this.refuse(request, statusRefused);
    }
    this.received.push(request);
    this.answer?.(this, request);
    this.#woken();
  }

  #session(request: ControlRequest & { readonly connection: Connection }): boolean {
    const { operation } = request;
    if (operation === "sessionOpen") {
      this.sessionsOpened++;
      this.control(request, { session: this.nextIndex++, windowBytes: 1, ...this.sessions });
    } else if (operation === "sessionKeepAlive" || operation === "sessionClose") {
      this.sessionCalls.push(operation);
      this.control(request, {});
    } else return false;
    this.#woken();
    return true;
  }

  #woken(): void {
    const wake = this.#wake;
    this.#wake = [];
    for (const resolve of wake) resolve();
  }
}

const statusRefused = new BargeError("bad_request", "the fake node has no status");

/** Number of commands of a section. */
export function countOf(request: WriteRequest): number {
  return readSectionHeader(request.section, 0)!.count;
}

/** The commands of a section. */
export function commandsOf(request: WriteRequest): Uint8Array[] {
  const { section } = request;
  const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
  const commands: Uint8Array[] = [];
  let at = sectionHeaderBytes;
  while (at < section.byteLength) {
    const length = view.getUint32(at, true);
    commands.push(section.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return commands;
}

/** The answer to a get that found something. */
export function entry(revision: number, value: Uint8Array | string): Uint8Array {
  const text = typeof value === "string" ? new TextEncoder().encode(value) : value;
  const bytes = new Uint8Array(8 + text.byteLength);
  writeSafe(new DataView(bytes.buffer), 0, revision);
  bytes.set(text, 8);
  return bytes;
}

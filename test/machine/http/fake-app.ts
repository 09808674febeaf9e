/**
 * A scripted application behind the seam AppCalls: it keeps its own data, forgets what is not synced when it crashes, and fails as it is told. What it answers comes
 * with `run`, so that a test decides what happens between a call and its answer.
 */
import type {
  AppCalls,
  AppEvents,
  AppExchange,
  AppRequest,
} from "../../../src/machine/http/app-calls.ts";
import { type Entry, readUpdate, updateReply } from "./update-bodies.ts";

/** What becomes of a callback. */
export type Fault =
  /** Never answered, and never done. */
  | "hang"
  /** Done, and never answered. */
  | "mute"
  | "500"
  /** Broken off before it was done, and after it. */
  | "reset"
  | "resetAfter"
  /** Done, and answered with what is no JSON. */
  | "garbage"
  /** Done, with one result too few. */
  | "miscount"
  /** Refused with a body of a megabyte. */
  | "long500"
  | "empty500";

export interface Asked {
  readonly name: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly contentType: string | undefined;
  readonly body: string;
}

interface Pending {
  readonly request: AppRequest;
  readonly events: AppEvents;
  readonly parts: Uint8Array[];
  cancelled: boolean;
  paused: boolean;
  /** The stream of an answer that is being given. */
  rest: Uint8Array | undefined;
}

const partBytes = 700;

export class FakeApp implements AppCalls {
  /** Durable, and all. */
  durable: Entry[] = [];
  entries: Entry[] = [];
  instance: string | undefined = "life-1";
  shape: "json" | "binary" = "json";
  prepareEvery: number | undefined;
  /** Updates are durable at once. */
  storesAtOnce = true;
  isUp = true;
  /** For the next callback of a name, one after the other. */
  readonly faults = new Map<string, Fault[]>();
  /** Called for each callback without a fault of its own. */
  chance: (name: string) => Fault | undefined = () => undefined;
  readonly asked: Asked[] = [];
  readonly handles = new Map<string, Entry[]>();
  /** By handle: how often it was released. */
  readonly released = new Map<string, number>();
  /** SaveSnapshot says how long it is. */
  saysLength = false;
  reportsIndex: (index: number) => number | string = (index) => index;
  refusesGaps = true;
  restores: Entry[][] = [];
  #pending: Pending[] = [];
  #lives = 1;
  #handles = 0;

  get storedIndex(): number {
    return this.entries.at(-1)?.index ?? 0;
  }

  count(name: string): number {
    return this.asked.filter((asked) => asked.name === name).length;
  }

  fail(name: string, ...faults: Fault[]): void {
    this.faults.set(name, [...(this.faults.get(name) ?? []), ...faults]);
  }

  /** What was not synced is gone, but for `kept` entries of it, as a crash may leave some. */
  crash(kept = 0): void {
    const lives = this.entries.slice(0, Math.max(this.durable.length, this.durable.length + kept));
    this.entries = lives.slice(0, this.entries.length);
    this.durable = [...this.entries];
    this.handles.clear();
    this.isUp = true;
    this.#lives++;
    if (this.instance !== undefined) this.instance = `life-${this.#lives}`;
    for (const pending of this.#pending.splice(0)) {
      if (!pending.cancelled) pending.events.failed("the connection broke off");
    }
  }

  begin(request: AppRequest, events: AppEvents): AppExchange {
    const parts = request.body instanceof Uint8Array ? [request.body.slice()] : [];
    const rest = undefined;
    const pending: Pending = { request, events, parts, cancelled: false, paused: false, rest };
    this.#pending.push(pending);
    return {
      write: (bytes) => {
        parts.push(bytes.slice());
        return true;
      },
      pause: () => (pending.paused = true),
      resume: () => (pending.paused = false),
      cancel: () => (pending.cancelled = true),
    };
  }

  close(): void {
    for (const pending of this.#pending) pending.cancelled = true;
    this.#pending = [];
  }

  /** Answers what was asked up to now; false where nothing was. */
  run(): boolean {
    const asked = this.#pending;
    this.#pending = [];
    for (const pending of asked) {
      if (!pending.cancelled && !this.#answer(pending)) this.#pending.push(pending);
    }
    return asked.length > 0;
  }

  /** False where it is not over. */
  #answer(pending: Pending): boolean {
    const { request, events, parts } = pending;
    if (pending.rest !== undefined) return this.#stream(pending);
    const body = Buffer.concat(parts);
    if (typeof request.body === "number" && body.byteLength < request.body) return false;
    if (!this.isUp) {
      events.failed("nobody answers there");
      return true;
    }
    const { name, contentType } = request;
    const headers = Object.fromEntries(request.headers);
    this.asked.push({ name, headers, contentType, body: body.toString("latin1") });
    const fault = this.faults.get(name)?.shift() ?? this.chance(name);
    return this.#doIt(pending, body, fault, headers);
  }

  #doIt(
    pending: Pending,
    body: Buffer,
    fault: Fault | undefined,
    headers: Record<string, string>,
  ): boolean {
    const { events } = pending;
    switch (fault) {
      case "hang":
        return true;
      case "reset":
        events.failed("the connection broke off");
        return true;
      case "500":
        return this.#reply(pending, 500, "it is broken");
      case "empty500":
        return this.#reply(pending, 500, "");
      case "long500":
        return this.#reply(pending, 500, "x".repeat(1_048_576));
      case undefined:
      case "mute":
      case "resetAfter":
      case "garbage":
      case "miscount":
    }
    const answer = this.#work(pending.request.name, body, headers, fault === "miscount");
    if (fault === "mute") return true;
    if (fault === "resetAfter") {
      events.failed("the connection broke off");
      return true;
    }
    if (fault === "garbage") return this.#reply(pending, 200, '{"Results":[{');
    return this.#reply(pending, answer.status, answer.body);
  }

  #reply(pending: Pending, status: number, body: string | Uint8Array): boolean {
    const { events, request } = pending;
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    const type = typeof body === "string" ? "application/json" : "application/octet-stream";
    const headers = new Map([["content-type", type]]);
    if (this.instance !== undefined) headers.set("barge-instance", this.instance);
    if (request.name === "SaveSnapshot" && this.saysLength) {
      headers.set("content-length", String(bytes.byteLength));
    }
    events.head({ status, headers });
    pending.rest = bytes;
    return this.#stream(pending);
  }

  #stream(pending: Pending): boolean {
    const { events } = pending;
    while (!pending.paused && !pending.cancelled) {
      const rest = pending.rest!;
      if (rest.byteLength === 0) {
        events.end();
        return true;
      }
      const part = rest.slice(0, partBytes);
      events.data(part);
      if (pending.request.isCopied === true) part.fill(0xee);
      pending.rest = rest.subarray(partBytes);
    }
    return pending.cancelled;
  }

  #work(
    name: string,
    body: Buffer,
    headers: Record<string, string>,
    miscounts: boolean,
  ): { status: number; body: string | Uint8Array } {
    const ok = (reply: unknown): { status: number; body: string } => ({
      status: 200,
      body: JSON.stringify(reply),
    });
    switch (name) {
      case "Ready":
        return ok({ Shape: this.shape, PrepareEvery: this.prepareEvery, Other: true });
      case "LastLogIndex":
        return ok({ LastLogIndex: this.reportsIndex(this.storedIndex) });
      case "UpdateEntries":
        return this.#update(body, headers, miscounts);
      case "Sync":
        this.durable = [...this.entries];
        return { status: 204, body: "" };
      case "Read":
        return { status: 200, body: Buffer.concat([Buffer.from(`${this.storedIndex}:`), body]) };
      case "PrepareSnapshot": {
        const handle = JSON.stringify({ handle: ++this.#handles });
        this.handles.set(handle, [...this.entries]);
        return { status: 200, body: handle };
      }
      case "SaveSnapshot": {
        const entries = this.handles.get(body.toString());
        return entries === undefined
          ? { status: 404, body: "no such handle" }
          : { status: 200, body: JSON.stringify(entries) };
      }
      case "ReleaseSnapshot": {
        const handle = body.toString();
        this.handles.delete(handle);
        this.released.set(handle, (this.released.get(handle) ?? 0) + 1);
        return ok({});
      }
      case "RecoverFromSnapshot":
        this.entries = JSON.parse(body.toString()) as Entry[];
        this.restores.push([...this.entries]);
        if (this.storesAtOnce) this.durable = [...this.entries];
        return { status: 204, body: "" };
      default:
        return { status: 404, body: "no such callback" };
    }
  }

  #update(
    body: Buffer,
    headers: Record<string, string>,
    miscounts: boolean,
  ): { status: number; body: string | Uint8Array } {
    if (this.refusesGaps && Number(headers["barge-previous-index"]) !== this.storedIndex) {
      return { status: 409, body: `stored is ${this.storedIndex}` };
    }
    const { entries: given, isJson } = readUpdate(body);
    for (const entry of given) {
      // Only where it is told not to refuse gaps.
      if (entry.index > this.storedIndex) this.entries.push(entry);
    }
    if (this.storesAtOnce) this.durable = [...this.entries];
    const results = given.map(({ index, command }) => `${command}@${index}`);
    if (miscounts) results.pop();
    return { status: 200, ...updateReply(isJson, results) };
  }
}

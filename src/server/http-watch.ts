/**
 * Watches over HTTP, as server-sent events: what a browser, a shell or any HTTP client can follow.
 *
 *     GET /v1/watch?prefix=&from=        or key= for one key; the header Last-Event-ID takes the place of from
 *
 *     event: put                         data: {"key","value" (base64),"revision"}
 *     event: delete                      data: {"key","revision"}
 *     event: progress                    data: {"revision"}: nothing else has changed up to there. The first event is one
 *     event: error                       data: {"error":{…}}, the last event: a watch may go on elsewhere, or later
 *
 * The id of an event is the revision up to which everything was told; only the last change of a revision has one, so that who comes back with
 * it misses nothing. A client that does not read is told nothing more until it does: the log keeps what it misses.
 */
import { BargeError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { Tallies } from "../telemetry/metrics.ts";
import type { Changes, Groups, WatchHandle, Watcher } from "./groups.ts";
import { base64, errorBody } from "./http-answers.ts";
import type { HttpParameters } from "./http-parameters.ts";

export interface HttpWatchesOptions {
  readonly groups: Groups;
  readonly limits: Limits;
  readonly tallies: Tallies;
}

/** So that whoever stands between does not take a quiet stream for a dead one. */
const aliveEveryMs = 10_000;

export class HttpWatches {
  readonly #options: HttpWatchesOptions;
  readonly #open = new Set<HttpWatch>();

  constructor(options: HttpWatchesOptions) {
    this.#options = options;
  }

  start(request: Request, parameters: HttpParameters): Response {
    const { groups, limits, tallies } = this.#options;
    if (this.#open.size >= limits.httpWatchesMax) {
      throw new BargeError("overloaded", "Too many watches over HTTP at once; ask another node.");
    }
    const prefix = parameters.bytes("key") ?? parameters.bytes("prefix") ?? new Uint8Array(0);
    const exact = parameters.has("key");
    if (exact && (parameters.has("prefix") || prefix.byteLength === 0)) {
      throw new BargeError("bad_request", "Give a prefix, or a key that is not empty.");
    }
    if (prefix.byteLength > limits.keyBytesMax) {
      throw new BargeError("too_large", "The key is longer than a key may be.");
    }
    const from = resumeFrom(request) ?? parameters.integer("from") ?? 0;
    const group = parameters.integer("group") ?? 0;
    const watch = new HttpWatch(limits.watchQueueBytesMax, () => {
      this.#open.delete(watch);
      tallies.httpWatches = this.#open.size;
    });
    watch.handle = groups.watch(group, { prefix, exact, from }, watch);
    this.#open.add(watch);
    tallies.httpWatches = this.#open.size;
    return new Response(watch.body, {
      headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
    });
  }
}

/** An id is the last revision that was told whole. */
function resumeFrom(request: Request): number | undefined {
  const id = request.headers.get("last-event-id");
  if (id === null || id === "") return undefined;
  const revision = /^[0-9]{1,16}$/.test(id) ? Number(id) : Number.NaN;
  if (Number.isSafeInteger(revision + 1)) return revision + 1;
  throw new BargeError("bad_request", `Last-Event-ID must be a revision, not "${id}".`);
}

const encoder = new TextEncoder();

class HttpWatch implements Watcher {
  handle: WatchHandle | undefined;
  readonly body: ReadableStream<Uint8Array>;
  readonly #gone: () => void;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #over = false;
  readonly #alive: Timer;

  constructor(queueBytesMax: number, gone: () => void) {
    this.#gone = gone;
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.handle?.resume(),
        cancel: () => this.#end(),
      },
      { highWaterMark: queueBytesMax, size: (chunk) => chunk?.byteLength ?? 0 },
    );
    this.#alive = setInterval(() => this.#send(":\n\n"), aliveEveryMs);
  }

  get hasRoom(): boolean {
    return (this.#controller.desiredSize ?? 0) > 0;
  }

  changed(revision: number, changes: Changes): void {
    let text = "";
    let event = "";
    let told = 0;
    while (changes.next()) {
      // Another change of that revision follows where it is the same.
      if (event !== "") text += changes.revision === told ? event : `id: ${told}\n${event}`;
      told = changes.revision;
      event = eventOf(changes);
    }
    this.#send(`${text}id: ${revision}\n${event}`);
  }

  progressed(revision: number): void {
    this.#send(`id: ${revision}\nevent: progress\ndata: {"revision":${revision}}\n\n`);
  }

  ended(_revision: number, error: BargeError): void {
    this.#send(`event: error\ndata: ${JSON.stringify(errorBody(error))}\n\n`);
    if (this.#over) return;
    this.#end();
    this.#controller.close();
  }

  #send(text: string): void {
    if (!this.#over) this.#controller.enqueue(encoder.encode(text));
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#alive);
    this.handle?.close();
    this.#gone();
  }
}

function eventOf(change: Changes): string {
  const { bytes, keyAt, keyLength, valueLength, revision, deleted } = change;
  const valueAt = keyAt + keyLength;
  const key = base64(bytes.subarray(keyAt, valueAt));
  if (deleted) return `event: delete\ndata: ${JSON.stringify({ key, revision })}\n\n`;
  const value = base64(bytes.subarray(valueAt, valueAt + valueLength));
  return `event: put\ndata: ${JSON.stringify({ key, value, revision })}\n\n`;
}

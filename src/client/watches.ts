/**
 * The watches of a client: which node serves which, and where they go on when one is lost, stops, or does not reach far enough back. All on one
 * connection to one node, as long as that serves them; another client may well have chosen another node, since any node can.
 */
import { BargeError, errorCodeOf, errorTable } from "../errors.ts";
import type { Dial } from "../net/socket.ts";
import type { WatchEnded } from "../wire/watch-messages.ts";
import type { ClientLogger } from "./api.ts";
import { type Stream, WatchLink } from "./watch-link.ts";

export interface WatchesOptions {
  readonly dial: Dial;
  readonly attemptTimeoutMs: number;
  readonly logger: ClientLogger;
  /** Those that the client knows by now, the ones that have the group first. */
  readonly endpoints: (group: number) => readonly string[];
  /** Some node has told that there is such a group. */
  readonly isListed: (group: number) => boolean;
  /** `host:port` of members by their ids, as a node names them: the client's calls need them as much as its watches. */
  readonly learn: (members: Record<string, string>) => void;
}

const sweepMs = 50;
const backOffMsMin = 25;
const backOffMsMax = 1_000;

/** What is known of a node besides its connection. */
interface Node {
  failures: number;
  /** Not to be dialled before. */
  retryAtMs: number;
}

/** A watch that no node serves at the moment. */
interface Homeless {
  /** Since when. */
  readonly sinceMs: number;
  /** Nodes that were tried in vain since it was served last, and those among them that do not reach back far enough. */
  readonly tried: Set<string>;
  compacted: BargeError | undefined;
  notBeforeMs: number;
  lastError: string;
}

export class Watches {
  readonly #options: WatchesOptions;
  readonly #links = new Map<string, WatchLink>();
  readonly #nodes = new Map<string, Node>();
  readonly #streams = new Set<Stream>();
  readonly #homeless = new Map<Stream, Homeless>();
  /** What a stream went through before it came to the node that it is at. */
  readonly #served = new WeakMap<Stream, Homeless>();
  /** Begins anywhere, so that clients spread over the nodes. */
  #first = Math.random();
  #timer: ReturnType<typeof setInterval> | undefined;
  #settleDue = false;

  constructor(options: WatchesOptions) {
    this.#options = options;
  }

  add(stream: Stream): void {
    this.#streams.add(stream);
    this.#homeless.set(stream, newlyHomeless(performance.now()));
    this.#timer ??= setInterval(() => this.#sweep(), sweepMs);
    // Once for all that are opened in this turn.
    if (this.#settleDue) return;
    this.#settleDue = true;
    queueMicrotask(() => {
      this.#settleDue = false;
      this.#settle(performance.now());
    });
  }

  taken(stream: Stream, bytes: number): void {
    for (const link of this.#links.values()) link.taken(stream, bytes);
  }

  remove(stream: Stream): void {
    if (!this.#streams.delete(stream)) return;
    this.#homeless.delete(stream);
    for (const link of this.#links.values()) link.stop(stream);
    if (this.#streams.size === 0) this.#rest();
  }

  /** All end, in peace. */
  close(): void {
    for (const stream of this.#streams) stream.close();
  }

  closeGroup(group: number): void {
    for (const stream of this.#streams) if (stream.options.group === group) stream.close();
  }

  #rest(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const link of this.#links.values()) link.close();
    this.#links.clear();
  }

  #sweep(): void {
    const nowMs = performance.now();
    for (const link of this.#links.values()) link.sweep(nowMs);
    this.#settle(nowMs);
  }

  /* ---------------------------------------------------------------- who serves whom */

  /** Finds a node for each that has none. */
  #settle(nowMs: number): void {
    for (const [stream, homeless] of this.#homeless) {
      const link = nowMs < homeless.notBeforeMs ? undefined : this.#choose(stream, homeless, nowMs);
      if (link?.ready === true) {
        this.#homeless.delete(stream);
        this.#served.set(stream, homeless);
        link.start(stream);
      } else if (nowMs - homeless.sinceMs >= stream.options.giveUpMs) {
        this.#giveUp(stream, homeless);
      } else if (link === undefined && nowMs >= homeless.notBeforeMs) {
        this.#triedAll(stream, homeless, nowMs);
      }
    }
  }

  /** A node that is connected or being dialled; undefined where there is none to try now. */
  #choose(stream: Stream, { tried }: Homeless, nowMs: number): WatchLink | undefined {
    const endpoints = this.#endpoints(stream).filter((endpoint) => !tried.has(endpoint));
    let dialling: WatchLink | undefined;
    for (const endpoint of endpoints) {
      const link = this.#links.get(endpoint);
      if (link?.ready === true) return link;
      dialling ??= link;
    }
    if (dialling !== undefined) return dialling;
    const first = Math.floor(this.#first * endpoints.length);
    for (let at = 0; at < endpoints.length; at++) {
      const endpoint = endpoints[(first + at) % endpoints.length]!;
      if (nowMs >= (this.#nodes.get(endpoint)?.retryAtMs ?? 0)) return this.#dial(endpoint, nowMs);
    }
    return undefined;
  }

  #endpoints({ options }: Stream): readonly string[] {
    return this.#options.endpoints(options.group);
  }

  #dial(endpoint: string, nowMs: number): WatchLink {
    const { dial, attemptTimeoutMs } = this.#options;
    const link = new WatchLink(
      endpoint,
      {
        dial,
        attemptTimeoutMs,
        ready: (_, members) => this.#ready(endpoint, members),
        ended: (_, stream, message) => this.#ended(endpoint, stream, message),
        lost: (lost, reason, streams) => this.#lost(lost, reason, streams),
      },
      nowMs,
    );
    this.#links.set(endpoint, link);
    return link;
  }

  #ready(endpoint: string, members: Record<string, string>): void {
    this.#nodes.delete(endpoint);
    this.#options.learn(members);
    this.#options.logger.debug(`watching at ${endpoint}`);
    this.#settle(performance.now());
  }

  #lost(link: WatchLink, reason: string, streams: readonly Stream[]): void {
    const nowMs = performance.now();
    const { endpoint } = link;
    if (this.#links.get(endpoint) === link) this.#links.delete(endpoint);
    if (this.#streams.size === 0) return;
    this.#options.logger.info(`lost ${endpoint} as a source of changes: ${reason}`);
    const failures = (this.#nodes.get(endpoint)?.failures ?? 0) + 1;
    const longest = Math.min(backOffMsMax, backOffMsMin * 2 ** Math.min(failures, 10));
    this.#nodes.set(endpoint, {
      failures,
      retryAtMs: nowMs + longest * (0.5 + Math.random() / 2),
    });
    for (const stream of streams) this.#homeless.set(stream, this.#again(stream, nowMs));
    // A watch that looks for a node that reaches further back does not wait for this one; nor do those that all others have refused for the
    // moment wait for one that may never come again.
    for (const homeless of this.#homeless.values()) {
      homeless.lastError = `${endpoint}: ${reason}`;
      if (homeless.compacted !== undefined || failures > 1) homeless.tried.add(endpoint);
    }
    this.#settle(nowMs);
  }

  #ended(endpoint: string, stream: Stream, { error: number, message }: WatchEnded): void {
    const nowMs = performance.now();
    const said = errorCodeOf(number);
    // A node that lags may not have heard yet of a group that another one has told of.
    const isElsewhere = said === "unknown_group" && this.#options.isListed(stream.options.group);
    const code = isElsewhere ? "group_elsewhere" : said;
    const error = new BargeError(code, message);
    if (!errorTable[code].retryable && code !== "compacted") return stream.fail(error);
    const homeless = this.#again(stream, nowMs);
    homeless.lastError = `${endpoint}: ${message}`;
    homeless.tried.add(endpoint);
    if (code === "compacted") homeless.compacted = error;
    this.#homeless.set(stream, homeless);
    this.#settle(nowMs);
  }

  /** One that was served until now; where it was told nothing since it came to that node, the others were tried in vain already. */
  #again(stream: Stream, nowMs: number): Homeless {
    const before = this.#served.get(stream);
    this.#served.delete(stream);
    return before === undefined || stream.heard ? newlyHomeless(nowMs) : before;
  }

  /** There is nobody to ask at the moment: for good, where none reaches back far enough. */
  #triedAll(stream: Stream, homeless: Homeless, nowMs: number): void {
    const { tried, compacted } = homeless;
    if (!this.#endpoints(stream).every((endpoint) => tried.has(endpoint))) return;
    if (compacted !== undefined) return stream.fail(compacted);
    // Those that refused for the moment are asked again after a pause.
    tried.clear();
    homeless.notBeforeMs = nowMs + backOffMsMax * (0.25 + Math.random() / 4);
  }

  #giveUp(stream: Stream, { lastError }: Homeless): void {
    const why = lastError === "" ? "" : ` (${lastError})`;
    const text = `no node has served the watch for ${stream.options.giveUpMs} ms${why}`;
    stream.fail(new BargeError("unreachable", text));
  }
}

function newlyHomeless(nowMs: number): Homeless {
  return { sinceMs: nowMs, tried: new Set(), compacted: undefined, notBeforeMs: 0, lastError: "" };
}

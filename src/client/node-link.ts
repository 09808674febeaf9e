/** What a client knows of one node: its connections, and when to try again after they failed. */
import type { Channel } from "./channel.ts";

const backOffMsMin = 25;
const backOffMsMax = 1_000;

export class NodeLink {
  readonly endpoint: string;
  /** 0 until the node has said it. */
  nodeId = 0;
  channels: Channel[] = [];
  /** Not to be preferred before, on the clock of `performance.now()`: the node said that it is leaving. */
  passOverUntilMs = 0;
  lastError: string | undefined;
  /** No member any more: it answers what it was asked, and is asked nothing else. */
  retired = false;

  readonly #connections: number;
  readonly #slowMs: number;
  readonly #open: (node: NodeLink, nowMs: number) => Channel;
  #failures = 0;
  #retryAtMs = 0;
  #dialledMs = 0;
  #turn = 0;

  constructor(
    endpoint: string,
    connections: number,
    attemptTimeoutMs: number,
    open: (node: NodeLink, nowMs: number) => Channel,
  ) {
    this.endpoint = endpoint;
    this.#connections = connections;
    this.#slowMs = attemptTimeoutMs / 4;
    this.#open = open;
  }

  /** Some connection is ready. */
  get usable(): boolean {
    for (const channel of this.channels) if (channel.ready) return true;
    return false;
  }

  /** Ready, and none of its connections has fallen silent. */
  get lively(): boolean {
    let ready = false;
    for (const channel of this.channels) {
      if (channel.ready && channel.quiet) return false;
      ready ||= channel.ready;
    }
    return ready;
  }

  /** Some connection tells of changes by itself. */
  get tells(): boolean {
    return this.channels.some((channel) => channel.tells);
  }

  /** The same of groups besides group 0. */
  get tellsGroups(): boolean {
    return this.channels.some((channel) => channel.tellsGroups);
  }

  /** Requests that await their answer. */
  get inFlight(): number {
    let count = 0;
    for (const channel of this.channels) count += channel.inFlight.count;
    return count;
  }

  /** No connection is ready, and one is on its way. */
  get dialling(): boolean {
    return this.channels.length > 0 && !this.usable;
  }

  /** Takes longer to connect than a node at rest does: time to try another as well. */
  slow(nowMs: number): boolean {
    return nowMs - this.#dialledMs >= this.#slowMs;
  }

  /** Dials what is missing, unless it is too early after a failure: one at first, the others once that is ready. True where it dialled. */
  connect(nowMs: number): boolean {
    if (nowMs < this.#retryAtMs) return false;
    const wanted = this.usable ? this.#connections : 1;
    if (this.channels.length >= wanted) return false;
    this.#dialledMs = nowMs;
    while (this.channels.length < wanted) this.channels.push(this.#open(this, nowMs));
    return true;
  }

  /** A connection to send on, each in its turn; undefined where none is ready and has room. */
  channel(): Channel | undefined {
    const { channels } = this;
    for (let i = 0; i < channels.length; i++) {
      this.#turn = (this.#turn + 1) % channels.length;
      const channel = channels[this.#turn]!;
      if (channel.ready && channel.hasRoom) return channel;
    }
    return undefined;
  }

  connected(nodeId: number): void {
    this.nodeId = nodeId;
    this.lastError = undefined;
    this.#failures = 0;
    this.#retryAtMs = 0;
  }

  disconnected(channel: Channel, reason: string, nowMs: number): void {
    this.channels = this.channels.filter((other) => other !== channel);
    this.lastError = reason;
    const longest = Math.min(backOffMsMax, backOffMsMin * 2 ** Math.min(this.#failures++, 10));
    this.#retryAtMs = nowMs + longest * (0.5 + Math.random() / 2);
  }

  flush(): void {
    for (const channel of this.channels) channel.flush();
  }

  sweep(nowMs: number): void {
    // A channel that closes leaves the list by replacing it, so this one stands still.
    for (const channel of this.channels) channel.sweep(nowMs);
  }

  close(): void {
    for (const channel of this.channels) channel.close();
  }
}

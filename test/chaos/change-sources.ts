/** The two ways to watch: the SDK, and server-sent events over HTTP, which is resumed here as a browser does it, but at any node. */
import { BargeError } from "../../src/errors.ts";
import { type Change, type Client, connect } from "../../src/client/index.ts";
import type { SeenChange } from "../checker/changes.ts";
import type { TestNode } from "../e2e/cluster.ts";
import type { Random } from "../sim/random.ts";
import type { ChangeSource } from "./watchers.ts";

const retryMs = 50;

type Told = (changes: readonly SeenChange[], revision: number) => void;

export class SdkSource implements ChangeSource {
  readonly #client: Client;
  #closed = false;

  constructor(endpoints: string, say?: (line: string) => void) {
    const log = (line: string): void => say?.(`watcher at ${endpoints}: ${line}`);
    const logger = { debug: log, info: log, warn: log, error: log };
    this.#client = connect({ endpoints, logger });
  }

  async follow(from: number, told: Told): Promise<void> {
    for await (const { changes, revision } of this.#client.watch({ from }).batches()) {
      told(changes.map(seen), revision);
    }
  }

  async revisionNow(): Promise<number> {
    for (;;) {
      try {
        return (await this.#client.range({ limit: 1 })).revision;
      } catch (error) {
        if (!(error instanceof BargeError)) throw error;
        if (this.#closed) return 0;
        await Bun.sleep(retryMs);
      }
    }
  }

  close(): void {
    this.#closed = true;
    this.#client.close();
  }
}

function seen(change: Change): SeenChange {
  const { key, revision } = change;
  return {
    key: text(key),
    value: change.type === "put" ? text(change.value) : undefined,
    revision,
  };
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

/** The data of an event. */
interface EventData {
  readonly key?: string;
  readonly value?: string;
  readonly revision?: number;
  readonly error?: { readonly code: string };
}

export class HttpSource implements ChangeSource {
  readonly #nodes: () => readonly TestNode[];
  readonly #random: Random;
  readonly #abort = new AbortController();
  /** Nodes that have said, one after the other, that they do not reach back so far. */
  readonly #compacted = new Set<TestNode>();
  #revision = 0;

  constructor(nodes: () => readonly TestNode[], random: Random) {
    this.#nodes = nodes;
    this.#random = random;
  }

  async follow(from: number, told: Told): Promise<void> {
    this.#revision = from - 1;
    this.#compacted.clear();
    while (!this.#abort.signal.aborted) {
      const node = this.#random.pick(this.#nodes());
      try {
        const why = await this.#followAt(node, told);
        if (why === "compacted") this.#compacted.add(node);
      } catch {
        // The node is gone, or never was there.
      }
      if (this.#nodes().every((each) => this.#compacted.has(each))) {
        throw new BargeError("compacted", `no node reaches back to ${this.#revision}`);
      }
      await Bun.sleep(retryMs);
    }
  }

  /** Until the node ends it: with the code of its error, if it says one. */
  async #followAt(node: TestNode, told: Told): Promise<string | undefined> {
    const { signal } = this.#abort;
    const response = await fetch(`http://${node.http}/v1/watch?from=${this.#revision + 1}`, {
      signal,
      keepalive: false,
    });
    if (!response.ok || response.body === null) {
      return ((await response.json()) as EventData).error?.code;
    }
    const decoder = new TextDecoder();
    let rest = "";
    /** Of a revision of which there is more to come. */
    let changes: SeenChange[] = [];
    for await (const chunk of response.body) {
      const events = (rest + decoder.decode(chunk, { stream: true })).split("\n\n");
      rest = events.pop()!;
      for (const event of events) {
        const fields = new Map(event.split("\n").map((line) => fieldOf(line)));
        const data = JSON.parse(fields.get("data") ?? "{}") as EventData;
        const kind = fields.get("event");
        if (kind === "error") return data.error?.code;
        if (kind === "put" || kind === "delete") changes.push(changeOf(data));
        const id = fields.get("id");
        if (id === undefined) continue;
        this.#revision = Number(id);
        told(changes, this.#revision);
        changes = [];
        this.#compacted.clear();
      }
    }
    return undefined;
  }

  async revisionNow(): Promise<number> {
    while (!this.#abort.signal.aborted) {
      try {
        const response = await this.#random.pick(this.#nodes()).fetch("/v1/kv?limit=1");
        if (response.ok) return ((await response.json()) as { revision: number }).revision;
      } catch {
        // It does not run, or does not answer.
      }
      await Bun.sleep(retryMs);
    }
    return 0;
  }

  close(): void {
    this.#abort.abort();
  }
}

function fieldOf(line: string): readonly [string, string] {
  const at = line.indexOf(": ");
  return [line.slice(0, at), line.slice(at + 2)];
}

function changeOf({ key, value, revision }: EventData): SeenChange {
  const decode = (base64: string): string => Buffer.from(base64, "base64").toString();
  return {
    key: decode(key!),
    value: value === undefined ? undefined : decode(value),
    revision: revision!,
  };
}

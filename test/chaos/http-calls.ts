/**
 * A client without SDK or session, over plain HTTP: each write has a request id, and is sent again with the same id, to whichever node, until
 * its fate is known or time is over. So it is done once all the same [12].
 */
import { BargeError, type ErrorCode, type Outcome } from "../../src/errors.ts";
import type { CallOptions, Client, Entry } from "../../src/client/index.ts";
import type { TestNode } from "../e2e/cluster.ts";
import type { Random } from "../sim/random.ts";

export type SimpleCalls = Pick<Client, "put" | "get" | "compareAndSet" | "delete">;

interface Answer {
  readonly status: number;
  readonly revision: number;
  readonly body: Uint8Array;
}

/** One try: under the time of most calls, so that another node can be asked. */
const tryMs = 1_000;
const pauseMs = 50;
const timeoutMsDefault = 5_000;

export class HttpCalls implements SimpleCalls {
  readonly #nodes: () => readonly TestNode[];
  readonly #random: Random;
  readonly #name: string;
  readonly #group: number;
  #requests = 0;

  /** `name` begins its request ids: nobody else has it. */
  constructor(name: string, group: number, nodes: () => readonly TestNode[], random: Random) {
    this.#name = name;
    this.#group = group;
    this.#nodes = nodes;
    this.#random = random;
  }

  async put(
    key: Uint8Array | string,
    value: unknown,
    options?: CallOptions,
  ): Promise<{ revision: number }> {
    const { revision } = await this.#write("PUT", this.#path(key), value as string, options);
    return { revision };
  }

  async compareAndSet(
    key: Uint8Array | string,
    value: unknown,
    prevRevision: number,
    options?: CallOptions,
  ): Promise<{ swapped: boolean; revision: number }> {
    const target = `${this.#path(key)}&prevRevision=${prevRevision}`;
    const { status, revision } = await this.#write("PUT", target, value as string, options);
    return { swapped: status === 200, revision };
  }

  async delete(
    key: Uint8Array | string,
    options?: CallOptions,
  ): Promise<{ revision: number; deleted: boolean }> {
    const { body } = await this.#write("DELETE", this.#path(key), undefined, options);
    return JSON.parse(Buffer.from(body).toString()) as { revision: number; deleted: boolean };
  }

  async get(key: Uint8Array | string, options?: CallOptions): Promise<Entry | undefined> {
    const { status, body, revision } = await this.#repeat(this.#path(key), {}, options);
    return status === 404 ? undefined : { value: body, revision };
  }

  #path(key: Uint8Array | string): string {
    return `/v1/kv/${encodeURIComponent(String(key))}?group=${this.#group}`;
  }

  #write(
    method: string,
    target: string,
    body: string | undefined,
    options?: CallOptions,
  ): Promise<Answer> {
    const headers = { "barge-request-id": `${this.#name}-${++this.#requests}` };
    return this.#repeat(
      target,
      { method, headers, ...(body === undefined ? {} : { body }) },
      options,
    );
  }

  async #repeat(target: string, init: RequestInit, options?: CallOptions): Promise<Answer> {
    const untilMs = performance.now() + (options?.timeoutMs ?? timeoutMsDefault);
    const isWrite = init.method !== undefined;
    // As soon as one try may have done it, all that come after it being refused proves nothing.
    let mayBeDone = false;
    for (;;) {
      const leftMs = untilMs - performance.now();
      try {
        return await this.#try(target, init, Math.min(tryMs, Math.max(1, leftMs)));
      } catch (error) {
        if (!(error instanceof BargeError)) throw error;
        if (isWrite && error.outcome !== "not-applied") mayBeDone = true;
        const canRetry = error.retryable || error.outcome === "unknown";
        if (canRetry && performance.now() + pauseMs < untilMs) {
          await Bun.sleep(pauseMs);
          continue;
        }
        const outcome = mayBeDone ? "unknown" : "not-applied";
        throw new BargeError(canRetry ? "timeout" : error.code, error.message, { outcome });
      }
    }
  }

  async #try(target: string, init: RequestInit, timeoutMs: number): Promise<Answer> {
    const node = this.#random.pick(this.#nodes());
    let response: Response;
    let body: Uint8Array;
    try {
      response = await node.fetch(target, { ...init, keepalive: false }, timeoutMs);
      body = await response.bytes();
    } catch (error) {
      const refused =
        error instanceof Error && "code" in error && error.code === "ConnectionRefused";
      throw new BargeError(refused ? "unreachable" : "outcome_unknown", String(error));
    }
    const { status } = response;
    const revision = Number(response.headers.get("barge-revision") ?? 0);
    if (response.ok && init.method !== "PUT") return { status, body, revision };
    const answer = JSON.parse(Buffer.from(body).toString()) as {
      readonly revision?: number;
      readonly error?: {
        readonly code: string;
        readonly message: string;
        readonly outcome: Outcome;
      };
    };
    if (response.ok) return { status, body, revision: answer.revision! };
    const { code, message, outcome } = answer.error!;
    if (code === "not_found" || code === "compare_failed") return { status, body, revision };
    throw new BargeError(code as ErrorCode, message, { outcome });
  }
}

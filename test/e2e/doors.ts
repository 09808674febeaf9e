/**
 * The ways into a cluster that tests write and read through: the SDK, and plain HTTP to one node, behind one interface. Both fail with a
 * BargeError whose outcome is believed by the checks.
 */
import { BargeError, errorTable, type ErrorCode, type Outcome } from "../../src/errors.ts";
import type { Client, ConsistencyName } from "../../src/client/index.ts";
import type { TestNode } from "./cluster.ts";

export interface Found {
  readonly value: string;
  readonly revision: number;
}

export interface Door {
  /** All goes through this one; undefined where it goes to whoever leads. */
  readonly node?: TestNode;
  /** Resolves with the revision. */
  put(key: string, value: string, timeoutMs: number): Promise<number>;
  get(key: string, timeoutMs: number, consistency?: ConsistencyName): Promise<Found | undefined>;
}

export class SdkDoor implements Door {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  async put(key: string, value: string, timeoutMs: number): Promise<number> {
    return (await this.#client.put(key, value, { timeoutMs })).revision;
  }

  async get(
    key: string,
    timeoutMs: number,
    consistency: ConsistencyName = "linearizable",
  ): Promise<Found | undefined> {
    const entry = await this.#client.get(key, { timeoutMs, consistency });
    if (entry === undefined) return undefined;
    return { value: Buffer.from(entry.value).toString(), revision: entry.revision };
  }
}

/** Beyond the node's own time-out, so that its answer comes first. */
const slackMs = 1_000;

/** One node, whether it leads or not, and never another. */
export class HttpDoor implements Door {
  readonly node: TestNode;

  constructor(node: TestNode) {
    this.node = node;
  }

  async put(key: string, value: string, timeoutMs: number): Promise<number> {
    const path = `${keyPath(key)}?timeoutMs=${timeoutMs}`;
    const response = await this.#fetch(path, { method: "PUT", body: value }, timeoutMs + slackMs);
    const { revision } = (await response.json()) as { readonly revision: number };
    return revision;
  }

  async get(
    key: string,
    timeoutMs: number,
    consistency: ConsistencyName = "linearizable",
  ): Promise<Found | undefined> {
    const path = `${keyPath(key)}?timeoutMs=${timeoutMs}&consistency=${consistency}`;
    try {
      const response = await this.#fetch(path, {}, timeoutMs + slackMs);
      const revision = Number(response.headers.get("barge-revision"));
      return { value: await response.text(), revision };
    } catch (error) {
      if (error === notFound) return undefined;
      throw error;
    }
  }

  async #fetch(path: string, init: RequestInit, timeoutMs: number): Promise<Response> {
    let response: Response;
    let body: string;
    try {
      // A connection of its own: on one that is kept, Bun itself may send a request twice.
      response = await this.node.fetch(path, { ...init, keepalive: false }, timeoutMs);
      if (response.ok) return response;
      body = await response.text();
    } catch (error) {
      throw lost(error);
    }
    if (response.status === 404) throw notFound;
    const { error } = JSON.parse(body) as {
      readonly error: { code: ErrorCode; message: string; outcome: Outcome };
    };
    throw new BargeError(error.code, error.message, { outcome: error.outcome });
  }
}

/** The answer that a key is absent, not a failure. */
const notFound = new Error("not found");

function keyPath(key: string): string {
  return `/v1/kv/${encodeURIComponent(key)}`;
}

function lost(error: unknown): BargeError {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  const text = error instanceof Error ? error.message : String(error);
  return new BargeError(code === "ConnectionRefused" ? "unreachable" : "outcome_unknown", text);
}

/** What a call failed with, or throws where it is no error of the table: then the test itself is wrong. */
export async function failureOf(call: Promise<unknown>): Promise<BargeError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof BargeError && error.code in errorTable) return error;
    throw error;
  }
  throw new Error("the call succeeded");
}

/** Checks the options of `connect` and fills in the defaults. */
import { BargeError } from "../errors.ts";
import { parseAddress } from "../net/address.ts";
import type { ClientLogger, ClientOptions, CodecName } from "./api.ts";

/** Options with nothing left open. */
export interface Settings {
  readonly endpoints: readonly string[];
  readonly group: number;
  readonly timeoutMs: number;
  readonly attemptTimeoutMs: number;
  readonly maxInFlightRequests: number;
  readonly maxInFlightBytes: number;
  readonly maxWaitingRequests: number;
  readonly connectionsPerNode: number;
  readonly session: "off" | "preferred" | "required" | "request-ids";
  /** Undefined: as long as the cluster says. */
  readonly sessionTtlMs: number | undefined;
  readonly codec: CodecName;
  readonly logger: ClientLogger;
}

export const timeoutMsMax = 60_000;
const sessionTtlMsMax = 60 * 60 * 1_000;
/** 0xFFFFFFFF is reserved. */
const groupMax = 0xffff_fffe;

const nothing = (): void => {};
const silent: ClientLogger = { debug: nothing, info: nothing, warn: nothing, error: nothing };

export function resolveOptions(options: ClientOptions): Settings {
  return {
    endpoints: parseEndpoints(options.endpoints ?? "127.0.0.1:9091"),
    group: checkGroup(options.group ?? 0),
    timeoutMs: checkTimeout(options.timeoutMs ?? 5_000),
    attemptTimeoutMs: integer(
      "attemptTimeoutMs",
      options.attemptTimeoutMs ?? 1_000,
      1,
      timeoutMsMax,
    ),
    maxInFlightRequests: integer(
      "maxInFlightRequests",
      options.maxInFlightRequests ?? 65_536,
      1,
      1_000_000,
    ),
    maxInFlightBytes: integer(
      "maxInFlightBytes",
      options.maxInFlightBytes ?? 64 * 1024 * 1024,
      1,
      2 ** 40,
    ),
    maxWaitingRequests: integer(
      "maxWaitingRequests",
      options.maxWaitingRequests ?? 65_536,
      0,
      10_000_000,
    ),
    connectionsPerNode: integer("connectionsPerNode", options.connectionsPerNode ?? 1, 1, 64),
    session: sessionOf(options.session),
    sessionTtlMs:
      options.sessionTtlMs === undefined
        ? undefined
        : integer("sessionTtlMs", options.sessionTtlMs, 1, sessionTtlMsMax),
    codec: checkCodec(options.codec ?? "bytes"),
    logger: options.logger ?? silent,
  };
}

export function isGroup(group: unknown): group is number {
  return Number.isSafeInteger(group) && (group as number) >= 0 && (group as number) <= groupMax;
}

export function checkGroup(group: number): number {
  return integer("group", group, 0, groupMax);
}

export function checkTimeout(timeoutMs: number): number {
  return integer("timeoutMs", timeoutMs, 1, timeoutMsMax);
}

/** Accepts `host:port`, `[v6]:port`, several joined by commas, or a list of these. Duplicates are dropped, order is kept. */
export function parseEndpoints(endpoints: string | readonly string[]): string[] {
  const list = typeof endpoints === "string" ? endpoints.split(",") : endpoints;
  const found = new Set<string>();
  for (const item of list) {
    const endpoint = item.trim();
    if (endpoint !== "") found.add(checkEndpoint(endpoint));
  }
  if (found.size === 0)
    throw new BargeError("bad_request", "endpoints: give at least one host:port");
  return [...found];
}

export function checkEndpoint(endpoint: string): string {
  const address = parseAddress(endpoint);
  if (address !== undefined && address.port > 0) return endpoint;
  throw new BargeError("bad_request", `endpoint "${endpoint}" is not host:port`);
}

function checkCodec(codec: CodecName): CodecName {
  if (codec === "bytes" || codec === "json" || codec === "msgpack") return codec;
  throw new BargeError("bad_request", `codec "${String(codec)}" is none of bytes, json, msgpack`);
}

function sessionOf(session: ClientOptions["session"]): Settings["session"] {
  if (session === undefined || session === true) return "preferred";
  if (session === false) return "off";
  if (session === "required" || session === "request-ids") return session;
  throw new BargeError(
    "bad_request",
    `session "${String(session)}" is none of true, false, "required", "request-ids"`,
  );
}

function integer(name: string, value: number, min: number, max: number): number {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new BargeError("bad_request", `${name} must be an integer from ${min} to ${max}`);
}

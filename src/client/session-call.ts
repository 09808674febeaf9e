/** Opening, keeping alive and closing a session: requests of the client itself, asked of any node. */
import { BargeError } from "../errors.ts";
import { encodeControl } from "../wire/client-messages.ts";
import { isRecord } from "../wire/control-codec.ts";
import type { ServerReply } from "../wire/messages.ts";
import type { SendBuffer } from "../wire/send-buffer.ts";
import { Outgoing, type Reject, type RequestHead } from "./outgoing.ts";

export interface OpenedSession {
  readonly session: number;
  readonly ttlMs: number;
  readonly windowSections: number;
}

type SessionOperation = "sessionOpen" | "sessionKeepAlive" | "sessionClose";

/** To ask twice does no harm: a session that nobody uses ends by itself. */
export class SessionCall extends Outgoing {
  readonly repeatable = true;
  override readonly internal = true;
  readonly #operation: SessionOperation;
  readonly #body: object;
  readonly #taken: (opened: OpenedSession) => void;
  readonly #failed: Reject;

  constructor(
    operation: SessionOperation,
    body: object,
    taken: (opened: OpenedSession) => void,
    failed: Reject,
  ) {
    super();
    this.#operation = operation;
    this.#body = body;
    this.#taken = taken;
    this.#failed = failed;
  }

  encode(out: SendBuffer, { request, group, timeoutMs }: RequestHead): void {
    encodeControl(out, request, this.#operation, { ...this.#body, group, timeoutMs });
  }

  accept(reply: ServerReply): boolean {
    if (reply.type !== "controlReply") return false;
    const opened = this.#operation === "sessionOpen" ? openedOf(reply.body) : nothingOpened;
    if (opened === undefined) return false;
    this.#taken(opened);
    return true;
  }

  fail(error: BargeError): void {
    this.#failed(error);
  }
}

const nothingOpened: OpenedSession = { session: 0, ttlMs: 0, windowSections: 0 };

function openedOf(body: unknown): OpenedSession | undefined {
  if (!isRecord(body)) return undefined;
  const { session, ttlMs, windowSections } = body;
  const wellFormed = isPositive(session) && isPositive(ttlMs) && isPositive(windowSections);
  return wellFormed ? { session, ttlMs, windowSections } : undefined;
}

function isPositive(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

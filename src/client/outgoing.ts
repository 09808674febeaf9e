/**
 * One request on its way: a section of writes, a batch of reads or a control call. It knows how to lay itself out for the wire, how to
 * take its answer and how to fail all the calls in it; where it is sent and when it is sent again is the router's business.
 */
import type { BargeError } from "../errors.ts";
import type { ServerReply } from "../wire/messages.ts";
import type { SendBuffer } from "../wire/send-buffer.ts";
import type { NodeLink } from "./node-link.ts";

/** `filling` → `waiting` (for a connection, or a pause) ⇄ `sent` → `settled`, for good. */
export type Phase = "filling" | "waiting" | "sent" | "settled";

export interface RequestHead {
  readonly request: number;
  readonly group: number;
  readonly timeoutMs: number;
}

export type Resolve = (value: never) => void;
export type Reject = (error: BargeError) => void;

/** Who sends requests, and hears what becomes of them. */
export interface Sender {
  /** False where the reply makes no sense: the connection is closed then. */
  answered(outgoing: Outgoing, node: NodeLink, reply: ServerReply): boolean;
  /** The connection is gone. `sent`: all of its bytes had left, and no answer came. */
  lost(outgoing: Outgoing, node: NodeLink, reason: string, sent: boolean, nowMs: number): void;
  /** True where the request in flight is over for this connection. */
  overdue(outgoing: Outgoing, node: NodeLink, nowMs: number): boolean;
}

const nothing: readonly Outgoing[] = [];

export abstract class Outgoing {
  phase: Phase = "filling";
  /** Set once it is submitted. */
  sender: Sender | undefined;
  /** What its calls asked for; only calls with the same share a request. */
  timeoutMs = 0;
  /** On the clock of `performance.now()`. */
  deadlineMs = 0;
  /** While waiting: not to be sent before, on the same clock. */
  notBeforeMs = 0;
  /** When the current try was sent. */
  sentMs = 0;
  /** Where its bytes end in the stream of the connection that it was laid out for. */
  endsAt = 0;
  /** Tries that were refused since the last pause, and pauses so far. */
  hops = 0;
  pauses = 0;
  /** Why the last try was refused: the reason to give when time runs out. */
  refusal: BargeError | undefined;
  /** The node that refused, not to be asked next if another is at hand. */
  avoid: string | undefined;
  /** A call that must go to this very node. */
  readonly endpoint: string | undefined = undefined;
  /** How long one try may take, where that is not what the client's settings say. */
  attemptMs: number | undefined;
  /** The client's own: no caller waits for it. */
  readonly internal: boolean = false;
  /** Local reads go to the nodes in the order that the user listed them. */
  readonly local: boolean = false;

  /** What it counts against the client's bounds: promises that wait for it, and their bytes. */
  countedCalls = 0;
  countedBytes = 0;
  /** Removes the listener of an AbortSignal. */
  whenSettled: (() => void) | undefined;
  /** True where a second execution does no harm, so that it may be sent again whatever became of the first. */
  abstract readonly repeatable: boolean;

  abstract encode(out: SendBuffer, head: RequestHead): void;
  /** Takes the answer and settles the calls; false where the answer makes no sense, with nothing settled. */
  abstract accept(reply: ServerReply): boolean;
  abstract fail(error: BargeError): void;

  /** After `accept`: parts that got no answer, each to be asked by itself. */
  takeLeftovers(): readonly Outgoing[] {
    return nothing;
  }
}

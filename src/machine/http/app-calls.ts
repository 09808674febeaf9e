/**
 * The seam between the state machine and the application: one callback at a time begins here, and what comes of it is told by events, each from a
 * later turn of the loop. Over sockets in http-calls.ts; a scripted application in test/. Types only.
 */
import type { ResponseHead } from "./response-reader.ts";

export interface AppRequest {
  /** Below the group's own URL, such as `Read`. */
  readonly name: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly contentType: string | undefined;
  /** Undefined: none. A number: so many bytes follow by `write`. */
  readonly body: Uint8Array | number | undefined;
  /** Of the answer whoever asks copies within `data` what he wants: its memory is given back at once. */
  readonly isCopied?: boolean;
}

/** `head`, then `data` as often as there is some, then `end`; or `failed` at any time, and then nothing more. */
export interface AppEvents {
  head(head: ResponseHead): void;
  /** A view of what came, whose memory is not used again, but for answers that are copied. */
  data(bytes: Uint8Array): void;
  end(): void;
  /** No answer, or none that makes sense; what of the request arrived is not known. */
  failed(reason: string): void;
  /** More of the body of the request is wanted. */
  drained?(): void;
}

export interface AppExchange {
  /** The next part of a body. False: it is kept, by reference, until `drained`. */
  write(bytes: Uint8Array): boolean;
  /** No more `data` for now, but for what is here already. */
  pause(): void;
  resume(): void;
  /** Nobody wants the answer: no event comes any more. */
  cancel(): void;
}

export interface AppCalls {
  begin(request: AppRequest, events: AppEvents): AppExchange;
  close(): void;
}

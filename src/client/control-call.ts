/** One rare request, such as `status`: msgpack both ways, one call each. */
import type { BargeError } from "../errors.ts";
import { encodeControl } from "../wire/client-messages.ts";
import type { ServerReply } from "../wire/messages.ts";
import type { SendBuffer } from "../wire/send-buffer.ts";
import { Outgoing, type Reject, type RequestHead } from "./outgoing.ts";

export class ControlCall extends Outgoing {
  readonly repeatable: boolean = true;
  override readonly endpoint: string | undefined;
  readonly #operation: string;
  readonly #body: object;
  readonly #resolve: (body: unknown) => void;
  readonly #reject: Reject;

  constructor(
    operation: string,
    body: object,
    endpoint: string | undefined,
    resolve: (body: unknown) => void,
    reject: Reject,
  ) {
    super();
    this.#operation = operation;
    this.#body = body;
    this.endpoint = endpoint;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  encode(out: SendBuffer, head: RequestHead): void {
    encodeControl(out, head.request, this.#operation, this.#body);
  }

  accept(reply: ServerReply): boolean {
    if (reply.type !== "controlReply") return false;
    this.#resolve(reply.body);
    return true;
  }

  fail(error: BargeError): void {
    this.#reject(error);
  }
}

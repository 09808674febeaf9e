/**
 * One request of administration. What changes something is never sent twice by itself: where its answer is lost, its outcome is unknown. But to
 * ask again does no harm, as what holds already changes nothing, and so it is asked again while there is time.
 */
import { BargeError } from "../errors.ts";
import { type AdminOperation, adminOperations } from "../wire/admin.ts";
import { encodeControl } from "../wire/client-messages.ts";
import type { SendBuffer } from "../wire/send-buffer.ts";
import { ControlCall } from "./control-call.ts";
import type { Reject, RequestHead } from "./outgoing.ts";

export class AdminCall extends ControlCall {
  override readonly repeatable: boolean;
  readonly #name: AdminOperation;
  readonly #body: object;

  constructor(
    name: AdminOperation,
    body: object,
    endpoint: string | undefined,
    resolve: (body: unknown) => void,
    reject: Reject,
  ) {
    super(name, body, endpoint, resolve, reject);
    this.repeatable = !adminOperations[name].changes;
    this.#name = name;
    this.#body = body;
  }

  override encode(out: SendBuffer, { request, group, timeoutMs }: RequestHead): void {
    encodeControl(out, request, this.#name, { ...this.#body, group, timeoutMs });
  }

  override fail(error: BargeError): void {
    super.fail(error.code === "outcome_unknown" ? lostChange(error) : error);
  }
}

const askAgain = "the change may have been made or not; ask again, which does no harm";

function lostChange(error: BargeError): BargeError {
  const text = error.message.split("; ")[0]!;
  return new BargeError(error.code, `${text}: ${askAgain}`, { cause: error });
}

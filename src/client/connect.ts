/** The way in: checks the options and makes a client. Connects nothing yet. */
import { dialSocket } from "../net/bun-socket.ts";
import { dialNodeSocket } from "../net/node-socket.ts";
import type { Client, ClientOptions, CodecName } from "./api.ts";
import { BargeClient } from "./client.ts";
import { resolveOptions } from "./options.ts";

/**
 * Makes a client of one group. Nothing is connected before the first call. Throws a `BargeError` with `bad_request` when an option
 * is invalid.
 */
export function connect<C extends CodecName = "bytes">(options: ClientOptions<C> = {}): Client<C> {
  return new BargeClient<C>(
    resolveOptions(options),
    "Bun" in globalThis ? dialSocket : dialNodeSocket,
  );
}

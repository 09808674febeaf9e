/** The way in: checks the options and makes a client. Connects nothing yet. */
import { dialSocket } from "../net/bun-socket.ts";
import { dialNodeSocket } from "../net/node-socket.ts";
import type { Client, ClientOptions, CodecName } from "./api.ts";
import { BargeClient } from "./client.ts";
import { ClientCore } from "./core.ts";
import { resolveOptions } from "./options.ts";

/**
 * Makes a client of one group, from which there is a client of each other one (`group`). Nothing is connected before the first call. Throws a `BargeError` with `bad_request` when an option
 * is invalid.
 */
export function connect<C extends CodecName = "bytes">(options: ClientOptions<C> = {}): Client<C> {
  const settings = resolveOptions(options);
  const dial = "Bun" in globalThis ? dialSocket : dialNodeSocket;
  return new BargeClient<C>(settings, new ClientCore<BargeClient<C>>(settings, dial), true);
}

/**
 * Where the HTTP doors of the nodes are: each says it in its hello, so that whoever asks one over HTTP for what another has can be told where to go. Known while it
 * lasts, and never relied upon.
 */
import { type Address, parseAddress } from "../net/address.ts";

/** What a peer says of itself: its hello, or its reply to ours. */
interface Introduced {
  readonly nodeId?: number;
  readonly http?: string;
}

/** Node ids come from outside: no more of them are kept. */
const doorsMax = 64;

export class HttpDoors {
  /** For our hello, and our reply to one. */
  readonly own: { readonly http?: string };
  readonly #doors = new Map<number, string>();

  /** `advertise`: where this node's binary port is reached. */
  constructor(httpListen: Address, advertise: string) {
    const http = reachable(httpListen, advertise);
    this.own = http === undefined ? {} : { http };
  }

  heard({ nodeId, http }: Introduced): void {
    if (nodeId === undefined) return;
    if (http === undefined) this.#doors.delete(nodeId);
    else if (this.#doors.has(nodeId) || this.#doors.size < doorsMax) this.#doors.set(nodeId, http);
  }

  /** As `host:port`. */
  of(nodeId: number): string | undefined {
    return this.#doors.get(nodeId);
  }
}

/** As others reach it: undefined where that cannot be told. */
function reachable({ host, port }: Address, advertise: string): string | undefined {
  const node = parseAddress(advertise)?.host;
  if (port === 0 || node === undefined) return undefined;
  const isAny = ["0.0.0.0", "::", ""].includes(host);
  if (!isAny && isLoopback(host) && !isLoopback(node)) return undefined;
  const name = isAny ? node : host;
  return name.includes(":") ? `[${name}]:${port}` : `${name}:${port}`;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

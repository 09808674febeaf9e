/** `host:port`, read one way everywhere. */

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Parses `host:port`, with brackets around an IPv6 host; undefined where it is not one. */
export function parseAddress(text: string): Address | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):([0-9]{1,5})$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[3]);
  return port <= 65_535 ? { host: (match[1] ?? match[2])!, port } : undefined;
}

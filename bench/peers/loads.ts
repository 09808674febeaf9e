/** The points of the comparison, equal for all systems: keys of 16 bytes, chosen evenly, every operation awaited by itself. */

export interface PeerLoad {
  /** As `--loads` takes it. */
  readonly name: string;
  readonly operation: "put" | "get";
  readonly valueBytes: number;
  readonly inFlight: number;
  readonly keySpace: number;
  /** Over which the keys are spread; above 1 only for systems that have groups. */
  readonly groups: number;
}

const putKeys = 100_000;
/** All are written before the first read, which the slowest system does in about a second. */
const getKeys = 10_000;

export const peerLoads: readonly PeerLoad[] = [
  load("put", 256, 1),
  load("put", 256, 64),
  load("put", 256, 1_000),
  load("put", 16, 10_000),
  load("put", 1_024, 1_000),
  load("get", 256, 64),
  load("get", 256, 1_000),
  load("put", 256, 1_000, 16),
  load("put", 256, 1_000, 48),
  load("put", 256, 16_000),
  load("put", 256, 16_000, 16),
  load("put", 256, 16_000, 48),
];

function load(
  operation: PeerLoad["operation"],
  valueBytes: number,
  inFlight: number,
  groups = 1,
): PeerLoad {
  const keySpace = operation === "put" ? putKeys : getKeys;
  return {
    name: `${operation}-${valueBytes}-${inFlight}${groups === 1 ? "" : `-groups-${groups}`}`,
    operation,
    valueBytes,
    inFlight,
    keySpace,
    groups,
  };
}

export function describeLoad({ operation, valueBytes, inFlight, groups }: PeerLoad): string {
  const kind = operation === "get" ? "linearizable get" : "put";
  const size = valueBytes % 1_024 === 0 ? `${valueBytes / 1_024} KiB` : `${valueBytes} B`;
  const spread = groups === 1 ? "" : `, ${groups} groups`;
  return `${kind} ${size}, ${inFlight.toLocaleString("en-US")} in flight${spread}`;
}

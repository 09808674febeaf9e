/**
 * The systems under comparison: how each is started for one load, and how its answer is read. Each run is a command of its own that
 * starts three fresh nodes in the folder it is given, loads them and stops them.
 */
import { join } from "node:path";
import { version } from "../../src/version.ts";
import type { PeerLoad } from "./loads.ts";

export interface Timing {
  readonly warmupSeconds: number;
  readonly seconds: number;
}

/** What one run found. */
export interface Measured {
  readonly operationsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Operations that failed or whose outcome is unknown. */
  readonly errors: number;
  readonly firstError?: string;
  /** As the program itself says. */
  readonly version: string;
}

export interface System {
  readonly name: string;
  /** Keys can be spread over groups, each a log of its own. */
  readonly hasGroups: boolean;
  command(load: PeerLoad, timing: Timing, dir: string): readonly string[];
  parse(output: string): Measured;
}

export const bargeName = "Barge";

/** A Go harness in the folder of this name. */
export interface Peer {
  readonly folder: string;
  readonly name: string;
  readonly hasGroups: boolean;
}

export const peers: readonly Peer[] = [
  { folder: "etcd", name: "etcd", hasGroups: false },
  { folder: "dragonboat", name: "dragonboat", hasGroups: true },
  { folder: "hashicorp-raft", name: "hashicorp/raft", hasGroups: false },
];

const main = join(import.meta.dir, "..", "..", "src", "main.ts");

/** Barge's own load generator, with the defaults that any user gets. */
export const barge: System = {
  name: bargeName,
  hasGroups: true,
  command: (load, timing, dir) => [
    process.execPath,
    main,
    "bench",
    load.operation,
    "--json",
    `--dir=${dir}`,
    `--in-flight=${load.inFlight}`,
    `--value-bytes=${load.valueBytes}`,
    `--key-space=${load.keySpace}`,
    `--groups=${load.groups}`,
    `--warmup=${timing.warmupSeconds}`,
    `--seconds=${timing.seconds}`,
  ],
  parse: parseBarge,
};

export function peerSystem(peer: Peer, binary: string): System {
  return {
    name: peer.name,
    hasGroups: peer.hasGroups,
    command: (load, timing, dir) => [
      binary,
      "bench",
      `-dir=${dir}`,
      `-op=${load.operation}`,
      `-in-flight=${load.inFlight}`,
      `-value-bytes=${load.valueBytes}`,
      `-key-space=${load.keySpace}`,
      `-groups=${load.groups}`,
      `-warmup=${timing.warmupSeconds}`,
      `-seconds=${timing.seconds}`,
    ],
    parse: parsePeer,
  };
}

/** What `bench disk` of the same sitting found for the smallest append, the floor under every latency here. */
export interface DiskFloor {
  readonly bytes: number;
  readonly writers: number;
  readonly syncsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export function diskCommand(dir: string, secondsPerPoint: number): readonly string[] {
  return [
    process.execPath,
    main,
    "bench",
    "disk",
    "--json",
    `--dir=${dir}`,
    `--seconds=${secondsPerPoint}`,
  ];
}

export function parseDisk(output: string): DiskFloor[] {
  const { results } = JSON.parse(output) as { readonly results: readonly DiskFloor[] };
  const smallest = Math.min(...results.map(({ bytes }) => bytes));
  return results
    .filter(({ bytes }) => bytes === smallest)
    .map(({ bytes, writers, syncsPerSecond, p50Ms, p99Ms }) => ({
      bytes,
      writers,
      syncsPerSecond,
      p50Ms,
      p99Ms,
    }));
}

interface BargeDocument {
  readonly operationsPerSecond: number;
  readonly latencyMs: { readonly p50: number; readonly p99: number };
  readonly errors: number;
  readonly unknown: number;
  readonly environment: { readonly commit: string };
}

export function parseBarge(output: string): Measured {
  const document = JSON.parse(output) as BargeDocument;
  return checked({
    operationsPerSecond: document.operationsPerSecond,
    p50Ms: document.latencyMs.p50,
    p99Ms: document.latencyMs.p99,
    errors: document.errors + document.unknown,
    version: `${version}, commit ${document.environment.commit}, Bun ${Bun.version}`,
  });
}

/** A harness prints one line of JSON with our names. */
export function parsePeer(output: string): Measured {
  return checked(JSON.parse(output) as Measured);
}

function checked(measured: Measured): Measured {
  const { operationsPerSecond, p50Ms, p99Ms, errors } = measured;
  for (const value of [operationsPerSecond, p50Ms, p99Ms, errors]) {
    if (!Number.isFinite(value)) throw new Error(`not a measurement: ${JSON.stringify(measured)}`);
  }
  if (operationsPerSecond === 0)
    throw new Error(`nothing was answered: ${measured.firstError ?? "no reason given"}`);
  return measured;
}

/** What a benchmark is to do: the command line of `barge bench`, checked. */
import { UsageError } from "../../config.ts";

export const workloads = ["put", "get", "mixed", "disk"] as const;
export type Workload = (typeof workloads)[number];

/** As commander gives them. */
export interface BenchFlags {
  readonly inFlight: number;
  readonly connections: number;
  readonly batch: number;
  readonly valueBytes: number;
  readonly keySpace: number;
  readonly reads: number;
  readonly seconds: number;
  readonly warmup: number;
  readonly rate?: number;
  readonly groups: number;
  readonly endpoints?: string;
  readonly dir?: string;
  readonly machine: string;
  readonly session: boolean;
  readonly out?: string;
  readonly json?: boolean;
}

/** One run of `put`, `get` or `mixed`. */
export interface LoadPlan {
  readonly workload: Exclude<Workload, "disk">;
  readonly inFlight: number;
  readonly connections: number;
  /** Commands in one request; 1 = each is awaited by itself. */
  readonly batch: number;
  readonly valueBytes: number;
  readonly keySpace: number;
  /** Share of reads, 0 to 1. */
  readonly readShare: number;
  readonly seconds: number;
  readonly warmupSeconds: number;
  /** Operations a second that are due, whatever becomes of the earlier ones; undefined = closed loop. */
  readonly rate: number | undefined;
  readonly groups: number;
  /** Writes go in sessions; else each is sent once. */
  readonly session: boolean;
}

/** Bytes of a key: enough digits for any key space, of one length so that all commands are alike. */
export const keyBytes = 16;
/** Section header, and per command: its length, the head of a kv command, the key. */
const sectionHeaderBytes = 40;
const commandOverheadBytes = 4 + 8 + keyBytes;
/** The default bound of a node. */
const sectionBytesMax = 256 * 1024;

export function loadPlan(workload: LoadPlan["workload"], flags: BenchFlags): LoadPlan {
  if (flags.keySpace < flags.groups) {
    throw new UsageError("--key-space must be at least --groups, or some would have no key");
  }
  if (flags.rate !== undefined && flags.batch !== 1) {
    throw new UsageError("--rate counts single operations; leave --batch at 1");
  }
  if (flags.inFlight < flags.connections) {
    throw new UsageError("--in-flight must be at least --connections, or some would idle");
  }
  if (workload === "get" && flags.machine === "null") {
    throw new UsageError("--machine null keeps nothing that get could read");
  }
  const most = Math.floor(
    (sectionBytesMax - sectionHeaderBytes) / (commandOverheadBytes + flags.valueBytes),
  );
  if (flags.batch > 1 && flags.batch > most) {
    throw new UsageError(
      `--batch: at most ${most} commands of ${flags.valueBytes} bytes fit one request`,
    );
  }
  return {
    workload,
    inFlight: flags.inFlight,
    connections: flags.connections,
    batch: flags.batch,
    valueBytes: flags.valueBytes,
    keySpace: flags.keySpace,
    readShare: workload === "put" ? 0 : workload === "get" ? 1 : flags.reads / 100,
    seconds: flags.seconds,
    warmupSeconds: flags.warmup,
    rate: flags.rate,
    groups: flags.groups,
    session: flags.session,
  };
}

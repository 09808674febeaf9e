/** The state machines there are, by the name that `--machine` gives. */
import type { Limits } from "../limits.ts";
import { AppFiles } from "./http/app-files.ts";
import type { AppLogger } from "./http/app-link.ts";
import { appAddress, HttpCalls, HttpConnections } from "./http/http-calls.ts";
import { AppTraffic } from "./http/app-traffic.ts";
import { HttpMachine } from "./http/http-machine.ts";
import type { KvFiles } from "./kv-files.ts";
import { KvMachine } from "./kv.ts";
import type { StateMachine } from "./machine.ts";
import { NullMachine } from "./null.ts";
import { SqliteKvFolder } from "./sqlite-kv-folder.ts";

export { KvFiles } from "./kv-files.ts";
export { AppTraffic, HttpConnections };

/** Its multiples modulo 1 lie far apart, however many there are. */
const goldenRatio = (Math.sqrt(5) - 1) / 2;

export type MachineKind = "kv" | "http" | "null";

/** The application that keeps the data. */
export interface AppOptions {
  /** As `appAddress` of http/http-calls.ts takes it. */
  readonly url: string;
  /** It stores for good only when it is asked to sync. */
  readonly sync: boolean;
}

/** And who calls it back. */
export interface AppMachineOptions extends AppOptions {
  readonly group: number;
  readonly nodeId: number;
  readonly logger: AppLogger;
  /** Shared by all groups of a node. */
  readonly connections: HttpConnections;
  readonly traffic: AppTraffic;
  /** Asks for a turn. */
  readonly wake: () => void;
  /** The log begins behind that index. */
  readonly logStart: () => number;
  /** Where the node's own log ended at its start, and whether it had lost something. */
  readonly logIndex: number;
  readonly isWounded: boolean;
}

export function isMachineKind(name: string): name is MachineKind {
  return name === "kv" || name === "http" || name === "null";
}

export interface MachineOptions {
  /** Where the kind is http. */
  readonly app?: AppMachineOptions | undefined;
  /** A folder of its own, which exists. */
  readonly directory: string;
  /** Which of its files is live: the log says so [25]. All others go. 0 where it is not said. */
  readonly generation?: number;
  /** Shared by all machines of a shard. */
  readonly files: KvFiles;
  readonly limits: Limits;
  /** Monotonic; measures slices of work. */
  readonly nowMs: () => number;
}

/**
 * The limits for the machines of one node. All nodes apply the same writes, so with equal bounds all would flush at the same moment, and no quorum would be left
 * that is not busy with it. When a machine flushes is its own affair: from three quarters of the bounds up to all of them, by node.
 */
export function staggered(limits: Limits, nodeId: number): Limits {
  const share = 1 - ((nodeId * goldenRatio) % 1) / 4;
  return {
    ...limits,
    memtableBytes: Math.ceil(limits.memtableBytes * share),
    memtableFlushMs: Math.ceil(limits.memtableFlushMs * share),
    flushLogBytes: Math.ceil(limits.flushLogBytes * share),
  };
}

/** Opens no file before `open`; snapshots that were never taken over are removed. */
export function createMachine(kind: MachineKind, options: MachineOptions): StateMachine {
  if (kind === "http") return httpMachine(options);
  const { directory, files, generation = 0, limits, nowMs } = options;
  const folder = new SqliteKvFolder(directory, kind, files);
  folder.keepOnly(generation);
  const { memtables, flushes, hashing } = files;
  const file = folder.file(generation);
  const given = { file, folder, generation, limits, memtables, flushes, hashing, nowMs };
  return kind === "kv" ? new KvMachine(given) : new NullMachine(given);
}

function httpMachine(options: MachineOptions): StateMachine {
  const { app, directory, files, limits, generation = 0 } = options;
  if (app === undefined) throw new Error("the machine http needs an application");
  const hasRoomFor = (bytes: number): boolean => files.hasRoomFor(bytes);
  return new HttpMachine({
    ...app,
    generation,
    limits,
    calls: new HttpCalls(appAddress(app.url, app.group), app.connections),
    folder: new AppFiles({ directory, files: files.snapshots, limits, hasRoomFor }),
  });
}

/**
 * A data folder becomes that of the only voter of a new cluster, whose log begins at an index at which the state machine's file stands: what restoring
 * a backup and recovering a survivor come to. The cluster's id is drawn anew, so nobody of the old cluster is ever spoken to; the chain of its log
 * begins with that id, as every cluster's does, and the logs of the two can never be taken for one another [36].
 */
import { randomBytes } from "node:crypto";
import { defaultLimits } from "../limits.ts";
import { encodeConfiguration } from "../raft/configuration.ts";
import type { DataDirOwner } from "../storage/data-dir.ts";
import { LogStore } from "../storage/log-store.ts";
import { openSqliteDisk } from "../storage/sqlite-disk.ts";
import type { LogStart } from "../wire/batch.ts";
import { seedCrcOf, tokenHashOf } from "./bootstrap.ts";

/** Others join it with the same token. */
export function drawOwner(
  nodeId: number,
  clusterToken: string,
): Required<Pick<DataDirOwner, "clusterId" | "nodeId" | "tokenHash">> {
  const clusterId = randomBytes(16).toString("hex");
  return { clusterId, nodeId, tokenHash: tokenHashOf(clusterToken) };
}

export interface LoneVoter {
  readonly nodeId: number;
  readonly incarnation: string;
  /** `host:port` at which others will reach it. */
  readonly address: string;
}

/** The configuration in force where the new log begins. */
export function loneConfiguration({ nodeId, incarnation, address }: LoneVoter): Uint8Array {
  return encodeConfiguration({
    voters: [nodeId],
    outgoing: [],
    learners: [],
    addresses: { [nodeId]: address },
    incarnations: { [nodeId]: incarnation },
  });
}

/** Where the log of a new cluster begins that has the state up to `index` already. */
export function startAt(
  clusterId: string,
  { index, term, timeMs }: Omit<LogStart, "crc">,
): LogStart {
  return { index, term, timeMs, crc: seedCrcOf(clusterId) };
}

interface LogPaths {
  readonly segmentsPath: string;
  readonly watermarkPath: string;
}

/** The log of a folder that no node uses: open, recovered, and closed again when what `use` has appended is durable. */
export async function withLog<T>(
  { segmentsPath, watermarkPath }: LogPaths,
  clusterId: string,
  use: (store: LogStore, recovered: ReturnType<LogStore["recover"]>) => Promise<T>,
): Promise<T> {
  const limits = defaultLimits;
  const segmentBytes = 0;
  const disk = openSqliteDisk({ segmentsPath, watermarkPath, segmentBytes });
  const bootId = randomBytes(4).readUInt32LE();
  const store = new LogStore(disk, {
    limits,
    bootId,
    seedCrc: seedCrcOf(clusterId),
    canHeal: true,
  });
  try {
    const recovered = store.recover();
    await synced(store);
    const result = await use(store, recovered);
    await synced(store);
    await new Promise<void>((resolve) => disk.syncWatermark(resolve));
    return result;
  } finally {
    store.close();
  }
}

async function synced(store: LogStore): Promise<void> {
  while (store.syncedSeq < store.appendSeq) {
    await new Promise<void>((resolve) => store.sync(() => resolve()));
  }
}

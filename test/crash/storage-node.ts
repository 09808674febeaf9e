/**
 * All of a node that lies on the disk, without Raft and network: data folder, log, state machine, opened in the order in which a daemon opens them
 * [26]. The segments are small, so that a short life rotates, recycles and checkpoints often.
 */
import { defaultLimits, type Limits } from "../../src/limits.ts";
import type { StateMachine } from "../../src/machine/machine.ts";
import { createMachine, KvFiles } from "../../src/machine/machines.ts";
import { createCore, seedCrcOf, withoutState } from "../../src/node/bootstrap.ts";
import { type DataDir, openDataDir, storedIdentity } from "../../src/storage/data-dir.ts";
import { LogStore, type RecoveredGroup } from "../../src/storage/log-store.ts";
import { openSqliteDisk } from "../../src/storage/sqlite-disk.ts";
import type { LogStart } from "../../src/wire/batch.ts";

export const clusterId = "5eed";
export const nodeId = 1;
/** The one group there is. */
export const group = 0;
export const noStart: LogStart = { index: 0, term: 0, crc: seedCrcOf(clusterId), timeMs: 0 };

export const limits: Limits = {
  ...defaultLimits,
  segmentBytes: 96 * 1024,
  appendBytesMax: 32 * 1024,
  // Flushes are asked for, so that a life is the same each time.
  memtableFlushMs: 1_000_000,
  flushLogBytesMin: 1,
  kvWalBytesMax: 100_000,
  watermarkSyncMs: 1,
};

/** What can be told of a log after a crash, and in one word: the crc covers all batches before it. */
export function stateKey(
  hardState: RecoveredGroup["hardState"],
  end: { readonly index: number; readonly crc: number },
  generation: number,
): string {
  const { term, votedFor, commit } = hardState;
  return `term ${term}, vote ${votedFor}, commit ${commit}, index ${end.index}, crc ${end.crc}, file ${generation}`;
}

export interface StorageNode {
  readonly dataDir: DataDir;
  readonly store: LogStore;
  readonly files: KvFiles;
  readonly machine: StateMachine;
  /** Undefined: it had no log. */
  readonly recovered: RecoveredGroup | undefined;
  /** What recovery complained of. */
  readonly damage: readonly string[];
}

/** Of whichever cluster the folder is. Throws where a daemon would not start. */
export async function openStorageNode(folder: string, bootId: number): Promise<StorageNode> {
  const damage: string[] = [];
  const owner = storedIdentity(folder) ?? { clusterId, nodeId };
  const dataDir = openDataDir(folder, owner);
  const disk = openSqliteDisk({
    segmentsPath: dataDir.segmentsPath,
    watermarkPath: dataDir.watermarkPath,
    segmentBytes: limits.segmentBytes,
  });
  const onCorrupt = (what: string): void => void damage.push(what);
  const seedCrc = seedCrcOf(owner.clusterId);
  const store = new LogStore(disk, { limits, bootId, seedCrc, onCorrupt });
  const found = store.recover().get(group);
  // As a daemon does: there is always something to sync, the first record of this boot.
  await new Promise<void>((done) => store.sync(() => done()));
  const files = new KvFiles({ limits });
  const machine = createMachine("kv", {
    directory: dataDir.machinePath(group),
    generation: found?.machineGeneration ?? 0,
    files,
    limits,
    nowMs: () => performance.now(),
  });
  const appliedIndex = machine.open();
  const recovered =
    found === undefined ? undefined : withoutState(store, group, found, appliedIndex, false);
  if (recovered !== undefined) {
    createCore({ group, nodeId, limits, random: () => 0.5, store, recovered, appliedIndex });
  }
  return { dataDir, store, files, machine, recovered, damage };
}

export function closeStorageNode({ dataDir, store, files, machine }: StorageNode): void {
  machine.close();
  files.close();
  store.close();
  dataDir.close();
}

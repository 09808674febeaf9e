/**
 * `barge restore`: a backup becomes the data folder of a new cluster of one, to which others are added with --join. The backup is read through before
 * anything is written, the folder is made beside its place and takes it whole, at the very end: whatever goes wrong, there is a whole folder or none.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { FatalError } from "../fatal.ts";
import { readBackupFile } from "../storage/backup-file.ts";
import { type DataDir, openDataDir } from "../storage/data-dir.ts";
import { fsyncDirectory, fsyncFile } from "../storage/sync-latch.ts";
import { defaultLimits } from "../limits.ts";
import { readAppFolder } from "../machine/http/verify-app.ts";
import { verifyMachineFile } from "../machine/verify-kv.ts";
import { BackupError, type BackupHeader } from "../wire/backup.ts";
import { applyVersionFirst, applyVersionMax } from "../wire/versions.ts";
import { defaultGroup } from "../wire/registry.ts";
import { drawOwner, loneConfiguration, startAt, withLog } from "./cluster-of-one.ts";
import { verifyFolder } from "./verify.ts";

export interface RestoreOptions {
  readonly file: string;
  /** Absent, or empty. */
  readonly dataDir: string;
  readonly nodeId: number;
  /** `host:port` at which others will reach the node. */
  readonly advertise: string;
  /** Others join with the same. */
  readonly clusterToken: string;
}

export interface Restored {
  readonly folder: string;
  readonly clusterId: string;
  readonly nodeId: number;
  readonly index: number;
  readonly keys: number;
  /** Where it came from. */
  readonly backup: BackupHeader;
}

const machineKinds: readonly string[] = ["kv", "http", "null"];
/** Which file is the machine's: one that was taken over, as a snapshot is. */
const generation = 1;

/** Throws BackupError where the backup is not whole, FatalError where the folder cannot be made; the folder is as it was then. */
export async function restoreBackup(options: RestoreOptions): Promise<Restored> {
  const folder = resolve(options.dataDir);
  refuseUsed(folder);
  const backup = checkBackup(options.file);
  const staging = `${folder}.restoring`;
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(dirname(folder), { recursive: true });
  try {
    const restored = await build(staging, options, backup);
    // An empty folder makes room for it; one that has been used meanwhile does not.
    renameSync(staging, folder);
    fsyncDirectory(dirname(folder));
    return { ...restored, folder };
  } catch (error) {
    rmSync(staging, { recursive: true, force: true });
    throw inWords(folder, error);
  }
}

/** Reads all of it. Throws BackupError where it is damaged, or where this build cannot use it. */
export function checkBackup(file: string): BackupHeader {
  const backup = readBackupFile(file);
  if (!machineKinds.includes(backup.machine)) {
    throw new BackupError(
      `it is of a state machine that this build does not have: ${backup.machine}`,
    );
  }
  if (backup.applyVersion > applyVersionMax) {
    throw new BackupError(
      `it is at apply version ${backup.applyVersion}, and this build can ${applyVersionMax}: use a newer one`,
    );
  }
  return backup;
}

function refuseUsed(folder: string): void {
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found === undefined || (found.isDirectory() && readdirSync(folder).length === 0)) return;
  throw new FatalError(
    "wrong_data_dir",
    `${folder} is there already. A backup is restored into a new folder alone: give another --data-dir, or move this one away`,
  );
}

async function build(
  staging: string,
  { file, nodeId, advertise, clusterToken }: RestoreOptions,
  backup: BackupHeader,
): Promise<Omit<Restored, "folder">> {
  const owner = drawOwner(nodeId, clusterToken);
  const dataDir = openDataDir(staging, owner);
  try {
    const directory = dataDir.machinePath(defaultGroup);
    const isApplication = backup.machine === "http";
    // The application is given it at the first start.
    const name = isApplication ? `snapshot-${generation}` : `${backup.machine}-${generation}.db`;
    const path = join(directory, name);
    writeState(path, file);
    const reading: Reading = isApplication
      ? applicationReading(directory)
      : verifyMachineFile(path);
    const { appliedIndex, applyVersion, timeMs, damage } = reading;
    if (damage !== undefined) throw new BackupError(`its state is damaged: ${damage}`);
    if (appliedIndex !== backup.index || applyVersion > applyVersionMax) {
      throw new BackupError(`its state is as of ${appliedIndex}, at apply version ${applyVersion}`);
    }
    if (applyVersion > applyVersionFirst) dataDir.raiseApplyVersion(applyVersion);
    dataDir.peers.forget();
    const start = startAt(owner.clusterId, { index: appliedIndex, term: backup.term, timeMs });
    await writeLog(dataDir, owner.clusterId, start, nodeId, advertise);
  } finally {
    dataDir.close();
  }
  const { whole, groups, damage } = verifyFolder(staging);
  if (!whole) throw new Error(`the restored folder is not whole: ${damage.join("; ")}`);
  const { keys } = groups[0]!.machine!;
  return { clusterId: owner.clusterId, nodeId, index: backup.index, keys, backup };
}

interface Reading {
  readonly appliedIndex: number;
  readonly applyVersion: number;
  readonly timeMs: number;
  readonly damage?: string | undefined;
}

/** How far the application was; of its own bytes nobody else knows what they mean. */
function applicationReading(directory: string): Reading {
  const {
    appliedIndex = 0,
    applyVersion = 0,
    timeMs = 0,
  } = readAppFolder(directory, defaultLimits)[0]?.state ?? {};
  const damage = applyVersion === 0 ? "it does not say how far the application was" : undefined;
  return { appliedIndex, applyVersion, timeMs, damage };
}

function writeState(path: string, file: string): void {
  const descriptor = openSync(path, "wx", 0o600);
  try {
    readBackupFile(file, (body) => {
      for (let at = 0; at < body.byteLength;) {
        at += writeSync(descriptor, body, at, body.byteLength - at);
      }
    });
    fsyncFile(descriptor);
  } finally {
    closeSync(descriptor);
  }
  fsyncDirectory(dirname(path));
  fsyncDirectory(dirname(dirname(path)));
}

/** As if a leader had sent the state as a snapshot. */
function writeLog(
  dataDir: DataDir,
  clusterId: string,
  start: ReturnType<typeof startAt>,
  nodeId: number,
  address: string,
): Promise<void> {
  return withLog(dataDir, clusterId, async (store) => {
    const configuration = loneConfiguration({ nodeId, incarnation: dataDir.incarnation, address });
    const restore = { start, configuration, machineGeneration: generation };
    const hardState = { term: start.term, votedFor: 0, commit: start.index };
    store.append([{ group: defaultGroup, hardState, restore, append: [] }]);
  });
}

function inWords(folder: string, error: unknown): unknown {
  if (error instanceof FatalError || error instanceof BackupError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new FatalError("data_dir_not_writable", `${basename(folder)} cannot be made: ${text}`, {
    cause: error,
  });
}

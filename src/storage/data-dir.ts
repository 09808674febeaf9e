/**
 * The folder of one node: made, locked, and known to belong to this node of this cluster before anything in it is touched. A folder is
 * never used by two processes, nor under another name: either could vote twice [36].
 *
 *     barge-data/   lock.db  identity.json  peers.json  watermark  ballast  failure.json  segments/  machine/  removed/
 */

import { randomBytes } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { FatalError } from "../fatal.ts";
import { readMembers } from "../wire/hello.ts";
import { applyVersionFirst } from "../wire/versions.ts";
import { lockFile } from "./sqlite.ts";
import { writeFileDurably } from "./durable-file.ts";
import { PeerLedger } from "./peer-ledger.ts";
import { fsyncDirectory, SyncError } from "./sync-latch.ts";

/** Of the folder's layout; another one is refused. */
const dataDirFormat = 1;
/**
 * Of a folder whose group has gone beyond the first apply version: its log and its machine hold what a build without apply versions would take for
 * damage, and such a build refuses a format that it does not know [16].
 */
const raisedFormat = 2;

export interface DataDirOwner {
  readonly clusterId: string;
  readonly nodeId: number;
  /** The cluster token, where it was drawn at random and must be found again: see `storedIdentity`. */
  readonly token?: string;
  /** Of a node that joined a cluster: the hash of the token that it joined with. */
  readonly tokenHash?: string;
  /** Of a node that joined a cluster: the members then, as `host:port` by node id. Until its log says who they are, it finds them there. */
  readonly contacts?: Readonly<Record<string, string>>;
}

/** Writes a small file so that it is there whole, old or new, after any crash; `done` once that is durable, false where there is no space. */
export type FileWriter = (path: string, text: string, done: (ok: boolean) => void) => void;

export interface DataDir {
  readonly path: string;
  /** Random, drawn when the folder was made: a wiped folder is another incarnation. */
  readonly incarnation: string;
  readonly firstBoot: boolean;
  readonly token: string | undefined;
  /** Whom this node has met. */
  readonly peers: PeerLedger;
  readonly segmentsPath: string;
  readonly watermarkPath: string;
  /** The highest apply version of its groups, as far as `raiseApplyVersion` was told. */
  readonly applyVersion: number;
  /** From now on the folder is only for builds that can apply this version. Durable when it returns; blocks, unless somebody else writes. */
  raiseApplyVersion(applyVersion: number, write?: FileWriter): void;
  /** The folder is of another cluster from now on, under an incarnation of its own. Durable when it returns; blocks. */
  refound(owner: DataDirOwner): void;
  /** Where the machine of a group keeps its files; the folder exists. */
  machinePath(group: number): string;
  /**
   * Nothing of that machine is kept: its folder is out of the way at once, under the name that is returned, to be deleted off the event loop, as that takes a tenth
   * of a second for half a gigabyte. Undefined where there is none. Not while one of its files is open.
   */
  setMachineAside(group: number): string | undefined;
  /** Folders of machines that were set aside before, and not deleted. */
  readonly aside: readonly string[];
  /** Groups whose machines have a folder. */
  machineIds(): readonly number[];
  /** Bytes of all files in it. Looks at names and sizes only: opening them would drop SQLite's locks [17]. */
  bytes(): number;
  /** Gives up the lock; the last thing to close. */
  close(): void;
}

/** The layout of identity.json. */
export interface Identity extends DataDirOwner {
  readonly format: number;
  readonly incarnation: string;
  /** Absent = the first one. */
  readonly applyVersion?: number;
  /** Software that made the folder, for the curious. */
  readonly createdBy: string;
}

/**
 * Throws FatalError, with a message that says what to do, where the folder cannot be used or is not ours. `beforeChange` may refuse too, for
 * reasons of its own: the folder is ours alone by then, and a new one is not yet bound to this node and cluster. Blocks.
 */
export function openDataDir(
  path: string,
  owner: DataDirOwner,
  beforeChange: () => void = () => {},
  /** Of a new folder, where it is agreed upon already; drawn otherwise. */
  incarnation: string = drawIncarnation(),
): DataDir {
  const folder = resolve(path);
  makeFolder(folder);
  const lock = takeLock(folder);
  try {
    const found = readIdentity(folder);
    if (found !== undefined) refuseOther(folder, found, owner);
    else refuseOrphan(folder);
    beforeChange();
    let identity = found ?? writeIdentity(folder, owner, incarnation);
    rmSync(join(folder, joiningName), { force: true });
    const machines = join(folder, "machine");
    mkdirSync(machines, { recursive: true, mode: 0o700 });
    const removed = join(folder, "removed");
    return {
      path: folder,
      get incarnation() {
        return identity.incarnation;
      },
      firstBoot: found === undefined,
      token: identity.token,
      peers: new PeerLedger(folder),
      segmentsPath: join(folder, "segments"),
      watermarkPath: join(folder, "watermark"),
      get applyVersion() {
        return identity.applyVersion ?? applyVersionFirst;
      },
      raiseApplyVersion: (applyVersion, write = writeNow) => {
        const raised = { ...identity, format: raisedFormat, applyVersion };
        write(join(folder, identityName), textOf(raised), (ok) => {
          if (ok) identity = raised;
        });
      },
      refound: (next) => {
        const { format, applyVersion } = identity;
        const raised = applyVersion === undefined ? {} : { applyVersion };
        identity = { ...newIdentity(next, drawIncarnation()), format, ...raised };
        saveIdentity(folder, identity);
      },
      machinePath: (group) => machineFolder(machines, group),
      setMachineAside: (group) => setAside(machines, removed, group),
      aside: existsSync(removed) ? readdirSync(removed).map((name) => join(removed, name)) : [],
      machineIds: () =>
        readdirSync(machines)
          .filter((name) => /^[0-9]{1,10}$/.test(name))
          .map(Number),
      bytes: () => bytesBelow(folder),
      close: () => lock.release(),
    };
  } catch (error) {
    lock.release();
    throw notWritable(folder, error);
  }
}

/** Whom a folder belongs to; undefined for a new one. Changes nothing. */
export function storedIdentity(path: string): Identity | undefined {
  return readIdentity(resolve(path));
}

const identityName = "identity.json";
const joiningName = "joining.json";
const lockName = "lock.db";

/**
 * The incarnation under which a new node asks to be added, before its folder belongs to any cluster. Kept, so that it is the same when the node asks
 * again after a crash: the cluster may have added it already.
 */
export function joiningIncarnation(path: string, nodeId: number): string {
  const folder = resolve(path);
  makeFolder(folder);
  const file = join(folder, joiningName);
  try {
    const found = JSON.parse(readFileSync(file, "utf8")) as Partial<Joining> | null;
    if (found?.nodeId === nodeId && typeof found.incarnation === "string") return found.incarnation;
  } catch {
    // None yet, or not one that was ever sent: it is written before it is used.
  }
  const joining: Joining = { nodeId, incarnation: drawIncarnation() };
  try {
    writeFileDurably(file, `${JSON.stringify(joining)}\n`);
  } catch (error) {
    throw notWritable(folder, error);
  }
  return joining.incarnation;
}

interface Joining {
  readonly nodeId: number;
  readonly incarnation: string;
}

function drawIncarnation(): string {
  return randomBytes(16).toString("hex");
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw notWritable(folder, error);
  }
}

function takeLock(folder: string): { release(): void } {
  let lock: { release(): void } | undefined;
  try {
    lock = lockFile(join(folder, lockName));
  } catch (error) {
    throw notWritable(folder, error);
  }
  if (lock !== undefined) return lock;
  throw new FatalError(
    "data_dir_locked",
    `${folder} is in use by another process; stop that one first, or give this one a --data-dir of its own`,
  );
}

/**
 * Keeps every node out of a folder that is looked at, without changing it: undefined where no node has ever used it, or where nothing in it can be
 * written anyway. Throws FatalError where one uses it.
 */
export function lockForReading(path: string): { release(): void } | undefined {
  const folder = resolve(path);
  try {
    accessSync(join(folder, lockName), constants.R_OK | constants.W_OK);
  } catch {
    return undefined;
  }
  return takeLock(folder);
}

/** It is written before anything else: where there is a log, it was there, and under a new one this node could vote twice. */
function refuseOrphan(folder: string): void {
  const segments = join(folder, "segments");
  if (!existsSync(segments) || readdirSync(segments).length === 0) return;
  const words =
    "identity.json is gone, and the log is there. Bring it back from a copy; or replace the member, with an empty folder";
  throw new FatalError("wrong_data_dir", `${folder}: ${words}`);
}

function readIdentity(folder: string): Identity | undefined {
  const path = join(folder, identityName);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return undefined;
    throw notWritable(folder, error);
  }
  const identity = parseIdentity(text);
  if (typeof identity === "string") throw new FatalError("wrong_data_dir", `${path}: ${identity}`);
  return identity;
}

/** The identity, or why it is none. */
function parseIdentity(text: string): Identity | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return "it is not JSON; bring it back from a copy, or start this node with an empty folder and a new node id";
  }
  if (typeof value !== "object" || value === null) return "it holds no identity";
  const { format, clusterId, nodeId, incarnation, createdBy, token, tokenHash, applyVersion } =
    value as Record<keyof Identity, unknown>;
  const { contacts: listed } = value as Record<keyof Identity, unknown>;
  const contacts = listed === undefined ? undefined : readMembers(listed);
  if (format !== dataDirFormat && format !== raisedFormat) {
    return `the folder has format ${String(format)}, this version knows ${dataDirFormat} and ${raisedFormat}; start the version that made it (${String(createdBy)})`;
  }
  if (
    typeof clusterId !== "string" ||
    typeof nodeId !== "number" ||
    typeof incarnation !== "string" ||
    typeof createdBy !== "string" ||
    (token !== undefined && typeof token !== "string") ||
    (tokenHash !== undefined && typeof tokenHash !== "string") ||
    (listed !== undefined && contacts === undefined) ||
    (applyVersion !== undefined &&
      !(Number.isSafeInteger(applyVersion) && Number(applyVersion) > 0))
  ) {
    return "the identity is incomplete; bring it back from a copy";
  }
  return {
    format,
    clusterId,
    nodeId,
    incarnation,
    createdBy,
    ...(token === undefined ? {} : { token }),
    ...(tokenHash === undefined ? {} : { tokenHash }),
    ...(contacts === undefined ? {} : { contacts }),
    ...(applyVersion === undefined ? {} : { applyVersion: Number(applyVersion) }),
  };
}

function refuseOther(folder: string, found: Identity, owner: DataDirOwner): void {
  if (found.clusterId !== owner.clusterId) {
    throw new FatalError(
      "wrong_data_dir",
      `${folder} belongs to cluster ${found.clusterId} (node ${found.nodeId}), this node was started for cluster ${owner.clusterId}. ` +
        "The cluster is named by its token and its initial members: give the same as at the first start, or another --data-dir",
    );
  }
  if (found.nodeId !== owner.nodeId) {
    throw new FatalError(
      "wrong_data_dir",
      `${folder} belongs to node ${found.nodeId}, this is node ${owner.nodeId}; give --node-id ${found.nodeId}, or another --data-dir`,
    );
  }
}

/** Whole or not at all: a folder with half an identity would be refused for ever. */
function writeIdentity(folder: string, owner: DataDirOwner, incarnation: string): Identity {
  const identity = newIdentity(owner, incarnation);
  saveIdentity(folder, identity);
  fsyncDirectory(dirname(folder));
  return identity;
}

function newIdentity(owner: DataDirOwner, incarnation: string): Identity {
  return {
    format: dataDirFormat,
    ...owner,
    incarnation,
    createdBy: `barge on Bun ${Bun.version}`,
  };
}

function saveIdentity(folder: string, identity: Identity): void {
  writeFileDurably(join(folder, identityName), textOf(identity));
}

function textOf(identity: Identity): string {
  return `${JSON.stringify(identity, undefined, 2)}\n`;
}

const writeNow: FileWriter = (path, text, done) => {
  writeFileDurably(path, text);
  done(true);
};

function bytesBelow(folder: string): number {
  let bytes = 0;
  for (const name of namesBelow(folder)) {
    const stat = statSync(join(folder, name), { throwIfNoEntry: false });
    if (stat?.isFile() === true) bytes += stat.size;
  }
  return bytes;
}

/** Files and folders come and go while this looks. */
function namesBelow(folder: string): string[] {
  for (;;) {
    try {
      return readdirSync(folder, { recursive: true, encoding: "utf8" });
    } catch (error) {
      if (errorCode(error) !== "ENOENT" || !existsSync(folder)) throw error;
    }
  }
}

function setAside(machines: string, removed: string, group: number): string | undefined {
  const path = join(machines, String(group));
  if (!existsSync(path)) return undefined;
  mkdirSync(removed, { recursive: true, mode: 0o700 });
  const aside = join(removed, `${group}-${randomBytes(8).toString("hex")}`);
  renameSync(path, aside);
  return aside;
}

function machineFolder(machines: string, group: number): string {
  const path = join(machines, String(group));
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

/** A failure of the file system in words; what is fatal already, or a failed sync, stays what it is. */
function notWritable(folder: string, error: unknown): Error {
  if (error instanceof FatalError) return error;
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof SyncError) return new FatalError("sync_failed", text);
  return new FatalError(
    "data_dir_not_writable",
    `${folder} cannot be used as the data folder: ${text}`,
    { cause: error },
  );
}

function errorCode(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

/**
 * A data folder, looked at while no node uses it: what is whole, what is damaged, and what the next start will do. Changes nothing in it: files are
 * read without SQLite, and the recovery that runs on them is the one that a start runs [26].
 */
import { statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { type FatalReason, FatalError, fatalTable } from "../fatal.ts";
import { defaultLimits } from "../limits.ts";
import type { MachineKind } from "../machine/machines.ts";
import { readAppFolder } from "../machine/http/verify-app.ts";
import { machineFiles, type MachineReading, verifyMachineFile } from "../machine/verify-kv.ts";
import { decodeConfiguration } from "../raft/configuration.ts";
import { InvariantError } from "../raft/invariants.ts";
import type { Configuration } from "../raft/ready.ts";
import { type Identity, lockForReading, storedIdentity } from "../storage/data-dir.ts";
import type { Disk } from "../storage/disk.ts";
import { type Failure, readFailure } from "../storage/failure-note.ts";
import type { RecoveredGroup } from "../storage/log-store.ts";
import { PeerLedger } from "../storage/peer-ledger.ts";
import { ReadOnlyDisk, segmentName } from "../storage/read-only-disk.ts";
import {
  configurationBatches,
  type RecoveredBatch,
  type RecoveredLog,
  recoverLog,
  type ReplayedGroup,
} from "../storage/recovery.ts";
import { readWatermark } from "../storage/watermark.ts";
import { batchIntact, bodyOf, readBatch } from "../wire/batch.ts";
import { applyVersionFirst, applyVersionMax } from "../wire/versions.ts";
import {
  createCore,
  machineAdvice,
  seedCrcOf,
  unreadableState,
  veryStart,
  withoutState,
} from "./bootstrap.ts";

export interface MachineReport extends MachineReading {
  /** Name of its main file. */
  readonly file: string;
  readonly kind: MachineKind;
}

export interface GroupReport {
  readonly id: number;
  readonly term: number;
  /** 0 = nobody. */
  readonly votedFor: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** Known to be committed up to here, at least. */
  readonly commitIndex: number;
  readonly batches: number;
  readonly bytes: number;
  readonly voters: readonly number[];
  readonly learners: readonly number[];
  /** `host:port` by node id. */
  readonly addresses: Readonly<Record<number, string>>;
  /** What its log has to come to before it votes again. */
  readonly wounded?: { readonly term: number; readonly index: number };
  /** Where the first batch begins that cannot be read as it was written. */
  readonly damagedAt?: number;
  /** Absent where nothing was flushed yet. */
  readonly machine?: MachineReport;
}

export interface NextStart {
  /** `heals`: it takes part without a vote until a leader has brought what is lost. `refused`: with that exit status. */
  readonly outcome: "new" | "serves" | "heals" | "refused";
  readonly status?: number;
  readonly reason?: FatalReason;
  /** For people: what happens, and what to do. */
  readonly text: string;
}

export interface FolderReport {
  readonly folder: string;
  /** Nothing is damaged. */
  readonly whole: boolean;
  readonly node?: {
    readonly nodeId: number;
    readonly clusterId: string;
    readonly applyVersion: number;
  };
  /** The log's records are numbered over all groups; `durableTo`: known to have been durable. */
  readonly log: {
    readonly segments: number;
    readonly records: number;
    readonly bytes: number;
    readonly lastRecord: number;
    readonly durableTo?: number;
  };
  readonly groups: readonly GroupReport[];
  /** Why the node ended by itself in its last life, where it did. */
  readonly lastEnd?: Failure;
  readonly damage: readonly string[];
  /** Files that the next start removes: they are no part of the log or of the state. */
  readonly leftovers: readonly string[];
  readonly nextStart: NextStart;
}

/** Throws FatalError where the folder is in use or cannot be read. Keeps nodes out of it meanwhile. */
export function verifyFolder(path: string): FolderReport {
  const folder = resolve(path);
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new FatalError("data_dir_not_writable", `${folder} is no folder`);
  }
  const lock = lockForReading(folder);
  try {
    return new FolderReader(folder).report();
  } finally {
    lock?.release();
  }
}

/** A replica as the log store would hand it to a node, with the place of each batch. */
interface Replica extends RecoveredGroup {
  readonly batches: readonly RecoveredBatch[];
}

class FolderReader {
  readonly #folder: string;
  readonly #damage: string[] = [];
  readonly #leftovers: string[] = [];
  /** The first thing for which a start would be refused. */
  #refusal: FatalError | undefined;
  /** Other members may have what is lost here. */
  #canHeal = false;

  constructor(folder: string) {
    this.#folder = folder;
  }

  report(): FolderReport {
    const identity = this.#try(() => storedIdentity(this.#folder));
    const ledger = this.#try(() => new PeerLedger(this.#folder));
    const disk = this.#try(
      () =>
        new ReadOnlyDisk({
          segmentsPath: join(this.#folder, "segments"),
          watermarkPath: join(this.#folder, "watermark"),
        }),
    );
    try {
      return this.#report(identity, ledger, disk);
    } finally {
      disk?.close();
    }
  }

  #report(
    identity: Identity | undefined,
    ledger: PeerLedger | undefined,
    disk: ReadOnlyDisk | undefined,
  ): FolderReport {
    const { applyVersion = applyVersionFirst } = identity ?? {};
    if (applyVersion > applyVersionMax) this.#refuse(tooNew(applyVersion));
    const isNew = identity === undefined && this.#refusal === undefined;
    if (isNew && (disk?.found.length ?? 0) > 0) {
      this.#damage.push(
        "identity.json is gone: a start would make this the folder of another node",
      );
    }
    const isReadable = identity !== undefined && disk !== undefined;
    const log = isReadable ? this.#recover(disk, identity, ledger) : undefined;
    this.#canHeal = log !== undefined && (ledger?.hasOtherVoters ?? hasOthers(log));
    if (disk !== undefined) this.#lookAtSegments(disk, log);
    const groups: GroupReport[] = [];
    const all = [...(log?.groups ?? [])].toSorted(([a], [b]) => a - b);
    for (const [id, found] of all) {
      groups.push(this.#group(id, this.#replica(id, found, log!), log!, identity!));
    }
    const watermark = disk?.readWatermark();
    const durableTo = watermark === undefined ? undefined : readWatermark(watermark)?.seq;
    const segments = log?.segments ?? [];
    const lastEnd = readFailure(this.#folder);
    return {
      folder: this.#folder,
      whole: this.#damage.length === 0,
      ...(identity === undefined
        ? {}
        : { node: { nodeId: identity.nodeId, clusterId: identity.clusterId, applyVersion } }),
      log: {
        segments: segments.length,
        records: segments.reduce((sum, each) => sum + each.lastSeq - each.firstSeq + 1, 0),
        bytes: segments.reduce((sum, { file }) => sum + file.bytes, 0),
        lastRecord: log?.lastSeq ?? 0,
        ...(durableTo === undefined ? {} : { durableTo }),
      },
      groups,
      ...(lastEnd === undefined ? {} : { lastEnd }),
      damage: this.#damage,
      leftovers: this.#leftovers,
      nextStart: this.#nextStart(isNew, groups),
    };
  }

  /** As the node alone would recover it; where that is refused and others may have what is lost, as it would with them. */
  #recover(
    disk: Disk,
    { clusterId }: Identity,
    ledger: PeerLedger | undefined,
  ): RecoveredLog | undefined {
    const seedCrc = seedCrcOf(clusterId);
    const recover = (canHeal: boolean): RecoveredLog | FatalError => {
      try {
        return recoverLog(disk, seedCrc, canHeal);
      } catch (error) {
        if (error instanceof FatalError) return error;
        throw error;
      }
    };
    const alone = recover(false);
    if (!(alone instanceof FatalError)) {
      this.#damage.push(...alone.damage);
      return alone;
    }
    const healing = recover(true);
    if (healing instanceof FatalError) {
      this.#refuse(alone);
      return undefined;
    }
    if (ledger?.hasOtherVoters ?? hasOthers(healing)) this.#damage.push(...healing.damage);
    else this.#refuse(alone);
    return healing;
  }

  #replica(id: number, found: ReplayedGroup, log: RecoveredLog): Replica {
    const read = (seq: number): Uint8Array | undefined => readRecord(log, seq);
    const { found: configurations, brokenAt } = configurationBatches(found.batches, read, true);
    if (brokenAt === undefined) return { ...found, configurations };
    this.#damage.push(`the configuration of group ${id} at index ${brokenAt} fails its check`);
    const { term, firstIndex, count } = found.batches.at(-1)!;
    const wound = { term, index: firstIndex + count - 1, hardTerm: found.hardState.term };
    const batches = found.batches.filter((batch) => batch.firstIndex < brokenAt);
    return { ...found, configurations, batches, wound: found.wound ?? wound };
  }

  #lookAtSegments(disk: ReadOnlyDisk, log: RecoveredLog | undefined): void {
    const live = new Set(log?.segments.map(({ file }) => file.number));
    for (const { number, debris, framesBeyond } of disk.found) {
      const name = `segments/${segmentName(number)}`;
      if (debris !== undefined) this.#leftovers.push(`${name}: ${debris}`);
      else if (!live.has(number)) this.#leftovers.push(`${name}: no part of the log`);
      else if (framesBeyond > 0) {
        this.#leftovers.push(`${name}-wal: ${framesBeyond} pages behind its end do not count`);
      }
    }
    if (disk.hasWatermark || live.size === 0) return;
    this.#damage.push(
      "the file `watermark` is gone: should the log have lost its end, nobody would notice",
    );
  }

  #group(
    id: number,
    found: Replica,
    log: RecoveredLog,
    { nodeId, clusterId }: Identity,
  ): GroupReport {
    const damagedAt = this.#readBatches(id, found, log);
    const machine = this.#machine(id, found.machineGeneration);
    const { appliedIndex = 0 } = machine ?? {};
    // A start would not come any further than to a file that it cannot open.
    const replica = machine?.unreadable ? found : this.#withState(id, found, appliedIndex);
    const { hardState, start, batches, wound } = replica;
    // What was lost in an earlier life, and has not come back.
    if (wound !== undefined && this.#damage.length === 0) {
      this.#damage.push(`group ${id} lost a part of its log, up to index ${wound.index}`);
    }
    const last = lastOf(replica);
    const isRefused = wound === undefined && appliedIndex < start.index;
    const core = (): ReturnType<typeof createCore> =>
      createCore({
        group: id,
        nodeId,
        limits: defaultLimits,
        random: () => 0.5,
        store: { empty: () => veryStart(seedCrcOf(clusterId)) },
        recovered: replica,
        appliedIndex,
      });
    const raft = isRefused ? undefined : this.#try(core);
    const { voters, learners, addresses } = configurationOf(replica);
    return {
      id,
      term: hardState.term,
      votedFor: hardState.votedFor,
      firstIndex: start.index + 1,
      lastIndex: last.index,
      lastTerm: last.term,
      commitIndex: raft?.commit ?? start.index,
      batches: batches.length,
      bytes: batches.reduce((sum, { bytes }) => sum + bytes, 0),
      voters,
      learners,
      addresses,
      ...(wound === undefined ? {} : { wounded: { term: wound.term, index: wound.index } }),
      ...(damagedAt === undefined ? {} : { damagedAt }),
      ...(machine === undefined ? {} : { machine }),
    };
  }

  /** As a start would have it where the state ends before the log begins. */
  #withState(id: number, found: Replica, appliedIndex: number): Replica {
    const { start, hardState } = found;
    const { term, index } = lastOf(found);
    const store = { woundState: () => ({ term, index, hardTerm: hardState.term }) };
    const replica = this.#try(() => withoutState(store, id, found, appliedIndex, this.#canHeal));
    if (replica === undefined || replica === found) return found;
    this.#damage.push(
      `machine/${id}: the state ends at index ${appliedIndex}, and the log goes on only behind ${start.index}`,
    );
    return { ...found, wound: replica.wound };
  }

  /** Every byte of every live batch. Returns where the first one begins that is damaged. */
  #readBatches(id: number, { batches }: Replica, log: RecoveredLog): number | undefined {
    let damagedAt: number | undefined;
    // As they lie, not as they follow: copied ones lie later.
    for (const { seq, firstIndex, crc } of batches.toSorted((a, b) => a.seq - b.seq)) {
      const data = readRecord(log, seq);
      const batch = data === undefined ? undefined : readBatch(data, 0);
      if (batch !== undefined && batch.crc === crc && batchIntact(batch)) continue;
      damagedAt = Math.min(damagedAt ?? Infinity, firstIndex);
      this.#damage.push(
        `the batch of group ${id} at index ${firstIndex} (record ${seq}) is not what was written`,
      );
    }
    return damagedAt;
  }

  /** Where the state is an application's: how far that was when it was noted last. */
  #application(path: string, generation: number): MachineReport | undefined {
    const readings = readAppFolder(path, defaultLimits);
    if (readings.length === 0) return undefined;
    for (const { file, state } of readings) {
      if (state !== undefined) continue;
      this.#damage.push(`${file} is damaged; the one before it counts, where there is one`);
    }
    const live = readings.find(
      ({ file, state }) =>
        state !== undefined &&
        (file === `snapshot-${generation}` ||
          (!file.startsWith("snap") && state.snapshot >= generation)),
    );
    const { appliedIndex = 0, applyVersion = 1, timeMs = 0, stateHash = 0 } = live?.state ?? {};
    const contentHash = stateHash.toString(16).padStart(8, "0");
    const figures = { appliedIndex, applyVersion, timeMs, keys: 0, contentHash, bytes: 0 };
    return { file: live?.file ?? "", kind: "http", ...figures };
  }

  #machine(group: number, generation: number): MachineReport | undefined {
    const folder = `machine/${group}`;
    const application = this.#application(join(this.#folder, folder), generation);
    if (application !== undefined) return application;
    const files = machineFiles(join(this.#folder, folder));
    for (const { path, generation: other } of files) {
      if (other === generation) continue;
      this.#leftovers.push(`${folder}/${basename(path)}: a snapshot that is not the state`);
    }
    const live = files.find((file) => file.generation === generation);
    if (live === undefined) return undefined;
    const file = basename(live.path);
    const reading = verifyMachineFile(live.path);
    const { damage, unreadable } = reading;
    if (damage === undefined) return { file, kind: live.kind, ...reading };
    const path = join(this.#folder, folder);
    if (unreadable) this.#refuse(unreadableState(group, path, `${file}: ${damage}`));
    else this.#damage.push(`${folder}/${file}: ${damage}. ${machineAdvice(path)}`);
    return { file, kind: live.kind, ...reading };
  }

  #nextStart(isNew: boolean, groups: readonly GroupReport[]): NextStart {
    if (this.#refusal !== undefined) {
      const { reason, message } = this.#refusal;
      const { status } = fatalTable[reason];
      const text = `is refused with status ${status} (${reason}): ${message}`;
      return { outcome: "refused", status, reason, text };
    }
    if (isNew) return { outcome: "new", text: "makes this the folder of a new node" };
    for (const { wounded, firstIndex, lastIndex, id, machine } of groups) {
      if (wounded === undefined) continue;
      const hasState = (machine?.appliedIndex ?? 0) + 1 >= firstIndex;
      const lost = hasState
        ? `the log of group ${id} ends at ${lastIndex} and went to ${wounded.index}; the rest comes back`
        : `the state of group ${id} is lost, and its log goes on only from ${firstIndex}; all of it comes again`;
      const text = `takes part without a vote: ${lost} from a leader that the others elect. Where too few of them are whole for that: barge recover`;
      return { outcome: "heals", text };
    }
    const text =
      groups.length === 0 ? "begins with an empty log" : groups.map(startText).join("; ");
    return { outcome: "serves", text };
  }

  /** What goes wrong is damage, and a reason to refuse a start. */
  #try<T>(run: () => T): T | undefined {
    try {
      return run();
    } catch (error) {
      if (error instanceof FatalError) this.#refuse(error);
      else if (error instanceof InvariantError) {
        this.#refuse(new FatalError("corrupt_data", error.message, { cause: error }));
      } else throw error;
      return undefined;
    }
  }

  #refuse(error: FatalError): void {
    this.#refusal ??= error;
    this.#damage.push(error.message);
  }
}

function startText({ id, lastIndex, machine, voters, damagedAt }: GroupReport): string {
  // Alone it commits all of its log; with others it learns from them how much of it is committed.
  const again = lastIndex - (machine?.appliedIndex ?? 0);
  const howMany = voters.length > 1 ? `up to ${again}` : `${again}`;
  const replay = again > 0 ? `, once it has applied ${howMany} commands of its log again` : "";
  const others = voters.length > 1 ? `, with ${voters.length - 1} other voters` : "";
  const serves = `serves group ${id}${others}${replay}`;
  if (damagedAt === undefined) return serves;
  const then = `the damage at index ${damagedAt} is met when that is read`;
  return voters.length > 1
    ? `${serves}; ${then}: from there on the log comes from the leader again`
    : `${serves}; ${then}: that ends the node, as nobody else has it`;
}

function lastOf({ batches, start }: Replica): { readonly term: number; readonly index: number } {
  const last = batches.at(-1);
  if (last === undefined) return start;
  return { term: last.term, index: last.firstIndex + last.count - 1 };
}

function configurationOf({
  configurations,
  startConfiguration,
}: Pick<Replica, "configurations" | "startConfiguration">): Configuration {
  const newest = configurations.at(-1);
  const body = newest === undefined ? startConfiguration : bodyOf(newest);
  return decodeConfiguration(body) ?? { voters: [], outgoing: [], learners: [], addresses: {} };
}

/** Undefined where it is not there, or cannot be read. */
function readRecord({ segments }: RecoveredLog, seq: number): Uint8Array | undefined {
  const segment = segments.findLast(({ firstSeq }) => firstSeq <= seq);
  try {
    return segment?.file.read(seq);
  } catch (error) {
    if (error instanceof FatalError) return undefined;
    throw error;
  }
}

/** Where nobody has noted whether there are other voters: they may have what is lost, unless the log says that there are none. */
function hasOthers(log: RecoveredLog): boolean {
  for (const { batches, startConfiguration } of log.groups.values()) {
    const read = (seq: number): Uint8Array | undefined => readRecord(log, seq);
    const { found: configurations } = configurationBatches(batches, read, true);
    if (configurationOf({ configurations, startConfiguration }).voters.length === 1) return false;
  }
  return true;
}

function tooNew(version: number): FatalError {
  return new FatalError(
    "build_too_old",
    `the folder is at apply version ${version}, and this build can ${applyVersionMax}: use a newer one`,
  );
}

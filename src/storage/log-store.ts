/**
 * The log of all groups of a shard: one append-only stream of records over segments [18]. Holds in memory where each live batch lies,
 * never a body. Knows batches and hard states, not Raft; reaches the disk through the seam `Disk` alone, so the simulator can crash it.
 *
 * Appending and syncing are two phases: `append` makes visible and returns a sequence number; `sync` makes durable what was appended
 * before it. A batch at an index that exists supersedes all from there; there is no other truncation [18]. Sequence numbers never go back.
 *
 * Retiring: each segment begins with hard state, start and configuration of every group, and names the oldest segment that is still
 * needed. Once that is durable, all older ones go, oldest first. A group that stands still while others move on would pin an old
 * segment for ever, so its batches are copied forward, a bounded run per tick [19]: where that is little, as soon as it has stood still for two
 * segments, so that the groups that hardly do anything do not add to what the others take; else once half of the disk in use is dead.
 *
 * A broken assertion throws `Error("log-store: …")`; the caller ends the process.
 */
import type { Limits } from "../limits.ts";
import {
  batchIntact,
  lastIndexOf,
  readBatch,
  type Batch,
  type BatchInfo,
  type HardState,
  type LogStart,
  type Wound,
} from "../wire/batch.ts";
import { DiskFullError, RecordKind, type Disk, type LogRecord } from "./disk.ts";
import { GroupLog, type StoreRestore } from "./group-log.ts";
import {
  hardStateRecord,
  logStartRecord,
  machineFileRecord,
  nextStreamCrc,
  replicaRecord,
  segmentStartRecord,
  woundRecord,
  type SegmentStart,
} from "./records.ts";
import { configurationBatches, recoverLog, type ReplayedGroup } from "./recovery.ts";
import { SegmentChain, type Segment } from "./segment-chain.ts";
import { gravest, WatermarkBuilder } from "./watermark.ts";

export interface GroupWrite {
  readonly group: number;
  readonly hardState: HardState | undefined;
  /** A snapshot takes the place of the whole log, and its file that of the machine's; what is appended follows on it. */
  readonly restore?: StoreRestore | undefined;
  /** In order; the first may supersede what the log has from its firstIndex on, the others continue it. */
  readonly append: readonly Batch[];
  /** With a group's first write: the index of the registry's entry that makes this replica. A group that was removed needs a later one. */
  readonly registryIndex?: number | undefined;
}

export interface RecoveredGroup {
  /** Zeros if it never had one. */
  readonly hardState: HardState;
  /** The position before the first live batch. */
  readonly start: LogStart;
  /** Body of the configuration in force at `start`; empty at the very beginning. */
  readonly startConfiguration: Uint8Array;
  /** Which file is the state machine: 0 = the one that it made itself, else a snapshot that was taken over. */
  readonly machineGeneration: number;
  /** Of the registry's entry that made this replica, 0 = none did: what the registry said before it does not remove the replica. */
  readonly registryIndex: number;
  /** Live, contiguous, chain-verified. */
  readonly batches: readonly BatchInfo[];
  /** Live configuration batches, in order, with their bodies. */
  readonly configurations: readonly Batch[];
  /** Present where durable data is lost: no vote until it has come again [22]. */
  readonly wound: Wound | undefined;
}

export interface LogStoreOptions {
  readonly limits: Limits;
  /** A random u32, another one at each start of the process. */
  readonly bootId: number;
  /** The crc before the first batch of each group, a property of the cluster [36]. */
  readonly seedCrc: number;
  /** There are others that have what this node may have lost: it starts wounded where it would be refused else [22]. */
  readonly canHeal?: boolean;
  /** Damage that was met and does not stop the start; or while copying forward, where nothing can heal it. */
  readonly onCorrupt?: (what: string) => void;
}

/** A live batch cannot be read back as it was written: stop serving this group's log. */
export class CorruptBatchError extends Error {
  override readonly name: string = "CorruptBatchError";
  readonly group: number;
  readonly firstIndex: number;
  constructor(group: number, firstIndex: number, seq: number) {
    super(
      `the batch of group ${group} at index ${firstIndex} (record ${seq}) is not what was written`,
    );
    this.group = group;
    this.firstIndex = firstIndex;
  }
}

/** Copying the live batches of one segment forward: what is still to be looked at. */
interface Forwarding {
  readonly segment: Segment;
  readonly groups: readonly GroupLog[];
  readonly firstIndexes: readonly number[];
  next: number;
}

function must(ok: boolean, what: string): asserts ok {
  if (!ok) throw new Error(`log-store: ${what}`);
}

export class LogStore {
  readonly #disk: Disk;
  readonly #limits: Limits;
  readonly #bootId: number;
  readonly #seedCrc: number;
  readonly #canHeal: boolean;
  readonly #onCorrupt: (what: string) => void;

  readonly #groups = new Map<number, GroupLog>();
  readonly #segments: SegmentChain;

  #appendSeq = 0;
  #syncedSeq = 0;
  /** Over the whole stream up to #appendSeq. */
  #streamCrc: number;
  #syncing = false;
  #dirtyGroups = new Set<GroupLog>();
  /** Groups whose start has moved and is not in the stream yet. */
  #movedStarts = new Set<GroupLog>();
  /** Groups that were wounded or healed, which is not in the stream yet. */
  #movedWounds = new Set<GroupLog>();
  /** By group, the index of the registry at which it was removed from this node; kept until the registry itself has that durably. */
  readonly #tombstones = new Map<number, number>();
  /** Groups whose tombstone is not in the stream yet; then those for which no sync has covered it. */
  #movedTombstones = new Set<number>();
  #dirtyTombstones = new Set<number>();
  #forwarding: Forwarding | undefined;
  /** The newest segment but one when it was last asked whether the oldest holds nothing but what stands still. */
  #lookedAt: Segment | undefined;
  /** Segments up to this number hold a batch that cannot be read, so they cannot be emptied. */
  #unforwardable = 0;
  /** Segments up to this number are damaged and are to go; 0 = none. */
  #evacuating = 0;

  readonly #watermark = new WatermarkBuilder();
  #watermarkDirty = false;
  #watermarkSyncing = false;
  #watermarkSyncedMs = Number.NEGATIVE_INFINITY;

  #recovered = false;
  #closed = false;

  constructor(disk: Disk, options: LogStoreOptions) {
    this.#disk = disk;
    this.#limits = options.limits;
    this.#segments = new SegmentChain(disk, options.limits);
    this.#bootId = options.bootId;
    this.#seedCrc = options.seedCrc;
    this.#streamCrc = options.seedCrc;
    this.#canHeal = options.canHeal ?? false;
    this.#onCorrupt = options.onCorrupt ?? (() => {});
  }

  /** Of the last record appended: visible, not yet durable. */
  get appendSeq(): number {
    return this.#appendSeq;
  }

  /** Everything up to here is durable. */
  get syncedSeq(): number {
    return this.#syncedSeq;
  }

  get syncing(): boolean {
    return this.#syncing;
  }

  get diskBytes(): number {
    return this.#segments.bytes;
  }

  /** Of the live batches of all groups. */
  get liveBytes(): number {
    let bytes = 0;
    for (const { liveBytes } of this.#segments.list) bytes += liveBytes;
    return bytes;
  }

  /** Bytes of the group's live batches. */
  logBytes(group: number): number {
    return this.#groups.get(group)?.bytes ?? 0;
  }

  /** Where the group's log ended when the latest sync began. */
  roundIndex(group: number): number {
    return this.#groups.get(group)?.roundIndex ?? 0;
  }

  /**
   * Rebuilds memory from the disk and begins the segment of this boot, whose own first record keeps a lost tail from coming back [M19].
   * What was read counts as durable only after the first sync, which covers every segment. Where something that was known durable is
   * missing, its groups are wounded, or FatalError is thrown with nothing changed.
   */
  recover(): Map<number, RecoveredGroup> {
    must(!this.#recovered, "recovered twice");
    const log = recoverLog(this.#disk, this.#seedCrc, this.#canHeal);
    this.#recovered = true;
    for (const what of log.damage) this.#onCorrupt(what);
    this.#appendSeq = log.lastSeq;
    this.#streamCrc = log.streamCrc;
    this.#segments.adopt(log.segments, log.leftovers);

    for (const [id, registryIndex] of log.tombstones) this.#tombstones.set(id, registryIndex);
    const groups = new Map<number, RecoveredGroup>();
    for (const [id, found] of log.groups) {
      const configurations = this.#configurations(id, found);
      this.#adopt(id, found);
      groups.set(id, {
        hardState: found.hardState,
        start: found.start,
        startConfiguration: found.startConfiguration,
        machineGeneration: found.machineGeneration,
        registryIndex: found.registryIndex,
        batches: found.batches,
        configurations,
        wound: found.wound,
      });
    }
    this.#write([]);
    return groups;
  }

  /** A configuration that is broken ends the group's log, as a batch does that is found broken later. */
  #configurations(id: number, group: ReplayedGroup): readonly Batch[] {
    const read = (seq: number): Uint8Array | undefined => this.#read(seq);
    const { found, brokenAt } = configurationBatches(group.batches, read, this.#canHeal);
    if (brokenAt === undefined) return found;
    this.#onCorrupt(`the configuration of group ${id} at index ${brokenAt} fails its check`);
    const { term, firstIndex, count } = group.batches.at(-1)!;
    const lost = { term, index: firstIndex + count - 1, hardTerm: group.hardState.term };
    group.wound = group.wound === undefined ? lost : gravest(group.wound, lost);
    group.cut = brokenAt;
    group.batches.splice(group.batches.findIndex((batch) => batch.firstIndex >= brokenAt));
    return found;
  }

  #adopt(id: number, found: ReplayedGroup): void {
    const group = new GroupLog(id, found.start);
    group.hardState = found.hardState;
    group.wound = found.wound;
    group.cut = found.cut;
    if (found.wound !== undefined) this.#movedWounds.add(group);
    group.startConfiguration = found.startConfiguration;
    group.machineGeneration = found.machineGeneration;
    group.registryIndex = found.registryIndex;
    for (const batch of found.batches) {
      group.push(batch, batch.bytes, batch.seq);
      const segment = this.#segments.of(batch.seq);
      segment.liveBatches += 1;
      segment.liveBytes += batch.bytes;
    }
    this.#groups.set(id, group);
    this.#dirtyGroups.add(group);
  }

  /**
   * One transaction for all groups of a turn [20]: visible at once, durable with a sync that begins later. Each group at most once.
   * Throws DiskFullError with nothing changed.
   */
  append(writes: readonly GroupWrite[]): number {
    must(this.#recovered && !this.#closed, "append outside recover … close");
    const distinct = new Set<number>();
    let empty = true;
    for (const write of writes) {
      distinct.add(write.group);
      const log = this.#groups.get(write.group);
      if (log === undefined) this.#checkFirstWrite(write);
      else must(write.registryIndex === undefined, `group ${write.group} is there already`);
      checkWrite(log ?? this.#newGroup(write.group), write);
      if (recordsOf(write) > 0) empty = false;
    }
    must(distinct.size === writes.length, "a group twice in one append");
    if (!empty) this.#write(writes);
    return this.#appendSeq;
  }

  /** A replica that was removed must never come back by what made it, and vote a second time. */
  #checkFirstWrite({ group, registryIndex = 0 }: GroupWrite): void {
    const removedAt = this.#tombstones.get(group);
    must(
      removedAt === undefined || registryIndex > removedAt,
      `group ${group} was removed at index ${removedAt} of the registry`,
    );
  }

  #newGroup(id: number): GroupLog {
    return new GroupLog(id, { index: 0, term: 0, crc: this.#seedCrc, timeMs: 0 });
  }

  /** The transaction: a new segment's beginning or moved starts, then the writes. */
  #write(writes: readonly GroupWrite[]): void {
    const created = this.#segments.nextFile();
    const oldest = created === undefined ? 0 : this.#segments.oldestLive(created.number);
    const records: LogRecord[] = [];
    const firstSeq = this.#appendSeq + 1;
    let seq = this.#appendSeq;
    if (created !== undefined) {
      records.push(segmentStartRecord(++seq, this.#segmentStart(created.number, oldest)));
      for (const [group, registryIndex] of this.#tombstones) {
        records.push(replicaRecord(++seq, group, { removed: true, registryIndex }));
      }
      for (const group of this.#groups.values()) {
        const { registryIndex } = group;
        if (registryIndex > 0) {
          records.push(replicaRecord(++seq, group.group, { removed: false, registryIndex }));
        }
        records.push(hardStateRecord(++seq, group.group, group.hardState));
        if (this.#hasWoundRecord(group)) records.push(woundRecord(++seq, group.group, group));
        records.push(this.#logStart(++seq, group));
        const { machineGeneration } = group;
        if (machineGeneration === 0) continue;
        records.push(machineFileRecord(++seq, group.group, machineGeneration));
      }
    } else {
      for (const group of this.#movedTombstones) {
        const registryIndex = this.#tombstones.get(group)!;
        records.push(replicaRecord(++seq, group, { removed: true, registryIndex }));
      }
      for (const group of this.#movedWounds) records.push(woundRecord(++seq, group.group, group));
      for (const group of this.#movedStarts) records.push(this.#logStart(++seq, group));
    }
    for (const { group, hardState, restore, append, registryIndex } of writes) {
      if (registryIndex !== undefined) {
        records.push(replicaRecord(++seq, group, { removed: false, registryIndex }));
      }
      if (hardState !== undefined) records.push(hardStateRecord(++seq, group, hardState));
      if (restore !== undefined) {
        const { start, configuration, machineGeneration } = restore;
        // In this order: should damage cut the log between them, the machine is ahead of it, which can be healed.
        records.push(machineFileRecord(++seq, group, machineGeneration));
        records.push(logStartRecord(++seq, group, { start, resets: true, configuration }));
      }
      for (const batch of append) {
        records.push({ seq: ++seq, kind: RecordKind.batch, group, data: batch.bytes });
      }
    }
    if (records.length === 0) return;
    (created ?? this.#segments.current!.file).append(records);

    // From here on nothing fails: memory follows what the transaction has made visible.
    if (created !== undefined) this.#segments.begin(created, firstSeq, oldest);
    for (const group of this.#movedStarts) {
      group.startResets = false;
      this.#dirtyGroups.add(group);
    }
    this.#movedStarts.clear();
    for (const group of this.#movedWounds) {
      group.cut = 0;
      this.#dirtyGroups.add(group);
    }
    this.#movedWounds.clear();
    for (const group of this.#movedTombstones) this.#dirtyTombstones.add(group);
    this.#movedTombstones.clear();
    this.#appended(records);
    let at = records.length;
    for (const write of writes) at -= recordsOf(write);
    for (const write of writes) at = this.#remember(write, records, at);
  }

  #hasWoundRecord(group: GroupLog): boolean {
    return group.wound !== undefined || this.#movedWounds.has(group);
  }

  #segmentStart(number: number, oldest: number): SegmentStart {
    const predecessor = this.#segments.current;
    let stateRecords = this.#tombstones.size;
    for (const group of this.#groups.values()) {
      stateRecords += 2;
      if (group.registryIndex > 0) stateRecords++;
      if (group.machineGeneration > 0) stateRecords++;
      if (this.#hasWoundRecord(group)) stateRecords++;
    }
    return {
      number,
      predecessor: predecessor?.file.number ?? 0,
      oldest,
      predecessorFirstSeq: predecessor?.firstSeq ?? 0,
      predecessorLastSeq: this.#appendSeq,
      streamCrc: this.#streamCrc,
      bootId: this.#bootId,
      stateRecords,
    };
  }

  #logStart(seq: number, group: GroupLog): LogRecord {
    const { start, startResets: resets, startConfiguration: configuration } = group;
    return logStartRecord(seq, group.group, { start, resets, configuration });
  }

  /** Takes over a write whose records are visible. Returns the position after its records. */
  #remember(write: GroupWrite, records: readonly LogRecord[], from: number): number {
    const group = this.#groups.get(write.group) ?? this.#newGroup(write.group);
    this.#groups.set(write.group, group);
    let at = from;
    if (write.registryIndex !== undefined) {
      group.registryIndex = write.registryIndex;
      this.#tombstones.delete(write.group);
      this.#dirtyGroups.add(group);
      at += 1;
    }
    if (write.hardState !== undefined) {
      group.hardState = write.hardState;
      this.#dirtyGroups.add(group);
      at += 1;
    }
    if (write.restore !== undefined) {
      group.restore(write.restore, this.#dropped);
      this.#dirtyGroups.add(group);
      at += 2;
    }
    for (const batch of write.append) {
      group.append(batch, records[at]!.seq, this.#dropped);
      const current = this.#segments.current!;
      current.liveBatches += 1;
      current.liveBytes += batch.bytes.byteLength;
      at += 1;
    }
    if (write.append.length > 0) this.#dirtyGroups.add(group);
    return at;
  }

  /** The stream has grown by these records, all in the current segment. */
  #appended(records: readonly LogRecord[]): void {
    for (const { seq, kind, group, data } of records) {
      this.#streamCrc = nextStreamCrc(this.#streamCrc, seq, kind, group, data);
    }
    this.#appendSeq += records.length;
    must(records.at(-1)!.seq === this.#appendSeq, "sequence numbers have a gap");
    this.#segments.grown(this.#appendSeq);
  }

  /**
   * Makes durable what was appended before the call, in every segment that needs it, oldest first [21]; then renews the watermark and
   * calls `done`. False where there is nothing to sync or a round is under way.
   */
  sync(done: (syncedSeq: number) => void): boolean {
    must(this.#recovered && !this.#closed, "sync outside recover … close");
    if (this.#syncing || !this.#segments.hasDirty) return false;
    const seq = this.#appendSeq;
    const streamCrc = this.#streamCrc;
    const groups = this.#dirtyGroups;
    for (const group of groups) group.beginRound();
    this.#dirtyGroups = new Set();
    const removed = this.#dirtyTombstones;
    this.#dirtyTombstones = new Set();
    this.#syncing = true;
    this.#disk.sync(this.#segments.takeDirty(), () => {
      if (this.#closed) return;
      must(seq >= this.#syncedSeq, "a sync round went back");
      this.#syncing = false;
      this.#syncedSeq = seq;
      for (const group of removed) this.#watermark.delete(group);
      for (const group of groups) {
        if (this.#groups.get(group.group) !== group) continue;
        const { roundTerm: term, roundIndex: index, roundHardTerm: hardTerm, wound } = group;
        const durable = { term, index, hardTerm };
        this.#watermark.set(group.group, wound === undefined ? durable : gravest(wound, durable));
      }
      this.#disk.writeWatermark(this.#watermark.bytes(seq, streamCrc));
      this.#watermarkDirty = true;
      this.#segments.retire(seq);
      done(seq);
    });
    return true;
  }

  /**
   * Whole batches from the one that spans `fromIndex` up to `toIndex`, at least one, then as many as `bytesMax` allows. Empty where
   * `fromIndex` is compacted or not there. Throws CorruptBatchError.
   */
  batches(group: number, fromIndex: number, toIndex: number, bytesMax: number): Batch[] {
    const found: Batch[] = [];
    const log = this.#groups.get(group);
    const from = log?.find(fromIndex) ?? -1;
    if (log === undefined || from < 0) return found;
    let bytes = 0;
    for (let at = from; at < log.length && log.firstIndexAt(at) <= toIndex; at++) {
      bytes += log.bytesAt(at);
      if (found.length > 0 && bytes > bytesMax) break;
      found.push(this.#readBatch(log, at));
    }
    return found;
  }

  #readBatch(log: GroupLog, position: number): Batch {
    const seq = log.seqAt(position);
    const firstIndex = log.firstIndexAt(position);
    const data = this.#read(seq);
    const batch = data === undefined ? undefined : readBatch(data, 0);
    const asWritten =
      batch !== undefined &&
      batch.group === log.group &&
      batch.firstIndex === firstIndex &&
      batch.crc === log.crcAt(position) &&
      batchIntact(batch);
    if (!asWritten) throw new CorruptBatchError(log.group, firstIndex, seq);
    return batch;
  }

  #read(seq: number): Uint8Array | undefined {
    return this.#segments.of(seq).file.read(seq);
  }

  /**
   * Everything up to and including `start.index` may go; `configuration` is the one in force there. Written with the next append or
   * tick. A start that the log does not contain, as after a snapshot, voids the whole log of before.
   */
  compactTo(group: number, start: LogStart, configuration: Uint8Array): void {
    must(this.#recovered && !this.#closed, "compactTo outside recover … close");
    const log = this.#groups.get(group) ?? this.#newGroup(group);
    must(start.index >= log.start.index, `group ${group}: the log start would go back`);
    if (start.index === log.start.index && start.crc === log.start.crc) return;
    this.#groups.set(group, log);
    log.compactTo(start, configuration, this.#dropped);
    this.#movedStarts.add(log);
  }

  /**
   * The batch at `firstIndex` is damaged: it and all that follow are void, and the group is wounded. What is returned is what it has to come
   * to. Written with the next append or tick, so before anything that comes in the place of what was lost.
   */
  wound(group: number, firstIndex: number): Wound {
    must(this.#recovered && !this.#closed, "wound outside recover … close");
    const log = this.#groups.get(group);
    must(log !== undefined && log.find(firstIndex) >= 0, `group ${group}: no batch ${firstIndex}`);
    const wound = this.#wound(log);
    log.cutFrom(firstIndex, this.#dropped);
    return wound;
  }

  /**
   * The state that the log goes on from is lost: a log alone is of no use, and the group is wounded. What is returned is what it has to come to.
   * `empty` follows.
   */
  woundState(group: number): Wound {
    must(this.#recovered && !this.#closed, "wound outside recover … close");
    const log = this.#groups.get(group);
    must(log !== undefined, `no group ${group}`);
    return this.#wound(log);
  }

  #wound(log: GroupLog): Wound {
    const { lastTerm: term, lastIndex: index, hardState } = log;
    const lost = { term, index, hardTerm: hardState.term };
    log.wound = log.wound === undefined ? lost : gravest(log.wound, lost);
    this.#movedWounds.add(log);
    return log.wound;
  }

  /** Nothing of a wounded group's log is of use: from now on it begins where a new one does. Written with the next append or tick. */
  empty(group: number): LogStart {
    const log = this.#groups.get(group);
    must(log?.wound !== undefined, `group ${group} is not wounded`);
    log.void(this.#newGroup(group).start, this.#dropped);
    this.#movedStarts.add(log);
    return log.start;
  }

  /** All that the group had lost is there again, durably. Written with the next append or tick. */
  heal(group: number): void {
    const log = this.#groups.get(group);
    must(log?.wound !== undefined, `group ${group} is not wounded`);
    log.wound = undefined;
    this.#movedWounds.add(log);
  }

  /**
   * The group leaves this node, as the registry says at that index of its log. Nothing of it is here any more, and its tombstone is written with the
   * next append or tick: the replica's files may go once that is durable.
   */
  remove(group: number, registryIndex: number): void {
    must(this.#recovered && !this.#closed, "remove outside recover … close");
    const log = this.#groups.get(group);
    must(log !== undefined, `no group ${group}`);
    must(registryIndex > log.registryIndex, `group ${group}: what removes it is not newer`);
    log.void(this.#newGroup(group).start, this.#dropped);
    this.#groups.delete(group);
    this.#dirtyGroups.delete(log);
    this.#movedStarts.delete(log);
    this.#movedWounds.delete(log);
    this.#tombstones.set(group, registryIndex);
    this.#movedTombstones.add(group);
  }

  /** By group, the index of the registry at which it was removed. */
  get tombstones(): ReadonlyMap<number, number> {
    return this.#tombstones;
  }

  /** The registry's own state is durable up to this index of its log: it will never again say what was so before. */
  forgetTombstones(registryIndex: number): void {
    for (const [group, removedAt] of this.#tombstones) {
      const isWritten = !this.#movedTombstones.has(group);
      if (isWritten && removedAt <= registryIndex) this.#tombstones.delete(group);
    }
  }

  /**
   * The segment of this number is damaged, in whatever part of it: what is live in it, and in those before it, is copied forward by the next ticks, and
   * they go. A live batch that is damaged itself is met on the way, as always. False where there is no such segment any more.
   */
  evacuate(number: number): boolean {
    if (!this.#segments.list.some(({ file }) => file.number === number)) return false;
    this.#evacuating = Math.max(this.#evacuating, number);
    return true;
  }

  /** A damaged segment is still on its way out. */
  get evacuating(): boolean {
    return this.#evacuating > 0;
  }

  /**
   * Housekeeping, some milliseconds at most; `nowMs` is monotonic. May append, so the caller looks whether there is something to sync
   * afterwards. Throws CorruptBatchError where what it would copy is damaged and can be healed.
   */
  tick(nowMs: number): void {
    if (!this.#recovered || this.#closed) return;
    try {
      const moved = this.#movedStarts.size + this.#movedWounds.size + this.#movedTombstones.size;
      if (moved > 0) this.#write([]);
      if (this.#evacuating > 0) this.#evacuate();
      this.#copyForward();
    } catch (error) {
      // Neither is urgent, and both are tried again: a full disk is for `append` to report.
      if (!(error instanceof DiskFullError)) throw error;
    }
    this.#segments.prepareNext();
    const isDue = nowMs - this.#watermarkSyncedMs >= this.#limits.watermarkSyncMs;
    if (this.#watermarkDirty && isDue && !this.#watermarkSyncing) {
      this.#watermarkDirty = false;
      this.#watermarkSyncing = true;
      this.#watermarkSyncedMs = nowMs;
      this.#disk.syncWatermark(() => {
        this.#watermarkSyncing = false;
      });
    }
  }

  /** Leaves the disk as it is. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#disk.close();
  }

  readonly #dropped = (seq: number, bytes: number): void => {
    const segment = this.#segments.of(seq);
    must(segment.liveBatches > 0, "a segment has fewer live batches than none");
    segment.liveBatches -= 1;
    segment.liveBytes -= bytes;
  };

  /**
   * Copies a bounded run of live batches out of the oldest segment when more than half of the disk in use is dead. Where all groups
   * move on, as with one group, the dead part stays below that and nothing is ever copied.
   */
  #copyForward(): void {
    this.#forwarding ??= this.#forwardOldest();
    const forwarding = this.#forwarding;
    if (forwarding === undefined) return;
    if (this.#segments.isFull) this.#write([]);
    const records: LogRecord[] = [];
    const copied: { group: GroupLog; position: number }[] = [];
    let budget = this.#limits.appendBytesMax;
    let { next } = forwarding;
    for (; next < forwarding.groups.length && budget > 0; next++) {
      const group = forwarding.groups[next]!;
      const position = group.find(forwarding.firstIndexes[next]!);
      if (position < 0 || group.seqAt(position) > forwarding.segment.lastSeq) continue;
      const data = this.#forwardable(group, position);
      if (data === undefined) {
        this.#unforwardable = forwarding.segment.file.number;
        continue;
      }
      budget -= data.byteLength;
      const seq = this.#appendSeq + records.length + 1;
      records.push({ seq, kind: RecordKind.rewrite, group: group.group, data });
      copied.push({ group, position });
    }
    if (records.length > 0) {
      const current = this.#segments.current!;
      current.file.append(records);
      this.#appended(records);
      current.liveBatches += records.length;
      for (const { data } of records) {
        current.liveBytes += data.byteLength;
        forwarding.segment.liveBytes -= data.byteLength;
      }
      copied.forEach(({ group, position }, at) => {
        group.relocate(position, records[at]!.seq);
      });
      forwarding.segment.liveBatches -= records.length;
      must(forwarding.segment.liveBatches >= 0, "more batches were copied than were live");
    }
    forwarding.next = next;
    if (next === forwarding.groups.length) this.#forwarding = undefined;
  }

  /**
   * A segment behind the damaged one takes the copies; once nothing in that is live any more, another one begins, which names only what is needed
   * then, and what is older goes when it is durable.
   */
  #evacuate(): void {
    const { list, current, oldestNeeded } = this.#segments;
    const leaving = list.filter(({ file }) => file.number <= this.#evacuating);
    if (leaving.length === 0 || this.#unforwardable >= this.#evacuating) {
      this.#evacuating = 0;
      return;
    }
    const isEmpty = leaving.every(({ liveBatches }) => liveBatches === 0);
    const isNamed = oldestNeeded <= this.#evacuating;
    if (current!.file.number > this.#evacuating && !(isEmpty && isNamed)) return;
    this.#segments.rotate();
    this.#write([]);
  }

  #forwardable(group: GroupLog, position: number): Uint8Array | undefined {
    try {
      return this.#readBatch(group, position).bytes;
    } catch (error) {
      if (!(error instanceof CorruptBatchError) || this.#canHeal) throw error;
      this.#onCorrupt(error.message);
      return undefined;
    }
  }

  /** What is live in it is little, and all of groups that have written nothing since the newest two segments began. */
  #isForgotten(oldest: Segment): boolean {
    const previous = this.#segments.list.at(-2);
    if (previous === undefined || previous === oldest || previous === this.#lookedAt) return false;
    if (oldest.liveBytes > this.#limits.segmentBytes * littleLive) return false;
    this.#lookedAt = previous;
    for (const group of this.#groups.values()) {
      if (group.lastSeq < previous.firstSeq) continue;
      // It moves on, and leaves the segment by itself.
      if (group.seqAt(0) <= oldest.lastSeq) return false;
    }
    return true;
  }

  #forwardOldest(): Forwarding | undefined {
    const segments = this.#segments.list;
    const oldest = segments.findIndex(({ liveBatches }) => liveBatches > 0);
    if (oldest < 0 || oldest >= segments.length - 1) return undefined;
    let inUse = 0;
    for (let at = oldest; at < segments.length; at++) inUse += segments[at]!.file.bytes;
    const live = this.liveBytes;
    const segment = segments[oldest]!;
    const { number } = segment.file;
    const isLeaving = number <= this.#evacuating;
    // Not into one that is to go as well.
    if (isLeaving && this.#segments.current!.file.number <= this.#evacuating) return undefined;
    const isHalfDead = inUse > 2 * (live + this.#limits.segmentBytes);
    if (!isLeaving && !isHalfDead && !this.#isForgotten(segment)) return undefined;
    if (number <= this.#unforwardable) return undefined;
    const groups: GroupLog[] = [];
    const firstIndexes: number[] = [];
    for (const group of this.#groups.values()) {
      for (let at = 0; at < group.length; at++) {
        const seq = group.seqAt(at);
        if (seq < segment.firstSeq || seq > segment.lastSeq) continue;
        groups.push(group);
        firstIndexes.push(group.firstIndexAt(at));
      }
    }
    return { segment, groups, firstIndexes, next: 0 };
  }
}

/** A segment of which no more than this part is live is emptied at little cost. */
const littleLive = 1 / 8;

function recordsOf({ hardState, restore, append, registryIndex }: GroupWrite): number {
  let records = append.length;
  if (registryIndex !== undefined) records += 1;
  if (hardState !== undefined) records += 1;
  if (restore !== undefined) records += 2;
  return records;
}

/** Throws where a write would break the log; nothing has been changed then. */
function checkWrite(log: GroupLog, { group, hardState, restore, append }: GroupWrite): void {
  if (hardState !== undefined) {
    must(hardState.term >= log.hardState.term, `group ${group}: the term would go back`);
    const sameVote =
      hardState.term > log.hardState.term ||
      log.hardState.votedFor === 0 ||
      hardState.votedFor === log.hardState.votedFor;
    must(sameVote, `group ${group}: the vote of term ${hardState.term} would change`);
  }
  if (restore !== undefined) {
    must(restore.start.index > log.start.index, `group ${group}: a snapshot goes back`);
    must(
      restore.machineGeneration > log.machineGeneration,
      `group ${group}: the name of a machine's file is used again`,
    );
  }
  const first = append[0];
  if (first === undefined) return;
  const follows = restore === undefined ? log : new GroupLog(group, restore.start);
  const refusal = follows.refusal(first);
  must(refusal === undefined, `group ${group}, batch at ${first.firstIndex}: ${refusal}`);
  let before = first;
  for (const batch of append) {
    const isSpan = batch.count >= 1 && Number.isSafeInteger(lastIndexOf(batch));
    must(isSpan, `group ${group}, batch at ${batch.firstIndex}: no safe span`);
    if (batch === first) continue;
    const continues =
      batch.group === group &&
      batch.firstIndex === before.firstIndex + before.count &&
      batch.prevCrc === before.crc;
    must(
      continues,
      `group ${group}, batch at ${batch.firstIndex}: does not continue the one before`,
    );
    before = batch;
  }
}

/**
 * Rebuilds the log from what a crash left of its segments [26]. Reads only: whoever calls decides what to drop once it is known that
 * nothing durable is missing, so a refused start has changed nothing.
 *
 * The newest segment whose chain is whole wins: back to the `oldest` segment that it names, each must be there and must hold the
 * stream up to where its successor took over. A newest segment whose chain is not whole was never acknowledged: a sync round covers the
 * older segments as well and completes as a whole, so had anything in it been durable for sure, the chain would be. Segments below
 * `oldest` are half retired, those beside the chain are leftovers of a start that never completed a sync.
 *
 * Where something durable is missing all the same, a node that has others to fetch it from starts with the longest prefix of the stream
 * that is whole, which may be empty, and every group is wounded [22]: its log may be short, and so may its hard state. Without others
 * the start is refused.
 *
 * The two newest segments of the chain are read and verified in full, which gives hard state, log starts and configurations, for each
 * segment begins with those of all groups. Of older ones only headers are read; a body is verified when it is served.
 */
import { FatalError } from "../fatal.ts";
import {
  BatchKind,
  batchIntact,
  readBatch,
  readSafe,
  type Batch,
  type BatchInfo,
  type HardState,
  type LogStart,
  type Wound,
} from "../wire/batch.ts";
import { RecordKind, type Disk, type LogRecord, type SegmentFile } from "./disk.ts";
import { noHardState } from "./group-log.ts";
import {
  nextStreamCrc,
  readHardState,
  readLogStart,
  readMachineFile,
  readReplica,
  readSegmentStart,
  readWound,
  recordHeadBytes,
  recordIntact,
  type SegmentStart,
} from "./records.ts";
import { gravest, isBelow, readWatermark, type Watermark } from "./watermark.ts";

export interface RecoveredSegment {
  readonly file: SegmentFile;
  readonly firstSeq: number;
  /** What the segment holds beyond it is void. */
  readonly lastSeq: number;
}

export interface RecoveredBatch extends BatchInfo {
  readonly kind: number;
  readonly prevCrc: number;
  readonly seq: number;
}

export interface ReplayedGroup {
  hardState: HardState;
  start: LogStart;
  startConfiguration: Uint8Array;
  machineGeneration: number;
  /** Of the registry's entry that made this replica; 0 = none did. */
  registryIndex: number;
  /** Ascending, contiguous once the whole stream has been replayed. */
  batches: RecoveredBatch[];
  wound: Wound | undefined;
  /** From here on the batches were dropped, which the stream does not say yet; 0 = none. */
  cut: number;
}

export interface RecoveredLog {
  /** The chain, oldest first. */
  readonly segments: readonly RecoveredSegment[];
  /** No part of the log: to be retired once the new segment is durable. */
  readonly leftovers: readonly SegmentFile[];
  readonly lastSeq: number;
  readonly streamCrc: number;
  readonly groups: ReadonlyMap<number, ReplayedGroup>;
  /** By group, the index of the registry at which it was removed. */
  readonly tombstones: ReadonlyMap<number, number>;
  /** Damage that does not stop the start, for the operator's eyes. */
  readonly damage: readonly string[];
}

interface Link {
  readonly file: SegmentFile;
  readonly firstSeq: number;
  readonly start: SegmentStart;
}

/** Why a segment cannot be the newest one. `damaged`: no crash explains it. */
interface Fault {
  readonly damaged: boolean;
  readonly text: string;
}

const lost = (text: string): Fault => ({ damaged: false, text });
const damaged = (text: string): Fault => ({ damaged: true, text });

/** `canHeal`: what was known durable and is missing makes its groups wounded; else it is refused. */
export function recoverLog(disk: Disk, seedCrc: number, canHeal: boolean): RecoveredLog {
  const watermark = intactWatermark(disk.readWatermark());
  const files = disk.segments;
  const faults: Fault[] = [];
  for (let newest = files.length - 1; newest >= 0; newest--) {
    const chain = chainOf(files, newest);
    if (!Array.isArray(chain)) {
      faults.push(chain);
      continue;
    }
    const replay = new Replay(seedCrc, watermark);
    const broken = replay.run(chain);
    if (broken !== undefined) {
      faults.push(broken);
      continue;
    }
    if (replay.tailFault !== undefined) faults.push(replay.tailFault);
    const loss = lossOf(watermark, replay, faults);
    if (loss !== undefined) replay.wound(loss, canHeal);
    replay.checkGroups(loss !== undefined);
    const inChain = new Set(replay.segments.map((segment) => segment.file));
    return {
      segments: replay.segments,
      leftovers: files.filter((file) => !inChain.has(file)),
      lastSeq: replay.lastSeq,
      streamCrc: replay.streamCrc,
      groups: replay.groups,
      tombstones: replay.tombstones,
      damage: damageOf(faults, loss),
    };
  }
  const nothing = new Replay(seedCrc, watermark);
  const loss = lossOf(watermark, nothing, faults);
  if (loss !== undefined) nothing.wound(loss, canHeal);
  return {
    segments: [],
    leftovers: files,
    lastSeq: 0,
    streamCrc: nothing.streamCrc,
    groups: nothing.groups,
    tombstones: nothing.tombstones,
    damage: damageOf(faults, loss),
  };
}

/** The loss names the faults that led to it. */
function damageOf(faults: readonly Fault[], loss: Fault | undefined): readonly string[] {
  if (loss !== undefined) return [loss.text];
  return faults.filter((fault) => fault.damaged).map((fault) => fault.text);
}

/** The segments from the oldest that `files[newest]` needs up to it, or why they are not all there. */
function chainOf(files: readonly SegmentFile[], newest: number): Link[] | Fault {
  const tip = files[newest]!;
  let first: LogRecord | undefined;
  tip.scan((record) => {
    first ??= record;
  }, recordHeadBytes);
  if (first === undefined) return lost(`segment ${tip.number} is empty`);
  const tipStart = readSegmentStart(first);
  if (tipStart === undefined || tipStart.number !== tip.number) {
    return damaged(`segment ${tip.number} does not begin with a segment start of its own`);
  }
  const links: Link[] = [{ file: tip, firstSeq: first.seq, start: tipStart }];
  let start = tipStart;
  for (let at = newest - 1; start.number > tipStart.oldest; at--) {
    while (at >= 0 && files[at]!.number > start.predecessor) at--;
    const file = at >= 0 ? files[at]! : undefined;
    if (file === undefined || file.number !== start.predecessor) {
      return lost(`segment ${start.predecessor}, which ${start.number} continues, is missing`);
    }
    const seq = start.predecessorFirstSeq;
    const data = file.read(seq);
    if (data === undefined) return lost(`segment ${file.number} lacks its first record, ${seq}`);
    const record: LogRecord = { seq, kind: RecordKind.segmentStart, group: 0, data };
    const found = readSegmentStart(record);
    if (found === undefined || found.number !== file.number || found.number >= start.number) {
      return damaged(`segment ${file.number} does not begin with a segment start of its own`);
    }
    links.push({ file, firstSeq: seq, start: found });
    start = found;
  }
  return links.reverse();
}

/** Follows the stream through a chain of segments and keeps what is live at its end. */
class Replay {
  readonly segments: RecoveredSegment[] = [];
  readonly groups = new Map<number, ReplayedGroup>();
  readonly tombstones = new Map<number, number>();
  lastSeq = 0;
  streamCrc: number;
  /** Where the newest segment's records stopped making sense; what follows is void. */
  tailFault: Fault | undefined;
  /** The stream had another crc where the watermark points. */
  watermarkDiffers = false;
  readonly #seedCrc: number;
  readonly #watermark: Watermark | undefined;

  constructor(seedCrc: number, watermark: Watermark | undefined) {
    this.#seedCrc = seedCrc;
    this.#watermark = watermark;
    this.streamCrc = seedCrc;
  }

  run(chain: readonly Link[]): Fault | undefined {
    this.lastSeq = chain[0]!.firstSeq - 1;
    this.streamCrc = chain[0]!.start.streamCrc;
    this.#compareWithWatermark();
    for (let at = 0; at < chain.length; at++) {
      const link = chain[at]!;
      const successor = chain[at + 1]?.start;
      const stop = successor?.predecessorLastSeq ?? Number.MAX_SAFE_INTEGER;
      const fault = this.#segment(link, stop, at >= chain.length - 2);
      if (successor === undefined) {
        this.tailFault = fault;
        const stateEnds = link.firstSeq + link.start.stateRecords;
        if (this.lastSeq < stateEnds) {
          return fault ?? lost(`segment ${link.file.number} ends within its first transaction`);
        }
      } else {
        if (fault !== undefined) return fault;
        if (this.lastSeq < stop) {
          return lost(
            `segment ${link.file.number} ends at record ${this.lastSeq}, ${successor.number} continues after ${stop}`,
          );
        }
        if (this.streamCrc !== successor.streamCrc) {
          return damaged(
            `the stream crc of segment ${link.file.number} is not what ${successor.number} continues`,
          );
        }
      }
      this.segments.push({ file: link.file, firstSeq: link.firstSeq, lastSeq: this.lastSeq });
    }
    return undefined;
  }

  #segment(link: Link, stop: number, full: boolean): Fault | undefined {
    let fault: Fault | undefined;
    const name = `segment ${link.file.number}`;
    const visit = (record: LogRecord, size: number): void => {
      if (fault !== undefined || record.seq > stop || record.seq < link.firstSeq) return;
      if (record.seq !== this.lastSeq + 1) {
        fault = damaged(`${name} lacks record ${this.lastSeq + 1}`);
      } else if ((record.kind === RecordKind.segmentStart) !== (record.seq === link.firstSeq)) {
        fault = damaged(`${name} has a segment start out of place at record ${record.seq}`);
      } else if (!this.#apply(record, size, full)) {
        fault = damaged(`record ${record.seq} in ${name} fails its check`);
      } else {
        this.lastSeq = record.seq;
        this.#compareWithWatermark();
      }
    };
    if (full) link.file.scan(visit);
    else link.file.scan(visit, recordHeadBytes);
    return fault;
  }

  /** False, and nothing changed, where the record is not what was written. */
  #apply(record: LogRecord, size: number, full: boolean): boolean {
    const { seq, kind, data } = record;
    const streamCrc = nextStreamCrc(this.streamCrc, seq, kind, record.group, data);
    const whole = size === data.byteLength;
    if (full && !whole) return false;
    switch (kind) {
      case RecordKind.batch:
      case RecordKind.rewrite:
        if (!this.#applyBatch(record, size, full)) return false;
        break;
      case RecordKind.segmentStart:
        if (whole && !recordIntact(record)) return false;
        break;
      case RecordKind.hardState: {
        const hardState = readHardState(data);
        if (hardState === undefined || !recordIntact(record)) return false;
        this.#group(record.group).hardState = hardState;
        break;
      }
      case RecordKind.wound: {
        const wound = readWound(data);
        if (wound === undefined || !recordIntact(record)) return false;
        const group = this.#group(record.group);
        group.wound = wound.wound;
        if (wound.cut > 0) dropFrom(group.batches, wound.cut);
        break;
      }
      case RecordKind.logStart: {
        const logStart = readLogStart(data);
        if (logStart === undefined || (whole && !recordIntact(record))) return false;
        const group = this.#group(record.group);
        group.start = logStart.start;
        group.startConfiguration = logStart.configuration;
        const kept = logStart.resets
          ? group.batches.length
          : group.batches.findIndex((batch) => batch.firstIndex > logStart.start.index);
        group.batches.splice(0, kept < 0 ? group.batches.length : kept);
        break;
      }
      case RecordKind.machineFile: {
        const generation = readMachineFile(data);
        if (generation === undefined || !recordIntact(record)) return false;
        this.#group(record.group).machineGeneration = generation;
        break;
      }
      case RecordKind.replica: {
        const replica = readReplica(data);
        if (replica === undefined || !recordIntact(record)) return false;
        const { removed, registryIndex } = replica;
        if (removed) {
          this.groups.delete(record.group);
          this.tombstones.set(record.group, registryIndex);
        } else {
          this.tombstones.delete(record.group);
          this.#group(record.group).registryIndex = registryIndex;
        }
        break;
      }
      default:
        return false;
    }
    this.streamCrc = streamCrc;
    return true;
  }

  #applyBatch(record: LogRecord, size: number, full: boolean): boolean {
    const batch = readBatchHead(record, size);
    if (batch === undefined) return false;
    if (full) {
      const whole = readBatch(record.data, 0);
      if (whole === undefined || !batchIntact(whole)) return false;
    }
    const { batches } = this.#group(record.group);
    if (record.kind === RecordKind.batch) {
      dropFrom(batches, batch.firstIndex);
      batches.push(batch);
      return true;
    }
    // A copy of a live batch: it takes the original's place, or the gap that the original's retired segment has left.
    const at = lowerBound(batches, batch.firstIndex);
    const replaces = batches[at]?.firstIndex === batch.firstIndex ? 1 : 0;
    batches.splice(at, replaces, batch);
    return true;
  }

  #group(id: number): ReplayedGroup {
    let group = this.groups.get(id);
    if (group === undefined) {
      group = {
        hardState: noHardState,
        start: { index: 0, term: 0, crc: this.#seedCrc, timeMs: 0 },
        startConfiguration: new Uint8Array(0),
        machineGeneration: 0,
        registryIndex: 0,
        batches: [],
        wound: undefined,
        cut: 0,
      };
      this.groups.set(id, group);
    }
    return group;
  }

  #compareWithWatermark(): void {
    const watermark = this.#watermark;
    if (watermark?.seq === this.lastSeq && watermark.streamCrc !== this.streamCrc) {
      this.watermarkDiffers = true;
    }
  }

  /** Nobody knows of which group the lost records were: all are to come again to where the watermark has them. */
  wound(loss: Fault, canHeal: boolean): void {
    if (!canHeal) {
      throw new FatalError(
        loss.damaged ? "corrupt_data" : "below_watermark",
        `${loss.text}. This node acknowledged data that it no longer has, and there is no other member to fetch it from. Nothing was changed. Bring the folder's files back whole, or restore a backup into a new cluster.`,
      );
    }
    for (const [id, need] of this.#watermark!.groups) {
      const group = this.#group(id);
      group.wound = group.wound === undefined ? need : gravest(group.wound, need);
    }
  }

  /**
   * The stream is whole, so the groups' chains are too; what contradicts that must not be served. In a stream that is known to be another than it
   * was, an old batch may lie in a newer one's place: the log ends where it does not chain.
   */
  checkGroups(wounded: boolean): void {
    for (const [id, group] of this.groups) {
      let { index, crc } = group.start;
      for (const [at, batch] of group.batches.entries()) {
        if (batch.firstIndex !== index + 1 || batch.prevCrc !== crc) {
          if (wounded) {
            group.cut = index + 1;
            group.batches.splice(at);
            break;
          }
          throw new FatalError(
            "corrupt_data",
            `the log of group ${id} does not continue at index ${index + 1}: the batch at ${batch.firstIndex}, record ${batch.seq}, does not chain. ${advice}`,
          );
        }
        index = batch.firstIndex + batch.count - 1;
        crc = batch.crc;
      }
    }
  }
}

function dropFrom(batches: RecoveredBatch[], index: number): void {
  while (batches.length > 0 && batches.at(-1)!.firstIndex >= index) batches.pop();
}

/** Position of the first batch at or after `index`. */
function lowerBound(batches: readonly RecoveredBatch[], index: number): number {
  let low = 0;
  let high = batches.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (batches[middle]!.firstIndex < index) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The header alone; its crc is checked where the body is there too. */
function readBatchHead(record: LogRecord, size: number): RecoveredBatch | undefined {
  const { data, seq } = record;
  if (data.byteLength < recordHeadBytes) return undefined;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const firstIndex = readSafe(view, 8);
  const term = readSafe(view, 16);
  const timeMs = readSafe(view, 24);
  const count = view.getUint32(32, true);
  const wellFormed =
    view.getUint32(4, true) === record.group &&
    firstIndex >= 1 &&
    count >= 1 &&
    term >= 0 &&
    timeMs >= 0 &&
    recordHeadBytes + view.getUint32(36, true) === size;
  if (!wellFormed) return undefined;
  return {
    firstIndex,
    count,
    term,
    timeMs,
    bytes: size,
    crc: view.getUint32(44, true),
    kind: view.getUint8(1),
    prevCrc: view.getUint32(40, true),
    seq,
  };
}

/** The live configuration batches of a group, in order, with their bodies; up to the first that is broken, where `canHeal`. */
export function configurationBatches(
  batches: readonly RecoveredBatch[],
  read: (seq: number) => Uint8Array | undefined,
  canHeal: boolean,
): { readonly found: readonly Batch[]; readonly brokenAt: number | undefined } {
  const found: Batch[] = [];
  for (const { kind, seq, crc, firstIndex } of batches) {
    if (kind !== BatchKind.configuration) continue;
    const data = read(seq);
    const batch = data === undefined ? undefined : readBatch(data, 0);
    if (batch === undefined || batch.crc !== crc || !batchIntact(batch)) {
      if (canHeal) return { found, brokenAt: firstIndex };
      throw new FatalError(
        "corrupt_data",
        `the configuration at index ${firstIndex}, record ${seq}, fails its check. ${advice}`,
      );
    }
    found.push(batch);
  }
  return { found, brokenAt: undefined };
}

const advice =
  "Nothing was changed. If the folder's files can be brought back whole, do so; otherwise take this node out of the cluster and add it again with an empty folder and a new node id. The other nodes hold the data.";

function intactWatermark(bytes: Uint8Array | undefined): Watermark | undefined {
  if (bytes === undefined) return undefined;
  const watermark = readWatermark(bytes);
  if (watermark === undefined) {
    throw new FatalError(
      "corrupt_data",
      `the watermark, which says how far the log was durable, is damaged. ${advice}`,
    );
  }
  return watermark;
}

/** What is missing of that which was known durable. */
function lossOf(
  watermark: Watermark | undefined,
  replay: Replay,
  faults: readonly Fault[],
): Fault | undefined {
  if (watermark === undefined) return undefined;
  const short = replay.lastSeq < watermark.seq;
  if (!short && !replay.watermarkDiffers) return undefined;
  const lines = [
    short
      ? `the log ends at record ${replay.lastSeq}, but was known durable up to record ${watermark.seq}`
      : `record ${watermark.seq} of the log, or one before it, is not what was known durable there`,
  ];
  for (const [id, need] of watermark.groups) {
    const group = replay.groups.get(id);
    const last = group?.batches.at(-1);
    const have = {
      term: last?.term ?? group?.start.term ?? 0,
      index: last === undefined ? (group?.start.index ?? 0) : last.firstIndex + last.count - 1,
    };
    if (!isBelow(have, need)) continue;
    lines.push(
      `group ${id}: have index ${have.index} of term ${have.term}, need index ${need.index} of term ${need.term}`,
    );
  }
  lines.push(...faults.map((fault) => fault.text));
  const isDamage = !short || faults.some((fault) => fault.damaged);
  return { damaged: isDamage, text: lines.join("; ") };
}

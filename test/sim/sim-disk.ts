/**
 * The simulated disk behind the log-store: a volatile and a durable layer per segment, deterministic from the source of chance and the
 * scheduler handed in. Keeps exactly the contract of src/storage/disk.ts and uses all the freedom that it leaves: after a crash each
 * segment holds, independently of the others, some prefix of its transactions that covers what was synced; a created segment that no
 * sync covered may be gone, a retired one may be back; the watermark is the durable or the newest one.
 *
 * Records are kept by reference: their data must never be changed once appended. Only injected damage copies.
 */
import {
  DiskFullError,
  watermarkBytesMax,
  type Disk,
  type LogRecord,
  type SegmentFile,
} from "../../src/storage/disk.ts";

/**
 * What a crash leaves of what was not synced. `all`: the process died, the machine lives. `none`, `prefix`: power cut; every segment
 * draws its own prefix of transactions, the torn one being absent as a whole.
 */
export type CrashMode = "all" | "none" | "prefix";

export interface SimDiskOptions {
  /** In [0, 1). */
  readonly random: () => number;
  readonly schedule: (delayMs: number, run: () => void) => void;
  /** Time that a sync round takes; each one draws from the range, long ones seldom. */
  readonly syncMsMin?: number;
  readonly syncMsMax?: number;
  /** Bytes of all segments together beyond which appends are refused. */
  readonly bytesMax?: number;
  /** Asked when a sync ends: one that fails never reports back, as the process ends before. */
  readonly syncFails?: () => boolean;
}

/** What a record adds to the size of a segment beside its data. */
const recordOverheadBytes = 32;

interface SegmentState {
  readonly number: number;
  readonly records: readonly LogRecord[];
}

interface DiskState {
  readonly segments: readonly SegmentState[];
  readonly watermark: Uint8Array | undefined;
}

class SimSegment implements SegmentFile {
  readonly number: number;
  readonly growing: boolean;
  bytes = 0;
  readonly records: LogRecord[];
  /** How many records there were after each transaction that is not known durable. */
  pendingEnds: number[] = [];
  durableRecords: number;
  /** Its directory entry survives a power cut. */
  durable: boolean;
  retired = false;
  readonly #disk: SimDisk;

  constructor(disk: SimDisk, number: number, records: readonly LogRecord[], durable: boolean) {
    this.#disk = disk;
    this.number = number;
    this.growing = !durable;
    this.records = [...records];
    this.durableRecords = durable ? records.length : 0;
    this.durable = durable;
    for (const { data } of records) this.bytes += data.byteLength + recordOverheadBytes;
  }

  append(records: readonly LogRecord[]): void {
    this.#disk.mustLive(this);
    let bytes = 0;
    for (const { data } of records) bytes += data.byteLength + recordOverheadBytes;
    this.#disk.takeRoom(bytes);
    for (const record of records) {
      const last = this.records.at(-1);
      if (last !== undefined && record.seq <= last.seq) {
        throw new Error(`sim-disk: record ${record.seq} is not above ${last.seq}`);
      }
      this.records.push(record);
    }
    this.bytes += bytes;
    this.pendingEnds.push(this.records.length);
  }

  read(seq: number): Uint8Array | undefined {
    this.#disk.mustLive(this);
    return this.records[this.positionOf(seq)]?.data;
  }

  scan(visit: (record: LogRecord, size: number) => void, headBytes?: number): void {
    this.#disk.mustLive(this);
    for (const record of this.records) {
      const { seq, kind, group, data } = record;
      const cut = headBytes !== undefined && data.byteLength > headBytes;
      visit(
        cut ? { seq, kind, group, data: data.subarray(0, headBytes) } : record,
        data.byteLength,
      );
    }
  }

  positionOf(seq: number): number {
    const first = this.records[0];
    if (first === undefined) return -1;
    // Almost always the numbers have no gap.
    const guess = seq - first.seq;
    if (this.records[guess]?.seq === seq) return guess;
    return this.records.findIndex((record) => record.seq === seq);
  }

  /** What was appended before a sync round began has become durable. */
  settle(records: number): void {
    this.durable = true;
    this.durableRecords = Math.max(this.durableRecords, records);
    this.pendingEnds = this.pendingEnds.filter((end) => end > this.durableRecords);
  }
}

export class SimDisk implements Disk {
  readonly #options: SimDiskOptions;
  #segments: SimSegment[];
  /** Unlinked, but a power cut may bring them back. */
  #unlinking: SimSegment[] = [];
  #prepared: { readonly number: number; segment: SimSegment | undefined } | undefined;
  #watermark: Uint8Array | undefined;
  #durableWatermark: Uint8Array | undefined;
  /** The last one written, whatever a power cut has left of it. */
  #latestWatermark: Uint8Array | undefined;
  #syncing = false;
  #dead = false;
  /** What is under way, oldest first. */
  readonly #jobs = new Set<() => void>();
  #bytes = 0;
  /** Multiplies the time of each sync; a test may change it at any time. */
  slowness = 1;
  /** Sync rounds that were completed. */
  syncs = 0;
  bytesMax: number;

  constructor(options: SimDiskOptions, state: DiskState = { segments: [], watermark: undefined }) {
    this.#options = options;
    this.bytesMax = options.bytesMax ?? Number.POSITIVE_INFINITY;
    this.#segments = state.segments.map(
      ({ number, records }) => new SimSegment(this, number, records, true),
    );
    for (const segment of this.#segments) this.#bytes += segment.bytes;
    this.#watermark = this.#durableWatermark = state.watermark;
  }

  get segments(): readonly SegmentFile[] {
    return this.#segments;
  }

  get syncing(): boolean {
    return this.#syncing;
  }

  create(number: number): SegmentFile {
    this.mustLive();
    if (this.#prepared?.number === number) {
      const { segment } = this.#prepared;
      this.#prepared = undefined;
      return this.#add(segment ?? new SimSegment(this, number, [], true));
    }
    return this.#add(new SimSegment(this, number, [], false));
  }

  prepare(number: number): void {
    this.mustLive();
    if (this.#prepared !== undefined) throw new Error("sim-disk: two segments prepared at once");
    const prepared = { number, segment: undefined as SimSegment | undefined };
    this.#prepared = prepared;
    this.#later(this.#delay(), () => {
      // The Worker has synced the empty file and its directory entry.
      prepared.segment = new SimSegment(this, number, [], true);
    });
  }

  takePrepared(number: number): SegmentFile | undefined {
    this.mustLive();
    const segment = this.#prepared?.segment;
    if (segment === undefined || segment.number !== number) return undefined;
    this.#prepared = undefined;
    return this.#add(segment);
  }

  #add(segment: SimSegment): SimSegment {
    if (this.#segments.some(({ number }) => number === segment.number)) {
      throw new Error(`sim-disk: segment ${segment.number} exists`);
    }
    this.#segments = [...this.#segments, segment].sort((a, b) => a.number - b.number);
    return segment;
  }

  retire(file: SegmentFile): void {
    const segment = this.#own(file);
    segment.retired = true;
    this.#segments = this.#segments.filter((other) => other !== segment);
    this.#bytes -= segment.bytes;
    this.#unlinking.push(segment);
    this.#later(this.#delay(), () => {
      this.#unlinking = this.#unlinking.filter((other) => other !== segment);
    });
  }

  sync(files: readonly SegmentFile[], done: () => void): void {
    this.mustLive();
    if (this.#syncing) throw new Error("sim-disk: two sync rounds at once");
    this.#syncing = true;
    const targets = files.map((file) => {
      const segment = this.#own(file);
      return { segment, records: segment.records.length };
    });
    // One after another, as the real one does: a power cut may fall between them.
    let at = 0;
    const next = (): void => {
      const target = targets[at++];
      if (target === undefined) {
        this.#syncing = false;
        this.syncs += 1;
        done();
        return;
      }
      this.#later(this.#delay(), () => {
        if (this.#syncFails()) return;
        target.segment.settle(target.records);
        next();
      });
    };
    if (targets.length === 0) this.#later(0, next);
    else next();
  }

  readWatermark(): Uint8Array | undefined {
    this.mustLive();
    return this.#watermark;
  }

  writeWatermark(bytes: Uint8Array): void {
    this.mustLive();
    if (bytes.byteLength > watermarkBytesMax) throw new Error("sim-disk: watermark too long");
    this.#watermark = this.#latestWatermark = bytes.slice();
  }

  syncWatermark(done: () => void): void {
    this.mustLive();
    const watermark = this.#watermark;
    this.#later(this.#delay(), () => {
      if (this.#syncFails()) return;
      this.#durableWatermark = watermark;
      done();
    });
  }

  close(): void {
    this.#dead = true;
  }

  /** Ends this disk, whose callbacks never run again, and returns the one that the next start finds. */
  crash(mode: CrashMode): SimDisk {
    this.#dead = true;
    const keep = (): boolean =>
      mode === "all" || (mode === "prefix" && this.#options.random() < 0.5);
    const segments: SegmentState[] = [];
    for (const segment of this.#segments) {
      if (!segment.durable && !keep()) continue;
      let records = mode === "all" ? segment.records.length : segment.durableRecords;
      if (mode === "prefix") {
        const kept = Math.floor(this.#options.random() * (segment.pendingEnds.length + 1));
        if (kept > 0) records = segment.pendingEnds[kept - 1]!;
      }
      segments.push({ number: segment.number, records: segment.records.slice(0, records) });
    }
    const prepared = this.#prepared?.segment;
    if (prepared !== undefined) segments.push({ number: prepared.number, records: [] });
    for (const segment of mode === "all" ? [] : this.#unlinking) {
      if (!segment.durable || (mode === "prefix" && keep())) continue;
      segments.push({
        number: segment.number,
        records: segment.records.slice(0, segment.durableRecords),
      });
    }
    segments.sort((a, b) => a.number - b.number);
    const watermark = keep() ? this.#watermark : this.#durableWatermark;
    const next = new SimDisk(this.#options, { segments, watermark });
    next.slowness = this.slowness;
    next.bytesMax = this.bytesMax;
    next.#latestWatermark = this.#latestWatermark;
    return next;
  }

  /** What is under way ends now, in its order. */
  hurry(): void {
    for (const job of this.#jobs) this.#options.schedule(0, () => this.#finish(job));
  }

  /** As if the power had not been cut within the time that the watermark may lag behind. */
  catchWatermarkUp(): void {
    if (this.#latestWatermark !== undefined)
      this.#watermark = this.#durableWatermark = this.#latestWatermark;
  }

  /** Bit rot: flips one bit of a record at rest, wherever it is. */
  flipBit(seq: number, bit: number): void {
    this.#replace(seq, (record) => {
      const data = record.data.slice();
      data[(bit >>> 3) % data.byteLength]! ^= 1 << (bit & 7);
      return { ...record, data };
    });
  }

  /** A misdirected write: the record at `from` also lies where `to` was. */
  misdirect(from: number, to: number): void {
    let source: LogRecord | undefined;
    this.#replace(from, (record) => (source = record));
    this.#replace(to, (record) => ({ ...source!, seq: record.seq }));
  }

  /** Rot that SQLite cannot see through: the segment silently ends before `seq`. */
  cutTail(seq: number): void {
    for (const segment of this.#segments) {
      const at = segment.positionOf(seq);
      if (at < 0) continue;
      segment.records.length = at;
      segment.durableRecords = Math.min(segment.durableRecords, at);
    }
  }

  /** A lost write: the record is missing between its neighbours. */
  loseRecord(seq: number): void {
    for (const segment of this.#segments) {
      const at = segment.positionOf(seq);
      if (at < 0) continue;
      segment.records.splice(at, 1);
      segment.durableRecords = Math.min(segment.durableRecords, segment.records.length);
    }
  }

  /** Rot in the watermark. */
  flipWatermarkBit(bit: number): void {
    if (this.#watermark === undefined) return;
    const bytes = this.#watermark.slice();
    bytes[(bit >>> 3) % bytes.byteLength]! ^= 1 << (bit & 7);
    this.#watermark = this.#durableWatermark = bytes;
  }

  #replace(seq: number, change: (record: LogRecord) => LogRecord): void {
    for (const { records } of this.#segments) {
      const at = records.findIndex((record) => record.seq === seq);
      if (at >= 0) records[at] = change(records[at]!);
    }
  }

  /** Throws where a component goes on using what it has given up. */
  mustLive(segment?: SimSegment): void {
    if (this.#dead) throw new Error("sim-disk: used after its end");
    if (segment?.retired === true)
      throw new Error(`sim-disk: segment ${segment.number} is retired`);
  }

  takeRoom(bytes: number): void {
    if (this.#bytes + bytes > this.bytesMax) throw new DiskFullError("the simulated disk is full");
    this.#bytes += bytes;
  }

  #own(file: SegmentFile): SimSegment {
    const segment = this.#segments.find((own) => own === file);
    this.mustLive(segment);
    if (segment === undefined) throw new Error(`sim-disk: segment ${file.number} is not here`);
    return segment;
  }

  #later(delayMs: number, run: () => void): void {
    const job = (): void => run();
    this.#jobs.add(job);
    this.#options.schedule(delayMs, () => this.#finish(job));
  }

  #finish(job: () => void): void {
    if (this.#jobs.delete(job) && !this.#dead) job();
  }

  #syncFails(): boolean {
    return this.#options.syncFails?.() ?? false;
  }

  #delay(): number {
    const low = this.#options.syncMsMin ?? 0.1;
    const high = this.#options.syncMsMax ?? 5;
    const draw = this.#options.random();
    // A heavy tail: the cube keeps most draws near the lower end.
    return (low + (high - low) * draw * draw * draw) * this.slowness;
  }
}

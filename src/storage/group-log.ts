/**
 * One group's log as the store knows it: where each live batch lies and how it chains, without any body. A ring of typed arrays, some
 * 36 bytes per batch, searched by index. Knows neither segments nor the disk.
 */
import type { Batch, BatchInfo, HardState, LogStart, Wound } from "../wire/batch.ts";

export const noHardState: HardState = { term: 0, votedFor: 0, commit: 0 };

/** Told of each batch that leaves the log, whether compacted or superseded. */
export type DropHandler = (seq: number, bytes: number) => void;

/** A snapshot that becomes the group's log and machine. */
export interface StoreRestore {
  readonly start: LogStart;
  /** Body of the configuration in force at `start`. */
  readonly configuration: Uint8Array;
  readonly machineGeneration: number;
}

/** A power of two. */
const capacityMin = 4;
/** Of a batch in either array. */
const fields = 3;

export class GroupLog {
  readonly group: number;
  hardState: HardState = noHardState;
  start: LogStart;
  /** Body of the configuration in force at `start`. */
  startConfiguration: Uint8Array = new Uint8Array(0);
  /** The next start record says that everything before it is void. */
  startResets = false;
  /** Which file is the state machine: 0 = the one that it made itself, else a snapshot that was taken over. */
  machineGeneration = 0;
  /** Of the registry's entry that made this replica; 0 = none did. */
  registryIndex = 0;
  /** Of live batches. */
  bytes = 0;

  /** Where the log ended when the latest sync round began, lowered by what was superseded since: durable once the round is over [D5]. */
  roundIndex: number;
  roundTerm: number;
  roundHardTerm = 0;

  /** What durable data it lost and has not got back yet [22]. */
  wound: Wound | undefined;
  /** The next wound record says that the log from here on is void; 0 = nothing of it. */
  cut = 0;

  /** Batches are at ring positions #head … #head + length - 1, modulo the capacity, which is a power of two. */
  length = 0;
  #head = 0;
  #mask = capacityMin - 1;
  /** Of each: first index, term, seq; then count, bytes, crc. Two arrays, as each has a head that a log of a few batches would take six of. */
  #numbers = new Float64Array(fields * capacityMin);
  #words = new Uint32Array(fields * capacityMin);

  constructor(group: number, start: LogStart) {
    this.group = group;
    this.start = start;
    this.roundIndex = start.index;
    this.roundTerm = start.term;
  }

  get lastIndex(): number {
    return this.length === 0 ? this.start.index : this.lastIndexAt(this.length - 1);
  }

  firstIndexAt(position: number): number {
    return this.#numbers[fields * this.#slot(position)]!;
  }

  lastIndexAt(position: number): number {
    const at = fields * this.#slot(position);
    return this.#numbers[at]! + this.#words[at]! - 1;
  }

  #slot(position: number): number {
    return (this.#head + position) & this.#mask;
  }

  /** Of its newest batch; 0 where it has none. */
  get lastSeq(): number {
    return this.length === 0 ? 0 : this.seqAt(this.length - 1);
  }

  bytesAt(position: number): number {
    return this.#words[fields * this.#slot(position) + 1]!;
  }

  crcAt(position: number): number {
    return this.#words[fields * this.#slot(position) + 2]!;
  }

  seqAt(position: number): number {
    return this.#numbers[fields * this.#slot(position) + 2]!;
  }

  /** Position of the batch that spans `index`; -1 where the log has none. */
  find(index: number): number {
    if (index <= this.start.index || index > this.lastIndex) return -1;
    let low = 0;
    let high = this.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.firstIndexAt(middle) <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Position of the batch that ends at `index`, the start being position -1; undefined where no batch ends there. */
  #positionEndingAt(index: number): number | undefined {
    if (index === this.start.index) return -1;
    const position = this.find(index);
    return position >= 0 && this.lastIndexAt(position) === index ? position : undefined;
  }

  #chainCrc(position: number): number {
    return position < 0 ? this.start.crc : this.crcAt(position);
  }

  #chainTerm(position: number): number {
    return position < 0 ? this.start.term : this.#numbers[fields * this.#slot(position) + 1]!;
  }

  /** Why this batch cannot be appended, or undefined. */
  refusal(batch: Batch): string | undefined {
    const { firstIndex } = batch;
    if (batch.group !== this.group) return `a batch of group ${batch.group}`;
    if (firstIndex <= this.start.index) return `at or below the log start ${this.start.index}`;
    if (firstIndex > this.lastIndex + 1) return `beyond the last index ${this.lastIndex}`;
    const before = this.#positionEndingAt(firstIndex - 1);
    if (before === undefined) return "within a batch of the log";
    if (this.#chainCrc(before) !== batch.prevCrc) return "its prevCrc is not the predecessor's crc";
    return undefined;
  }

  append(batch: Batch, seq: number, onDrop: DropHandler): void {
    if (batch.firstIndex <= this.lastIndex) this.#supersede(batch.firstIndex, onDrop);
    this.push(batch, batch.bytes.byteLength, seq);
  }

  push(info: Omit<BatchInfo, "bytes" | "timeMs">, bytes: number, seq: number): void {
    if (this.length > this.#mask) this.#grow();
    const at = fields * this.#slot(this.length);
    this.#numbers[at] = info.firstIndex;
    this.#numbers[at + 1] = info.term;
    this.#numbers[at + 2] = seq;
    this.#words[at] = info.count;
    this.#words[at + 1] = bytes;
    this.#words[at + 2] = info.crc;
    this.length += 1;
    this.bytes += bytes;
  }

  /** Drops everything from `firstIndex` on, a batch's first index; the round under way makes none of it durable [21]. */
  #supersede(firstIndex: number, onDrop: DropHandler): void {
    while (this.length > 0 && this.firstIndexAt(this.length - 1) >= firstIndex) this.#pop(onDrop);
    if (this.roundIndex < firstIndex) return;
    this.roundIndex = firstIndex - 1;
    this.roundTerm = this.#chainTerm(this.length - 1);
  }

  /** Moves the start. What lies above it stays if the log has exactly this start's batch; else the log begins anew there. */
  compactTo(start: LogStart, configuration: Uint8Array, onDrop: DropHandler): void {
    const position = this.#positionEndingAt(start.index);
    const matches =
      position !== undefined &&
      this.#chainCrc(position) === start.crc &&
      this.#chainTerm(position) === start.term;
    const keep = matches ? this.length - 1 - position : 0;
    while (this.length > keep) this.#shift(onDrop);
    this.start = start;
    this.startConfiguration = configuration;
    if (matches) return;
    this.startResets = true;
    this.roundIndex = this.roundTerm = 0;
  }

  /** A snapshot at `start` takes the place of the whole log. */
  restore({ start, configuration, machineGeneration }: StoreRestore, onDrop: DropHandler): void {
    while (this.length > 0) this.#shift(onDrop);
    this.start = start;
    this.startConfiguration = configuration;
    this.startResets = false;
    this.machineGeneration = machineGeneration;
    this.roundIndex = this.roundTerm = 0;
  }

  /** Begins again at the very beginning. */
  void(start: LogStart, onDrop: DropHandler): void {
    while (this.length > 0) this.#shift(onDrop);
    this.start = start;
    this.startConfiguration = new Uint8Array(0);
    this.startResets = true;
    this.roundIndex = this.roundTerm = 0;
  }

  /** Drops what begins at a damaged batch. */
  cutFrom(firstIndex: number, onDrop: DropHandler): void {
    this.cut = this.cut === 0 ? firstIndex : Math.min(this.cut, firstIndex);
    this.#supersede(firstIndex, onDrop);
  }

  get lastTerm(): number {
    return this.#chainTerm(this.length - 1);
  }

  /** A batch has been copied to another record. */
  relocate(position: number, seq: number): void {
    this.#numbers[fields * this.#slot(position) + 2] = seq;
  }

  beginRound(): void {
    this.roundIndex = this.lastIndex;
    this.roundTerm = this.#chainTerm(this.length - 1);
    this.roundHardTerm = this.hardState.term;
  }

  #pop(onDrop: DropHandler): void {
    this.length -= 1;
    this.#dropped(this.#slot(this.length), onDrop);
  }

  #shift(onDrop: DropHandler): void {
    const slot = this.#head;
    this.#head = (slot + 1) & this.#mask;
    this.length -= 1;
    this.#dropped(slot, onDrop);
  }

  #dropped(slot: number, onDrop: DropHandler): void {
    const bytes = this.#words[fields * slot + 1]!;
    this.bytes -= bytes;
    onDrop(this.#numbers[fields * slot + 2]!, bytes);
  }

  #grow(): void {
    const from = fields * this.#head;
    const grow = <A extends Float64Array | Uint32Array>(old: A, made: A): A => {
      const tail = old.length - from;
      made.set(old.subarray(from));
      made.set(old.subarray(0, from), tail);
      return made;
    };
    const size = (this.#mask + 1) * 2;
    this.#numbers = grow(this.#numbers, new Float64Array(fields * size));
    this.#words = grow(this.#words, new Uint32Array(fields * size));
    this.#head = 0;
    this.#mask = size - 1;
  }
}

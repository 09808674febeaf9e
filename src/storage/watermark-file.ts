/**
 * The watermark's file [22]: three slots, each with its own checksum and a rising counter. One holds what is known durable, one what is being
 * synced, one takes the writes; so there is always an intact one, whenever the power goes. What it says is the log-store's business.
 */

import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import { fatal } from "../fatal.ts";
import { DiskFullError, watermarkBytesMax } from "./disk.ts";
import { isDiskFull } from "./sqlite.ts";
import { fsyncDirectory, fsyncFile, tripLatch } from "./sync-latch.ts";
import type { Syncer } from "./syncer.ts";

const slotCount = 3;
/** magic, crc, length, then the counter in two halves. The crc covers what follows it. */
const slotHeaderBytes = 20;
const slotBytes = watermarkBytesMax + 4_096;
const magic = 0x4b4d5742;

interface FoundSlot {
  readonly counter: number;
  readonly bytes: Uint8Array;
}

export class WatermarkFile {
  readonly #descriptor: number;
  readonly #syncer: Syncer;
  /** The newest slot as it is in the file, or was meant to be. */
  readonly #slot = Buffer.alloc(slotHeaderBytes + watermarkBytesMax);
  #length: number | undefined;
  #counter = 0;
  /** Never overwritten while it is the only durable one. */
  #durableSlot: number | undefined;
  #writeSlot = 0;
  /** Written since the last sync was asked for. */
  #dirty = false;

  /** Opens or creates the file, and makes its name and what it holds durable. Blocks. */
  constructor(path: string, syncer: Syncer) {
    this.#syncer = syncer;
    this.#descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    if (fstatSync(this.#descriptor).size === 0) this.#layOut();
    for (let slot = 0; slot < slotCount; slot++) {
      const found = readSlot(this.#descriptor, slot);
      if (found === undefined || found.counter <= this.#counter) continue;
      this.#counter = found.counter;
      this.#slot.set(found.bytes, slotHeaderBytes);
      this.#length = found.bytes.byteLength;
      this.#durableSlot = slot;
    }
    fsyncFile(this.#descriptor);
    fsyncDirectory(dirname(path));
    this.#writeSlot = this.#freeSlot(undefined);
  }

  read(): Uint8Array | undefined {
    if (this.#length === undefined) return undefined;
    return new Uint8Array(this.#slot.subarray(slotHeaderBytes, slotHeaderBytes + this.#length));
  }

  write(bytes: Uint8Array): void {
    const length = bytes.byteLength;
    if (length > watermarkBytesMax) throw new Error(`a watermark of ${length} bytes`);
    this.#counter++;
    const slot = this.#slot;
    slot.writeUInt32LE(magic, 0);
    slot.writeUInt32LE(length, 8);
    slot.writeUInt32LE(this.#counter >>> 0, 12);
    slot.writeUInt32LE(Math.floor(this.#counter / 2 ** 32), 16);
    slot.set(bytes, slotHeaderBytes);
    slot.writeUInt32LE(crc32(slot.subarray(8, slotHeaderBytes + length)), 4);
    this.#length = length;
    this.#dirty = this.#writeAt(this.#writeSlot, slot.subarray(0, slotHeaderBytes + length));
  }

  sync(done: () => void): void {
    if (!this.#dirty) {
      setImmediate(done);
      return;
    }
    const syncing = this.#writeSlot;
    this.#dirty = false;
    this.#writeSlot = this.#freeSlot(syncing);
    this.#syncer.sync([this.#descriptor], () => {
      this.#durableSlot = syncing;
      done();
    });
  }

  /** Only once no sync is in flight. */
  close(): void {
    closeSync(this.#descriptor);
  }

  #freeSlot(syncing: number | undefined): number {
    let slot = 0;
    while (slot === this.#durableSlot || slot === syncing) slot++;
    return slot;
  }

  /** Takes the first block of each slot now, so that a full disk does not stop the watermark of an ordinary node. */
  #layOut(): void {
    const block = new Uint8Array(4_096);
    for (let slot = 0; slot < slotCount; slot++) {
      if (!this.#writeAt(slot, block)) throw new DiskFullError("no space left for the watermark");
    }
  }

  /** False on a full disk: then the watermark stays where it was, which claims too little, never too much. */
  #writeAt(slot: number, bytes: Uint8Array): boolean {
    try {
      for (let at = 0; at < bytes.byteLength;) {
        const position = slot * slotBytes + at;
        at += writeSync(this.#descriptor, bytes, at, bytes.byteLength - at, position);
      }
      return true;
    } catch (error) {
      if (isDiskFull(error)) return false;
      tripLatch();
      return fatal("sync_failed", `the watermark cannot be written: ${String(error)}`);
    }
  }
}

/** What the file says, without changing it; undefined where it says nothing, as on a new folder. Throws where there is no file. */
export function readWatermarkFile(path: string): Uint8Array | undefined {
  const descriptor = openSync(path, "r");
  try {
    const slots = Array.from({ length: slotCount }, (_, slot) => readSlot(descriptor, slot));
    const [newest] = slots
      .filter((slot) => slot !== undefined)
      .sort((a, b) => b.counter - a.counter);
    return newest?.bytes;
  } finally {
    closeSync(descriptor);
  }
}

function readSlot(descriptor: number, slot: number): FoundSlot | undefined {
  const start = slot * slotBytes;
  const header = Buffer.alloc(slotHeaderBytes);
  if (readSync(descriptor, header, 0, slotHeaderBytes, start) !== slotHeaderBytes) return undefined;
  const length = header.readUInt32LE(8);
  if (header.readUInt32LE(0) !== magic || length > watermarkBytesMax) return undefined;
  const bytes = new Uint8Array(length);
  if (readSync(descriptor, bytes, 0, length, start + slotHeaderBytes) !== length) return undefined;
  if (crc32(bytes, crc32(header.subarray(8))) !== header.readUInt32LE(4)) return undefined;
  return { counter: header.readUInt32LE(12) + header.readUInt32LE(16) * 2 ** 32, bytes };
}

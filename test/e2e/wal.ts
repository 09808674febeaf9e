/**
 * Damage to a SQLite write-ahead log that SQLite itself cannot see: a byte is changed and the checksums of all frames are made right
 * again, as a disk or a program would that wrote the wrong bytes in the first place. See "WAL Format" of SQLite's file format.
 */
import { readFileSync, writeFileSync } from "node:fs";

const headerBytes = 32;
const frameHeaderBytes = 24;
const littleEndianMagic = 0x377f0682;

/** Changes one bit where `text` stands last. With `reseal` SQLite takes the result for whole; without, it ends the log before it. */
export function damageWal(path: string, text: string, { reseal }: { reseal: boolean }): void {
  const bytes = readFileSync(path);
  const at = bytes.lastIndexOf(text);
  if (at < 0) throw new Error(`${path} does not hold ${text}`);
  bytes[at]! ^= 1;
  if (reseal) resealFrames(bytes);
  writeFileSync(path, bytes);
}

function resealFrames(bytes: Buffer): void {
  const littleEndian = bytes.readUInt32BE(0) === littleEndianMagic;
  const frameBytes = frameHeaderBytes + bytes.readUInt32BE(8);
  const salts = bytes.subarray(16, 24);
  let sums: Sums = [bytes.readUInt32BE(24), bytes.readUInt32BE(28)];
  for (let at = headerBytes; at + frameBytes <= bytes.byteLength; at += frameBytes) {
    // Frames of an earlier use of the file follow the last one of this.
    if (!bytes.subarray(at + 8, at + 16).equals(salts)) break;
    sums = checksum(bytes.subarray(at, at + 8), sums, littleEndian);
    sums = checksum(bytes.subarray(at + frameHeaderBytes, at + frameBytes), sums, littleEndian);
    bytes.writeUInt32BE(sums[0], at + 16);
    bytes.writeUInt32BE(sums[1], at + 20);
  }
}

type Sums = readonly [number, number];

function checksum(bytes: Buffer, [first, second]: Sums, littleEndian: boolean): Sums {
  let [a, b] = [first, second];
  for (let at = 0; at < bytes.byteLength; at += 8) {
    const x = littleEndian ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
    const y = littleEndian ? bytes.readUInt32LE(at + 4) : bytes.readUInt32BE(at + 4);
    a = (a + x + b) >>> 0;
    b = (b + y + a) >>> 0;
  }
  return [a, b];
}

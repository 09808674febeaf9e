/** A backup is read as it was written, in whatever parts; of any other bytes it is said that they are none, quickly and without much memory. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { BackupError, type BackupHeader, BackupWriter, readBackup } from "../../src/wire/backup.ts";

const header: BackupHeader = {
  clusterId: "c0ffee",
  nodeId: 3,
  group: 0,
  machine: "kv",
  index: 4_711,
  term: 5,
  applyVersion: 2,
  bytes: 0,
  created: "2026-11-23T00:00:00.000Z",
  software: "0.1.0",
};

function written(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
  const writer = new BackupWriter();
  return Buffer.concat([
    writer.header({ ...header, bytes }),
    ...parts.map((part) => writer.chunk(part)),
    writer.end(),
  ]);
}

function read(file: Uint8Array): { header: BackupHeader; state: Uint8Array; readMax: number } {
  const parts: Uint8Array[] = [];
  let readMax = 0;
  const found = readBackup(
    (offset, length) => {
      readMax = Math.max(readMax, length);
      return file.subarray(offset, offset + length);
    },
    (part) => void parts.push(part),
  );
  return { header: found, state: Buffer.concat(parts), readMax };
}

const parts = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), {
  minLength: 1,
  maxLength: 8,
});

test("what was written is read", () => {
  fc.assert(
    fc.property(parts, (given) => {
      const found = read(written(given));
      expect(found.header).toEqual({ ...header, bytes: found.state.byteLength });
      expect(Buffer.from(found.state)).toEqual(Buffer.concat(given));
    }),
  );
});

test("any change of a byte is noticed, any end that is too early, and any that is too late", () => {
  fc.assert(
    fc.property(parts, fc.nat(), fc.integer({ min: 1, max: 255 }), (given, where, flip) => {
      const file = written(given);
      const at = where % file.byteLength;
      const damaged = file.slice();
      damaged[at]! ^= flip;
      expect(() => read(damaged)).toThrow(BackupError);
      expect(() => read(file.subarray(0, at))).toThrow(BackupError);
      expect(() => read(Buffer.concat([file, Buffer.of(0)]))).toThrow(BackupError);
    }),
  );
});

test("bytes of any kind are no backup, and no length in them makes it read much", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
      const file = Buffer.concat([
        written([new Uint8Array(10)]).subarray(0, noise.length % 40),
        noise,
      ]);
      expect(() => read(file)).toThrow(BackupError);
    }),
    { numRuns: 500 },
  );
  const file = Buffer.from(written([new Uint8Array(10)]));
  file.writeUInt32LE(0xffff_ffff, 12);
  expect(() => read(file)).toThrow(/header is damaged/);
});

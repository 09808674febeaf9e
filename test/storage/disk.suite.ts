/**
 * The contract of src/storage/disk.ts as tests, run over each implementation. A harness says how to open the disk, how to come back
 * after the process died, and, where it can, after the power was cut.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { RecordKind, type Disk, type LogRecord, type SegmentFile } from "../../src/storage/disk.ts";

export interface DiskHarness {
  /** The disk of a new, empty folder. */
  open(): Disk;
  /** What the next process finds after this one died and the machine lived on. */
  reopen(disk: Disk): Disk;
  /** Lets the disk's own work go on until `until` holds; throws if it never does. */
  settle(until: () => boolean): Promise<void>;
  dispose(): void;
}

/** Equal bytes have equal strings; undefined where there is nothing. */
const shown = (data: Uint8Array | undefined): string | undefined =>
  data === undefined ? undefined : Buffer.from(data).toString("latin1");

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function record(seq: number, data: Uint8Array | string = `record ${seq}`, group = 0): LogRecord {
  return {
    seq,
    kind: RecordKind.batch,
    group,
    data: typeof data === "string" ? text(data) : data,
  };
}

function seqsOf(segment: SegmentFile): number[] {
  const seqs: number[] = [];
  segment.scan((found) => seqs.push(found.seq));
  return seqs;
}

function numbersOf(disk: Disk): number[] {
  return disk.segments.map((segment) => segment.number);
}

export function diskSuite(name: string, makeHarness: () => DiskHarness): void {
  describe(`disk contract: ${name}`, () => {
    let harness: DiskHarness;
    let disk: Disk;

    beforeEach(() => {
      harness = makeHarness();
      disk = harness.open();
    });
    afterEach(() => {
      disk.close();
      harness.dispose();
    });

    const synced = async (...segments: SegmentFile[]): Promise<void> => {
      let done = false;
      disk.sync(segments, () => (done = true));
      expect(done).toBe(false);
      expect(disk.syncing).toBe(true);
      await harness.settle(() => done);
      expect(disk.syncing).toBe(false);
    };
    const reopen = (): void => {
      disk = harness.reopen(disk);
    };

    test("a new folder holds nothing", () => {
      expect(disk.segments).toEqual([]);
      expect(disk.readWatermark()).toBeUndefined();
      expect(disk.takePrepared(1)).toBeUndefined();
    });

    test("appended records are visible at once, in order, with all that they carry", () => {
      const segment = disk.create(1);
      expect(segment.number).toBe(1);
      segment.append([record(7, "seven", 3)]);
      segment.append([{ seq: 8, kind: RecordKind.hardState, group: 0xffff_fffe, data: text("8") }]);
      const found: LogRecord[] = [];
      segment.scan((each, size) => {
        expect(size).toBe(each.data.byteLength);
        found.push({ ...each });
      });
      expect(found.map(({ seq, kind, group }) => [seq, kind, group])).toEqual([
        [7, RecordKind.batch, 3],
        [8, RecordKind.hardState, 0xffff_fffe],
      ]);
      expect(found.map(({ data }) => shown(data))).toEqual(["seven", "8"]);
      expect(shown(segment.read(7))).toBe("seven");
      expect(segment.read(9)).toBeUndefined();
    });

    test("a scan of heads gives leading bytes and the whole size", () => {
      const segment = disk.create(1);
      segment.append([record(1, new Uint8Array(1000).fill(5)), record(2, "short")]);
      const heads: [number, number][] = [];
      segment.scan((each, size) => heads.push([each.data.byteLength, size]), 48);
      expect(heads).toEqual([
        [48, 1000],
        [5, 5],
      ]);
    });

    test("large records and sequence numbers up to 2^53 - 1 come back verbatim", () => {
      const segment = disk.create(1);
      const data = new Uint8Array(3_000_000).map((_, at) => at * 31);
      segment.append([record(Number.MAX_SAFE_INTEGER, data)]);
      expect(shown(segment.read(Number.MAX_SAFE_INTEGER))).toBe(shown(data));
      expect(seqsOf(segment)).toEqual([Number.MAX_SAFE_INTEGER]);
    });

    test("the size of a segment grows with what is appended", () => {
      const segment = disk.create(1);
      const before = segment.bytes;
      segment.append([record(1, new Uint8Array(100_000))]);
      expect(segment.bytes).toBeGreaterThanOrEqual(before + 100_000);
    });

    test("what was synced is there after the process died", async () => {
      const first = disk.create(1);
      first.append([record(1), record(2)]);
      const second = disk.create(2);
      second.append([record(3)]);
      await synced(first, second);
      reopen();
      expect(numbersOf(disk)).toEqual([1, 2]);
      expect(disk.segments.map(seqsOf)).toEqual([[1, 2], [3]]);
      expect(shown(disk.segments[0]!.read(2))).toBe("record 2");
    });

    test("an append during a sync round is no part of it and needs another", async () => {
      const segment = disk.create(1);
      segment.append([record(1)]);
      const round = synced(segment);
      segment.append([record(2)]);
      await round;
      await synced(segment);
      reopen();
      expect(seqsOf(disk.segments[0]!)).toEqual([1, 2]);
    });

    test("a segment that was found can be read, synced and retired", async () => {
      disk.create(1).append([record(1)]);
      disk.create(2).append([record(2)]);
      reopen();
      const third = disk.create(3);
      third.append([record(3)]);
      await synced(...disk.segments, ...(disk.segments.includes(third) ? [] : [third]));
      disk.retire(disk.segments[0]!);
      await synced(third);
      reopen();
      // Retiring need not have reached the disk, but what was kept must be whole.
      expect(numbersOf(disk).slice(-2)).toEqual([2, 3]);
      expect(seqsOf(disk.segments.at(-1)!)).toEqual([3]);
    });

    test("a prepared segment is handed over once, by its number", async () => {
      disk.create(1).append([record(1)]);
      disk.prepare(2);
      let prepared: SegmentFile | undefined;
      await harness.settle(() => (prepared ??= disk.takePrepared(2)) !== undefined);
      expect(prepared!.number).toBe(2);
      expect(disk.takePrepared(2)).toBeUndefined();
      expect(seqsOf(prepared!)).toEqual([]);
      prepared!.append([record(2)]);
      await synced(prepared!);
      reopen();
      expect(seqsOf(disk.segments.at(-1)!)).toEqual([2]);
    });

    test("creating the segment that is being prepared gives that one", () => {
      disk.create(1).append([record(1)]);
      disk.prepare(2);
      const segment = disk.create(2);
      segment.append([record(2)]);
      expect(seqsOf(segment)).toEqual([2]);
      disk.prepare(3);
    });

    test("nothing of a former life shows in a recycled segment", async () => {
      let current = disk.create(1);
      let seq = 0;
      const bodies = new Map<number, number>();
      for (let number = 2; number <= 7; number++) {
        for (let each = 0; each < 20; each++) {
          const bytes = 500 + ((number * 37 + each * 11) % 9000);
          current.append([record(++seq, new Uint8Array(bytes).fill(number))]);
          bodies.set(seq, bytes);
        }
        await synced(current);
        disk.prepare(number);
        let next: SegmentFile | undefined;
        await harness.settle(() => (next ??= disk.takePrepared(number)) !== undefined);
        expect(seqsOf(next!)).toEqual([]);
        next!.append([record(++seq, `start of ${number}`)]);
        await synced(next!);
        disk.retire(current);
        current = next!;
      }
      const last = seq;
      reopen();
      const newest = disk.segments.at(-1)!;
      expect(newest.number).toBe(7);
      expect(seqsOf(newest)).toEqual([last]);
      // A retired one may still be there, but then as it was.
      for (const segment of disk.segments.slice(0, -1)) {
        segment.scan((each, size) => expect(size).toBe(bodies.get(each.seq) ?? size));
      }
    });

    test("gaps in the numbers are no fault: a segment that was never acknowledged is given up", async () => {
      disk.create(1).append([record(1)]);
      disk.create(2).append([record(2)]);
      reopen();
      const third = disk.create(3);
      third.append([record(3)]);
      await synced(third);
      disk.retire(disk.segments[1]!);
      await synced(third);
      reopen();
      expect(numbersOf(disk)).toContain(1);
      expect(numbersOf(disk).at(-1)).toBe(3);
      expect(seqsOf(disk.segments[0]!)).toEqual([1]);
    });

    test("the watermark is visible at once and survives the process", async () => {
      disk.writeWatermark(text("one"));
      disk.writeWatermark(text("two, longer"));
      expect(shown(disk.readWatermark())).toBe("two, longer");
      let done = false;
      disk.syncWatermark(() => (done = true));
      await harness.settle(() => done);
      disk.writeWatermark(text("3"));
      reopen();
      expect(shown(disk.readWatermark())).toBe("3");
    });

    test("the writer of a watermark may change its bytes afterwards", () => {
      const bytes = text("before");
      disk.writeWatermark(bytes);
      bytes.fill(0);
      expect(shown(disk.readWatermark())).toBe("before");
    });

    test("a watermark and a sync round may be under way together", async () => {
      const segment = disk.create(1);
      segment.append([record(1)]);
      disk.writeWatermark(text("mark"));
      let done = 0;
      disk.sync([segment], () => (done += 1));
      disk.syncWatermark(() => (done += 1));
      await harness.settle(() => done === 2);
    });
  });
}

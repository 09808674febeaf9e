/** A log whose main files are damaged: who only looks finds the same segments, with the same records, as a start does. */
import { afterAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Disk } from "../../src/storage/disk.ts";
import { ReadOnlyDisk } from "../../src/storage/read-only-disk.ts";
import { segmentPath } from "../../src/storage/segment-files.ts";
import { openSqliteDisk } from "../../src/storage/sqlite-disk.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-read-only-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const headerBytes = 110;
const records = 40;

const made = join(folder, "made");
const used = 1;
const fresh = 2;
mkdirSync(made);

/** One segment with records, and the next one, prepared. */
function fill(): void {
  const disk = openSqliteDisk({
    segmentsPath: join(made, "segments"),
    watermarkPath: join(made, "watermark"),
    segmentBytes: 0,
  });
  const segment = disk.create(used);
  for (let seq = 1; seq <= records; seq++) {
    segment.append([{ seq, kind: 1, group: 0, data: new Uint8Array(300).fill(seq) }]);
  }
  disk.create(fresh);
  disk.close();
}
fill();

/** Numbers of the segments, and of the records in each. */
function contents({ segments }: Pick<Disk, "segments">): unknown {
  return segments.map((segment) => {
    const seqs: number[] = [];
    segment.scan(({ seq, data }) => {
      expect(data).toEqual(new Uint8Array(300).fill(seq));
      seqs.push(seq);
    });
    return { number: segment.number, seqs };
  });
}

const copy = join(folder, "copy");
const paths = { segmentsPath: join(copy, "segments"), watermarkPath: join(copy, "watermark") };

function sameAsStart(where: string): unknown {
  const looked = new ReadOnlyDisk(paths);
  const disk = openSqliteDisk({ ...paths, segmentBytes: 0 });
  try {
    const found = contents(looked);
    expect({ where, found }).toEqual({ where, found: contents(disk) });
    return found;
  } finally {
    looked.close();
    disk.close();
  }
}

function damaged(number: number, at: number, flip: number): void {
  rmSync(copy, { recursive: true, force: true });
  cpSync(made, copy, { recursive: true });
  const path = segmentPath(paths.segmentsPath, number);
  const bytes = readFileSync(path);
  bytes[at]! ^= flip;
  writeFileSync(path, bytes);
}

test("all of it is there where nothing is damaged", () => {
  damaged(used, 0, 0);
  expect(sameAsStart("nothing")).toEqual([
    { number: used, seqs: Array.from({ length: records }, (_, at) => at + 1) },
    { number: fresh, seqs: [] },
  ]);
});

for (const number of [used, fresh]) {
  test(`every byte of the header of segment ${number}`, () => {
    let lost = 0;
    for (let at = 0; at < headerBytes; at++) {
      for (const flip of [0xff, 1 << (at % 8)]) {
        damaged(number, at, flip);
        const found = sameAsStart(`byte ${at} ^ ${flip}`) as unknown[];
        if (found.length < 2) lost++;
      }
    }
    // The log has the first page of one that is used: nothing in its main file counts.
    if (number === used) expect(lost).toBe(0);
    else expect(lost).toBeGreaterThan(0);
  });
}

/**
 * Child process of segment-kill.test.ts: appends, syncs, rotates and retires as fast as it can until it is killed. Says on stdout, one
 * line each: `a SEQ`, once all up to SEQ is durable, and `r SEQ`, before the segment that ends with SEQ is given up.
 */

import { writeSync } from "node:fs";
import { openSqliteDisk } from "../../src/storage/sqlite-disk.ts";
import type { SqliteSegment } from "../../src/storage/sqlite-segment.ts";
import { lifeRecord, segmentBytes, segmentsKept } from "./segment-kill.ts";

const [folder = "", life = "0", filled = "0"] = process.argv.slice(2);
const say = (line: string): void => void writeSync(1, `${line}\n`);

const disk = openSqliteDisk({
  segmentsPath: `${folder}/segments`,
  watermarkPath: `${folder}/watermark`,
  segmentBytes: Number(filled),
});

let seq = 0;
const live: { segment: SqliteSegment; lastSeq: number }[] = [];
for (const segment of disk.segments) {
  segment.scan((record) => (seq = record.seq), 8);
  live.push({ segment, lastSeq: seq });
}
let number = (disk.segments.at(-1)?.number ?? 0) + 1;
let current = disk.create(number);
let isPreparing = false;

function append(): void {
  const count = 1 + ((seq * 7) % 5);
  const records = [];
  for (let i = 0; i < count; i++) records.push(lifeRecord(Number(life), ++seq));
  current.append(records);
}

function rotate(): void {
  if (!isPreparing) {
    isPreparing = true;
    disk.prepare(++number);
  }
  // Now and then the loop waits for it, as it does when the prepared one is late.
  const next = number % 5 === 0 ? disk.create(number) : disk.takePrepared(number);
  if (next === undefined) return;
  isPreparing = false;
  const full = current;
  live.push({ segment: full, lastSeq: seq });
  current = next;
  append();
  disk.sync([full, current], () => {
    say(`a ${seq}`);
    setImmediate(turn);
  });
}

/** Only once the newest segment is durable may the oldest go. */
function retireOldest(): void {
  while (live.length > segmentsKept) {
    const { segment, lastSeq } = live.shift()!;
    say(`r ${lastSeq}`);
    disk.retire(segment);
  }
}

function turn(): void {
  if (current.bytes > segmentBytes) rotate();
  if (disk.syncing) return;
  append();
  const covered = seq;
  disk.sync([current], () => {
    say(`a ${covered}`);
    retireOldest();
    setImmediate(turn);
  });
}

turn();

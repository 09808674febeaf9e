/** Child process of segments.test.ts: makes segments 1 and 2, retires 1, prepares 3 out of it; then closes, or ends without. */

import { writeSync } from "node:fs";
import { RecordKind } from "../../src/storage/disk.ts";
import { openSqliteDisk } from "../../src/storage/sqlite-disk.ts";

const [folder = ""] = process.argv.slice(2);
const mark = (name: string): void => void writeSync(2, `mark ${name}\n`);
const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

const disk = openSqliteDisk({
  segmentsPath: `${folder}/segments`,
  watermarkPath: `${folder}/watermark`,
  segmentBytes: 0,
});
mark("create");
const first = disk.create(1);
mark("append");
const data = new Uint8Array(10_000);
for (let seq = 1; seq <= 20; seq++) first.append([{ seq, kind: RecordKind.batch, group: 0, data }]);
mark("sync");
await new Promise<void>((resolve) => disk.sync([first], resolve));
const second = disk.create(2);
disk.retire(first);
mark("recycle");
disk.prepare(3);
let third = disk.takePrepared(3);
while (third === undefined) {
  await soon();
  third = disk.takePrepared(3);
}
mark("overwrite");
third.append([{ seq: 21, kind: RecordKind.batch, group: 0, data }]);
mark("sync-both");
await new Promise<void>((resolve) => disk.sync([third, second], resolve));
mark("close");
disk.close();
mark("exit");
process.exit(0);

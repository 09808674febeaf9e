/**
 * kill -9 at random moments, through rotations and recycling: whatever was synced is there, nothing of a former life shows, the databases
 * are whole. `SEED=… bun test …` repeats the moments, as
 * far as a machine lets it.
 */

import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDatabase } from "../../src/storage/sqlite.ts";
import { segmentPath } from "../../src/storage/segment-files.ts";
import { openSqliteDisk } from "../../src/storage/sqlite-disk.ts";
import { Random } from "../sim/random.ts";
import { lifeRecord } from "./segment-kill.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
const lives = 20;

interface Told {
  readonly acked: number;
  readonly retired: number;
}

/** One life: what it said before it was killed, once it had said so many lines. */
async function live(folder: string, life: number, linesMax: number): Promise<Told> {
  const child = Bun.spawn(
    [
      process.execPath,
      join(import.meta.dir, "segment-kill-fixture.ts"),
      folder,
      String(life),
      // Growing and zero-filled files both.
      life % 2 === 0 ? "0" : "200000",
    ],
    { stdout: "pipe", stderr: "pipe", stdin: "ignore" },
  );
  const stderr = new Response(child.stderr).text();
  let said = "";
  for await (const bytes of child.stdout) {
    said += Buffer.from(bytes).toString();
    if (said.split("\n").length > linesMax) child.kill("SIGKILL");
  }
  await child.exited;
  if (child.signalCode !== "SIGKILL") throw new Error(await stderr);
  const lines = said.split("\n").slice(0, -1);
  const last = (kind: string): number =>
    Number(lines.findLast((line) => line.startsWith(kind))?.slice(2) ?? 0);
  return { acked: last("a"), retired: last("r") };
}

test(`kill -9, ${lives} times, seed ${seed}`, async () => {
  const folder = mkdtempSync(join(tmpdir(), "barge-kill-"));
  const random = new Random(seed);
  /** The life that wrote each record. */
  const writers = new Map<number, number>();
  let acked = 0;
  let retired = 0;
  let recycled = 0;
  try {
    for (let life = 1; life <= lives; life++) {
      const told = await live(folder, life, random.between(1, 100));
      acked = Math.max(acked, told.acked);
      retired = Math.max(retired, told.retired);

      const disk = openSqliteDisk({
        segmentsPath: join(folder, "segments"),
        watermarkPath: join(folder, "watermark"),
        segmentBytes: 0,
      });
      let first = 0;
      let last = 0;
      for (const segment of disk.segments) {
        segment.scan((record, size) => {
          const { seq, group, data } = record;
          if (last === 0) first = seq;
          else if (seq !== last + 1) throw new Error(`record ${seq} follows ${last}`);
          last = seq;
          expect(size).toBe(data.byteLength);
          // Read again after later lives, a record is still the one that it was.
          const writer = writers.get(seq) ?? life;
          writers.set(seq, writer);
          expect(group).toBe(writer);
          if (!Buffer.from(data).equals(lifeRecord(writer, seq).data)) {
            throw new Error(`record ${seq} in segment ${segment.number} is not what was written`);
          }
        });
      }
      expect(last).toBeGreaterThanOrEqual(acked);
      expect(first).toBeLessThanOrEqual(retired + 1);
      const numbers = disk.segments.map((segment) => segment.number);
      recycled = Math.max(recycled, (numbers.at(-1) ?? 0) - numbers.length);
      disk.close();

      for (const number of numbers.slice(-2)) {
        const database = openDatabase(segmentPath(join(folder, "segments"), number), {
          cacheKiB: 256,
        });
        const check = database.prepareRead<Record<string, unknown>, []>("PRAGMA integrity_check");
        expect(Object.values(check.get() ?? {})).toEqual(["ok"]);
        database.leave();
      }
    }
    // The lives were long enough to mean something, and what they left behind was cleaned up.
    expect(recycled).toBeGreaterThan(lives);
    expect(readdirSync(join(folder, "segments")).length).toBeLessThan(3 * 20);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 60_000);

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { watermarkBytesMax } from "../../src/storage/disk.ts";
import type { Syncer } from "../../src/storage/syncer.ts";
import { WatermarkFile } from "../../src/storage/watermark-file.ts";
import { Random } from "../sim/random.ts";

/** Syncs when told to, so that a test can stand between the request and its completion. */
class ManualSyncer implements Syncer {
  #done: (() => void) | undefined;
  get syncing(): boolean {
    return this.#done !== undefined;
  }
  sync(_descriptors: readonly number[], done: () => void): void {
    expect(this.#done).toBeUndefined();
    this.#done = done;
  }
  complete(): void {
    const done = this.#done;
    this.#done = undefined;
    done?.();
  }
  close(): void {}
}

let folder = "";
let path = "";
let syncer: ManualSyncer;
let file: WatermarkFile;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "barge-watermark-"));
  path = join(folder, "watermark");
  syncer = new ManualSyncer();
  file = new WatermarkFile(path, syncer);
});
afterEach(() => {
  file.close();
  rmSync(folder, { recursive: true, force: true });
});

function reopen(): void {
  file.close();
  syncer = new ManualSyncer();
  file = new WatermarkFile(path, syncer);
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const read = (): string | undefined => {
  const bytes = file.read();
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
};

describe("the watermark's file", () => {
  test("holds nothing at first, then what was written last", () => {
    expect(read()).toBeUndefined();
    reopen();
    expect(read()).toBeUndefined();
    for (const value of ["first", "second, longer", "", "third"]) {
      file.write(text(value));
      expect(read()).toBe(value);
      reopen();
      expect(read()).toBe(value);
    }
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("takes the largest watermark and refuses a larger one", () => {
    const largest = new Uint8Array(watermarkBytesMax).fill(7);
    for (let i = 0; i < 4; i++) {
      largest[0] = i;
      file.write(largest);
      file.sync(() => {});
      syncer.complete();
    }
    reopen();
    expect(file.read()).toEqual(largest);
    expect(() => file.write(new Uint8Array(watermarkBytesMax + 1))).toThrow("bytes");
    expect(file.read()).toEqual(largest);
  });

  test("tells of a sync later, also when there was nothing to sync", async () => {
    let isLater = false;
    await new Promise<void>((resolve) => {
      file.sync(() => {
        expect(isLater).toBe(true);
        resolve();
      });
      isLater = true;
      expect(syncer.syncing).toBe(false);
    });
  });

  for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
    test(`gives at least what was durable, whatever a power cut leaves, seed ${seed}`, () => {
      const random = new Random(seed);
      const below = (bound: number): number => random.below(bound);
      let written = 0;
      let durable = 0;
      /** The file as the last completed sync left it at least. */
      let image = readFileSync(path);
      for (let step = 0; step < 60; step++) {
        const kind = below(8);
        if (kind < 4) {
          file.write(text(`${++written}${" ".repeat(below(300))}`));
        } else if (kind < 6 && !syncer.syncing) {
          const requested = written;
          const asked = readFileSync(path);
          file.sync(() => {
            durable = requested;
            image = asked;
          });
        } else if (kind === 6) {
          syncer.complete();
        } else if (below(3) === 0) {
          // Of each byte that differs from the durable image either version may be there: torn anywhere.
          const torn = readFileSync(path);
          let keepsNew = true;
          for (let at = 0; at < torn.byteLength; at++) {
            if (torn[at] === image[at]) continue;
            if (below(10) === 0) keepsNew = !keepsNew;
            if (!keepsNew) torn[at] = image[at] ?? 0;
          }
          file.close();
          writeFileSync(path, torn);
          syncer = new ManualSyncer();
          file = new WatermarkFile(path, syncer);
          const found = Number(read() ?? 0);
          expect(found).toBeGreaterThanOrEqual(durable);
          expect(found).toBeLessThanOrEqual(written);
          // Opening made it durable as it is.
          durable = found;
          written = Math.max(written, found);
          image = readFileSync(path);
        }
      }
    });
  }
});

/** The memtable by itself: put, overwrite, find, sort, in nanoseconds an entry, at sizes that fit a cache and that do not. */
import { bench, group, run as runSuite } from "mitata";
import { Memtable } from "../src/machine/memtable.ts";

const keyBytes = 8;

export async function run(small: boolean): Promise<void> {
  const sizes = small ? [100] : [100_000, 1_000_000];
  for (const keys of sizes) {
    for (const valueBytes of [16, 256]) {
      group(`${keys} keys, values of ${valueBytes} B`, () => {
        addBenches(keys, valueBytes);
      });
    }
  }
  await runSuite({ format: small ? "quiet" : "mitata" });
}

function addBenches(keys: number, valueBytes: number): void {
  const { bytes, view } = commands(keys, valueBytes);
  const stride = keyBytes + valueBytes;
  const fill = (table: Memtable, revision: number): void => {
    for (let i = 0; i < keys; i++) {
      const at = i * stride;
      table.put(bytes, view, at, keyBytes, at + keyBytes, valueBytes, revision);
    }
  };
  const fresh = new Memtable();
  bench(`put ${keys} new keys`, () => {
    fresh.clear(true);
    fill(fresh, 1);
  });
  const full = new Memtable();
  fill(full, 1);
  bench(`overwrite ${keys} keys`, () => fill(full, 2));
  bench(`find ${keys} keys`, () => {
    let found = 0;
    for (let i = 0; i < keys; i++) found += full.find(view, i * stride, keyBytes) === 0 ? 0 : 1;
    if (found !== keys) throw new Error("a key is lost");
  });
  bench(`put and sort ${keys} keys`, () => {
    fresh.clear(true);
    fill(fresh, 1);
    let walked = 0;
    for (const cursor = fresh.runs.cursor(); cursor.entry !== 0; cursor.advance()) walked += 1;
    if (walked !== keys) throw new Error("the order has lost a key");
  });
}

/** Keys in an order that no cache can guess. */
function commands(keys: number, valueBytes: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(keys * (keyBytes + valueBytes)).fill(7);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < keys; i++) {
    const key = Math.imul(i, 0x9e37_79b1) >>> 0;
    view.setUint32(i * (keyBytes + valueBytes), key, true);
    view.setUint32(i * (keyBytes + valueBytes) + 4, key ^ 0x5bd1_e995, true);
  }
  return { bytes, view };
}

if (import.meta.main) await run(process.argv.includes("--small"));

/** What a node says of its memory is its own, whoever started it. */
import { expect, test } from "bun:test";
import { join } from "node:path";

const source = join(import.meta.dir, "../../src/node/peak-memory.ts");
const MiB = 2 ** 20;

test("the peak is that of this program, not of the one that started it, and grows with what is held", () => {
  const held = new Uint8Array(300 * MiB).fill(1);
  const program = `import { peakRssBytes } from ${JSON.stringify(source)};
    const before = peakRssBytes();
    const held = new Uint8Array(${64 * MiB}).fill(1);
    console.log(JSON.stringify([before, peakRssBytes(), held.length]));`;
  const child = Bun.spawnSync([process.execPath, "-e", program]);
  expect(child.stderr.toString()).toBe("");
  const [before, after] = JSON.parse(child.stdout.toString()) as number[];
  expect(before).toBeWithin(5 * MiB, held.byteLength / 2);
  expect(after! - before!).toBeGreaterThan(48 * MiB);
});

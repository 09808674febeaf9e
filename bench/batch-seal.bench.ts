/** Sections into batches: check what arrived, copy it once into a body, seal it with its crc; and check a batch on arrival. */
import { bench, do_not_optimize, group, run as runSuite } from "mitata";
import {
  BatchKind,
  batchHeaderBytes,
  batchIntact,
  readBatch,
  sealBatch,
  type Batch,
} from "../src/wire/batch.ts";
import { plainSection, readSectionHeader, sectionIntact } from "../src/wire/section.ts";

const KiB = 1024;

export async function run(small: boolean): Promise<void> {
  for (const bodyBytes of small ? [4 * KiB] : [512, 4 * KiB, 64 * KiB, 256 * KiB]) {
    for (const sections of small ? [1, 2] : [1, 16]) {
      addBenches(bodyBytes, sections);
    }
  }
  await runSuite({ format: small ? "quiet" : "mitata" });
}

function addBenches(bodyBytes: number, sections: number): void {
  const arrived = Array.from({ length: sections }, () =>
    plainSection([new Uint8Array(Math.floor(bodyBytes / sections) - 64).fill(7)]),
  );
  group(`body of ${bodyBytes} B from ${sections} sections`, () => {
    bench("check sections", () => {
      for (const section of arrived) {
        const header = readSectionHeader(section, 0);
        if (header === undefined || !sectionIntact(section, 0, header)) throw new Error("damaged");
      }
    });
    bench("copy and seal", () => do_not_optimize(seal(arrived)));
    const { bytes } = seal(arrived);
    bench("read and check a batch", () => {
      const batch = readBatch(bytes, 0);
      if (batch === undefined || !batchIntact(batch)) throw new Error("damaged");
    });
  });
}

function seal(sections: readonly Uint8Array[]): Batch {
  let bodyBytes = 0;
  for (const section of sections) bodyBytes += section.byteLength;
  const bytes = new Uint8Array(batchHeaderBytes + bodyBytes);
  let at = batchHeaderBytes;
  for (const section of sections) {
    bytes.set(section, at);
    at += section.byteLength;
  }
  return sealBatch(
    {
      group: 0,
      kind: BatchKind.commands,
      firstIndex: 1,
      count: sections.length,
      term: 1,
      timeMs: 1,
      prevCrc: 0,
    },
    bytes,
  );
}

if (import.meta.main) await run(process.argv.includes("--small"));

/**
 * Crash images by the thousand: `bun test/crash/run.ts [--of storage|node] [--images N] [--seeds N] [--from SEED] [--evidence]`. Each seed is a chain of lives of its
 * own; a finding prints its seed, which repeats the life. Fails where anything was found.
 */
import { parseArgs } from "node:util";
import { recordEvidence } from "../evidence.ts";
import { crashImages } from "./images.ts";

const { values } = parseArgs({
  options: {
    of: { type: "string", default: "storage" },
    images: { type: "string", default: "500" },
    seeds: { type: "string", default: "1" },
    from: { type: "string", default: "1" },
    evidence: { type: "boolean", default: false },
  },
});

const beganMs = performance.now();
const findings: string[] = [];
let images = 0;
for (let seed = Number(values.from); seed < Number(values.from) + Number(values.seeds); seed++) {
  const report = await crashImages({
    seed,
    images: Number(values.images),
    rotEach: 12,
    of: values.of === "node" ? "node" : "storage",
  });
  images += report.images;
  const did = [...report.did].map(([what, count]) => `${count} ${what}`).join(", ");
  console.log(`seed ${seed}: ${report.images} images of ${report.events} events (${did})`);
  for (const finding of report.findings) {
    console.log(`seed ${seed}, ${finding}`);
    findings.push(`seed ${seed}, ${finding}`);
  }
}
const seconds = (performance.now() - beganMs) / 1_000;
console.log(`${images} images in ${seconds.toFixed(0)} s, ${findings.length} findings`);
if (values.evidence) recordEvidence({ kind: "images", seconds, amounts: { images }, findings });
process.exit(findings.length === 0 ? 0 : 1);

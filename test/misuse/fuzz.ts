/**
 * Fuzzes real daemons for a long time, one seed after the other:
 *
 *     bun test/misuse/fuzz.ts --minutes 20 [--seed N] [--evidence]
 *
 * In turn against one node, against three of which the attacker is one, and against three where it may also speak as a leader. Prints one JSON object per
 * round; the first that finds something prints that, with its seed, and the status is 1.
 */
import { parseArgs } from "node:util";
import { recordEvidence } from "../evidence.ts";
import { fuzzRound } from "./fuzz-round.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "20" },
    seed: { type: "string", default: "1" },
    /** Of one round. */
    seconds: { type: "string", default: "30" },
    /** Notes the run in test/evidence.jsonl. */
    evidence: { type: "boolean", default: false },
  },
});
const seconds = Number(values.seconds);
const startMs = performance.now();
const endMs = startMs + Number(values.minutes) * 60_000;
let frames = 0;
let connections = 0;
for (let seed = Number(values.seed); performance.now() < endMs; seed++) {
  const nodes = seed % 3 === 0 ? 1 : 3;
  const report = await fuzzRound({ nodes, seed, seconds, leads: seed % 3 === 2 });
  frames += report.frames;
  connections += report.connections;
  process.stdout.write(`${JSON.stringify(report)}\n`);
}
if (values.evidence) {
  const took = Math.round((performance.now() - startMs) / 1_000);
  recordEvidence({ kind: "fuzz", seconds: took, amounts: { frames, connections }, findings: [] });
}
process.stdout.write(`${frames} frames over ${connections} connections: nothing found\n`);
process.exit(0);

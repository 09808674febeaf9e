/**
 * Power cuts for as long as one likes: `bun test/power/run.ts --file-system ext4|xfs --nodes 1|3 --scene load --cuts 150 [--seed N] [--evidence]`.
 * Prints a line per cut; ends with 1 where anything is lost.
 */
import { parseArgs } from "node:util";
import { recordEvidence } from "../evidence.ts";
import { Random } from "../sim/random.ts";
import { fileSystems, loopDisks } from "./loop-disk.ts";
import { powerCuts, powerScenes } from "./power-rounds.ts";

const { values } = parseArgs({
  options: {
    "file-system": { type: "string", default: "ext4" },
    nodes: { type: "string", default: "1" },
    scene: { type: "string", default: "load" },
    cuts: { type: "string", default: "50" },
    seed: { type: "string", default: `${Date.now() % 1_000_000}` },
    evidence: { type: "boolean", default: false },
  },
});
const kind = fileSystems.find((each) => each === values["file-system"]);
const scene = powerScenes.find((each) => each === values.scene);
if (kind === undefined || scene === undefined) throw new Error("no such file system or scene");
const nodes = Number(values.nodes);

using disks = loopDisks(kind, scene === "members" ? nodes + 1 : nodes);
if (disks === undefined) process.exit(1);
const beganMs = performance.now();
const findings: string[] = [];
let cuts = 0;
let writes = 0;
try {
  writes = await powerCuts({
    disks: disks.all,
    nodes,
    cuts: Number(values.cuts),
    scene,
    random: new Random(Number(values.seed)),
    told: (what) => console.log(`${++cuts}, ${what}`),
  });
} catch (error) {
  console.error(error);
  findings.push(`${scene} on ${kind}, seed ${values.seed}: ${String(error).split("\n", 1)[0]!}`);
  process.exitCode = 1;
}
const seconds = Math.round((performance.now() - beganMs) / 1_000);
console.log(
  `${cuts} cuts of ${nodes} nodes on ${kind}, ${scene}, seed ${values.seed}: ${writes} writes in ${seconds} s, ${findings.length} findings`,
);
if (values.evidence)
  recordEvidence({ kind: "power", seconds, amounts: { cuts, writes }, findings });

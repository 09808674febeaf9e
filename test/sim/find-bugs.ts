/**
 * Searches afresh for a seed that finds each planted bug and records it: `bun test/sim/find-bugs.ts [NAME…]`. To be run when the simulation
 * has changed and the recorded seeds no longer find their bugs. Fails when a bug survives.
 */
import { join } from "node:path";
import { isBugName, plantedBugs } from "./planted-bugs.ts";

const seedsMax = 2_000;
const recordPath = join(import.meta.dir, "planted-bugs.json");

export interface BugRecord {
  readonly seed: number;
  readonly events: number;
  /** What broke, at the time of recording. */
  readonly found: string;
}

const wanted = process.argv.slice(2);
for (const name of wanted) if (!isBugName(name)) throw new Error(`no planted bug ${name}`);
const names = Object.keys(plantedBugs).filter(
  (name) => wanted.length === 0 || wanted.includes(name),
);

const file = Bun.file(recordPath);
const records: Record<string, BugRecord> = (await file.exists()) ? await file.json() : {};
let survivors = 0;
for (const name of names) {
  const script = join(import.meta.dir, "run.ts");
  const run = Bun.spawnSync([process.execPath, script, "--seeds", `${seedsMax}`, "--bug", name]);
  const [, seed, found] =
    /^seed (\d+) fails after \d+ events: (.*)$/m.exec(run.stderr.toString()) ?? [];
  if (seed === undefined || found === undefined) {
    console.log(`${name}: survives ${seedsMax} seeds ${run.stderr.toString()}`);
    survivors++;
    continue;
  }
  records[name] = { seed: Number(seed), events: 2_000, found: found.slice(0, 160) };
  console.log(`${name}: seed ${seed}: ${found}`);
}
await Bun.write(recordPath, `${JSON.stringify(records, undefined, 2)}\n`);
process.exit(survivors === 0 ? 0 : 1);

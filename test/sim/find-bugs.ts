/**
 * Searches afresh for seeds that find each planted bug, once with all invariants and once as a black box, and records them:
 * `bun test/sim/find-bugs.ts [NAME…]`. To be run when the simulation or the code has changed so much that the recorded seeds
 * no longer find their bugs; `bun test/sim/readme.ts` afterwards. Fails when a bug survives all invariants.
 */
import { join } from "node:path";
import { isBugName, plantedBugs } from "./planted-bugs.ts";

const seedsMax = 2_000;
const recordPath = join(import.meta.dir, "planted-bugs.json");

export interface Finding {
  readonly seed: number;
  /** What broke, at the time of recording. */
  readonly found: string;
}

export interface BugRecord extends Finding {
  /** Found without looking at what nodes promise each other; null = not within as many seeds, absent = not searched yet. */
  readonly blackBox?: Finding | null;
}

function search(name: string, ...flags: readonly string[]): Finding | null {
  const run = Bun.spawnSync([
    process.execPath,
    join(import.meta.dir, "run.ts"),
    "--seeds",
    `${seedsMax}`,
    "--bug",
    name,
    "--no-shrink",
    ...flags,
  ]);
  const text = run.stderr.toString();
  const [, seed, found] = /^seed (\d+) fails after \d+ events: (.*)$/m.exec(text) ?? [];
  if (seed !== undefined && found !== undefined) {
    return { seed: Number(seed), found: found.slice(0, 160) };
  }
  if (run.exitCode !== 0) throw new Error(`${name}: ${text}`);
  return null;
}

if (import.meta.main) {
  const wanted = process.argv.slice(2);
  for (const name of wanted) if (!isBugName(name)) throw new Error(`no planted bug ${name}`);
  const file = Bun.file(recordPath);
  const known: Record<string, BugRecord> = (await file.exists()) ? await file.json() : {};
  const records: Record<string, BugRecord> = {};
  let survivors = 0;
  for (const name of Object.keys(plantedBugs)) {
    const record = known[name];
    if (wanted.length > 0 && !wanted.includes(name)) {
      if (record !== undefined) records[name] = record;
      continue;
    }
    const finding = search(name);
    if (finding === null) {
      console.log(`${name}: survives ${seedsMax} seeds`);
      survivors++;
      continue;
    }
    const blackBox = search(name, "--black-box");
    records[name] = { ...finding, blackBox };
    console.log(`${name}: ${finding.seed}, black box ${blackBox?.seed ?? "not"}: ${finding.found}`);
  }
  await Bun.write(recordPath, `${JSON.stringify(records, undefined, 2)}\n`);
  process.exit(survivors === 0 ? 0 : 1);
}

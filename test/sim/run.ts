/**
 * Long runs: `bun test/sim/run.ts --seeds N --from S [--events E] [--with KIND,…] [--without KIND,…] [--bug NAME] [--black-box] [--no-shrink] [--verbose] [--evidence]`.
 * Prints how fast it goes, and of the first seed that fails what broke, then the smallest run of that seed that still breaks, with the command that
 * repeats it; then the status is 1.
 */
import { parseArgs } from "node:util";
import { recordEvidence } from "../evidence.ts";
import { isBugName, plant, plantedBugs } from "./planted-bugs.ts";
import { isKind, kinds } from "./swarm.ts";
import { emptyTally, happenings } from "./tally.ts";

const { values } = parseArgs({
  allowNegative: true,
  options: {
    seeds: { type: "string", default: "500" },
    from: { type: "string", default: "1" },
    events: { type: "string", default: "2000" },
    /** Kinds of faults and strangeness to leave out, separated by commas. */
    without: { type: "string", default: "" },
    /** Kinds of runs that each seed is to be: with applications, with groups, and of those hotGroups, earlyReturns, hostChanges. */
    with: { type: "string", default: "" },
    bug: { type: "string" },
    /** Judge by what is applied and what clients see alone. */
    "black-box": { type: "boolean", default: false },
    shrink: { type: "boolean", default: true },
    /** One line per seed. */
    verbose: { type: "boolean", default: false },
    /** Append what this run showed to test/evidence.jsonl. */
    evidence: { type: "boolean", default: false },
  },
});
const seeds = Number(values.seeds);
const from = Number(values.from);
const events = Number(values.events);
const { bug } = values;
const kindsOf = (list: string): string[] => list.split(",").filter((kind) => kind !== "");
const without = kindsOf(values.without);
const wanted = kindsOf(values.with);
if (!without.every(isKind) || !wanted.every(isKind))
  throw new Error(`--with and --without take ${kinds.join(",")}`);
if (bug !== undefined) {
  if (!isBugName(bug)) throw new Error(`--bug is one of ${Object.keys(plantedBugs).join(", ")}`);
  plant(bug);
}
// Not before the bug is planted.
const { simulate } = await import("./simulation.ts");
const { commandOf, shrink } = await import("./shrink.ts");

const startMs = performance.now();
const tally = emptyTally();
let total = 0;
let virtualMs = 0;
let operations = 0;
let leaders = 0;
for (let seed = from; seed < from + seeds; seed++) {
  const options = { seed, events, without, wanted, blackBox: values["black-box"] };
  const result = simulate(options);
  total += result.events;
  virtualMs += result.virtualMs;
  operations += result.operations;
  leaders += result.leaders;
  for (const happening of happenings) tally[happening] += result.tally[happening];
  const { failure } = result;
  if (values.verbose) console.log(JSON.stringify({ ...result, failure: failure !== undefined }));
  if (failure === undefined) continue;
  if (values.evidence) evidence(seed - from + 1, [`seed ${seed}: ${firstLine(failure)}`]);
  console.error(`seed ${seed} fails after ${result.events} events: ${whatBroke(failure)}`);
  console.error(`repeat: ${commandOf(options, bug)}`);
  if (values.shrink) {
    const small = shrink(options);
    const { message } = small.result.failure as Error;
    console.error(`smallest of ${small.runs} runs, ${small.result.events} events: ${message}`);
    console.error(`repeat: ${commandOf(small.options, bug)}`);
  }
  process.exit(1);
}
const seconds = (performance.now() - startMs) / 1_000;
// Others may use the machine too.
const { user, system } = process.cpuUsage();
const cpuSeconds = (user + system) / 1_000_000;
console.log(
  `${seeds} seeds in ${seconds.toFixed(1)} s: ${(seeds / seconds).toFixed(1)} seeds/s, ${(seeds / cpuSeconds).toFixed(1)} per second of CPU, ${Math.round(total / seconds)} events/s, ${(virtualMs / 1_000 / seconds).toFixed(0)}x real time, ${operations} operations, ${leaders} leaders`,
);
if (values.evidence) evidence(seeds, []);
console.log(happenings.map((happening) => `${tally[happening]} ${happening}`).join(", "));

function evidence(seedsRun: number, findings: readonly string[]): void {
  recordEvidence({
    kind: "simulation",
    seconds: Math.round((performance.now() - startMs) / 1_000),
    amounts: { seeds: seedsRun },
    findings,
  });
}

function firstLine(failure: unknown): string {
  return failure instanceof Error ? failure.message.split("\n", 1)[0]! : String(failure);
}

function whatBroke(failure: unknown): string {
  return failure instanceof Error ? (failure.stack ?? failure.message) : String(failure);
}

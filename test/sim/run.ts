/**
 * Long runs: `bun test/sim/run.ts --seeds N --from S [--events E] [--bug NAME]`. Prints how fast it goes, and of the first seed that fails what
 * broke and the command that repeats it; then the status is 1.
 */
import { parseArgs } from "node:util";
import { isBugName, plant, plantedBugs } from "./planted-bugs.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "500" },
    from: { type: "string", default: "1" },
    events: { type: "string", default: "2000" },
    bug: { type: "string" },
    /** Judge by what is applied and what clients see alone. */
    "black-box": { type: "boolean", default: false },
    /** One line per seed. */
    verbose: { type: "boolean", default: false },
  },
});
const seeds = Number(values.seeds);
const from = Number(values.from);
const events = Number(values.events);
const { bug } = values;
if (bug !== undefined) {
  if (!isBugName(bug)) throw new Error(`--bug is one of ${Object.keys(plantedBugs).join(", ")}`);
  plant(bug);
}
// Not before the bug is planted.
const { simulate } = await import("./simulation.ts");

const startMs = performance.now();
let total = 0;
let virtualMs = 0;
let operations = 0;
let leaders = 0;
for (let seed = from; seed < from + seeds; seed++) {
  const result = simulate({ seed, events, blackBox: values["black-box"] });
  total += result.events;
  virtualMs += result.virtualMs;
  operations += result.operations;
  leaders += result.leaders;
  const { failure } = result;
  if (values.verbose) console.log(JSON.stringify({ ...result, failure: failure !== undefined }));
  if (failure === undefined) continue;
  const what = failure instanceof Error ? failure.stack : String(failure);
  const planted = bug === undefined ? "" : ` --bug ${bug}`;
  console.error(`seed ${seed} fails after ${result.events} events: ${what}`);
  console.error(
    `repeat: bun test/sim/run.ts --seeds 1 --from ${seed} --events ${events}${planted}`,
  );
  process.exit(1);
}
const seconds = (performance.now() - startMs) / 1_000;
console.log(
  `${seeds} seeds in ${seconds.toFixed(1)} s: ${(seeds / seconds).toFixed(1)} seeds/s, ${Math.round(total / seconds)} events/s, ${(virtualMs / 1_000 / seconds).toFixed(0)}x real time, ${operations} operations, ${leaders} leaders`,
);

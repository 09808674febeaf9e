/**
 * Long runs: `bun test/sim/run.ts --seeds N --from S [--events E]`. Prints how fast it goes, and of the first seed that fails what broke
 * and the command that repeats it.
 */
import { parseArgs } from "node:util";
import { simulate } from "./simulation.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "500" },
    from: { type: "string", default: "1" },
    events: { type: "string", default: "2000" },
    verbose: { type: "boolean", default: false },
  },
});
const seeds = Number(values.seeds);
const from = Number(values.from);
const events = Number(values.events);

const startMs = performance.now();
let total = 0;
let virtualMs = 0;
let operations = 0;
for (let seed = from; seed < from + seeds; seed++) {
  const result = simulate({ seed, events });
  total += result.events;
  virtualMs += result.virtualMs;
  operations += result.operations;
  if (values.verbose) console.log(JSON.stringify(result));
  if (result.failure === undefined) continue;
  const { failure } = result;
  console.error(
    `seed ${seed} fails after ${result.events} events: ${failure instanceof Error ? failure.stack : String(failure)}`,
  );
  console.error(`repeat: bun test/sim/run.ts --seeds 1 --from ${seed} --events ${events}`);
  process.exit(1);
}
const seconds = (performance.now() - startMs) / 1_000;
console.log(
  `${seeds} seeds in ${seconds.toFixed(1)} s: ${(seeds / seconds).toFixed(1)} seeds/s, ${Math.round(total / seconds)} events/s, ${(virtualMs / 1_000 / seconds).toFixed(0)}x real time, ${operations} operations`,
);

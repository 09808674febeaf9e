/**
 * The faults of faults.test.ts for as long as one likes, on one language after the other:
 *
 *     bun test/apps/soak.ts --minutes 20 --seed 7
 *
 * Prints a line per round, one JSON line at the end, and ends with 1 where a history cannot be.
 */
import { numberFlags } from "../e2e/script-flags.ts";
import { Random } from "../sim/random.ts";
import { prepared, languages } from "./applications.ts";
import { FaultRounds } from "./fault-rounds.ts";

const { minutes, seed } = numberFlags({ minutes: 20, seed: Date.now() % 1_000_000 });
const random = new Random(seed);
const spoken = languages.filter(prepared);
const startMs = performance.now();
const totals: Record<string, unknown> = {};

process.stdout.write(`soak of applications: ${minutes} minutes, seed ${seed}\n`);
for (const [at, language] of spoken.entries()) {
  const untilMs = startMs + (minutes * 60_000 * (at + 1)) / spoken.length;
  await using rounds = new FaultRounds(language, random);
  try {
    await rounds.start();
    let count = 0;
    while (performance.now() < untilMs) {
      const what = await rounds.round();
      const seconds = Math.round((performance.now() - startMs) / 1_000);
      const counts = JSON.stringify(rounds.counts);
      process.stdout.write(
        `${seconds} s, ${language.name}, round ${++count}: ${what}; ${counts}\n`,
      );
    }
    totals[language.name] = { rounds: count, ...rounds.counts };
  } catch (error) {
    process.stderr.write(`${rounds.cluster.logTails()}\nseed ${seed}: ${String(error)}\n`);
    process.exitCode = 1;
    break;
  }
}
process.stdout.write(`${JSON.stringify({ soak: "applications", seed, minutes, ...totals })}\n`);

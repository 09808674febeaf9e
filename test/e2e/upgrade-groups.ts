/**
 * From the build of a commit before groups to the one of today, as upgrade-groups-round.ts does it:
 *
 *     bun test/e2e/upgrade-groups.ts --from 8cc3028 --rounds 3 --writers 8
 *
 * Prints a line per step; ends with 1 where anything is not as it should be.
 */
import { parseArgs } from "node:util";
import { buildOfCommit } from "./builds.ts";
import { upgradeToGroups } from "./upgrade-groups-round.ts";

const { values } = parseArgs({
  options: {
    from: { type: "string", default: "8cc3028" },
    rounds: { type: "string", default: "1" },
    writers: { type: "string", default: "8" },
  },
});
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const older = await buildOfCommit(values.from);
for (let round = 1; round <= Number(values.rounds); round++) {
  const { acknowledged, reads, longestMs } = await upgradeToGroups({
    older,
    writersPerClient: Number(values.writers),
    between: 200,
    say,
  });
  say(
    `round ${round}: from ${older.name}: ${acknowledged} writes, none lost, none unknown; ${reads} linearizable reads; longest wait ${Math.round(longestMs)} ms`,
  );
}

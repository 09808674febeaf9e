/**
 * Groups removed at each moment of a flush, a checkpoint, a snapshot and of the removal itself, see removal-round.ts:
 *
 *     bun test/e2e/group-removal.ts --megabytes 64 --parts 4 --part 1
 *
 * `--parts 4 --part 2` does every fourth round from the second on. Prints a line per round; ends with 1 where anything is wrong.
 */
import { withCluster } from "./cluster.ts";
import { endsClean, type Ending, Failpoints, moments, prepare, round } from "./removal-round.ts";
import { numberFlags } from "./script-flags.ts";

const flags = numberFlags({ megabytes: 16, part: 1, parts: 1 });
const endings: readonly Ending[] = ["killed", "goes on"];

using failpoints = new Failpoints();
await withCluster(failpoints.options, async (cluster) => {
  const options = { cluster, failpoints, bytes: flags.megabytes * 1e6 };
  await prepare(options);
  const rounds = moments.flatMap((moment) => endings.map((ending) => ({ moment, ending })));
  for (const [at, { moment, ending }] of rounds.entries()) {
    if (at % flags.parts !== flags.part - 1) continue;
    process.stdout.write(`${await round(options, moment, ending)}\n`);
  }
  await endsClean(options);
});

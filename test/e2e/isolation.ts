/**
 * A follower is cut off from the others and comes back, as often as one likes: the others never notice more than that it is away, and on its
 * return it deposes nobody.
 *
 *     bun test/e2e/isolation.ts --rounds 50 --seed 7
 *
 * It is away for shorter and for longer than an election time-out; it comes back by the connections of before, or by new ones. Meanwhile clients
 * write. Prints a line per ten rounds and one JSON line at the end; ends with 1 where the term rose, anybody campaigned or a write was lost.
 */
import { Random } from "../sim/random.ts";
import { withCluster } from "./cluster.ts";
import { isolationRounds } from "./isolation-rounds.ts";
import { PeerNetwork } from "./peer-network.ts";
import { numberFlags } from "./script-flags.ts";

const { rounds, seed } = numberFlags({ rounds: 50, seed: Date.now() % 1_000_000 });

process.stdout.write(`isolation: ${rounds} rounds, seed ${seed}\n`);
try {
  await using network = new PeerNetwork();
  await withCluster({ network }, async (cluster) => {
    const result = await isolationRounds({
      cluster,
      network,
      random: new Random(seed),
      rounds,
      told: (line) => process.stdout.write(`${line}\n`),
    });
    process.stdout.write(`${JSON.stringify({ isolation: { seed, rounds, ...result } })}\n`);
  });
} catch (error) {
  process.stderr.write(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
}

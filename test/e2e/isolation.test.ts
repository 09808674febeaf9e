/** A follower that was cut off and comes back deposes nobody: the term stays. As often as one likes: isolation.ts. */
import { expect, test } from "bun:test";
import { Random } from "../sim/random.ts";
import { withCluster } from "./cluster.ts";
import { isolationRounds } from "./isolation-rounds.ts";
import { PeerNetwork } from "./peer-network.ts";

const testMsMax = 60_000;
const rounds = 4;

test(
  "a follower cut off and back again and again causes no election",
  async () => {
    const seed = Date.now() % 1_000_000;
    await using network = new PeerNetwork();
    await withCluster({ network }, async (cluster) => {
      const random = new Random(seed);
      const result = await isolationRounds({ cluster, network, random, rounds }).catch((error) => {
        throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
      });
      expect(result.acknowledged).toBeGreaterThan(0);
    });
  },
  testMsMax,
);

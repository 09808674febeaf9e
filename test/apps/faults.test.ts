/** A few rounds of killed daemons and applications, in Python and in Go, with every history checked; soak.ts goes on for longer. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { Random } from "../sim/random.ts";
import { go, prepared, python } from "./applications.ts";
import { FaultRounds } from "./fault-rounds.ts";

setDefaultTimeout(180_000);

for (const language of [python, go]) {
  test.skipIf(!prepared(language))(
    `kills of daemons and applications in ${language.name}`,
    async () => {
      const seed = Date.now() % 1_000_000;
      await using rounds = new FaultRounds(language, new Random(seed));
      try {
        await rounds.start();
        for (let i = 0; i < 2; i++) await rounds.round();
        expect(rounds.counts.acknowledged).toBeGreaterThan(20);
        expect(rounds.counts.reads).toBeGreaterThan(10);
      } catch (error) {
        process.stderr.write(`seed ${seed}\n${rounds.cluster.logTails()}`);
        throw error;
      }
    },
  );
}
